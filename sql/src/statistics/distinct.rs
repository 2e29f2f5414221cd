//! How many different values a table has, from a sample of blocks of neighbouring rows.
//!
//! Rows of one block are not independent: where values follow the order of the keys, a value's rows lie in one block. So a
//! value counts once per block it was seen in, and the estimator Duj1 (Haas et al., VLDB '95) is applied to these: with `d`
//! values in `n` places, `f1` of them in one place only, of a share `q` of all rows, there are `d / (1 − (1 − q) · f1 / n)`.

/// What a sample has of different values.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Seen {
    /// Different values.
    pub values: usize,
    /// Sum over the values of the blocks each was seen in.
    pub places: usize,
    /// Values that were seen in one block only.
    pub lone: usize,
}

impl Seen {
    /// A value that was seen in so many blocks.
    pub fn add(&mut self, blocks: usize) {
        self.values += 1;
        self.places += blocks;
        self.lone += usize::from(blocks == 1);
    }

    /// Different values in the whole table, of which a share of `sampled` rows (above 0, up to 1) was looked at; at most
    /// `rows_max`.
    pub fn estimate(&self, sampled: f64, rows_max: f64) -> f64 {
        let seen = self.values as f64;
        if sampled >= 1.0 || self.places == 0 {
            return seen;
        }
        let rest = 1.0 - (1.0 - sampled) * self.lone as f64 / self.places as f64;
        (seen / rest.max(sampled)).clamp(seen, rows_max.max(seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_seen_everywhere_are_all_there_are() {
        let mut seen = Seen::default();
        (0..10).for_each(|_| seen.add(100));
        assert_eq!(seen.estimate(0.01, 1e6), 10.0);
    }

    #[test]
    fn values_seen_once_each_are_as_many_as_rows() {
        let mut seen = Seen::default();
        (0..1000).for_each(|_| seen.add(1));
        assert!((seen.estimate(0.01, 1e6) - 100_000.0).abs() < 1e-6);
        assert_eq!(seen.estimate(0.01, 50_000.0), 50_000.0);
        assert_eq!(seen.estimate(1.0, 1e6), 1000.0);
    }
}
