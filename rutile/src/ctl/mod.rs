//! `rutile ctl`: looks at a running cluster.

/// Prints a line, as `println!` does. Who reads no more (`| head`) ends the command without a word.
macro_rules! say {
    ($($text:tt)*) => { $crate::ctl::say_line(&format!($($text)*)) };
}

mod admin;
mod keys;
mod show;

use std::collections::BTreeSet;
use std::io::Write as _;

use rutile_proto::codec;
use rutile_proto::ids::Timestamp;
use rutile_proto::key::txn_pd_key;
use rutile_proto::kvrpcpb::{Context, MvccGetByKeyRequest};
use rutile_proto::metapb::{Peer, Region};
use rutile_proto::pdpb::pd_client::PdClient;
use rutile_proto::pdpb::{
    GetMembersRequest, GetRegionRequest, GetStoreRequest, RequestHeader, ResponseHeader, ScanRegionsRequest,
    TsoRequest,
};
use rutile_proto::tikvpb::tikv_client::TikvClient;
use tonic::transport::{Channel, Endpoint};

use crate::cli::{CtlArgs, CtlCommand, RegionBy};
use crate::error::{Error, Result};

fn say_line(line: &str) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        let is_closed = error.kind() == std::io::ErrorKind::BrokenPipe;
        if !is_closed {
            eprintln!("rutile: nothing can be printed: {error}");
        }
        std::process::exit(i32::from(!is_closed));
    }
}

/// A connection to the placement driver.
struct Pd {
    stub: PdClient<Channel>,
    header: Option<RequestHeader>,
    address: String,
}

/// Runs one command.
pub async fn run(args: &CtlArgs) -> Result<()> {
    let mut pd = connect(&args.pd).await?;
    match &args.command {
        CtlCommand::Members => pd.members().await,
        CtlCommand::Stores => pd.stores().await,
        CtlCommand::Store { command } => pd.store(command).await,
        CtlCommand::Regions { limit } => pd.scan(b"", b"", *limit).await,
        CtlCommand::Region { by: RegionBy::Id { id } } => pd.region_by_id(*id).await,
        CtlCommand::Region { by: RegionBy::Key { key } } => pd.region_by_key(&keys::parse(key)?).await,
        CtlCommand::Region { by: RegionBy::Table { table } } => {
            let (start, end) = keys::table_range(table_id(&args.pd, table).await?);
            pd.scan(&txn_pd_key(&start), &txn_pd_key(&end), 0).await
        }
        CtlCommand::Operators { command } => pd.operators(command.as_ref()).await,
        CtlCommand::Scheduler { command } => pd.scheduler(command).await,
        CtlCommand::Mvcc { key } => pd.mvcc(&keys::parse(key)?).await,
        CtlCommand::Tso => pd.tso().await,
        CtlCommand::Config { command } => pd.config(command.as_ref()).await,
    }
}

/// The id of a table given by its id or by `database.table`.
async fn table_id(endpoints: &[String], table: &str) -> Result<i64> {
    if let Ok(id) = table.parse() {
        return Ok(id);
    }
    let Some((database, name)) = table.split_once('.') else {
        return Err(Error::Ctl(format!("\"{table}\" is neither a table's id nor database.table")));
    };
    let failed = |error: String| Error::Ctl(format!("the catalog cannot be read: {error}"));
    let client = rutile_client::Client::connect(endpoints).await.map_err(|e| failed(e.to_string()))?;
    let catalog = rutile_sql::catalog::meta::load(&client.snapshot(Timestamp::MAX)).await;
    let catalog = catalog.map_err(|e| failed(e.to_string()))?;
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let tables = catalog.databases.iter().filter(|(info, _)| same(&info.name, database));
    let found = tables.flat_map(|(_, tables)| tables).find(|table| same(&table.name, name));
    found.map(|table| table.id.0).ok_or_else(|| Error::Ctl(format!("there is no table {database}.{name}")))
}

async fn connect(endpoints: &[String]) -> Result<Pd> {
    let mut reason = "no address given".to_string();
    for endpoint in endpoints {
        let address = endpoint.trim_start_matches("http://").to_string();
        match dial(&address).await {
            Ok(pd) => return Ok(pd),
            Err(text) => reason = text,
        }
    }
    Err(Error::PdMissing { endpoints: endpoints.join(","), reason })
}

/// Through any member to the one that leads; members are shown even without a leader.
async fn dial(address: &str) -> std::result::Result<Pd, String> {
    let (pd, leader) = dial_member(address).await?;
    match leader {
        Some(leader) if leader != address => Ok(dial_member(&leader).await.map_or(pd, |(pd, _)| pd)),
        _ => Ok(pd),
    }
}

/// A connection to a member, and the address of the leader it names.
async fn dial_member(address: &str) -> std::result::Result<(Pd, Option<String>), String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| e.to_string())?;
    let timeout = std::time::Duration::from_secs(3);
    let channel = endpoint.connect_timeout(timeout).connect().await.map_err(|e| root_cause(&e))?;
    let mut stub = PdClient::new(channel).max_decoding_message_size(256 << 20);
    let members =
        stub.get_members(GetMembersRequest::default()).await.map_err(|e| e.message().to_string())?;
    let members = members.into_inner();
    let cluster_id = members.header.unwrap_or_default().cluster_id;
    let header = Some(RequestHeader { cluster_id, ..Default::default() });
    let leader = members.leader.and_then(|leader| leader.client_urls.into_iter().next());
    let leader = leader.map(|url| url.trim_start_matches("http://").to_owned());
    Ok((Pd { stub, header, address: address.into() }, leader))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn failed(status: tonic::Status) -> Error {
    Error::Ctl(format!("the placement driver answered: {}", status.message()))
}

fn check(header: Option<ResponseHeader>) -> Result<()> {
    match header.and_then(|header| header.error) {
        Some(error) => Err(Error::Ctl(format!("the placement driver answered: {}", error.message))),
        None => Ok(()),
    }
}

impl Pd {
    async fn members(&mut self) -> Result<()> {
        let members = self.stub.get_members(GetMembersRequest::default()).await.map_err(failed)?.into_inner();
        let leader = members.leader.map_or(0, |leader| leader.member_id);
        say!("cluster {}", members.header.unwrap_or_default().cluster_id);
        for member in members.members {
            let role = if member.member_id == leader { "leader" } else { "member" };
            say!("{}\t{}\t{}\t{}", member.name, member.member_id, role, member.client_urls.join(","));
        }
        Ok(())
    }

    async fn scan(&mut self, start: &[u8], end: &[u8], limit: i32) -> Result<()> {
        let request = ScanRegionsRequest {
            header: self.header.clone(),
            start_key: start.to_vec().into(),
            limit,
            end_key: end.to_vec().into(),
        };
        let response = self.stub.scan_regions(request).await.map_err(failed)?.into_inner();
        check(response.header)?;
        let wanted: BTreeSet<u64> =
            response.regions.iter().filter_map(|region| Some(region.region.as_ref()?.id)).collect();
        let all = self.http("GET", "/regions", None).await?;
        say!("{}", show::REGION_HEADING);
        for region in all["regions"].as_array().into_iter().flatten() {
            if region["id"].as_u64().is_some_and(|id| wanted.contains(&id)) {
                say!("{}", show::region(region));
            }
        }
        Ok(())
    }

    async fn region_by_id(&mut self, id: u64) -> Result<()> {
        let region = self.http("GET", &format!("/region/id/{id}"), None).await?;
        say!("{}\n{}", show::REGION_HEADING, show::region(&region));
        Ok(())
    }

    async fn region_by_key(&mut self, key: &[u8]) -> Result<()> {
        let hex: String = codec::encoded_bytes(key).iter().map(|byte| format!("{byte:02X}")).collect();
        let region = self.http("GET", &format!("/region/key/{hex}"), None).await?;
        say!("{}\n{}", show::REGION_HEADING, show::region(&region));
        Ok(())
    }

    async fn timestamp(&mut self) -> Result<Timestamp> {
        let request = TsoRequest { header: self.header.clone(), count: 1, ..Default::default() };
        let mut answers = self.stub.tso(tokio_stream::once(request)).await.map_err(failed)?.into_inner();
        let answer = answers.message().await.map_err(failed)?;
        let ts = answer.and_then(|answer| answer.timestamp);
        ts.map(|ts| Timestamp::from(&ts))
            .ok_or_else(|| Error::Ctl("the placement driver gave no timestamp".into()))
    }

    async fn tso(&mut self) -> Result<()> {
        let ts = self.timestamp().await?;
        say!("{ts}\tphysical {} ms\tlogical {}", ts.physical_ms(), ts.logical());
        Ok(())
    }
}

impl Pd {
    /// The region that holds a key, and a connection to the store that leads it.
    async fn leader_of(&mut self, key: &[u8]) -> Result<(Region, Peer, TikvClient<Channel>)> {
        let region_key = codec::encoded_bytes(key).into();
        let request = GetRegionRequest { header: self.header.clone(), region_key, need_buckets: false };
        let response = self.stub.get_region(request).await.map_err(failed)?.into_inner();
        check(response.header)?;
        let region =
            response.region.ok_or_else(|| Error::Ctl("no region holds this key at the moment".into()))?;
        let leader = response.leader.filter(|leader| leader.id != 0);
        let leader = leader.ok_or_else(|| Error::Ctl(format!("region {} has no leader now", region.id)))?;
        let request = GetStoreRequest { header: self.header.clone(), store_id: leader.store_id };
        let response = self.stub.get_store(request).await.map_err(failed)?.into_inner();
        check(response.header)?;
        let address = response.store.unwrap_or_default().address;
        let unreachable =
            |reason: String| Error::Ctl(format!("store {} at {address}: {reason}", leader.store_id));
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).map_err(|e| unreachable(e.to_string()))?;
        let channel = endpoint.connect().await.map_err(|e| unreachable(root_cause(&e)))?;
        Ok((region, leader, TikvClient::new(channel).max_decoding_message_size(256 << 20)))
    }

    /// The lock and all versions of a transactional key.
    async fn mvcc(&mut self, key: &[u8]) -> Result<()> {
        let (region, leader, mut store) = self.leader_of(key).await?;
        let context = Context {
            region_id: region.id,
            region_epoch: region.region_epoch,
            peer: Some(leader),
            ..Default::default()
        };
        let request = MvccGetByKeyRequest { context: Some(context), key: key.to_vec().into() };
        let refused = |text: &str| Error::Ctl(format!("store {} answered: {text}", leader.store_id));
        let response = store.mvcc_get_by_key(request).await.map_err(|s| refused(s.message()))?.into_inner();
        if let Some(error) = response.region_error {
            return Err(refused(&error.message));
        }
        if !response.error.is_empty() {
            return Err(refused(&response.error));
        }
        say!("region {} on store {}", region.id, leader.store_id);
        show::versions(&response.info.unwrap_or_default());
        Ok(())
    }
}
