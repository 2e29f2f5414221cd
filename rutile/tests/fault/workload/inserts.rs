//! Rows that are inserted once: those that were acknowledged are there, those that were refused are not, and the indexes
//! agree with the table.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Clients, Count, Mistake, ask};
use crate::harness::sql::Failure;

pub const TABLES: [&str; 1] =
    ["CREATE TABLE test.inserts (id BIGINT PRIMARY KEY AUTO_INCREMENT, n BIGINT NOT NULL, \
     w INT, note VARCHAR(40), UNIQUE KEY note (note), KEY w (w, n))"];

/// What the clients know.
#[derive(Default)]
pub struct Inserts {
    pub count: Count,
    acknowledged: Mutex<BTreeSet<i64>>,
    refused: Mutex<BTreeSet<i64>>,
}

impl Inserts {
    /// Inserts until told to stop.
    pub async fn insert(self: Arc<Self>, clients: Arc<Clients>, w: usize) {
        let mut session = clients.session(w);
        let mut n = w as i64;
        while clients.goes_on() {
            n += 2;
            if clients.mistake == Mistake::EarlyAcknowledgement {
                self.acknowledged.lock().insert(n);
            }
            let statement = "INSERT INTO inserts (n, w, note) VALUES (?, ?, ?)";
            match session.change(statement, (n, w, format!("row {n}"))).await {
                Ok(_) => {
                    self.acknowledged.lock().insert(n);
                    self.count.done();
                }
                Err(Failure::Unknown(_)) => self.count.failed(true).await,
                Err(_) => {
                    self.refused.lock().insert(n);
                    self.count.failed(false).await;
                }
            }
        }
    }

    pub async fn check(&self, clients: &Clients) -> Vec<String> {
        let mut wrong = vec![];
        let there: Vec<i64> = ask(clients, "SELECT n FROM inserts IGNORE INDEX (note, w)").await;
        let rows: BTreeSet<i64> = there.iter().copied().collect();
        if rows.len() != there.len() {
            wrong.push(format!("{} rows are there twice", there.len() - rows.len()));
        }
        let lost: Vec<i64> = self.acknowledged.lock().difference(&rows).copied().collect();
        if !lost.is_empty() {
            wrong.push(format!("acknowledged rows are lost: {lost:?}"));
        }
        let ghosts: Vec<i64> = self.refused.lock().intersection(&rows).copied().collect();
        if !ghosts.is_empty() {
            wrong.push(format!("rows that were refused are there: {ghosts:?}"));
        }
        let by_number: Vec<i64> = ask(clients, "SELECT n FROM inserts FORCE INDEX (w) WHERE w >= 0").await;
        let notes: Vec<String> =
            ask(clients, "SELECT note FROM inserts FORCE INDEX (note) WHERE note > ''").await;
        let by_note = notes.iter().filter_map(|note| note.strip_prefix("row ")?.parse().ok());
        for (index, found) in
            [("w", by_number.into_iter().collect::<Vec<i64>>()), ("note", by_note.collect())]
        {
            let set: BTreeSet<i64> = found.iter().copied().collect();
            if set != rows || found.len() != there.len() {
                let differ: Vec<i64> = set.symmetric_difference(&rows).copied().collect();
                let (entries, rows) = (found.len(), there.len());
                wrong.push(format!(
                    "index {index} has {entries} entries for {rows} rows; they differ in {differ:?}"
                ));
            }
        }
        wrong
    }
}
