//! Several members in one process, joined by a network that loses messages as the tests want.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raft::eraftpb::{Message, MessageType};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rutile_pd::replicated::command::SystemBatch;
use rutile_pd::replicated::{Inbox, Options, Outbox, Replicated};
use rutile_pd::tso::{SystemClock, Tso};
use rutile_proto::ids::Timestamp;

type Filter = Box<dyn FnMut(&Message) -> bool + Send>;

/// Delivers messages that pass all filters.
#[derive(Default)]
struct Network {
    inboxes: HashMap<u64, Inbox>,
    filters: Vec<Filter>,
}

struct NetworkOutbox {
    network: Arc<Mutex<Network>>,
    own: u64,
}

impl Outbox for NetworkOutbox {
    fn send(&mut self, message: Message) {
        let mut network = self.network.lock();
        let passes = network.filters.iter_mut().all(|filter| filter(&message));
        let (to, snapshot) = (message.to, message.get_msg_type() == MessageType::MsgSnapshot);
        if let Some(inbox) = network.inboxes.get(&to).filter(|_| passes) {
            inbox.step(message);
        }
        if snapshot && let Some(own) = network.inboxes.get(&self.own) {
            own.snapshot_sent_now(to, passes);
        }
    }
}

struct Member {
    group: Arc<Replicated>,
    tso: Arc<Tso>,
}

struct Group {
    dir: tempfile::TempDir,
    size: u64,
    log_size_bytes_max: u64,
    network: Arc<Mutex<Network>>,
    members: BTreeMap<u64, Member>,
}

impl Group {
    fn start(size: u64, log_size_bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut group =
            Group { dir, size, log_size_bytes_max, network: Arc::default(), members: BTreeMap::new() };
        for id in 1..=size {
            group.start_member(id);
        }
        group
    }

    fn path(&self, id: u64) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    fn start_member(&mut self, id: u64) {
        let (inbox, receiver) = Replicated::channel();
        self.network.lock().inboxes.insert(id, inbox.clone());
        let options = Options {
            raft_id: id,
            voters: (1..=self.size).collect(),
            log_size_bytes_max: self.log_size_bytes_max,
            election_timeout: Duration::from_millis(400),
            outbox: Box::new(NetworkOutbox { network: self.network.clone(), own: id }),
        };
        let group = Arc::new(Replicated::open_member(&self.path(id), (inbox, receiver), options).unwrap());
        let tso = Tso::new(group.clone(), Arc::new(SystemClock), 500);
        self.members.insert(id, Member { group, tso });
    }

    fn stop_member(&mut self, id: u64) {
        self.network.lock().inboxes.remove(&id);
        if let Some(member) = self.members.remove(&id) {
            member.group.shutdown();
        }
    }

    fn add_filter(&self, filter: impl FnMut(&Message) -> bool + Send + 'static) {
        self.network.lock().filters.push(Box::new(filter));
    }

    fn clear_filters(&self) {
        self.network.lock().filters.clear();
    }

    /// No message reaches the member and none leaves it.
    fn isolate(&self, id: u64) {
        self.add_filter(move |message| message.from != id && message.to != id);
    }

    /// A member that leads and holds the lease, other than `not`.
    async fn leader_but(&self, not: u64) -> u64 {
        let mut found = 0;
        wait_until("a member leads", || {
            let leads = |(id, m): &(&u64, &Member)| {
                let role = m.group.role();
                **id != not && role.leading && m.group.holds_lease(role.term)
            };
            found = self.members.iter().find(leads).map_or(0, |(id, _)| *id);
            found != 0
        })
        .await;
        found
    }

    async fn leader(&self) -> u64 {
        self.leader_but(0).await
    }

    fn group_of(&self, id: u64) -> &Arc<Replicated> {
        &self.members[&id].group
    }

    async fn put(&self, id: u64, key: &str, value: &str) -> bool {
        let batch = SystemBatch::default().put(key.to_owned(), value.to_owned());
        matches!(self.group_of(id).write_system(batch).await, Ok(true))
    }

    fn get(&self, id: u64, key: &str) -> Option<String> {
        let value = self.group_of(id).system_get(key.as_bytes())?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_reaches_all_members_and_followers_refuse() {
    for size in [3, 5] {
        let group = Group::start(size, 1 << 20);
        let leader = group.leader().await;
        assert!(group.put(leader, "k", "v").await);
        for id in 1..=size {
            wait_until("the member has the record", || group.get(id, "k").is_some()).await;
            assert_eq!(group.group_of(id).role().leader, leader);
            if id != leader {
                let refused = group.group_of(id).write_system(SystemBatch::default()).await.unwrap_err();
                assert_eq!(refused.to_string(), "not leader");
                assert!(group.members[&id].tso.allocate(1).await.is_err());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_quorum_loses_the_lease_before_another_leads() {
    let group = Group::start(3, 1 << 20);
    let mut isolated = group.leader().await;
    let mut last = Timestamp::ZERO;
    for round in 0..3 {
        let old = &group.members[&isolated];
        let term = old.group.role().term;
        old.tso.begin(term).await.unwrap();
        let ts = old.tso.allocate(1).await.unwrap();
        assert!(ts > last, "round {round}: {ts} after {last}");
        last = ts;
        group.isolate(isolated);
        // While no other member leads, it may still answer; afterwards it must not.
        let next = group.leader_but(isolated).await;
        assert!(!old.group.holds_lease(term), "two members hold the lease");
        assert!(old.tso.allocate(1).await.is_err(), "the old leader still gives out timestamps");
        let new = &group.members[&next];
        new.tso.begin(new.group.role().term).await.unwrap();
        for _ in 0..100 {
            let ts = new.tso.allocate(3).await.unwrap();
            assert!(ts.0 - 2 > last.0, "round {round}: {ts} after {last}");
            last = ts;
        }
        let lost = group.put(isolated, "lost", "x").await;
        assert!(!lost, "a write without a quorum was acknowledged");
        group.clear_filters();
        wait_until("the old leader follows", || group.group_of(isolated).role().leader == next).await;
        let old_term = old.group.in_term(term);
        assert!(old_term.write_system(SystemBatch::default()).await.is_err(), "a write of an old term");
        isolated = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_gets_a_snapshot() {
    let mut group = Group::start(3, 16 << 10);
    let leader = group.leader().await;
    let away = 1 + leader % 3;
    group.stop_member(away);
    for i in 0..300 {
        assert!(group.put(leader, &format!("k{}", i % 50), &format!("{i:0>200}")).await);
    }
    group.start_member(away);
    wait_until("the member caught up", || group.get(away, "k49") == group.get(leader, "k49")).await;
    let installed = &group.group_of(away).stats().snapshots_installed;
    assert!(installed.load(std::sync::atomic::Ordering::Relaxed) > 0, "it caught up by the log");
    // What it took survives its restart, and it takes part again.
    group.stop_member(away);
    group.stop_member(1 + away % 3);
    group.start_member(away);
    let leader = group.leader().await;
    assert!(group.put(leader, "after", "x").await);
    wait_until("both have it", || group.get(away, "after").is_some() && group.get(away, "k0").is_some())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_hands_over_at_once() {
    let group = Group::start(3, 1 << 20);
    let leader = group.leader().await;
    let term = group.group_of(leader).role().term;
    assert!(group.group_of(leader).transfer_leader(0, Duration::from_secs(5)).await);
    assert!(!group.group_of(leader).holds_lease(term));
    let next = group.leader().await;
    assert_eq!(group.group_of(next).role().term, term + 1, "one election, without a time-out");
}

/// A lossy network and members that stop and start: no acknowledged write is lost, and all members agree in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_restarts_on_a_lossy_network() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut group = Group::start(3, 8 << 10);
    let mut acknowledged = BTreeMap::new();
    for round in 0..8u32 {
        let mut dice = StdRng::seed_from_u64(random.random());
        group.add_filter(move |_| dice.random_ratio(9, 10));
        let leader = group.leader().await;
        for i in 0..20 {
            let (key, value) = (format!("r{round}-{i}"), "x".repeat(random.random_range(1..300)));
            let write = tokio::time::timeout(Duration::from_secs(5), group.put(leader, &key, &value));
            if write.await.unwrap_or(false) {
                acknowledged.insert(key, value);
            }
        }
        let victim = random.random_range(1..=3);
        group.stop_member(victim);
        group.clear_filters();
        group.leader().await;
        group.start_member(victim);
    }
    assert!(acknowledged.len() > 40, "only {} writes were acknowledged", acknowledged.len());
    let leader = group.leader().await;
    assert!(group.put(leader, "end", "x").await);
    for id in 1..=3 {
        wait_until("all members are up to date", || group.get(id, "end").is_some()).await;
        for (key, value) in &acknowledged {
            assert_eq!(group.get(id, key).as_ref(), Some(value), "member {id} lost {key}");
        }
    }
}
