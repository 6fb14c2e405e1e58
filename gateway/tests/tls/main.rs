//! TLS at the listener and HTTP/2 above it.

mod fallback;
mod http2;
mod slow_http2;

use hub_testkit::{Ca, Hub, Leaf, Origin, Wire, demo_config};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, SupportedProtocolVersion};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const EXPIRY: &str = "hub_tls_certificate_expiry_timestamp_seconds";

/// A listener with these certificates, files `0.pem`, `0.key`, and so on.
async fn start(origin: &Origin, leaves: &[&Leaf], tls: &str, more: &str) -> Hub {
    start_with(origin, leaves, tls, "", more).await
}

/// The same with more keys of the listener.
async fn start_with(
    origin: &Origin,
    leaves: &[&Leaf],
    tls: &str,
    listener: &str,
    more: &str,
) -> Hub {
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
            "name = \"public\"\naddress = \"127.0.0.1:0\"\ntls = {{ certificates = [{}]{tls} }}\n{listener}\n",
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
