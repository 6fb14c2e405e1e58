//! What operators ask for, and why they do not get it.

use super::DRAINING_MAX;
use std::path::PathBuf;
use std::time::Duration;

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    /// The new program; else the one that this process was started as.
    pub(crate) binary: Option<PathBuf>,
    /// Longest time for which this process serves the clients that it has; else as configured.
    pub(crate) grace: Option<Duration>,
}

/// Who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// SIGUSR2.
    Signal,
    /// The admin API.
    Admin,
}

/// Why no upgrade was begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("an upgrade is under way; its outcome is at GET /v1/upgrade")]
    UnderWay,
    #[error("this process does not serve any more, or not yet; ask the one that does")]
    NotServing,
    #[error(
        "{DRAINING_MAX} processes still serve clients of earlier upgrades ({}); wait, or end them with SIGTERM", pids(.0)
    )]
    Draining(Vec<u32>),
    #[error("{0}")]
    Rollout(String),
    #[error("{} is no absolute path", .0.display())]
    Path(PathBuf),
    #[error(
        "this process is the first of its container (pid 1), which ends with it whoever serves by then; start a new container instead"
    )]
    First,
}

// === impl Trigger ===

impl Trigger {
    /// As log and audit trail name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Admin => "admin",
        }
    }
}

// === impl Refused ===

impl Refused {
    /// As scripts read it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::UnderWay => "upgrade_under_way",
            Self::NotServing => "not_serving",
            Self::Draining(_) => "too_many_draining",
            Self::Rollout(_) => "rollout_under_way",
            Self::Path(_) => "bad_binary",
            Self::First => "first_process",
        }
    }
}

/// Whether something else than the process with this id may serve after it: where it is the first of its
/// namespace, all others end with it.
pub(super) fn may_be_left(pid: u32) -> Result<(), Refused> {
    match pid {
        1 => Err(Refused::First),
        _ => Ok(()),
    }
}

fn pids(pids: &[u32]) -> String {
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    pids.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_of_a_container_is_not_left() {
        assert_eq!(
            may_be_left(1).err().map(|why| why.code()),
            Some("first_process")
        );
        assert!(may_be_left(2).is_ok());
    }
}
