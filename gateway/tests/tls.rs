//! TLS at the listener and HTTP/2 above it.

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{HeaderMap, Request, StatusCode};
use hub_testkit::{Behaviour, Ca, Gate, Hub, Leaf, Origin, Reply, Signal, Wire, demo_config};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, SupportedProtocolVersion};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const EXPIRY: &str = "hub_tls_certificate_expiry_timestamp_seconds";

/// A listener with these certificates, files `0.pem`, `0.key`, and so on.
async fn start(origin: &Origin, leaves: &[&Leaf], tls: &str, more: &str) -> Hub {
    let mut builder = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref());
    let mut list = Vec::new();
    for (i, leaf) in leaves.iter().enumerate() {
        builder = builder
            .file(&format!("{i}.pem"), &leaf.certificate_pem)
            .file(&format!("{i}.key"), &leaf.key_pem);
        list.push(format!(
            "{{ certificate_file = \"{{dir}}/{i}.pem\", key_file = \"{{dir}}/{i}.key\" }}"
        ));
    }
    let config = demo_config(origin.endpoint()).replace(
        "name = \"public\"\naddress = \"127.0.0.1:0\"\n",
        &format!(
            "name = \"public\"\naddress = \"127.0.0.1:0\"\ntls = {{ certificates = [{}]{tls} }}\n",
            list.join(", ")
        ),
    ) + more;
    builder.config(&config).start().await
}

fn client_config(ca: &Ca, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Arc::new(
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("ring has both versions")
            .with_root_certificates(ca.roots())
            .with_no_client_auth(),
    )
}

async fn handshake(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a DNS name");
    TlsConnector::from(config).connect(name, stream).await
}

async fn certificate(hub: &Hub, name: &str, ca: &Ca) -> Vec<u8> {
    Wire::connect_tls(hub.addr("public"), name, ca.roots(), &[])
        .await
        .peer_certificate()
        .expect("TLS servers show a certificate")
        .to_vec()
}

#[tokio::test]
async fn the_name_picks_the_certificate_and_unknown_names_get_the_first() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    // The first is valid for the unknown name too, so that a client accepts it, but it does not
    // name it exactly.
    let first = ca.issue(&["a.test", "unknown.other"]);
    let second = ca.issue(&["b.test", "*.b.test"]);
    let hub = start(&origin, &[&first, &second], "", "").await;
    for (name, leaf) in [
        ("a.test", &first),
        ("b.test", &second),
        ("B.test", &second),
        ("x.b.test", &second),
        ("unknown.other", &first),
    ] {
        let shown = certificate(&hub, name, &ca).await;
        assert_eq!(shown, leaf.certificate_der.to_vec(), "{name}");
    }
    // A name of neither: the first is shown, and a client that checks names refuses it.
    let error = Wire::try_connect_tls(hub.addr("public"), "nobody.test", ca.roots(), &[])
        .await
        .expect_err("no certificate carries this name");
    assert!(error.to_string().contains("nobody.test"), "{error}");
}

#[tokio::test]
async fn both_versions_are_spoken_and_requests_arrive_as_https() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let hub = start(&origin, &[&ca.issue(&["a.test"])], "", "").await;
    for (version, expected) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let config = client_config(&ca, &[version]);
        let mut wire = Wire::connect_tls_with(hub.addr("public"), "a.test", config)
            .await
            .expect("both versions are accepted");
        assert_eq!(wire.tls_version(), Some(expected));
        for _ in 0..2 {
            wire.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
            assert_eq!(wire.read_response().await.status, 200);
        }
    }
    for request in origin.requests() {
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    }
}

#[tokio::test]
async fn a_listener_that_wants_1_3_refuses_1_2() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let leaf = ca.issue(&["a.test"]);
    let hub = start(&origin, &[&leaf], ", version_min = \"1.3\"", "").await;
    let address = hub.addr("public");
    let old = client_config(&ca, &[&rustls::version::TLS12]);
    assert!(handshake(address, "a.test", old).await.is_err());
    let new = client_config(&ca, &[&rustls::version::TLS13]);
    assert!(handshake(address, "a.test", new).await.is_ok());
    hub.wait_for_metric("hub_tls_handshake_failures_total", &[], |n| n >= 1.0)
        .await;
}

#[tokio::test]
async fn a_second_connection_resumes_by_ticket_in_both_versions() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let hub = start(&origin, &[&ca.issue(&["a.test"])], "", "").await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = client_config(&ca, &[version]);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = handshake(hub.addr("public"), "a.test", config.clone())
                .await
                .expect("a handshake");
            let kind = stream.get_ref().1.handshake_kind();
            // Tickets of 1.3 come after the handshake: an answer brings them along.
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
                .await
                .expect("the gateway reads");
            let mut answer = Vec::new();
            stream
                .read_to_end(&mut answer)
                .await
                .expect("an orderly end, with a closing alert");
            assert!(answer.starts_with(b"HTTP/1.1 200"));
            assert_eq!(kind, Some(expected), "{version:?}");
        }
    }
}

#[tokio::test]
async fn replaced_certificates_serve_new_handshakes_and_bad_ones_change_nothing() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let leaf = |days: u64| {
        let now = SystemTime::now();
        let until = now + Duration::from_secs(days * 86_400);
        let leaf = ca.leaf(&["a.test"]).valid(now, until).issue();
        let seconds = until.duration_since(UNIX_EPOCH).expect("after 1970");
        (leaf, seconds.as_secs() as f64)
    };
    let (old, old_expiry) = leaf(10);
    let hub = start(&origin, &[&old], "", "").await;
    assert_eq!(hub.metric(EXPIRY, &[]).await, old_expiry);
    let mut before = Wire::connect_tls(hub.addr("public"), "a.test", ca.roots(), &[]).await;

    let (new, new_expiry) = leaf(20);
    new.write(hub.dir(), "0");
    let (status, outcome) = hub.reload().await;
    assert_eq!((status, &outcome["outcome"]), (200, &"applied".into()));
    let changes = &outcome["diff"]["changes"];
    assert!(changes.to_string().contains("0.pem"), "{outcome}");
    let applied = [("outcome", "applied")];
    assert_eq!(
        hub.metric("hub_tls_certificate_reloads_total", &applied)
            .await,
        1.0
    );
    assert_eq!(hub.reload().await.1["outcome"], "unchanged");
    // An intermediate more is another chain of the same certificate.
    let chain = format!(
        "{}{}",
        new.certificate_pem,
        ca.issue(&["b.test"]).certificate_pem
    );
    hub.write_file("0.pem", &chain);
    assert_eq!(hub.reload().await.1["outcome"], "applied");
    assert_eq!(
        certificate(&hub, "a.test", &ca).await,
        new.certificate_der.to_vec()
    );
    hub.wait_for_metric(EXPIRY, &[], |seconds| seconds == new_expiry)
        .await;
    // Connections from before go on.
    before.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(before.read_response().await.status, 200);

    // A key of another certificate, then no certificate at all.
    hub.write_file("0.key", &leaf(5).0.key_pem);
    let (status, outcome) = hub.reload().await;
    assert_ne!(status, 200);
    assert_eq!(outcome["outcome"], "rejected", "{outcome}");
    assert!(outcome.to_string().contains("does not belong"), "{outcome}");
    hub.write_file("0.pem", "not a certificate");
    assert_ne!(hub.reload().await.0, 200);
    hub.wait_for_stderr("the new configuration was rejected")
        .await;
    hub.wait_for_metric(
        "hub_config_reloads_total",
        &[("outcome", "rejected")],
        |count| count == 2.0,
    )
    .await;
    assert_eq!(
        certificate(&hub, "a.test", &ca).await,
        new.certificate_der.to_vec()
    );
    assert_eq!(hub.metric(EXPIRY, &[]).await, new_expiry);
}

#[tokio::test]
async fn a_certificate_that_is_no_longer_used_has_no_expiry() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let leaf = ca.issue(&["a.test"]);
    let hub = start(&origin, &[&leaf], "", "").await;
    leaf.write(hub.dir(), "renewed");
    let config = std::fs::read_to_string(hub.config_path()).expect("the configuration");
    hub.write_config(&config.replace("/0.", "/renewed."));
    assert_eq!(hub.reload().await.1["outcome"], "applied");
    let metrics = hub.metrics().await;
    let series: Vec<_> = metrics
        .lines()
        .filter(|line| line.starts_with(EXPIRY))
        .collect();
    assert!(
        series.len() == 1 && series[0].contains("renewed.pem"),
        "{series:?}"
    );
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_handshake_is_closed() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let leaf = ca.issue(&["a.test"]);
    let hub = start(&origin, &[&leaf], ", handshake_timeout_ms = 100", "").await;
    let mut silent = Wire::connect(hub.addr("public")).await;
    // The beginning of a record that never ends.
    let mut half = Wire::connect(hub.addr("public")).await;
    half.send([0x16, 3, 1, 2, 0, 1]).await;
    silent.wait_closed().await;
    half.read_to_close().await;
    hub.wait_for_metric("hub_tls_handshake_failures_total", &[], |n| n == 2.0)
        .await;
}

// HTTP/2.

struct Http2 {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Http2 {
    async fn connect(hub: &Hub, ca: &Ca) -> Self {
        let mut config = ClientConfig::clone(&client_config(ca, &[&rustls::version::TLS13]));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = handshake(hub.addr("public"), "a.test", Arc::new(config))
            .await
            .expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let (requests, connection) = client::handshake(stream).await.expect("HTTP/2");
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

    async fn ask(&self, request: Request<()>, body: &[u8]) -> Answer {
        let answer = tokio::time::timeout(Duration::from_secs(10), self.send(request, body));
        answer.await.expect("an answer in time").expect("an answer")
    }
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn code(&self) -> (u16, String) {
        let code = self.json()["error"]["code"].as_str().unwrap_or("?").into();
        (self.status.as_u16(), code)
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
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
async fn http2_can_be_turned_off() {
    let origin = Origin::start().await;
    let ca = Ca::new("public authority");
    let leaf = ca.issue(&["a.test"]);
    let hub = start(&origin, &[&leaf], ", http2 = false", "").await;
    let wire = Wire::connect_tls(
        hub.addr("public"),
        "a.test",
        ca.roots(),
        &["h2", "http/1.1"],
    )
    .await;
    assert_eq!(wire.alpn().as_deref(), Some("http/1.1"));
}
