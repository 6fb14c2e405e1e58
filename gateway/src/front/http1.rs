//! HTTP/1 connections: read a head, check it, run the stages, then refuse or hand over; again, until
//! one side has had enough.

use super::app::{Connection, Front};
use super::body::{self, MessageBody};
use super::downstream::{Downstream, Watchdog};
use super::head::{Framing, Head, HeadLimits, HeadReader, Upgrade};
use super::listener::Fresh;
use crate::lanes::general::request::Outgoing;
use crate::lanes::general::session::{Home, Http1Session, Returned, Terms};
use crate::lanes::general::{Admitted, HANDOVER};
use crate::respond::{Answer, Circumstances};
use crate::stages::{self, BodyLength, Exchange, record};
use crate::websocket::open as websocket;
use hub_config::runtime::Listener;
use hub_core::{HeaderField, Headers, Method, Reason, Refusal, RequestId, RequestView, Version};
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use smallvec::SmallVec;
use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long a drain lets a connection of an inherited socket take for its first request to begin.
pub(crate) const FIRST_REQUEST_MAX: Duration = Duration::from_secs(1);

/// What the stages said of one request.
enum Decision {
    Forward(Box<Exchange>),
    Refuse { answer: Vec<u8>, close: bool },
}

/// What the requests of one connection share.
struct Conversation<'c> {
    front: &'c Arc<Front>,
    connection: &'c Arc<Connection>,
    shutdown: ShutdownWatch,
    /// Where the lane leaves the connection after each request.
    home: Arc<Home>,
    watchdog: Watchdog,
    requests: u32,
}

/// Serves one connection until it ends.
pub(super) async fn serve(
    front: &Arc<Front>,
    mut downstream: Box<Downstream>,
    connection: &Arc<Connection>,
    mut fresh: Option<Fresh>,
) {
    let mut shutdown = front.hub.lifecycle().idle_end();
    let mut conversation = Conversation {
        front,
        connection,
        shutdown: shutdown.clone(),
        home: Arc::default(),
        watchdog: Watchdog::default(),
        requests: 0,
    };
    let is_fresh = AtomicBool::new(fresh.is_some());
    let mut drained = pin!(drained(&mut shutdown, &is_fresh));
    loop {
        let idle_timeout = front.hub.peek().listeners[connection.listener].idle_timeout;
        if downstream.stash().is_empty()
            && !next_request(&mut downstream, idle_timeout, drained.as_mut()).await
        {
            return;
        }
        // On the heap while it lasts, so that a connection which waits holds nothing of a request.
        match Box::pin(conversation.serve_request(downstream)).await {
            Some(kept) => downstream = kept,
            None => return,
        }
        if fresh.take().is_some() {
            is_fresh.store(false, Ordering::Relaxed);
        }
    }
}

impl Conversation<'_> {
    /// Serves one request. The connection comes back if it can serve another one.
    async fn serve_request(&mut self, mut downstream: Box<Downstream>) -> Option<Box<Downstream>> {
        let (front, connection) = (self.front, self.connection);
        let listener = Arc::clone(&front.hub.peek().listeners[connection.listener]);
        let began = Instant::now();
        downstream.set_write_timeout(listener.write_timeout);
        let head = match read_head(&mut downstream, &listener).await {
            Ok(head) => head?,
            Err(refusal) => {
                let bytes = refuse_unread(front, connection, &downstream, refusal, began);
                end(downstream, &bytes).await;
                return None;
            }
        };
        self.requests += 1;
        let keep_alive = head.keep_alive
            && self.requests < listener.requests_per_connection_max
            && !front.hub.asks_clients_to_leave();
        match decide(front, connection, &downstream, &head, began, keep_alive) {
            Decision::Refuse { answer, close } => {
                downstream.discard(head.len);
                if close {
                    end(downstream, &answer).await;
                    return None;
                }
                downstream.send(&answer).await.ok()?;
            }
            Decision::Forward(exchange)
                if head.upgrade == Upgrade::WebSocket && sockets_of(&exchange).is_some() =>
            {
                let sockets = sockets_of(&exchange).expect("the arm's guard").clone();
                let upgrade = websocket::Upgrade {
                    connection,
                    head: &head,
                    bytes: downstream.take(head.len).freeze(),
                    sockets,
                };
                websocket::open(upgrade, downstream, exchange).await;
                return None;
            }
            Decision::Forward(mut exchange) => {
                match prove_first_chunk(&mut downstream, &head, &listener).await {
                    Ok(true) => {}
                    Ok(false) => {
                        abandon(&mut exchange, &downstream.stash()[..head.len], &head);
                        return None;
                    }
                    Err(reason) => {
                        let bytes = &downstream.stash()[..head.len];
                        let refusal = Refusal::new(reason);
                        let bytes = refuse_admitted(&mut exchange, bytes, &head, refusal);
                        end(downstream, &bytes).await;
                        return None;
                    }
                }
                let returned = self
                    .forward(downstream, &head, exchange, &listener, keep_alive)
                    .await?;
                downstream = returned.downstream;
                if !returned.reusable {
                    downstream.linger().await;
                    return None;
                }
            }
        }
        downstream.end_request();
        Some(downstream)
    }

    /// Hands the request to the general lane, and waits until it is over.
    async fn forward(
        &mut self,
        mut downstream: Box<Downstream>,
        head: &Head,
        mut exchange: Box<Exchange>,
        listener: &Listener,
        keep_alive: bool,
    ) -> Option<Returned> {
        let route = exchange.route.expect("an admitted request has a route");
        let route = &exchange.snapshot.config.routes[route];
        let progress = Arc::clone(downstream.progress());
        progress.reset();
        let terms = Terms {
            body: MessageBody::new(head.framing, route.body_bytes_max)
                .expect("a body that announces too much was refused by the stages"),
            keep_alive,
            body_timeout: listener.body_timeout,
        };
        let bytes = downstream.take(head.len).freeze();
        let made = Http1Session::new(downstream, Arc::clone(&self.home), head, &bytes, terms)
            .and_then(|session| Ok((session, Outgoing::new(head, bytes)?)));
        let (session, outgoing) = match made {
            Ok(made) => made,
            Err(error) => {
                let refusal = Refusal::new(Reason::Internal).with_detail(error.to_string());
                exchange.refuse(refusal);
                return None;
            }
        };
        let session = ServerSession::new_custom(Box::new(session));
        let admitted = Box::new(Admitted {
            connection: Arc::clone(self.connection),
            progress: Arc::clone(&progress),
            asked: outgoing.asked(head),
            outgoing: Some(outgoing),
            errand: None,
            spare: Duration::ZERO,
            exchange,
        });
        let served = self.front.proxy.process_new_http(session, &self.shutdown);
        let mut served = pin!(HANDOVER.scope(Cell::new(Some(admitted)), served));
        let watchdog = &mut self.watchdog;
        std::future::poll_fn(|cx| {
            if served.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            // Dropping what is served ends it; it is recorded all the same.
            watchdog
                .poll(&progress, cx)
                .map(|()| progress.set_fault(Reason::UpstreamTimeout))
        })
        .await;
        self.home.take()
    }
}

/// Waits for the first byte of the next request. False where there will be none: the client left, it
/// was idle too long, or the process drains.
async fn next_request(
    downstream: &mut Downstream,
    longest: Duration,
    drained: Pin<&mut impl Future<Output = ()>>,
) -> bool {
    if downstream.peer_closed() {
        return false;
    }
    tokio::select! {
        biased;
        filled = downstream.await_head(Instant::now() + longest) => filled,
        () = drained => false,
    }
}

/// Returns when the process drains; a little later where the connection has just been taken, since its
/// client is about to ask.
async fn drained(shutdown: &mut ShutdownWatch, is_fresh: &AtomicBool) {
    // An error means that the sender is gone, and with it the process.
    let _sender_gone = shutdown.wait_for(|stop| *stop).await.map(drop);
    if is_fresh.load(Ordering::Relaxed) {
        // On the heap, since hardly any connection waits for it and each would carry it.
        Box::pin(tokio::time::sleep(FIRST_REQUEST_MAX)).await;
    }
}

/// Reads until one head is complete. `Ok(None)` where the client left in the middle.
async fn read_head(
    downstream: &mut Downstream,
    listener: &Listener,
) -> Result<Option<Head>, Refusal> {
    let limits = HeadLimits {
        head_bytes_max: listener.head_bytes_max,
        uri_bytes_max: listener.uri_bytes_max,
        header_count_max: listener.header_count_max,
    };
    let mut reader = HeadReader::new(limits);
    // The usual case: the head came in one piece, and no timer is needed.
    if let Some(head) = reader.advance(downstream.stash())? {
        return Ok(Some(head));
    }
    let rest = async {
        loop {
            match downstream.fill().await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
            if let Some(head) = reader.advance(downstream.stash())? {
                return Ok(Some(head));
            }
        }
    };
    tokio::time::timeout(listener.head_timeout, rest)
        .await
        .unwrap_or(Err(Refusal::new(Reason::HeadTimeout)))
}

/// Runs the stages on a complete head.
fn decide(
    front: &Arc<Front>,
    connection: &Arc<Connection>,
    downstream: &Downstream,
    head: &Head,
    began: Instant,
    keep_alive: bool,
) -> Decision {
    let bytes = &downstream.stash()[..head.len];
    let fields: SmallVec<[HeaderField<'_>; 32]> = head.fields(bytes).collect();
    let headers = Headers::new(&fields);
    let snapshot = front.hub.snapshot();
    let arrival = connection.arrival(&snapshot, headers, began);
    let client = arrival.client;
    let mut exchange = Exchange::begin(&front.hub, snapshot, arrival, head.version, headers);
    let request_id = exchange.request_id;
    let view = RequestView {
        method: &head.method,
        version: head.version,
        scheme: exchange.arrival.scheme,
        host: head.host(bytes),
        path: head.path(bytes),
        path_raw: head.path_raw(bytes),
        query: head.query(bytes),
        headers,
        client: &client,
        request_id: &request_id,
    };
    let length = match head.framing {
        Framing::None => BodyLength::None,
        Framing::Length(bytes) => BodyLength::Known(bytes),
        Framing::Chunked => BodyLength::Unknown,
    };
    match stages::admit(&mut exchange, &view, length) {
        Ok(()) => Decision::Forward(exchange),
        Err(refusal) => {
            let close =
                !keep_alive || !matches!(head.framing, Framing::None) || refusal.reason.closes();
            Decision::Refuse {
                answer: refuse(&mut exchange, &view, refusal, close),
                close,
            }
        }
    }
}

/// Answers and records a request that the stages refused.
fn refuse(
    exchange: &mut Exchange,
    view: &RequestView<'_>,
    refusal: Refusal,
    close: bool,
) -> Vec<u8> {
    let edits = record::refusal_edits(exchange);
    let answer = Answer::to(
        &refusal,
        Circumstances {
            request_id: exchange.request_id,
            origin: view.headers.get("origin"),
            cors: exchange
                .route
                .map(|route| &exchange.snapshot.config.routes[route].cors),
            edits: &edits,
            head_only: *view.method == Method::HEAD,
        },
    );
    exchange.status = answer.status.as_u16();
    exchange.bytes_out = answer.body.len() as u64;
    exchange.refuse(refusal);
    let fields = record::Fields {
        method: view.method.as_str(),
        host: view.host.as_bytes(),
        path: view.path_raw.as_bytes(),
        user_agent: view.headers.get("user-agent"),
    };
    record::finish(exchange, &fields, false);
    answer.to_http1(close)
}

/// Answers and records an admitted request that could not be forwarded. `bytes` is its head as it came.
pub(crate) fn refuse_admitted(
    exchange: &mut Exchange,
    bytes: &[u8],
    head: &Head,
    refusal: Refusal,
) -> Vec<u8> {
    let fields: SmallVec<[HeaderField<'_>; 32]> = head.fields(bytes).collect();
    let client = exchange.arrival.client;
    let request_id = exchange.request_id;
    let view = RequestView {
        method: &head.method,
        version: head.version,
        scheme: exchange.arrival.scheme,
        host: head.host(bytes),
        path: head.path(bytes),
        path_raw: head.path_raw(bytes),
        query: head.query(bytes),
        headers: Headers::new(&fields),
        client: &client,
        request_id: &request_id,
    };
    refuse(exchange, &view, refusal, true)
}

/// Records an admitted request whose client left. `bytes` is its head as it came.
pub(crate) fn abandon(exchange: &mut Exchange, bytes: &[u8], head: &Head) {
    record::finish(exchange, &fields(head, bytes), true);
}

/// What the record needs of a request. `bytes` is its head as it came.
pub(crate) fn fields<'r>(head: &'r Head, bytes: &'r [u8]) -> record::Fields<'r> {
    record::Fields {
        method: head.method.as_str(),
        host: head.host(bytes).as_bytes(),
        path: head.path_raw(bytes).as_bytes(),
        user_agent: field(head, bytes, b"user-agent"),
    }
}

/// The value of the first field of that name. `bytes` is the request's head as it came.
pub(crate) fn field<'b>(head: &Head, bytes: &'b [u8], name: &[u8]) -> Option<&'b [u8]> {
    let mut fields = head.fields(bytes);
    let found = fields.find(|field| field.name.eq_ignore_ascii_case(name));
    found.map(|field| field.value)
}

/// What takes the request's WebSocket, where its route takes any.
fn sockets_of(exchange: &Exchange) -> Option<&Arc<websocket::RouteSockets>> {
    exchange.snapshot.routes[exchange.route?].websocket.as_ref()
}

/// Answers and records bytes that never became a request.
fn refuse_unread(
    front: &Arc<Front>,
    connection: &Arc<Connection>,
    downstream: &Downstream,
    refusal: Refusal,
    began: Instant,
) -> Vec<u8> {
    let headers = Headers::new(&[]);
    let snapshot = front.hub.snapshot();
    let arrival = connection.arrival(&snapshot, headers, began);
    let mut exchange = Exchange::begin(&front.hub, snapshot, arrival, Version::Http11, headers);
    let (method, path) = first_line(downstream.stash());
    let answer = Answer::to(
        &refusal,
        Circumstances {
            request_id: exchange.request_id,
            origin: None,
            cors: None,
            edits: &[],
            head_only: method == b"HEAD",
        },
    );
    exchange.status = answer.status.as_u16();
    exchange.bytes_out = answer.body.len() as u64;
    exchange.refuse(refusal);
    let fields = record::Fields {
        method: std::str::from_utf8(method).unwrap_or("-"),
        host: b"",
        path,
        user_agent: None,
    };
    record::finish(&mut exchange, &fields, false);
    answer.to_http1(true)
}

/// An answer for a connection that is turned away before any request: it has an id of no meaning.
pub(super) fn stateless_answer(reason: Reason) -> Vec<u8> {
    Answer::to(
        &Refusal::new(reason).retry_after(1),
        Circumstances {
            request_id: RequestId::new(0, [0; 10]),
            origin: None,
            cors: None,
            edits: &[],
            head_only: false,
        },
    )
    .to_http1(true)
}

/// Method and target of bytes that are not a request, for the log: whatever stands where they would.
fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next();
    let mut words = line.unwrap_or(b"").split(|byte| *byte == b' ');
    let method = words.next().unwrap_or(b"");
    let method = if method.len() <= 32 { method } else { b"-" };
    (method, words.next().unwrap_or(b""))
}

/// Sends the last answer and closes so that the client can read it.
pub(crate) async fn end(mut downstream: Box<Downstream>, bytes: &[u8]) {
    if downstream.send(bytes).await.is_ok() {
        downstream.linger().await;
    }
}

/// Holds a chunked request back until its first chunk-size line is proven good: most smuggling
/// attempts fail here, and then no byte of them has reached an origin. A client that waits for 100
/// Continue cannot be held back; its upstream connection is discarded if the body turns out bad.
/// `Ok(false)`: the client left.
async fn prove_first_chunk(
    downstream: &mut Downstream,
    head: &Head,
    listener: &Listener,
) -> Result<bool, Reason> {
    if !matches!(head.framing, Framing::Chunked) || head.expect_continue {
        return Ok(true);
    }
    let read = async {
        loop {
            if body::first_chunk_line_complete(&downstream.stash()[head.len..])? {
                return Ok(true);
            }
            match downstream.fill().await {
                Ok(0) | Err(_) => return Ok(false),
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(listener.body_timeout, read)
        .await
        .unwrap_or(Err(Reason::BodyTimeout))
}
