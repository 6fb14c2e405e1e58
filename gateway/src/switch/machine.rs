//! The rollout of one cluster as a pure function: where it stands, what happened, what time it is, and
//! from that where it stands next and what is to be done.
//!
//! Nothing here waits, reads a clock or touches traffic; `driver` does. A [`Decision`] hands its actions
//! out only against a [`Durable`] receipt of its record, so what is intended is on disk before it is
//! done. All actions may be done twice: after a crash [`recover`] asks for those again that the last
//! record may have lost.
//!
//! - Invariant: clients reach the new colour only after it has passed its gate.
//! - Invariant: the last colour that passed is never released, and nothing that was released gets
//!   requests before a rollout has prepared it anew.
//! - Invariant: the epoch grows with each change of routing and never else.
//! - Invariant: every rollout ends in `Committed`, `RolledBack` or `Frozen`, whoever falls silent: each
//!   phase in between has a deadline.
//! - Invariant: after a contract step of the migrations there is no way back; who asks for one gets
//!   `Frozen`.

use super::plan::{Plan, Routing, Stage};
use hub_config::runtime::Colour;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Microseconds since 1970, UTC.
pub type Micros = i64;

/// How often a rollout goes on after a restart of the gateway. One that keeps taking the process down
/// with it is ended.
const RECOVERIES_MAX: u8 = 3;
/// How long moving traffic back may take.
const ROLLBACK_US: Micros = 30_000_000;

/// Where a rollout stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "name")]
pub enum Phase {
    /// There was none yet.
    Idle,
    /// The new colour is looked up and the migrations are asked; no traffic moves.
    Preparing {
        /// Ends the phase.
        deadline: Micros,
    },
    /// The new colour is probed and warmed; no traffic moves.
    Gate {
        /// Ends the phase.
        deadline: Micros,
    },
    /// Part of the tenants are on the new colour.
    Canary {
        /// Position in [`Plan::stages`].
        stage: usize,
        /// Earliest end: the judges have to look for so long.
        until: Micros,
        /// The judges must have said something by then.
        deadline: Micros,
    },
    /// All tenants are on the new colour; the old one finishes what it has begun.
    Switched {
        /// The old colour is not waited for any longer.
        deadline: Micros,
    },
    /// The old colour is idle and kept, so that going back takes a moment.
    Bake {
        /// When it is let go.
        until: Micros,
    },
    /// The new colour is the colour.
    Committed,
    /// Traffic goes back to the old colour.
    RollingBack {
        /// Why.
        why: String,
        /// When it should be over.
        deadline: Micros,
    },
    /// The old colour is the colour.
    RolledBack {
        /// Why.
        why: String,
    },
    /// Neither going on nor going back is safe; an operator decides.
    Frozen {
        /// Why.
        why: String,
    },
}

/// [`Phase`] without what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// See [`Phase`].
    Idle,
    /// See [`Phase`].
    Preparing,
    /// See [`Phase`].
    Gate,
    /// See [`Phase`].
    Canary,
    /// See [`Phase`].
    Switched,
    /// See [`Phase`].
    Bake,
    /// See [`Phase`].
    Committed,
    /// See [`Phase`].
    RollingBack,
    /// See [`Phase`].
    RolledBack,
    /// See [`Phase`].
    Frozen,
}

/// What is written down of a cluster's rollouts before anything is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counts records of the cluster, from 1; 0 before the first.
    pub version: u64,
    /// Counts changes of routing of the cluster.
    pub epoch: u64,
    /// What was asked for last.
    pub plan: Plan,
    /// The colour that clients were on when it began.
    pub from: Colour,
    /// The colour that they are to be on.
    pub to: Colour,
    /// Where it stands.
    pub phase: Phase,
    /// No step forward is made until it is resumed; steps back are.
    pub paused: bool,
    /// Who gets which colour.
    pub routing: Routing,
    /// The colour that passed last: it is never let go.
    pub passed: Colour,
    /// A contract step was run since the rollout began: `from` would no longer find its schema.
    pub contracted: bool,
    /// Restarts of the gateway within the rollout.
    pub recoveries: u8,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operator wants the other colour.
    Start(Plan),
    /// The new colour exists and the fence lets it pass.
    Prepared,
    /// It does not.
    PrepareFailed(String),
    /// Probes, warm-up and schema are good.
    GatePassed,
    /// They are not.
    GateFailed(String),
    /// The routing of that epoch is in force.
    Applied {
        /// Of the routing.
        epoch: u64,
    },
    /// The judges are content with what they saw of that epoch.
    Pass {
        /// Of the routing that they watched.
        epoch: u64,
    },
    /// They are not.
    Fail {
        /// Of the routing that they watched.
        epoch: u64,
        /// Their reason, with its numbers.
        why: String,
    },
    /// No request of an older epoch is left on that colour.
    Drained {
        /// Of the routing that left the colour.
        epoch: u64,
        /// The colour that was left.
        colour: Colour,
    },
    /// Time went by.
    Tick,
    /// An operator wants no step forward.
    Pause,
    /// An operator wants it to go on.
    Resume,
    /// An operator wants the next step now.
    Promote,
    /// An operator wants it undone.
    Abort,
    /// An operator takes the colour of most tenants of a frozen rollout for the right one; after a contract
    /// step it is the new colour.
    Accept,
    /// A contract step of the migrations is about to run, or was run by hand: the old colour would not find
    /// its schema any more.
    Contracted,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look the new colour up and ask the fence; answer with `Prepared` or `PrepareFailed`.
    Prepare(Colour),
    /// Probe and warm it; answer with `GatePassed` or `GateFailed`.
    Gate(Colour),
    /// Put the record's routing in force, which cannot fail; answer with `Applied`.
    Apply,
    /// Let the judges watch from now on; they answer with `Pass` or `Fail`.
    Watch,
    /// The judges have nothing more to say.
    StopWatching,
    /// Tell when no request is left on the colour from before this epoch.
    AwaitDrain(Colour),
    /// Nobody needs the colour any more: its connections are closed, and whoever runs it may stop it.
    Release(Colour),
}

/// A record to be written down, and what is to be done once it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// To be written down as it is.
    pub record: Record,
    actions: Vec<Action>,
}

/// Tells that a record is on disk; the ledger makes it.
#[derive(Debug)]
pub struct Durable(u64);

/// Why an event changes nothing, for the operator who caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is one already.
    #[error("a rollout of this cluster is under way; wait for its end or abort it")]
    UnderWay,
    /// The one before is not over.
    #[error(
        "the last rollout of this cluster is frozen; say which colour is right, with `hubctl rollout accept` or `abort`, then start"
    )]
    Frozen,
    /// Pausing what moves no traffic.
    #[error("no traffic has moved yet; wait until the gate is passed, or abort it")]
    TooEarly,
    /// Nothing to pause, promote or abort.
    #[error("no rollout of this cluster is under way")]
    NothingUnderWay,
    /// The traffic has not moved yet, or may not.
    #[error("there is no step to promote: the rollout is preparing, or going back")]
    NothingToPromote,
    /// `Accept` is for frozen rollouts.
    #[error("the rollout is not frozen")]
    NotFrozen,
    /// The frozen rollout cannot go back.
    #[error(
        "a contract step of the migrations was run: the old colour would not find its schema. Repair the new colour and accept it"
    )]
    Contracted,
    /// It has been told already that a contract step was run.
    #[error("that a contract step was run is known already, and the rollout does not go back")]
    ContractedAlready,
    /// It has been aborted already, or goes back by itself.
    #[error("the rollout is going back already; `hubctl rollout status` shows when it has")]
    GoingBack,
    /// The event belongs to what is over.
    #[error("it came too late")]
    Stale,
}

/// Longest reason that is kept, in bytes.
const WHY_BYTES_MAX: usize = 2_000;

// === impl Durable ===

impl Durable {
    /// For who has written the record of that version and synced it.
    pub fn version(version: u64) -> Self {
        Self(version)
    }
}

// === impl Decision ===

impl Decision {
    /// What is to be done, now that the record is on disk.
    ///
    /// # Panics
    /// Where the receipt is for another record: a bug that must not move traffic.
    pub fn actions(self, receipt: &Durable) -> Vec<Action> {
        assert_eq!(
            receipt.0, self.record.version,
            "actions without their record on disk"
        );
        self.actions
    }
}

// === impl Phase ===

impl Phase {
    /// Which one it is.
    pub fn name(&self) -> Name {
        match self {
            Self::Idle => Name::Idle,
            Self::Preparing { .. } => Name::Preparing,
            Self::Gate { .. } => Name::Gate,
            Self::Canary { .. } => Name::Canary,
            Self::Switched { .. } => Name::Switched,
            Self::Bake { .. } => Name::Bake,
            Self::Committed => Name::Committed,
            Self::RollingBack { .. } => Name::RollingBack,
            Self::RolledBack { .. } => Name::RolledBack,
            Self::Frozen { .. } => Name::Frozen,
        }
    }

    /// Nothing happens any more by itself.
    pub fn is_over(&self) -> bool {
        matches!(
            self.name(),
            Name::Idle | Name::Committed | Name::RolledBack | Name::Frozen
        )
    }
}

impl Name {
    /// All of them, in the order of a good rollout.
    pub const ALL: [Self; 10] = [
        Self::Idle,
        Self::Preparing,
        Self::Gate,
        Self::Canary,
        Self::Switched,
        Self::Bake,
        Self::Committed,
        Self::RollingBack,
        Self::RolledBack,
        Self::Frozen,
    ];

    /// As the ledger, logs and metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Preparing => "preparing",
            Self::Gate => "gate",
            Self::Canary => "canary",
            Self::Switched => "switched",
            Self::Bake => "bake",
            Self::Committed => "committed",
            Self::RollingBack => "rolling_back",
            Self::RolledBack => "rolled_back",
            Self::Frozen => "frozen",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Record ===

impl Record {
    /// Of a cluster that never had a rollout: everyone is on `active`.
    pub fn idle(active: Colour) -> Self {
        Self {
            version: 0,
            epoch: 0,
            plan: Plan::default(),
            from: active,
            to: active,
            phase: Phase::Idle,
            paused: false,
            routing: Routing::all(active),
            passed: active,
            contracted: false,
            recoveries: 0,
        }
    }

    /// May a contract step of the migrations run? Only while no colour but one is of use.
    ///
    /// # Errors
    /// Where a rollout could still have to go back.
    pub fn may_contract(&self) -> Result<(), Refused> {
        match self.phase.name() {
            Name::Idle | Name::Committed | Name::RolledBack => Ok(()),
            _ => Err(Refused::UnderWay),
        }
    }

    /// The record after this one, in another phase.
    fn next(&self, phase: Phase) -> Self {
        Self {
            version: self.version + 1,
            phase,
            ..self.clone()
        }
    }

    /// The record after this one, in another phase and with another routing.
    fn reroute(&self, phase: Phase, routing: Routing) -> Self {
        Self {
            epoch: self.epoch + 1,
            routing,
            ..self.next(phase)
        }
    }
}

/// What follows from `event` at `now`.
///
/// # Errors
/// Where nothing does; operators are told why, everyone else may ignore it.
pub fn step(record: &Record, event: &Event, now: Micros) -> Result<Decision, Refused> {
    match event {
        Event::Start(plan) => start(record, plan, now),
        Event::Pause | Event::Resume => pause(record, *event == Event::Pause, now),
        Event::Abort => abort(record, now),
        Event::Accept => accept(record),
        Event::Contracted => contracted(record),
        Event::Promote => promote(record, now),
        Event::Tick => tick(record, now),
        Event::Prepared => match record.phase {
            Phase::Preparing { .. } => Ok(decide(
                record.next(Phase::Gate {
                    deadline: now + record.plan.gate_us(),
                }),
                [Action::Gate(record.to)],
            )),
            _ => Err(Refused::Stale),
        },
        Event::GatePassed => match record.phase {
            Phase::Gate { .. } => Ok(forward(record, 0, now)),
            _ => Err(Refused::Stale),
        },
        Event::PrepareFailed(why) => match record.phase {
            Phase::Preparing { .. } => Ok(give_up(record, why)),
            _ => Err(Refused::Stale),
        },
        Event::GateFailed(why) => match record.phase {
            Phase::Gate { .. } => Ok(give_up(record, why)),
            _ => Err(Refused::Stale),
        },
        Event::Pass { epoch } => match record.phase {
            Phase::Canary { stage, until, .. }
                if *epoch == record.epoch && now >= until && !record.paused =>
            {
                Ok(forward(record, stage + 1, now))
            }
            _ => Err(Refused::Stale),
        },
        Event::Fail { epoch, why } => match record.phase.name() {
            Name::Canary | Name::Switched | Name::Bake if *epoch == record.epoch => {
                Ok(go_back(record, why, now))
            }
            _ => Err(Refused::Stale),
        },
        Event::Applied { epoch } => match &record.phase {
            Phase::RollingBack { why, .. } if *epoch == record.epoch => {
                Ok(gone_back(record, why.clone()))
            }
            _ => Err(Refused::Stale),
        },
        Event::Drained { epoch, colour } => match record.phase {
            Phase::Switched { .. } if *epoch == record.epoch && *colour == record.from => {
                Ok(bake(record, now))
            }
            _ => Err(Refused::Stale),
        },
    }
}

/// What a process does that finds this record, beside serving by its routing from the first request on:
/// what was under way is begun again. `None` where nothing was.
pub fn recover(record: &Record, now: Micros) -> Option<Decision> {
    if record.phase.is_over() {
        return None;
    }
    let next = Record {
        recoveries: record.recoveries.saturating_add(1),
        ..record.next(record.phase.clone())
    };
    if next.recoveries > RECOVERIES_MAX {
        let why = format!("the gateway restarted {} times within it", next.recoveries);
        return Some(match record.phase.name() {
            Name::Preparing | Name::Gate => give_up(record, &why),
            Name::RollingBack => gone_back(record, why),
            _ => go_back(record, &why, now),
        });
    }
    let again = |phase| Record {
        phase,
        ..next.clone()
    };
    let decision = match &record.phase {
        // What was found out about the colour is gone with the process.
        Phase::Preparing { .. } | Phase::Gate { .. } => decide(
            again(Phase::Preparing {
                deadline: now + record.plan.prepare_timeout_us,
            }),
            [Action::Prepare(record.to)],
        ),
        Phase::Canary { stage, .. } => {
            decide(again(canary(&record.plan, *stage, now)), [Action::Watch])
        }
        Phase::Switched { .. } => decide(
            again(Phase::Switched {
                deadline: now + record.plan.drain_timeout_us,
            }),
            [Action::Watch, Action::AwaitDrain(record.from)],
        ),
        Phase::RollingBack { why, .. } => decide(
            again(Phase::RollingBack {
                why: why.clone(),
                deadline: now + ROLLBACK_US,
            }),
            [Action::Apply],
        ),
        Phase::Bake { .. } => decide(again(record.phase.clone()), [Action::Watch]),
        Phase::Idle | Phase::Committed | Phase::RolledBack { .. } | Phase::Frozen { .. } => {
            return None;
        }
    };
    Some(decision)
}

fn decide(record: Record, actions: impl IntoIterator<Item = Action>) -> Decision {
    Decision {
        record,
        actions: actions.into_iter().collect(),
    }
}

fn start(record: &Record, plan: &Plan, now: Micros) -> Result<Decision, Refused> {
    if record.phase.name() == Name::Frozen {
        return Err(Refused::Frozen);
    }
    if !record.phase.is_over() {
        return Err(Refused::UnderWay);
    }
    let from = record.routing.active;
    let to = from.other();
    let next = Record {
        plan: plan.clone(),
        from,
        to,
        paused: false,
        passed: from,
        contracted: false,
        recoveries: 0,
        ..record.next(Phase::Preparing {
            deadline: now + plan.prepare_timeout_us,
        })
    };
    Ok(decide(next, [Action::Prepare(to)]))
}

/// The stage at this position begins, or where there is none left, everyone moves.
fn forward(record: &Record, stage: usize, now: Micros) -> Decision {
    let Some(share) = record.plan.stages.get(stage) else {
        let routing = Routing::all(record.to);
        let phase = Phase::Switched {
            deadline: now + record.plan.drain_timeout_us,
        };
        return decide(
            record.reroute(phase, routing),
            [
                Action::Apply,
                Action::Watch,
                Action::AwaitDrain(record.from),
            ],
        );
    };
    let routing = Routing::canary(record.from, record.to, share);
    let phase = canary(&record.plan, stage, now);
    decide(
        record.reroute(phase, routing),
        [Action::Apply, Action::Watch],
    )
}

fn canary(plan: &Plan, stage: usize, now: Micros) -> Phase {
    let observe_us = plan.stages.get(stage).map_or(0, Stage::observe_us);
    Phase::Canary {
        stage,
        until: now + observe_us,
        deadline: now + observe_us + plan.verdict_timeout_us,
    }
}

fn bake(record: &Record, now: Micros) -> Decision {
    let until = now + record.plan.bake_us;
    decide(record.next(Phase::Bake { until }), [])
}

fn commit(record: &Record) -> Decision {
    let next = Record {
        passed: record.to,
        ..record.next(Phase::Committed)
    };
    decide(next, [Action::StopWatching, Action::Release(record.from)])
}

/// Ends what has moved no traffic.
fn give_up(record: &Record, why: &str) -> Decision {
    let why = bounded(why);
    decide(
        record.next(Phase::RolledBack { why }),
        [Action::StopWatching, Action::Release(record.to)],
    )
}

/// Traffic goes back, or where the old colour could not serve it, nothing moves any more.
fn go_back(record: &Record, why: &str, now: Micros) -> Decision {
    if record.contracted {
        let why = bounded(&format!(
            "{why}; a contract step of the migrations was run, so the old colour cannot take over"
        ));
        return decide(record.next(Phase::Frozen { why }), [Action::StopWatching]);
    }
    let phase = Phase::RollingBack {
        why: bounded(why),
        deadline: now + ROLLBACK_US,
    };
    let next = record.reroute(phase, Routing::all(record.from));
    decide(next, [Action::Apply, Action::StopWatching])
}

fn gone_back(record: &Record, why: String) -> Decision {
    // The requests that are left on it end by themselves; the driver releases it behind the last.
    decide(
        record.next(Phase::RolledBack { why }),
        [Action::Release(record.to)],
    )
}

fn pause(record: &Record, paused: bool, now: Micros) -> Result<Decision, Refused> {
    match record.phase.name() {
        Name::Preparing | Name::Gate => return Err(Refused::TooEarly),
        Name::Canary | Name::Switched | Name::Bake => {}
        _ => return Err(Refused::NothingUnderWay),
    }
    if record.paused == paused {
        return Err(Refused::Stale);
    }
    let phase = match record.phase.clone() {
        // What it still has to watch, it watches anew.
        Phase::Canary { stage, .. } if !paused => canary(&record.plan, stage, now),
        phase => phase,
    };
    let next = Record {
        paused,
        ..record.next(phase)
    };
    Ok(decide(next, []))
}

fn promote(record: &Record, now: Micros) -> Result<Decision, Refused> {
    match record.phase {
        Phase::Canary { stage, .. } => {
            let resumed = Record {
                paused: false,
                ..record.clone()
            };
            Ok(forward(&resumed, stage + 1, now))
        }
        Phase::Bake { .. } => Ok(commit(record)),
        _ if record.phase.is_over() => Err(Refused::NothingUnderWay),
        _ => Err(Refused::NothingToPromote),
    }
}

fn abort(record: &Record, now: Micros) -> Result<Decision, Refused> {
    const WHY: &str = "an operator aborted it";
    match record.phase.name() {
        Name::Preparing | Name::Gate => Ok(give_up(record, WHY)),
        Name::Canary | Name::Switched | Name::Bake => Ok(go_back(record, WHY, now)),
        Name::Frozen if record.contracted => Err(Refused::Contracted),
        Name::Frozen => Ok(go_back(record, WHY, now)),
        Name::RollingBack => Err(Refused::GoingBack),
        Name::Idle | Name::Committed | Name::RolledBack => Err(Refused::NothingUnderWay),
    }
}

/// The operator has looked: what is routed is right.
fn accept(record: &Record) -> Result<Decision, Refused> {
    if record.phase.name() != Name::Frozen {
        return Err(Refused::NotFrozen);
    }
    let active = if record.contracted {
        record.to
    } else {
        record.routing.majority()
    };
    let next = if record.routing == Routing::all(active) {
        record.next(Phase::Committed)
    } else {
        record.reroute(Phase::Committed, Routing::all(active))
    };
    let next = Record {
        passed: active,
        ..next
    };
    // Also where nothing changes: that it never came into force may be why it is frozen.
    Ok(decide(
        next,
        [Action::Apply, Action::Release(active.other())],
    ))
}

fn contracted(record: &Record) -> Result<Decision, Refused> {
    if record.contracted {
        return Err(Refused::ContractedAlready);
    }
    let next = Record {
        contracted: true,
        ..record.next(record.phase.clone())
    };
    Ok(decide(next, []))
}

fn tick(record: &Record, now: Micros) -> Result<Decision, Refused> {
    let passed = |deadline: Micros| now >= deadline;
    match &record.phase {
        Phase::Preparing { deadline } if passed(*deadline) => {
            Ok(give_up(record, "it could not be prepared in time"))
        }
        Phase::Gate { deadline } if passed(*deadline) => {
            Ok(give_up(record, "the gate did not open in time"))
        }
        Phase::Canary { deadline, .. } if passed(*deadline) && !record.paused => Ok(go_back(
            record,
            "the judges saw too little to say anything in time",
            now,
        )),
        Phase::Switched { deadline } if passed(*deadline) => Ok(bake(record, now)),
        Phase::Bake { until } if passed(*until) && !record.paused => Ok(commit(record)),
        Phase::RollingBack { why, deadline } if passed(*deadline) => {
            let why = bounded(&format!(
                "{why}; and traffic could not be moved back in time"
            ));
            Ok(decide(record.next(Phase::Frozen { why }), []))
        }
        _ => Err(Refused::Stale),
    }
}

fn bounded(why: &str) -> String {
    let mut end = why.len().min(WHY_BYTES_MAX);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    why[..end].to_owned()
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
