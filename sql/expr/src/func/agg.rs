//! Aggregate functions: MySQL's result types over DataFusion's machinery.
