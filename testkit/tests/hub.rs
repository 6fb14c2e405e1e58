//! The harness that runs the gateway, tested on a double of it: this very binary, started again by
//! `hub-double.sh`, in the test named `double`.

use hub_testkit::{
    ADMIN_TOKEN, Behaviour, Hub, HubBuilder, Origin, Reply, Signal, Wire, demo_config,
};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::signal::unix::{SignalKind, signal};

fn binary() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hub-double.sh")
}

fn hub(config: &str) -> HubBuilder<'static> {
    Hub::builder(&binary())
        .env(
            "HUB_DOUBLE_EXE",
            std::env::current_exe().expect("Linux knows it"),
        )
        .config(config)
}

/// The double: what the harness expects of the gateway, and no more. In an ordinary run it has no
/// configuration and nothing to do.
#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "the exit code of a test is the test runner's, and the double needs its own"
)]
async fn double() {
    let Some(config) = std::env::var_os("HUB_DOUBLE_CONFIG") else {
        return;
    };
    let config = PathBuf::from(config);
    let directory = config.parent().unwrap().to_owned();
    let text = std::fs::read_to_string(&config).unwrap();
    if text.contains("broken") {
        eprintln!("listener: there is none; name at least one");
        std::process::exit(64);
    }
    let token = std::fs::read_to_string(directory.join("admin.token")).unwrap();
    let log = Arc::new(Mutex::new(
        std::fs::File::create(directory.join("access.log")).unwrap(),
    ));
    let public = Origin::builder()
        .respond(Behaviour::call(move |request| {
            writeln!(
                log.lock().unwrap(),
                r#"{{"path":"{}","status":200}}"#,
                request.path()
            )
            .unwrap();
            Reply::ok("served")
        }))
        .start()
        .await;
    let reload = move |request: &hub_testkit::RecordedRequest| match request.header("authorization")
    {
        Some(given) if given == format!("Bearer {token}") => Reply::ok(format!(
            r#"{{"outcome":"applied","config":{:?}}}"#,
            std::fs::read_to_string(&config).unwrap()
        )),
        _ => Reply::new(401),
    };
    let admin = Origin::builder()
        .on(
            "/metrics",
            Reply::ok("hub_requests_total{route=\"all\"} 3\n"),
        )
        .on("/v1/reload", Behaviour::call(reload))
        .start()
        .await;
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    eprintln!(
        "greeting: {}",
        std::env::var("GREETING").unwrap_or_default()
    );
    let ready = serde_json::json!({
        "pid": std::process::id(),
        "admin": admin.endpoint(),
        "listeners": { "public": public.endpoint() },
    });
    let path = PathBuf::from(std::env::var_os("HUB_DOUBLE_READY").unwrap());
    std::fs::write(path.with_extension("new"), ready.to_string()).unwrap();
    std::fs::rename(path.with_extension("new"), path).unwrap();
    if text.contains("stubborn") {
        std::future::pending::<()>().await;
    }
    terminate.recv().await;
    std::process::exit(0);
}

#[tokio::test]
async fn a_gateway_serves_logs_counts_and_stops() {
    let mut hub = hub(&demo_config("127.0.0.1:1"))
        .file("tenants.jsonl", "{}\n")
        .env("GREETING", "hello")
        .start()
        .await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    for path in ["/a", "/b"] {
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        assert_eq!(wire.read_response().await.text(), "served");
    }
    assert_eq!(hub.wait_for_access_log(2).await[1]["path"], "/b");
    assert_eq!(
        hub.wait_for_log_line(|line| line["path"] == "/a").await["status"],
        200
    );
    assert_eq!(
        hub.metric("hub_requests_total", &[("route", "all")]).await,
        3.0
    );
    assert_eq!(
        hub.metric("hub_requests_total", &[("route", "other")])
            .await,
        0.0
    );
    assert_eq!(
        hub.wait_for_metric("hub_requests_total", &[], |n| n > 2.0)
            .await,
        3.0
    );
    hub.wait_for_stderr("greeting: hello").await;
    assert_eq!(
        std::fs::read_to_string(hub.dir().join("tenants.jsonl")).unwrap(),
        "{}\n"
    );
    assert!(hub.is_running());
    hub.signal(Signal::TERM);
    assert_eq!(hub.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn the_configuration_can_be_replaced_and_reloaded_with_the_token() {
    let hub = hub("a = 1").start().await;
    hub.write_config("b = \"{dir}\"");
    let (status, answer) = hub.reload().await;
    assert_eq!(status, 200);
    assert_eq!(answer["config"], format!("b = \"{}\"", hub.dir().display()));
    assert_eq!(
        hub.admin_request("POST", "/v1/reload", "{}", None)
            .await
            .status,
        401
    );
    assert!(!hub.stderr().contains(ADMIN_TOKEN));
}

#[tokio::test]
async fn a_refused_configuration_is_an_exit_code_and_a_message() {
    let (code, stderr) = hub("broken").expect_failure().await;
    assert_eq!(code, 64);
    assert!(stderr.contains("name at least one"), "{stderr}");
}

#[tokio::test]
#[should_panic(expected = "ended instead of serving")]
async fn a_start_that_fails_shows_what_the_gateway_said() {
    hub("broken").start().await;
}

#[tokio::test]
async fn a_dropped_gateway_is_gone_even_if_it_ignores_sigterm() {
    for config in ["polite", "stubborn"] {
        let hub = hub(config).start().await;
        let (address, directory) = (hub.addr("public"), hub.dir().to_owned());
        Wire::connect(address).await;
        drop(hub);
        assert!(!directory.exists());
        // The kill is sent, and the kernel may still be at it: the socket closes with the process.
        while Wire::try_connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
