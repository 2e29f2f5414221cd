//! What one connection holds: variables, transaction, prepared statements, and the life of a statement.
