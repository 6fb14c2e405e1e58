//! The promises of the ledgers, asked of every engine, and what only an engine with a file can
//! promise.

#![expect(
    clippy::unwrap_used,
    reason = "a test like any other; clippy sees tests only where the attribute stands"
)]

mod suite;

use hub_store::{
    Embedded, Fault, Memory, MigrationLedger, Options, RolloutLedger, StoreError, WhenRunning,
};
use proptest::test_runner::{Config, TestRunner};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use suite::{entry, step};
use tempfile::TempDir;

fn open(directory: &Path) -> Embedded {
    Embedded::open(directory, &Options::default()).expect("a store in a directory of its own")
}

/// A ledger, and what must outlive it.
fn embedded() -> (Embedded, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (open(directory.path()), directory)
}

fn memory() -> (Memory, ()) {
    (Memory::new(), ())
}

/// One test per promise and engine.
macro_rules! conformance {
    ($engine:ident: $($part:ident { $($promise:ident)* })*) => {
        mod $engine {
            $($(
                #[tokio::test]
                async fn $promise() {
                    let (ledger, _keep) = super::$engine();
                    super::suite::$part::$promise(&ledger).await;
                }
            )*)*
        }
    };
}

macro_rules! on_every_engine {
    ($($promises:tt)*) => {
        conformance!(embedded: $($promises)*);
        conformance!(memory: $($promises)*);
    };
}

on_every_engine! {
    rollout {
        an_entry_is_appended_only_by_who_has_seen_the_one_before
        what_was_appended_is_read_back_byte_for_byte
        a_repeated_append_answers_what_was_kept
        history_is_read_in_pages_newest_first
        the_newest_of_every_cluster_is_listed_by_name
        pruning_leaves_the_newest
        what_is_out_of_bounds_is_refused_and_not_kept
    }
    migration {
        steps_run_one_after_the_other
        a_step_out_of_order_is_refused
        only_one_step_of_a_scope_runs_at_a_time
        a_step_that_was_taken_over_is_not_finished_by_its_old_run
        a_step_is_taken_over_as_what_it_was_begun_as
        an_applied_step_is_not_run_again
        an_applied_step_that_has_changed_is_refused
        a_failed_step_may_begin_again_changed
        a_repeated_finish_answers_what_was_kept
        a_long_detail_is_cut_and_kept
        scopes_are_listed_by_name
        a_step_out_of_bounds_is_refused
    }
}

// === Promises that need several handles ===

/// `count` times the same ledger, by way of `handles`.
fn shared<T: Clone>(count: usize, handles: &[T]) -> Vec<T> {
    handles.iter().cycle().take(count).cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_appenders_in_memory() {
    let handles: [Arc<dyn RolloutLedger>; 1] = [Arc::new(Memory::new())];
    suite::rollout::of_concurrent_appenders_exactly_one_wins_each_version(shared(8, &handles))
        .await;
}

/// Two handles on one file stand for two processes, as during the upgrade of a binary.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_appenders_on_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let handles: [Arc<dyn RolloutLedger>; 2] = [
        Arc::new(open(directory.path())),
        Arc::new(open(directory.path())),
    ];
    suite::rollout::of_concurrent_appenders_exactly_one_wins_each_version(shared(8, &handles))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_runs_of_a_step() {
    let memory: [Arc<dyn MigrationLedger>; 1] = [Arc::new(Memory::new())];
    suite::migration::of_concurrent_runs_exactly_one_begins(shared(8, &memory)).await;
    let directory = tempfile::tempdir().unwrap();
    let embedded: [Arc<dyn MigrationLedger>; 2] = [
        Arc::new(open(directory.path())),
        Arc::new(open(directory.path())),
    ];
    suite::migration::of_concurrent_runs_exactly_one_begins(shared(8, &embedded)).await;
}

// === Any sequence of calls ===

fn compare_with_model<L: RolloutLedger, K>(cases: u32, make: impl Fn() -> (L, K)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let run = TestRunner::new(config).run(&suite::rollout::calls(), |calls| {
        let (ledger, _keep) = make();
        runtime.block_on(
            suite::rollout::any_sequence_of_calls_does_what_the_model_does(&ledger, &calls),
        );
        Ok(())
    });
    if let Err(failure) = run {
        panic!("{failure}");
    }
}

#[test]
fn any_sequence_of_calls_in_memory_does_what_the_model_does() {
    compare_with_model(512, memory);
}

#[test]
fn any_sequence_of_calls_on_a_file_does_what_the_model_does() {
    compare_with_model(48, embedded);
}

// === What outlives a process ===

#[tokio::test]
async fn what_was_kept_is_there_when_the_file_is_opened_again() {
    let (ledger, directory) = embedded();
    let appended = ledger.append("app", 0, entry("idle")).await.unwrap();
    let begun = ledger
        .begin(step("db", 1), WhenRunning::Refuse)
        .await
        .unwrap();
    drop(ledger);
    let ledger = open(directory.path());
    assert_eq!(ledger.latest("app").await.unwrap(), Some(appended));
    assert_eq!(ledger.list("db").await.unwrap(), [begun]);
}

#[tokio::test]
async fn an_entry_that_was_kept_before_is_not_told_as_safe_since_now() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(directory.path());
    let same = entry("gate");
    ledger.append("app", 0, same.clone()).await.unwrap();
    // The answer waits for whoever writes, and its time does not.
    let other = rusqlite::Connection::open(directory.path().join("hub.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut again = Box::pin(ledger.append_timed("app", 0, same));
    tokio::select! {
        biased;
        done = &mut again => panic!("somebody else writes: {done:?}"),
        () = std::future::ready(()) => {}
    }
    let asked = std::time::Instant::now();
    other.execute_batch("ROLLBACK").unwrap();
    let (_, safe) = again.await.unwrap();
    assert!(safe <= asked);
}

#[tokio::test]
async fn a_look_from_beside_sees_what_is_there_and_makes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let inside = || std::fs::read_dir(directory.path()).unwrap().count();
    assert!(Embedded::peek(directory.path()).is_none());
    assert_eq!(inside(), 0);
    let ledger = open(directory.path());
    let kept = ledger.append("app", 0, entry("gate")).await.unwrap();
    let files = inside();
    assert_eq!(Embedded::peek(directory.path()).unwrap(), [kept]);
    assert_eq!(inside(), files);
    drop(ledger);
    let files = inside();
    assert!(
        Embedded::peek(directory.path()).is_none(),
        "nobody has it open"
    );
    assert_eq!(inside(), files);
}

const CHILD: &str = "HUB_STORE_TEST_DIRECTORY";

/// Not a test of its own: the process that the next test kills. It appends for ever, and says which
/// versions were answered.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let ledger = open(Path::new(&directory));
    for expected in 0.. {
        let kept = runtime
            .block_on(ledger.append("app", expected, entry("canary")))
            .unwrap();
        let mut out = std::io::stdout().lock();
        // The parent closes its end when it kills us; there is nothing to report to then.
        if writeln!(out, "kept {}", kept.version)
            .and_then(|()| out.flush())
            .is_err()
        {
            return;
        }
    }
}

#[tokio::test]
async fn every_answered_append_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child_that_appends_until_it_is_killed",
            "--nocapture",
        ])
        .env(CHILD, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answered = 0;
    let mut note = |line: std::io::Result<String>| {
        let line = line.unwrap();
        // The test runner's own words may stand before the first of ours on a line.
        if let Some((_, version)) = line.rsplit_once("kept ") {
            answered = version.parse().unwrap();
        }
        answered
    };
    while note(lines.next().expect("the child goes on until it is killed")) < 20_u64 {}
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines {
        note(line);
    }
    let ledger = open(directory.path());
    let kept = ledger.history("app", None, 1_000).await.unwrap();
    let newest = kept[0].version;
    // The last one may have been written without its answer getting out.
    assert!(
        newest == answered || newest == answered + 1,
        "answered {answered}, kept {newest}"
    );
    assert_eq!(kept.len() as u64, newest, "no version is missing");
    ledger.append("app", newest, entry("idle")).await.unwrap();
}

// === Bounds and faults ===

#[tokio::test]
async fn an_append_drops_what_is_older_than_the_history_may_be() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        history_max: 3,
        ..Options::default()
    };
    let ledger = Embedded::open(directory.path(), &options).unwrap();
    for expected in 0..5 {
        ledger
            .append("app", expected, entry("canary"))
            .await
            .unwrap();
    }
    let kept = ledger.history("app", None, 10).await.unwrap();
    let kept: Vec<_> = kept.iter().map(|entry| entry.version).collect();
    assert_eq!(kept, [5, 4, 3]);
}

/// Another process that holds the lock stands for a disk that is slow.
#[tokio::test]
async fn a_call_that_finds_the_queue_full_fails_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        queue_max: 1,
        ..Options::default()
    };
    let ledger = Embedded::open(directory.path(), &options).unwrap();
    let other = rusqlite::Connection::open(directory.path().join("hub.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // One that the thread works on, one that waits, and at least one too many, whenever the thread
    // takes the first.
    let appends = (0..3).map(|_| {
        let ledger = ledger.clone();
        async move { ledger.append("app", 0, entry("idle")).await }
    });
    let mut appends: tokio::task::JoinSet<_> = appends.collect();
    let refused = appends.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)) && refused.retryable());
    assert!(ledger.refused_total() >= 1);
    other.execute_batch("ROLLBACK").unwrap();
    let mut kept = 0;
    while let Some(append) = appends.join_next().await {
        kept += u32::from(append.unwrap().is_ok());
    }
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn a_planted_fault_meets_the_next_append_alone() {
    let ledger = Memory::new();
    ledger.fail_next_append(Fault::BeforeWrite);
    ledger.fail_next_append(Fault::AfterWrite);
    let first = entry("idle");
    for kept in [0, 1] {
        let failed = ledger.append("app", 0, first.clone()).await.unwrap_err();
        assert!(matches!(failed, StoreError::Unavailable(_)));
        assert_eq!(ledger.history("app", None, 10).await.unwrap().len(), kept);
    }
    assert_eq!(ledger.append("app", 0, first).await.unwrap().version, 1);
}
