//! Clients of a simulation: they write unique values to registers and read them, and note what they saw.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use rand::Rng;
use rutile_linear::{Kind, NEVER, OPS_MAX, Op};

use super::world::{MS, World};
use crate::engine::Cf;
use crate::raftstore::{Modify, RaftKv, WriteData};

pub(super) type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Simulated time after which a client gives an operation up.
const PATIENCE: u64 = 400 * MS;

/// Registers in use at a time.
pub(super) const REGISTERS: usize = 8;

/// One more operation reads a register in the end.
pub(super) const OPS_PER_REGISTER: usize = OPS_MAX - 8;

/// How an operation ended.
pub(super) enum Outcome {
    Done(u64),
    /// It will never take effect.
    Refused,
    Unknown,
}

pub(super) struct Pending {
    pub(super) register: usize,
    pub(super) write: Option<u64>,
    pub(super) node: usize,
    pub(super) start: u64,
    pub(super) deadline: u64,
    pub(super) task: Task<Outcome>,
}

/// A register's key.
pub(super) fn key_of(register: usize) -> Bytes {
    format!("k{register:03}").into_bytes().into()
}

/// Some registers' number at most.
pub(super) const REGISTERS_MAX: usize = 200;

impl World {
    pub(super) fn poll_all(&mut self) {
        let mut context = Context::from_waker(futures::task::noop_waker_ref());
        let mut tasks = std::mem::take(&mut self.admin);
        tasks.retain_mut(|(_, _, task)| task.as_mut().poll(&mut context).is_pending());
        tasks.append(&mut self.admin);
        self.admin = tasks;
        let mut i = 0;
        while i < self.pending.len() {
            let pending = &mut self.pending[i];
            let outcome = match pending.task.as_mut().poll(&mut context) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending if pending.deadline <= self.now => Outcome::Unknown,
                Poll::Pending => {
                    i += 1;
                    continue;
                }
            };
            let Pending { register, write, start, .. } = self.pending.swap_remove(i);
            self.finish(register, write, start, &outcome);
        }
    }

    fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    pub(super) fn finish(&mut self, register: usize, write: Option<u64>, start: u64, outcome: &Outcome) {
        let now = self.next_stamp();
        let (kind, end) = match (write, outcome) {
            (Some(value), Outcome::Done(_)) => (Kind::Write(value), now),
            (Some(value), Outcome::Unknown) => (Kind::Write(value), NEVER),
            (None, Outcome::Done(value)) => (Kind::Read(*value), now),
            (None, Outcome::Unknown) | (_, Outcome::Refused) => return,
        };
        let (what, value) = match (write, outcome) {
            (Some(value), _) => ("wrote", value),
            (None, Outcome::Done(value)) => ("read", *value),
            (None, _) => return,
        };
        self.note(what, &[register as u64, value, start, end]);
        let history = self.histories.entry(register).or_default();
        history.push(Op { kind, start, end });
        if history.len() == OPS_PER_REGISTER
            && let Some(at) = self.registers.iter().position(|r| *r == register)
        {
            match self.unused_registers.pop() {
                Some(next) => self.registers[at] = next,
                None => drop(self.registers.swap_remove(at)),
            }
        }
    }

    /// A client begins something, at a store that leads or at any.
    pub(super) fn operate(&mut self) {
        let running = self.running();
        if running.is_empty() || self.registers.is_empty() {
            return;
        }
        let register = self.registers[self.rng.random_range(0..self.registers.len())];
        let history = self.histories.get(&register).map_or(0, Vec::len);
        let open = self.pending.iter().filter(|p| p.register == register).count();
        if history + open >= OPS_PER_REGISTER {
            return;
        }
        let any = running[self.rng.random_range(0..running.len())];
        let node = match self.rng.random_range(0..4) {
            0 => any,
            _ => self.leader(&key_of(register)).map_or(any, |(i, _)| i),
        };
        let write = self.rng.random_bool(0.45).then_some(self.next_value);
        self.next_value += 1;
        let replica = self.rng.random_bool(0.2);
        let task = self.task(node, register, write, replica);
        let start = self.next_stamp();
        let region = self.store(node).and_then(|s| s.region_of_key(&key_of(register)));
        let (id, region_id) = (self.nodes[node].id, region.map_or(0, |r| r.id));
        self.note("ask", &[id, region_id, register as u64, write.unwrap_or(0), start, u64::from(replica)]);
        let pending = Pending { register, write, node, start, deadline: self.now + PATIENCE, task };
        self.pending.push(pending);
    }

    fn task(&self, node: usize, register: usize, write: Option<u64>, replica: bool) -> Task<Outcome> {
        let store = Arc::clone(self.store(node).expect("runs"));
        let key = key_of(register);
        Box::pin(async move {
            let Some(region) = store.region_of_key(&key) else { return Outcome::Refused };
            let mut ctx = store.context_of(&region);
            let Some(value) = write else {
                ctx.replica_read = replica;
                let Ok(snapshot) = store.snapshot(&ctx).await else { return Outcome::Refused };
                if !snapshot.contains(&key) {
                    return Outcome::Refused;
                }
                let value = snapshot.get(Cf::Default, &key).expect("the engine can be read");
                let value = value.map_or(0, |v| String::from_utf8_lossy(&v).parse().expect("a number"));
                return Outcome::Done(value);
            };
            let put = Modify::Put(Cf::Default, key, value.to_string().into());
            match store.write(&ctx, WriteData::new(vec![put])).await {
                Ok(()) => Outcome::Done(value),
                Err(error) if error.undetermined_result.is_some() => Outcome::Unknown,
                Err(_) => Outcome::Refused,
            }
        })
    }

    /// Reads a register for the last time.
    pub(super) fn read_last(&mut self, register: usize) {
        let deadline = self.now + 20_000 * MS;
        loop {
            assert!(self.now < deadline, "register {register} cannot be read");
            let Some((node, _)) = self.leader(&key_of(register)) else {
                self.turn();
                continue;
            };
            let task = self.task(node, register, None, false);
            let start = self.next_stamp();
            let history = self.histories.get(&register).map_or(0, Vec::len);
            self.pending.push(Pending {
                register,
                write: None,
                node,
                start,
                deadline: self.now + PATIENCE,
                task,
            });
            while self.pending.iter().any(|p| p.register == register) {
                self.turn();
            }
            if self.histories.get(&register).map_or(0, Vec::len) > history {
                return;
            }
        }
    }

    /// Whether somebody waits for something.
    pub(super) fn is_busy(&self) -> bool {
        !self.pending.is_empty() || !self.admin.is_empty()
    }
}
