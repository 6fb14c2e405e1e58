//! HTTP/1 connections: read a head, check it, run the stages, then refuse or hand over; again, until
//! one side has had enough.

use super::app::{Connection, Front};
use super::body::{self, MessageBody};
use super::downstream::{Downstream, Watchdog};
use super::head::{Framing, Head, HeadLimits, HeadReader, Upgrade};
use crate::lanes::general::request::Outgoing;
use crate::lanes::general::session::{Home, Http1Session, Returned, Terms};
use crate::lanes::general::{Admitted, HANDOVER};
use crate::respond::{Answer, Circumstances};
use crate::stages::{self, BodyLength, Exchange, record};
use hub_config::runtime::Listener;
use hub_core::{HeaderField, Headers, Method, Reason, Refusal, RequestId, RequestView, Version};
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use smallvec::SmallVec;
use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long a connection that is closed after a refusal may take to read its answer.
const LINGER: Duration = Duration::from_secs(2);
/// How much of a refused body is read and dropped meanwhile, in bytes.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// What the stages said of one request.
enum Decision {
    Forward(Box<Exchange>),
    Refuse { answer: Vec<u8>, close: bool },
}

/// Serves one connection until it ends.
pub(super) async fn serve(
    front: &Arc<Front>,
    mut downstream: Box<Downstream>,
    connection: &Arc<Connection>,
    mut shutdown: ShutdownWatch,
) {
    let mut requests: u32 = 0;
    let home = Arc::new(Home::default());
    let mut watchdog = Watchdog::default();
    let stop = shutdown.clone();
    let mut drained = pin!(drained(&mut shutdown));
    loop {
        let listener = Arc::clone(&front.hub.peek().listeners[connection.listener]);
        if downstream.stash().is_empty()
            && !next_request(&mut downstream, listener.idle_timeout, drained.as_mut()).await
        {
            return;
        }
        let began = Instant::now();
        downstream.set_write_timeout(listener.write_timeout);
        let head = match read_head(&mut downstream, &listener).await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(refusal) => {
                let bytes = refuse_unread(front, connection, &downstream, refusal, began);
                return end(downstream, &bytes).await;
            }
        };
        requests += 1;
        let keep_alive = head.keep_alive
            && requests < listener.requests_per_connection_max
            && !front.hub.asks_clients_to_leave();
        match decide(front, connection, &downstream, &head, began, keep_alive) {
            Decision::Refuse { answer, close } => {
                downstream.discard(head.len);
                if close {
                    return end(downstream, &answer).await;
                }
                if downstream.send(&answer).await.is_err() {
                    return;
                }
                downstream.end_request();
            }
            Decision::Forward(mut exchange) => {
                match prove_first_chunk(&mut downstream, &head, &listener).await {
                    Ok(true) => {}
                    Ok(false) => return abandon(&mut exchange, &downstream, &head),
                    Err(reason) => {
                        let bytes = refuse_body(&mut exchange, &downstream, &head, reason);
                        return end(downstream, &bytes).await;
                    }
                }
                let returned = forward(
                    front,
                    connection,
                    downstream,
                    &home,
                    &mut watchdog,
                    &head,
                    exchange,
                    &listener,
                    keep_alive,
                    &stop,
                )
                .await;
                match returned {
                    None => return,
                    Some(returned) if returned.reusable => downstream = returned.downstream,
                    Some(returned) => {
                        return returned.downstream.linger(LINGER, LINGER_BYTES_MAX).await;
                    }
                }
                downstream.end_request();
            }
        }
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

/// Returns when the process drains.
async fn drained(shutdown: &mut ShutdownWatch) {
    // An error means that the sender is gone, and with it the process.
    let _sender_gone = shutdown.wait_for(|stop| *stop).await;
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

/// Answers and records an admitted request whose body turned out bad before it was forwarded.
fn refuse_body(
    exchange: &mut Exchange,
    downstream: &Downstream,
    head: &Head,
    reason: Reason,
) -> Vec<u8> {
    let bytes = &downstream.stash()[..head.len];
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
    refuse(exchange, &view, Refusal::new(reason), true)
}

/// Records an admitted request whose client left before its body began.
fn abandon(exchange: &mut Exchange, downstream: &Downstream, head: &Head) {
    let bytes = &downstream.stash()[..head.len];
    let user_agent = head
        .fields(bytes)
        .find(|field| field.name.eq_ignore_ascii_case(b"user-agent"));
    let fields = record::Fields {
        method: head.method.as_str(),
        host: head.host(bytes).as_bytes(),
        path: head.path_raw(bytes).as_bytes(),
        user_agent: user_agent.map(|field| field.value),
    };
    record::finish(exchange, &fields, true);
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
async fn end(mut downstream: Box<Downstream>, bytes: &[u8]) {
    if downstream.send(bytes).await.is_ok() {
        downstream.linger(LINGER, LINGER_BYTES_MAX).await;
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

/// Hands the request to the general lane, and waits until it is over.
#[allow(clippy::too_many_arguments)] // One caller; a struct would only rename them.
async fn forward(
    front: &Arc<Front>,
    connection: &Arc<Connection>,
    mut downstream: Box<Downstream>,
    home: &Arc<Home>,
    watchdog: &mut Watchdog,
    head: &Head,
    mut exchange: Box<Exchange>,
    listener: &Listener,
    keep_alive: bool,
    shutdown: &ShutdownWatch,
) -> Option<Returned> {
    let route = exchange.route.expect("an admitted request has a route");
    let route = &exchange.snapshot.config.routes[route];
    let websocket = route.websocket && head.upgrade == Upgrade::WebSocket;
    let progress = Arc::clone(downstream.progress());
    progress.reset();
    let terms = Terms {
        body: MessageBody::new(head.framing, route.body_bytes_max)
            .expect("a body that announces too much was refused by the stages"),
        websocket,
        keep_alive,
        body_timeout: listener.body_timeout,
    };
    let bytes = downstream.take(head.len).freeze();
    let made = Http1Session::new(downstream, Arc::clone(home), head, &bytes, terms)
        .and_then(|session| Ok((session, Outgoing::new(head, bytes, websocket)?)));
    let (session, outgoing) = match made {
        Ok(made) => made,
        Err(error) => {
            let refusal = Refusal::new(Reason::Internal).with_detail(error.to_string());
            exchange.refuse(refusal);
            return None;
        }
    };
    let session = ServerSession::new_custom(Box::new(session));
    let admitted = Admitted {
        connection: Arc::clone(connection),
        progress: Arc::clone(&progress),
        asked: outgoing.asked(head),
        outgoing: Some(outgoing),
        websocket,
        exchange,
    };
    {
        let served = front.proxy.process_new_http(session, shutdown);
        let mut served = pin!(HANDOVER.scope(Cell::new(Some(admitted)), served));
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
    }
    home.take()
}
