//! Against a small server of our own on a port of its own. It answers when the test says so, and every
//! wait is for an event.

use super::*;
use crate::jwt::tests::signer::Signer;
use crate::testing::{NOW, Request, make};
use crate::{Plugin, Verdict};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Longer than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Serves answers in the order in which the test gives them, one to a connection.
struct Server {
    url: String,
    answers: SyncSender<String>,
    requests: Receiver<String>,
}

impl Server {
    fn start() -> Self {
        Self::start_with("http", |stream| Some(Box::new(stream)))
    }

    fn start_with(
        scheme: &str,
        wrap: impl Fn(TcpStream) -> Option<Box<dyn ReadWrite>> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "{scheme}://{}/jwks?secret=canary",
            listener.local_addr().unwrap()
        );
        let (answers, next) = sync_channel::<String>(64);
        let (seen, requests) = sync_channel(64);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Some(mut stream) = stream.ok().and_then(&wrap) else {
                    continue;
                };
                let mut head = String::new();
                let mut reader = BufReader::new(&mut stream);
                while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
                if head.is_empty() {
                    continue;
                }
                let answer = next.recv();
                let (Ok(answer), Ok(())) = (answer, seen.send(head)) else {
                    return;
                };
                // The client may have hung up on a body that is too large.
                drop(stream.write_all(answer.as_bytes()));
                drop(stream.flush());
            }
        });
        Self {
            url,
            answers,
            requests,
        }
    }

    fn answer(&self, answer: impl Into<String>) {
        self.answers.send(answer.into()).unwrap();
    }

    fn answer_keys(&self, signers: &[&Signer]) {
        self.answer(ok(&key_set(signers)));
    }

    fn request(&self) -> String {
        self.requests.recv_timeout(PATIENCE).expect("a fetch")
    }
}

trait ReadWrite: Read + Write {}
impl<S: Read + Write> ReadWrite for S {}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn key_set(signers: &[&Signer]) -> String {
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

fn origin(server: &Server, early_min: Duration) -> Origin {
    Origin {
        url: server.url.clone(),
        authorities: None,
        algorithms: Algorithm::ASYMMETRIC.into(),
        timing: Timing {
            interval: Duration::from_secs(86_400),
            early_min,
            backoff_min: Duration::from_millis(1),
        },
    }
}

fn plugin(server: &Server, extra: Value) -> Arc<dyn Plugin> {
    let plugin = unsettled(server, extra);
    plugin.settle(Instant::now() + PATIENCE).unwrap();
    plugin
}

/// One whose first fetch may not have ended.
fn unsettled(server: &Server, extra: Value) -> Arc<dyn Plugin> {
    let mut config = json!({ "jwks": { "url": server.url }, "any_audience": true });
    for (name, value) in extra.as_object().unwrap() {
        config["jwks"][name] = value.clone();
    }
    make::<crate::jwt::Config>(config)
}

fn request(signer: &Signer) -> Request {
    let token = signer.sign(&json!({ "sub": "u", "exp": NOW + 60 }));
    Request::new().header("Authorization", format!("Bearer {token}"))
}

fn is_identified(plugin: &dyn Plugin, request: &Request) -> bool {
    matches!(request.verdict(plugin), Verdict::Identified(_))
}

fn count(counters: &[(&'static str, u64)], name: &str) -> u64 {
    counters.iter().find(|(label, _)| *label == name).unwrap().1
}

#[test]
fn a_fresh_instance_has_its_keys_before_its_first_request() {
    let (server, signer) = (Server::start(), Signer::ecdsa("ES256"));
    server.answer_keys(&[&signer]);
    let plugin = plugin(&server, json!({}));
    assert!(is_identified(&*plugin, &request(&signer)));
    assert_eq!(
        plugin.counters(),
        [("changed", 1), ("unchanged", 0), ("failed", 0)]
    );
    let head = server.request();
    assert!(
        head.starts_with("GET /jwks?secret=canary HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(!format!("{plugin:?}").contains("canary"));
}

#[test]
fn a_second_instance_of_the_same_source_shares_its_keys_and_its_thread() {
    let (server, signer) = (Server::start(), Signer::ed25519());
    server.answer_keys(&[&signer]);
    let first = plugin(&server, json!({}));
    // As at a reload. There is no second answer: a second fetch would leave it without keys.
    let second = plugin(&server, json!({}));
    drop(first);
    assert!(is_identified(&*second, &request(&signer)));
    assert_eq!(count(&second.counters(), "changed"), 1);
}

#[test]
fn an_unknown_kid_brings_the_next_fetch_forward_and_new_keys_serve_at_once() {
    let server = Server::start();
    let (old, new) = (Signer::ecdsa("ES256"), Signer::ecdsa("ES256"));
    server.answer_keys(&[&old]);
    let source = Source::of(origin(&server, Duration::ZERO)).unwrap();
    assert!(source.wait_for_fetches(1, PATIENCE));
    let version = source.keys().version();
    source.ask_early();
    server.answer_keys(&[&old, &new]);
    assert!(source.wait_for_fetches(2, PATIENCE));
    assert_ne!(source.keys().version(), version);
    assert_eq!(source.keys().len(), 2);
}

#[test]
fn a_flood_of_unknown_kids_causes_no_fetch_before_the_least_interval() {
    let (server, signer, stranger) = (
        Server::start(),
        Signer::ecdsa("ES256"),
        Signer::ecdsa("ES256"),
    );
    server.answer_keys(&[&signer]);
    let plugin = plugin(&server, json!({ "early_refresh_seconds": 3_600 }));
    server.request();
    for n in 0..2_000 {
        let odd = Signer::ecdsa("ES256").with_kid(&format!("kid-{n}"));
        assert!(!is_identified(
            &*plugin,
            &request(if n < 20 { &odd } else { &stranger })
        ));
    }
    assert!(is_identified(&*plugin, &request(&signer)));
    assert!(server.requests.try_recv().is_err());
    assert_eq!(
        plugin.counters(),
        [("changed", 1), ("unchanged", 0), ("failed", 0)]
    );
}

#[test]
fn a_token_checked_with_a_key_that_was_withdrawn_is_forgotten() {
    let server = Server::start();
    let (old, new) = (Signer::ecdsa("ES256"), Signer::ecdsa("ES256"));
    server.answer_keys(&[&old]);
    let plugin = plugin(&server, json!({ "early_refresh_seconds": 1 }));
    let of_old = request(&old);
    assert!(is_identified(&*plugin, &of_old));
    assert!(is_identified(&*plugin, &of_old));
    server.request();
    assert!(
        !is_identified(&*plugin, &request(&new)),
        "its kid is not known yet"
    );
    server.answer_keys(&[&new]);
    server.request();
    let same = same_source(&server, 1);
    assert!(same.wait_for_fetches(2, PATIENCE));
    assert!(is_identified(&*plugin, &request(&new)));
    assert!(!is_identified(&*plugin, &of_old), "remembered past its key");
}

/// The running source of a plugin made with these settings.
fn same_source(server: &Server, early_seconds: u64) -> Arc<Source> {
    Source::of(Origin {
        timing: Timing {
            interval: Duration::from_secs(300),
            early_min: Duration::from_secs(early_seconds),
            backoff_min: Duration::from_secs(1),
        },
        ..origin(server, Duration::ZERO)
    })
    .unwrap()
}

#[test]
fn what_is_not_a_good_answer_keeps_the_last_good_set() {
    let (server, signer, other) = (
        Server::start(),
        Signer::ecdsa("ES256"),
        Signer::ecdsa("ES256"),
    );
    let elsewhere = Server::start();
    elsewhere.answer_keys(&[&other]);
    server.answer_keys(&[&signer]);
    let source = Source::of(origin(&server, Duration::ZERO)).unwrap();
    assert!(source.wait_for_fetches(1, PATIENCE));
    let good = source.keys().version();
    let huge = format!("{{\"keys\":[],\"pad\":\"{}\"}}", "x".repeat(1 << 20));
    let many = json!({ "keys": vec![signer.jwk(); 101] }).to_string();
    let symmetric = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }).to_string();
    let bad = [
        "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".into(),
        format!(
            "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
            elsewhere.url
        ),
        "HTTP/1.1 204 No Content\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\":[".into(),
        "nonsense\r\n\r\n".into(),
        String::new(),
        ok("not json"),
        ok("{\"keys\":[]}"),
        ok(&huge),
        ok(&many),
        ok(&symmetric),
    ];
    let failures = bad.len() as u64;
    source.ask_early();
    for answer in bad {
        server.answer(answer);
    }
    assert!(source.wait_for_fetches(1 + failures, PATIENCE));
    assert_eq!(count(&source.counters(), "failed"), failures);
    assert_eq!(source.keys().version(), good);
    assert!(
        elsewhere.requests.try_recv().is_err(),
        "a redirect was followed"
    );
    server.answer_keys(&[&signer]);
    assert!(source.wait_for_fetches(2 + failures, PATIENCE));
    assert_eq!(count(&source.counters(), "unchanged"), 1);
    assert_eq!(
        source.keys().version(),
        good,
        "the same document keeps remembered tokens"
    );
}

/// Settles an instance that is new, as a load of the configuration does.
fn settle(server: &Server, extra: Value) -> (Arc<dyn Plugin>, Result<(), String>) {
    let plugin = unsettled(server, extra);
    let settled = plugin.settle(Instant::now() + PATIENCE);
    (plugin, settled.map_err(|problem| problem.message))
}

#[test]
fn another_timing_for_the_same_url_goes_on_with_the_keys_that_are_there() {
    let (server, signer) = (Server::start(), Signer::ecdsa("ES256"));
    server.answer_keys(&[&signer]);
    let first = plugin(&server, json!({}));
    // Nobody answers the new source's fetch.
    let (second, settled) = settle(&server, json!({ "refresh_seconds": 600 }));
    assert_eq!(settled, Ok(()));
    drop(first);
    assert!(is_identified(&*second, &request(&signer)));
    // What its own algorithms do not allow is not handed on.
    let allowed = json!({ "algorithms": ["EdDSA"], "refresh_seconds": 700 });
    let third = unsettled(&server, allowed);
    assert!(!is_identified(&*third, &request(&signer)));
}

#[test]
fn a_first_fetch_that_fails_is_told_to_all_until_the_source_is_in_force() {
    let server = Server::start();
    server.answer("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    let (first, settled) = settle(&server, json!({}));
    let message = settled.unwrap_err();
    assert!(message.contains("status 500"), "{message}");
    assert!(!message.contains("canary"), "{message}");
    // As where a load is begun a second time before the first one has ended.
    assert!(settle(&server, json!({})).1.is_err());
    // Who shares a source that is in force without keys takes none from anybody.
    first.is_in_force();
    assert_eq!(settle(&server, json!({})).1, Ok(()));
}

#[test]
fn the_thread_ends_with_the_last_user() {
    let (server, signer) = (Server::start(), Signer::ecdsa("ES256"));
    server.answer_keys(&[&signer]);
    let source = Source::of(origin(&server, Duration::ZERO)).unwrap();
    assert!(source.wait_for_fetches(1, PATIENCE));
    let shared = Arc::downgrade(&source.shared);
    drop(source);
    let deadline = Instant::now() + PATIENCE;
    while shared.strong_count() > 0 {
        assert!(Instant::now() < deadline, "the thread still runs");
        thread::yield_now();
    }
}

#[test]
fn https_is_fetched_from_a_server_that_proves_its_name_and_from_no_other() {
    let signer = Signer::ecdsa("ES256");
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let private = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![certificate.clone()], private.into())
    .unwrap();
    let tls = Arc::new(tls);
    let server = Server::start_with("https", move |stream| {
        let connection = rustls::ServerConnection::new(Arc::clone(&tls)).ok()?;
        Some(Box::new(rustls::StreamOwned::new(connection, stream)))
    });
    let trusting = |authority: &[u8]| {
        let origin = Origin {
            authorities: Some(vec![authority.to_vec()]),
            ..origin(&server, Duration::ZERO)
        };
        Source::of(origin).unwrap()
    };
    let stranger = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let refused = trusting(stranger.cert.der());
    assert!(refused.wait_for_fetches(1, PATIENCE));
    assert_eq!(refused.keys().len(), 0);
    assert!(count(&refused.counters(), "failed") >= 1);
    drop(refused);

    server.answer_keys(&[&signer]);
    let source = trusting(&certificate);
    assert!(source.wait_for_fetches(1, PATIENCE));
    assert_eq!(source.keys().len(), 1);
}
