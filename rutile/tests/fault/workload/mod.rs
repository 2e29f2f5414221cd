//! What clients do while faults happen, and what must be true of it afterwards.

pub mod bank;
pub mod inserts;
pub mod registers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rutile_client::Client;
use tokio::task::JoinHandle;

use crate::harness::cluster::Cluster;
use crate::harness::sql::Session;
use crate::harness::{PATIENCE, holds_within};
use bank::Bank;
use inserts::Inserts;
use registers::{Access, Registers};

/// What all clients share.
pub struct Clients {
    pub servers: Vec<SocketAddr>,
    pub client: Client,
    stop: AtomicBool,
    epoch: Instant,
    /// Deliberate mistakes, to see that they are found.
    pub mistake: Mistake,
}

/// A mistake of the clients that the checks must find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mistake {
    #[default]
    None,
    /// Transfers are two transactions.
    TornTransfers,
    /// Reads of registers are of two seconds ago.
    StaleReads,
    /// Rows are called acknowledged before the server answers.
    EarlyAcknowledgement,
}

impl Clients {
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    pub fn session(&self, at: usize) -> Session {
        Session::new(&self.servers, at)
    }
}

/// How often something came through, by kind of work.
#[derive(Default)]
pub struct Count {
    pub done: AtomicU64,
    pub refused: AtomicU64,
    pub unknown: AtomicU64,
}

impl Count {
    pub fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failure and pauses, as clients do.
    pub async fn failed(&self, unknown: bool) {
        let counter = if unknown { &self.unknown } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    pub fn get(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        write!(f, "{} done, {} refused, {} unknown", self.get(), number(&self.refused), number(&self.unknown))
    }
}

/// All clients at work.
pub struct Work {
    clients: Arc<Clients>,
    pub bank: Arc<Bank>,
    pub registers: Arc<Registers>,
    pub inserts: Arc<Inserts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Work {
    /// Makes the tables and starts the clients.
    pub async fn start(cluster: &Cluster, mistake: Mistake) -> Self {
        for statement in bank::TABLES.iter().chain(&registers::TABLES).chain(&inserts::TABLES) {
            cluster.query(statement).await;
        }
        for table in ["test.accounts", "test.ledger", "test.registers", "test.inserts"] {
            cluster.is_known(table).await;
        }
        let clients = Arc::new(Clients {
            servers: cluster.sql_addresses(),
            client: cluster.client().await,
            stop: AtomicBool::new(false),
            epoch: Instant::now(),
            mistake,
        });
        let (bank, registers, inserts) =
            (Arc::<Bank>::default(), Arc::<Registers>::default(), Arc::<Inserts>::default());
        let mut work = Work { clients, bank, registers, inserts, tasks: vec![] };
        for i in 0..2 {
            let (clients, bank) = (&work.clients, &work.bank);
            for optimistic in [false, true] {
                work.tasks.push(tokio::spawn(bank.clone().transfer(clients.clone(), i, optimistic)));
            }
            work.tasks.push(tokio::spawn(bank.clone().watch(clients.clone(), i, i == 1)));
            work.tasks.push(tokio::spawn(work.inserts.clone().insert(clients.clone(), i)));
        }
        for (i, access) in [Access::Sql, Access::Sql, Access::Raw, Access::Raw, Access::Txn, Access::Txn]
            .into_iter()
            .enumerate()
        {
            work.tasks.push(tokio::spawn(work.registers.clone().operate(work.clients.clone(), i, access)));
        }
        work
    }

    /// How much each kind of client has done.
    fn progress(&self) -> [u64; 6] {
        let [sql, raw, txn] = self.registers.counts();
        [self.bank.transfers.get(), self.bank.totals.get(), self.inserts.count.get(), sql, raw, txn]
    }

    /// Waits until every kind of client gets something done from now on.
    pub async fn goes_on(&self) {
        let before = self.progress();
        let all = || async { self.progress().iter().zip(before).all(|(now, before)| *now > before + 3) };
        if !holds_within(PATIENCE, all).await {
            panic!("clients do not go on: {before:?} before, {:?} now\n{}", self.progress(), self.summary());
        }
    }

    pub fn summary(&self) -> String {
        format!(
            "transfers: {}\ntotals: {}\nregisters: {}\ninserts: {}",
            self.bank.transfers, self.bank.totals, self.registers.count, self.inserts.count
        )
    }

    /// Stops the clients; answers everything that is wrong.
    pub async fn check(self) -> Vec<String> {
        self.clients.stop.store(true, Ordering::Relaxed);
        println!("{}", self.summary());
        for task in self.tasks {
            task.await.unwrap();
        }
        let mut wrong = self.bank.check(&self.clients).await;
        wrong.extend(self.registers.check(&self.clients).await);
        wrong.extend(self.inserts.check(&self.clients).await);
        wrong
    }
}

/// A question that must be answered now that nothing is wrong any more.
pub async fn ask<T: mysql_async::prelude::FromRow + Send + 'static>(
    clients: &Clients,
    question: &str,
) -> Vec<T> {
    let mut session = clients.session(0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match session.run(question, ()).await {
            Ok((rows, _)) => return rows,
            Err(failure) => assert!(Instant::now() < deadline, "{question}: {failure}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
