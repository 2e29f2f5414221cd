//! The wait-for graph of transactions blocked on pessimistic locks.
//!
//! An edge says: this transaction waits for that one, on this key. The transaction whose edge would close a circle
//! is the one that fails. Pure: no clock, no locks.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use rutile_proto::ids::Timestamp;
use rutile_proto::kvrpcpb;

/// One transaction waiting for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    pub holder: Timestamp,
    /// The key waited on, request form.
    pub key: Bytes,
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
    /// Adds the edge unless it closes a circle, which it then describes.
    pub fn add(
        &mut self,
        waiter: Timestamp,
        holder: Timestamp,
        key: &Bytes,
    ) -> Result<(), kvrpcpb::Deadlock> {
        if let Some(path) = self.path(holder, waiter) {
            return Err(deadlock(waiter, holder, key, &path));
        }
        self.edges.entry(waiter).or_default().push(Edge { holder, key: key.clone() });
        Ok(())
    }

    /// Removes one edge.
    pub fn remove(&mut self, waiter: Timestamp, holder: Timestamp, key: &[u8]) {
        if let Some(edges) = self.edges.get_mut(&waiter) {
            if let Some(at) = edges.iter().position(|e| e.holder == holder && e.key == key) {
                edges.swap_remove(at);
            }
            if edges.is_empty() {
                self.edges.remove(&waiter);
            }
        }
    }

    /// The edges from `from` to `to`, if `to` can be reached.
    fn path(&self, from: Timestamp, to: Timestamp) -> Option<Vec<(Timestamp, Edge)>> {
        if from == to {
            return Some(Vec::new());
        }
        let mut visited = HashSet::from([from]);
        let mut came_by: HashMap<Timestamp, (Timestamp, Edge)> = HashMap::new();
        let mut stack = vec![from];
        while let Some(at) = stack.pop() {
            for edge in self.edges.get(&at).into_iter().flatten() {
                if !visited.insert(edge.holder) {
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

    #[test]
    fn the_closing_edge_fails() {
        let mut graph = WaitForGraph::default();
        graph.add(ts(1), ts(2), &A).unwrap();
        graph.add(ts(2), ts(3), &B).unwrap();
        let found = graph.add(ts(3), ts(1), &C).unwrap_err();
        assert_eq!((found.lock_ts, &found.lock_key[..]), (1, &b"c"[..]));
        assert_eq!(&found.deadlock_key[..], b"b");
        assert_eq!(found.deadlock_key_hash, key_hash(b"b"));
        let chain: Vec<_> = found.wait_chain.iter().map(|e| (e.txn, e.wait_for_txn)).collect();
        assert_eq!(chain, [(1, 2), (2, 3), (3, 1)]);
        graph.remove(ts(2), ts(3), &B);
        graph.add(ts(3), ts(1), &C).unwrap();
    }

    #[test]
    fn waiting_twice_is_no_circle() {
        let mut graph = WaitForGraph::default();
        graph.add(ts(1), ts(2), &A).unwrap();
        graph.add(ts(1), ts(2), &A).unwrap();
        graph.add(ts(3), ts(2), &A).unwrap();
        graph.remove(ts(1), ts(2), &A);
        assert_eq!(graph.len(), 2);
        graph.remove(ts(1), ts(2), &A);
        graph.remove(ts(3), ts(2), &A);
        assert!(graph.is_empty());
    }
}
