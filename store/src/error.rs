//! What can go wrong, by what the caller can do about it.

use std::path::PathBuf;
use thiserror::Error;
use uuid::Uuid;

/// Cause of an error, whatever the engine.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why the store did not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Somebody else has written since the caller looked. Read again and decide anew.
    #[error("the ledger is at {current} by now; read it again and decide anew")]
    Conflict {
        /// Newest version of a rollout ledger, newest applied number of a migration ledger; 0 where
        /// there is none yet.
        current: u64,
    },
    /// A migration step is in the hands of another run. Wait, or take it over if that run is gone.
    #[error(
        "step {number} of `{scope}` is being run by run {run}; wait until it ends, or take it over \
         if that run is gone"
    )]
    Held {
        /// The database whose step it is.
        scope: String,
        /// Number of the step.
        number: u32,
        /// The run that holds it.
        run: Uuid,
        /// When that run began, in microseconds since 1970 UTC.
        since_us: i64,
    },
    /// The store cannot answer now, and the write may or may not have happened. The same call again
    /// is safe.
    #[error("the store did not answer; the same call again is safe")]
    Unavailable(#[source] Source),
    /// Something else has to happen first. The message says what.
    #[error("{0}")]
    Refused(String),
    /// What was asked breaks a rule, and will break it again. The message says which.
    #[error("{0}")]
    Invalid(String),
    /// The database cannot be opened.
    #[error("cannot open the store at {}", path.display())]
    Open {
        /// The database's file, or its directory.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: OpenProblem,
    },
}

/// What is wrong with a database that cannot be opened.
#[derive(Debug, Error)]
pub enum OpenProblem {
    /// Something else is in its place.
    #[error("this file was not made by hub-store; name another directory, or move the file away")]
    NotOurs,
    /// A newer program has changed it in a way that this one cannot work with.
    #[error(
        "a newer program has changed it beyond this one: its schema step {found} is a contract step, \
         and this program knows {known} steps; start the newer program, or restore a backup"
    )]
    Newer {
        /// Number of the newest contract step in the file.
        found: u32,
        /// Number of the newest step that this program has.
        known: u32,
    },
    /// Its pages do not add up.
    #[error("the file is damaged ({0}); restore a backup, or move the file away to start empty")]
    Damaged(String),
    /// The operating system, or the database library, said no.
    #[error("the file cannot be used")]
    Failed(#[source] Source),
}

// === impl StoreError ===

impl StoreError {
    /// Whether the same call may succeed later, unchanged.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Held { .. } | Self::Refused(_) => true,
            Self::Conflict { .. } | Self::Invalid(_) | Self::Open { .. } => false,
        }
    }

    pub(crate) fn unavailable(source: impl Into<Source>) -> Self {
        Self::Unavailable(source.into())
    }
}
