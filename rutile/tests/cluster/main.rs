//! A whole cluster in this process, and clients of its key-value store over both transports.

mod faults;
mod gc;
mod reads;
mod support;
mod timestamps;
mod transactions;
mod vanished;
