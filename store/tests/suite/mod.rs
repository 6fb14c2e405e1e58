//! What every engine promises, written once against the traits. (`mod.rs`, as cargo takes each file of
//! `tests/` for a test of its own.)

pub(crate) mod migration;
pub(crate) mod rollout;

use hub_store::{Kind, NewEntry, NewStep};
use uuid::Uuid;

/// An entry of its own, which says nothing.
pub(crate) fn entry(state: &str) -> NewEntry {
    NewEntry {
        id: Uuid::now_v7(),
        rollout: Uuid::now_v7(),
        state: state.to_owned(),
        body: format!(r#"{{"state": {state:?},  "text": "ü\u0000"}}"#),
        at_us: 1_700_000_000_123_456,
    }
}

/// A step of a run of its own.
pub(crate) fn step(scope: &str, number: u32) -> NewStep {
    NewStep {
        scope: scope.to_owned(),
        number,
        name: format!("step_{number}"),
        kind: Kind::Expand,
        checksum: format!("checksum-{number}"),
        run: Uuid::now_v7(),
        started_us: 1_000 + i64::from(number),
    }
}
