//! How an upgrade goes, for whoever asks.

use super::handover::Step;
use super::order::Trigger;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// One upgrade, for whoever asks.
#[derive(Clone, Debug)]
pub(super) struct Upgrade {
    pub(super) id: String,
    pub(super) trigger: Option<Trigger>,
    pub(super) binary: PathBuf,
    pub(super) from: u32,
    pub(super) from_version: String,
    pub(super) to: Option<u32>,
    pub(super) to_version: Option<String>,
    pub(super) state: State,
    pub(super) took: Duration,
}

#[derive(Clone, Debug)]
pub(super) enum State {
    UnderWay(Step),
    Committed,
    Aborted(String),
}

// === impl Upgrade ===

impl Upgrade {
    pub(super) fn show(&self) -> Value {
        let (state, step, why) = match &self.state {
            State::UnderWay(step) => ("under_way", Some(step.as_str()), None),
            State::Committed => ("committed", None, None),
            State::Aborted(why) => ("aborted", None, Some(why)),
        };
        json!({
            "id": self.id,
            "state": state,
            "step": step,
            "why": why,
            "trigger": self.trigger.map(Trigger::as_str),
            "binary": self.binary,
            "from": {"pid": self.from, "version": self.from_version},
            "to": self.to.map(|pid| json!({"pid": pid, "version": self.to_version})),
            "took_ms": self.took.as_millis() as u64,
        })
    }
}
