//! Splits and scatters that clients ask for before they load data.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rutile_proto::pdpb::{
    ErrorType, ScatterRegionRequest, ScatterRegionResponse, SplitAndScatterRegionsRequest,
    SplitAndScatterRegionsResponse, SplitRegionsRequest, SplitRegionsResponse,
};
use tonic::Status;

use super::PdService;
use super::leading::Leading;
use crate::schedule::operator::{Operator, Step};
use crate::schedule::proposal::Kind;

/// Keys of one request.
const KEYS_MAX: usize = 4096;
/// Between two looks at how far it is.
const POLL: Duration = Duration::from_millis(20);
/// How long one try lasts; a request says how many it wants.
const TRY: Duration = Duration::from_secs(2);
const TRIES_DEFAULT: u64 = 5;
const TRIES_MAX: u64 = 30;

fn patience(retry_limit: u64) -> Duration {
    let tries = if retry_limit == 0 { TRIES_DEFAULT } else { retry_limit.min(TRIES_MAX) };
    TRY * tries as u32
}

fn percentage(done: usize, of: usize) -> u64 {
    (done * 100).checked_div(of).map_or(100, |percent| percent as u64)
}

impl PdService {
    /// Spreads regions over the stores.
    pub async fn scatter_region(
        &self,
        request: ScatterRegionRequest,
    ) -> Result<ScatterRegionResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let ids = match request.regions_id.is_empty() {
            false => request.regions_id,
            true if request.region_id != 0 => vec![request.region_id],
            true => request.region.iter().map(|region| region.id).collect(),
        };
        // A region that a split has just made may be known to the client alone.
        if let Some(region) = request.region
            && leading.cluster.view().regions.by_id(region.id).is_none()
        {
            leading.cluster.report_split(vec![region]);
        }
        let asked = ids.len();
        let (failed, why) = self.scatter_all(&leading, ids, &request.group, request.retry_limit.min(1)).await;
        let header = match why {
            Some(text) if failed.len() == asked => self.error(ErrorType::Unknown, text),
            _ => self.ok(),
        };
        let finished_percentage = percentage(asked - failed.len(), asked);
        Ok(ScatterRegionResponse { header, finished_percentage, failed_regions_id: failed })
    }

    /// Those that cannot be moved yet are tried again. Answers those that could not be moved, and why.
    async fn scatter_all(
        &self,
        leading: &Leading,
        mut ids: Vec<u64>,
        group: &str,
        tries: u64,
    ) -> (Vec<u64>, Option<String>) {
        let deadline = tokio::time::Instant::now() + TRY * tries as u32;
        loop {
            let (mut failed, mut why) = (Vec::new(), None);
            for id in ids {
                if let Err(error) = leading.scatter(id, group, self.clock.now_ms()).await {
                    failed.push(id);
                    why = Some(error.to_string());
                }
            }
            if failed.is_empty() || tokio::time::Instant::now() >= deadline {
                return (failed, why);
            }
            tokio::time::sleep(POLL).await;
            ids = failed;
        }
    }

    /// Makes keys (PD form) the first ones of regions; returns when they are, or when it takes too long.
    pub async fn split_regions(&self, request: SplitRegionsRequest) -> Result<SplitRegionsResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        match self.split_at(&leading, request.split_keys, request.retry_limit).await {
            Ok((regions_id, finished_percentage)) => {
                Ok(SplitRegionsResponse { header: self.ok(), finished_percentage, regions_id })
            }
            Err(text) => {
                let header = self.error(ErrorType::InvalidValue, text);
                Ok(SplitRegionsResponse { header, ..Default::default() })
            }
        }
    }

    /// The same, and spreads the regions over the stores.
    pub async fn split_and_scatter_regions(
        &self,
        request: SplitAndScatterRegionsRequest,
    ) -> Result<SplitAndScatterRegionsResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let split = self.split_at(&leading, request.split_keys, request.retry_limit).await;
        let (regions_id, split_finished_percentage) = match split {
            Ok(done) => done,
            Err(text) => {
                let header = self.error(ErrorType::InvalidValue, text);
                return Ok(SplitAndScatterRegionsResponse { header, ..Default::default() });
            }
        };
        let tries = if request.retry_limit == 0 { TRIES_DEFAULT } else { request.retry_limit.min(TRIES_MAX) };
        let (failed, _) = self.scatter_all(&leading, regions_id.clone(), &request.group, tries).await;
        Ok(SplitAndScatterRegionsResponse {
            header: self.ok(),
            split_finished_percentage,
            scatter_finished_percentage: percentage(regions_id.len() - failed.len(), regions_id.len()),
            regions_id,
        })
    }

    /// The regions that begin at one of the keys in the end, and how many percent of the keys those are.
    async fn split_at(
        &self,
        leading: &Leading,
        mut keys: Vec<Bytes>,
        retry_limit: u64,
    ) -> Result<(Vec<u64>, u64), String> {
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| !key.is_empty());
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return Err(format!("between 1 and {KEYS_MAX} keys can be split at, not {}", keys.len()));
        }
        let deadline = tokio::time::Instant::now() + patience(retry_limit);
        loop {
            let (mut begun, mut inside) = (Vec::new(), BTreeMap::<u64, Vec<Bytes>>::new());
            {
                let view = leading.cluster.view();
                for key in &keys {
                    match view.regions.by_key(key) {
                        Some(region) if region.meta.start_key == *key => begun.push(region.meta.id),
                        Some(region) => inside.entry(region.meta.id).or_default().push(key.clone()),
                        None => {}
                    }
                }
            }
            if begun.len() == keys.len() || tokio::time::Instant::now() >= deadline {
                let done = percentage(begun.len(), keys.len());
                return Ok((begun, done));
            }
            for (id, keys) in inside {
                let region = leading.cluster.view().regions.by_id(id).cloned();
                let Some(region) = region.filter(|_| !leading.scheduling.controller.lock().is_running(id))
                else {
                    continue;
                };
                let steps = vec![Step::Split(keys)];
                let operator =
                    Operator::new(&region, "split-regions", Kind::Split, steps, self.clock.now_ms());
                if let Err(error) = leading.add_operator(operator) {
                    tracing::debug!(region = id, %error, "a region is not split now");
                }
            }
            leading.scheduling.wake();
            tokio::time::sleep(POLL).await;
        }
    }
}
