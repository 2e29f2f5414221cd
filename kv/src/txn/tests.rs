//! Scripted transactions.
