//! Names, types and collations: syntax tree to logical plan.
