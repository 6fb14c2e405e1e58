//! `[[listener]]`.

use crate::material::MATERIAL;
use crate::site::{Probe, Site, answer, answer_soon, probe, request, whether};
use crate::{Row, row};
use hub_testkit::Wire;
use rustls::version::TLS12;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn rows() -> Vec<Row> {
    let tls = (
        "listener[].tls",
        json!({ "certificates": [
        { "certificate_file": "{dir}/a.pem", "key_file": "{dir}/a.key" },
    ] }),
    );
    let proxied: Probe = probe!(site => {
        let header = "PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n";
        let mut wire = site.send(header.to_owned() + &request("/", "")).await;
        answer(&mut wire).await
    });
    let forwarded: Probe = probe!(site => site.forwarded("/", "X-Forwarded-For: 203.0.113.8, 203.0.113.9\r\n", "x-forwarded-for").await);
    vec![
        row(
            "listener[].name",
            "public",
            "edge",
            &[],
            probe!(site => site.logged("", "listener").await),
        ),
        row(
            "listener[].address",
            "127.0.0.1:0",
            "127.0.0.2:0",
            &[],
            probe!(site => {
                site.get("/", "").await;
                site.addr().ip().to_string()
            }),
        ),
        row(
            "listener[].proxy_protocol",
            "optional",
            "required",
            &[("listener[].proxy_protocol_from", json!(["127.0.0.0/8"]))],
            probe!(site => {
                let mut wire = site.send(request("/", "")).await;
                answer(&mut wire).await
            }),
        ),
        row(
            "listener[].proxy_protocol_from",
            json!(["127.0.0.0/8"]),
            json!(["10.0.0.0/8"]),
            &[("listener[].proxy_protocol", json!("optional"))],
            proxied,
        ),
        row(
            "listener[].trusted_hops",
            1,
            2,
            &[("listener[].trusted_from", json!(["127.0.0.0/8"]))],
            forwarded,
        ),
        row(
            "listener[].trusted_from",
            json!(["127.0.0.0/8"]),
            json!(["10.0.0.0/8"]),
            &[("listener[].trusted_hops", json!(1))],
            forwarded,
        ),
        row(
            "listener[].connections_max",
            1,
            10,
            &[],
            probe!(site => second(site).await),
        ),
        row(
            "listener[].connections_per_address_max",
            1,
            10,
            &[],
            probe!(site => second(site).await),
        ),
        row(
            "listener[].head_timeout_ms",
            100,
            10_000,
            &[],
            probe!(site => {
                let mut wire = site.send("GET / HTTP/1.1\r\n").await;
                answer_soon(&mut wire).await
            }),
        ),
        row(
            "listener[].idle_timeout_ms",
            100,
            10_000,
            &[],
            probe!(site => {
                let mut wire = site.connect().await;
                whether(wire.wait_closed()).await
            }),
        ),
        row(
            "listener[].body_timeout_ms",
            100,
            10_000,
            &[],
            probe!(site => {
                let mut wire = site
                    .send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nx")
                    .await;
                answer_soon(&mut wire).await
            }),
        ),
        row(
            "listener[].write_timeout_ms",
            100,
            10_000,
            &[],
            probe!(site => {
                // Nobody reads the answer, which is more than all buffers hold.
                let _wire = site.send(request("/big", "")).await;
                whether(site.hub.wait_for_access_log(1)).await
            }),
        ),
        row(
            "listener[].head_bytes_max",
            1_024,
            32_768,
            &[("listener[].uri_bytes_max", json!(512))],
            probe!(site => site.status("/", &format!("X-Long: {}\r\n", "x".repeat(2_000))).await),
        ),
        row(
            "listener[].uri_bytes_max",
            64,
            8_192,
            &[],
            probe!(site => site.status(&format!("/{}", "x".repeat(100)), "").await),
        ),
        row(
            "listener[].header_count_max",
            2,
            50,
            &[],
            probe!(site => site.status("/", "A: 1\r\nB: 2\r\nC: 3\r\n").await),
        ),
        row(
            "listener[].requests_per_connection_max",
            1,
            100,
            &[],
            probe!(site => site.header("/", "", "connection").await),
        ),
        row(
            "listener[].tls.certificates[].certificate_file",
            "{dir}/a.pem",
            "{dir}/b.pem",
            &[
                tls.clone(),
                (
                    "listener[].tls.certificates[].key_file",
                    json!("{stem}.key"),
                ),
            ],
            probe!(site => handshake(site, &[]).await),
        ),
        row(
            "listener[].tls.certificates[].key_file",
            "{dir}/a.key",
            "{dir}/b.key",
            std::slice::from_ref(&tls),
            probe!(site => handshake(site, &[]).await),
        )
        .may_not_start(),
        row(
            "listener[].tls.handshake_timeout_ms",
            100,
            10_000,
            std::slice::from_ref(&tls),
            probe!(site => {
                let mut wire = site.connect().await;
                whether(wire.wait_closed()).await
            }),
        ),
        row(
            "listener[].tls.http2",
            true,
            false,
            std::slice::from_ref(&tls),
            probe!(site => handshake(site, &["h2", "http/1.1"]).await),
        ),
        row(
            "listener[].tls.version_min",
            "1.2",
            "1.3",
            &[tls],
            probe!(site => {
                let provider = rustls::crypto::ring::default_provider();
                let old = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
                    .with_protocol_versions(&[&TLS12])
                    .expect("ring has TLS 1.2")
                    .with_root_certificates(MATERIAL.ca.roots())
                    .with_no_client_auth();
                let wire = Wire::connect_tls_with(site.addr(), "x.test", Arc::new(old)).await;
                format!("TLS 1.2: {}", wire.is_ok())
            }),
        ),
    ]
}

/// What becomes of a second connection while there is a first.
async fn second(site: &Site) -> String {
    let mut first = site.send(request("/", "")).await;
    answer(&mut first).await;
    let mut second = site.send(request("/", "")).await;
    answer(&mut second).await
}

/// Which certificate and which protocol the listener gives.
async fn handshake(site: &Site, alpn: &[&str]) -> String {
    let wire = Wire::connect_tls(site.addr(), "x.test", MATERIAL.ca.roots(), alpn).await;
    let certificate = wire.peer_certificate();
    let which = MATERIAL
        .leaves
        .iter()
        .position(|leaf| Some(&leaf.certificate_der) == certificate.as_ref());
    let which: Value = which.into();
    format!("certificate {which}, {:?}", wire.alpn())
}
