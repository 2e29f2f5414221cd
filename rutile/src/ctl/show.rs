//! One line per thing.

use rutile_proto::kvrpcpb::MvccInfo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::keys::{self, show_bound};
use crate::error::{Error, Result};

/// Above lines of [`region`]. Size in MiB, flow in bytes per second.
pub const REGION_HEADING: &str = "ID\tSTART\tEND\tEPOCH\tLEADER\tPEERS\tSIZE\tKEYS\tWRITTEN/S\tREAD/S";

/// The HTTP API: the answer as JSON; a refusal as an error in its words.
pub async fn http(address: &str, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let fail = |e: std::io::Error| Error::Ctl(format!("http://{address}{path}: {e}"));
    let mut stream = TcpStream::connect(address).await.map_err(fail)?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.map_err(fail)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(fail)?;
    let answer = String::from_utf8_lossy(&answer);
    let no_answer = || Error::Ctl(format!("http://{address}{path}: no answer"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(no_answer)?;
    let status = head.split_whitespace().nth(1).ok_or_else(no_answer)?;
    let value: Value = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
    if status.starts_with('2') {
        return Ok(value);
    }
    let reason = value["error"].as_str().map_or_else(|| body.to_owned(), str::to_owned);
    Err(Error::Ctl(format!("the placement driver answered: {reason}")))
}

/// Above lines of [`store`]. Flow in bytes per second, followers' reads included.
pub const STORE_HEADING: &str =
    "ID\tADDRESS\tSTATE\tLEADERS\tREGIONS\tUSED\tAVAILABLE\tCAPACITY\tVERSION\tLABELS\tWRITTEN/S\tREAD/S";

/// A store, as the HTTP API tells of it.
pub fn store(value: &Value) -> String {
    let (store, status) = (&value["store"], &value["status"]);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let labels: Vec<String> = store["labels"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|label| format!("{}={}", text(&label["key"]), text(&label["value"])))
        .collect();
    [
        text(&store["id"]),
        text(&store["address"]),
        text(&store["state_name"]),
        text(&status["leader_count"]),
        text(&status["region_count"]),
        text(&status["used_size"]),
        text(&status["available"]),
        text(&status["capacity"]),
        text(&store["version"]),
        labels.join(","),
        text(&status["written_bytes_per_s"]),
        text(&status["read_bytes_per_s"]),
    ]
    .join("\t")
}

/// A region, as the HTTP API tells of it.
pub fn region(value: &Value) -> String {
    let bound = |name: &str, unbounded: &str| {
        let bytes = keys::parse(&format!("0x{}", value[name].as_str().unwrap_or_default()));
        bytes.map_or_else(|_| "?".into(), |bytes| show_bound(&bytes, unbounded))
    };
    let peer = |peer: &Value| {
        let role = match peer["role_name"].as_str() {
            Some("Voter") | None => "",
            Some("Learner") => " learner",
            Some(_) => " joint",
        };
        format!("{}@{}{role}", peer["id"], peer["store_id"])
    };
    let peers: Vec<String> = value["peers"].as_array().into_iter().flatten().map(peer).collect();
    let leader = value["leader"].as_object().filter(|leader| leader["id"] != 0);
    let leader = leader.map_or_else(|| "none".into(), |leader| peer(&Value::Object(leader.clone())));
    format!(
        "{}\t{}\t{}\t{}:{}\t{leader}\t{}\t{}\t{}\t{}\t{}",
        value["id"],
        bound("start_key", "-inf"),
        bound("end_key", "+inf"),
        value["epoch"]["conf_ver"],
        value["epoch"]["version"],
        peers.join(","),
        value["approximate_size"],
        value["approximate_keys"],
        value["written_bytes_per_s"],
        value["read_bytes_per_s"],
    )
}

/// A key's lock and versions, newest first.
pub fn versions(info: &MvccInfo) {
    if let Some(lock) = &info.lock {
        let kind = lock.r#type().as_str_name();
        say!("lock\t{kind}\tstart_ts {}\tprimary {}", lock.start_ts, keys::show(&lock.primary));
    }
    for write in &info.writes {
        let kind = write.r#type().as_str_name();
        let long = info.values.iter().find(|value| value.start_ts == write.start_ts);
        let value = long.map_or(&write.short_value, |value| &value.value);
        let (commit, start) = (write.commit_ts, write.start_ts);
        say!("write\t{kind}\tcommit_ts {commit}\tstart_ts {start}\t{}", keys::show(value));
    }
    if info.lock.is_none() && info.writes.is_empty() {
        say!("no lock and no version");
    }
}
