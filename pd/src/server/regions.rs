//! Look-ups of regions, and what leaders tell of them.

use std::collections::HashSet;
use std::sync::Arc;

use rutile_proto::metapb::Region;
use rutile_proto::pdpb::{
    self, AskBatchSplitRequest, AskBatchSplitResponse, BatchScanRegionsRequest, BatchScanRegionsResponse,
    ErrorType, GetOperatorRequest, GetOperatorResponse, GetRegionByIdRequest, GetRegionRequest,
    GetRegionResponse, OperatorStatus, RegionHeartbeatRequest, RegionHeartbeatResponse,
    ReportBatchSplitRequest, ReportBatchSplitResponse, ScanRegionsRequest, ScanRegionsResponse, SplitId,
    split_region,
};
use tonic::Status;

use super::PdService;
use super::leading::Leading;
use super::scheduling::KEYSPACE_IDS;
use crate::cluster::View;
use crate::cluster::region_tree::{RegionInfo, Update};
use crate::schedule::{keyspace_split, operator};

/// New regions that one split may make.
const SPLIT_COUNT_MAX: u32 = 1024;
/// Leaders split fresh clusters themselves: step in only when a region stays as it is for so long.
const KEYSPACE_SPLIT_AFTER_MS: u64 = 10_000;

impl PdService {
    /// The region that holds a key.
    pub async fn get_region(&self, request: GetRegionRequest) -> Result<GetRegionResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        Ok(self.look_up(&leading, |view| view.regions.by_key(&request.region_key)))
    }

    /// The region before the one that holds a key.
    pub async fn get_prev_region(&self, request: GetRegionRequest) -> Result<GetRegionResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        Ok(self.look_up(&leading, |view| view.regions.before_key(&request.region_key)))
    }

    /// A region by its id.
    pub async fn get_region_by_id(&self, request: GetRegionByIdRequest) -> Result<GetRegionResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        Ok(self.look_up(&leading, |view| view.regions.by_id(request.region_id)))
    }

    fn look_up(
        &self,
        leading: &Leading,
        find: impl FnOnce(&View) -> Option<&Arc<RegionInfo>>,
    ) -> GetRegionResponse {
        let view = leading.cluster.view();
        if !view.bootstrapped {
            return GetRegionResponse { header: self.not_bootstrapped(), ..Default::default() };
        }
        match find(&view) {
            None => GetRegionResponse { header: self.ok(), ..Default::default() },
            Some(info) => GetRegionResponse {
                header: self.ok(),
                region: Some(info.meta.clone()),
                leader: info.leader,
                down_peers: info.down_peers.clone(),
                pending_peers: info.pending_peers.clone(),
                buckets: None,
            },
        }
    }

    /// Regions of a range, in order.
    pub async fn scan_regions(&self, request: ScanRegionsRequest) -> Result<ScanRegionsResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let view = leading.cluster.view();
        if !view.bootstrapped {
            return Ok(ScanRegionsResponse { header: self.not_bootstrapped(), ..Default::default() });
        }
        let regions: Vec<pdpb::Region> = view
            .regions
            .scan(&request.start_key, &request.end_key)
            .take(limit(request.limit))
            .map(|info| to_region(info))
            .collect();
        Ok(ScanRegionsResponse {
            header: self.ok(),
            region_metas: regions.iter().filter_map(|region| region.region.clone()).collect(),
            leaders: regions.iter().map(|region| region.leader.unwrap_or_default()).collect(),
            regions,
        })
    }

    /// Regions of several ranges, without repetition, in order.
    pub async fn batch_scan_regions(
        &self,
        request: BatchScanRegionsRequest,
    ) -> Result<BatchScanRegionsResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let view = leading.cluster.view();
        if !view.bootstrapped {
            return Ok(BatchScanRegionsResponse { header: self.not_bootstrapped(), ..Default::default() });
        }
        let unordered = request
            .ranges
            .windows(2)
            .any(|pair| pair[0].end_key.is_empty() || pair[0].end_key > pair[1].start_key);
        if unordered {
            let header =
                self.error(ErrorType::InvalidValue, "the ranges must be in order and must not overlap");
            return Ok(BatchScanRegionsResponse { header, regions: vec![] });
        }
        let (mut seen, mut regions) = (HashSet::new(), Vec::new());
        let limit = limit(request.limit);
        for range in &request.ranges {
            let mut covered = range.start_key.clone();
            let mut complete = false;
            for info in view.regions.scan(&range.start_key, &range.end_key) {
                if info.meta.start_key > covered {
                    break;
                }
                if regions.len() < limit && seen.insert(info.meta.id) {
                    regions.push(to_region(info));
                }
                covered = info.meta.end_key.clone();
                complete = covered.is_empty() || (!range.end_key.is_empty() && covered >= range.end_key);
                if complete || regions.len() >= limit {
                    break;
                }
            }
            if request.contain_all_key_range && !complete && regions.len() < limit {
                let text = "found regions do not contain all the key ranges";
                let header = self.error(ErrorType::RegionsNotContainAllKeyRange, text);
                return Ok(BatchScanRegionsResponse { header, regions: vec![] });
            }
            if regions.len() >= limit {
                break;
            }
        }
        Ok(BatchScanRegionsResponse { header: self.ok(), regions })
    }

    /// Takes what a region's leader tells; the answer is what it shall do, if anything.
    pub fn region_heartbeat(
        &self,
        request: &RegionHeartbeatRequest,
    ) -> Result<Option<RegionHeartbeatResponse>, Status> {
        let leading = self.check(request.header.as_ref())?;
        self.metrics.region_heartbeats.inc();
        if !leading.cluster.view().bootstrapped {
            return Ok(Some(RegionHeartbeatResponse {
                header: self.not_bootstrapped(),
                ..Default::default()
            }));
        }
        let now_ms = self.clock.now_ms();
        let hot_bytes_per_s = leading.scheduling.config().hot_region_bytes_per_s;
        match leading.cluster.region_heartbeat(request, now_ms, hot_bytes_per_s) {
            Err(text) => {
                let header = self.error(ErrorType::Unknown, text);
                Ok(Some(RegionHeartbeatResponse { header, ..Default::default() }))
            }
            Ok(Update::Stale) => {
                tracing::debug!(region = request.region.as_ref().map(|r| r.id), "stale region heartbeat");
                Ok(None)
            }
            Ok(update) => {
                let step = self.operator_step(&leading, request, now_ms);
                let unchanged = update == Update::Statistics;
                Ok(step.or_else(|| unchanged.then(|| self.next_step(&leading, request)).flatten()))
            }
        }
    }

    fn next_step(
        &self,
        leading: &Leading,
        request: &RegionHeartbeatRequest,
    ) -> Option<RegionHeartbeatResponse> {
        let region = request.region.as_ref()?;
        let since_ms = leading.cluster.view().regions.by_id(region.id)?.since_ms;
        if self.clock.now_ms().saturating_sub(since_ms) < KEYSPACE_SPLIT_AFTER_MS {
            return None;
        }
        let keys = keyspace_split::split_keys(region, &KEYSPACE_IDS);
        if keys.is_empty() {
            return None;
        }
        Some(RegionHeartbeatResponse {
            header: self.ok(),
            region_id: region.id,
            region_epoch: region.region_epoch,
            target_peer: request.leader,
            split_region: Some(pdpb::SplitRegion { policy: split_region::Policy::Usekey as i32, keys }),
            ..Default::default()
        })
    }

    /// The next step of the region's operator, if it has one.
    fn operator_step(
        &self,
        leading: &Leading,
        request: &RegionHeartbeatRequest,
        now_ms: u64,
    ) -> Option<RegionHeartbeatResponse> {
        let region = leading.cluster.view().regions.by_id(request.region.as_ref()?.id)?.clone();
        let mut controller = leading.scheduling.controller.lock();
        let running = controller.is_running(region.meta.id);
        let mut answer = controller.on_heartbeat(&region, now_ms);
        let goes_on = controller.is_running(region.meta.id);
        if running && !goes_on {
            leading.scheduling.wake(); // there is room for the next one
        }
        if let Some(answer) = &mut answer {
            answer.header = self.ok();
        }
        answer
    }

    /// Ids for the regions and peers of a split.
    pub async fn ask_batch_split(
        &self,
        request: AskBatchSplitRequest,
    ) -> Result<AskBatchSplitResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let refuse = |header| Ok(AskBatchSplitResponse { header, ids: vec![] });
        if !leading.cluster.view().bootstrapped {
            return refuse(self.not_bootstrapped());
        }
        let Some(region) = request.region else {
            return refuse(self.error(ErrorType::Unknown, "missing region for split"));
        };
        if request.split_count == 0 || request.split_count > SPLIT_COUNT_MAX {
            let text = format!("split_count must be between 1 and {SPLIT_COUNT_MAX}");
            return refuse(self.error(ErrorType::InvalidValue, text));
        }
        if is_older(&leading, &region) {
            let text = format!("region {} has a newer epoch: it was split or merged meanwhile", region.id);
            return refuse(self.error(ErrorType::Unknown, text));
        }
        let peers = region.peers.len() as u64;
        let count = u64::from(request.split_count) * (1 + peers);
        let last = self.metrics.time_write(leading.ids.allocate(count)).await?;
        let mut next = last + 1 - count..=last;
        let ids = (0..request.split_count)
            .map(|_| SplitId {
                new_region_id: next.next().expect("as many ids as were asked for"),
                new_peer_ids: next.by_ref().take(peers as usize).collect(),
            })
            .collect();
        Ok(AskBatchSplitResponse { header: self.ok(), ids })
    }

    /// A region's operator: under way, or the last one that ended.
    pub async fn get_operator(&self, request: GetOperatorRequest) -> Result<GetOperatorResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        let controller = leading.scheduling.controller.lock();
        let region_id = request.region_id;
        let Some(operator) = controller.of_region(region_id) else {
            let header = self.error(ErrorType::RegionNotFound, format!("region {region_id} has no operator"));
            return Ok(GetOperatorResponse { header, region_id, ..Default::default() });
        };
        let status = match operator.status {
            operator::Status::Running => OperatorStatus::Running,
            operator::Status::Success => OperatorStatus::Success,
            operator::Status::Timeout => OperatorStatus::Timeout,
            operator::Status::Cancelled => OperatorStatus::Cancel,
            operator::Status::Replaced => OperatorStatus::Replace,
        };
        Ok(GetOperatorResponse {
            header: self.ok(),
            region_id,
            status: status as i32,
            desc: operator.to_string().into(),
            kind: operator.kind.name().into(),
        })
    }

    /// Takes the regions of a finished split.
    pub async fn report_batch_split(
        &self,
        request: ReportBatchSplitRequest,
    ) -> Result<ReportBatchSplitResponse, Status> {
        let leading = self.check(request.header.as_ref())?;
        if !leading.cluster.view().bootstrapped {
            return Ok(ReportBatchSplitResponse { header: self.not_bootstrapped() });
        }
        leading.cluster.report_split(request.regions);
        Ok(ReportBatchSplitResponse { header: self.ok() })
    }
}

fn is_older(leading: &Leading, region: &Region) -> bool {
    let epoch = region.region_epoch.unwrap_or_default();
    let view = leading.cluster.view();
    view.regions.by_id(region.id).is_some_and(|known| epoch.version < known.epoch().version)
}

fn limit(limit: i32) -> usize {
    usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX)
}

fn to_region(info: &RegionInfo) -> pdpb::Region {
    pdpb::Region {
        region: Some(info.meta.clone()),
        leader: Some(info.leader.unwrap_or_default()),
        down_peers: info.down_peers.clone(),
        pending_peers: info.pending_peers.clone(),
        buckets: None,
    }
}
