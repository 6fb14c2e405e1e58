//! What operators are told where what they ask for is not there, or does nothing.

use crate::site::{RANGES, STEPS, Site};
use std::process::Command;

#[tokio::test]
async fn a_cluster_that_is_not_there_is_told_with_those_that_are() {
    let Some(site) = Site::start(RANGES, "").await else {
        return;
    };
    for word in ["status", "history", "abort", "start"] {
        let said = site.hubctl(&["rollout", word, "typo"]).await;
        said.is(2, &["there is no cluster \"typo\"; there are \"app\""]);
    }
    let followed = ["rollout", "status", "typo", "--follow"];
    let followed = site.hubctl(&followed).await;
    followed.is(2, &["there is no cluster \"typo\""]);
    let none = site.hubctl(&["rollout", "status", "app"]).await;
    none.is(0, &["no rollout so far"]);
}

#[tokio::test]
async fn to_follow_takes_a_cluster() {
    let Some(site) = Site::start(RANGES, "").await else {
        return;
    };
    let said = site.hubctl(&["rollout", "status", "--follow"]).await;
    said.is(2, &["<CLUSTER>"]);
}

#[tokio::test]
async fn a_changed_active_colour_that_moves_nobody_says_so() {
    let Some(site) = Site::start("", "").await else {
        return;
    };
    let dry = || site.hub.admin("POST", "/v1/reload?dry_run=true", "");
    site.hub
        .write_config(&site.config("active = \"green\"\n", ""));
    let (_, free) = dry().await;
    let told = free["diff"].to_string();
    assert!(
        told.contains("active") && !told.contains("moves nobody"),
        "{told}"
    );

    site.hub.write_config(&site.config("", ""));
    assert_eq!(site.hub.reload().await.0, 200);
    site.write(&STEPS[..1]);
    site.switch().await;
    site.hub
        .write_config(&site.config("active = \"green\"\n", ""));
    let why = "moves nobody: a rollout has decided that green is active";
    let (_, decided) = dry().await;
    let told = decided["diff"]["changes"].to_string();
    assert!(
        told.contains(why) && told.contains("rollout start app"),
        "{told}"
    );
    let applied = site.hubctl(&["reload"]).await;
    applied.is(0, &[why]);
    site.hub.wait_for_stderr(why).await;
}

#[tokio::test]
async fn a_check_beside_the_gateway_says_which_active_colour_moves_nobody() {
    let Some(site) = Site::start("", "").await else {
        return;
    };
    let check = || {
        let mut check = Command::new(env!("CARGO_BIN_EXE_hub-gateway"));
        let output = check.arg("check").arg(site.hub.config_path()).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    assert_eq!(check(), "");
    site.switch().await;
    let told = check();
    assert!(
        told.contains("cluster \"app\": active = \"blue\" moves nobody"),
        "{told}"
    );
    site.hub
        .write_config(&site.config("active = \"green\"\n", ""));
    assert_eq!(check(), "");
}
