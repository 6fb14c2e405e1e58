//! Second tries on the old colour of a rollout, over HTTP/2.

use crate::http2::{Http2, request};
use crate::start;
use hub_testkit::{Behaviour, Ca, Origin, Reply};
use std::time::Duration;

#[tokio::test]
async fn what_the_new_colour_fails_goes_to_the_old_one_on_http2_too() {
    let store = tempfile::tempdir().expect("a folder");
    let blue = Origin::builder().colour("blue").start().await;
    let green = Origin::builder()
        .colour("green")
        .on("/two/500", Reply::new(500))
        .on("/two/reset", Behaviour::Reset)
        .start()
        .await;
    let more = format!(
        "[[cluster]]\nname = \"two\"\nendpoints = {{ blue = [\"{}\"], green = [\"{}\"] }}\n\
         [[route]]\nname = \"two\"\npath = {{ prefix = \"/two\" }}\ncluster = \"two\"\n\
         retry_other_colour = true\n[store]\ndirectory = {:?}\n",
        blue.endpoint(),
        green.endpoint(),
        store.path().display().to_string(),
    );
    let ca = Ca::new("public authority");
    let hub = start(&blue, &[&ca.issue(&["a.test"])], "", &more).await;
    let plan = r#"{"stages":[{"percent":99.99,"observe_seconds":600}],"baseline_seconds":0}"#;
    let (status, begun) = hub.admin("POST", "/v1/rollouts/two/start", plan).await;
    assert_eq!(status, 200, "{begun}");
    let labels = [("cluster", "two"), ("phase", "canary")];
    hub.wait_for_metric("hub_rollout_phase", &labels, |value| value == 1.0)
        .await;

    let client = Http2::connect(&hub, &ca).await;
    for (method, path, body, status, colour) in [
        ("GET", "/two", "", 200, "green"),
        ("GET", "/two/500", "", 200, "blue"),
        ("GET", "/two/reset", "", 200, "blue"),
        ("PUT", "/two/500", "some", 500, "-"),
        ("POST", "/two/500", "", 500, "-"),
    ] {
        let asked = client.ask(request(method, path, &[]), body.as_bytes());
        let answer = tokio::time::timeout(Duration::from_secs(10), asked).await;
        let answer = answer.expect("an answer in time");
        let from = answer.headers.get("x-colour");
        let from = from.map_or("-", |value| value.to_str().expect("text"));
        assert_eq!(
            (answer.status.as_u16(), from),
            (status, colour),
            "{method} {path}"
        );
    }
}
