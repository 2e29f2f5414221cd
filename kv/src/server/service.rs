//! The service of a store, one function per RPC.
