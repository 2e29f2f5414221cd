//! What goes over the placement driver's HTTP API: stores, operators, schedulers, settings.

use std::time::Duration;

use rutile_proto::codec;
use serde_json::{Value, json};

use super::{Pd, keys, show, table_id};
use crate::cli::{ConfigCommand, NewOperator, OperatorCommand, SchedulerCommand, StoreCommand};
use crate::error::{Error, Result};

/// Between two looks at the progress of a decommissioning.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

fn print_all(list: &Value, none: &str) {
    let lines = list.as_array().map(Vec::as_slice).unwrap_or_default();
    for line in lines {
        say!("{}", line.as_str().unwrap_or_default());
    }
    if lines.is_empty() {
        say!("{none}");
    }
}

impl Pd {
    /// Calls the HTTP API; `path` is below `/pd/api/v1`.
    pub(super) async fn http(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        show::http(&self.address, method, &format!("/pd/api/v1{path}"), body.as_ref()).await
    }

    /// Calls the HTTP API and prints what it says.
    async fn say(&self, method: &str, path: &str, body: Option<Value>) -> Result<()> {
        let answer = self.http(method, path, body).await?;
        say!("{}", answer.as_str().map_or_else(|| answer.to_string(), str::to_owned));
        Ok(())
    }

    pub(super) async fn stores(&self) -> Result<()> {
        let stores = self.http("GET", "/stores", None).await?;
        say!("{}", show::STORE_HEADING);
        for store in stores["stores"].as_array().into_iter().flatten() {
            say!("{}", show::store(store));
        }
        Ok(())
    }

    pub(super) async fn store(&self, command: &StoreCommand) -> Result<()> {
        match command {
            StoreCommand::Show { id } => {
                let store = self.http("GET", &format!("/store/{id}"), None).await?;
                say!("{}\n{}", show::STORE_HEADING, show::store(&store));
                Ok(())
            }
            StoreCommand::Decommission { id, wait } => {
                self.say("DELETE", &format!("/store/{id}"), None).await?;
                while *wait && !self.show_progress(*id).await? {
                    tokio::time::sleep(PROGRESS_INTERVAL).await;
                }
                Ok(())
            }
            StoreCommand::Progress { id } => self.show_progress(*id).await.map(drop),
            StoreCommand::Keep { id } => self.say("POST", &format!("/store/{id}/state?state=Up"), None).await,
        }
    }

    /// Prints what a store still holds; true when it is gone.
    async fn show_progress(&self, id: u64) -> Result<bool> {
        let progress = self.http("GET", &format!("/store/{id}/progress"), None).await?;
        let state = progress["state_name"].as_str().unwrap_or_default();
        say!(
            "store {id} {state}: {} regions, {} leaders, {} being moved",
            progress["region_count"],
            progress["leader_count"],
            progress["operator_count"]
        );
        Ok(state == "Tombstone")
    }

    pub(super) async fn operators(&self, command: Option<&OperatorCommand>) -> Result<()> {
        match command {
            None | Some(OperatorCommand::Show { region: None }) => {
                print_all(&self.http("GET", "/operators", None).await?, "no operator is under way");
                Ok(())
            }
            Some(OperatorCommand::Show { region: Some(region) }) => {
                let found = self.http("GET", &format!("/operators/{region}"), None).await?;
                let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
                say!("{}\t{}", text("status"), text("operator"));
                Ok(())
            }
            Some(OperatorCommand::History) => {
                print_all(&self.http("GET", "/operators/records", None).await?, "no operator ended yet");
                Ok(())
            }
            Some(OperatorCommand::Cancel { region }) => {
                self.say("DELETE", &format!("/operators/{region}"), None).await
            }
            Some(OperatorCommand::Add { operator }) => self.add_operator(operator).await,
        }
    }

    async fn add_operator(&self, operator: &NewOperator) -> Result<()> {
        let body = match operator {
            NewOperator::TransferLeader { region, store } => {
                json!({ "name": "transfer-leader", "region_id": region, "to_store_id": store })
            }
            NewOperator::AddPeer { region, store } => {
                json!({ "name": "add-peer", "region_id": region, "store_id": store })
            }
            NewOperator::RemovePeer { region, store } => {
                json!({ "name": "remove-peer", "region_id": region, "store_id": store })
            }
            NewOperator::TransferPeer { region, from, to } => {
                json!({ "name": "transfer-peer", "region_id": region, "from_store_id": from, "to_store_id": to })
            }
            NewOperator::Split { region, keys } => {
                let mut hex = Vec::with_capacity(keys.len());
                for key in keys {
                    let key = match key.strip_prefix("table:") {
                        Some(table) => {
                            keys::table_range(table_id(std::slice::from_ref(&self.address), table).await?).0
                        }
                        None => keys::parse(key)?,
                    };
                    let key = codec::encoded_bytes(&key);
                    hex.push(key.iter().map(|byte| format!("{byte:02X}")).collect::<String>());
                }
                json!({ "name": "split-region", "region_id": region, "keys": hex })
            }
            NewOperator::Merge { region, target } => {
                json!({ "name": "merge-region", "source_region_id": region, "target_region_id": target })
            }
            NewOperator::Scatter { regions } => {
                let group = std::process::id().to_string();
                for region in regions {
                    let body = json!({ "name": "scatter-region", "region_id": region, "group": group });
                    self.http("POST", "/operators", Some(body)).await?;
                }
                say!("{} regions are being scattered.", regions.len());
                return Ok(());
            }
        };
        self.say("POST", "/operators", Some(body)).await
    }

    pub(super) async fn scheduler(&self, command: &SchedulerCommand) -> Result<()> {
        match command {
            SchedulerCommand::List => {
                print_all(&self.http("GET", "/schedulers", None).await?, "all schedulers are off");
                Ok(())
            }
            SchedulerCommand::On { name } => self.say("POST", &format!("/schedulers/{name}"), None).await,
            SchedulerCommand::Off { name } => self.say("DELETE", &format!("/schedulers/{name}"), None).await,
        }
    }

    pub(super) async fn config(&self, command: Option<&ConfigCommand>) -> Result<()> {
        if let Some(ConfigCommand::Set { name, value }) = command {
            return self.say("POST", "/config", Some(json!({ name: value }))).await;
        }
        let config = self.http("GET", "/config", None).await?;
        let text = serde_json::to_string_pretty(&config).map_err(|e| Error::Ctl(e.to_string()))?;
        say!("{text}");
        Ok(())
    }
}
