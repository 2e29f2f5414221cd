//! Clients that write without a pause, and notice everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::harness::cluster::Cluster;
use crate::harness::sql::{Failure, Session};
use crate::harness::{PATIENCE, until};

/// Clients that write at the same time.
pub const WRITERS: usize = 8;

/// What one writer did last.
#[derive(Clone, Copy)]
struct Latest {
    /// When its newest acknowledged statement was begun and when it ended.
    begun: Instant,
    ended: Instant,
}

/// Clients that insert rows one after the other.
pub struct Load {
    stop: AtomicBool,
    latest: Vec<Mutex<Option<Latest>>>,
    /// By writer: when, and why.
    failures: Mutex<Vec<(usize, Failure)>>,
    /// Rows that were acknowledged.
    rows: Mutex<Vec<i64>>,
    /// By writer: the server it is connected to.
    server: Vec<AtomicUsize>,
    /// Whenever it changes, every writer goes back to its own server.
    round: AtomicUsize,
    /// Length of one column of a row.
    row_bytes: usize,
    is_slow: AtomicBool,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Load {
    /// Writer `w` is connected to server `w` modulo the number of servers. Rows are written all over the table.
    pub async fn start(cluster: &Cluster, servers: &[SocketAddr], row_bytes: usize) -> Arc<Self> {
        cluster.query("CREATE TABLE test.written (id BIGINT PRIMARY KEY, w INT, text TEXT)").await;
        cluster.is_known("test.written").await;
        let load = Arc::new(Load {
            stop: AtomicBool::new(false),
            latest: (0..WRITERS).map(|_| Mutex::default()).collect(),
            failures: Mutex::default(),
            rows: Mutex::default(),
            server: (0..WRITERS).map(|_| AtomicUsize::new(0)).collect(),
            round: AtomicUsize::new(0),
            row_bytes,
            is_slow: AtomicBool::new(false),
            tasks: Mutex::default(),
        });
        for w in 0..WRITERS {
            let writer = Arc::clone(&load).write(w, Session::new(servers, w));
            load.tasks.lock().push(tokio::spawn(writer));
        }
        until("every writer writes", || async { load.latest.iter().all(|l| l.lock().is_some()) }).await;
        load
    }

    async fn write(self: Arc<Self>, w: usize, mut session: Session) {
        let (mut number, mut round) = (w as i64, 0);
        let text = "x".repeat(self.row_bytes);
        while !self.stop.load(Ordering::Relaxed) {
            let asked = self.round.load(Ordering::Relaxed);
            if std::mem::replace(&mut round, asked) != asked {
                session.go_to(w);
            }
            let begun = Instant::now();
            // One after the other, but far from each other.
            let id = number.wrapping_mul(0x1E37_79B9_7F4A_7C15) & i64::MAX;
            match session.change("INSERT INTO written VALUES (?, ?, ?)", (id, w, &text)).await {
                Ok(_) => {
                    *self.latest[w].lock() = Some(Latest { begun, ended: Instant::now() });
                    self.rows.lock().push(id);
                    self.server[w].store(session.server(), Ordering::Relaxed);
                }
                Err(failure) => self.failures.lock().push((w, failure)),
            }
            number += WRITERS as i64;
            if self.is_slow.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// How long after `from` every writer had a statement acknowledged that it began later.
    pub async fn goes_on(&self, from: Instant) -> Duration {
        let mut first: Vec<Option<Instant>> = vec![None; WRITERS];
        let deadline = Instant::now() + PATIENCE;
        while first.iter().any(Option::is_none) {
            assert!(Instant::now() < deadline, "writes do not go on; failures: {:?}", self.failures.lock());
            for (first, latest) in first.iter_mut().zip(&self.latest) {
                let news = latest.lock().filter(|latest| latest.begun > from);
                *first = first.or(news.map(|latest| latest.ended));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        first.into_iter().flatten().map(|at| at - from).max().expect("there are writers")
    }

    /// Every writer goes to its own server.
    pub async fn spread(&self, servers: usize) {
        self.round.fetch_add(1, Ordering::Relaxed);
        until("every writer is at its own server", || async {
            (0..WRITERS).all(|w| self.server[w].load(Ordering::Relaxed) == w % servers)
        })
        .await;
    }

    /// From now on every writer pauses between its rows.
    pub fn go_slowly(&self) {
        self.is_slow.store(true, Ordering::Relaxed);
    }

    pub fn take_failures(&self) -> Vec<(usize, Failure)> {
        std::mem::take(&mut *self.failures.lock())
    }

    /// Stops the writers; every acknowledged row is there.
    pub async fn check(&self, cluster: &Cluster) {
        self.stop.store(true, Ordering::Relaxed);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.await.unwrap();
        }
        let mut session = Session::new(&cluster.sql_addresses(), 0);
        let (there, _) = session.run::<i64>("SELECT id FROM written", ()).await.unwrap();
        let there: std::collections::HashSet<i64> = there.into_iter().collect();
        let rows = self.rows.lock();
        let lost: Vec<&i64> = rows.iter().filter(|id| !there.contains(id)).collect();
        assert!(lost.is_empty(), "{} acknowledged rows are lost: {lost:?}", lost.len());
        println!("{} rows were acknowledged and are there", rows.len());
    }
}
