//! Prometheus metrics of a store.
