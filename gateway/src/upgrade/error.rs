//! Why an upgrade came to nothing.

use super::PROTOCOL;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why an upgrade was aborted, as whoever asked for it reads it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the control socket cannot be made in {}: {source}", folder.display())]
    ControlSocket { folder: PathBuf, source: io::Error },
    #[error("{} cannot be started: {source}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("{} is not to be run: {why}", program.display())]
    Program { program: PathBuf, why: &'static str },
    #[error("the new process did not {what} within {} ms", longest.as_millis())]
    Late {
        what: &'static str,
        longest: Duration,
    },
    #[error("the new process ended ({how}) before it could {what}")]
    Ended { what: &'static str, how: String },
    #[error("the new process gave up: {0}")]
    GaveUp(String),
    #[error(
        "the new process speaks version {0} of the hand-over, and this one {PROTOCOL}; restart the service instead"
    )]
    Protocol(u32),
    #[error("the new process said {said} where it should {what}")]
    Unexpected {
        what: &'static str,
        said: &'static str,
    },
    #[error("the other process cannot be talked to: {0}")]
    Channel(#[from] io::Error),
    #[error("this process was told to end")]
    Ending,
}
