//! Logical to physical plan.
