//! One line per thing.

use rutile_proto::kvrpcpb::MvccInfo;
use rutile_proto::metapb::{Peer, Region, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::keys::{self, show_bound};
use crate::error::{Error, Result};

/// Above lines of [`region`].
pub const REGION_HEADING: &str = "ID\tSTART\tEND\tEPOCH\tLEADER\tPEERS";

/// A region.
pub fn region(region: &Region, leader: Option<Peer>) -> String {
    let epoch = region.region_epoch.unwrap_or_default();
    let peers: Vec<String> =
        region.peers.iter().map(|peer| format!("{}@{}", peer.id, peer.store_id)).collect();
    let leader = leader.filter(|leader| leader.id != 0);
    let leader = leader.map_or_else(|| "none".into(), |leader| format!("{}@{}", leader.id, leader.store_id));
    format!(
        "{}\t{}\t{}\t{}:{}\t{leader}\t{}",
        region.id,
        show_bound(&region.start_key, "-inf"),
        show_bound(&region.end_key, "+inf"),
        epoch.conf_ver,
        epoch.version,
        peers.join(",")
    )
}

/// A store.
pub fn store(store: &Store) -> String {
    let labels: Vec<String> =
        store.labels.iter().map(|label| format!("{}={}", label.key, label.value)).collect();
    let state = store.state().as_str_name();
    format!("{}\t{}\t{state}\t{}\t{}", store.id, store.address, store.version, labels.join(","))
}

/// The body of a small HTTP answer.
pub async fn http_get(address: &str, path: &str) -> Result<String> {
    let fail = |e: std::io::Error| Error::Ctl(format!("http://{address}{path}: {e}"));
    let mut stream = TcpStream::connect(address).await.map_err(fail)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(fail)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(fail)?;
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_string()),
        None => Err(Error::Ctl(format!("http://{address}{path}: no answer"))),
    }
}

/// A key's lock and versions, newest first.
pub fn versions(info: &MvccInfo) {
    if let Some(lock) = &info.lock {
        let kind = lock.r#type().as_str_name();
        println!("lock\t{kind}\tstart_ts {}\tprimary {}", lock.start_ts, keys::show(&lock.primary));
    }
    for write in &info.writes {
        let kind = write.r#type().as_str_name();
        let long = info.values.iter().find(|value| value.start_ts == write.start_ts);
        let value = long.map_or(&write.short_value, |value| &value.value);
        let (commit, start) = (write.commit_ts, write.start_ts);
        println!("write\t{kind}\tcommit_ts {commit}\tstart_ts {start}\t{}", keys::show(value));
    }
    if info.lock.is_none() && info.writes.is_empty() {
        println!("no lock and no version");
    }
}
