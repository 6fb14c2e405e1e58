//! Requests that the new colour of a rollout fails are tried on the old one, where the route says so.

use hub_testkit::{Behaviour, Hub, Origin, Reply, Wire, WireResponse, demo_config};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// A path that works at the gate's time and with every origin unless a test says otherwise.
const WORK: &str = "/work";

struct Site {
    hub: Hub,
    blue: Origin,
    green: Option<Origin>,
    _store: tempfile::TempDir,
}

impl Site {
    /// A canary that nearly everyone is on, whose green does this with requests for [`WORK`].
    async fn start(green: impl Into<Behaviour>, retry: bool) -> Self {
        let plan = json!({
            "stages": [{"percent": 99.99, "observe_seconds": 600}], "baseline_seconds": 0,
        });
        Self::start_in("canary", &plan, green, retry).await
    }

    /// The same with any plan and phase in which green gets requests.
    async fn start_in(phase: &str, plan: &Value, green: impl Into<Behaviour>, retry: bool) -> Self {
        let store = tempfile::tempdir().expect("a folder");
        let blue = Origin::builder().colour("blue").start().await;
        let green = Origin::builder()
            .colour("green")
            .on(WORK, green)
            .start()
            .await;
        let hub = start(store.path(), &blue, &green, retry).await;
        let (status, begun) = hub
            .admin("POST", "/v1/rollouts/app/start", &plan.to_string())
            .await;
        assert_eq!(status, 200, "{begun}");
        let site = Self {
            hub,
            blue,
            green: Some(green),
            _store: store,
        };
        site.wait_for(phase).await;
        assert_eq!(
            site.send("GET", "/", "").await.header("x-colour"),
            Some("green")
        );
        site
    }

    async fn rollout(&self) -> Value {
        let (status, body) = self.hub.admin("GET", "/v1/rollouts", "").await;
        assert_eq!(status, 200, "{body}");
        body["rollouts"][0].clone()
    }

    async fn wait_for(&self, phase: &str) -> Value {
        let waiting = async {
            loop {
                let rollout = self.rollout().await;
                if rollout["phase"] == phase {
                    return rollout;
                }
                assert_eq!(rollout["over"], false, "{rollout}");
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        waited.unwrap_or_else(|_| panic!("it never gets to {phase}"))
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> WireResponse {
        let mut wire = Wire::connect(self.hub.addr("public")).await;
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        wire.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: a.test\r\n{length}\r\n{body}"
        ))
        .await;
        wire.read_response_to(method).await
    }

    /// Asks until the rollout has gone back, and then a little. Every answer must be blue's.
    async fn ask_until_it_is_back(&self) -> Value {
        let asking = async {
            loop {
                for _ in 0..3 {
                    let answer = self.send("GET", WORK, "").await;
                    let colour = answer.header("x-colour");
                    assert_eq!((answer.status, colour), (200, Some("blue")));
                }
                let rollout = self.rollout().await;
                if rollout["over"] == true {
                    return rollout;
                }
            }
        };
        let asked = tokio::time::timeout(Duration::from_secs(60), asking).await;
        let ended = asked.expect("it goes back");
        assert_eq!(ended["phase"], "rolled_back", "{ended}");
        ended
    }

    async fn retries(&self, outcome: &str) -> f64 {
        let labels = [
            ("cluster", "app"),
            ("colour", "green"),
            ("outcome", outcome),
        ];
        self.hub.metric("hub_colour_retries_total", &labels).await
    }
}

async fn start(store: &Path, blue: &Origin, green: &Origin, retry: bool) -> Hub {
    let (blue, green) = (blue.endpoint(), green.endpoint());
    let config = demo_config("127.0.0.1:1").replace(
        "endpoints = { blue = [\"127.0.0.1:1\"] }\n",
        &format!(
            "endpoints = {{ blue = [\"{blue}\"], green = [\"{green}\"] }}\nfirst_byte_timeout_ms = 300\n"
        ),
    );
    let config = config.replace(
        "[[route]]\n",
        &format!("[[route]]\nretry_other_colour = {retry}\n"),
    ) + &format!("\n[store]\ndirectory = {:?}\n", store.display().to_string());
    Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&config)
        .start()
        .await
}

#[tokio::test]
async fn a_green_that_answers_500_fails_no_client_and_is_taken_back() {
    let site = Site::start(Reply::new(500), true).await;
    let ended = site.ask_until_it_is_back().await;
    let why = ended["why"].as_str().expect("a reason");
    assert!(why.contains("5xx"), "{why}");
    assert!(site.retries("sent").await >= 20.0);
    assert_eq!(site.retries("over_budget").await, 0.0);
    let line = site
        .hub
        .wait_for_log_line(|line| line["path"] == WORK && line["first_colour"] == "green")
        .await;
    assert_eq!(
        (&line["colour"], &line["status"], &line["retries"]),
        (&json!("blue"), &json!(200), &json!(1))
    );
    assert_eq!(line["endpoint"], site.blue.endpoint());
}

#[tokio::test]
async fn a_green_that_resets_or_closes_fails_no_client_and_is_taken_back() {
    for behaviour in [Behaviour::Reset, Behaviour::Close] {
        let site = Site::start(behaviour, true).await;
        let ended = site.ask_until_it_is_back().await;
        let why = ended["why"].as_str().expect("a reason");
        assert!(why.contains("5xx"), "{why}");
    }
}

#[tokio::test]
async fn a_green_that_dies_fails_no_client_and_is_taken_back() {
    let mut site = Site::start(Behaviour::Echo, true).await;
    site.green.take().expect("it is there").stop().await;
    let ended = site.ask_until_it_is_back().await;
    let why = ended["why"].as_str().expect("a reason");
    assert!(why.contains("connect"), "{why}");
}

#[tokio::test]
async fn a_green_that_hangs_is_left_after_the_first_byte_timeout() {
    let site = Site::start(Behaviour::Hang, true).await;
    let mut wire = Wire::connect(site.hub.addr("public")).await;
    // The second time on the same connection: the fault of the first try is forgotten.
    for _ in 0..2 {
        wire.send(format!("GET {WORK} HTTP/1.1\r\nHost: a.test\r\n\r\n"))
            .await;
        let answer = wire.read_response().await;
        let colour = answer.header("x-colour");
        assert_eq!((answer.status, colour), (200, Some("blue")));
    }
    let line = site
        .hub
        .wait_for_log_line(|line| line["path"] == WORK)
        .await;
    assert_eq!(line["first_colour"], "green");
}

#[tokio::test]
async fn only_requests_that_may_run_twice_and_have_sent_no_body_are_tried_again() {
    let site = Site::start(Reply::new(503), true).await;
    for (method, body, status) in [
        ("GET", "", 200),
        ("HEAD", "", 200),
        ("OPTIONS", "", 200),
        ("DELETE", "", 200),
        ("PUT", "", 200),
        ("PUT", "some", 503),
        ("POST", "", 503),
        ("POST", "some", 503),
        ("PATCH", "", 503),
    ] {
        let answer = site.send(method, WORK, body).await;
        assert_eq!(answer.status, status, "{method} {body:?}");
    }
    let at_blue = site.blue.requests();
    let at_blue: Vec<_> = at_blue
        .iter()
        .filter(|request| request.target == WORK)
        .map(|request| request.method.as_str())
        .collect();
    assert_eq!(at_blue, ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"]);
}

#[tokio::test]
async fn a_route_that_does_not_say_so_and_a_cluster_without_a_rollout_try_nothing_again() {
    let site = Site::start(Reply::new(500), false).await;
    assert_eq!(site.send("GET", WORK, "").await.status, 500);
    drop(site);

    let site = Site::start(Reply::new(500), true).await;
    site.hub.admin("POST", "/v1/rollouts/app/abort", "").await;
    site.wait_for("rolled_back").await;
    // The old colour's failures are its own.
    site.blue.on(WORK, Reply::new(500));
    assert_eq!(site.send("GET", WORK, "").await.status, 500);
    assert_eq!(site.retries("sent").await, 0.0);
}

#[tokio::test]
async fn once_everyone_has_moved_the_old_colour_still_helps() {
    let plan = json!({"stages": [], "bake_seconds": 600});
    let site = Site::start_in("bake", &plan, Reply::new(500), true).await;
    let ended = site.ask_until_it_is_back().await;
    let why = ended["why"].as_str().expect("a reason");
    assert!(why.contains("5xx"), "{why}");
}

#[tokio::test]
async fn a_request_that_hangs_while_the_rollout_goes_back_is_tried_again() {
    let site = Site::start(Behaviour::Hang, true).await;
    let mut wire = Wire::connect(site.hub.addr("public")).await;
    wire.send(format!("GET {WORK} HTTP/1.1\r\nHost: a.test\r\n\r\n"))
        .await;
    let green = site.green.as_ref().expect("it is there");
    // Four of the gate, and the first look.
    green.wait_for_requests(6).await;
    site.hub.admin("POST", "/v1/rollouts/app/abort", "").await;
    site.wait_for("rolled_back").await;
    let answer = wire.read_response().await;
    let colour = answer.header("x-colour");
    assert_eq!((answer.status, colour), (200, Some("blue")));
    // It has left green, and green is let go.
    site.hub.wait_for_stderr("the colour is released").await;
    green.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn both_colours_failing_is_told_as_it_is() {
    let site = Site::start(Reply::new(500), true).await;
    site.blue.on(WORK, Reply::new(502));
    assert_eq!(site.send("GET", WORK, "").await.status, 502);
    let line = site
        .hub
        .wait_for_log_line(|line| line["path"] == WORK)
        .await;
    assert_eq!(
        (&line["first_colour"], &line["colour"], &line["retries"]),
        (&json!("green"), &json!("blue"), &json!(1))
    );
}
