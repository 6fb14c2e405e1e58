//! What came of the requests.

use super::Kind;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Requests that are remembered one by one: an hour at 1,000 a second. More are counted only.
const REMEMBERED_MAX: usize = 4_000_000;
/// Different words for failures that are told apart.
const WORDS_MAX: usize = 64;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The expected status, and every byte of the expected body.
    Ok,
    /// No connection was had.
    Refused,
    /// The connection or the stream broke before an answer began.
    Reset,
    /// An answer of class 4xx.
    Status4xx,
    /// An answer of class 5xx.
    Status5xx,
    /// The answer's body broke off.
    ShortBody,
    /// Other bytes than expected, or an answer for another tenant.
    WrongBody,
    /// No whole answer in time.
    Timeout,
    /// Not HTTP, or a status that nobody expects.
    Other,
}

/// What a request brought.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    /// It came from the green colour.
    pub(crate) green: bool,
    /// More on a failure: the status, and the gateway's own code where it has answered itself.
    pub(crate) why: Option<String>,
}

/// One request that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// When it was due, in microseconds since the load began; an hour fits.
    due_us: u32,
    /// From when it was due to its end, in microseconds.
    took_us: u32,
    pub(crate) kind: Kind,
    pub(crate) outcome: Outcome,
    pub(crate) green: bool,
}

/// All requests of a load.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) began: Instant,
    /// Every request that has ended, in the order in which they ended.
    pub(crate) done: Vec<Done>,
    /// Those that there was no room for.
    pub(crate) forgotten: u64,
    /// Never sent, because too many were in flight: the bound was hit.
    pub(crate) unsent: u64,
    /// Sent later than 10 ms after they were due.
    pub(crate) late: u64,
    /// Sent once more over HTTP/2, because the server had said that it had not begun with them.
    pub(crate) resent: u64,
    /// Kept connections on which bytes came that nobody had asked for; no request failed by it.
    pub(crate) unasked: u64,
    failed: u64,
    /// Failures in words, and how often each was.
    pub(crate) why: BTreeMap<String, u64>,
}

// === impl Outcome ===

impl Outcome {
    /// Every way to fail.
    pub(crate) const FAILURES: [Self; 8] = [
        Self::Refused,
        Self::Reset,
        Self::Status4xx,
        Self::Status5xx,
        Self::ShortBody,
        Self::WrongBody,
        Self::Timeout,
        Self::Other,
    ];

    /// As reports write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Status4xx => "status_4xx",
            Self::Status5xx => "status_5xx",
            Self::ShortBody => "short_body",
            Self::WrongBody => "wrong_body",
            Self::Timeout => "timeout",
            Self::Other => "other",
        }
    }
}

// === impl Answer ===

impl Answer {
    /// It never came.
    pub(crate) fn failed(outcome: Outcome) -> Self {
        Self {
            outcome,
            green: false,
            why: None,
        }
    }

    /// What to call a status that is not the expected one. `body` is the beginning of the answer's.
    pub(crate) fn of_status(status: u16, green: bool, body: &[u8]) -> Self {
        let outcome = match status {
            400..500 => Outcome::Status4xx,
            500..600 => Outcome::Status5xx,
            _ => Outcome::Other,
        };
        let code = serde_json::from_slice::<serde_json::Value>(body).ok();
        let code = code.and_then(|body| Some(body["error"]["code"].as_str()?.to_owned()));
        Self {
            outcome,
            green,
            why: Some(code.map_or_else(
                || format!("{status} of the application"),
                |code| format!("{status} {code}"),
            )),
        }
    }
}

// === impl Done ===

impl Done {
    /// When it was due, since the load began.
    pub(crate) fn due(&self) -> Duration {
        Duration::from_micros(u64::from(self.due_us))
    }

    /// When it ended, since the load began.
    pub(crate) fn ended(&self) -> Duration {
        self.due() + Duration::from_micros(u64::from(self.took_us))
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.outcome != Outcome::Ok
    }
}

// === impl Record ===

impl Record {
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            done: Vec::new(),
            forgotten: 0,
            unsent: 0,
            late: 0,
            resent: 0,
            unasked: 0,
            failed: 0,
            why: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, kind: Kind, due: Instant, took: Duration, answer: &Answer) {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        if answer.outcome != Outcome::Ok {
            self.failed += 1;
            let word = answer.outcome.as_str();
            let why = match &answer.why {
                Some(why) => format!("{word}: {}: {why}", kind.as_str()),
                None => format!("{word}: {}", kind.as_str()),
            };
            if self.why.len() < WORDS_MAX || self.why.contains_key(&why) {
                *self.why.entry(why).or_default() += 1;
            }
        }
        if self.done.len() == REMEMBERED_MAX {
            self.forgotten += 1;
            return;
        }
        self.done.push(Done {
            due_us: micros(due - self.began),
            took_us: micros(took),
            kind,
            outcome: answer.outcome,
            green: answer.green,
        });
    }

    /// Requests that have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.done.len() as u64 + self.forgotten
    }

    /// Requests that failed in whichever way.
    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    /// How many ended so.
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.done
            .iter()
            .filter(|one| one.outcome == outcome)
            .count() as u64
    }

    /// Milliseconds that `percent` (0 to 100) of the requests of `kind`, or of all, did not exceed.
    /// `None` where there are none.
    pub(crate) fn percentile_ms(&self, kind: Option<Kind>, percent: f64) -> Option<f64> {
        let wanted = self.done.iter();
        let wanted = wanted.filter(|one| kind.is_none_or(|kind| one.kind == kind));
        let times: Vec<f64> = wanted.map(|one| f64::from(one.took_us) / 1e3).collect();
        percentile(times, percent)
    }
}

/// The value that `percent` (0 to 100) of the values do not exceed.
pub(crate) fn percentile(mut values: Vec<f64>, percent: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1).min(last)).copied()
}
