//! What share of a table's rows has values of a column between two keys, by the frequent values and the histogram.

use super::model::ColumnStats;

/// One end of a range: a key if the value is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct End {
    pub(super) key: Option<Vec<u8>>,
    pub(super) inclusive: bool,
}

impl ColumnStats {
    /// Rows, of all, with the value of this key.
    pub(super) fn equal_part(&self, key: &[u8]) -> f64 {
        if let Some(top) = self.top_n.iter().find(|top| top.key == key) {
            return top.fraction;
        }
        let Some(bucket) = self.histogram.buckets.iter().find(|bucket| bucket.high_key.as_slice() >= key)
        else {
            // Beyond all values seen: new ones, or none.
            return if self.histogram.buckets.is_empty() && !self.top_n.is_empty() {
                0.0
            } else {
                self.other_fraction().min(self.average_fraction())
            };
        };
        if bucket.high_key == key {
            return bucket.high_fraction;
        }
        let others = (bucket.ndv - 1.0).max(1.0);
        let inside = ((bucket.fraction - bucket.high_fraction) / others).max(0.0);
        if inside > 0.0 { inside } else { self.other_fraction() }
    }

    /// Rows, of all, between two ends.
    pub(super) fn range_part(&self, low: Option<&End>, high: Option<&End>) -> f64 {
        let above = |key: &[u8]| match low {
            Some(End { key: Some(low), inclusive }) => {
                key > low.as_slice() || (*inclusive && key == low.as_slice())
            }
            _ => true,
        };
        let below = |key: &[u8]| match high {
            Some(End { key: Some(high), inclusive }) => {
                key < high.as_slice() || (*inclusive && key == high.as_slice())
            }
            _ => true,
        };
        let top: f64 =
            self.top_n.iter().filter(|top| above(&top.key) && below(&top.key)).map(|top| top.fraction).sum();
        let up_to = |end: Option<&End>, is_low: bool| match end {
            Some(End { key: Some(key), inclusive }) => self.below(key, *inclusive != is_low),
            _ if is_low => 0.0,
            _ => self.histogram.buckets.iter().map(|bucket| bucket.fraction).sum(),
        };
        let others = (up_to(high, false) - up_to(low, true)).max(0.0);
        (top + others).clamp(0.0, 1.0)
    }

    /// Rows of the histogram, of all, below a key, with it if `inclusive`.
    fn below(&self, key: &[u8], inclusive: bool) -> f64 {
        let mut sum = 0.0;
        for bucket in &self.histogram.buckets {
            if bucket.high_key.as_slice() < key || (inclusive && bucket.high_key == key) {
                sum += bucket.fraction;
                continue;
            }
            if bucket.low_key.as_slice() < key {
                let inner = (bucket.fraction - bucket.high_fraction).max(0.0);
                sum += inner * place_between(&bucket.low_key, &bucket.high_key, key);
            }
            if inclusive && bucket.low_key.as_slice() <= key {
                let one = (bucket.fraction - bucket.high_fraction).max(0.0) / (bucket.ndv - 1.0).max(1.0);
                sum += one.min(bucket.fraction);
            }
            break;
        }
        sum
    }
}

/// Where a key lies between two others, from 0 to 1: by the bytes behind what they have in common, as numbers.
fn place_between(low: &[u8], high: &[u8], key: &[u8]) -> f64 {
    let common = low.iter().zip(high).take_while(|(a, b)| a == b).count();
    let number = |bytes: &[u8]| {
        let mut whole = [0u8; 8];
        let rest = bytes.get(common..).unwrap_or_default();
        let len = rest.len().min(8);
        whole[..len].copy_from_slice(&rest[..len]);
        u64::from_be_bytes(whole) as f64
    };
    let (low, high, key) = (number(low), number(high), number(key));
    if high <= low { 0.5 } else { ((key - low) / (high - low)).clamp(0.0, 1.0) }
}
