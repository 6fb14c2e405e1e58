//! Which colour may be switched to, and when what the old one needs may go; on SQLite.

use crate::site::{RANGES, STEPS, Site};
use hub_testkit::{Gate, Reply, Wire};
use serde_json::{Value, json};

#[tokio::test]
async fn a_switch_is_refused_while_a_database_is_behind_and_the_command_that_helps_is_named() {
    let Some(site) = Site::start(RANGES, "").await else {
        return;
    };
    let start = ["rollout", "start", "app", "--all-at-once", "--bake", "0"];
    let unknown = site.hubctl(&start).await;
    unknown.is(
        1,
        &[
            "rolled back",
            "`app` is at step 0000, and step 0002 is needed",
        ],
    );
    site.write(&STEPS[..1]);
    site.expand().await;
    let behind = site.hubctl(&start).await;
    behind.is(
        1,
        &[
            "green runs on schemas 0002 to 0003, and cannot run on this one",
            "`app` is at step 0001, and step 0002 is needed; run `hubctl migrate expand --scope app` first",
        ],
    );
    let status = site.hubctl(&["migrate", "status"]).await;
    status.is(
        0,
        &[
            "app: step 0001",
            "app blue (active): 0001 to 0002: fits",
            "app green: 0002 to 0003: does not fit",
        ],
    );
    site.write(&STEPS[1..2]);
    site.expand().await;
    site.switch().await;
}

#[tokio::test]
async fn behind_a_contract_step_no_rollout_goes_back_and_the_reason_says_to_stay() {
    let Some(site) = Site::start(RANGES, "").await else {
        return;
    };
    site.write(&STEPS);
    let expanded = site.migrate("expand", &[]).await;
    expanded.is(
        0,
        &["0002  applied", "next is step 0003, of the other kind"],
    );
    site.switch().await;
    site.contract().await;
    let back = site
        .hubctl(&["rollout", "start", "app", "--all-at-once", "--bake", "0"])
        .await;
    back.is(
        1,
        &[
            "contract step 0003 of `app` was run, and no step behind 0002 is known to it",
            "stay (frozen, if it has to be) and repair forward",
        ],
    );
    let (_, history) = site.hub.admin("GET", "/v1/rollouts/app/history", "").await;
    let contracted = history["history"].as_array().is_some_and(|history| {
        history
            .iter()
            .any(|entry| entry["state"] == "committed" && entry["contracted"] == true)
    });
    assert!(contracted, "{history}");
}

#[tokio::test]
async fn behind_a_step_by_hand_a_rollout_freezes_instead_of_going_back() {
    let Some(site) = Site::start(RANGES, "").await else {
        return;
    };
    site.write(&STEPS[..2]);
    site.expand().await;
    let stage = json!({"percent": 1, "tenants": [], "observe_seconds": 600});
    site.rollout("start", &json!({"stages": [stage], "baseline_seconds": 0}))
        .await;
    site.wait_for("canary").await;
    let told = site.hubctl(&["rollout", "contracted", "app"]).await;
    told.is(0, &["no way back"]);
    let frozen = site.hubctl(&["rollout", "abort", "app"]).await;
    frozen.is(0, &["frozen", "the old colour cannot take over"]);
    let back = site.hubctl(&["rollout", "abort", "app"]).await;
    back.is(2, &["Repair the new colour and accept it"]);
    let (status, accepted) = site.rollout("accept", &Value::Null).await;
    // One tenant in a hundred was on it, and it is the only colour that can go on.
    assert_eq!(
        (status, &accepted["phase"], &accepted["active"]),
        (200, &json!("committed"), &json!("green"))
    );
}

#[tokio::test]
async fn a_contract_step_waits_for_the_rollout_and_for_the_last_request_on_the_old_colour() {
    let Some(site) = Site::start(RANGES, "").await else {
        return;
    };
    site.write(&STEPS);
    site.expand().await;
    let gate = Gate::closed();
    site.blue.on("/slow", Reply::ok("late").read_after(&gate));
    let mut slow = Wire::connect(site.hub.addr("public")).await;
    slow.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await;
    site.blue.wait_for_requests(1).await;

    let plan = json!({"stages": [{"percent": 1, "observe_seconds": 600}], "bake_seconds": 600, "baseline_seconds": 0,
                      "drain_timeout_seconds": 0.2});
    site.rollout("start", &plan).await;
    site.wait_for("canary").await;
    let canary = site.migrate("contract", &[]).await;
    canary.is(
        1,
        &[
            "contract step 0003 of `app` may not run, because of cluster `app`",
            "canary",
        ],
    );
    site.rollout("promote", &Value::Null).await;
    site.wait_for("bake").await;
    let bake = site.migrate("contract", &[]).await;
    bake.is(1, &["(bake)", "`hubctl rollout promote` ends it now"]);
    let (_, done) = site.rollout("promote", &Value::Null).await;
    assert_eq!(done["phase"], "committed");
    let busy = site.migrate("contract", &[]).await;
    busy.is(
        1,
        &["1 requests are still on blue, the colour that is not active"],
    );

    gate.open();
    assert_eq!(slow.read_response().await.status, 200);
    site.contract().await;
    let status = site.migrate("status", &[]).await;
    status.is(
        0,
        &[
            "0003  contract  applied",
            "app blue: 0001 to 0002: does not fit",
        ],
    );
}

#[tokio::test]
async fn a_contract_step_needs_a_cluster_that_knows_it_and_no_tenant_that_is_kept_behind() {
    let ranges = format!("active = \"green\"\n{RANGES}");
    let kept = "[[tenant]]\nid = \"loc_1\"\ncolours = { app = \"blue\" }\n";
    let Some(site) = Site::start(&ranges, kept).await else {
        return;
    };
    site.write(&STEPS);
    let nobody = site.migrate("expand", &["--scope", "other"]).await;
    nobody.is(0, &["next is step 0003"]);
    let nobody = site.migrate("contract", &["--scope", "other"]).await;
    nobody.is(
        1,
        &["no cluster names the database `other`", "schema.scopes"],
    );
    // The database has the steps; the other scope's ledger hears of it now.
    let adopted = site.migrate("expand", &[]).await;
    adopted.is(0, &["was in the database already"]);
    let refused = site.migrate("contract", &[]).await;
    refused.is(1, &["tenant loc_1 is kept on blue"]);

    let config = site.config(&ranges.replace("max = 3", "max = 2"), "");
    site.hub.write_config(&config);
    assert_eq!(site.hub.reload().await.0, 200);
    let unfit = site.migrate("contract", &[]).await;
    unfit.is(
        1,
        &["green, the active colour, knows no step behind 0002, and this is 0003"],
    );
    site.hub.write_config(&site.config(&ranges, ""));
    assert_eq!(site.hub.reload().await.0, 200);
    site.contract().await;
}

#[tokio::test]
async fn a_reload_brings_no_colour_into_use_that_cannot_run_on_the_schema() {
    let Some(site) = Site::start(RANGES, "").await else {
        return;
    };
    site.write(&STEPS);
    let kept = "[[tenant]]\nid = \"loc_1\"\ncolours = { app = \"green\" }\n";
    let green = format!("active = \"green\"\n{RANGES}");
    for config in [site.config(RANGES, kept), site.config(&green, "")] {
        site.hub.write_config(&config);
        let (status, outcome) = site.hub.reload().await;
        assert_eq!(status, 422, "{outcome}");
        let problem = outcome["problems"][0].as_str().unwrap_or_default();
        assert!(
            problem.contains("green is to get requests") && problem.contains("step 0002 is needed"),
            "{problem}"
        );
    }
    site.expand().await;
    site.hub.write_config(&site.config(RANGES, kept));
    assert_eq!(site.hub.reload().await.0, 200);
    site.switch().await;
    site.contract().await;
    // The tenant on green is no matter now; one on blue would be.
    let behind = kept.replace("\"green\"", "\"blue\"");
    site.hub.write_config(&site.config(RANGES, &behind));
    let (status, outcome) = site.hub.reload().await;
    assert_eq!(status, 422, "{outcome}");
}

#[tokio::test]
async fn a_step_in_other_hands_is_left_alone_unless_it_is_taken_over() {
    let Some(site) = Site::start(RANGES, "").await else {
        return;
    };
    site.write(&STEPS[..1]);
    let plan: Value = {
        let said = site.migrate("plan", &["--json"]).await;
        assert_eq!(said.code, Some(0), "{}", said.text);
        // What is on the other output comes behind it.
        let mut texts = serde_json::Deserializer::from_str(&said.text).into_iter();
        texts.next().expect("a text").expect("JSON")
    };
    assert_eq!(plan["steps"][0]["standing"], "to come");
    let step = json!({"scope": "app", "number": 1, "name": "lead", "kind": "expand",
                      "checksum": "c", "run": "01932f5e-7c00-7000-8000-000000000001", "started_us": 1});
    let begin = json!({"step": step, "when_running": "refuse"});
    let (status, begun) = site
        .hub
        .admin("POST", "/v1/migrations/app/begin", &begin.to_string())
        .await;
    assert_eq!((status, &begun["state"]), (200, &json!("running")));
    let held = site.migrate("expand", &[]).await;
    held.is(
        1,
        &[
            "was begun by run 01932f5e",
            "run this again with --take-over",
        ],
    );
    site.migrate("expand", &["--take-over"])
        .await
        .is(0, &["0001  applied"]);
    // The run that it was taken from comes late.
    let end = json!({"number": 1, "finish": {"run": "01932f5e-7c00-7000-8000-000000000001",
                     "outcome": "failed", "finished_us": 2, "detail": ""}});
    let (status, late) = site
        .hub
        .admin("POST", "/v1/migrations/app/finish", &end.to_string())
        .await;
    assert_eq!((status, &late["error"]["code"]), (422, &json!("invalid")));
}

#[tokio::test]
async fn without_the_gateway_a_plan_says_what_the_database_says_and_nothing_runs() {
    let Some(site) = Site::start(RANGES, "").await else {
        return;
    };
    site.write(&STEPS[..2]);
    site.expand().await;
    site.write(&STEPS[2..]);
    let away = ["--admin", "127.0.0.1:1"];
    let plan = site.migrate("plan", &away).await;
    plan.is(
        0,
        &[
            "0002  expand    applied",
            "0003  contract  to come",
            "what the database itself says",
        ],
    );
    site.migrate("contract", &away)
        .await
        .is(2, &["is the gateway running"]);
    site.migrate("expand", &away).await.is(
        2,
        &[
            "nothing was run, for the gateway has to agree",
            "is the gateway running",
        ],
    );
}
