//! What a rollout is asked to do, and who gets which colour.

use hub_config::runtime::Colour;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// All of a share, in the unit of shares.
pub const WHOLE: u16 = 10_000;
/// Most stages of a plan.
pub const STAGES_MAX: usize = 32;
/// Most tenants of a ring.
pub const RING_MAX: usize = 10_000;

const SECOND: i64 = 1_000_000;

/// What an operator asks for. Times are microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What comes before everyone moves; none: all at once.
    pub stages: Vec<Stage>,
    /// Longest look-up of the new colour.
    pub prepare_timeout_us: i64,
    /// Longest time at the gate.
    pub gate_timeout_us: i64,
    /// How long the judges may stay silent after a stage's observation.
    pub verdict_timeout_us: i64,
    /// Longest wait for the old colour's requests once everyone has moved.
    pub drain_timeout_us: i64,
    /// How long the old colour is kept afterwards.
    pub bake_us: i64,
    /// Requests on the new colour that a stage needs before anything but proof lets it pass.
    #[serde(default)]
    pub requests_min: u64,
    /// How long the old colour is watched before the first stage, so that the judges know what to compare
    /// the new one with. Only where there are stages.
    #[serde(default)]
    pub baseline_us: i64,
}

/// A stage of a canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Part of the tenants that move, in ten-thousandths; a tenant that has moved stays moved.
    pub share: u16,
    /// Tenants that move whatever their share.
    pub ring: Arc<BTreeSet<String>>,
    /// Shortest observation before the next stage, in microseconds.
    pub observe_us: i64,
}

/// Who gets which colour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// Who is not in the canary.
    pub active: Colour,
    /// Who is.
    pub canary: Option<Canary>,
}

/// The part of the tenants that is on another colour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Its colour.
    pub to: Colour,
    /// See [`Stage::share`].
    pub share: u16,
    /// See [`Stage::ring`].
    pub ring: Arc<BTreeSet<String>>,
}

impl Default for Plan {
    /// 1, 5, 25 and 50 %, a minute each after one of watching the old colour, and ten minutes of bake.
    fn default() -> Self {
        Self {
            stages: [100, 500, 2_500, 5_000].map(Stage::of).to_vec(),
            prepare_timeout_us: 10 * SECOND,
            gate_timeout_us: 60 * SECOND,
            verdict_timeout_us: 300 * SECOND,
            drain_timeout_us: 30 * SECOND,
            bake_us: 600 * SECOND,
            requests_min: 100,
            baseline_us: 60 * SECOND,
        }
    }
}

/// Longest time that a plan may name, in microseconds.
const LONGEST_US: i64 = 7 * 24 * 3_600 * SECOND;

impl Plan {
    /// # Errors
    /// The first thing that is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.stages.len() > STAGES_MAX {
            return Err(format!("a plan has at most {STAGES_MAX} stages"));
        }
        let mut before: Option<&Stage> = None;
        for (number, stage) in (1..).zip(&self.stages) {
            let grows = before.is_none_or(|before| {
                stage.share > before.share
                    && before.ring.iter().all(|tenant| stage.ring.contains(tenant))
            });
            if stage.share >= WHOLE {
                return Err(format!(
                    "stage {number} is everyone; leave it out, the end is everyone anyway"
                ));
            }
            if stage.share == 0 && stage.ring.is_empty() {
                return Err(format!(
                    "stage {number} is nobody; give it a share or tenants"
                ));
            }
            if !grows {
                return Err(format!(
                    "stage {number} takes tenants back; shares have to grow, and tenants that are named stay named"
                ));
            }
            if stage.ring.len() > RING_MAX {
                return Err(format!(
                    "stage {number} names more than {RING_MAX} tenants; use a share"
                ));
            }
            if !(0..=LONGEST_US).contains(&stage.observe_us) {
                return Err(format!(
                    "stage {number} is observed for 0 seconds to 7 days"
                ));
            }
            before = Some(stage);
        }
        let times = [
            ("prepare timeout", self.prepare_timeout_us, 1),
            ("gate timeout", self.gate_timeout_us, 1),
            ("verdict timeout", self.verdict_timeout_us, 1),
            ("drain timeout", self.drain_timeout_us, 1),
            ("bake time", self.bake_us, 0),
            ("baseline", self.baseline_us, 0),
        ];
        for (name, time, least) in times {
            if !(least..=LONGEST_US).contains(&time) {
                return Err(format!("the {name} is more than 0 and at most 7 days"));
            }
        }
        Ok(())
    }

    /// Longest time from the first look at the new colour to the first request on it, in microseconds:
    /// behind a baseline the gate is asked a second time.
    pub(super) fn gate_us(&self) -> i64 {
        match self.baseline_us() {
            0 => self.gate_timeout_us,
            baseline => 2 * self.gate_timeout_us + baseline,
        }
    }

    /// Microseconds for which the old colour is watched before others than it get requests: none where
    /// everyone moves at once, and nobody stays to be compared with.
    pub(super) fn baseline_us(&self) -> i64 {
        if self.stages.is_empty() {
            0
        } else {
            self.baseline_us
        }
    }
}

impl Stage {
    /// So many ten-thousandths of the tenants for a minute.
    pub fn of(share: u16) -> Self {
        Self {
            share,
            ring: Arc::default(),
            observe_us: 60 * SECOND,
        }
    }

    /// See the field.
    pub(super) fn observe_us(&self) -> i64 {
        self.observe_us
    }
}

impl Routing {
    /// Everyone on one colour.
    pub fn all(active: Colour) -> Self {
        Self {
            active,
            canary: None,
        }
    }

    /// A stage of a canary.
    pub fn canary(active: Colour, to: Colour, stage: &Stage) -> Self {
        Self {
            active,
            canary: Some(Canary {
                to,
                share: stage.share,
                ring: Arc::clone(&stage.ring),
            }),
        }
    }

    /// The colour of most tenants.
    pub fn majority(&self) -> Colour {
        match &self.canary {
            Some(canary) if canary.share > WHOLE / 2 => canary.to,
            _ => self.active,
        }
    }

    /// True where some requests may go to `colour`.
    pub fn reaches(&self, colour: Colour) -> bool {
        self.active == colour
            || self
                .canary
                .as_ref()
                .is_some_and(|canary| canary.to == colour)
    }

    /// The colour of a tenant, or of a client without one. `place` is its place among
    /// ten-thousand, which must not depend on the routing: then a share that grows only adds.
    pub fn colour(&self, tenant: Option<&str>, place: u16) -> Colour {
        match &self.canary {
            Some(canary)
                if place < canary.share
                    || tenant.is_some_and(|tenant| canary.ring.contains(tenant)) =>
            {
                canary.to
            }
            _ => self.active,
        }
    }
}
