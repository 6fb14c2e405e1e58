//! The sample application, as a process.

use hub_testkit::Wire;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

struct App {
    child: Child,
    address: SocketAddr,
}

impl App {
    fn start(colour: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hub-sample-app"))
            .args(["--colour", colour, "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo has built the binary");
        let mut output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        output
            .read_line(&mut line)
            .expect("the first line says where it listens");
        let address = line
            .trim()
            .rsplit('/')
            .next()
            .and_then(|text| text.parse().ok());
        Self {
            address: address.unwrap_or_else(|| panic!("no address in {line:?}")),
            child,
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child takes signals");
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test]
async fn each_page_shows_colour_and_tenant() {
    let app = App::start("green");
    let mut wire = Wire::connect(app.address).await;
    let mut get = async |target: &str, tenant: &str| {
        wire.send(format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\n{tenant}X-Hub-Subject: ada\r\nX-Real-IP: 192.0.2.7\r\n\r\n"
        ))
        .await;
        wire.read_response().await
    };
    let tenant = "X-Location-Id: loc_<1>\r\n";
    let page = get("/", tenant).await;
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(page.text().contains("loc_&lt;1&gt;") && page.text().contains("green"));
    assert!(!page.text().contains("{rows}") && !page.text().contains("{accent}"));
    let contacts = get("/api/contacts", tenant).await.json();
    assert_eq!(contacts["location_id"], "loc_<1>");
    assert_eq!(contacts["contacts"].as_array().unwrap().len(), 5);
    assert_ne!(
        contacts["contacts"],
        get("/api/contacts", "X-Location-Id: loc_2\r\n")
            .await
            .json()["contacts"]
    );
    assert_eq!(get("/api/contacts", "").await.status, 400);
    let who = get("/api/whoami", tenant).await.json();
    assert_eq!(
        (&who["subject"], &who["client_address"]),
        (&"ada".into(), &"192.0.2.7".into())
    );
    assert_eq!(get("/healthz", "").await.text(), "ok\n");
    assert_eq!(get("/slow?ms=1", "").await.json()["waited_ms"], 1);
    assert_eq!(get("/slow?ms=60001", "").await.status, 400);
}

#[tokio::test]
async fn posts_are_echoed_and_large_ones_are_hashed() {
    let app = App::start("blue");
    let mut wire = Wire::connect(app.address).await;
    for length in [3, 1 << 20] {
        wire.send(format!(
            "POST /api/echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
        wire.send(vec![b'e'; length]).await;
        let echo = wire.read_response().await.json();
        assert_eq!(echo["bytes"], length);
        assert_eq!(echo["text"].as_str(), (length == 3).then_some("eee"));
    }
}

#[tokio::test]
async fn sigterm_ends_streams_in_an_orderly_way() {
    let mut app = App::start("blue");
    let mut events = Wire::connect(app.address).await;
    events.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(
        events.read_head().await.header("content-type"),
        Some("text/event-stream")
    );
    let event = String::from_utf8(events.read_until("\n\n").await).unwrap();
    assert!(
        event.contains("event: tick") && event.contains(r#""colour":"blue""#),
        "{event}"
    );

    let mut socket = Wire::connect(app.address).await;
    socket
        .send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .await;
    assert_eq!(socket.read_response().await.status, 101);
    // "hi" as a masked text frame; the mask of zeroes leaves it readable.
    socket.send(b"\x81\x82\0\0\0\0hi").await;
    assert_eq!(socket.read_exact(4).await, b"\x81\x02hi");

    app.signal(Signal::TERM);
    let rest = events.read_to_close().await;
    assert!(
        rest.ends_with(b"0\r\n\r\n"),
        "the stream has no end: {rest:?}"
    );
    assert_eq!(socket.read_exact(4).await[..4], [0x88, 12, 0x03, 0xe9]);
    drop(socket);
    assert_eq!(app.child.wait().unwrap().code(), Some(0));
}
