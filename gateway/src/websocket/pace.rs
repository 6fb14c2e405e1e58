//! How fast one side may send.

use hub_stats::gcra::Gcra;
use std::time::{Duration, Instant};

/// Limits of one side; `None` for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Messages, control frames included.
    pub messages: Option<Rate>,
    /// Kilobytes, heads of frames included.
    pub kilobytes: Option<Rate>,
}

/// So many in a second, and as many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    each: u32,
    gcra: Gcra,
}

impl Rate {
    /// `each` in a second; 0 counts as 1.
    pub fn each_second(each: u32) -> Self {
        Self {
            each: each.max(1),
            gcra: Gcra::new(each, Duration::from_secs(1), each),
        }
    }
}

impl Rates {
    /// Most messages to look at before what they cost is charged: so no wait is longer than some seconds.
    pub(super) fn messages_at_once(&self) -> u32 {
        self.messages.map_or(u32::MAX, |rate| rate.each)
    }

    /// Most of `bytes` to read before what they cost is charged.
    pub(super) fn bytes_at_once(&self, bytes: usize) -> usize {
        let most = self.kilobytes.map(|rate| rate.each as usize * 1024);
        most.map_or(bytes, |most| most.min(bytes))
    }
}

/// What a side has on account. A side that is too fast is not read for a while, so nothing is lost and its
/// own buffers fill up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    began: Instant,
    messages: u64,
    kilobytes: u64,
    /// Bytes that are no whole kilobyte yet.
    odd: u16,
    /// Until then it is not read.
    pub(super) waits_until: Option<Instant>,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            messages: 0,
            kilobytes: 0,
            odd: 0,
            waits_until: None,
        }
    }

    /// It has sent so much.
    pub(super) fn sent(&mut self, messages: u32, bytes: usize, rates: &Rates, now: Instant) {
        let bytes = bytes + usize::from(self.odd);
        self.odd = (bytes % 1024) as u16;
        let kilobytes = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
        let clock = u64::try_from((now - self.began).as_nanos()).unwrap_or(u64::MAX);
        let mut longest = 0;
        for (rate, account, cost) in [
            (&rates.messages, &mut self.messages, messages),
            (&rates.kilobytes, &mut self.kilobytes, kilobytes),
        ] {
            let Some(rate) = rate.as_ref().filter(|_| cost > 0) else {
                continue;
            };
            // It has been sent already, so it is charged, and what is too much delays what follows.
            let (tat, wait) = rate.gcra.charge(*account, clock, cost);
            *account = tat;
            longest = longest.max(wait);
        }
        self.waits_until = (longest > 0).then(|| now + Duration::from_nanos(longest));
    }

    /// Whether it may be read.
    pub(super) fn may_send(&mut self, now: Instant) -> bool {
        if self.waits_until.is_some_and(|until| until > now) {
            return false;
        }
        self.waits_until = None;
        true
    }
}
