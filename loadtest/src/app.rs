//! The application behind the rollout benches: one colour of it, on a thread of its own, good until it
//! is told to be bad.
//!
//! `/items/N` answers payload N, `/drip/N` the same in pieces with pauses, `/echo` length and digest of
//! what it was sent, `/ws` sends every message back, `/healthz` says `ok`. Answers take as long as a small
//! application's: lognormal, 5 ms in the median, 16 ms at the 99th percentile.
//!
//! Invariant: what a fault does to probes of `/healthz` is part of the fault; probes are not counted.

use crate::client::{PIECE_PAUSE, PIECES, Payloads, digest_line};
use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hub_testkit::websocket::{self, Peer, Role, accept_key};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Time that an answer takes: its median, and the spread of its logarithm.
const MEDIAN_MS: f64 = 5.0;
const SIGMA: f64 = 0.5;
/// The 99th percentile that follows.
const P99_MS: f64 = 16.0;

/// What is wrong with a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Answers 500. Probes are answered well.
    Errors,
    /// 3 % of the answers take three times the usual p99.
    SlowTail,
    /// Answers take 5 ms longer with every 100 requests.
    Growing,
    /// Takes requests and never answers; probes are answered well.
    Hangs,
    /// Answers an upgrade with 400, and all else well.
    RefusesWebSocket,
    /// Answers the first tenant that comes with 500, all others well.
    OneTenant,
    /// Answers 200 with the wrong body, probes too.
    WrongBody,
    /// Two good seconds, then two in which all is answered 503, probes too, by turns.
    Flapping,
}

/// How the colour can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Up,
    /// Nobody listens; connections that were there are gone.
    Down,
    /// Ends and begins anew every second, as under a service manager that restarts what has crashed: up
    /// for a second, down for a fifth of one.
    Loop,
}

/// A running application. It ends with this value.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    reach: watch::Sender<Reach>,
}

#[derive(Debug)]
struct Shared {
    colour: &'static str,
    payloads: Payloads,
    state: Mutex<State>,
    /// Requests of clients.
    requests: AtomicU64,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    /// When it began, and how many requests had come by then.
    since: Instant,
    requests: u64,
    /// First time that a client felt it.
    first_bad: Option<Instant>,
    victim: Option<String>,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl App {
    /// Listens on a free port of loopback. With `tls`, speaks it.
    pub(crate) fn start(
        colour: &'static str,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            colour,
            payloads: Payloads::new(),
            state: Mutex::new(State {
                fault: Fault::None,
                since: Instant::now(),
                requests: 0,
                first_bad: None,
                victim: None,
            }),
            requests: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the application's runtime cannot be started")?;
        let listener = {
            let _inside = runtime.enter();
            listen("127.0.0.1:0".parse().context("a constant address")?)?
        };
        let address = listener.local_addr().context("the socket has no address")?;
        let (reach, watched) = watch::channel(Reach::Up);
        let served = Arc::clone(&shared);
        // It ends when the sender is gone.
        std::thread::Builder::new()
            .name(colour.to_owned())
            .spawn(move || {
                runtime.block_on(serve(
                    listener,
                    address,
                    served,
                    tls.map(TlsAcceptor::from),
                    watched,
                ));
            })
            .context("the application's thread cannot be started")?;
        Ok(Self {
            address,
            shared,
            reach,
        })
    }

    /// From now on it is like this.
    pub(crate) fn be(&self, fault: Fault) {
        let mut state = self.shared.state();
        state.fault = fault;
        state.since = Instant::now();
        state.requests = self.shared.requests.load(Ordering::Relaxed);
    }

    /// Nobody listens any more, and every connection is gone.
    pub(crate) fn die(&self) {
        self.shared
            .state()
            .first_bad
            .get_or_insert_with(Instant::now);
        self.reach.send_replace(Reach::Down);
    }

    /// It restarts every second.
    pub(crate) fn restart_again_and_again(&self) {
        self.reach.send_replace(Reach::Loop);
    }

    /// When a client first felt what is wrong.
    pub(crate) fn first_bad(&self) -> Option<Instant> {
        self.shared.state().first_bad
    }
}

// === impl Shared ===

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present fault, where it hits this request; and the requests since it began.
    fn fault(&self, request: &Request<Incoming>, is_probe: bool) -> (Fault, u64) {
        let count = self.requests.load(Ordering::Relaxed);
        let mut state = self.state();
        let since = count.saturating_sub(state.requests);
        let hits = match state.fault {
            Fault::None => false,
            Fault::WrongBody => true,
            Fault::Flapping => state.since.elapsed().as_secs() % 4 >= 2,
            Fault::Errors | Fault::Hangs => !is_probe,
            Fault::Growing => !is_probe && since >= 100,
            Fault::SlowTail => !is_probe && rand::rng().random_bool(0.03),
            Fault::RefusesWebSocket => request.headers().contains_key(header::UPGRADE),
            Fault::OneTenant if is_probe => false,
            Fault::OneTenant => {
                let tenant = tenant(request);
                state.victim.get_or_insert_with(|| tenant.to_owned()) == tenant
            }
        };
        if !hits {
            return (Fault::None, since);
        }
        if !is_probe {
            state.first_bad.get_or_insert_with(Instant::now);
        }
        (state.fault, since)
    }
}

fn tenant(request: &Request<Incoming>) -> &str {
    let value = request.headers().get("x-location-id");
    value.and_then(|value| value.to_str().ok()).unwrap_or("-")
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4().context("no socket")?;
    socket.set_reuseaddr(true).context("no SO_REUSEADDR")?;
    socket
        .bind(address)
        .with_context(|| format!("{address} cannot be bound"))?;
    socket.listen(1_024).context("no listening socket")
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    mut reach: watch::Receiver<Reach>,
) {
    let mut listener = Some(listener);
    loop {
        let mode = *reach.borrow_and_update();
        if mode == Reach::Down {
            listener = None;
        } else if listener.is_none() {
            listener = listen(address).ok();
        }
        // Dropped with all connections as soon as something changes.
        let serving = accept(listener.as_ref(), &shared, tls.as_ref());
        let changed = tokio::select! {
            changed = reach.changed() => changed,
            () = serving => Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)), if mode == Reach::Loop => {
                // A restart before the first client hurts nobody.
                if shared.requests.load(Ordering::Relaxed) > 0 {
                    shared.state().first_bad.get_or_insert_with(Instant::now);
                }
                listener = None;
                tokio::time::sleep(Duration::from_millis(200)).await;
                Ok(())
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Takes connections until it is dropped, and they with it.
async fn accept(listener: Option<&TcpListener>, shared: &Arc<Shared>, tls: Option<&TlsAcceptor>) {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (shared, tls) = (Arc::clone(shared), tls.cloned());
        connections.spawn(async move { secure(stream, tls, shared).await });
    }
}

async fn secure(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match tls {
        None => talk(stream, shared).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                talk(stream, shared).await;
            }
        }
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
    // How a connection ends is seen by its client.
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await
        .ok();
}

async fn answer(
    shared: Arc<Shared>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let is_probe = path == "/healthz";
    if !is_probe {
        shared.requests.fetch_add(1, Ordering::Relaxed);
    }
    let (fault, since) = shared.fault(&request, is_probe);
    let mut good = Response::builder()
        .header("x-colour", shared.colour)
        .header("x-seen-tenant", tenant(&request));
    let number = || path.rsplit('/').next()?.parse::<usize>().ok();
    let body = match path.as_str() {
        "/healthz" => full(Bytes::from_static(b"ok\n")),
        "/echo" => full(digest(request.body_mut()).await?),
        "/ws" if fault != Fault::RefusesWebSocket && fault != Fault::Errors => {
            let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
            let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
            good = good
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_ACCEPT, accept_key(key));
            tokio::spawn(echo(hyper::upgrade::on(&mut request)));
            full(Bytes::new())
        }
        path if path.starts_with("/items/") || path.starts_with("/drip/") => {
            let Some(number) = number() else {
                return Ok(plain(&shared, StatusCode::NOT_FOUND));
            };
            let payload = shared.payloads.body(number).clone();
            if path.starts_with("/drip/") {
                good = good.header(header::CONTENT_LENGTH, payload.len());
                drip(payload)
            } else {
                full(payload)
            }
        }
        _ => plain(&shared, StatusCode::NOT_FOUND).into_body(),
    };
    if !is_probe {
        let mut wait = usual_time();
        match fault {
            Fault::SlowTail => wait = Duration::from_secs_f64(3.0 * P99_MS / 1e3),
            Fault::Growing => wait += Duration::from_millis(5 * (since / 100)),
            Fault::Hangs => return std::future::pending().await,
            _ => {}
        }
        tokio::time::sleep(wait).await;
    }
    match fault {
        Fault::Errors | Fault::OneTenant => {
            return Ok(plain(&shared, StatusCode::INTERNAL_SERVER_ERROR));
        }
        Fault::Flapping => return Ok(plain(&shared, StatusCode::SERVICE_UNAVAILABLE)),
        Fault::RefusesWebSocket => return Ok(plain(&shared, StatusCode::BAD_REQUEST)),
        Fault::WrongBody => {
            let seen = good
                .headers_ref()
                .and_then(|known| known.get("x-seen-tenant"));
            let mut wrong = plain(&shared, StatusCode::OK);
            if let Some(seen) = seen {
                wrong.headers_mut().insert("x-seen-tenant", seen.clone());
            }
            *wrong.body_mut() = full(Bytes::from_static(b"It works!\n"));
            return Ok(wrong);
        }
        _ => {}
    }
    Ok(good.body(body).expect("constant names and checked values"))
}

fn plain(shared: &Shared, status: StatusCode) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("x-colour", shared.colour)
        .body(full(Bytes::from_static(b"-\n")))
        .expect("a constant answer")
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

/// The payload in pieces.
fn drip(payload: Bytes) -> Body {
    let size = payload.len().div_ceil(PIECES);
    let pieces = futures::stream::unfold(payload, move |mut left| async move {
        if left.is_empty() {
            return None;
        }
        tokio::time::sleep(PIECE_PAUSE).await;
        let piece = left.split_to(size.min(left.len()));
        Some((Ok(Frame::data(piece)), left))
    });
    StreamBody::new(pieces).boxed_unsync()
}

async fn digest(body: &mut Incoming) -> Result<Bytes, hyper::Error> {
    let mut hash = Sha256::new();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame?.into_data() {
            bytes += piece.len() as u64;
            hash.update(&piece);
        }
    }
    Ok(digest_line(bytes, &hash.finalize()))
}

/// Sends every message back, as a server does.
async fn echo(upgraded: hyper::upgrade::OnUpgrade) {
    let Ok(upgraded) = upgraded.await else {
        return;
    };
    let mut peer = Peer::over(TokioIo::new(upgraded), Role::Server);
    let (sender, receiver) = peer.halves();
    while let Ok(Some(frame)) = receiver.try_frame().await {
        let back = websocket::Frame::new(frame.opcode, frame.payload);
        if sender.try_send(&back).await.is_err() {
            return;
        }
    }
}

/// Lognormal: Box and Muller's transform of two even draws.
fn usual_time() -> Duration {
    let mut rng = rand::rng();
    let (a, b): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    Duration::from_secs_f64(MEDIAN_MS / 1e3 * (SIGMA * normal).exp())
}
