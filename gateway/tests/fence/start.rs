//! What the first snapshot of a process may send clients to, at a start and in an upgrade.

use crate::site::{RANGES, STEPS, Site};
use hub_testkit::Hub;
use serde_json::Value;
use std::time::{Duration, Instant};

const BEHIND: &str = "[[tenant]]\nid = \"loc_1\"\ncolours = { app = \"blue\" }\n";

/// An upgrade that takes longer has gone wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway on the site's store, to be started.
fn another(config: &str) -> hub_testkit::HubBuilder<'static> {
    Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref()).config(config)
}

/// Upgrades; how that ended.
async fn upgraded(site: &Site) -> Value {
    let (status, begun) = site.hub.admin("POST", "/v1/upgrade", "").await;
    assert_eq!(status, 202, "{begun}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, shown) = site.hub.admin("GET", "/v1/upgrade", "").await;
        let last = &shown["last"];
        assert_eq!(last["id"], begun["id"], "{shown}");
        if last["state"] != "under_way" {
            return last.clone();
        }
        assert!(Instant::now() < deadline, "no end: {shown}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn no_process_begins_with_a_colour_whose_schema_a_contract_step_has_taken_away() {
    let Some(site) = Site::start(RANGES, "").await else {
        return;
    };
    site.write(&STEPS);
    site.expand().await;
    site.switch().await;
    site.contract().await;
    let config = site.config(RANGES, BEHIND);
    let (code, said) = another(&config).expect_failure().await;
    assert_eq!(code, 64, "{said}");
    site.hub.write_config(&config);
    let last = upgraded(&site).await;
    let why = last["why"].as_str().unwrap_or_default();
    assert!(why.contains("gave up"), "{last}");
    for told in [said.as_str(), why] {
        for part in [
            "cluster \"app\": blue is to get requests",
            "contract step 0003 of `app` was run",
        ] {
            assert!(told.contains(part), "{part:?} in {told}");
        }
    }
    // The configured colour is blue, too, and nobody is on it since the rollout.
    site.hub.write_config(&site.config(RANGES, ""));
    assert_eq!(upgraded(&site).await["state"], "committed");
}

#[tokio::test]
async fn an_upgrade_brings_no_colour_into_use_that_is_not_ready_and_leaves_alone_what_is() {
    let Some(mut site) = Site::start(RANGES, "").await else {
        return;
    };
    // Blue lacks step 0001, and clients are on it already.
    assert_eq!(upgraded(&site).await["state"], "committed");
    site.hub.wait_for_successor().await;
    let green = site.config(&format!("active = \"green\"\n{RANGES}"), "");
    site.hub.write_config(&green);
    let last = upgraded(&site).await;
    let why = last["why"].as_str().unwrap_or_default();
    assert!(
        why.contains("green is to get requests") && why.contains("step 0002 is needed"),
        "{last}"
    );
    // Without anybody who serves, there is no way to run that step but to serve.
    let hub = another(&green).start().await;
    let log = hub.stderr();
    assert!(log.contains("step 0002 is needed"), "{log}");
}

#[tokio::test]
async fn a_colour_that_a_tenant_is_kept_on_already_stands_in_the_way_of_nothing() {
    let kept = "[[tenant]]\nid = \"loc_1\"\ncolours = { app = \"green\" }\n";
    // Green lacks step 0002, which a start has to live with.
    let Some(mut site) = Site::start(RANGES, kept).await else {
        return;
    };
    let more = format!("{kept}\n[[tenant]]\nid = \"loc_2\"\n");
    site.hub.write_config(&site.config(RANGES, &more));
    let (status, outcome) = site.hub.reload().await;
    assert_eq!(status, 200, "{outcome}");
    assert_eq!(upgraded(&site).await["state"], "committed");
    site.hub.wait_for_successor().await;
}
