//! Latencies counted in buckets of a logarithmic scale: one KiB, mergeable, within 5 %.
//!
//! Twelve buckets of equal width between each power of two and the next, as HdrHistogram's buckets and
//! sub-buckets (Gil Tene), with fewer of them. A bucket is at most a twelfth as wide as its lower edge,
//! so the middle of the bucket is at most 4.2 % from anything in it.

use super::within;
use std::time::Duration;

/// Buckets between a power of two and the next.
const PER_OCTAVE: u64 = 12;
/// The lowest edge is 2^6 us; what is below counts as that.
const OCTAVE_MIN: u32 = 6;
/// The highest edge is 2^27 us, about 134 s; what is above counts as that.
const OCTAVE_MAX: u32 = 27;
/// One below all edges, one above.
const BUCKETS: usize = (OCTAVE_MAX - OCTAVE_MIN) as usize * PER_OCTAVE as usize + 2;

/// Counts of latencies between 64 us and 134 s, with a relative error of at most 4.2 %. 1,016 bytes.
/// Counts stop at 2^32 - 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u32; BUCKETS],
}

/// A latency at which a [`Histogram`] can tell exactly how many samples are above: an edge of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge(u16);

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
        }
    }
}

impl Histogram {
    /// Counts one latency. A few nanoseconds.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.record_micros(micros);
    }

    /// Counts one latency of `micros` microseconds.
    pub fn record_micros(&mut self, micros: u64) {
        let bucket = &mut self.buckets[bucket(micros)];
        *bucket = bucket.saturating_add(1);
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
    }

    /// Samples counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().copied().map(u64::from).sum()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(|&count| count == 0)
    }

    /// Samples above an edge.
    pub fn count_above(&self, edge: Edge) -> u64 {
        let above = self.buckets.iter().skip(usize::from(edge.0) + 1);
        above.copied().map(u64::from).sum()
    }

    /// The latency that a share `q` (0 to 1) of the samples does not exceed; `None` without samples.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let index = self.quantile_bucket(q)?;
        let (low, high) = (lower(index), lower(index + 1));
        let middle = match index {
            0 => high,
            _ if index == BUCKETS - 1 => low,
            _ => (low + high) / 2.0,
        };
        Some(Duration::from_micros(middle.round() as u64))
    }

    /// The upper edge of the bucket in which the quantile lies; `None` without samples.
    pub fn quantile_edge(&self, q: f64) -> Option<Edge> {
        let index = self.quantile_bucket(q)?;
        Some(Edge(u16::try_from(index).unwrap_or(u16::MAX)))
    }

    fn quantile_bucket(&self, q: f64) -> Option<usize> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = (within(q, 0.0, 1.0) * total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, &count) in self.buckets.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                return Some(index);
            }
        }
        Some(BUCKETS - 1)
    }
}

impl Edge {
    /// The first edge at or above `latency`; the last one if there is none.
    pub fn at_least(latency: Duration) -> Self {
        let micros = latency.as_secs_f64() * 1e6;
        let index = (0..BUCKETS - 1).find(|&index| lower(index + 1) >= micros);
        Self(u16::try_from(index.unwrap_or(BUCKETS - 2)).unwrap_or(u16::MAX))
    }

    /// The latency at the edge.
    pub fn latency(self) -> Duration {
        Duration::from_micros(lower(usize::from(self.0).min(BUCKETS - 2) + 1).round() as u64)
    }
}

fn bucket(micros: u64) -> usize {
    if micros < 1 << OCTAVE_MIN {
        return 0;
    }
    if micros >= 1 << OCTAVE_MAX {
        return BUCKETS - 1;
    }
    let octave = micros.ilog2();
    let within = ((micros * PER_OCTAVE) >> octave) - PER_OCTAVE;
    let before = u64::from(octave - OCTAVE_MIN) * PER_OCTAVE;
    // At most BUCKETS - 2, because `micros` is below the highest edge.
    (before + within) as usize + 1
}

/// The lower edge of a bucket, in microseconds.
fn lower(index: usize) -> f64 {
    let Some(place) = index.checked_sub(1) else {
        return 0.0;
    };
    let per_octave = PER_OCTAVE as usize;
    let octave = OCTAVE_MIN as usize + place / per_octave;
    let within = (place % per_octave) as f64 / PER_OCTAVE as f64;
    2.0_f64.powi(octave as i32) * (1.0 + within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_fits_in_a_kibibyte() {
        assert!(
            size_of::<Histogram>() <= 1_024,
            "{}",
            size_of::<Histogram>()
        );
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(0.5), None);
        assert_eq!(Histogram::default().quantile_edge(0.5), None);
    }

    #[test]
    fn what_is_off_the_scale_counts_as_its_end() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::MAX);
        assert_eq!(histogram.count(), 2);
        assert_eq!(histogram.quantile(0.0), Some(Duration::from_micros(64)));
        assert_eq!(
            histogram.quantile(1.0),
            Some(Duration::from_micros(1 << 27))
        );
        assert_eq!(histogram.quantile(f64::NAN), histogram.quantile(0.0));
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_five_percent(
            mut micros in prop::collection::vec(64_u64..1 << 27, 1..300),
            q in 0.0..=1.0_f64,
        ) {
            let mut histogram = Histogram::default();
            for &one in &micros {
                histogram.record_micros(one);
            }
            micros.sort_unstable();
            let rank = ((q * micros.len() as f64).ceil() as usize).clamp(1, micros.len());
            let exact = micros[rank - 1] as f64;
            let shown = histogram.quantile(q).unwrap().as_micros() as f64;
            prop_assert!((shown / exact - 1.0).abs() <= 0.05, "{shown} for {exact}");
        }

        #[test]
        fn merged_ones_are_as_one(
            left in prop::collection::vec(any::<u64>(), 0..100),
            right in prop::collection::vec(any::<u64>(), 0..100),
        ) {
            let of = |samples: &mut dyn Iterator<Item = &u64>| {
                let mut histogram = Histogram::default();
                samples.for_each(|&one| histogram.record_micros(one));
                histogram
            };
            let mut merged = of(&mut left.iter());
            merged.merge(&of(&mut right.iter()));
            prop_assert_eq!(merged, of(&mut left.iter().chain(&right)));
        }

        #[test]
        fn an_edge_parts_what_is_above_from_what_is_not(
            micros in prop::collection::vec(0_u64..1 << 28, 1..200),
            at in 0_u64..1 << 27,
        ) {
            let edge = Edge::at_least(Duration::from_micros(at));
            let mut histogram = Histogram::default();
            micros.iter().for_each(|&one| histogram.record_micros(one));
            let limit = lower(usize::from(edge.0) + 1);
            prop_assert!(limit >= at as f64);
            let above = micros.iter().filter(|&&one| one as f64 >= limit).count();
            prop_assert_eq!(histogram.count_above(edge), above as u64);
        }
    }
}
