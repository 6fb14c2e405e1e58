//! HTTP/2: the same rules as on HTTP/1.

use crate::{client_config, handshake, start};
use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{HeaderMap, Request, StatusCode};
use hub_testkit::{Behaviour, Ca, Gate, Hub, Origin, Reply, Signal, demo_config};
use rustls::ClientConfig;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

pub(crate) struct Http2 {
    pub(crate) requests: SendRequest<Bytes>,
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Http2 {
    pub(crate) async fn connect(hub: &Hub, ca: &Ca) -> Self {
        Self::connect_with(hub, ca, &client::Builder::new()).await
    }

    /// Connects with HTTP/2 settings of the test's own.
    pub(crate) async fn connect_with(hub: &Hub, ca: &Ca, settings: &client::Builder) -> Self {
        let mut config = ClientConfig::clone(&client_config(ca, &[&rustls::version::TLS13]));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = handshake(hub.addr("public"), "a.test", Arc::new(config))
            .await
            .expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let (requests, connection) = settings.handshake(stream).await.expect("HTTP/2");
        Self {
            requests,
            connection: tokio::spawn(connection),
        }
    }

    async fn send(&self, request: Request<()>, body: &[u8]) -> Result<Answer, h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let (answer, mut stream) = requests.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            // Refused bodies end with a reset of the stream, which the answer's status explains.
            stream.send_data(Bytes::copy_from_slice(body), true).ok();
        }
        let answer = answer.await?;
        let (head, mut data) = answer.into_parts();
        let mut body = Vec::new();
        while let Some(chunk) = data.data().await {
            let chunk = chunk?;
            data.flow_control().release_capacity(chunk.len())?;
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }

    pub(crate) async fn ask(&self, request: Request<()>, body: &[u8]) -> Answer {
        let answer = tokio::time::timeout(Duration::from_secs(10), self.send(request, body));
        answer.await.expect("an answer in time").expect("an answer")
    }
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(crate) fn code(&self) -> (u16, String) {
        let code = self.json()["error"]["code"].as_str().unwrap_or("?").into();
        (self.status.as_u16(), code)
    }
}

pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("https://a.test{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}

const TENANTS: &str = "tenant = { sources = [{ header = \"x-location-id\" }] }\nbody_bytes_max = 1000\n[[tenant]]\nid = \"loc_A\"\n[[tenant]]\nid = \"loc_B\"\nrequests_per_second = 1\nburst = 1\n";

#[tokio::test]
async fn http2_requests_are_forwarded_with_their_bodies() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let hub = start(&origin, &[&ca.issue(&["a.test"])], "", TENANTS).await;
    let client = Http2::connect(&hub, &ca).await;
    let tenant = [("x-location-id", "loc_A")];
    let answer = client.ask(request("GET", "/a?b=c", &tenant), b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["target"], "/a?b=c");
    let answer = client.ask(request("POST", "/p", &tenant), b"hello").await;
    assert_eq!(answer.json()["body"], "hello");
    let seen = origin.requests();
    assert_eq!(seen.len(), 2);
    for request in &seen {
        assert_eq!(request.version, "HTTP/1.1");
        assert_eq!(request.header("host"), Some("a.test"));
        assert_eq!(request.header("x-location-id"), Some("loc_A"));
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    }
    let log = hub.wait_for_access_log(2).await;
    assert_eq!(log[0]["tenant"], "loc_A");
    assert_eq!(log[1]["bytes_in"], 5);
}

#[tokio::test]
async fn http2_requests_are_held_to_the_same_rules() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let hub = start(&origin, &[&ca.issue(&["a.test"])], "", TENANTS).await;
    let client = Http2::connect(&hub, &ca).await;
    for (path, headers, status, code) in [
        ("/", vec![], 400, "tenant_missing"),
        ("/", vec![("x-location-id", "")], 400, "tenant_malformed"),
        ("/", vec![("x-location-id", "loc_C")], 404, "tenant_unknown"),
        (
            "/",
            vec![("x-location-id", "loc_A"), ("x-location-id", "loc_B")],
            400,
            "tenant_malformed",
        ),
        (
            "/",
            vec![("x-location-id", "loc_A"), ("x_location_id", "loc_B")],
            400,
            "bad_header",
        ),
        (
            "/",
            vec![("x-location-id", "loc_A"), ("x_hub_subject", "admin")],
            400,
            "bad_header",
        ),
        ("/a%2fb", vec![("x-location-id", "loc_A")], 400, "bad_path"),
    ] {
        let text = format!("{path} {headers:?}");
        let answer = client.ask(request("GET", path, &headers), b"").await;
        assert_eq!(answer.code(), (status, code.into()), "{text}");
    }
    assert_eq!(origin.request_count(), 0);
    let tenant = [("x-location-id", "loc_B")];
    let answer = client.ask(request("GET", "/", &tenant), b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["ratelimit-limit"], "1");
    // The connection has survived all of it.
    assert!(!client.connection.is_finished());
}

#[tokio::test]
async fn an_http2_body_that_grows_too_large_is_413() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .respond(Reply::ok("read").read_after(&gate))
        .start()
        .await;
    let ca = Ca::new("public authority");
    let hub = start(&origin, &[&ca.issue(&["a.test"])], "", TENANTS).await;
    let client = Http2::connect(&hub, &ca).await;
    let tenant = [("x-location-id", "loc_A")];
    let answer = client
        .ask(request("POST", "/", &tenant), &[b'x'; 1001])
        .await;
    assert_eq!(answer.code(), (413, "body_too_large".into()));
    let line = hub.wait_for_access_log(1).await.remove(0);
    assert_eq!(line["reason"], "body_too_large");
}

#[tokio::test]
async fn too_many_http2_headers_and_too_long_targets_are_refused() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let hub = start(&origin, &[&ca.issue(&["a.test"])], "", "").await;
    let client = Http2::connect(&hub, &ca).await;
    let names: Vec<String> = (0..101).map(|i| format!("x-{i}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let answer = client.ask(request("GET", "/", &headers), b"").await;
    assert_eq!(answer.code(), (431, "head_too_large".into()));
    let long = format!("/{}", "a".repeat(8192));
    let answer = client.ask(request("GET", &long, &[]), b"").await;
    assert_eq!(answer.code(), (414, "uri_too_long".into()));
    assert_eq!(origin.request_count(), 0);
}

#[tokio::test]
async fn a_draining_gateway_finishes_http2_streams_and_says_goodbye() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .on("/slow", Reply::ok("slow").after(&gate))
        .on("/hang", Behaviour::Hang)
        .start()
        .await;
    let ca = Ca::new("public authority");
    let mut hub = start(&origin, &[&ca.issue(&["a.test"])], "", "").await;
    let client = Http2::connect(&hub, &ca).await;
    let slow = client.ask(request("GET", "/slow", &[]), b"");
    let rest = async {
        origin.wait_for_requests(1).await;
        hub.signal(Signal::TERM);
        hub.wait_for_stderr("drain").await;
        gate.open();
    };
    let (answer, ()) = tokio::join!(slow, rest);
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_slice()),
        (200, b"slow".as_slice())
    );
    // After GOAWAY and the last stream the connection ends without an error.
    let ended = tokio::time::timeout(Duration::from_secs(10), client.connection).await;
    let ended = ended.expect("it ends in time").expect("the task runs");
    assert!(ended.is_ok(), "{ended:?}");
    assert!(hub.wait_exit().await.success());
}

#[tokio::test]
async fn a_client_that_says_goodbye_late_is_not_reset() {
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    let frame = |kind: u8, flags: u8, payload: &[u8]| {
        let mut frame = vec![
            0,
            0,
            u8::try_from(payload.len()).expect("small"),
            kind,
            flags,
        ];
        frame.extend([0; 4]);
        frame.extend(payload);
        frame
    };
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let mut hub = start(&origin, &[&ca.issue(&["a.test"])], "", "").await;
    let mut config = ClientConfig::clone(&client_config(&ca, &[&rustls::version::TLS13]));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = handshake(hub.addr("public"), "a.test", Arc::new(config)).await;
    let mut stream = stream.expect("a handshake");
    let hello = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &*frame(SETTINGS, 0, &[]),
    ]
    .concat();
    stream.write_all(&hello).await.expect("the gateway listens");
    let mut told = false;
    loop {
        let mut head = [0; 9];
        match stream.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => panic!("{error}"),
        }
        let mut payload = vec![0; usize::from(head[2])];
        stream
            .read_exact(&mut payload)
            .await
            .expect("a whole frame");
        if head[3] == SETTINGS && !told {
            // The connection is under way, so it will be asked to end.
            hub.signal(Signal::TERM);
            told = true;
        }
        if head[3] == PING {
            let answer = frame(PING, 1, &payload);
            stream.write_all(&answer).await.expect("it waits for this");
        }
    }
    // The gateway has said all. Were it to close now, a reset would follow one of these writes and fail the
    // next; they are many, since it may close a moment later.
    for _ in 0..1000 {
        let late = frame(PING, 0, &[7; 8]);
        stream.write_all(&late).await.expect("it reads on");
        stream.flush().await.expect("it reads on");
    }
    stream.shutdown().await.expect("it reads on");
    assert!(hub.wait_exit().await.success());
}

#[tokio::test]
async fn a_new_colour_that_hangs_is_left_for_the_old_one() {
    let store = tempfile::tempdir().expect("a folder");
    let blue = Origin::builder().colour("blue").start().await;
    let green = Origin::builder().colour("green");
    let green = green.on("/work", Behaviour::Hang).start().await;
    let ca = Ca::new("public authority");
    let leaf = ca.issue(&["a.test"]);
    let config = demo_config("127.0.0.1:1")
        .replace(
            "endpoints = { blue = [\"127.0.0.1:1\"] }\n",
            &format!(
                "endpoints = {{ blue = [\"{}\"], green = [\"{}\"] }}\nfirst_byte_timeout_ms = 300\n",
                blue.endpoint(),
                green.endpoint()
            ),
        )
        .replace("[[route]]\n", "[[route]]\nretry_other_colour = true\n")
        .replace(
            "name = \"public\"\naddress = \"127.0.0.1:0\"\n",
            "name = \"public\"\naddress = \"127.0.0.1:0\"\ntls = { certificates = [{ certificate_file = \"{dir}/0.pem\", key_file = \"{dir}/0.key\" }] }\n",
        )
        + &format!("\n[store]\ndirectory = {:?}\n", store.path().display().to_string());
    let hub = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .file("0.pem", &leaf.certificate_pem)
        .file("0.key", &leaf.key_pem)
        .config(&config)
        .start()
        .await;
    let plan = r#"{"stages": [{"percent": 99.99, "observe_seconds": 600}], "baseline_seconds": 0}"#;
    let (status, begun) = hub.admin("POST", "/v1/rollouts/app/start", plan).await;
    assert_eq!(status, 200, "{begun}");
    hub.wait_for_stderr("\"to\":\"canary\"").await;
    let client = Http2::connect(&hub, &ca).await;
    for _ in 0..2 {
        let answer = client.ask(request("GET", "/work", &[]), b"").await;
        let colour = answer.headers.get("x-colour").map(|value| value.as_bytes());
        assert_eq!(
            (answer.status.as_u16(), colour),
            (200, Some(b"blue".as_slice()))
        );
    }
    // Whoever may wait long for the next event gets no second try, and a POST neither.
    for (method, headers) in [
        ("GET", &[("accept", "text/html, text/event-stream")][..]),
        ("POST", &[]),
    ] {
        let refused = client.send(request(method, "/work", headers), b"").await;
        assert!(refused.is_err(), "its stream is reset");
    }
    let line = hub.wait_for_log_line(|line| line["path"] == "/work").await;
    assert_eq!(line["first_colour"], "green");
}

#[tokio::test]
async fn cookies_that_came_in_crumbs_go_up_as_one() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let hub = start(&origin, &[&ca.issue(&["a.test"])], "", "").await;
    let client = Http2::connect(&hub, &ca).await;
    let crumbs = [
        ("cookie", "a=1"),
        ("cookie", "session=x; b=2"),
        ("cookie", "c=3"),
    ];
    assert_eq!(
        client.ask(request("GET", "/", &crumbs), b"").await.status,
        200
    );
    let seen = &origin.requests()[0];
    let cookies: Vec<&str> = seen.header_all("cookie").collect();
    assert_eq!(cookies, ["a=1; session=x; b=2; c=3"]);
}

#[tokio::test]
async fn http2_heads_are_held_to_the_rules_of_http1() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let hub = start(&origin, &[&ca.issue(&["a.test"])], "", "").await;
    let client = Http2::connect(&hub, &ca).await;
    let long = "M".repeat(33);
    let large = "x".repeat(40_000);
    for (method, path, headers, status, code) in [
        ("trace", "/", vec![], 405, "bad_method"),
        ("Connect", "/", vec![], 405, "bad_method"),
        (long.as_str(), "/", vec![], 405, "bad_method"),
        ("GET", "/a?b=%2", vec![], 400, "bad_path"),
        ("GET", "/a?b=%zz", vec![], 400, "bad_path"),
        (
            "GET",
            "/",
            vec![("authorization", "a"), ("authorization", "b")],
            400,
            "bad_header",
        ),
        (
            "POST",
            "/",
            vec![("content-type", "a/b"), ("content-type", "c/d")],
            400,
            "bad_header",
        ),
        (
            "GET",
            "/",
            vec![("origin", "http://a"), ("origin", "http://b")],
            400,
            "bad_header",
        ),
        (
            "GET",
            "/",
            vec![("expect", "200-ok")],
            417,
            "bad_expectation",
        ),
        (
            "GET",
            "/",
            vec![("x-large", large.as_str())],
            431,
            "head_too_large",
        ),
        ("GET", "/a/../b", vec![], 400, "bad_path"),
    ] {
        let answer = client.ask(request(method, path, &headers), b"").await;
        assert_eq!(
            answer.code(),
            (status, code.into()),
            "{method} {path} {code}"
        );
    }
    assert_eq!(origin.request_count(), 0);
    let fine = [("authorization", "a"), ("origin", "http://a")];
    assert_eq!(
        client
            .ask(request("GET", "/?a={b}", &fine), b"")
            .await
            .status,
        200
    );
}
