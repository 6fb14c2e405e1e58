//! Clients that others have written: Python's `websockets` and Node's `ws`, through the gateway to an echo
//! server. The scripts in `clients/` say what they do and check it themselves.
//!
//! Without Python 3, Node or a package index the tests say so and pass, unless
//! `HUB_REQUIRE_WEBSOCKET_CLIENTS` is set.

use super::gateway;
use hub_testkit::tools::{node_modules_with, python_with};
use hub_testkit::websocket::EchoServer;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

const WEBSOCKETS_VERSION: &str = "17.4";
const WS_VERSION: &str = "8.23.0";
/// Longest run of one script.
const PATIENCE: Duration = Duration::from_secs(60);
/// The gateway pings often, so that the clients' answers are seen to reach it; and it takes 1 MiB.
const KEYS: &str = "ping_interval_ms = 50, pong_timeout_ms = 20000, frame_bytes_max = 1048576, message_bytes_max = 1048576";

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/websocket/clients")
        .join(name)
}

/// What was made, or `None` with a word about it where it may be missing.
fn there<T>(made: Result<T, String>) -> Option<T> {
    match made {
        Ok(made) => Some(made),
        Err(why) if std::env::var_os("HUB_REQUIRE_WEBSOCKET_CLIENTS").is_none() => {
            println!("SKIPPED: {why}; set HUB_REQUIRE_WEBSOCKET_CLIENTS=1 to make this a failure");
            None
        }
        Err(why) => panic!("{why}"),
    }
}

/// Runs a client, which gets the URL as its last argument and ends with 0 where all is as it should be.
async fn run(mut command: Command) {
    let echo = EchoServer::start().await;
    let hub = gateway(echo.addr(), KEYS).await;
    let child = command
        .arg(format!("ws://{}/socket", hub.addr("public")))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(PATIENCE, child).await {
        Ok(output) => output.expect("it starts"),
        Err(_) => panic!("{command:?} runs for more than {PATIENCE:?}"),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("close 4001: as it should be"), "{said}");
    assert!(echo.sessions() > 0, "it went through the gateway");
}

#[tokio::test]
async fn websockets_of_python_is_served() {
    let tools = env!("CARGO_TARGET_TMPDIR").as_ref();
    if let Some(python) = there(python_with(tools, "websockets", WEBSOCKETS_VERSION)) {
        let mut command = Command::new(python);
        command.arg(script("client.py"));
        run(command).await;
    }
}

#[tokio::test]
async fn ws_of_node_is_served() {
    let tools = env!("CARGO_TARGET_TMPDIR").as_ref();
    if let Some(modules) = there(node_modules_with(tools, "ws", WS_VERSION)) {
        let mut command = Command::new("node");
        command.env("NODE_PATH", modules).arg(script("client.cjs"));
        run(command).await;
    }
}
