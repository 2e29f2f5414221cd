//! A whole cluster in this process, and clients of its key-value store over both transports.

mod gc;
mod support;
mod transactions;
mod vanished;
