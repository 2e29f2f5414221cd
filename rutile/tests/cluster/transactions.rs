//! Transactions of the client against a store, over both transports, while regions split under them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::*;
use bytes::Bytes;
use rutile_client::{Client, Error, KeyRange, LockOptions, LockWait, ScanOptions, TxnOptions};

fn kinds() -> [(&'static str, TxnOptions); 3] {
    let autocommit = TxnOptions { autocommit: true, ..optimistic() };
    [("optimistic", optimistic()), ("pessimistic", pessimistic()), ("autocommit", autocommit)]
}

/// One phase (one key, one region), async commit (several regions), two phases (too many keys for async commit).
#[tokio::test(flavor = "multi_thread")]
async fn commits_of_every_size_are_read_by_everybody() {
    let playground = playground(|_| ()).await;
    let clients = clients(&playground).await;
    for (n, (transport, client)) in clients.iter().enumerate() {
        for (kind, options) in kinds() {
            let name = format!("{kind}{n}");
            for cut in [10, 20, 250] {
                client.split_region(&key(&name, cut)).await.unwrap();
            }
            for (step, count) in [1, 30, 300].into_iter().enumerate() {
                let keys: Vec<Bytes> = (0..count).map(|i| key(&name, i)).collect();
                let value = format!("value {step}");
                write(client, options.clone(), &keys, &value).await.unwrap();
                for (_, reader) in &clients {
                    let view = reader.snapshot(reader.timestamp().await.unwrap());
                    let found = view.batch_get(keys.clone()).await.unwrap();
                    assert_eq!(found.len(), count, "{transport} {kind}");
                    assert!(found.values().all(|v| *v == value), "{transport} {kind}");
                }
            }
        }
        assert!(regions(&playground, &format!("optimistic{n}")).await >= 4);
    }
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_found() {
    let playground = playground(|_| ()).await;
    for (transport, client) in clients(&playground).await {
        let k = key(transport, 0);
        // First committer wins.
        let (first, second) =
            (client.begin(optimistic()).await.unwrap(), client.begin(optimistic()).await.unwrap());
        first.put(k.clone(), "first").unwrap();
        second.put(k.clone(), "second").unwrap();
        second.commit().await.unwrap();
        assert!(matches!(first.commit().await, Err(Error::WriteConflict { .. })), "{transport}");
        assert_eq!(read(&client, &k).await.as_deref(), Some("second"));

        // A key that an optimistic transaction only locked is checked as well.
        let first = client.begin(optimistic()).await.unwrap();
        first.lock_keys(vec![k.clone()], LockOptions::default()).await.unwrap();
        first.put(key(transport, 1), "skewed").unwrap();
        write(&client, optimistic(), std::slice::from_ref(&k), "third").await.unwrap();
        assert!(matches!(first.commit().await, Err(Error::WriteConflict { .. })), "{transport}");
        assert_eq!(read(&client, &key(transport, 1)).await, None);

        // A pessimistic lock sees what was committed after its transaction began, or says so.
        let txn = client.begin(pessimistic()).await.unwrap();
        write(&client, optimistic(), std::slice::from_ref(&k), "fourth").await.unwrap();
        let strict = LockOptions { refresh_on_conflict: false, ..LockOptions::default() };
        let refused = txn.lock_keys(vec![k.clone()], strict).await;
        assert!(matches!(refused, Err(Error::WriteConflict { .. })), "{transport}: {refused:?}");
        let current = LockOptions { return_values: true, ..LockOptions::default() };
        let locked = txn.lock_keys(vec![k.clone()], current).await.unwrap();
        assert_eq!(locked[0].value.as_deref(), Some(&b"fourth"[..]), "{transport}");
        assert_eq!(txn.get(&k).await.unwrap().as_deref(), Some(&b"third"[..]), "{transport}: its snapshot");
        txn.put(k.clone(), "fifth").unwrap();
        txn.commit().await.unwrap();
        assert_eq!(read(&client, &k).await.as_deref(), Some("fifth"));

        // An insert of what exists, in both modes.
        let txn = client.begin(optimistic()).await.unwrap();
        txn.insert(k.clone(), "again").unwrap();
        assert!(matches!(txn.commit().await, Err(Error::AlreadyExists { .. })), "{transport}");
        let txn = client.begin(pessimistic()).await.unwrap();
        txn.lock_keys(vec![k.clone()], LockOptions { check_existence: true, ..LockOptions::default() })
            .await
            .unwrap();
        assert!(matches!(txn.insert(k.clone(), "again"), Err(Error::AlreadyExists { .. })), "{transport}");
        txn.rollback().await.unwrap();
    }
    playground.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_locks_ends() {
    let playground = playground(|_| ()).await;
    for (transport, client) in clients(&playground).await {
        let k = key(transport, 0);
        let holder = client.begin(pessimistic()).await.unwrap();
        holder.lock_keys(vec![k.clone()], LockOptions::default()).await.unwrap();
        let other = client.begin(pessimistic()).await.unwrap();
        let wait = |wait| LockOptions { wait, ..LockOptions::default() };
        let refused = other.lock_keys(vec![k.clone()], wait(LockWait::NoWait)).await;
        assert!(matches!(refused, Err(Error::LockNoWait { .. })), "{transport}: {refused:?}");
        // Longer than one wait in the store.
        let begun = std::time::Instant::now();
        let refused = other.lock_keys(vec![k.clone()], wait(LockWait::TimeoutMs(1300))).await;
        assert!(matches!(refused, Err(Error::LockWaitTimeout { .. })), "{transport}: {refused:?}");
        assert!((1300..5000).contains(&begun.elapsed().as_millis()), "{transport}: {:?}", begun.elapsed());
        // It is woken once the holder is gone; a reader never waits for a pessimistic lock.
        assert_eq!(read(&client, &k).await, None);
        let waiting = tokio::spawn({
            let (other, k) = (other.clone(), k.clone());
            async move { other.lock_keys(vec![k], LockOptions::default()).await }
        });
        holder.put(k.clone(), "held").unwrap();
        holder.commit().await.unwrap();
        waiting.await.unwrap().unwrap();
        other.rollback().await.unwrap();
    }
    playground.shutdown().await;
}

/// The keys lie in one region, and then in two.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_deadlock_gives_way() {
    let playground = playground(|_| ()).await;
    for (transport, client) in clients(&playground).await {
        for split in [false, true] {
            let (a, b) = (key(transport, 0), key(transport, 1));
            if split {
                client.split_region(&b).await.unwrap();
                assert_eq!(regions(&playground, transport).await, 2);
            }
            let (first, second) =
                (client.begin(pessimistic()).await.unwrap(), client.begin(pessimistic()).await.unwrap());
            first.lock_keys(vec![a.clone()], LockOptions::default()).await.unwrap();
            second.lock_keys(vec![b.clone()], LockOptions::default()).await.unwrap();
            let cross = |txn: rutile_client::Transaction, wanted: Bytes| async move {
                match txn.lock_keys(vec![wanted.clone()], LockOptions::default()).await {
                    Ok(_) => {
                        txn.put(wanted, "mine").unwrap();
                        txn.commit().await.unwrap();
                        true
                    }
                    Err(Error::Deadlock { .. }) => {
                        txn.rollback().await.unwrap();
                        false
                    }
                    Err(other) => panic!("{other}"),
                }
            };
            let (one, two) = tokio::join!(cross(first, b), cross(second, a));
            assert!(one != two, "{transport}, split {split}: {one} {two}");
        }
    }
    playground.shutdown().await;
}

/// Splits at keys of `name` until told to stop, or until there is no key left.
async fn split_all(client: Client, name: String, count: usize, stop: Arc<AtomicBool>) {
    let mut random = Random(7);
    let mut cuts: Vec<usize> = (1..count).collect();
    while !cuts.is_empty() && !stop.load(Ordering::Relaxed) {
        let at = cuts.swap_remove(random.below(cuts.len()));
        client.split_region(&key(&name, at)).await.unwrap();
        tokio::task::yield_now().await;
    }
}

/// A scan that regions split under: nothing twice, nothing missing, own writes in their places.
#[tokio::test(flavor = "multi_thread")]
async fn scans_go_on_while_regions_split() {
    let playground = playground(|_| ()).await;
    for (transport, client) in clients(&playground).await {
        let keys: Vec<Bytes> = (0..600).map(|i| key(transport, i)).collect();
        write(&client, optimistic(), &keys, "v").await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let splitting = tokio::spawn(split_all(client.clone(), transport.to_owned(), 40, stop.clone()));
        let mut rounds = 0;
        while !splitting.is_finished() || rounds < 3 {
            rounds += 1;
            let txn = client.begin(optimistic()).await.unwrap();
            txn.delete(keys[17].clone()).unwrap();
            txn.put(key(transport, 700), "own").unwrap();
            for reverse in [false, true] {
                let options = ScanOptions { reverse, ..ScanOptions::default() };
                let found = txn.scan(KeyRange::prefix(transport.as_bytes()), options).await.unwrap();
                let mut found: Vec<Bytes> =
                    found.collect().await.unwrap().into_iter().map(|p| p.key).collect();
                if reverse {
                    found.reverse();
                }
                let wanted: Vec<Bytes> =
                    (0..600).filter(|i| *i != 17).chain([700]).map(|i| key(transport, i)).collect();
                assert!(found == wanted, "{transport}, reverse {reverse}: {} pairs", found.len());
            }
            txn.rollback().await.unwrap();
        }
        splitting.await.unwrap();
        assert_eq!(regions(&playground, transport).await, 40);
    }
    playground.shutdown().await;
}

/// A transaction that began before splits and commits after them, or in the middle of them.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_survive_splits() {
    let playground = playground(|_| ()).await;
    for (transport, client) in clients(&playground).await {
        for (kind, options) in kinds() {
            let name = format!("{transport} {kind}");
            let keys: Vec<Bytes> = (0..60).map(|i| key(&name, i)).collect();
            let txn = client.begin(options.clone()).await.unwrap();
            if txn.mode() == rutile_client::TxnMode::Pessimistic {
                txn.lock_keys(keys.clone(), LockOptions::default()).await.unwrap();
            }
            for k in &keys {
                txn.put(k.clone(), "0").unwrap();
            }
            let stop = Arc::new(AtomicBool::new(false));
            // Another client splits: this one's region cache knows nothing of it.
            let other = grpc_client(&playground).await;
            other.split_region(&keys[30]).await.unwrap();
            let splitting = tokio::spawn(split_all(other, name.clone(), 60, stop.clone()));
            txn.commit().await.unwrap();
            for round in 1..20 {
                // A split may lose pessimistic locks; what cannot be locked again in hindsight is aborted, never half done.
                let mut aborted = 0;
                while let Err(error) = write(&client, options.clone(), &keys, &round.to_string()).await {
                    aborted += 1;
                    let lost = matches!(error, rutile_client::Error::Aborted { .. });
                    assert!(lost && aborted < 10, "{name} {round}: {error}");
                }
                let view = client.snapshot(client.timestamp().await.unwrap());
                let found = view.batch_get(keys.clone()).await.unwrap();
                assert!(
                    found.len() == 60 && found.values().all(|v| *v == round.to_string()),
                    "{name} {round}"
                );
            }
            stop.store(true, Ordering::Relaxed);
            splitting.await.unwrap();
        }
    }
    playground.shutdown().await;
}

const ACCOUNTS: usize = 24;
const DEPOSIT: i64 = 100;
const TELLERS: usize = 8;
const TRANSFERS: usize = 30;

fn balance(value: &[u8]) -> i64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// One transfer; an error leaves everything as it was.
async fn transfer(
    client: &Client,
    options: TxnOptions,
    from: &Bytes,
    to: &Bytes,
    amount: i64,
) -> Result<(), Error> {
    let txn = client.begin(options).await?;
    let result = async {
        let pessimistic = txn.mode() == rutile_client::TxnMode::Pessimistic;
        let (before_from, before_to) = if pessimistic {
            let options = LockOptions { return_values: true, ..LockOptions::default() };
            let values = txn.lock_keys(vec![from.clone(), to.clone()], options).await?;
            (balance(values[0].value.as_ref().unwrap()), balance(values[1].value.as_ref().unwrap()))
        } else {
            (balance(&txn.get(from).await?.unwrap()), balance(&txn.get(to).await?.unwrap()))
        };
        txn.put(from.clone(), (before_from - amount).to_string())?;
        txn.put(to.clone(), (before_to + amount).to_string())?;
        txn.commit().await.map(drop)
    }
    .await;
    if result.is_err() {
        txn.rollback().await?;
    }
    result
}

/// Money is neither made nor lost, whoever looks and whenever, and each successful transfer happened exactly once.
#[tokio::test(flavor = "multi_thread")]
async fn a_bank_keeps_its_money() {
    let playground = playground(|_| ()).await;
    let both = clients(&playground).await;
    let accounts: Arc<Vec<Bytes>> = Arc::new((0..ACCOUNTS).map(|i| key("account", i)).collect());
    write(&both[0].1, optimistic(), &accounts, &DEPOSIT.to_string()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let splitting = tokio::spawn(split_all(both[1].1.clone(), "account".into(), ACCOUNTS, stop.clone()));
    let tellers: Vec<_> = (0..TELLERS)
        .map(|teller| {
            let client = both[teller % 2].1.clone();
            let accounts = accounts.clone();
            tokio::spawn(async move {
                let mut random = Random(teller as u64);
                let mut moved: HashMap<usize, i64> = HashMap::new();
                let mut done = 0;
                while done < TRANSFERS {
                    let (from, to) = (random.below(ACCOUNTS), random.below(ACCOUNTS));
                    if from == to {
                        continue;
                    }
                    let amount = 1 + random.below(10) as i64;
                    let options = if random.below(2) == 0 { optimistic() } else { pessimistic() };
                    match transfer(&client, options, &accounts[from], &accounts[to], amount).await {
                        Ok(()) => {
                            *moved.entry(from).or_default() -= amount;
                            *moved.entry(to).or_default() += amount;
                            done += 1;
                        }
                        Err(e) if e.is_retryable_transaction() => {}
                        Err(Error::Deadlock { .. }) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
                moved
            })
        })
        .collect();
    let total = ACCOUNTS as i64 * DEPOSIT;
    let mut audits = 0;
    while audits < 5 || tellers.iter().any(|t| !t.is_finished()) {
        for (transport, client) in &both {
            let options = ScanOptions { reverse: audits % 2 == 1, ..ScanOptions::default() };
            let view = client.snapshot(client.timestamp().await.unwrap());
            let pairs = view.scan(KeyRange::prefix(b"account"), options).collect().await.unwrap();
            assert_eq!(pairs.len(), ACCOUNTS, "{transport}");
            assert_eq!(pairs.iter().map(|p| balance(&p.value)).sum::<i64>(), total, "{transport}");
        }
        audits += 1;
    }
    let mut expected = [DEPOSIT; ACCOUNTS];
    for teller in tellers {
        for (account, change) in teller.await.unwrap() {
            expected[account] += change;
        }
    }
    stop.store(true, Ordering::Relaxed);
    splitting.await.unwrap();
    for (i, account) in accounts.iter().enumerate() {
        assert_eq!(read(&both[1].1, account).await, Some(expected[i].to_string()), "account {i}");
    }
    assert!(regions(&playground, "account").await > 1);
    playground.shutdown().await;
}
