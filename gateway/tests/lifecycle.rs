//! How the process starts, drains and ends: signals, exit codes, ports.

use hub_testkit::{
    Behaviour, End, Gate, Hub, Origin, Reply, Signal, Wire, WireResponse, demo_config,
};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
/// Far less than any of the timeouts that a test sets to show that they were not waited for.
const SOON: Duration = Duration::from_secs(5);

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hub-gateway"))
}

async fn start(config: &str) -> Hub {
    Hub::builder(binary()).config(config).start().await
}

/// A configuration with this notice and this longest drain, in milliseconds.
fn draining(origin: &Origin, notice: u32, longest: u32) -> String {
    demo_config(origin.endpoint()).replace(
        "drain_notice_ms = 0",
        &format!("drain_notice_ms = {notice}\ndrain_timeout_ms = {longest}"),
    )
}

async fn client(hub: &Hub) -> Wire {
    Wire::connect(hub.addr("public")).await
}

async fn ask(wire: &mut Wire, request: &str) -> WireResponse {
    wire.send(request).await;
    wire.read_response().await
}

/// A request that hangs at the origin.
async fn in_flight(hub: &Hub, origin: &Origin) -> Wire {
    let mut wire = client(hub).await;
    let heads = origin.request_count();
    wire.send(GET).await;
    origin.wait_for_requests(heads + 1).await;
    wire
}

async fn readiness(hub: &Hub) -> (u16, String) {
    let answer = hub.admin_request("GET", "/readyz", "", None).await;
    (answer.status, answer.text())
}

// SIGTERM.

#[tokio::test]
async fn readiness_is_off_while_connections_are_still_taken() {
    let origin = Origin::start().await;
    let mut hub = start(&draining(&origin, 600_000, 600_000)).await;
    assert_eq!(readiness(&hub).await, (200, "ready\n".into()));
    let mut old = client(&hub).await;
    assert_ne!(ask(&mut old, GET).await.header("connection"), Some("close"));
    hub.signal(Signal::TERM);
    hub.wait_for_stderr("readiness is off").await;
    assert_eq!(readiness(&hub).await, (503, "draining\n".into()));
    // Old and new connections are served, and asked to leave.
    for mut wire in [old, client(&hub).await] {
        let answer = ask(&mut wire, GET).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(wire.wait_closed().await, End::Closed);
    }
    // It lives, though it is not ready: it must not be restarted.
    assert_eq!(
        hub.admin_request("GET", "/healthz", "", None).await.status,
        200
    );
    assert!(hub.is_running());
    let began = Instant::now();
    hub.signal(Signal::TERM);
    assert_eq!(hub.wait_exit().await.code(), Some(0));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert!(hub.stderr().contains("a second signal"), "{}", hub.stderr());
}

#[tokio::test]
async fn after_the_notice_connections_are_refused_and_the_last_request_ends_the_process() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .respond(Reply::ok("whole").after(&gate))
        .start()
        .await;
    let mut hub = start(&draining(&origin, 50, 600_000)).await;
    let mut wire = in_flight(&hub, &origin).await;
    hub.signal(Signal::TERM);
    hub.wait_for_stderr("no new connections").await;
    let address = hub.addr("public");
    // The listening socket is closed by its own task, a moment after the line was written.
    let deadline = Instant::now() + SOON;
    while let Ok(mut late) = Wire::try_connect(address).await {
        assert!(Instant::now() < deadline, "a connection is still taken");
        // Whoever got in at the last moment is not served.
        late.try_send(GET).await.ok();
        let rest = late.read_to_close().await;
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "served while it drains");
    }
    assert!(hub.is_running(), "a request is in flight");
    let began = Instant::now();
    gate.open();
    let answer = wire.read_response().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "whole"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(hub.wait_exit().await.code(), Some(0));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    // The last line was written before the end.
    assert_eq!(hub.access_log()[0]["status"], 200);
    assert_eq!(origin.request_count(), 1);
}

#[tokio::test]
async fn a_body_that_is_still_coming_is_finished() {
    let (feed, reply) = Reply::fed(200);
    let origin = Origin::builder().respond(reply).start().await;
    let mut hub = start(&draining(&origin, 0, 600_000)).await;
    let mut wire = client(&hub).await;
    wire.send(GET).await;
    assert_eq!(wire.read_head().await.status, 200);
    hub.signal(Signal::TERM);
    hub.wait_for_stderr("no new connections").await;
    for piece in ["first", "second"] {
        assert!(feed.send(piece).await);
        assert_eq!(wire.read_chunk().await.as_deref(), Some(piece.as_bytes()));
    }
    assert!(hub.is_running());
    feed.end();
    assert_eq!(wire.read_chunk().await, None);
    assert_eq!(hub.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_process_without_requests_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let origin = Origin::start().await;
        let mut hub = start(&draining(&origin, 0, 600_000)).await;
        let began = Instant::now();
        hub.signal(signal);
        assert_eq!(hub.wait_exit().await.code(), Some(0), "{signal:?}");
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn idle_connections_are_closed_when_the_drain_begins() {
    let origin = Origin::builder().on("/hang", Behaviour::Hang).start().await;
    let mut hub = start(&draining(&origin, 0, 600_000)).await;
    let mut used = client(&hub).await;
    assert_eq!(ask(&mut used, GET).await.status, 200);
    let mut fresh = client(&hub).await;
    let mut busy = client(&hub).await;
    busy.send("GET /hang HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await;
    origin.wait_for_requests(2).await;
    // All three are the gateway's by now: the listener counts them.
    hub.wait_for_metric("hub_connections_opened_total", &[], |n| n == 3.0)
        .await;
    hub.signal(Signal::TERM);
    assert_eq!(used.wait_closed().await, End::Closed);
    assert_eq!(fresh.wait_closed().await, End::Closed);
    assert!(hub.is_running() && !busy.is_closed().await);
    hub.signal(Signal::INT);
    assert_eq!(hub.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn the_drain_ends_when_its_time_is_over() {
    let origin = Origin::builder().respond(Behaviour::Hang).start().await;
    let mut hub = start(&draining(&origin, 0, 200)).await;
    let mut wire = in_flight(&hub, &origin).await;
    let began = Instant::now();
    hub.signal(Signal::TERM);
    assert_eq!(hub.wait_exit().await.code(), Some(0));
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(200) && took < SOON,
        "{took:?}"
    );
    assert!(
        hub.stderr().contains("these requests are cut"),
        "{}",
        hub.stderr()
    );
    let rest = wire.read_to_close().await;
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_second_signal_of_either_kind_ends_now() {
    for (first, second) in [
        (Signal::TERM, Signal::TERM),
        (Signal::INT, Signal::TERM),
        (Signal::TERM, Signal::INT),
    ] {
        let origin = Origin::builder().respond(Behaviour::Hang).start().await;
        let mut hub = start(&draining(&origin, 0, 600_000)).await;
        let mut wire = in_flight(&hub, &origin).await;
        hub.signal(first);
        hub.wait_for_stderr("no new connections").await;
        assert!(hub.is_running());
        let began = Instant::now();
        hub.signal(second);
        assert_eq!(
            hub.wait_exit().await.code(),
            Some(0),
            "{first:?} {second:?}"
        );
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        wire.read_to_close().await;
    }
}

// Starts that fail.

#[tokio::test]
async fn a_busy_port_ends_the_start_at_once_with_71() {
    let origin = Origin::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let config = demo_config(origin.endpoint());
    let public = config.replace(
        "name = \"public\"\naddress = \"127.0.0.1:0\"",
        &format!("name = \"public\"\naddress = \"{address}\""),
    );
    let admin = config.replacen("127.0.0.1:0", &address, 1);
    for (config, what) in [(public, "listener `public`"), (admin, "the admin API")] {
        let began = Instant::now();
        let (code, stderr) = Hub::expect_failure(binary(), &config).await;
        assert_eq!(code, 71, "{stderr}");
        for part in [what, &address, "in use"] {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_bad_configuration_ends_the_start_with_64_before_any_port_is_bound() {
    let origin = Origin::start().await;
    // Were a port bound first, this would end with 71.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let config = demo_config(origin.endpoint())
        .replace(
            "name = \"public\"\naddress = \"127.0.0.1:0\"",
            &format!("name = \"public\"\naddress = \"{address}\""),
        )
        .replace("workers = 1", "workers = 1000")
        .replace("prefix = \"/\"", "prefix = \"/a//b\"")
        .replace(
            "cluster = \"app\"",
            "cluster = \"ap\"\nmethodes = [\"GET\"]",
        );
    let (code, stderr) = Hub::expect_failure(binary(), &config).await;
    assert_eq!(code, 64, "{stderr}");
    for part in [
        "workers",
        "/a//b",
        "did you mean \"app\"",
        "methodes",
        "4 problems",
    ] {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
    assert!(!stderr.contains("serving"), "{stderr}");
}

#[tokio::test]
async fn a_missing_configuration_ends_the_start_with_64() {
    let output = run(&["run", "/nonexistent/hub.toml"]);
    assert_eq!(output.status.code(), Some(64));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("/nonexistent/hub.toml"), "{stderr}");
}

// The check.

fn run(arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .output()
        .expect("the gateway can be run")
}

/// The examples in a folder of their own, with the secrets that they name.
fn examples() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples");
    copy(&from, folder.path());
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("write");
    write("admin-token", "an-admin-token-for-a-test\n");
    write("jwt-secret", "0123456789abcdef0123456789abcdef\n");
    let made = run(&["api-key", "partner", "--tenant", "loc_lakeside"]);
    assert!(made.status.success());
    let text = String::from_utf8(made.stdout).expect("text");
    write(
        "api-keys",
        text.lines().nth(3).expect("the fourth line is the file's"),
    );
    folder
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            std::fs::create_dir(&target).expect("create");
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}

#[test]
fn every_example_is_good() {
    let folder = examples();
    let mut checked = 0;
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let output = run(&["check", &path.display().to_string()]);
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(
            output.status.code(),
            Some(0),
            "{}: {stderr}",
            path.display()
        );
        assert!(stdout.contains(": good ("), "{stdout}");
        checked += 1;
    }
    println!("{checked} examples");
    assert!(checked >= 3, "{checked}");
}

#[test]
fn the_check_lists_every_problem_of_all_files_and_exits_64() {
    let folder = examples();
    let path = folder.path().join("demo.toml");
    let text = std::fs::read_to_string(&path).expect("read");
    std::fs::write(
        &path,
        text.replace("kind = \"jwt\"", "kind = \"jwd\"") + "surprise = 1\n",
    )
    .expect("write");
    std::fs::write(
        folder.path().join("demo-tenants.jsonl"),
        "{\"id\":\"a b\"}\n",
    )
    .expect("write");
    std::fs::remove_file(folder.path().join("api-keys")).expect("remove");
    let output = run(&["check", &path.display().to_string()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    for part in ["jwd", "surprise", "demo-tenants.jsonl:1", "api-keys"] {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
    assert_eq!(output.stdout, b"");
}

#[test]
fn the_check_warns_of_keys_that_cannot_be_fetched() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let gone = gone.local_addr().expect("address");
    let folder = examples();
    let path = folder.path().join("gateway.toml");
    let config = demo_config("127.0.0.1:9001").replace("token_file = \"{dir}/admin.token\"", "")
        + "[[plugin]]\nname = \"login\"\nkind = \"jwt\"\n[plugin.config]\nany_audience = true\n"
        + &format!("jwks = {{ url = \"http://{gone}/jwks\" }}\n");
    let folder = folder.path().display().to_string();
    std::fs::write(&path, config.replace("{dir}", &folder)).expect("write");
    let output = run(&["check", &path.display().to_string()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.starts_with("warning: "), "{stderr}");
    assert!(stderr.contains("jwks.url"), "{stderr}");
}
