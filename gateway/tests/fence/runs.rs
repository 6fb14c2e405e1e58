//! Runs of hubctl that die, ask twice, or ask at a bad time.

use crate::site::{RANGES, STEPS, Site};
use hub_testkit::Postgres;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

/// Longest wait for what comes by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// A call of the ledger that marks step 3 as begun, by run `run`.
async fn begin(site: &Site, run: u32, when_running: &str) -> (u16, Value) {
    let step = json!({"scope": "app", "number": 3, "name": "drop_phone", "kind": "contract",
        "checksum": "c", "run": format!("01932f5e-7c00-7000-8000-00000000000{run}"), "started_us": 1});
    let begin = json!({"step": step, "when_running": when_running}).to_string();
    let path = "/v1/migrations/app/begin";
    site.hub.admin("POST", path, &begin).await
}

/// A gateway on green, which may contract.
async fn switched() -> Option<Site> {
    let site = Site::start(RANGES, "").await?;
    site.write(&STEPS);
    site.expand().await;
    site.switch().await;
    Some(site)
}

/// From now on green, the active colour, does not know step 3.
async fn bar(site: &Site) {
    let config = site.config(&RANGES.replace("max = 3", "max = 2"), "");
    site.hub.write_config(&config);
    let (status, outcome) = site.hub.reload().await;
    assert_eq!(status, 200, "{outcome}");
}

async fn contracted(site: &Site) -> bool {
    let (_, body) = site.hub.admin("GET", "/v1/rollouts/app/history", "").await;
    let history = body["history"].as_array().cloned().unwrap_or_default();
    history.iter().any(|entry| entry["contracted"] == true)
}

#[tokio::test]
async fn a_contract_step_that_has_begun_begins_again_for_its_own_run_alone() {
    let Some(site) = switched().await else {
        return;
    };
    let (status, begun) = begin(&site, 1, "refuse").await;
    assert_eq!((status, &begun["state"]), (200, &json!("running")));
    bar(&site).await;
    assert_eq!(begin(&site, 1, "refuse").await, (200, begun));
    let (status, other) = begin(&site, 2, "refuse").await;
    assert_eq!((status, &other["error"]["code"]), (409, &json!("held")));
    let (status, other) = begin(&site, 2, "take_over").await;
    assert_eq!((status, &other["error"]["code"]), (409, &json!("refused")));
}

#[tokio::test]
async fn a_contract_step_that_the_database_has_is_written_down_whatever_the_clusters_say() {
    let Some(site) = switched().await else {
        return;
    };
    let (status, begun) = begin(&site, 1, "refuse").await;
    assert_eq!((status, &begun["state"]), (200, &json!("running")));
    bar(&site).await;
    let (status, barred) = begin(&site, 2, "take_over").await;
    assert_eq!((status, &barred["error"]["code"]), (409, &json!("refused")));
    let (status, begun) = begin(&site, 2, "in_force").await;
    assert_eq!((status, &begun["state"]), (200, &json!("running")));
}

#[tokio::test]
async fn a_contract_step_that_some_database_has_and_the_ledger_lacks_is_asked_about() {
    let Some(site) = switched().await else {
        return;
    };
    bar(&site).await;
    for when_running in ["in_force", "take_over"] {
        let (status, barred) = begin(&site, 1, when_running).await;
        assert_eq!((status, &barred["error"]["code"]), (409, &json!("refused")));
    }
    assert!(!contracted(&site).await);
}

#[tokio::test]
async fn a_contract_step_that_the_ledger_does_not_take_is_not_told_to_rollouts() {
    let Some(site) = Site::start(RANGES, "").await else {
        return;
    };
    site.write(&STEPS[..1]);
    site.expand().await;
    // There is a record of a rollout: blue stays, and may contract as far as clusters go.
    let start = ["rollout", "start", "app", "--all-at-once", "--bake", "0"];
    site.hubctl(&start).await.is(1, &["step 0002 is needed"]);
    let wide = RANGES.replace("max = 2", "max = 3");
    site.hub.write_config(&site.config(&wide, ""));
    assert_eq!(site.hub.reload().await.0, 200);
    let (status, early) = begin(&site, 1, "refuse").await;
    assert_eq!((status, &early["error"]["code"]), (409, &json!("conflict")));
    assert!(!contracted(&site).await);
}

#[tokio::test]
async fn no_contract_step_begins_while_the_gateway_is_upgraded() {
    let Some(site) = switched().await else {
        return;
    };
    let silent = site.hub.dir().join("silent");
    std::fs::write(&silent, "#!/bin/sh\nexec sleep 600\n").expect("written");
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&silent, permissions).expect("our own file");
    let order = json!({"binary": silent}).to_string();
    let (status, begun) = site.hub.admin("POST", "/v1/upgrade", &order).await;
    assert_eq!(status, 202, "{begun}");
    site.hub.wait_for_stderr("\"step\":\"starting\"").await;
    let asked = tokio::time::timeout(PATIENCE, begin(&site, 1, "refuse")).await;
    let (status, held) = asked.expect("it does not wait for the upgrade's end");
    assert_eq!(status, 409, "{held}");
    let message = held["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("an upgrade of the gateway is under way"));
    let (_, known) = site.hub.admin("GET", "/v1/migrations/app", "").await;
    assert_eq!(known["step"], 2, "{known}");
    assert_eq!(known["steps"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_run_that_was_killed_holds_its_step_until_the_database_has_done_with_it() {
    let Some(mut site) = Site::start(RANGES, "").await else {
        return;
    };
    let Some(server) = Postgres::start() else {
        return;
    };
    site.use_database(server.connection_string());
    site.write(&[("0001_slow.expand.sql", "SELECT pg_sleep(600);")]);
    let mut command = site.migrate_command("expand", &[]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = command.spawn().expect("hubctl runs");
    let mine = server.session("look").await;
    let at_work = "SELECT pid FROM pg_stat_activity WHERE application_name = 'hub-migrate' \
                   AND state = 'active' AND query LIKE '%pg_sleep(600)%'";
    let waiting = async {
        loop {
            let found = mine.run(at_work).await.expect("a view");
            if let Some(Some(pid)) = found.first() {
                return pid.clone();
            }
        }
    };
    let pid = tokio::time::timeout(PATIENCE, waiting).await;
    let pid = pid.expect("the step runs");
    run.kill().expect("our own process");
    run.wait().expect("it is gone");

    // The server goes on with the statement, so nobody else may.
    let busy = site.migrate("expand", &["--take-over"]).await;
    busy.is(
        1,
        &[
            "another run is at work",
            &format!("session {pid} of Postgres"),
        ],
    );
    mine.run(&format!("SELECT pg_terminate_backend({pid}, 30000)"))
        .await
        .expect("our own session");
    let dead = site.migrate("expand", &[]).await;
    dead.is(1, &["step 0001 of `app` was begun by run", "--take-over"]);
    site.write(&[("0001_slow.expand.sql", "SELECT 1;")]);
    let taken = site.migrate("expand", &["--take-over"]).await;
    taken.is(0, &["0001  applied"]);
}

#[tokio::test]
async fn a_step_whose_run_died_behind_the_commit_needs_no_word_of_anybody() {
    let Some(site) = Site::start(RANGES, "").await else {
        return;
    };
    site.write(&STEPS[..1]);
    // The database has it by another ledger's run; this one heard that it began, and no more.
    let other = site.migrate("expand", &["--scope", "other"]).await;
    other.is(0, &["0001  applied"]);
    let step = json!({"scope": "app", "number": 1, "name": "lead", "kind": "expand",
        "checksum": "c", "run": "01932f5e-7c00-7000-8000-000000000001", "started_us": 1});
    let body = json!({"step": step, "when_running": "refuse"}).to_string();
    let (status, _) = site
        .hub
        .admin("POST", "/v1/migrations/app/begin", &body)
        .await;
    assert_eq!(status, 200);
    let next = site.migrate("expand", &[]).await;
    next.is(0, &["was in the database already, and is written down now"]);
}

#[tokio::test]
async fn a_look_at_a_database_that_is_not_there_says_so_and_makes_none() {
    let Some(mut site) = Site::start(RANGES, "").await else {
        return;
    };
    site.write(&STEPS[..1]);
    let typo = site.hub.dir().join("typo.db");
    site.use_database(typo.display().to_string());
    let missing = format!("there is no database {} so far", typo.display());
    for command in ["plan", "status"] {
        let looked = site.migrate(command, &[]).await;
        looked.is(0, &[&missing, "0001  expand    to come"]);
        assert!(!typo.exists(), "{command}");
    }
}
