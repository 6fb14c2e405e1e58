//! The database that is migrated: a SQLite file, or Postgres.

mod executor;
mod leftovers;
mod run_lock;
mod sessions;

pub use sessions::Session;

use super::{MigrateError, StepFile, lint};
use crate::Source;
use executor::{Executor, Refused};
use refinery_core::AsyncMigrate;
use refinery_core::error::Kind as RefineryKind;
use refinery_core::{Migration, Runner, Target};
use run_lock::FileLock;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinHandle;

/// What Postgres shows for the sessions of migrations.
pub const APPLICATION_NAME: &str = "hub-migrate";
/// Longest wait for a connection, unless the connection string says another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where the steps that have run are written down, in the database itself; refinery's own name.
pub const HISTORY_TABLE: &str = "refinery_schema_history";

/// Where a database is.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// A file of SQLite. It is made where it is missing.
    Embedded(PathBuf),
    /// A connection string of Postgres: `postgres://...` or `host=... dbname=...`.
    Postgres(String),
}

/// How long statements may wait and run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Longest wait for one lock. While a schema change waits, every query that comes after it waits
    /// too, so it had better give up and try again. Default 500 ms. A step that runs outside of a
    /// transaction takes no such lock, and waits as long as it must.
    pub lock: Duration,
    /// Longest run of one statement; zero is no bound. Default 1 h.
    pub statement: Duration,
}

/// A connection to the database.
pub struct Database {
    link: Link,
    timeouts: Timeouts,
}

enum Link {
    /// `None` only while a statement has it on another thread.
    Embedded(Option<Opened>),
    Postgres(tokio_postgres::Client, JoinHandle<()>),
}

/// A SQLite file, with the lock of the run that works on it: neither goes before the other's work ends.
struct Opened {
    connection: rusqlite::Connection,
    run: Option<FileLock>,
}

/// A step that the database itself says it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Refinery's checksum.
    pub(super) checksum: u64,
}

/// Why a step was not applied.
#[derive(Debug)]
pub(super) enum Failure {
    /// A lock was not to be had; the same again may do.
    Locked(String),
    /// Anything else.
    Other(String),
}

// === impl Location ===

impl Location {
    /// Reads what an operator types: a URL, or settings such as `user=app host=db` in any order, are
    /// Postgres's; all else is the path of a SQLite file, with or without `sqlite:`. What looks like
    /// Postgres and is wrong must not become a file of that name, with a password in it.
    pub fn parse(text: &str) -> Self {
        if let Some(path) = text.strip_prefix("sqlite:") {
            return Self::Embedded(path.into());
        }
        let is_key = |key: &str| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let has_settings = text
            .split_once('=')
            .is_some_and(|(key, _)| is_key(key.trim()));
        if has_settings || text.contains("://") {
            Self::Postgres(text.to_owned())
        } else {
            Self::Embedded(text.into())
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(path) => f.debug_tuple("Embedded").field(path).finish(),
            // It may hold a password.
            Self::Postgres(_) => f.write_str("Postgres(..)"),
        }
    }
}

// === impl Timeouts ===

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            lock: Duration::from_millis(500),
            statement: Duration::from_secs(3_600),
        }
    }
}

// === impl Database ===

impl Database {
    /// Connects, in Postgres as [`APPLICATION_NAME`]. Postgres without TLS: over a Unix socket, the
    /// loopback, or a tunnel.
    ///
    /// # Errors
    /// [`MigrateError::Database`].
    pub async fn connect(location: &Location, timeouts: &Timeouts) -> Result<Self, MigrateError> {
        let link = match location {
            Location::Embedded(path) => open(path, rusqlite::Connection::open(path), timeouts)?,
            Location::Postgres(text) => {
                let mut config: tokio_postgres::Config = text
                    .parse()
                    .map_err(|error| failed("cannot read the connection string", error))?;
                config.application_name(APPLICATION_NAME);
                if config.get_connect_timeout().is_none() {
                    config.connect_timeout(CONNECT_TIMEOUT);
                }
                let (client, connection) = config
                    .connect(tokio_postgres::NoTls)
                    .await
                    .map_err(|error| failed("cannot connect to Postgres", Refused::from(error)))?;
                // Where the connection breaks, whoever uses the client is told.
                let driver = tokio::spawn(async move {
                    connection.await.ok();
                });
                Link::Postgres(client, driver)
            }
        };
        Ok(Self {
            link,
            timeouts: timeouts.clone(),
        })
    }

    /// As [`Self::connect`], to look and not to run: a SQLite file that is missing is not made, and
    /// looks like one without any step.
    ///
    /// # Errors
    /// [`MigrateError::Database`].
    pub async fn look(location: &Location, timeouts: &Timeouts) -> Result<Self, MigrateError> {
        let Location::Embedded(path) = location else {
            return Self::connect(location, timeouts).await;
        };
        let opened = if path.exists() {
            rusqlite::Connection::open(path)
        } else {
            rusqlite::Connection::open_in_memory()
        };
        Ok(Self {
            link: open(path, opened, timeouts)?,
            timeouts: timeouts.clone(),
        })
    }

    /// Whether this is Postgres, whose migrations are linted.
    pub fn is_postgres(&self) -> bool {
        matches!(self.link, Link::Postgres(..))
    }

    /// The steps that the database says it has, by number. Changes nothing.
    ///
    /// # Errors
    /// [`MigrateError::Database`].
    pub async fn history(&mut self) -> Result<Vec<Applied>, MigrateError> {
        let mut executor = Executor::new(&mut self.link, false);
        let cannot = "cannot read which steps the database has";
        if !executor
            .has_history()
            .await
            .map_err(|error| failed(cannot, error))?
        {
            return Ok(Vec::new());
        }
        let applied = executor
            .get_applied_migrations(HISTORY_TABLE)
            .await
            .map_err(|error| failed(cannot, error))?;
        Ok(applied
            .iter()
            .map(|migration| Applied {
                number: u32::try_from(migration.version()).unwrap_or(0),
                name: migration.name().to_owned(),
                checksum: migration.checksum(),
            })
            .collect())
    }

    /// Sessions on this database whose application name has the colour as a word of its own, in any
    /// case: `green`, `app-green`, `hub/Green/3`. Always empty on SQLite, which knows no sessions.
    ///
    /// # Errors
    /// [`MigrateError::Database`].
    pub async fn colour_in_use(&self, colour: &str) -> Result<Vec<Session>, MigrateError> {
        match &self.link {
            Link::Embedded(_) => Ok(Vec::new()),
            Link::Postgres(client, _) => sessions::of_colour(client, colour)
                .await
                .map_err(|error| failed("cannot read the sessions", Refused::from(error))),
        }
    }

    /// Applies one step, the next after those that the database has, and writes it into the history:
    /// both or neither, but for a step that runs outside of a transaction.
    pub(super) async fn apply(
        &mut self,
        steps: &[StepFile],
        step: &StepFile,
    ) -> Result<(), Failure> {
        self.prepare(step).await?;
        let migrations: Vec<Migration> = steps.iter().map(migration).collect();
        let number = i32::try_from(step.number).expect("a step's number has four digits");
        Runner::new(&migrations)
            .set_target(Target::Version(number))
            .run_async(&mut Executor::new(&mut self.link, step.alone))
            .await
            .map(|_| ())
            .map_err(failure)
    }

    /// Sets the session's timeouts anew, whatever the steps before have set.
    async fn prepare(&mut self, step: &StepFile) -> Result<(), Failure> {
        let Link::Postgres(client, _) = &self.link else {
            return Ok(());
        };
        let lock = if step.alone {
            Duration::ZERO
        } else {
            self.timeouts.lock
        };
        let settings = format!(
            "RESET ALL; SET lock_timeout = {}; SET statement_timeout = {}",
            lock.as_millis(),
            self.timeouts.statement.as_millis()
        );
        let other = |error: tokio_postgres::Error| Failure::Other(Refused::from(error).to_string());
        client.batch_execute(&settings).await.map_err(other)?;
        let indexes = self.indexes(step).await.map_err(Failure::Other)?;
        match indexes.iter().find(|index| !index.valid) {
            None => Ok(()),
            Some(index) => Err(Failure::Other(format!(
                "an attempt that was cut off has left the invalid index {}; DROP INDEX CONCURRENTLY \
                 it, then run this step again",
                index.name
            ))),
        }
    }

    /// Takes the lock that one run at a time has on this database. The end of the process lets it go.
    ///
    /// # Errors
    /// [`MigrateError::Busy`], [`MigrateError::Database`].
    pub(super) async fn begin_run(&mut self) -> Result<(), MigrateError> {
        let cannot = "cannot take the lock of runs on this database";
        let holder = match &mut self.link {
            Link::Embedded(slot) => {
                let opened = slot
                    .as_mut()
                    .ok_or_else(|| failed(cannot, executor::gone()))?;
                let Some(path) = opened.connection.path().filter(|path| !path.is_empty()) else {
                    return Ok(()); // In memory, and nobody else's.
                };
                match FileLock::take(Path::new(path)).map_err(|error| failed(cannot, error))? {
                    Ok(lock) => {
                        opened.run = Some(lock);
                        None
                    }
                    Err(holder) => Some(holder),
                }
            }
            Link::Postgres(client, _) => run_lock::take(client)
                .await
                .map_err(|error| failed(cannot, error))?,
        };
        holder.map_or(Ok(()), |holder| Err(MigrateError::Busy(holder)))
    }

    /// Lets the lock of [`Self::begin_run`] go. Where the database does not answer, it goes with the
    /// connection.
    pub(super) async fn end_run(&mut self) {
        match &mut self.link {
            Link::Embedded(slot) => {
                if let Some(opened) = slot {
                    opened.run = None;
                }
            }
            Link::Postgres(client, _) => {
                run_lock::release(client).await.ok();
            }
        }
    }
}

fn open(
    path: &Path,
    opened: rusqlite::Result<rusqlite::Connection>,
    timeouts: &Timeouts,
) -> Result<Link, MigrateError> {
    let opened = opened.and_then(|connection| {
        connection.busy_timeout(timeouts.lock)?;
        Ok(Opened {
            connection,
            run: None,
        })
    });
    let what = || format!("cannot open the database {}", path.display());
    Ok(Link::Embedded(Some(
        opened.map_err(|error| failed(what(), error))?,
    )))
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Link::Postgres(_, driver) = &self.link {
            // With the task goes the socket; the server rolls back what was open.
            driver.abort();
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("is_postgres", &self.is_postgres())
            .field("timeouts", &self.timeouts)
            .finish()
    }
}

/// Refinery's view of a step. Its checksum covers number, name and SQL.
pub(super) fn migration(step: &StepFile) -> Migration {
    Migration::unapplied(&format!("V{}__{}", step.number, step.name), &step.sql)
        .expect("a step's number and name are what refinery accepts")
}

fn failed(what: impl Into<String>, source: impl Into<Source>) -> MigrateError {
    MigrateError::Database {
        what: what.into(),
        source: source.into(),
    }
}

fn failure(error: refinery_core::Error) -> Failure {
    if let RefineryKind::Connection(_, source) = error.kind()
        && let Some(refused) = source.downcast_ref::<Refused>()
    {
        return if refused.locked {
            Failure::Locked(refused.to_string())
        } else {
            Failure::Other(refused.to_string())
        };
    }
    Failure::Other(error.to_string())
}
