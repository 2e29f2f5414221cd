//! Stale reads of a region that sleeps: they go on, and nobody wakes it for them.

mod support;

use std::time::{Duration, Instant};

use rutile_kv::config::Span;
use rutile_kv::metrics;
use support::nodes::{Nodes, value};

/// Waits until no raft message has been sent for a while; answers how many there were.
async fn asleep() -> u64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let before = metrics::RAFT_MESSAGES_SENT.get();
        tokio::time::sleep(Duration::from_millis(500)).await;
        if metrics::RAFT_MESSAGES_SENT.get() == before {
            return before;
        }
        assert!(Instant::now() < deadline, "the region does not fall asleep");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_region_is_resolved_and_sleeps_on() {
    let nodes = Nodes::start(3, |config| {
        config.raft.hibernate_ticks = 5;
        config.resolved_ts.advance_interval = Span::ms(30);
    })
    .await;
    nodes.lead("k", 0).await;
    nodes.write("k", "v", nodes.timestamp().await).await;
    let sent = asleep().await;
    for _ in 0..3 {
        let ts = nodes.timestamp().await;
        for i in 0..3 {
            let deadline = Instant::now() + Duration::from_secs(60);
            let answer = loop {
                let answer = nodes.get(i, "k", ts, |ctx| ctx.stale_read = true).await;
                if answer.region_error.is_none() {
                    break answer;
                }
                assert!(Instant::now() < deadline, "node {i} does not serve {ts}: {answer:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            assert_eq!(value(&answer), Some("v".into()), "node {i}");
        }
    }
    assert_eq!(metrics::RAFT_MESSAGES_SENT.get(), sent, "the region was woken");
    // It is there all the same.
    nodes.write("k", "w", nodes.timestamp().await).await;
    nodes.shutdown().await;
}
