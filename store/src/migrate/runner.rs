//! The order of things: files, ledger and database agree, then one step after the other.

use super::database::{self, Applied, Failure};
use super::{Database, Finding, MigrateError, StepFile, lint};
use crate::migration::{
    Finish, Kind, MigrationLedger, NewStep, Outcome, Step, StepState, WhenRunning,
};
use rand::Rng;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

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
    /// Where a step is running already. Default: refuse.
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
        one(run, database, status, progress, &mut report).await?;
    }
    Ok(report)
}

async fn one(
    run: &Run<'_>,
    database: &mut Database,
    status: &StepStatus,
    progress: &mut (dyn FnMut(Progress) + Send),
    report: &mut Report,
) -> Result<(), MigrateError> {
    let step = &status.step;
    let number = step.number;
    let id = Uuid::now_v7();
    let begun = run.ledger.begin(
        NewStep {
            scope: run.scope.to_owned(),
            number,
            name: step.name.clone(),
            kind: step.kind,
            checksum: step.checksum.clone(),
            run: id,
            started_us: now_us(),
        },
        run.options.when_running,
    );
    if begun.await?.state == StepState::Applied {
        // Another run was quicker.
        return Ok(());
    }
    let finish = |outcome, detail| Finish {
        run: id,
        outcome,
        finished_us: now_us(),
        detail,
    };
    if status.standing == Standing::Unrecorded {
        let found = finish(Outcome::Applied, "found in the database".to_owned());
        run.ledger.finish(run.scope, number, found).await?;
        report.adopted.push(number);
        progress(Progress::Adopted { number });
        return Ok(());
    }
    progress(Progress::Begun {
        number,
        name: step.name.clone(),
    });
    let started = Instant::now();
    match attempts(run, database, step, progress).await {
        Ok(attempts) => {
            let took = started.elapsed();
            let detail = format!("attempt {attempts}, {} ms", took.as_millis());
            let done = finish(Outcome::Applied, detail);
            run.ledger.finish(run.scope, number, done).await?;
            report.applied.push(number);
            progress(Progress::Applied { number, took });
            Ok(())
        }
        Err(error) => {
            give_up(run, database, number, id, &error).await?;
            Err(error)
        }
    }
}

/// Writes down that a step is not in force. Where that is not sure, because the connection broke, it
/// stays with its run: whoever looks has to reckon with either.
async fn give_up(
    run: &Run<'_>,
    database: &mut Database,
    number: u32,
    id: Uuid,
    error: &MigrateError,
) -> Result<(), MigrateError> {
    let Ok(history) = database.history().await else {
        return Ok(());
    };
    if history.iter().any(|applied| applied.number == number) {
        return Ok(());
    }
    let failed = Finish {
        run: id,
        outcome: Outcome::Failed,
        finished_us: now_us(),
        detail: error.to_string(),
    };
    run.ledger.finish(run.scope, number, failed).await?;
    Ok(())
}

/// Tries until the step gets its locks, and answers how often that was.
async fn attempts(
    run: &Run<'_>,
    database: &mut Database,
    step: &StepFile,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<u32, MigrateError> {
    let number = step.number;
    let mut attempt = 1;
    loop {
        let why = match database.apply(run.steps, step).await {
            Ok(()) => return Ok(attempt),
            Err(Failure::Other(why)) => return Err(MigrateError::Step { number, why }),
            Err(Failure::Locked(why)) => why,
        };
        // What a step outside of a transaction has left is for a person to look at.
        if step.alone || attempt >= run.options.attempts_max {
            return Err(MigrateError::Locked {
                number,
                attempts: attempt,
                why,
            });
        }
        let pause = pause(run.options, attempt, &mut rand::rng());
        progress(Progress::Retrying {
            number,
            attempt,
            pause,
            why,
        });
        tokio::time::sleep(pause).await;
        attempt += 1;
    }
}

/// Doubles from the least to the longest pause, less up to half of it: several runs that met each
/// other do not meet again.
fn pause(options: &RunOptions, attempt: u32, rng: &mut impl Rng) -> Duration {
    let doubled = options
        .pause_min
        .saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
    doubled
        .min(options.pause_max)
        .mul_f64(rng.random_range(0.5..=1.0))
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

fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
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

#[cfg(test)]
mod tests {
    use super::{RunOptions, pause};
    use rand::SeedableRng;
    use std::time::Duration;

    #[test]
    fn pauses_double_up_to_their_bound_and_differ() {
        let options = RunOptions::default();
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        for (attempt, most) in [
            (1, 200),
            (2, 400),
            (5, 3_200),
            (7, 10_000),
            (u32::MAX, 10_000),
        ] {
            let most = Duration::from_millis(most);
            let pauses: Vec<_> = (0..50)
                .map(|_| pause(&options, attempt, &mut rng))
                .collect();
            assert!(
                pauses
                    .iter()
                    .all(|pause| *pause <= most && *pause >= most / 2)
            );
            assert!(pauses.windows(2).any(|two| two[0] != two[1]));
        }
    }
}
