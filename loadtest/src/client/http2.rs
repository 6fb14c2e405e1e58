//! HTTP/2 over TLS, on a few connections that many requests share.

use super::check::Check;
use super::payload::Payloads;
use super::record::{Answer, Outcome};
use super::request::Request;
use super::{PIECE_PAUSE, PIECES, Target};
use bytes::Bytes;
use h2::client::SendRequest;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// The name in the certificate, and the host of every request.
pub(crate) const HOST: &str = "hub.example";
/// Connections.
const LANES: usize = 4;
/// Requests after which a connection is replaced.
const USED_MAX: u32 = 2_000;
/// Connections that a request may be tried on, as long as none has taken it.
const TRIES: usize = 3;

/// The connections.
pub(super) struct Lanes {
    address: SocketAddr,
    tls: TlsConnector,
    lanes: [Mutex<Option<Lane>>; LANES],
    turn: AtomicUsize,
    /// Requests that a connection had not begun when it was closed (RFC 9113, 6.8 and 8.7), and that
    /// went to another one.
    resent: AtomicU64,
}

struct Lane {
    requests: SendRequest<Bytes>,
    open: Arc<AtomicBool>,
    used: u32,
}

/// What became of a try.
enum Tried {
    Answered(Answer),
    /// The server says that it has not begun with it, or nothing was sent.
    NotBegun,
}

impl Lanes {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            address: target.secure,
            tls: TlsConnector::from(Arc::clone(&target.tls)),
            lanes: std::array::from_fn(|_| Mutex::new(None)),
            turn: AtomicUsize::new(0),
            resent: AtomicU64::new(0),
        }
    }

    /// Requests that were sent again because a connection was closed before it took them.
    pub(super) fn resent(&self) -> u64 {
        self.resent.load(Ordering::Relaxed)
    }

    pub(super) async fn ask(&self, request: &Request<'_>, payloads: &Payloads) -> Answer {
        let lane = self.turn.fetch_add(1, Ordering::Relaxed) % LANES;
        for _ in 0..TRIES {
            let (requests, open) = match self.lane(lane).await {
                Ok(found) => found,
                Err(error) => {
                    return Answer {
                        why: Some(error),
                        ..Answer::failed(Outcome::Refused)
                    };
                }
            };
            match exchange(requests, request, payloads).await {
                Tried::Answered(answer) => return answer,
                Tried::NotBegun => {
                    open.store(false, Ordering::Relaxed);
                    self.resent.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Answer::failed(Outcome::Reset)
    }

    /// A connection that takes requests, as far as is known.
    async fn lane(&self, number: usize) -> Result<(SendRequest<Bytes>, Arc<AtomicBool>), String> {
        let mut lane = self.lanes[number].lock().await;
        let usable = |lane: &&mut Lane| lane.used < USED_MAX && lane.open.load(Ordering::Relaxed);
        if let Some(known) = lane.as_mut().filter(usable) {
            known.used += 1;
            return Ok((known.requests.clone(), Arc::clone(&known.open)));
        }
        let requests = self.connect().await?;
        let open = Arc::clone(&requests.1);
        let fresh = lane.insert(Lane {
            requests: requests.0,
            open: requests.1,
            used: 1,
        });
        Ok((fresh.requests.clone(), open))
    }

    async fn connect(&self) -> Result<(SendRequest<Bytes>, Arc<AtomicBool>), String> {
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|error| error.kind().to_string())?;
        stream
            .set_nodelay(true)
            .map_err(|error| error.kind().to_string())?;
        let name = ServerName::try_from(HOST).map_err(|error| error.to_string())?;
        let stream = self
            .tls
            .connect(name, stream)
            .await
            .map_err(|error| format!("TLS: {error}"))?;
        let (requests, connection) = h2::client::handshake(stream)
            .await
            .map_err(|error| format!("HTTP/2: {error}"))?;
        let open = Arc::new(AtomicBool::new(true));
        let closed = Arc::clone(&open);
        tokio::spawn(async move {
            // How it ended, its streams have been told.
            connection.await.ok();
            closed.store(false, Ordering::Relaxed);
        });
        Ok((requests, open))
    }
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

async fn exchange(
    requests: SendRequest<Bytes>,
    request: &Request<'_>,
    payloads: &Payloads,
) -> Tried {
    let Ok(mut requests) = requests.ready().await else {
        return Tried::NotBegun;
    };
    let body = payloads.body(request.payload);
    let method = if request.kind.is_post() {
        "POST"
    } else {
        "GET"
    };
    let mut head = http::Request::builder()
        .method(method)
        .uri(format!("https://{HOST}{}", request.path()))
        .header("user-agent", "hub-loadtest")
        .header("x-location-id", request.tenant);
    if request.kind.is_post() {
        head = head.header("content-length", body.len());
    }
    let head = head.body(()).expect("constant names and plain values");
    let Ok((answer, mut upload)) = requests.send_request(head, !request.kind.is_post()) else {
        return Tried::NotBegun;
    };
    // An upload that breaks has an answer that says why, or none.
    if request.kind.is_slow_upload() {
        let size = body.len().div_ceil(PIECES);
        for at in (0..body.len()).step_by(size) {
            tokio::time::sleep(PIECE_PAUSE).await;
            let piece = body.slice(at..body.len().min(at + size));
            if upload.send_data(piece, at + size >= body.len()).is_err() {
                break;
            }
        }
    } else if request.kind.is_post() {
        upload.send_data(body.clone(), true).ok();
    }
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(error) if not_begun(&error) => return Tried::NotBegun,
        Err(error) => {
            return Tried::Answered(Answer {
                why: Some(error.to_string()),
                ..Answer::failed(Outcome::Reset)
            });
        }
    };
    let expected = match request.kind.is_post() {
        true => payloads.receipt(request.payload),
        false => body,
    };
    let mut check = Check::new(expected, request.tenant, answer.status().as_u16());
    for (name, value) in answer.headers() {
        check.header(name.as_str(), value.as_bytes());
    }
    let mut data = answer.into_body();
    while let Some(piece) = data.data().await {
        let Ok(piece) = piece else {
            return Tried::Answered(check.broken());
        };
        check.piece(&piece);
        if data.flow_control().release_capacity(piece.len()).is_err() {
            return Tried::Answered(check.broken());
        }
    }
    Tried::Answered(check.end())
}

/// The server promises that the request has done nothing yet.
fn not_begun(error: &h2::Error) -> bool {
    error.reason() == Some(h2::Reason::REFUSED_STREAM)
        || error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}
