//! Which schema steps have run where: per scope (a database or a shard), numbered from 1 without
//! gaps, one at a time.
//!
//! What stands here can be serialised, so that a ledger can be asked over a network in its own words.

use crate::write::Write;
use crate::{StoreError, check};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest detail, in bytes; what is longer is cut.
pub const DETAIL_BYTES_MAX: usize = 16 * 1024;
/// Largest number of a step.
pub const NUMBER_MAX: u32 = 9_999;

/// What a step does to programs that know only the schema before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Adds, so that programs before and after it both work.
    Expand,
    /// Takes away what only programs before it still need. There is no way back.
    Contract,
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// A run holds it, or has died holding it.
    Running,
    /// Done.
    Applied,
    /// Its run gave up; it may begin again.
    Failed,
}

/// A step to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewStep {
    /// Name of the database or shard; 1 to 255 bytes.
    pub scope: String,
    /// 1 to [`NUMBER_MAX`]; one more than the last applied.
    pub number: u32,
    /// What the step is called; 1 to 255 bytes.
    pub name: String,
    /// What it does to older programs.
    pub kind: Kind,
    /// Digest of what it executes; 1 to 255 bytes.
    pub checksum: String,
    /// UUIDv7 of the run that executes it; only this run may finish it.
    pub run: Uuid,
    /// When it begins, in microseconds since 1970 UTC.
    pub started_us: i64,
}

/// A step of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// As in [`NewStep::scope`].
    pub scope: String,
    /// As in [`NewStep::number`].
    pub number: u32,
    /// As in [`NewStep::name`].
    pub name: String,
    /// As in [`NewStep::kind`].
    pub kind: Kind,
    /// As in [`NewStep::checksum`].
    pub checksum: String,
    /// How far it is.
    pub state: StepState,
    /// The last run that began it.
    pub run: Uuid,
    /// When that run began it, in microseconds since 1970 UTC.
    pub started_us: i64,
    /// When that run finished it; `None` while it runs.
    pub finished_us: Option<i64>,
    /// What that run had to say; empty while it runs.
    pub detail: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything of the step is in force.
    Applied,
    /// The step is not in force; it may begin again.
    Failed,
}

/// The end of a run of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// The run that began it.
    pub run: Uuid,
    /// How it ended.
    pub outcome: Outcome,
    /// When, in microseconds since 1970 UTC.
    pub finished_us: i64,
    /// For people: what was done, or why it failed. Cut at [`DETAIL_BYTES_MAX`].
    pub detail: String,
}

/// What to do where a step of the scope is running already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenRunning {
    /// Refuse.
    Refuse,
    /// Take the step away from its run, which can no longer finish it. For an operator who has made
    /// sure that the run is gone.
    TakeOver,
    /// Take it away as well: its database has it, and no other run is at work there. Nothing will be run,
    /// so nobody has to agree; what is left is to write it down.
    InForce,
}

/// Where schema steps are written down before and after they are run.
///
/// Every method fails with [`StoreError::Unavailable`] where the engine cannot answer, and with
/// [`StoreError::Invalid`] where a name, an id or a number is out of bounds.
#[async_trait]
pub trait MigrationLedger: Send + Sync {
    /// Marks a step as running. A step that is applied already, with the same checksum and kind, is
    /// answered as it is, and its state says that there is nothing to do. The same call again (same
    /// run) answers the same. A failed step may begin again, changed or not.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where whoever guards the ledger does not let a contract step run now;
    /// [`StoreError::Held`] where another run holds a step of this scope and `when_running` says to
    /// refuse; [`StoreError::Conflict`] where the number is not the next, with the newest applied
    /// one; [`StoreError::Invalid`] where the step is applied with another checksum or kind, or is to
    /// be taken over as another kind.
    async fn begin(&self, step: NewStep, when_running: WhenRunning) -> Result<Step, StoreError>;

    /// Says how a run of a step ended. The same call again answers the same.
    ///
    /// # Errors
    /// [`StoreError::Held`] where another run has taken the step over; [`StoreError::Invalid`] where
    /// the step was never begun, or has ended otherwise.
    async fn finish(&self, scope: &str, number: u32, finish: Finish) -> Result<Step, StoreError>;

    /// The steps of a scope, by number; at most [`NUMBER_MAX`].
    ///
    /// # Errors
    /// As for the trait.
    async fn list(&self, scope: &str) -> Result<Vec<Step>, StoreError>;

    /// The scopes that have a step, by name.
    ///
    /// # Errors
    /// As for the trait.
    async fn scopes(&self) -> Result<Vec<String>, StoreError>;
}

// === impl Kind, StepState ===

impl Kind {
    /// `expand` or `contract`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Contract => "contract",
        }
    }

    /// The kind of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Expand, Self::Contract]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

impl StepState {
    /// `running`, `applied` or `failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Applied => "applied",
            Self::Failed => "failed",
        }
    }

    /// The state of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Running, Self::Applied, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

impl From<Outcome> for StepState {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Applied => Self::Applied,
            Outcome::Failed => Self::Failed,
        }
    }
}

// === What may be written, decided in one place for every engine ===

/// What [`MigrationLedger::begin`] would answer by itself, given the scope's steps: the step where it is
/// kept already, `None` where it would be written anew. For whoever guards a ledger.
///
/// # Errors
/// As [`MigrationLedger::begin`].
pub fn begun(
    step: &NewStep,
    when_running: WhenRunning,
    steps: &[Step],
) -> Result<Option<Step>, StoreError> {
    check_begin(step)?;
    Ok(match decide_begin(step.clone(), when_running, steps)? {
        Write::Kept(step) => Some(step),
        Write::New(_) => None,
    })
}

/// Bounds of a begin; the engine asks before it reads.
pub(crate) fn check_begin(step: &NewStep) -> Result<(), StoreError> {
    check::name("scope's name", &step.scope)?;
    check::name("step's name", &step.name)?;
    check::name("step's checksum", &step.checksum)?;
    check::time_ordered("run's id", step.run)?;
    if step.number == 0 || step.number > NUMBER_MAX {
        return Err(StoreError::Invalid(format!(
            "step number {}; steps count from 1 to {NUMBER_MAX}",
            step.number
        )));
    }
    Ok(())
}

/// Whether a step may begin, given the scope's steps by number. All but the last are applied.
pub(crate) fn decide_begin(
    step: NewStep,
    when_running: WhenRunning,
    steps: &[Step],
) -> Result<Write<Step>, StoreError> {
    debug_assert!(
        steps
            .iter()
            .rev()
            .skip(1)
            .all(|step| step.state == StepState::Applied),
        "only the last step can be unfinished"
    );
    if let Some(running) = steps.last().filter(|last| last.state == StepState::Running) {
        if running.run == step.run && running.number == step.number {
            return Ok(Write::Kept(running.clone()));
        }
        if when_running == WhenRunning::Refuse {
            return Err(held(running));
        }
        // Nobody knows how far it came, so it cannot become what hurts others.
        if running.number == step.number && running.kind != step.kind {
            return Err(StoreError::Invalid(format!(
                "step {} of `{}` was begun as {}, and is to be taken over as {}; put the file back as it was",
                step.number,
                step.scope,
                running.kind.as_str(),
                step.kind.as_str()
            )));
        }
    }
    let same = steps.iter().find(|kept| kept.number == step.number);
    if let Some(applied) = same.filter(|same| same.state == StepState::Applied) {
        return if applied.checksum == step.checksum && applied.kind == step.kind {
            Ok(Write::Kept(applied.clone()))
        } else {
            Err(StoreError::Invalid(format!(
                "step {} of `{}` was applied as {} {} and is {} {} now; put the file back as it was, \
                 and write a new step for the change",
                step.number,
                step.scope,
                applied.kind.as_str(),
                applied.checksum,
                step.kind.as_str(),
                step.checksum
            )))
        };
    }
    let applied = steps
        .iter()
        .filter(|step| step.state == StepState::Applied)
        .map(|step| step.number)
        .max()
        .unwrap_or(0);
    if step.number != applied + 1 {
        return Err(StoreError::Conflict {
            current: u64::from(applied),
        });
    }
    Ok(Write::New(Step {
        scope: step.scope,
        number: step.number,
        name: step.name,
        kind: step.kind,
        checksum: step.checksum,
        state: StepState::Running,
        run: step.run,
        started_us: step.started_us,
        finished_us: None,
        detail: String::new(),
    }))
}

/// Whether a run may finish a step, given what the ledger has under its number.
pub(crate) fn decide_finish(
    scope: &str,
    number: u32,
    finish: Finish,
    step: Option<Step>,
) -> Result<Write<Step>, StoreError> {
    let Some(step) = step else {
        return Err(StoreError::Invalid(format!(
            "step {number} of `{scope}` was never begun; begin it first"
        )));
    };
    let state = StepState::from(finish.outcome);
    if step.state == StepState::Running {
        if step.run != finish.run {
            return Err(held(&step));
        }
        return Ok(Write::New(Step {
            state,
            finished_us: Some(finish.finished_us),
            detail: shorten(finish.detail),
            ..step
        }));
    }
    if step.run == finish.run && step.state == state {
        return Ok(Write::Kept(step));
    }
    Err(StoreError::Invalid(format!(
        "step {number} of `{scope}` has ended already, as {} by run {}; list the steps to see how \
         things stand",
        step.state.as_str(),
        step.run
    )))
}

fn held(step: &Step) -> StoreError {
    StoreError::Held {
        scope: step.scope.clone(),
        number: step.number,
        run: step.run,
        since_us: step.started_us,
    }
}

/// A detail that every engine can keep: cut at its bound, without NUL, which Postgres refuses. Cut
/// rather than refused, because an outcome that cannot be written down is worse than a short one.
fn shorten(detail: String) -> String {
    let mut detail = detail.replace('\0', "\u{fffd}");
    let end = detail.floor_char_boundary(DETAIL_BYTES_MAX);
    detail.truncate(end);
    detail
}
