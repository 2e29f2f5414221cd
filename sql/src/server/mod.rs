//! The MySQL protocol: listener, handshake, authentication, commands, result sets.
