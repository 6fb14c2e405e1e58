//! One run at a time on a database: the lock goes with the process that holds it, whatever became of
//! that process, so who has it knows that every run before is gone.
//!
//! In Postgres it is an advisory lock of the session that executes the steps. It is asked for and
//! never waited for: `CREATE INDEX CONCURRENTLY` waits for every other session's snapshot, that of a
//! session in a queue for the lock among them. For SQLite it is a lock on a file beside the database;
//! on the database's own, closing it would drop the locks that SQLite holds (`fcntl(2)`).

use super::executor::Refused;
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tokio_postgres::Client;

/// Key of the advisory lock: `hub-migr`.
const KEY: i64 = 0x6875_622d_6d69_6772;
/// Attempts at a file that its last holder is taking away.
const ATTEMPTS_MAX: u32 = 16;

/// A locked file, which is taken away when the lock is let go.
pub(super) struct FileLock {
    path: PathBuf,
    _file: File,
}

/// Takes the lock of a session, or says who has it.
pub(super) async fn take(client: &Client) -> Result<Option<String>, Refused> {
    let mine = client
        .query_one("SELECT pg_try_advisory_lock($1)", &[&KEY])
        .await?;
    if mine.try_get(0)? {
        return Ok(None);
    }
    let rows = client
        .query(include_str!("lock_holder.sql"), &[&KEY])
        .await?;
    let Some(row) = rows.first() else {
        return Ok(Some("it has ended just now".to_owned()));
    };
    let (pid, since, from): (i32, Option<String>, Option<String>) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (since, from) = (since.unwrap_or_default(), from.unwrap_or_default());
    Ok(Some(format!(
        "session {pid} of Postgres, connected{from} since {since}; where its hubctl has died, SELECT pg_terminate_backend({pid}) ends what it left running"
    )))
}

pub(super) async fn release(client: &Client) -> Result<(), Refused> {
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&KEY])
        .await?;
    Ok(())
}

// === impl FileLock ===

impl FileLock {
    /// Locks the file that stands beside this database; else who has it.
    pub(super) fn take(database: &Path) -> io::Result<Result<Self, String>> {
        let mut name = database.as_os_str().to_owned();
        name.push(".migrate-lock");
        let path = PathBuf::from(name);
        for _ in 0..ATTEMPTS_MAX {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path)?;
            let mine = file.metadata()?;
            if !mine.is_file() || mine.nlink() > 1 {
                // Somebody has put it there to have another file overwritten.
                return Err(io::Error::other("it is no file of its own; remove it"));
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut process = String::new();
                    file.take(20).read_to_string(&mut process)?;
                    return Ok(Err(format!("process {process}")));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Its last holder may have taken the name away between opening and locking; then the
            // next one locks another file.
            let there = fs::symlink_metadata(&path);
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (mine.dev(), mine.ino())) {
                file.set_len(0)?;
                file.write_all(std::process::id().to_string().as_bytes())?;
                return Ok(Ok(Self { path, _file: file }));
            }
        }
        Ok(Err("several of them come and go".to_owned()))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Still locked here; a file that stays is locked anew by the next run.
        fs::remove_file(&self.path).ok();
    }
}
