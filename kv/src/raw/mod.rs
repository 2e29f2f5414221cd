//! Raw key-value commands.
