//! Colours that say themselves which schema they can run on.

use crate::site::{STEPS, Site};
use hub_testkit::Reply;
use serde_json::{Value, json};

const FROM_HEALTH: &str = "schema = { scopes = [\"app\"], from_health = true }\n\
    health = { kind = \"http\", path = \"/healthz\", interval_ms = 60000, timeout_ms = 5000 }\n";

fn says(min: u32, max: u32) -> Reply {
    let text = json!({"status": "ok", "schema": {"min": min, "max": max}});
    Reply::ok(text.to_string())
}

#[tokio::test]
async fn a_colour_is_believed_about_its_schema_when_it_passes_the_gate() {
    let Some(site) = Site::start(FROM_HEALTH, "").await else {
        return;
    };
    site.write(&STEPS);
    site.expand().await;
    site.blue.on("/healthz", says(1, 2));
    site.green.on("/healthz", Reply::ok("ok"));
    let start = json!({"stages": [], "bake_seconds": 0});
    let mut why = Vec::new();
    for reply in [
        None,
        Some(says(3, 3)),
        Some(Reply::new(200).repeated(b' ', 1 << 20)),
    ] {
        if let Some(reply) = reply {
            site.green.on("/healthz", reply);
        }
        site.rollout("start", &start).await;
        let ended = site.wait_for("rolled_back").await;
        why.push(ended["why"].as_str().unwrap_or_default().to_owned());
    }
    assert!(
        why[0].contains("its health check has to answer {\"schema\""),
        "{}",
        why[0]
    );
    assert!(why[1].contains("step 0003 is needed"), "{}", why[1]);
    assert!(why[2].contains("more than 65536 bytes"), "{}", why[2]);

    site.green.on("/healthz", says(2, 2));
    site.switch().await;
    let contract = site.migrate("contract", &[]).await;
    contract.is(1, &["green, the active colour, knows no step behind 0002"]);
    site.green.on("/healthz", says(2, 3));
    site.contract().await;
    let (_, known) = site.hub.admin("GET", "/v1/migrations/app", "").await;
    let fits: Vec<&Value> = known["colours"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|colour| &colour["fits"])
        .collect();
    assert_eq!(fits, [&json!(false), &json!(true)], "{known}");
}
