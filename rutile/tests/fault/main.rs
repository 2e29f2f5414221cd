//! Clusters of real processes that are killed, paused, cut off from each other and slowed down while clients work.

mod haproxy;
mod harness;
mod kill;
mod load;
mod nemesis;
mod runs;
mod scale_out;
mod workload;
