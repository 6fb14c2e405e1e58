use super::{FILE_NAME, open};
use crate::{OpenProblem, Options, StoreError};
use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn problem(directory: &Path) -> OpenProblem {
    match open(directory, &Options::default()) {
        Err(StoreError::Open { problem, .. }) => problem,
        other => panic!("expected a problem, got {other:?}"),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_file_and_its_log_are_readable_by_their_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("made/here");
    let _open = open(&directory, &Options::default()).unwrap();
    assert_eq!(mode(&directory), 0o700);
    let mut names = Vec::new();
    for file in fs::read_dir(&directory).unwrap() {
        let file = file.unwrap();
        assert_eq!(mode(&file.path()), 0o600, "{:?}", file.path());
        names.push(file.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["hub.db", "hub.db-shm", "hub.db-wal"]);
}

#[test]
fn every_commit_is_synced_to_a_write_ahead_log() {
    let directory = tempfile::tempdir().unwrap();
    let connection = open(directory.path(), &Options::default()).unwrap();
    let text = |name: &str| -> String {
        connection
            .query_row(
                &format!("SELECT CAST({name} AS text) FROM pragma_{name}"),
                [],
                |row| row.get(0),
            )
            .unwrap()
    };
    assert_eq!(text("journal_mode"), "wal");
    assert_eq!(text("synchronous"), "2");
    assert_eq!(text("foreign_keys"), "1");
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let letter = "Dear reader, ".repeat(1_000);
    fs::write(&path, &letter).unwrap();
    assert!(matches!(problem(directory.path()), OpenProblem::NotOurs));
    assert_eq!(fs::read_to_string(&path).unwrap(), letter);
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(other);
    let before = fs::read(&path).unwrap();
    assert!(matches!(problem(directory.path()), OpenProblem::NotOurs));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_newer_schema_is_refused_after_a_contract_step_only() {
    let directory = tempfile::tempdir().unwrap();
    let known = u32::try_from(crate::sql::SCHEMA.len()).unwrap();
    let add = |number: u32, kind: &str| {
        open(directory.path(), &Options::default())
            .unwrap()
            .execute(crate::sql::SCHEMA_INSERT, (number, kind))
            .unwrap();
    };
    add(known + 1, "expand");
    open(directory.path(), &Options::default()).unwrap();
    add(known + 2, "contract");
    let problem = problem(directory.path());
    assert!(
        matches!(problem, OpenProblem::Newer { found, .. } if found == known + 2),
        "{problem:?}"
    );
}

#[test]
fn a_damaged_file_is_found_when_it_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), &Options::default()).unwrap());
    let path = directory.path().join(FILE_NAME);
    let mut bytes = fs::read(&path).unwrap();
    // Everything but the first page, whose header says whose the file is.
    bytes[4_096..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let problem = problem(directory.path());
    assert!(matches!(problem, OpenProblem::Damaged(_)), "{problem:?}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(&file, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("file/hub.db"), "{error}");
}
