//! SQL text to our own syntax tree.
