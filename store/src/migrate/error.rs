//! What keeps a migration from running, by what the operator can do.

use super::{Finding, Session};
use crate::{Source, StoreError};
use std::fmt;
use thiserror::Error;
use uuid::Uuid;

/// Why a migration did not run, or did not end.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// The ledger refused, or did not answer.
    #[error("the migration ledger said no")]
    Ledger(#[from] StoreError),
    /// A run that has died holds the step. Nothing was run.
    #[error(
        "step {number:04} of `{scope}` was begun by run {run} and has not ended, and no run is at work on \
         this database any more; if it is the right database for `{scope}`, that run has died: run this \
         again with --take-over"
    )]
    Abandoned {
        /// What the ledger calls the database.
        scope: String,
        /// Number of the step.
        number: u32,
        /// The run that holds it.
        run: Uuid,
    },
    /// Another run is at work on this database. Nothing was run.
    #[error(
        "another run is at work on this database ({0}); wait until it ends; --take-over is for runs that \
         have died"
    )]
    Busy(
        /// Who that is.
        String,
    ),
    /// The step is in force, and the ledger has not heard of it.
    #[error(
        "step {number:04} is in force in the database, and the ledger was not told so; run this again to \
         have it written down"
    )]
    Untold {
        /// Number of the step.
        number: u32,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The step failed, and stays with its run.
    #[error("{error}\n{then}")]
    Unsettled {
        /// Why it failed.
        error: Box<MigrateError>,
        /// Why that is not the end of it, and what to do.
        then: String,
    },
    /// The database cannot be reached or asked.
    #[error("{what}")]
    Database {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: Source,
    },
    /// Steps that wait to run need another way, or a waiver. Nothing was run.
    #[error("{}", Listed(.0))]
    Findings(
        /// Names of files, with what was found in them.
        Vec<(String, Finding)>,
    ),
    /// Files, ledger and database tell different stories. Nothing was run.
    #[error("{0}")]
    Diverged(String),
    /// A contract step would take away what a colour still uses. Nothing was run.
    #[error("colour `{colour}` still has {} sessions on this database, such as {}; drain it first", sessions.len(), sessions.first().map_or("-", |session| session.application_name.as_str()))]
    ColourInUse {
        /// The colour that was to be gone.
        colour: String,
        /// Its sessions.
        sessions: Vec<Session>,
    },
    /// The step did not get its locks. It was rolled back, and may be run again.
    #[error(
        "step {number:04} did not get its locks in {attempts} attempts ({why}); look for long \
         transactions, then run it again"
    )]
    Locked {
        /// Number of the step.
        number: u32,
        /// Attempts that were made.
        attempts: u32,
        /// What the database said last.
        why: String,
    },
    /// The step failed. Where it ran in a transaction it was rolled back; else it is told what it has left
    /// behind.
    #[error("step {number:04} failed: {why}")]
    Step {
        /// Number of the step.
        number: u32,
        /// What the database said.
        why: String,
    },
}

struct Listed<'a>(&'a [(String, Finding)]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} findings; nothing was run", self.0.len())?;
        for (file, finding) in self.0 {
            write!(
                f,
                "\n{file}:{}: {}: {}; instead: {}",
                finding.line, finding.rule, finding.why, finding.instead
            )?;
        }
        Ok(())
    }
}
