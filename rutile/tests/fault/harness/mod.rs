//! A cluster of real processes: three placement drivers, stores and SQL servers, each on a machine of its own as far as the
//! network goes, where the system permits it.

pub mod cluster;
pub mod network;
pub mod process;
pub mod slow_disk;
pub mod sql;

use std::time::Duration;

/// How long a condition may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// Waits until a condition holds; answers whether it did in time.
pub async fn holds_within<F: Future<Output = bool>>(
    limit: Duration,
    mut condition: impl FnMut() -> F,
) -> bool {
    let waited = async {
        while !condition().await {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(limit, waited).await.is_ok()
}

/// Waits until a condition holds, and fails if it does not in [`PATIENCE`].
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    assert!(holds_within(PATIENCE, condition).await, "never: {what}");
}

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Says that a part of a test does not run here; in capitals, for it must not be overlooked.
pub fn skip(what: &str, why: &str) {
    eprintln!("\n*** NOT TESTED HERE: {what}: {why} ***\n");
}
