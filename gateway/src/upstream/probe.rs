//! One health check: connects to an endpoint and, where asked to, wants a status of a path.
//!
//! Small on purpose: HTTP/1.1, one request a connection, and of the answer the status line alone, at
//! most [`ANSWER_BYTES_MAX`] of it, or where a text is wanted, so much more that it is found. Errors are sentences for the log and the admin API. The caller
//! bounds the time.

mod document;

pub(super) use document::document;

use super::checks::TlsSettings;
use super::endpoint::Endpoint;
use hub_config::runtime::{EndpointAddress, HealthProbe};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Most bytes of an answer that are read, heads of informational answers included.
const ANSWER_BYTES_MAX: usize = 4_096;
/// Most bytes behind them in which a text is looked for.
const BODY_BYTES_MAX: usize = 65_536;

/// How to make a TLS connection, and to whom.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// Builds [`Tls`] values and reads the system's authorities at most once.
#[derive(Default)]
pub(super) struct Trust {
    system: Option<Result<Arc<RootCertStore>, String>>,
}

/// Checks once.
///
/// Where the cluster speaks TLS, a handshake is part of the connection: an endpoint with a certificate
/// that has expired cannot be used, though its port is open.
pub(super) async fn probe(
    endpoint: &Endpoint,
    probe: &HealthProbe,
    tls: Option<&Result<Tls, String>>,
) -> Result<(), String> {
    let tls = tls.map(Result::as_ref).transpose().map_err(Clone::clone)?;
    match endpoint.address() {
        EndpointAddress::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(cannot_connect)?;
            secure(stream, tls, endpoint, probe).await
        }
        EndpointAddress::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(cannot_connect)?;
            secure(stream, tls, endpoint, probe).await
        }
    }
}

fn cannot_connect(error: std::io::Error) -> String {
    format!("cannot connect: {error}")
}

async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    tls: Option<&Tls>,
    endpoint: &Endpoint,
    probe: &HealthProbe,
) -> Result<(), String> {
    match tls {
        None => ask(stream, endpoint, probe).await,
        Some(tls) => {
            let handshake = tls.connect(stream).await;
            let stream = handshake.map_err(|error| format!("TLS handshake failed: {error}"))?;
            ask(stream, endpoint, probe).await
        }
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    endpoint: &Endpoint,
    probe: &HealthProbe,
) -> Result<(), String> {
    let HealthProbe::Http {
        path,
        host,
        status,
        body_contains,
    } = probe
    else {
        return Ok(());
    };
    let host = match (host, endpoint.address()) {
        (Some(host), _) => host,
        (None, EndpointAddress::Tcp(_)) => endpoint.name(),
        (None, EndpointAddress::Unix(_)) => "localhost",
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: hub-gateway-health\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    let broke = |error: std::io::Error| format!("the connection broke: {error}");
    stream.write_all(request.as_bytes()).await.map_err(broke)?;
    // A TLS stream may hold back what was written until it is flushed.
    stream.flush().await.map_err(broke)?;
    let mut answer = Vec::new();
    loop {
        if let Some((got, head)) = final_status(&answer, *status)? {
            if got != *status {
                return Err(format!("answered {got}, not {status}"));
            }
            return match body_contains {
                None => Ok(()),
                Some(text) => find(stream, answer, head, text).await,
            };
        }
        let room = ANSWER_BYTES_MAX - answer.len();
        if room == 0 {
            return Err(format!("no status in the first {ANSWER_BYTES_MAX} bytes"));
        }
        let mut part = (&mut stream).take(room as u64);
        if part.read_buf(&mut answer).await.map_err(broke)? == 0 {
            return Err("the connection was closed before an answer".into());
        }
    }
}

/// Looks for `text` behind the head, which begins at `head`, of an answer of which `answer` has been read.
async fn find<S: AsyncRead + Unpin>(
    mut stream: S,
    mut answer: Vec<u8>,
    head: usize,
    text: &str,
) -> Result<(), String> {
    let finder = memchr::memmem::Finder::new(text);
    let bytes_max = ANSWER_BYTES_MAX + BODY_BYTES_MAX;
    loop {
        let rest = &answer[head..];
        let body = memchr::memmem::find(rest, b"\r\n\r\n").map(|end| &rest[end + 4..]);
        if body.is_some_and(|body| finder.find(body).is_some()) {
            return Ok(());
        }
        let mut part = (&mut stream).take((bytes_max - answer.len()) as u64);
        // What is cut off in the middle does not hold it either.
        if matches!(part.read_buf(&mut answer).await, Ok(0) | Err(_)) {
            return Err(format!("{text:?} is not in the body"));
        }
    }
}

/// The first status in `answer` that is wanted or ends the exchange, and where its line begins; `None` while
/// more is needed.
fn final_status(bytes: &[u8], wanted: u16) -> Result<Option<(u16, usize)>, String> {
    let mut answer = bytes;
    loop {
        let Some(end) = answer.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let status = status(&answer[..end]).ok_or("the answer is not HTTP/1")?;
        // 100, 102, 103 and the like precede the answer; 101 is one.
        let precedes = (100..200).contains(&status) && status != 101;
        if status == wanted || !precedes {
            return Ok(Some((status, bytes.len() - answer.len())));
        }
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let Some(head) = head else { return Ok(None) };
        answer = &answer[head + 4..];
    }
}

/// The status in a line such as `HTTP/1.1 200 OK`.
fn status(line: &[u8]) -> Option<u16> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (digits, after) = rest.get(2..)?.split_at_checked(3)?;
    let well_formed = rest[0].is_ascii_digit()
        && rest[1] == b' '
        && digits.iter().all(u8::is_ascii_digit)
        && (after.is_empty() || after[0] == b' ');
    well_formed.then(|| {
        digits
            .iter()
            .fold(0, |n, digit| n * 10 + u16::from(digit - b'0'))
    })
}

// === impl Tls ===

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Shakes hands over `stream`.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> std::io::Result<TlsStream<S>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

// === impl Trust ===

impl Trust {
    /// What a connection under these settings needs, or why none can be made.
    pub(super) fn tls(&mut self, settings: &TlsSettings) -> Result<Tls, String> {
        let roots = match &settings.authorities {
            Some(authorities) => Arc::new(store(authorities.iter().cloned().map(Into::into))?),
            None => self.system.get_or_insert_with(system).clone()?,
        };
        let provider = CryptoProvider::get_default()
            .cloned()
            .unwrap_or_else(|| Arc::new(ring::default_provider()));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(settings.server_name.clone())
            .map_err(|error| format!("server_name {:?}: {error}", settings.server_name))?;
        Ok(Tls {
            connector: TlsConnector::from(Arc::new(config)),
            name,
        })
    }
}

fn system() -> Result<Arc<RootCertStore>, String> {
    let certificates = rustls_native_certs::load_native_certs()
        .map_err(|error| format!("the system's certificate store cannot be read: {error}"))?;
    store(certificates.into_iter()).map(Arc::new)
}

/// Takes what can be used: system stores hold certificates that rustls does not know what to do with.
fn store(
    certificates: impl Iterator<Item = CertificateDer<'static>>,
) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates);
    if store.is_empty() {
        return Err("there is no usable certificate authority".into());
    }
    Ok(store)
}

#[cfg(test)]
mod tests;
