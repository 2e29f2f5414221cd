//! `rutile ctl` against a cluster of processes: everything that it can change, once.

use anyhow::{Context, Result, ensure};
use rutile_tests::cluster::{Cluster, until};

const SCHEDULERS: [&str; 5] =
    ["balance-leader", "balance-region", "balance-hot-region", "merge-checker", "replica-checker"];

fn refused(cluster: &Cluster, args: &[&str]) -> Result<String> {
    match cluster.ctl(args) {
        Ok(text) => anyhow::bail!("{args:?} was not refused: {text}"),
        Err(error) => Ok(error.to_string()),
    }
}

/// Adds an operator and waits until its history says that it went well.
fn operate(cluster: &Cluster, args: &[&str]) -> Result<()> {
    let region = args[1];
    let all: Vec<&str> = ["operators", "add"].iter().chain(args).copied().collect();
    // A region that has just changed may be busy for a moment.
    until(&format!("{args:?} is taken up"), || cluster.ctl(&all).map(|_| true))?;
    until(&format!("{args:?} has ended"), || {
        let shown = cluster.ctl(&["operators", "show", region])?;
        ensure!(!shown.contains("timeout") && !shown.contains("cancel"), "{shown}");
        Ok(shown.to_lowercase().starts_with("success"))
    })
}

#[test]
fn operators_schedulers_settings_and_a_store_that_leaves() -> Result<()> {
    let mut cluster = Cluster::with_stores(3)?;
    let stores = cluster.ctl(&["stores"])?;
    ensure!(stores.lines().filter(|line| line.contains("\tUp\t")).count() == 3, "{stores}");

    let (status, said) = cluster.ctl_unread(&["stores"])?;
    ensure!(status.success() && said.is_empty(), "{status}: {said}");

    // Schedulers: off, so that nobody but us moves anything.
    let on = cluster.ctl(&["scheduler", "list"])?;
    ensure!(on.lines().eq(SCHEDULERS), "{on}");
    for name in on.lines() {
        cluster.ctl(&["scheduler", "off", name])?;
    }
    ensure!(cluster.ctl(&["scheduler", "list"])? == "all schedulers are off");
    ensure!(refused(&cluster, &["scheduler", "on", "nonsense"])?.contains("there is no scheduler"));

    // Settings.
    cluster.ctl(&["config", "set", "max-replicas", "3"])?;
    let config = cluster.ctl(&["config"])?;
    ensure!(config.contains("\"max-replicas\": 3"), "{config}");
    ensure!(!refused(&cluster, &["config", "set", "nonsense", "1"])?.is_empty());
    ensure!(!refused(&cluster, &["config", "set", "max-replicas", "many"])?.is_empty());

    operators(&cluster)?;
    an_operator_that_cannot_go_on(&mut cluster)?;
    for name in on.lines() {
        cluster.ctl(&["scheduler", "on", name])?;
    }
    ensure!(cluster.ctl(&["scheduler", "list"])? == on);
    a_store_leaves(&mut cluster)
}

/// Split, leader, peers, merge, scatter.
fn operators(cluster: &Cluster) -> Result<()> {
    let whole = cluster.region_of("xkey")?;
    operate(cluster, &["split", &whole.id.to_string(), "xm", "xt"])?;
    until("there are three pieces", || {
        let ids = ["xa", "xm", "xt"].map(|key| cluster.region_of(key).map(|region| region.id).ok());
        Ok(ids[0].is_some() && ids[0] != ids[1] && ids[1] != ids[2])
    })?;
    let region = cluster.region_of("xm")?;
    ensure!(region.start == "\"xm\"", "{region:?}");
    let (id, leader) = (region.id.to_string(), region.leader.context("no leader")?);
    let others: Vec<u64> = region.stores.iter().copied().filter(|store| *store != leader).collect();

    operate(cluster, &["transfer-leader", &id, &others[0].to_string()])?;
    ensure!(cluster.region(region.id)?.leader == Some(others[0]));
    let gone = others[1].to_string();
    operate(cluster, &["remove-peer", &id, &gone])?;
    ensure!(cluster.region(region.id)?.stores.len() == 2);
    ensure!(refused(cluster, &["operators", "add", "remove-peer", &id, &gone])?.contains("has no peer"));
    operate(cluster, &["add-peer", &id, &gone])?;
    until("the new peer is there", || Ok(cluster.region(region.id)?.stores.len() == 3))?;
    ensure!(refused(cluster, &["operators", "add", "add-peer", &id, "4711"])?.contains("there is no store"));

    let target = cluster.region_of("xt")?.id.to_string();
    operate(cluster, &["merge", &id, &target])?;
    until("the two are one", || Ok(cluster.region_of("xm")?.id.to_string() == target))?;
    let regions: Vec<String> = cluster.regions()?.iter().map(|region| region.id.to_string()).collect();
    let scatter: Vec<&str> =
        ["operators", "add", "scatter"].into_iter().chain(regions.iter().map(String::as_str)).collect();
    until("all regions are scattered", || cluster.ctl(&scatter).map(|_| true))?;
    until("nothing is under way", || Ok(cluster.ctl(&["operators"])? == "no operator is under way"))?;
    let history = cluster.ctl(&["operators", "history"])?;
    for name in ["admin-split-region", "admin-transfer-leader", "admin-merge-region"] {
        ensure!(history.lines().any(|line| line.contains(name)), "no {name} in: {history}");
    }
    Ok(())
}

/// A peer on a store that has just died: shown, then cancelled.
fn an_operator_that_cannot_go_on(cluster: &mut Cluster) -> Result<()> {
    cluster.add_store(|port| port)?;
    let last = |cluster: &Cluster| -> Result<u64> {
        let stores = cluster.ctl(&["stores"])?;
        let port = format!("127.0.0.1:{}", cluster.stores[3].port);
        let line = stores.lines().find(|line| line.contains(&port)).context("no fourth store")?;
        Ok(line.split('\t').next().context("no id")?.parse()?)
    };
    let mut store = 0;
    until("the fourth store is known", || {
        store = last(cluster)?;
        Ok(true)
    })?;
    cluster.stores[3].kill();
    let region = cluster.region_of("xa")?.id.to_string();
    cluster.ctl(&["operators", "add", "add-peer", &region, &store.to_string()])?;
    until("it is under way", || Ok(cluster.ctl(&["operators"])?.contains("admin-add-peer")))?;
    let shown = cluster.ctl(&["operators", "show", &region])?;
    ensure!(shown.to_lowercase().starts_with("running"), "{shown}");
    cluster.ctl(&["operators", "cancel", &region])?;
    ensure!(refused(cluster, &["operators", "cancel", &region])?.contains("no operator under way"));
    until("nothing is under way", || Ok(cluster.ctl(&["operators"])? == "no operator is under way"))?;
    // Whatever came of the peer: it is given up. Then the store is gone for good, as nobody is there to hold anything.
    let peers = cluster.region(region.parse()?)?.stores;
    if peers.contains(&store) {
        operate(cluster, &["remove-peer", &region, &store.to_string()])?;
    }
    cluster.ctl(&["store", "decommission", &store.to_string()])?;
    until("the dead store is gone for good", || {
        Ok(cluster.ctl(&["store", "progress", &store.to_string()])?.contains("Tombstone"))
    })
}

fn a_store_leaves(cluster: &mut Cluster) -> Result<()> {
    let stays = cluster.regions()?[0].stores[0];
    let leaving = stays.to_string();
    let why = refused(cluster, &["store", "decommission", &leaving])?;
    ensure!(why.contains("cannot leave"), "{why}");
    cluster.add_store(|port| port)?;
    until("there is room for what it holds", || {
        cluster.ctl(&["store", "decommission", &leaving]).map(|_| true)
    })?;
    // Not that one after all; and then it is.
    cluster.ctl(&["store", "keep", &leaving])?;
    ensure!(cluster.ctl(&["store", "show", &leaving])?.contains("\tUp\t"));
    cluster.ctl(&["store", "decommission", &leaving])?;
    let progress = cluster.ctl(&["store", "progress", &leaving])?;
    ensure!(progress.starts_with(&format!("store {leaving} ")), "{progress}");
    until("the store is empty and gone for good", || {
        Ok(cluster.ctl(&["store", "progress", &leaving])?.contains("Tombstone: 0 regions"))
    })?;
    for region in cluster.regions()? {
        ensure!(region.stores.len() == 3 && !region.stores.contains(&stays), "{region:?}");
    }
    Ok(())
}
