//! Logical and physical plans: data only.
