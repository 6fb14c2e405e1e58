use super::*;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

fn http(host: Option<&str>, status: u16) -> HealthProbe {
    HealthProbe::Http {
        path: "/up?deep=1".into(),
        host: host.map(Into::into),
        status,
        body_contains: None,
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::new(address.to_string(), EndpointAddress::Tcp(address))
}

/// Reads a request's head, if one comes, answers, closes; the head is the task's result.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: Vec<u8>) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap_or(0) > 0 {}
    // The check may have seen enough and left before all is written.
    let _left = stream.write_all(&answer).await;
    let _left = stream.shutdown().await;
    String::from_utf8(head).expect("ASCII")
}

async fn serve_once(answer: impl Into<Vec<u8>>) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let answer = answer.into();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        exchange(stream, answer).await
    });
    (address, task)
}

async fn outcome_of(answer: impl Into<Vec<u8>>, wanted: u16) -> Result<(), String> {
    let (address, _task) = serve_once(answer).await;
    probe(&endpoint(address), &http(None, wanted), None).await
}

#[tokio::test]
async fn the_request_names_path_and_host() {
    let (address, task) = serve_once("HTTP/1.1 200 OK\r\n\r\n").await;
    let outcome = probe(&endpoint(address), &http(None, 200), None).await;
    assert_eq!(outcome, Ok(()));
    let head = task.await.expect("served");
    assert!(head.starts_with("GET /up?deep=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nHost: {address}\r\n")), "{head}");
    let (address, task) = serve_once("HTTP/1.1 200 OK\r\n\r\n").await;
    let outcome = probe(&endpoint(address), &http(Some("app.test"), 200), None).await;
    assert_eq!(outcome, Ok(()));
    assert!(
        task.await
            .expect("served")
            .contains("\r\nHost: app.test\r\n")
    );
}

#[tokio::test]
async fn only_the_wanted_status_is_a_success() {
    assert_eq!(outcome_of("HTTP/1.1 204\r\n\r\n", 204).await, Ok(()));
    let refused = outcome_of("HTTP/1.1 503 Busy\r\n\r\n", 200).await;
    assert_eq!(refused, Err("answered 503, not 200".into()));
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(outcome_of(early, 200).await, Ok(()));
}

#[tokio::test]
async fn a_wanted_text_must_stand_in_the_body() {
    let outcome = async |answer: String, text: &str| {
        let (address, _task) = serve_once(answer).await;
        let check = HealthProbe::Http {
            path: "/".into(),
            host: None,
            status: 200,
            body_contains: Some(text.into()),
        };
        probe(&endpoint(address), &check, None).await
    };
    let answer = |body: &str| format!("HTTP/1.1 200 OK\r\nX-State: ready\r\n\r\n{body}");
    assert_eq!(outcome(answer("state: ready"), "ready").await, Ok(()));
    let late = format!("{}ready", "x".repeat(60_000));
    assert_eq!(outcome(answer(&late), "ready").await, Ok(()));
    let missing = Err("\"ready\" is not in the body".to_owned());
    // Neither the head's nor what comes too late.
    for body in ["starting", &format!("{}ready", "x".repeat(80_000))] {
        assert_eq!(outcome(answer(body), "ready").await, missing);
    }
}

#[tokio::test]
async fn what_is_not_an_answer_is_a_failure() {
    let closed = Err("the connection was closed before an answer".to_owned());
    assert_eq!(outcome_of("", 200).await, closed);
    assert_eq!(outcome_of("HTTP/1.1 200", 200).await, closed);
    let garbage = Err("the answer is not HTTP/1".to_owned());
    for answer in [
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 2000 OK\r\n",
        "HTTP/1.1  200\r\n",
        "HTTP/2 200\r\n",
        "\r\n",
    ] {
        assert_eq!(outcome_of(answer, 200).await, garbage, "{answer:?}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_read_up_to_a_bound() {
    let outcome = outcome_of(vec![b'x'; 1 << 20], 200).await;
    assert_eq!(outcome, Err("no status in the first 4096 bytes".into()));
}

#[tokio::test]
async fn a_closed_port_is_a_failure_and_an_open_one_is_enough_for_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let open = endpoint(listener.local_addr().expect("bound"));
    assert_eq!(probe(&open, &HealthProbe::Tcp, None).await, Ok(()));
    drop(listener);
    let error = probe(&open, &HealthProbe::Tcp, None)
        .await
        .expect_err("closed");
    assert!(error.starts_with("cannot connect: "), "{error}");
}

#[tokio::test]
async fn unix_sockets_are_checked_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).expect("a free name");
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        exchange(stream, b"HTTP/1.1 200 OK\r\n\r\n".to_vec()).await
    });
    let endpoint = Endpoint::new("unix:app.sock".into(), EndpointAddress::Unix(path));
    assert_eq!(probe(&endpoint, &http(None, 200), None).await, Ok(()));
    assert!(
        task.await
            .expect("served")
            .contains("\r\nHost: localhost\r\n")
    );
}

/// An authority, and a server that it vouches for under the name `app.test`.
async fn tls_server() -> (SocketAddr, Vec<u8>) {
    let authority_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, authority_key).expect("a certificate");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["app.test".to_owned()]).expect("one name");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .expect("key and certificate match");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            // A client that does not trust us breaks off the handshake.
            if let Ok(stream) = acceptor.accept(stream).await {
                exchange(stream, b"HTTP/1.1 200 OK\r\n\r\n".to_vec()).await;
            }
        }
    });
    (address, authority.der().to_vec())
}

#[tokio::test]
async fn tls_is_checked_against_name_and_authority() {
    let (address, authority) = tls_server().await;
    let (_, stranger) = tls_server().await;
    let outcome = async |name: &str, authority: &[u8], check: HealthProbe| {
        let settings = TlsSettings {
            server_name: name.into(),
            authorities: Some(Arc::new(vec![authority.to_vec()])),
        };
        let tls = Trust::default().tls(&settings);
        probe(&endpoint(address), &check, Some(&tls)).await
    };
    assert_eq!(
        outcome("app.test", &authority, http(None, 200)).await,
        Ok(())
    );
    assert_eq!(
        outcome("app.test", &authority, HealthProbe::Tcp).await,
        Ok(())
    );
    for (name, authority) in [("other.test", &authority), ("app.test", &stranger)] {
        for check in [http(None, 200), HealthProbe::Tcp] {
            let error = outcome(name, authority, check)
                .await
                .expect_err("not trusted");
            assert!(error.starts_with("TLS handshake failed: "), "{error}");
        }
    }
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_is_said_at_each_check() {
    let settings = TlsSettings {
        server_name: "app.test".into(),
        authorities: Some(Arc::new(vec![b"not DER".to_vec()])),
    };
    let tls = Trust::default().tls(&settings);
    let (address, _task) = serve_once("").await;
    let outcome = probe(&endpoint(address), &HealthProbe::Tcp, Some(&tls)).await;
    assert_eq!(
        outcome,
        Err("there is no usable certificate authority".into())
    );
}
