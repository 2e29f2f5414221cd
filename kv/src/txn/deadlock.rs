//! The wait-for graph of transactions blocked on pessimistic locks.
//!
//! An edge says: this transaction waits for that one, on this key. The transaction whose edge would close a circle
//! is the one that fails. Pure: no clock, no locks.
//!
//! Every store has one of its own waiters, which finds at once what it can. The store that leads the region of the first key has one
//! of all stores' waiters as well; see `server/deadlock.rs`.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb;

/// An edge this old is not believed any more: no wait lasts so long, its end was not heard of.
const AGE_MAX: Duration = Duration::from_secs(10);

/// One transaction waiting for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    pub holder: Timestamp,
    /// The key waited on, request form.
    pub key: Bytes,
    /// Who told of it: 0 for this store, else the number of a stream.
    pub owner: u64,
    /// When it was told.
    pub at: Instant,
}

/// All edges, by waiting transaction.
#[derive(Debug, Default)]
pub struct WaitForGraph {
    edges: HashMap<Timestamp, Vec<Edge>>,
}

/// A 64-bit hash of a key as carried in deadlock reports.
#[must_use]
pub fn key_hash(key: &[u8]) -> u64 {
    let mut digest = crc64fast::Digest::new();
    digest.write(key);
    digest.sum64()
}

impl WaitForGraph {
    /// Adds the edge unless it closes a circle, which it then describes. `edge.at` is now.
    pub fn add(&mut self, waiter: Timestamp, edge: Edge) -> Result<(), kvrpcpb::Deadlock> {
        if let Some(path) = self.path(edge.holder, waiter, edge.at) {
            return Err(deadlock(waiter, edge.holder, &edge.key, &path));
        }
        self.edges.entry(waiter).or_default().push(edge);
        Ok(())
    }

    /// Removes one edge of those that `owner` told of.
    pub fn remove(&mut self, owner: u64, waiter: Timestamp, holder: Timestamp, key: &[u8]) {
        if let Some(edges) = self.edges.get_mut(&waiter) {
            let same = |e: &Edge| e.owner == owner && e.holder == holder && e.key == key;
            if let Some(at) = edges.iter().position(same) {
                edges.swap_remove(at);
            }
            if edges.is_empty() {
                self.edges.remove(&waiter);
            }
        }
    }

    /// Removes all edges of a waiting transaction.
    pub fn remove_waiter(&mut self, waiter: Timestamp) {
        self.edges.remove(&waiter);
    }

    /// Removes everything that `owner` told of, and what is too old to be believed.
    pub fn remove_owner(&mut self, owner: u64, now: Instant) {
        self.edges.retain(|_, edges| {
            edges.retain(|e| e.owner != owner && !is_outdated(e, now));
            !edges.is_empty()
        });
    }

    /// The edges from `from` to `to`, if `to` can be reached.
    fn path(&self, from: Timestamp, to: Timestamp, now: Instant) -> Option<Vec<(Timestamp, Edge)>> {
        if from == to {
            return Some(Vec::new());
        }
        let mut visited = HashSet::from([from]);
        let mut came_by: HashMap<Timestamp, (Timestamp, Edge)> = HashMap::new();
        let mut stack = vec![from];
        while let Some(at) = stack.pop() {
            for edge in self.edges.get(&at).into_iter().flatten() {
                if is_outdated(edge, now) || !visited.insert(edge.holder) {
                    continue;
                }
                came_by.insert(edge.holder, (at, edge.clone()));
                if edge.holder == to {
                    return Some(walk_back(&mut came_by, from, to));
                }
                stack.push(edge.holder);
            }
        }
        None
    }

    /// Number of transactions waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.edges.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edges.is_empty()
    }
}

fn is_outdated(edge: &Edge, now: Instant) -> bool {
    now.saturating_duration_since(edge.at) > AGE_MAX
}

fn walk_back(
    came_by: &mut HashMap<Timestamp, (Timestamp, Edge)>,
    from: Timestamp,
    mut at: Timestamp,
) -> Vec<(Timestamp, Edge)> {
    let mut path = Vec::new();
    while at != from {
        let (previous, edge) = came_by.remove(&at).expect("every visited transaction was reached by an edge");
        at = previous;
        path.push((previous, edge));
    }
    path.reverse();
    path
}

fn wait_entry(waiter: Timestamp, holder: Timestamp, key: &Bytes) -> kvrpcpb::WaitForEntry {
    kvrpcpb::WaitForEntry {
        txn: waiter.0,
        wait_for_txn: holder.0,
        key_hash: key_hash(key),
        key: key.clone(),
        ..Default::default()
    }
}

fn deadlock(
    waiter: Timestamp,
    holder: Timestamp,
    key: &Bytes,
    path: &[(Timestamp, Edge)],
) -> kvrpcpb::Deadlock {
    let mut wait_chain: Vec<_> = path.iter().map(|(w, e)| wait_entry(*w, e.holder, &e.key)).collect();
    wait_chain.push(wait_entry(waiter, holder, key));
    let closing = path.last().map_or_else(|| key.clone(), |(_, e)| e.key.clone());
    kvrpcpb::Deadlock {
        lock_ts: holder.0,
        lock_key: key.clone(),
        deadlock_key_hash: key_hash(&closing),
        deadlock_key: closing,
        wait_chain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Bytes = Bytes::from_static(b"a");
    const B: Bytes = Bytes::from_static(b"b");
    const C: Bytes = Bytes::from_static(b"c");

    fn ts(n: u64) -> Timestamp {
        Timestamp(n)
    }

    fn add(
        graph: &mut WaitForGraph,
        waiter: u64,
        holder: u64,
        key: &Bytes,
        at: Instant,
    ) -> Result<(), kvrpcpb::Deadlock> {
        graph.add(ts(waiter), Edge { holder: ts(holder), key: key.clone(), owner: 0, at })
    }

    #[test]
    fn the_closing_edge_fails() {
        let (mut graph, now) = (WaitForGraph::default(), Instant::now());
        add(&mut graph, 1, 2, &A, now).unwrap();
        add(&mut graph, 2, 3, &B, now).unwrap();
        let found = add(&mut graph, 3, 1, &C, now).unwrap_err();
        assert_eq!((found.lock_ts, &found.lock_key[..]), (1, &b"c"[..]));
        assert_eq!(&found.deadlock_key[..], b"b");
        assert_eq!(found.deadlock_key_hash, key_hash(b"b"));
        let chain: Vec<_> = found.wait_chain.iter().map(|e| (e.txn, e.wait_for_txn)).collect();
        assert_eq!(chain, [(1, 2), (2, 3), (3, 1)]);
        graph.remove(0, ts(2), ts(3), &B);
        add(&mut graph, 3, 1, &C, now).unwrap();
    }

    #[test]
    fn waiting_twice_is_no_circle() {
        let (mut graph, now) = (WaitForGraph::default(), Instant::now());
        add(&mut graph, 1, 2, &A, now).unwrap();
        add(&mut graph, 1, 2, &A, now).unwrap();
        add(&mut graph, 3, 2, &A, now).unwrap();
        graph.remove(0, ts(1), ts(2), &A);
        assert_eq!(graph.len(), 2);
        graph.remove(0, ts(1), ts(2), &A);
        graph.remove(0, ts(3), ts(2), &A);
        assert!(graph.is_empty());
    }

    #[test]
    fn edges_go_with_their_owner_and_with_time() {
        let (mut graph, now) = (WaitForGraph::default(), Instant::now());
        let edge = |owner| Edge { holder: ts(2), key: A, owner, at: now };
        graph.add(ts(1), edge(7)).unwrap();
        graph.remove(8, ts(1), ts(2), &A);
        assert!(add(&mut graph, 2, 1, &B, now).is_err(), "another's edge is not removed");
        graph.remove_owner(7, now);
        assert!(graph.is_empty());
        graph.add(ts(1), edge(7)).unwrap();
        let later = now + AGE_MAX + Duration::from_millis(1);
        add(&mut graph, 2, 1, &B, later).unwrap();
        graph.remove_owner(0, later);
        assert!(graph.is_empty(), "what is too old goes as well");
    }
}
