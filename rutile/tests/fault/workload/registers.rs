//! Registers: rows through SQL, keys through raw access and keys in transactions. What the clients saw of each must have
//! been possible one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rutile_client::{Error, RawOptions, TxnMode, TxnOptions};
use rutile_linear::{Kind, NEVER, OPS_MAX, Op, is_linearizable};
use rutile_proto::ids::Timestamp;

use super::{Clients, Count, Mistake};
use crate::harness::sql::{Failure, Session};

pub const TABLES: [&str; 1] = ["CREATE TABLE test.registers (id BIGINT PRIMARY KEY, v BIGINT NOT NULL)"];

/// Registers of one kind that are in use at a time.
const WINDOW: usize = 4;
/// After so many operations another register takes the place of this one: checking takes long with more.
const OPS_MIN: usize = 90;
/// And after so many with an unknown outcome.
const UNKNOWN_MAX: usize = 8;
/// Longer than the clients try by themselves.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

/// How a register is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    Sql,
    Raw,
    Txn,
}

/// An operation that a client wants to do.
#[derive(Clone, Copy)]
enum Wish {
    Write(u64),
    Read,
    /// Put the second in the place of the first.
    Swap(u64, u64),
}

#[derive(Default)]
struct History {
    ops: Vec<Op>,
    unknown: usize,
}

/// What clients saw, and how they are reached.
#[derive(Default)]
pub struct Registers {
    pub count: Count,
    histories: Mutex<BTreeMap<(Access, usize), History>>,
    by_access: Mutex<BTreeMap<Access, u64>>,
}

struct Connection {
    access: Access,
    session: Session,
    clients: Arc<Clients>,
}

impl Registers {
    pub fn counts(&self) -> [u64; 3] {
        let counts = self.by_access.lock();
        [Access::Sql, Access::Raw, Access::Txn].map(|access| counts.get(&access).copied().unwrap_or(0))
    }

    /// A register that is not full.
    fn choose(&self, access: Access, slot: usize) -> usize {
        let histories = self.histories.lock();
        let full = |id: &usize| {
            histories.get(&(access, *id)).is_some_and(|h| h.ops.len() >= OPS_MIN || h.unknown >= UNKNOWN_MAX)
        };
        (slot..).step_by(WINDOW).find(|id| !full(id)).expect("there is no last number")
    }

    /// The value that was seen last, so that swaps have a chance.
    fn latest(&self, key: (Access, usize)) -> u64 {
        let histories = self.histories.lock();
        let seen = |op: &Op| match op.kind {
            Kind::Write(value) | Kind::Read(value) | Kind::Swap(_, value) => Some(value),
            Kind::Differs(_) => None,
        };
        histories.get(&key).and_then(|h| h.ops.iter().rev().find_map(seen)).unwrap_or(0)
    }

    fn record(&self, key: (Access, usize), kind: Kind, start: u64, end: u64) {
        let mut histories = self.histories.lock();
        let history = histories.entry(key).or_default();
        history.ops.push(Op { kind, start, end });
        history.unknown += usize::from(end == NEVER);
    }

    /// Nobody uses the register any more.
    fn retire(&self, key: (Access, usize)) {
        self.histories.lock().entry(key).or_default().unknown += UNKNOWN_MAX;
    }

    /// Works until told to stop.
    pub async fn operate(self: Arc<Self>, clients: Arc<Clients>, task: usize, access: Access) {
        let mut rng = StdRng::seed_from_u64(task as u64);
        let session = clients.session(task);
        let mut connection = Connection { access, session, clients: clients.clone() };
        let mut value = task as u64 + 1;
        while clients.goes_on() {
            let id = self.choose(access, rng.random_range(0..WINDOW));
            value += 16;
            let wish = wish(access, id, task, value, rng.random_range(0..10), || self.latest((access, id)));
            let start = clients.now();
            let done = tokio::time::timeout(OPERATION_TIMEOUT, connection.run(id, wish)).await;
            match (done.unwrap_or_else(|_| Err(Failure::Unknown("too late".into()))), wish) {
                (Ok(kind), _) => {
                    self.record((access, id), kind, start, clients.now());
                    self.count.done();
                    *self.by_access.lock().entry(access).or_default() += 1;
                }
                (Err(Failure::Unknown(_)), Wish::Write(new)) => {
                    self.record((access, id), Kind::Write(new), start, NEVER);
                    if access == Access::Raw {
                        self.retire((access, id));
                    }
                    self.count.failed(true).await;
                }
                (Err(Failure::Unknown(_)), Wish::Swap(old, new)) => {
                    self.record((access, id), Kind::Swap(old, new), start, NEVER);
                    self.count.failed(true).await;
                }
                (Err(_), _) => self.count.failed(false).await,
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..8))).await;
        }
    }

    /// Reads every register once more and looks at all histories.
    pub async fn check(&self, clients: &Arc<Clients>) -> Vec<String> {
        let keys: Vec<(Access, usize)> = self.histories.lock().keys().copied().collect();
        let mut wrong = vec![];
        for (access, id) in keys {
            let mut connection = Connection { access, session: clients.session(0), clients: clients.clone() };
            let start = clients.now();
            match connection.read(id, false).await {
                Ok(value) => self.record((access, id), Kind::Read(value), start, clients.now()),
                Err(failure) => wrong.push(format!("register {id} ({access:?}) cannot be read: {failure}")),
            }
        }
        for ((access, id), history) in self.histories.lock().iter() {
            assert!(history.ops.len() <= OPS_MAX);
            if !is_linearizable(&history.ops) {
                wrong.push(format!("no register behaves like {id} ({access:?}): {:?}", history.ops));
            }
        }
        wrong
    }
}

/// What to do next. A raw put whose answer is lost is sent again, so that it may happen twice: keys that are put have one
/// writer, who waits, and those that several write are only swapped.
fn wish(access: Access, id: usize, task: usize, value: u64, dice: u32, latest: impl FnOnce() -> u64) -> Wish {
    match (access, dice) {
        (Access::Sql, 0..3) | (Access::Txn, 0..5) => Wish::Write(value),
        (Access::Sql, 3..6) => Wish::Swap(latest(), value),
        (Access::Raw, 0..5) if id % WINDOW >= 2 => Wish::Swap(latest(), value),
        (Access::Raw, 0..5) if id % 2 == task % 2 => Wish::Write(value),
        _ => Wish::Read,
    }
}

impl Connection {
    async fn run(&mut self, id: usize, wish: Wish) -> Result<Kind, Failure> {
        match wish {
            Wish::Read => {
                let stale = self.clients.mistake == Mistake::StaleReads;
                self.read(id, stale).await.map(Kind::Read)
            }
            Wish::Write(value) => self.write(id, value).await.map(|()| Kind::Write(value)),
            Wish::Swap(old, new) => {
                let swapped = self.swap(id, old, new).await?;
                Ok(if swapped { Kind::Swap(old, new) } else { Kind::Differs(old) })
            }
        }
    }

    async fn read(&mut self, id: usize, stale: bool) -> Result<u64, Failure> {
        let client = &self.clients.client;
        let value = match self.access {
            Access::Sql => {
                let (rows, _) = self.session.run("SELECT v FROM registers WHERE id = ?", (id,)).await?;
                return Ok(rows.first().copied().unwrap_or(0));
            }
            Access::Raw => {
                client.raw(RawOptions { atomic: true, ..RawOptions::default() }).get(&key("raw", id)).await
            }
            Access::Txn => {
                let mut ts = client.timestamp().await.map_err(failure)?;
                if stale {
                    ts = Timestamp(ts.0 - (2000 << 18));
                }
                client.snapshot(ts).get(&key("txn", id)).await
            }
        };
        Ok(value.map_err(failure)?.map_or(0, |v| number(&v)))
    }

    async fn write(&mut self, id: usize, value: u64) -> Result<(), Failure> {
        let (client, text) = (&self.clients.client, value.to_string());
        match self.access {
            Access::Sql => {
                let statement = "INSERT INTO registers VALUES (?, ?) ON DUPLICATE KEY UPDATE v = VALUES(v)";
                self.session.change(statement, (id, value)).await.map(drop)
            }
            Access::Raw => {
                let raw = client.raw(RawOptions { atomic: true, ..RawOptions::default() });
                raw.put(key("raw", id), text, 0).await.map_err(maybe_executed)
            }
            Access::Txn => {
                let options = TxnOptions { mode: TxnMode::Optimistic, ..TxnOptions::default() };
                let txn = client.begin(options).await.map_err(failure)?;
                txn.put(key("txn", id), text).map_err(failure)?;
                txn.commit().await.map(drop).map_err(failure)
            }
        }
    }

    async fn swap(&mut self, id: usize, old: u64, new: u64) -> Result<bool, Failure> {
        match self.access {
            Access::Sql if old == 0 => {
                match self.session.change("INSERT INTO registers VALUES (?, ?)", (id, new)).await {
                    Err(Failure::Refused(1062, _)) => Ok(false),
                    other => other.map(|_| true),
                }
            }
            Access::Sql => {
                let statement = "UPDATE registers SET v = ? WHERE id = ? AND v = ?";
                Ok(self.session.change(statement, (new, id, old)).await? == 1)
            }
            Access::Raw => {
                let raw = self.clients.client.raw(RawOptions { atomic: true, ..RawOptions::default() });
                let expected = (old != 0).then(|| Bytes::from(old.to_string()));
                let swapped = raw.compare_and_swap(key("raw", id), expected, new.to_string(), 0).await;
                swapped.map(|(swapped, _)| swapped).map_err(maybe_executed)
            }
            Access::Txn => unreachable!("not asked for"),
        }
    }
}

fn key(kind: &str, id: usize) -> Bytes {
    format!("{kind}-register-{id:06}").into()
}

fn number(value: &[u8]) -> u64 {
    String::from_utf8_lossy(value).parse().expect("registers hold numbers")
}

fn failure(error: Error) -> Failure {
    match error {
        Error::ResultUndetermined(text) => Failure::Unknown(text),
        other => Failure::Refused(0, other.to_string()),
    }
}

/// Raw access does not say whether a request that failed was executed.
fn maybe_executed(error: Error) -> Failure {
    Failure::Unknown(error.to_string())
}
