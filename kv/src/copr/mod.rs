//! Plans that run where the rows are: scan, filter, partial groups, the first rows of an order.
//!
//! - [`endpoint`]: a request from its checks to its answer.
//! - [`source`]: visible rows of ranges as batches, within the bounds of a page.
//! - [`page`]: one page: the source, the plan's steps over it, the answer.
//! - [`pool`]: the threads, apart from those that serve point reads.
//!
//! A request is answered in pages: an answer that stops early says which part of the ranges it covers, and the caller goes on
//! behind it. Partial groups and first rows of pages are put together by the caller as those of regions are.

pub mod endpoint;
pub mod page;
pub mod pool;
pub mod source;
#[cfg(test)]
mod tests;

pub use endpoint::Endpoint;
