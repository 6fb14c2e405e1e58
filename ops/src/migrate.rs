//! `hubctl migrate`: shows the steps of an application's schema, and runs those that may run.

mod clock;
mod show;

use crate::client::Client;
use crate::ledger::{self, AdminLedger};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use clock::Clock;
use hub_store::migrate::{
    Database, Location, MigrateError, Progress, Report, Run, RunOptions, Standing, StepFile,
    StepStatus, Timeouts, contract, expand, load, status,
};
use hub_store::{Kind, Memory, MigrationLedger, WhenRunning};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum Migrate {
    /// Show every step, how it stands, and what its SQL would do to a database in use. Exits 1 where
    /// something keeps the steps to come from running.
    Plan {
        #[command(flatten)]
        target: Target,
    },
    /// Run the expand steps that come next: before a rollout.
    Expand {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        how: How,
    },
    /// Run the contract steps that come next: after a rollout, when nobody needs what they take away.
    Contract {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        how: How,
        /// The colour whose sessions must be gone. Only where the database's clusters differ in which
        /// colour is active; else the gateway knows.
        #[arg(long, value_parser = ["blue", "green"])]
        retired_colour: Option<String>,
    },
    /// Show which step each database is at and which colours can run on it; with --dir, --scope and
    /// --database also how each step of that database stands.
    Status {
        /// Folder of the steps.
        #[arg(long, requires = "scope")]
        dir: Option<PathBuf>,
        /// This database alone, as `schema.scopes` of its cluster names it.
        #[arg(long)]
        scope: Option<String>,
        #[command(flatten)]
        database: DatabaseUrl,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Folder of the steps: NNNN_name.expand.sql and NNNN_name.contract.sql.
    #[arg(long)]
    dir: PathBuf,
    /// The database, as `schema.scopes` of its cluster names it.
    #[arg(long)]
    scope: String,
    #[command(flatten)]
    database: DatabaseUrl,
}

#[derive(Debug, Args)]
pub(crate) struct DatabaseUrl {
    /// The database: postgres://..., host=... dbname=..., or the path of a SQLite file. Other users of
    /// this machine can read arguments, so give a password in --database-file, or in the variable
    /// HUB_DATABASE. It goes nowhere but to the database.
    #[arg(long)]
    database: Option<String>,
    /// File that holds what --database would.
    #[arg(long, conflicts_with = "database")]
    database_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct How {
    /// Take a step away from a run that has died and whose step the database does not have. A run that is
    /// at work is never taken over; what the database has is written down without this.
    #[arg(long)]
    take_over: bool,
    /// Attempts at a step that does not get its locks; 1 to 1000.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    attempts: u32,
    /// Longest wait for a lock, in milliseconds; 1 to 60000. Whoever comes after a schema change that waits
    /// for one waits too.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    lock_timeout_ms: u64,
    /// Longest run of one statement, in seconds; 0 is no bound.
    #[arg(long, default_value_t = 3_600)]
    statement_timeout: u64,
}

/// What a run of steps needs.
struct Job<'j> {
    client: &'j Client,
    target: &'j Target,
    how: &'j How,
    kind: Kind,
    retired_colour: Option<String>,
    as_json: bool,
}

pub(crate) fn perform(
    client: &Client,
    command: &Migrate,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the async runtime cannot be started")?;
    runtime.block_on(async {
        match command {
            Migrate::Plan { target } => plan(client, target, as_json).await,
            Migrate::Expand { target, how } => {
                asked(client, &target.scope)?;
                let job = Job {
                    client,
                    target,
                    how,
                    kind: Kind::Expand,
                    retired_colour: None,
                    as_json,
                };
                job.run().await
            }
            Migrate::Contract {
                target,
                how,
                retired_colour,
            } => {
                let known = asked(client, &target.scope)?;
                let job = Job {
                    client,
                    target,
                    how,
                    kind: Kind::Contract,
                    retired_colour: retired(&known, &target.scope, retired_colour.as_deref())?,
                    as_json,
                };
                job.run().await
            }
            Migrate::Status {
                dir,
                scope,
                database,
            } => {
                if let (Some(dir), Some(scope)) = (dir, scope) {
                    let steps = steps(dir)?;
                    let mut database = database.look().await?;
                    let known = known(client, scope)?;
                    let statuses =
                        look(client, known.is_some(), &steps, scope, &mut database).await?;
                    show::steps(scope, &statuses, known.is_some(), as_json);
                    if let (Some(known), false) = (known, as_json) {
                        print!("{}", show::scope(&known));
                    }
                } else {
                    show::scopes(client, scope.as_deref(), as_json)?;
                }
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

// === impl DatabaseUrl ===

impl DatabaseUrl {
    /// From the flag, the file or the environment, in that order. Never shown.
    fn location(&self) -> anyhow::Result<Location> {
        let text = match (&self.database, &self.database_file) {
            (Some(text), _) => text.clone(),
            (None, Some(file)) => std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the database file {}", file.display()))?,
            (None, None) => std::env::var("HUB_DATABASE")
                .ok()
                .context("which database? Give --database, --database-file or HUB_DATABASE")?,
        };
        Ok(Location::parse(text.trim()))
    }

    /// To run steps on: a SQLite file that is missing is made.
    async fn connect(&self, timeouts: &Timeouts) -> anyhow::Result<Database> {
        Ok(Database::connect(&self.location()?, timeouts).await?)
    }

    /// To look at.
    async fn look(&self) -> anyhow::Result<Database> {
        let location = self.location()?;
        if let Location::Embedded(path) = &location
            && !path.exists()
        {
            eprintln!(
                "there is no database {} so far; `hubctl migrate expand` makes it, if that is its right path",
                path.display()
            );
        }
        Ok(Database::look(&location, &Timeouts::default()).await?)
    }
}

fn steps(dir: &std::path::Path) -> anyhow::Result<Vec<StepFile>> {
    load(dir).map_err(|problems| anyhow::anyhow!("the steps cannot be used:\n{problems}"))
}

/// What the gateway knows of a database; `None` where it is not there to be asked.
fn known(client: &Client, scope: &str) -> anyhow::Result<Option<Value>> {
    let reply = match client.get(&ledger::path(scope)) {
        Ok(reply) => reply,
        Err(error) => {
            eprintln!("{error:#}\nwhat follows is what the database itself says");
            return Ok(None);
        }
    };
    if let Some(message) = reply.body["error"]["message"].as_str() {
        bail!("{message}");
    }
    Ok(Some(reply.body))
}

/// What the gateway knows of a database that steps are to be run on.
fn asked(client: &Client, scope: &str) -> anyhow::Result<Value> {
    let nothing = "nothing was run, for the gateway has to agree to every step";
    let reply = client.get(&ledger::path(scope)).context(nothing)?;
    match reply.body["error"]["message"].as_str() {
        Some(message) => Err(anyhow::anyhow!("{message}").context(nothing)),
        None => Ok(reply.body),
    }
}

/// The colour whose sessions a contract step must not meet.
fn retired(known: &Value, scope: &str, wanted: Option<&str>) -> anyhow::Result<Option<String>> {
    if let Some(colour) = wanted {
        return Ok(Some(colour.to_owned()));
    }
    let colours = known["retired"].as_array().cloned().unwrap_or_default();
    match colours.as_slice() {
        // The gateway will have something to say of it.
        [] => Ok(None),
        [colour] => Ok(colour.as_str().map(str::to_owned)),
        _ => bail!(
            "the clusters on `{scope}` differ in which colour is active, so it is not known whose \
             sessions are the old ones; say so with --retired-colour"
        ),
    }
}

/// How every step stands, by the gateway's ledger or without it.
async fn look(
    client: &Client,
    with_ledger: bool,
    steps: &[StepFile],
    scope: &str,
    database: &mut Database,
) -> Result<Vec<StepStatus>, MigrateError> {
    let (ledger, none) = (AdminLedger::new(client), Memory::new());
    let ledger: &dyn MigrationLedger = if with_ledger { &ledger } else { &none };
    let options = RunOptions::default();
    let run = Run {
        steps,
        scope,
        ledger,
        options: &options,
    };
    status(&run, database).await
}

async fn plan(client: &Client, target: &Target, as_json: bool) -> anyhow::Result<ExitCode> {
    let steps = steps(&target.dir)?;
    let mut database = target.database.look().await?;
    let known = known(client, &target.scope)?.is_some();
    let statuses = look(client, known, &steps, &target.scope, &mut database).await?;
    show::steps(&target.scope, &statuses, known, as_json);
    let kept = statuses.iter().any(|status| {
        !status.findings.is_empty() || matches!(status.standing, Standing::Lost | Standing::Changed)
    });
    Ok(ExitCode::from(u8::from(kept)))
}

// === impl Job ===

impl Job<'_> {
    async fn run(&self) -> anyhow::Result<ExitCode> {
        let steps = steps(&self.target.dir)?;
        let timeouts = Timeouts {
            lock: Duration::from_millis(self.how.lock_timeout_ms),
            statement: Duration::from_secs(self.how.statement_timeout),
        };
        let mut database = self.target.database.connect(&timeouts).await?;
        let options = RunOptions {
            when_running: if self.how.take_over {
                WhenRunning::TakeOver
            } else {
                WhenRunning::Refuse
            },
            retired_colour: self.retired_colour.clone(),
            attempts_max: self.how.attempts,
            ..RunOptions::default()
        };
        let ledger = AdminLedger::new(self.client);
        let run = Run {
            steps: &steps,
            scope: &self.target.scope,
            ledger: &ledger,
            options: &options,
        };
        let clock = Clock::new(std::io::stdout().is_terminal() && !self.as_json);
        let mut told = |progress: Progress| {
            clock.clear();
            if !self.as_json {
                println!("{}", show::progress(&progress));
            }
            clock.note(&progress);
        };
        let outcome = {
            let running = async {
                match self.kind {
                    Kind::Expand => expand(&run, &mut database, &mut told).await,
                    Kind::Contract => contract(&run, &mut database, &mut told).await,
                }
            };
            let mut running = std::pin::pin!(running);
            loop {
                tokio::select! {
                    outcome = &mut running => break outcome,
                    () = tokio::time::sleep(clock::PERIOD) => clock.show(),
                }
            }
        };
        clock.clear();
        match outcome {
            Ok(report) => {
                self.done(&report);
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => {
                eprintln!("hubctl: {:#}", anyhow::Error::from(error));
                Ok(ExitCode::from(1))
            }
        }
    }

    fn done(&self, report: &Report) {
        if self.as_json {
            println!(
                "{}",
                json!({"applied": report.applied, "adopted": report.adopted, "next": report.next})
            );
            return;
        }
        if report.applied.is_empty() && report.adopted.is_empty() {
            println!("no {} step is to come", self.kind.as_str());
        }
        if let Some(next) = report.next {
            let advice = match self.kind {
                Kind::Expand => "once the rollout is committed, `hubctl migrate contract` runs it",
                Kind::Contract => "`hubctl migrate expand` runs it",
            };
            println!("next is step {next:04}, of the other kind: {advice}");
        }
    }
}
