//! The same on a real Postgres, where sessions tell which colour is connected.

use crate::site::{RANGES, STEPS, Site};
use hub_testkit::Postgres;

#[tokio::test]
async fn a_contract_step_waits_for_the_sessions_of_the_old_colour() {
    let Some(mut site) = Site::start(RANGES, "").await else {
        return;
    };
    let Some(server) = Postgres::start() else {
        return;
    };
    site.use_database(server.connection_string());
    site.write(&STEPS);
    site.expand().await;
    let blue = server.session("app-blue").await;
    site.switch().await;
    let refused = site.migrate("contract", &[]).await;
    refused.is(
        1,
        &["colour `blue` still has 1 sessions on this database, such as app-blue"],
    );
    let _green = server.session("app-green").await;
    blue.run("SELECT phone FROM lead")
        .await
        .expect("nothing is gone");
    drop(blue);
    let gone = async {
        let mine = server.session("look").await;
        let left = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'app-blue'";
        while !mine.run(left).await.expect("a view").is_empty() {}
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone)
        .await
        .expect("the session ends");
    site.contract().await;
}

#[tokio::test]
async fn a_plan_shows_findings_with_what_to_do_instead_and_no_secret_is_told() {
    let Some(mut site) = Site::start(RANGES, "").await else {
        return;
    };
    let Some(server) = Postgres::start() else {
        return;
    };
    let location = format!("{} password=hunter2", server.connection_string());
    site.use_database(location);
    site.write(&STEPS[..1]);
    site.write(&[(
        "0002_email.expand.sql",
        "\nALTER TABLE lead RENAME COLUMN phone TO telephone;",
    )]);
    let plan = site.migrate("plan", &[]).await;
    plan.is(
        1,
        &[
            "0002_email.expand.sql:2: rename: the colour that runs now asks for the old name",
            "instead: expand: add the new one",
            "next: `hubctl migrate expand` runs 0001 to 0002",
        ],
    );
    let refused = site.migrate("expand", &[]).await;
    refused.is(1, &["rename", "nothing was run"]);
    let (_, known) = site.hub.admin("GET", "/v1/migrations/app", "").await;
    for text in [
        plan.text,
        refused.text,
        known.to_string(),
        site.hub.stderr(),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}
