//! Money that is moved between accounts, each time with a line in a ledger: every reader sees the same total, and in the end
//! the accounts are what the ledger says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Clients, Count, Mistake, ask};
use crate::harness::sql::{Failure, Session};

const ACCOUNTS: i64 = 8;
const BALANCE: i64 = 1000;

pub const TABLES: [&str; 3] = [
    "CREATE TABLE test.accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)",
    "CREATE TABLE test.ledger (id BIGINT PRIMARY KEY, source BIGINT, target BIGINT, amount BIGINT, KEY (source))",
    "INSERT INTO test.accounts VALUES (0,1000),(1,1000),(2,1000),(3,1000),(4,1000),(5,1000),(6,1000),(7,1000)",
];

/// What the clients know.
#[derive(Default)]
pub struct Bank {
    pub transfers: Count,
    /// Totals that were read.
    pub totals: Count,
    committed: Mutex<BTreeSet<i64>>,
    refused: Mutex<BTreeSet<i64>>,
    wrong: Mutex<Vec<String>>,
}

impl Bank {
    /// Moves money until told to stop.
    pub async fn transfer(self: Arc<Self>, clients: Arc<Clients>, at: usize, optimistic: bool) {
        let mut session = clients.session(at);
        if optimistic {
            session = session.with_greeting("SET rutile_txn_mode = 'optimistic'");
        }
        let task = 2 * at as i64 + i64::from(optimistic);
        let mut rng = StdRng::seed_from_u64(task as u64);
        let mut id = task;
        while clients.goes_on() {
            id += 4;
            let (source, target) = (rng.random_range(0..ACCOUNTS), rng.random_range(0..ACCOUNTS));
            if source == target {
                continue;
            }
            let torn = clients.mistake == Mistake::TornTransfers;
            match once(&mut session, id, source, target, rng.random_range(1..50), torn).await {
                Ok(()) => {
                    self.committed.lock().insert(id);
                    self.transfers.done();
                }
                Err(failure) => {
                    let unknown = matches!(failure, Failure::Unknown(_));
                    if !unknown {
                        self.refused.lock().insert(id);
                    }
                    self.transfers.failed(unknown).await;
                }
            }
        }
    }

    /// Reads the total until told to stop.
    pub async fn watch(self: Arc<Self>, clients: Arc<Clients>, at: usize, in_parts: bool) {
        let mut session = clients.session(at);
        while clients.goes_on() {
            let total = if in_parts { total_in_parts(&mut session).await } else { total(&mut session).await };
            match total {
                Ok(ACCOUNTS_TOTAL) => self.totals.done(),
                Ok(total) => {
                    self.wrong.lock().push(format!("a reader saw the total {total}"));
                    self.totals.done();
                }
                Err(_) => self.totals.failed(false).await,
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    pub async fn check(&self, clients: &Clients) -> Vec<String> {
        let mut wrong = std::mem::take(&mut *self.wrong.lock());
        let ledger: Vec<(i64, i64, i64, i64)> =
            ask(clients, "SELECT id, source, target, amount FROM ledger").await;
        let accounts: Vec<(i64, i64)> = ask(clients, "SELECT id, balance FROM accounts").await;
        let mut expected: BTreeMap<i64, i64> = (0..ACCOUNTS).map(|id| (id, BALANCE)).collect();
        for (_, source, target, amount) in &ledger {
            *expected.entry(*source).or_default() -= amount;
            *expected.entry(*target).or_default() += amount;
        }
        let accounts: BTreeMap<i64, i64> = accounts.into_iter().collect();
        if accounts != expected {
            wrong.push(format!("the accounts hold {accounts:?}, the ledger says {expected:?}"));
        }
        let ids: BTreeSet<i64> = ledger.iter().map(|line| line.0).collect();
        let lost: Vec<i64> = self.committed.lock().difference(&ids).copied().collect();
        if !lost.is_empty() {
            wrong.push(format!("acknowledged transfers are lost: {lost:?}"));
        }
        let ghosts: Vec<i64> = self.refused.lock().intersection(&ids).copied().collect();
        if !ghosts.is_empty() {
            wrong.push(format!("transfers that were refused have happened: {ghosts:?}"));
        }
        wrong
    }
}

const ACCOUNTS_TOTAL: i64 = ACCOUNTS * BALANCE;

async fn total(session: &mut Session) -> Result<i64, Failure> {
    let (rows, _) = session.run::<i64>("SELECT CAST(SUM(balance) AS SIGNED) FROM accounts", ()).await?;
    Ok(rows.iter().sum())
}

/// One account after the other, in one transaction.
async fn total_in_parts(session: &mut Session) -> Result<i64, Failure> {
    session.change("START TRANSACTION READ ONLY", ()).await?;
    let mut total = 0;
    for id in 0..ACCOUNTS {
        match session.run::<i64>("SELECT balance FROM accounts WHERE id = ?", (id,)).await {
            Ok((rows, _)) => total += rows.iter().sum::<i64>(),
            Err(failure) => {
                session.lose();
                return Err(failure);
            }
        }
    }
    session.change("COMMIT", ()).await?;
    Ok(total)
}

/// One transfer. Only a commit has an unknown outcome: whatever fails before it leaves nothing behind.
async fn once(
    session: &mut Session,
    id: i64,
    source: i64,
    target: i64,
    amount: i64,
    torn: bool,
) -> Result<(), Failure> {
    let refused = |failure: Failure| Failure::Refused(0, failure.to_string());
    session.change("BEGIN", ()).await.map_err(refused)?;
    let prepared = async {
        session.change("UPDATE accounts SET balance = balance - ? WHERE id = ?", (amount, source)).await?;
        if torn {
            session.change("COMMIT", ()).await?;
            session.change("BEGIN", ()).await?;
        }
        session.change("UPDATE accounts SET balance = balance + ? WHERE id = ?", (amount, target)).await?;
        session.change("INSERT INTO ledger VALUES (?, ?, ?, ?)", (id, source, target, amount)).await
    };
    if let Err(failure) = prepared.await {
        // A connection that is given up ends its transaction.
        if session.change("ROLLBACK", ()).await.is_err() {
            session.lose();
        }
        return Err(refused(failure));
    }
    session.change("COMMIT", ()).await.map(drop)
}
