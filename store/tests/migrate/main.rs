//! Migrations on a SQLite file and on a real Postgres 15.

#![expect(
    clippy::unwrap_used,
    reason = "a test like any other; clippy sees tests only where the attribute stands"
)]

mod app;
mod runs;

use app::{connect, postgres, sqlite};
use hub_store::migrate::{
    Database, HISTORY_TABLE, Location, MigrateError, Progress, Run, Standing, Timeouts, expand,
};
use hub_store::{Embedded, Kind, Memory, MigrationLedger, Options, StepState};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tokio_postgres::Client;

/// Makes a table, and leaves a transaction open that holds a lock on it.
async fn hold(client: &Client, lock: &str) {
    // Two calls, as one would be one transaction.
    client
        .batch_execute("CREATE TABLE lead (id bigint)")
        .await
        .unwrap();
    client
        .batch_execute(&format!("BEGIN; {lock}"))
        .await
        .unwrap();
}

/// What both kinds of database do alike.
async fn expand_then_contract(app: &mut app::App) {
    app.write(
        "0001_leads.expand.sql",
        "CREATE TABLE lead (id bigint PRIMARY KEY, old text);",
    );
    app.write(
        "0002_email.expand.sql",
        "ALTER TABLE lead ADD COLUMN email text; SELECT 1;",
    );
    app.write("0003_old.contract.sql", "ALTER TABLE lead DROP COLUMN old;");
    app.write(
        "0004_phone.expand.sql",
        "ALTER TABLE lead ADD COLUMN phone text;",
    );
    assert_eq!(app.standings().await, [Standing::Pending; 4]);

    let report = app.run(Kind::Contract).await.unwrap();
    assert_eq!(report.next, Some(1), "expand comes first");
    assert_eq!(report.applied, [0_u32; 0]);

    let report = app.run(Kind::Expand).await.unwrap();
    assert_eq!((report.applied, report.next), (vec![1, 2], Some(3)));
    let applied = [
        Standing::Applied,
        Standing::Applied,
        Standing::Pending,
        Standing::Pending,
    ];
    assert_eq!(app.standings().await, applied);
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [0_u32; 0]);

    let report = app.run(Kind::Contract).await.unwrap();
    assert_eq!((report.applied, report.next), (vec![3], Some(4)));
    let report = app.run(Kind::Expand).await.unwrap();
    assert_eq!((report.applied, report.next), (vec![4], None));
    assert_eq!(app.standings().await, [Standing::Applied; 4]);
    let applied: Vec<_> = (1..5).map(|number| (number, StepState::Applied)).collect();
    assert_eq!(app.states().await, applied);
    let begun = app
        .progress
        .iter()
        .filter(|it| matches!(it, Progress::Begun { .. }));
    assert_eq!(begun.count(), 4);
}

async fn a_failed_step(app: &mut app::App) {
    app.write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint);");
    app.write(
        "0002_bad.expand.sql",
        "CREATE TABLE half (id bigint); INSERT INTO nowhere VALUES (1);",
    );
    let error = app.run(Kind::Expand).await.unwrap_err();
    assert!(
        matches!(&error, MigrateError::Step { number: 2, why } if why.contains("nowhere")),
        "{error:?}"
    );
    assert_eq!(
        app.states().await,
        [(1, StepState::Applied), (2, StepState::Failed)]
    );
    assert_eq!(app.standings().await, [Standing::Applied, Standing::Failed]);
    // Rolled back, so that the repaired step starts from where the first did.
    app.write("0002_bad.expand.sql", "CREATE TABLE half (id bigint);");
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [2]);
}

/// The step itself takes the line of the history that its run wants to write.
async fn a_step_that_cannot_be_written_down(app: &mut app::App) {
    app.write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint);");
    app.run(Kind::Expand).await.unwrap();
    let takes = format!(
        "CREATE TABLE half (id bigint); \
         INSERT INTO {HISTORY_TABLE} VALUES (2, 'two', '1970-01-01T00:00:00Z', '1');"
    );
    app.write("0002_two.expand.sql", &takes);
    let error = app.run(Kind::Expand).await.unwrap_err();
    assert!(
        matches!(error, MigrateError::Step { number: 2, .. }),
        "{error:?}"
    );
    app.write("0002_two.expand.sql", "CREATE TABLE half (id bigint);");
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [2]);
}

async fn a_lost_ledger(app: &mut app::App) {
    app.write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint);");
    app.run(Kind::Expand).await.unwrap();
    app.ledger = Memory::new();
    assert_eq!(app.standings().await, [Standing::Unrecorded]);
    let report = app.run(Kind::Expand).await.unwrap();
    assert_eq!((report.applied, report.adopted), (vec![], vec![1]));
    assert_eq!(app.standings().await, [Standing::Applied]);
}

#[tokio::test]
async fn sqlite_expands_up_to_the_contract_step_and_contracts_up_to_the_next() {
    let (mut app, _keep) = sqlite().await;
    expand_then_contract(&mut app).await;
}

#[tokio::test]
async fn postgres_expands_up_to_the_contract_step_and_contracts_up_to_the_next() {
    let Some((mut app, _other, _server)) = postgres().await else {
        return;
    };
    expand_then_contract(&mut app).await;
}

#[tokio::test]
async fn a_failed_step_on_sqlite_leaves_nothing_behind() {
    let (mut app, _keep) = sqlite().await;
    a_failed_step(&mut app).await;
}

#[tokio::test]
async fn a_failed_step_on_postgres_leaves_nothing_behind() {
    let Some((mut app, _other, _server)) = postgres().await else {
        return;
    };
    a_failed_step(&mut app).await;
}

#[tokio::test]
async fn a_step_on_sqlite_and_its_line_in_the_history_are_one_transaction() {
    let (mut app, _keep) = sqlite().await;
    a_step_that_cannot_be_written_down(&mut app).await;
}

#[tokio::test]
async fn a_step_on_postgres_and_its_line_in_the_history_are_one_transaction() {
    let Some((mut app, _other, _server)) = postgres().await else {
        return;
    };
    a_step_that_cannot_be_written_down(&mut app).await;
}

#[tokio::test]
async fn a_ledger_that_forgot_learns_from_sqlite_what_it_has() {
    let (mut app, _keep) = sqlite().await;
    a_lost_ledger(&mut app).await;
}

#[tokio::test]
async fn a_ledger_that_forgot_learns_from_postgres_what_it_has() {
    let Some((mut app, _other, _server)) = postgres().await else {
        return;
    };
    a_lost_ledger(&mut app).await;
}

#[tokio::test]
async fn the_embedded_ledger_keeps_what_a_migration_did() {
    let (mut app, directory) = sqlite().await;
    app.write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint);");
    let ledger = Embedded::open(&directory.path().join("ledger"), &Options::default()).unwrap();
    let steps = app.load();
    let run = Run {
        steps: &steps,
        scope: "app",
        ledger: &ledger,
        options: &app.options,
    };
    expand(&run, &mut app.database, &mut |_| ()).await.unwrap();
    let kept = ledger.list("app").await.unwrap();
    assert_eq!(kept[0].state, StepState::Applied);
    assert_eq!(kept[0].checksum, steps[0].checksum);
}

#[tokio::test]
async fn nothing_runs_while_files_and_database_disagree() {
    let (mut app, directory) = sqlite().await;
    app.write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint);");
    app.write("0002_more.expand.sql", "CREATE TABLE more (id bigint);");
    app.run(Kind::Expand).await.unwrap();
    let says = |error: MigrateError, says: &str| match error {
        MigrateError::Diverged(what) => assert!(what.contains(says), "{what}"),
        other => panic!("expected `{says}`, got {other:?}"),
    };

    app.write("0003_new.expand.sql", "CREATE TABLE new (id bigint);");
    app.write(
        "0001_leads.expand.sql",
        "CREATE TABLE lead (id bigint, name text);",
    );
    let changed = [Standing::Changed, Standing::Applied, Standing::Pending];
    assert_eq!(app.standings().await, changed);
    says(
        app.run(Kind::Expand).await.unwrap_err(),
        "its file is not what was run",
    );

    app.write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint);");
    fs::remove_file(app.steps.path().join("0003_new.expand.sql")).unwrap();
    fs::remove_file(app.steps.path().join("0002_more.expand.sql")).unwrap();
    says(
        app.run(Kind::Expand).await.unwrap_err(),
        "there is no file for it",
    );

    app.write("0002_more.expand.sql", "CREATE TABLE more (id bigint);");
    let raw = rusqlite::Connection::open(directory.path().join("app.db")).unwrap();
    raw.execute(
        &format!("DELETE FROM {HISTORY_TABLE} WHERE version = 2"),
        [],
    )
    .unwrap();
    says(app.run(Kind::Expand).await.unwrap_err(), "does not have it");
}

#[tokio::test]
async fn a_step_of_a_run_that_has_died_is_left_alone_unless_it_is_taken_over() {
    let (mut app, _keep) = sqlite().await;
    app.write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint);");
    let steps = app.load();
    let theirs = hub_store::NewStep {
        scope: "app".to_owned(),
        number: 1,
        name: steps[0].name.clone(),
        kind: Kind::Expand,
        checksum: steps[0].checksum.clone(),
        run: uuid::Uuid::now_v7(),
        started_us: 0,
    };
    let refuse = hub_store::WhenRunning::Refuse;
    app.ledger.begin(theirs, refuse).await.unwrap();
    let error = app.run(Kind::Expand).await.unwrap_err();
    assert!(
        matches!(&error, MigrateError::Abandoned { number: 1, .. })
            && error.to_string().contains("--take-over"),
        "{error:?}"
    );
    assert_eq!(app.standings().await, [Standing::Running]);
    app.options.when_running = hub_store::WhenRunning::TakeOver;
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [1]);
}

#[tokio::test]
async fn a_lock_that_stays_taken_on_sqlite_is_asked_for_again_and_given_up() {
    let (mut app, directory) = sqlite().await;
    app.write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint);");
    let other = rusqlite::Connection::open(directory.path().join("app.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = app.run(Kind::Expand).await.unwrap_err();
    assert!(
        matches!(
            error,
            MigrateError::Locked {
                number: 1,
                attempts: 3,
                ..
            }
        ),
        "{error:?}"
    );
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [1]);
}

#[tokio::test]
async fn a_lock_that_stays_taken_on_postgres_is_asked_for_again_and_given_up() {
    let Some((mut app, other, _server)) = postgres().await else {
        return;
    };
    hold(&other, "LOCK lead IN ACCESS SHARE MODE").await;
    app.write(
        "0001_email.expand.sql",
        "ALTER TABLE lead ADD COLUMN email text;",
    );
    let error = app.run(Kind::Expand).await.unwrap_err();
    let MigrateError::Locked {
        number: 1,
        attempts: 3,
        why,
    } = &error
    else {
        panic!("{error:?}");
    };
    assert!(why.contains("55P03"), "{why}");
    let retries = app
        .progress
        .iter()
        .filter(|it| matches!(it, Progress::Retrying { .. }));
    assert_eq!(retries.count(), 2);
    assert_eq!(app.states().await, [(1, StepState::Failed)]);
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [1]);
}

#[tokio::test]
async fn a_lock_that_is_let_go_between_attempts_is_enough() {
    let Some((mut app, other, _server)) = postgres().await else {
        return;
    };
    hold(&other, "LOCK lead").await;
    app.write(
        "0001_email.expand.sql",
        "ALTER TABLE lead ADD COLUMN email text;",
    );
    let steps = app.load();
    let run = Run {
        steps: &steps,
        scope: "app",
        ledger: &app.ledger,
        options: &app.options,
    };
    let (retry, mut retried) = tokio::sync::mpsc::channel(8);
    let mut note = |progress| {
        if matches!(progress, Progress::Retrying { .. }) {
            retry.try_send(()).unwrap();
        }
    };
    let holder = async {
        let retried = tokio::time::timeout(Duration::from_secs(10), retried.recv());
        assert!(
            retried.await.is_ok(),
            "the first attempt ends without its lock"
        );
        other.batch_execute("ROLLBACK").await.unwrap();
    };
    let (report, ()) = tokio::join!(expand(&run, &mut app.database, &mut note), holder);
    assert_eq!(report.unwrap().applied, [1]);
    let kept = app.ledger.list("app").await.unwrap();
    assert!(
        kept[0].detail.starts_with("attempt 2"),
        "{}",
        kept[0].detail
    );
}

#[tokio::test]
async fn a_statement_that_runs_too_long_is_ended() {
    let Some((mut app, _other, server)) = postgres().await else {
        return;
    };
    let timeouts = Timeouts {
        statement: Duration::from_millis(50),
        ..Timeouts::default()
    };
    let location = Location::parse(&server.connection_string());
    app.database = Database::connect(&location, &timeouts).await.unwrap();
    app.write("0001_slow.expand.sql", "SELECT pg_sleep(60);");
    let error = app.run(Kind::Expand).await.unwrap_err();
    assert!(error.to_string().contains("57014"), "{error}");
}

#[tokio::test]
async fn an_index_is_built_concurrently_while_the_table_is_written() {
    let Some((mut app, other, _server)) = postgres().await else {
        return;
    };
    app.write(
        "0001_leads.expand.sql",
        "CREATE TABLE lead (id bigint, email text);",
    );
    app.write(
        "0002_email.expand.sql",
        "-- Alone.\nCREATE INDEX CONCURRENTLY lead_email ON lead (email);",
    );
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [1, 2]);
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'lead_email'::regclass";
    assert!(other.query_one(valid, &[]).await.unwrap().get::<_, bool>(0));
    // One that was cut off is found, and named.
    other
        .batch_execute("INSERT INTO lead VALUES (1, 'a'), (1, 'b')")
        .await
        .unwrap();
    app.write(
        "0003_id.expand.sql",
        "CREATE UNIQUE INDEX CONCURRENTLY lead_id ON lead (id);",
    );
    let error = app.run(Kind::Expand).await.unwrap_err();
    assert!(
        error.to_string().contains("23505")
            && error
                .to_string()
                .contains("left the invalid index lead_id behind"),
        "{error}"
    );
    assert!(app.detail(3).await.contains("invalid index lead_id"));
    let error = app.run(Kind::Expand).await.unwrap_err();
    assert!(
        error.to_string().contains("the invalid index lead_id"),
        "{error}"
    );
    other
        .batch_execute("DROP INDEX lead_id; DELETE FROM lead WHERE email = 'b'")
        .await
        .unwrap();
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [3]);
}

#[tokio::test]
async fn findings_keep_every_step_from_running() {
    let Some((mut app, other, _server)) = postgres().await else {
        return;
    };
    app.write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint);");
    app.write(
        "0002_index.expand.sql",
        "\nCREATE INDEX lead_id ON lead (id);",
    );
    let error = app.run(Kind::Expand).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("\n0002_index.expand.sql:2: index-not-concurrent: "),
        "{text}"
    );
    assert_eq!(app.states().await, []);
    let lead = other
        .query_one("SELECT to_regclass('lead')::text", &[])
        .await
        .unwrap();
    assert_eq!(lead.get::<_, Option<String>>(0), None);
    app.write(
        "0002_index.expand.sql",
        "-- hub-lint: allow index-not-concurrent: the table is new\nCREATE INDEX lead_id ON lead (id);",
    );
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [1, 2]);
}

#[tokio::test]
async fn a_contract_step_waits_until_no_session_names_the_colour() {
    let Some((mut app, _blue, server)) = postgres().await else {
        return;
    };
    let evergreen = connect(&server, "evergreen").await;
    let green = connect(&server, "hub/Green/1").await;
    app.write(
        "0001_leads.expand.sql",
        "CREATE TABLE lead (id bigint, old text);",
    );
    app.write("0002_old.contract.sql", "ALTER TABLE lead DROP COLUMN old;");
    app.options.retired_colour = Some("green".to_owned());
    assert_eq!(app.run(Kind::Expand).await.unwrap().applied, [1]);
    let error = app.run(Kind::Contract).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("such as hub/Green/1; drain it first"),
        "{error}"
    );
    let MigrateError::ColourInUse { sessions, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].user.as_deref(), Some("hub"));
    assert_eq!(app.states().await, [(1, StepState::Applied)]);

    let pid = sessions[0].pid;
    drop(green);
    // The server notices that a client is gone when it does; until then the guard must hold.
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
    while evergreen
        .query_one(gone, &[&pid])
        .await
        .unwrap()
        .get::<_, i64>(0)
        > 0
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.run(Kind::Contract).await.unwrap().applied, [2]);
}

#[tokio::test]
async fn migrations_show_their_name_and_not_their_password() {
    let Some((_app, other, server)) = postgres().await else {
        return;
    };
    let named = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hub-migrate'";
    assert_eq!(
        other.query_one(named, &[]).await.unwrap().get::<_, i64>(0),
        1
    );
    let location = Location::parse(&format!("{} password=hunter2", server.connection_string()));
    assert!(!format!("{location:?}").contains("hunter2"));
    let nobody = Location::Postgres("host=/no/such/directory user=a".to_owned());
    let error = Database::connect(&nobody, &Timeouts::default())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "cannot connect to Postgres");
}

#[test]
fn a_location_is_what_an_operator_types() {
    for text in [
        "postgres://a@b/c",
        "postgresql:///c",
        "host=/tmp user=a",
        "dbname=a",
        "user=a password=b host=/tmp",
        "port = 5433 user=a",
        "POSTGRES://a:b@c/d",
    ] {
        assert_eq!(Location::parse(text), Location::Postgres(text.to_owned()));
    }
    for text in ["sqlite:/var/lib/app.db", "/var/lib/app.db"] {
        let path = Path::new("/var/lib/app.db").to_owned();
        assert_eq!(Location::parse(text), Location::Embedded(path));
    }
}

#[tokio::test]
async fn a_step_whose_connection_breaks_stays_with_its_run_since_nobody_knows_what_became_of_it() {
    let Some((mut app, _other, _server)) = postgres().await else {
        return;
    };
    app.write(
        "0001_break.expand.sql",
        "SELECT pg_terminate_backend(pg_backend_pid());",
    );
    let error = app.run(Kind::Expand).await.unwrap_err();
    assert!(
        matches!(&error, MigrateError::Unsettled { .. })
            && error.to_string().contains("step 0001 failed")
            && error
                .to_string()
                .contains("whether it is in force cannot be seen"),
        "{error}"
    );
    assert_eq!(app.states().await, [(1, StepState::Running)]);
}
