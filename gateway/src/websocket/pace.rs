//! How fast one side may send.

use hub_stats::gcra::Gcra;
use std::time::{Duration, Instant};

/// Limits of one side; `None` for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Messages.
    pub messages: Option<Gcra>,
    /// Kilobytes, heads of frames included.
    pub kilobytes: Option<Gcra>,
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
            let (tat, wait) = rate.charge(*account, clock, cost);
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
