//! Physical plan to rows.
