//! Metrics of the placement driver.

use std::time::Instant;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

/// Counters and gauges, in a registry of their own so that several servers fit one process.
pub struct Metrics {
    registry: Registry,
    /// Timestamps given out.
    pub timestamps: IntCounter,
    /// Requests for timestamps.
    pub tso_requests: IntCounter,
    /// Time until a request for timestamps from another process is answered.
    pub tso_seconds: Histogram,
    /// Heartbeats of regions.
    pub region_heartbeats: IntCounter,
    /// Heartbeats of stores.
    pub store_heartbeats: IntCounter,
    /// Regions known.
    pub regions: IntGauge,
    /// Stores known.
    pub stores: IntGauge,
    /// Open client connections.
    pub connections: IntGauge,
    /// Time from a change to its acknowledgement.
    pub write_seconds: Histogram,
    /// Time of one look at the cluster by all schedulers.
    pub schedule_seconds: Histogram,
    /// Operators by reason and by how they stand; set when metrics are asked for.
    pub operators: IntGaugeVec,
    /// Operators under way by kind; set when metrics are asked for.
    pub operators_running: IntGaugeVec,
    /// Stores by state; set when metrics are asked for.
    pub store_states: IntGaugeVec,
    /// Numbers of the raft group by name; set when metrics are asked for.
    pub raft: IntGaugeVec,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let write_seconds = Histogram::with_opts(
            HistogramOpts::new("rutile_pd_write_duration_seconds", "From a change to its acknowledgement")
                .buckets(prometheus::exponential_buckets(0.0001, 2.0, 14)?),
        )?;
        registry.register(Box::new(write_seconds.clone()))?;
        let tso_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "rutile_pd_tso_duration_seconds",
                "From a request for timestamps to its answer",
            )
            .buckets(prometheus::exponential_buckets(0.000_001, 4.0, 12)?),
        )?;
        registry.register(Box::new(tso_seconds.clone()))?;
        let schedule_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "rutile_pd_schedule_duration_seconds",
                "One look at the cluster by all schedulers",
            )
            .buckets(prometheus::exponential_buckets(0.0001, 4.0, 8)?),
        )?;
        registry.register(Box::new(schedule_seconds.clone()))?;
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        Ok(Metrics {
            timestamps: counter("rutile_pd_timestamps_total", "Timestamps given out")?,
            tso_seconds,
            tso_requests: counter("rutile_pd_tso_requests_total", "Requests for timestamps")?,
            region_heartbeats: counter("rutile_pd_region_heartbeats_total", "Heartbeats of regions")?,
            store_heartbeats: counter("rutile_pd_store_heartbeats_total", "Heartbeats of stores")?,
            regions: gauge("rutile_pd_regions", "Regions known")?,
            stores: gauge("rutile_pd_stores", "Stores known")?,
            connections: gauge("rutile_pd_connections", "Open client connections")?,
            write_seconds,
            schedule_seconds,
            operators: gauges("rutile_pd_operators", "Operators by reason and event", &["reason", "event"])?,
            operators_running: gauges(
                "rutile_pd_operators_running",
                "Operators under way by kind",
                &["kind"],
            )?,
            store_states: gauges("rutile_pd_store_states", "Stores by state", &["state"])?,
            raft: gauges("rutile_pd_raft", "Numbers of the raft group of the members", &["name"])?,
            registry,
        })
    }

    /// Measures one change.
    pub async fn time_write<T>(&self, change: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let result = change.await;
        self.write_seconds.observe(start.elapsed().as_secs_f64());
        result
    }

    /// In Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}
