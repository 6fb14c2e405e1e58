//! Opening the file: whose it is, whether it is whole, how it writes, which schema it has.

use super::{FILE_NAME, Options};
use crate::migration::Kind;
use crate::{OpenProblem, StoreError, sql};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// `HUBS`, in the header of every file of ours.
const APPLICATION_ID: i32 = 0x4855_4253;
/// Bytes of write-ahead log that are kept between checkpoints.
const JOURNAL_BYTES_MAX: i64 = 8 * 1024 * 1024;

pub(super) fn open(directory: &Path, options: &Options) -> Result<Connection, StoreError> {
    let path = directory.join(FILE_NAME);
    create(directory, &path)
        .map_err(|error| OpenProblem::Failed(error.into()))
        .and_then(|()| connect(&path, options))
        .map_err(|problem| StoreError::Open { path, problem })
}

/// Makes an empty file, readable by its owner alone, unless there is one. SQLite gives its log and
/// its shared memory the same mode.
fn create(directory: &Path, path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    if path.try_exists()? {
        return Ok(());
    }
    // The file gets its name only after it is closed: closing any descriptor of a file drops all of
    // this process's POSIX locks on it, those of another open `Embedded` among them.
    let draft = directory.join(format!("{FILE_NAME}.{}", uuid::Uuid::now_v7()));
    drop(
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?,
    );
    let linked = match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    };
    fs::remove_file(&draft)?;
    linked?;
    fs::File::open(directory)?.sync_all()
}

fn connect(path: &Path, options: &Options) -> Result<Connection, OpenProblem> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(options.busy_timeout)?;
    // Whose it is comes first: nothing of a stranger's file is changed.
    if owner(&connection)? == Owner::Other {
        return Err(OpenProblem::NotOurs);
    }
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenProblem::Failed(
            format!(
                "its file system allows the journal `{mode}` only; a write-ahead log is needed"
            )
            .into(),
        ));
    }
    // In WAL mode, NORMAL would lose the last commits with the power; FULL syncs each of them.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update_and_check(
        None,
        "journal_size_limit",
        JOURNAL_BYTES_MAX,
        |_| Ok(()),
    )?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(OpenProblem::Damaged(verdict));
    }
    migrate(&mut connection)?;
    Ok(connection)
}

#[derive(PartialEq, Eq)]
enum Owner {
    Nobody,
    Us,
    Other,
}

fn owner(connection: &Connection) -> Result<Owner, OpenProblem> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (id, tables) {
        (APPLICATION_ID, _) => Owner::Us,
        (0, 0) => Owner::Nobody,
        _ => Owner::Other,
    })
}

/// Applies the steps that the file does not have. A file that has more of them, all of kind expand,
/// stays usable: the program before the last upgrade must start again after a rollback.
fn migrate(connection: &mut Connection) -> Result<(), OpenProblem> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have got here first.
    if owner(&transaction)? == Owner::Nobody {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    transaction.execute_batch(sql::SCHEMA_TABLE)?;
    let applied = transaction
        .prepare(sql::SCHEMA_LIST)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(u32, String)>, _>>()?;
    let known = u32::try_from(sql::SCHEMA.len()).expect("the schema has few steps");
    let contract = applied
        .iter()
        .rfind(|(number, kind)| *number > known && kind != Kind::Expand.as_str());
    if let Some((found, _)) = contract {
        return Err(OpenProblem::Newer {
            found: *found,
            known,
        });
    }
    for (number, (kind, statements)) in (1..).zip(sql::SCHEMA) {
        if applied.iter().all(|(applied, _)| *applied != number) {
            transaction.execute_batch(statements)?;
            transaction.execute(sql::SCHEMA_INSERT, (number, kind.as_str()))?;
        }
    }
    transaction.commit()?;
    Ok(())
}

impl From<rusqlite::Error> for OpenProblem {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotOurs,
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged(error.to_string()),
            _ => Self::Failed(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
