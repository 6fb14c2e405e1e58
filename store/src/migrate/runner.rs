//! The order of things: files, ledger and database agree, then one step after the other.

mod step;

use super::database::{self, Applied};
use super::{Database, Finding, MigrateError, StepFile, lint};
use crate::migration::{Kind, MigrationLedger, Step, StepState, WhenRunning};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is migrated, and how.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// All steps, by number, as [`super::load`] gives them.
    pub steps: &'a [StepFile],
    /// What the ledger calls this database.
    pub scope: &'a str,
    /// Where steps are written down before and after they run.
    pub ledger: &'a dyn MigrationLedger,
    /// How.
    pub options: &'a RunOptions,
}

/// How steps are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Where a run that is gone holds a step which the database does not have. Default: refuse.
    pub when_running: WhenRunning,
    /// The colour that contract steps must not meet, if any is being retired. Default: none, and no
    /// session is looked at.
    pub retired_colour: Option<String>,
    /// Attempts at a step that does not get its locks; at least 1. Default 10.
    pub attempts_max: u32,
    /// Pause after the first attempt; it doubles with each. Default 200 ms.
    pub pause_min: Duration,
    /// Longest pause. Default 10 s.
    pub pause_max: Duration,
}

/// What a run tells while it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A step begins.
    Begun {
        /// Its number.
        number: u32,
        /// Its name.
        name: String,
    },
    /// A step did not get its locks, and will be tried again.
    Retrying {
        /// Its number.
        number: u32,
        /// Attempts so far.
        attempt: u32,
        /// Time until the next.
        pause: Duration,
        /// What the database said.
        why: String,
    },
    /// A step is in force.
    Applied {
        /// Its number.
        number: u32,
        /// From its first attempt to the end of its last.
        took: Duration,
    },
    /// The database has a step already that the ledger did not know of.
    Adopted {
        /// Its number.
        number: u32,
    },
}

/// What a run has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Numbers of the steps that were applied.
    pub applied: Vec<u32>,
    /// Numbers of the steps that the database had already, and the ledger has now.
    pub adopted: Vec<u32>,
    /// The first step that is still to come: it is of the other kind.
    pub next: Option<u32>,
}

/// How a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// In force, and written down.
    Applied,
    /// In force in the database; the ledger does not say so. The next run adopts it.
    Unrecorded,
    /// A run holds it.
    Running,
    /// Its last run gave up.
    Failed,
    /// To come.
    Pending,
    /// The ledger says that it is in force, and the database does not have it.
    Lost,
    /// In force, but its file is not what was run.
    Changed,
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepStatus {
    /// The step.
    pub step: StepFile,
    /// How it stands.
    pub standing: Standing,
    /// What the ledger has of it.
    pub recorded: Option<Step>,
    /// What keeps it from being run; for steps to come on Postgres alone.
    pub findings: Vec<Finding>,
}

/// How every step stands, by number. Changes nothing.
///
/// # Errors
/// [`MigrateError::Ledger`], [`MigrateError::Database`], and [`MigrateError::Diverged`] where the
/// ledger or the database has a step that no file has.
pub async fn status(
    run: &Run<'_>,
    database: &mut Database,
) -> Result<Vec<StepStatus>, MigrateError> {
    let recorded = run.ledger.list(run.scope).await?;
    let history = database.history().await?;
    let mut recorded: BTreeMap<u32, Step> = recorded
        .into_iter()
        .map(|step| (step.number, step))
        .collect();
    let mut history: BTreeMap<u32, Applied> = history
        .into_iter()
        .map(|step| (step.number, step))
        .collect();
    let mut statuses = Vec::with_capacity(run.steps.len());
    for step in run.steps {
        let recorded = recorded.remove(&step.number);
        let standing = standing(step, recorded.as_ref(), history.remove(&step.number));
        let to_come = matches!(
            standing,
            Standing::Running | Standing::Failed | Standing::Pending
        );
        let findings = if to_come && database.is_postgres() {
            lint(&step.sql, step.kind)
        } else {
            Vec::new()
        };
        statuses.push(StepStatus {
            step: step.clone(),
            standing,
            recorded,
            findings,
        });
    }
    // A failed step whose file was taken away has left nothing behind.
    recorded.retain(|_, step| step.state != StepState::Failed);
    let unknown = recorded.keys().chain(history.keys()).min();
    match unknown {
        None => Ok(statuses),
        Some(number) => Err(MigrateError::Diverged(format!(
            "`{}` has step {number:04}, and there is no file for it; run with the files of the newest \
             release",
            run.scope
        ))),
    }
}

/// Runs the expand steps that come next, up to the first contract step that has not run.
///
/// # Errors
/// Any [`MigrateError`]. What was applied before the error stays applied.
pub async fn expand(
    run: &Run<'_>,
    database: &mut Database,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, MigrateError> {
    advance(Kind::Expand, run, database, progress).await
}

/// Runs the contract steps that come next, up to the first expand step that has not run; after a look
/// at the sessions of [`RunOptions::retired_colour`].
///
/// # Errors
/// Any [`MigrateError`]. What was applied before the error stays applied.
pub async fn contract(
    run: &Run<'_>,
    database: &mut Database,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, MigrateError> {
    advance(Kind::Contract, run, database, progress).await
}

async fn advance(
    kind: Kind,
    run: &Run<'_>,
    database: &mut Database,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, MigrateError> {
    // Before the look at what there is: who has the lock knows that every run before has ended.
    database.begin_run().await?;
    let outcome = steps(kind, run, database, progress).await;
    database.end_run().await;
    outcome
}

async fn steps(
    kind: Kind,
    run: &Run<'_>,
    database: &mut Database,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, MigrateError> {
    let statuses = status(run, database).await?;
    let mut todo = Vec::new();
    let mut report = Report::default();
    for status in &statuses {
        match status.standing {
            Standing::Applied => {}
            Standing::Unrecorded => todo.push(status),
            Standing::Running | Standing::Failed | Standing::Pending => {
                if status.step.kind != kind {
                    report.next = Some(status.step.number);
                    break;
                }
                todo.push(status);
            }
            Standing::Lost => {
                return Err(diverged(
                    run,
                    status,
                    "the ledger says it was applied, and the database does not have it; was an older backup restored, or is this another database?",
                ));
            }
            Standing::Changed => {
                return Err(diverged(
                    run,
                    status,
                    "its file is not what was run; put the file back as it was, and write a new step for the change",
                ));
            }
        }
    }
    refuse_findings(&todo)?;
    if kind == Kind::Contract && todo.iter().any(|status| status.step.kind == kind) {
        refuse_colour(run, database).await?;
    }
    for status in todo {
        step::one(run, database, status, progress, &mut report).await?;
    }
    Ok(report)
}

fn standing(step: &StepFile, recorded: Option<&Step>, applied: Option<Applied>) -> Standing {
    let differs = applied
        .as_ref()
        .is_some_and(|applied| applied.checksum != database::migration(step).checksum())
        || recorded.is_some_and(|recorded| {
            recorded.state == StepState::Applied
                && (recorded.checksum != step.checksum || recorded.kind != step.kind)
        });
    match (recorded.map(|recorded| recorded.state), applied.is_some()) {
        _ if differs => Standing::Changed,
        (Some(StepState::Applied), true) => Standing::Applied,
        (Some(StepState::Applied), false) => Standing::Lost,
        (_, true) => Standing::Unrecorded,
        (Some(StepState::Running), false) => Standing::Running,
        (Some(StepState::Failed), false) => Standing::Failed,
        (None, false) => Standing::Pending,
    }
}

fn refuse_findings(todo: &[&StepStatus]) -> Result<(), MigrateError> {
    let findings: Vec<_> = todo
        .iter()
        .flat_map(|status| {
            let file = status.step.path.file_name().unwrap_or_default();
            let file = file.to_string_lossy().into_owned();
            status
                .findings
                .iter()
                .map(move |finding| (file.clone(), *finding))
        })
        .collect();
    if findings.is_empty() {
        Ok(())
    } else {
        Err(MigrateError::Findings(findings))
    }
}

async fn refuse_colour(run: &Run<'_>, database: &Database) -> Result<(), MigrateError> {
    let Some(colour) = &run.options.retired_colour else {
        return Ok(());
    };
    let sessions = database.colour_in_use(colour).await?;
    if sessions.is_empty() {
        Ok(())
    } else {
        Err(MigrateError::ColourInUse {
            colour: colour.clone(),
            sessions,
        })
    }
}

fn diverged(run: &Run<'_>, status: &StepStatus, why: &str) -> MigrateError {
    MigrateError::Diverged(format!(
        "step {:04} of `{}`: {why}",
        status.step.number, run.scope
    ))
}

// === impl RunOptions ===

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            when_running: WhenRunning::Refuse,
            retired_colour: None,
            attempts_max: 10,
            pause_min: Duration::from_millis(200),
            pause_max: Duration::from_secs(10),
        }
    }
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("scope", &self.scope)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
