//! Runs that die, runs that meet, and what the next one makes of it.

use crate::app::{App, postgres, sqlite};
use async_trait::async_trait;
use hub_store::migrate::{
    Database, Location, MigrateError, Run, RunOptions, Standing, Timeouts, expand, load,
};
use hub_store::{
    Finish, Kind, Memory, MigrationLedger, NewStep, Step, StepState, StoreError, WhenRunning,
};
use std::sync::Mutex;

/// A ledger to which the end of a run does not get, as where the run's process dies.
struct Deaf<'l>(&'l Memory);

#[async_trait]
impl MigrationLedger for Deaf<'_> {
    async fn begin(&self, step: NewStep, when: WhenRunning) -> Result<Step, StoreError> {
        self.0.begin(step, when).await
    }

    async fn finish(&self, _: &str, _: u32, _: Finish) -> Result<Step, StoreError> {
        Err(StoreError::Unavailable("it is deaf".into()))
    }

    async fn list(&self, scope: &str) -> Result<Vec<hub_store::Step>, StoreError> {
        self.0.list(scope).await
    }

    async fn scopes(&self) -> Result<Vec<String>, StoreError> {
        self.0.scopes().await
    }
}

/// A ledger that lets a second run begin in the middle of the first, and keeps what came of it.
struct Meeting<'l> {
    ledger: &'l Memory,
    second: &'l Location,
    steps: &'l std::path::Path,
    came_of_it: Mutex<Option<Result<Vec<u32>, MigrateError>>>,
}

impl Meeting<'_> {
    /// The second run, which takes over what it finds.
    #[tokio::main(flavor = "current_thread")]
    async fn run(&self) -> Result<Vec<u32>, MigrateError> {
        let timeouts = Timeouts::default();
        let mut database = Database::connect(self.second, &timeouts).await.unwrap();
        let options = RunOptions {
            when_running: WhenRunning::TakeOver,
            ..RunOptions::default()
        };
        let run = Run {
            steps: &load(self.steps).unwrap(),
            scope: "app",
            ledger: self.ledger,
            options: &options,
        };
        let report = expand(&run, &mut database, &mut |_| ()).await?;
        Ok(report.applied)
    }
}

#[async_trait]
impl MigrationLedger for Meeting<'_> {
    async fn begin(&self, step: NewStep, when: WhenRunning) -> Result<Step, StoreError> {
        let begun = self.ledger.begin(step, when).await?;
        // A run is not for another thread to go on with, so it has one of its own.
        let second = std::thread::scope(|scope| scope.spawn(|| self.run()).join().unwrap());
        *self.came_of_it.lock().unwrap() = Some(second);
        Ok(begun)
    }

    async fn finish(&self, scope: &str, number: u32, finish: Finish) -> Result<Step, StoreError> {
        self.ledger.finish(scope, number, finish).await
    }

    async fn list(&self, scope: &str) -> Result<Vec<hub_store::Step>, StoreError> {
        self.ledger.list(scope).await
    }

    async fn scopes(&self) -> Result<Vec<String>, StoreError> {
        self.ledger.scopes().await
    }
}

/// Runs the expand steps by a ledger that does not hear how they end.
async fn run_unheard(app: &mut App) -> MigrateError {
    let steps = app.load();
    let run = Run {
        steps: &steps,
        scope: "app",
        ledger: &Deaf(&app.ledger),
        options: &app.options,
    };
    expand(&run, &mut app.database, &mut |_| ())
        .await
        .unwrap_err()
}

async fn dies_behind_the_commit(app: &mut App) {
    app.write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint);");
    let error = run_unheard(app).await;
    assert!(
        error.to_string().contains("step 0001 is in force"),
        "{error}"
    );
    assert_eq!(app.states().await, [(1, StepState::Running)]);
    assert_eq!(app.standings().await, [Standing::Unrecorded]);
    // Nobody has to say that the run is gone: its lock was to be had.
    let report = app.run(Kind::Expand).await.unwrap();
    assert_eq!((report.applied, report.adopted), (vec![], vec![1]));
    assert_eq!(app.states().await, [(1, StepState::Applied)]);
}

async fn meet(app: &mut App, location: &Location) {
    app.write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint);");
    let steps = app.load();
    let meeting = Meeting {
        ledger: &app.ledger,
        second: location,
        steps: app.steps.path(),
        came_of_it: Mutex::default(),
    };
    let run = Run {
        steps: &steps,
        scope: "app",
        ledger: &meeting,
        options: &app.options,
    };
    let first = expand(&run, &mut app.database, &mut |_| ()).await;
    assert_eq!(first.unwrap().applied, [1]);
    let second = meeting.came_of_it.into_inner().unwrap().unwrap();
    let error = second.expect_err("the first is at work");
    assert!(
        matches!(&error, MigrateError::Busy(who) if who.contains("session") || who.contains("process")),
        "{error:?}"
    );
    // Its lock has gone with it.
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [0; 0]);
    let mut database = Database::connect(location, &Timeouts::default())
        .await
        .unwrap();
    std::mem::swap(&mut app.database, &mut database);
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [0; 0]);
}

#[tokio::test]
async fn a_step_on_sqlite_whose_run_died_behind_the_commit_is_written_down_by_the_next() {
    let (mut app, _keep) = sqlite().await;
    dies_behind_the_commit(&mut app).await;
}

#[tokio::test]
async fn a_step_on_postgres_whose_run_died_behind_the_commit_is_written_down_by_the_next() {
    let Some((mut app, _other, _server)) = postgres().await else {
        return;
    };
    dies_behind_the_commit(&mut app).await;
}

#[tokio::test]
async fn a_run_on_sqlite_is_not_taken_over_while_it_is_at_work() {
    let (mut app, directory) = sqlite().await;
    let location = Location::Embedded(directory.path().join("app.db"));
    meet(&mut app, &location).await;
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["app.db"], "no lock stays behind");
}

#[tokio::test]
async fn a_run_on_postgres_is_not_taken_over_while_it_is_at_work() {
    let Some((mut app, _other, server)) = postgres().await else {
        return;
    };
    let location = Location::parse(&server.connection_string());
    meet(&mut app, &location).await;
}

#[tokio::test]
async fn a_lock_file_of_a_process_that_died_holds_nobody_up() {
    let (mut app, directory) = sqlite().await;
    std::fs::write(directory.path().join("app.db.migrate-lock"), "1").unwrap();
    app.write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint);");
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [1]);
}

#[tokio::test]
async fn a_step_that_failed_says_so_also_where_the_ledger_does_not_hear_of_it() {
    let (mut app, _keep) = sqlite().await;
    app.write("0001_bad.expand.sql", "INSERT INTO nowhere VALUES (1);");
    let text = run_unheard(&mut app).await.to_string();
    for part in ["nowhere", "it is deaf", "--take-over"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    app.write("0001_bad.expand.sql", "CREATE TABLE lead (id bigint);");
    app.options.when_running = WhenRunning::TakeOver;
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [1]);
}

#[tokio::test]
async fn a_contract_step_outside_of_a_transaction_that_failed_may_be_half_done() {
    let Some((mut app, other, _server)) = postgres().await else {
        return;
    };
    app.write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint);");
    app.write(
        "0002_index.contract.sql",
        "DROP INDEX CONCURRENTLY lead_id;",
    );
    app.run(Kind::Expand).await.unwrap();
    let text = app.run(Kind::Contract).await.unwrap_err().to_string();
    for part in ["42704", "look how far it came", "--take-over"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(
        app.states().await,
        [(1, StepState::Applied), (2, StepState::Running)]
    );
    other
        .batch_execute("CREATE INDEX lead_id ON lead (id)")
        .await
        .unwrap();
    app.options.when_running = WhenRunning::TakeOver;
    assert_eq!(app.run(Kind::Contract).await.unwrap().applied, [2]);
}

#[tokio::test]
async fn an_index_that_is_there_already_may_be_what_an_earlier_attempt_made() {
    let Some((mut app, other, _server)) = postgres().await else {
        return;
    };
    other
        .batch_execute("CREATE TABLE lead (id bigint); CREATE INDEX lead_id ON lead (id)")
        .await
        .unwrap();
    let index = "CREATE INDEX CONCURRENTLY lead_id ON lead (id);";
    app.write("0001_index.expand.sql", index);
    let text = app.run(Kind::Expand).await.unwrap_err().to_string();
    assert!(
        text.contains("the index lead_id is there and whole"),
        "{text}"
    );
    other
        .batch_execute("DROP INDEX CONCURRENTLY lead_id")
        .await
        .unwrap();
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [1]);
}

#[tokio::test]
async fn a_look_at_a_file_that_is_missing_does_not_make_it() {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::Embedded(directory.path().join("typo.db"));
    let mut database = Database::look(&location, &Timeouts::default())
        .await
        .unwrap();
    assert_eq!(database.history().await.unwrap(), []);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_lock_file_that_leads_elsewhere_is_not_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    let mut app = App::new(&Location::Embedded(path.clone())).await;
    app.write("0001_one.expand.sql", "CREATE TABLE one (id INTEGER);");
    let lock = path.with_added_extension("migrate-lock");
    let victim = path.with_file_name("victim");
    std::fs::write(&victim, "precious").unwrap();
    let lead: [fn(&std::path::Path, &std::path::Path) -> std::io::Result<()>; 2] = [
        |to, from| std::os::unix::fs::symlink(to, from),
        |to, from| std::fs::hard_link(to, from),
    ];
    for lead in lead {
        lead(&victim, &lock).unwrap();
        let error = app.run(Kind::Expand).await.unwrap_err();
        assert!(!matches!(error, MigrateError::Busy(_)), "{error}");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        std::fs::remove_file(&lock).unwrap();
    }
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [1]);
}
