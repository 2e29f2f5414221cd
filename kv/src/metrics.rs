//! Prometheus metrics of a store. Names end in units; none is labelled by region, table or key.

use std::sync::LazyLock;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGaugeVec, Opts, Registry, TextEncoder};

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

fn histogram(name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
    let opts = HistogramOpts::new(name, help).buckets(buckets);
    let histogram = Histogram::with_opts(opts).expect("metric names are constants");
    let _ = REGISTRY.register(Box::new(histogram.clone()));
    histogram
}

fn counter(name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::with_opts(Opts::new(name, help)).expect("metric names are constants");
    let _ = REGISTRY.register(Box::new(counter.clone()));
    counter
}

/// One value for each store of the process.
fn by_store(name: &str, help: &str) -> IntGaugeVec {
    let gauge = IntGaugeVec::new(Opts::new(name, help), &["store"]).expect("metric names are constants");
    let _ = REGISTRY.register(Box::new(gauge.clone()));
    gauge
}

fn buckets(start: f64, factor: f64, count: usize) -> Vec<f64> {
    prometheus::exponential_buckets(start, factor, count).expect("bucket bounds are constants")
}

/// Time to append one round's entries of all regions, with its sync.
pub static RAFT_LOG_WRITE_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "Time to append the entries of one round, with its sync";
    histogram("rutile_kv_raft_log_write_seconds", help, buckets(0.000_05, 2.0, 16))
});
/// Bytes per RocksDB batch of applied entries.
pub static APPLY_BATCH_BYTES: LazyLock<Histogram> = LazyLock::new(|| {
    histogram("rutile_kv_apply_batch_bytes", "Size of one batch of applied entries", buckets(256.0, 4.0, 10))
});
/// Splits applied.
pub static SPLITS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("rutile_kv_splits_total", "Region splits applied"));
/// Replicas compared with their leader.
pub static CONSISTENCY_CHECKS: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("rutile_kv_consistency_checks_total", "Checksums of replicas compared with their leader's")
});
/// Replicas that differ from their leader.
pub static CONSISTENCY_ERRORS: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("rutile_kv_consistency_errors_total", "Replicas whose checksum differs from their leader's")
});
/// Merges called off because their target changed.
pub static MERGE_ROLLBACKS: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("rutile_kv_merge_rollbacks_total", "Region merges called off because their target changed")
});
/// Peers that came to lead.
pub static LEADERSHIPS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("rutile_kv_leaderships_total", "Times that a peer of a region came to lead it"));
/// Regions with a peer on a store; as of its last heartbeat.
pub static REGIONS: LazyLock<IntGaugeVec> =
    LazyLock::new(|| by_store("rutile_kv_regions", "Regions with a peer on the store"));
/// Regions led by a store; as of its last heartbeat.
pub static LEADERS: LazyLock<IntGaugeVec> =
    LazyLock::new(|| by_store("rutile_kv_leaders", "Regions that the store leads"));
/// Merges applied.
pub static MERGES: LazyLock<IntCounter> =
    LazyLock::new(|| counter("rutile_kv_merges_total", "Region merges applied"));
/// Regions read to find split keys.
pub static SPLIT_SCANS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("rutile_kv_split_scans_total", "Regions read to find split keys"));

/// Waits that were ended because they closed a circle over several stores.
pub static DEADLOCKS_OVER_STORES: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("rutile_kv_deadlocks_over_stores_total", "Waits that closed a circle over several stores")
});
/// Circles that the detector saw and that were not there.
pub static DEADLOCKS_REFUTED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("rutile_kv_deadlocks_refuted_total", "Circles that the detector saw and that were not confirmed")
});
/// Time to write one batch of applied entries.
pub static APPLY_WRITE_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "Time to write one batch of applied entries";
    histogram("rutile_kv_apply_write_seconds", help, buckets(0.000_01, 2.0, 16))
});
/// Time from a proposal until its entry is committed.
pub static COMMIT_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "Time from a proposal until its entry is on a quorum's disks";
    histogram("rutile_kv_commit_seconds", help, buckets(0.000_05, 2.0, 16))
});
/// Time from an entry's commit until its effect is visible.
pub static APPLY_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "Time from the commit of a batch's oldest entry until its effect is visible";
    histogram("rutile_kv_apply_seconds", help, buckets(0.000_01, 2.0, 18))
});
/// Entries proposed.
pub static PROPOSALS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("rutile_kv_proposals_total", "Entries proposed to raft groups"));
/// Raft messages given to the transport.
pub static RAFT_MESSAGES_SENT: LazyLock<IntCounter> =
    LazyLock::new(|| counter("rutile_kv_raft_messages_sent_total", "Raft messages sent to other stores"));
/// Raft messages that came from other stores.
pub static RAFT_MESSAGES_RECEIVED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("rutile_kv_raft_messages_received_total", "Raft messages received from other stores")
});
/// Raft messages that could not be sent.
pub static RAFT_MESSAGES_DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "rutile_kv_raft_messages_dropped_total",
        "Raft messages dropped: a queue was full or a store away",
    )
});
/// Snapshots sent completely.
pub static SNAPSHOTS_SENT: LazyLock<IntCounter> =
    LazyLock::new(|| counter("rutile_kv_snapshots_sent_total", "Region snapshots sent completely"));
/// Snapshots put into the engine.
pub static SNAPSHOTS_APPLIED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("rutile_kv_snapshots_applied_total", "Region snapshots put into the engine"));

/// Adds a metric of another room to what `/metrics` shows.
pub fn register(metric: Box<dyn prometheus::core::Collector>) {
    let _ = REGISTRY.register(metric);
}

/// All metrics in Prometheus' text format.
#[must_use]
pub fn render() -> String {
    let histograms =
        [&RAFT_LOG_WRITE_SECONDS, &APPLY_BATCH_BYTES, &APPLY_WRITE_SECONDS, &APPLY_SECONDS, &COMMIT_SECONDS];
    for metric in histograms {
        LazyLock::force(metric);
    }
    LazyLock::force(&REGIONS);
    LazyLock::force(&LEADERS);
    let counters = [
        &SPLITS,
        &MERGES,
        &MERGE_ROLLBACKS,
        &LEADERSHIPS,
        &CONSISTENCY_CHECKS,
        &CONSISTENCY_ERRORS,
        &SPLIT_SCANS,
        &PROPOSALS,
        &RAFT_MESSAGES_SENT,
        &RAFT_MESSAGES_RECEIVED,
        &RAFT_MESSAGES_DROPPED,
        &SNAPSHOTS_SENT,
        &SNAPSHOTS_APPLIED,
        &DEADLOCKS_OVER_STORES,
        &DEADLOCKS_REFUTED,
    ];
    for metric in counters {
        LazyLock::force(metric);
    }
    TextEncoder::new().encode_to_string(&REGISTRY.gather()).unwrap_or_default()
}
