//! One step: written down, tried until it gets its locks, written down again.

use super::{Progress, Report, Run, RunOptions, Standing, StepStatus};
use crate::StoreError;
use crate::migrate::database::Failure;
use crate::migrate::{Database, MigrateError, StepFile};
use crate::migration::{Finish, Kind, NewStep, Outcome, StepState, WhenRunning};
use rand::Rng;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

pub(super) async fn one(
    run: &Run<'_>,
    database: &mut Database,
    status: &StepStatus,
    progress: &mut (dyn FnMut(Progress) + Send),
    report: &mut Report,
) -> Result<(), MigrateError> {
    let step = &status.step;
    let number = step.number;
    let id = Uuid::now_v7();
    let is_in_force = status.standing == Standing::Unrecorded;
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
        if is_in_force {
            WhenRunning::InForce
        } else {
            run.options.when_running
        },
    );
    let begun = begun.await.map_err(|error| match error {
        StoreError::Held {
            scope, number, run, ..
        } => MigrateError::Abandoned { scope, number, run },
        other => other.into(),
    })?;
    if begun.state == StepState::Applied {
        // Another run was quicker.
        return Ok(());
    }
    let untold = |source| MigrateError::Untold { number, source };
    if is_in_force {
        let found = finish(id, Outcome::Applied, "found in the database".to_owned());
        let told = run.ledger.finish(run.scope, number, found).await;
        told.map_err(untold)?;
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
            let done = finish(id, Outcome::Applied, detail);
            let told = run.ledger.finish(run.scope, number, done).await;
            told.map_err(untold)?;
            report.applied.push(number);
            progress(Progress::Applied { number, took });
            Ok(())
        }
        Err(error) => Err(give_up(run, database, step, id, error).await),
    }
}

/// Writes down that a step is not in force, and answers what to tell of it. Where it is not sure that it
/// is not, it stays with its run: whoever looks has to reckon with either.
async fn give_up(
    run: &Run<'_>,
    database: &mut Database,
    step: &StepFile,
    id: Uuid,
    error: MigrateError,
) -> MigrateError {
    let then = match database.history().await {
        Err(unknown) => format!(
            "whether it is in force cannot be seen now ({}), so it counts as missing and as done; run this \
             again, then it is written down, or told what to do",
            chain(&unknown)
        ),
        Ok(history) if history.iter().any(|applied| applied.number == step.number) => {
            "the database has it all the same; run this again to have it written down".to_owned()
        }
        // Half of what it takes away may be gone.
        Ok(_) if step.alone && step.kind == Kind::Contract => {
            "it runs outside of a transaction, so part of it may be in force, and it counts as missing and \
             as done until it is run again with --take-over"
                .to_owned()
        }
        Ok(_) => {
            let failed = finish(id, Outcome::Failed, error.to_string());
            let Err(silent) = run.ledger.finish(run.scope, step.number, failed).await else {
                return error;
            };
            format!(
                "the ledger could not be told that it failed ({}); once that answers, run this again with \
                 --take-over",
                chain(&silent)
            )
        }
    };
    MigrateError::Unsettled {
        error: Box::new(error),
        then,
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn finish(run: Uuid, outcome: Outcome, detail: String) -> Finish {
    Finish {
        run,
        outcome,
        finished_us: now_us(),
        detail,
    }
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
            // What a step outside of a transaction has left is for a person to look at.
            Err(Failure::Other(why) | Failure::Locked(why)) if step.alone => {
                let left = database.leftovers(step, &why).await;
                let why = format!("{why}; it runs outside of a transaction: {left}");
                return Err(MigrateError::Step { number, why });
            }
            Err(Failure::Other(why)) => return Err(MigrateError::Step { number, why }),
            Err(Failure::Locked(why)) => why,
        };
        if attempt >= run.options.attempts_max {
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

fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
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
