//! Start and stop order of a store.
