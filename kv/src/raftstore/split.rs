//! Where and how a region is split.

use bytes::Bytes;
use rutile_proto::{codec, key, metapb};
use tokio::sync::oneshot;

use super::api::RegionResult;
use super::apply::Callback;
use super::command::{self, SplitCommand, SplitPiece};
use super::context::StoreContext;
use super::messages::StoreMsg;
use super::region_error;
use super::registry::Published;
use crate::pd_client::PdClient;

/// Length in bytes of the timestamp behind versioned keys.
const TS_SIZE_BYTES: usize = 8;

/// The best region bound at or shortly after `pd_key`: a memcomparable string without a timestamp, because clients decode bounds
/// so. A raw key, which may be anything, is rounded to the end of its first 8 bytes.
#[must_use]
pub fn split_bound(pd_key: &[u8]) -> Bytes {
    let mut rest = pd_key;
    if codec::decode_bytes(&mut rest).is_ok() && (rest.is_empty() || rest.len() == TS_SIZE_BYTES) {
        return Bytes::copy_from_slice(&pd_key[..pd_key.len() - rest.len()]);
    }
    codec::encoded_bytes(&pd_key[..pd_key.len().min(8)]).into()
}

/// The keys that cut the region, in order.
pub(super) fn cuts(region: &metapb::Region, mut keys: Vec<Bytes>) -> Vec<Bytes> {
    keys.retain(|k| k > &region.start_key && key::in_range(k, &region.start_key, &region.end_key));
    keys.sort();
    keys.dedup();
    keys
}

/// Asks the placement driver for ids, proposes the split and waits until all resulting regions are there.
pub(super) async fn split(
    ctx: &StoreContext,
    pd: &dyn PdClient,
    published: &Published,
    keys: Vec<Bytes>,
) -> RegionResult<Vec<metapb::Region>> {
    let region = &published.region;
    if !published.is_leader {
        return Err(region_error::not_leader(region.id, published.leader));
    }
    let keys = cuts(region, keys);
    if keys.is_empty() {
        return Ok(vec![(**region).clone()]);
    }
    let ids = pd.ask_batch_split((**region).clone(), keys.len() as u32).await;
    let ids = ids.map_err(|e| region_error::other(e.to_string()))?;
    if ids.len() != keys.len() || ids.iter().any(|id| id.new_peer_ids.len() != region.peers.len()) {
        return Err(region_error::other("the placement driver answered with too few ids"));
    }
    let piece = |(end_key, id): (Bytes, rutile_proto::pdpb::SplitId)| SplitPiece {
        end_key,
        region_id: id.new_region_id,
        peer_ids: id.new_peer_ids,
    };
    let pieces = keys.into_iter().zip(ids).map(piece).collect();
    let version = region.region_epoch.unwrap_or_default().version;
    let data = command::encode_split(version, &SplitCommand { pieces });
    let (tx, rx) = oneshot::channel();
    let callback = Callback::Admin(Box::new(move |result| drop(tx.send(result))));
    let propose = StoreMsg::Propose { region_id: region.id, term: published.term, data, callback };
    let _ = ctx.store_of(region.id).send(propose);
    rx.await.unwrap_or_else(|_| Err(region_error::undetermined("the store stops")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_are_memcomparable() {
        let mut versioned = codec::encoded_bytes(b"user key");
        let bare = versioned.clone();
        codec::encode_u64_desc(&mut versioned, 42);
        assert_eq!(split_bound(&versioned), bare);
        assert_eq!(split_bound(&bare), bare);
    }

    proptest! {
        #[test]
        fn every_bound_decodes_and_is_close(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
            let bound = split_bound(&raw);
            prop_assert!(codec::decode_bytes_exact(&bound).is_ok());
            prop_assert!(bound.len() <= 18 || raw.starts_with(&bound));
        }
    }

    #[test]
    fn only_keys_strictly_inside_cut() {
        let region = metapb::Region { start_key: "b".into(), end_key: "f".into(), ..Default::default() };
        let keys = ["f", "d", "a", "b", "c", "d", "z"].map(Bytes::from).to_vec();
        assert_eq!(cuts(&region, keys), ["c", "d"]);
    }
}
