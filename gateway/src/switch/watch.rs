//! What the data plane tells the judges: one small sample for each request of a cluster that is being
//! rolled out, and nothing at all for the others.

use super::budget::Budget;
use crate::telemetry::shards::thread_number;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const SHARDS: usize = 8;
/// Samples that wait in one shard. The judges come four times a second.
const SAMPLES_MAX: usize = 16_384;

/// How a request ended, as far as its upstream is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Answered, and not with 5xx.
    Good,
    /// Answered with 5xx, or in pieces, or an upgrade that was refused.
    ServerError,
    /// No connection was had.
    ConnectError,
    /// No answer came in time.
    Timeout,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// A number for the tenant, or for the client where there is none.
    pub who: u64,
    /// Microseconds until the answer began; what is above 71 minutes counts as that.
    pub latency_us: u32,
    /// Epoch of the routing that it came by.
    pub epoch: u64,
    /// Its place among ten-thousand.
    pub place: u16,
    /// It was on the new colour.
    pub on_new: bool,
    /// How it ended.
    pub ending: Ending,
}

/// Samples on their way from requests to the judges of one rollout.
#[derive(Debug, Default)]
pub struct Watch {
    shards: [Mutex<Vec<Sample>>; SHARDS],
    lost: AtomicU64,
    /// Of requests that the new colour failed and the old one may serve.
    pub budget: Budget,
}

impl Watch {
    /// Hands a sample over. Never waits for long; where nobody has come for them, samples are lost and
    /// counted.
    pub fn tell(&self, sample: Sample) {
        let mut shard = self.shards[thread_number() % SHARDS].lock();
        if shard.len() < SAMPLES_MAX {
            shard.push(sample);
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes all samples.
    pub fn take(&self) -> Vec<Sample> {
        let shards = self.shards.iter();
        shards
            .flat_map(|shard| std::mem::take(&mut *shard.lock()))
            .collect()
    }

    /// Samples that were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_past_the_bound_are_lost_and_counted() {
        let watch = Watch::default();
        let sample = Sample {
            who: 1,
            latency_us: 2,
            epoch: 1,
            place: 3,
            on_new: true,
            ending: Ending::Good,
        };
        for _ in 0..SAMPLES_MAX + 5 {
            watch.tell(sample);
        }
        assert_eq!(watch.lost(), 5);
        assert_eq!(watch.take().len(), SAMPLES_MAX);
        assert!(watch.take().is_empty());
    }
}
