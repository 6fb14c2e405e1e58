//! Where lines end up: the writer thread's side of the access log.

use super::Counters;
use crate::telemetry::throttle::Throttle;
use hub_config::runtime::LogTarget;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// An open target.
#[derive(Debug)]
pub(super) enum Output {
    Off,
    Stdout(File),
    File {
        path: PathBuf,
        file: File,
        /// Device and inode, by which a rotated file is told from a new one.
        identity: (u64, u64),
    },
}

/// Writes to an output, counts what happened, and says at most once a minute what went wrong.
#[derive(Debug)]
pub(super) struct Sink {
    output: Output,
    /// The last thing written is a part of a line, whose rest was lost.
    pub(super) torn: bool,
    reports: Throttle,
}

impl Output {
    pub(super) fn open(target: &LogTarget) -> io::Result<Self> {
        match target {
            LogTarget::Off => Ok(Self::Off),
            // A descriptor of our own: `io::stdout` has a lock and a buffer that we do not need.
            LogTarget::Stdout => Ok(Self::Stdout(File::from(
                io::stdout().as_fd().try_clone_to_owned()?,
            ))),
            LogTarget::File(path) => Self::open_file(path.clone()),
        }
    }

    fn open_file(path: PathBuf) -> io::Result<Self> {
        // Readable by the group at most: addresses and paths are personal data. Without waiting, since
        // a pipe whose reader is away would hold whoever opens it for as long; that is an error here.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?)
            .open(&path)?;
        // The writer has nothing better to do than to wait for its target.
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
        let metadata = file.metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self::File {
            path,
            file,
            identity,
        })
    }

    /// Opens the path anew if it no longer leads to the open file, or if `always`.
    fn follow(&mut self, always: bool) -> io::Result<bool> {
        let Self::File { path, identity, .. } = self else {
            return Ok(false);
        };
        let there = match std::fs::metadata(&*path) {
            Ok(metadata) => Some((metadata.dev(), metadata.ino())),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if there == Some(*identity) && !always {
            return Ok(false);
        }
        *self = Self::open_file(path.clone())?;
        Ok(true)
    }

    fn file(&mut self) -> Option<&mut File> {
        match self {
            Self::Off => None,
            Self::Stdout(file) | Self::File { file, .. } => Some(file),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Off => Path::new("off"),
            Self::Stdout(_) => Path::new("stdout"),
            Self::File { path, .. } => path,
        }
    }
}

impl Sink {
    pub(super) fn new(output: Output) -> Self {
        Self {
            output,
            torn: false,
            reports: Throttle::new(1, Duration::from_secs(60)),
        }
    }

    pub(super) fn replace(&mut self, output: Output) {
        self.output = output;
        self.torn = false;
    }

    /// Sees whether the file was rotated. Where the new one cannot be opened, lines go on to the old
    /// one, and the next call tries again.
    pub(super) fn follow(&mut self, always: bool, counters: &Counters) {
        match self.output.follow(always) {
            Ok(reopened) => self.torn &= !reopened,
            Err(error) => self.report(&error, 0, counters),
        }
    }

    /// Writes whole lines. Those that cannot be written are counted as dropped.
    pub(super) fn write(&mut self, lines: &[u8], counters: &Counters) {
        let count = |text: &[u8]| memchr::memchr_iter(b'\n', text).count() as u64;
        let Some(file) = self.output.file() else {
            // The log was turned off while these waited.
            return;
        };
        if self.torn && file.write_all(b"\n").is_ok() {
            // Ends the torn line, so that readers lose that one only.
            self.torn = false;
        }
        let mut rest = lines;
        let mut result = Ok(());
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) => {
                    result = Err(io::Error::from(ErrorKind::WriteZero));
                    break;
                }
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let lost = count(rest);
        counters
            .lines
            .fetch_add(count(lines) - lost, Ordering::Relaxed);
        if let Err(error) = result {
            let written = &lines[..lines.len() - rest.len()];
            self.torn = written.last().map_or(self.torn, |byte| *byte != b'\n');
            counters.drops.fetch_add(lost, Ordering::Relaxed);
            self.report(&error, lost, counters);
        }
    }

    fn report(&self, error: &io::Error, lost: u64, counters: &Counters) {
        counters.errors.fetch_add(1, Ordering::Relaxed);
        if let Some(unreported) = self.reports.pass(Instant::now()) {
            tracing::error!(
                target = %self.output.path().display(),
                %error,
                lost_lines = lost,
                earlier_errors = unreported,
                "the access log cannot be written"
            );
        }
    }
}
