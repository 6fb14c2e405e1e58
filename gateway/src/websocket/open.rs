//! From an admitted upgrade to an open session, or an answer that says why not.

use super::dial::{self, Answer, Request};
use super::handshake::{self, accept_of};
use super::registry::{About, Place, Registry, RouteCounters};
use super::relay::{Relay, Terms};
use super::session::Session;
use crate::front::app::Connection;
use crate::front::body::MessageBody;
use crate::front::downstream::Downstream;
use crate::front::head::Head;
use crate::front::http1;
use crate::lanes::general::session::answer;
use crate::stages::forward::ResponseDress;
use crate::stages::{Exchange, record};
use crate::switch::traffic::Guard;
use crate::upstream::Pick;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, header};
use hub_config::runtime::{Compression, WebSocket};
use hub_core::{Reason, Refusal};
use pingora::http::ResponseHeader;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::AsyncReadExt as _;
use tokio::time::{timeout, timeout_at};

/// How much of an answer's body is read at a time, in bytes.
const READ_BYTES: usize = 16 * 1024;
/// Largest body of an answer that opens nothing, in bytes.
const BODY_BYTES_MAX: u64 = 1024 * 1024;
/// Longest time that it may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);

/// What a route that takes WebSockets needs at run time.
#[derive(Debug)]
pub(crate) struct RouteSockets {
    pub(crate) settings: Arc<WebSocket>,
    plain: Arc<Terms>,
    compressed: Arc<Terms>,
    pub(crate) counters: Arc<RouteCounters>,
}

impl RouteSockets {
    pub(crate) fn new(settings: &Arc<WebSocket>, counters: Arc<RouteCounters>) -> Self {
        let terms = Terms::of(settings);
        let compressed = Arc::new(terms.compressed());
        Self {
            settings: Arc::clone(settings),
            plain: Arc::new(terms),
            compressed,
            counters,
        }
    }
}

/// A request to open a session, from its connection.
pub(crate) struct Upgrade<'u> {
    pub(crate) connection: &'u Arc<Connection>,
    pub(crate) head: &'u Head,
    /// The head as it came.
    pub(crate) bytes: Bytes,
    pub(crate) sockets: Arc<RouteSockets>,
}

/// Opens a session, in a task of its own, or answers why there is none. The connection is used up.
pub(crate) async fn open(
    upgrade: Upgrade<'_>,
    mut downstream: Box<Downstream>,
    mut exchange: Box<Exchange>,
) {
    let opened = {
        let tried = attempt(&upgrade, &mut exchange);
        tokio::select! {
            biased;
            tried = tried => Some(tried),
            // What a client sends before its answer waits.
            () = std::future::poll_fn(|cx| downstream.poll_gone(cx)) => None,
        }
    };
    match opened {
        None => http1::abandon(&mut exchange, &upgrade.bytes, upgrade.head),
        Some(Err(refusal)) => {
            let answer =
                http1::refuse_admitted(&mut exchange, &upgrade.bytes, upgrade.head, refusal);
            http1::end(downstream, &answer).await;
        }
        Some(Ok((answer, place))) if answer.is_open() => {
            begin(&upgrade, downstream, exchange, answer, place).await;
        }
        Some(Ok((answer, _))) => pass_on(&upgrade, downstream, exchange, answer).await,
    }
}

/// Checks what is checked of upgrades alone, and asks an endpoint.
async fn attempt(
    upgrade: &Upgrade<'_>,
    exchange: &mut Exchange,
) -> Result<(Answer, Place), Refusal> {
    let settings = &upgrade.sockets.settings;
    check_origin(upgrade, settings)?;
    if settings.until_credential_expires && has_expired(exchange) {
        // It was let in by the leeway, and would be closed at once.
        return Err(Refusal::new(Reason::Unauthenticated));
    }
    let snapshot = Arc::clone(&exchange.snapshot);
    let tenant = exchange.tenant.map(|tenant| {
        let most = snapshot.config.tenants[tenant].websockets_max;
        (snapshot.tenant(tenant), most)
    });
    let place = Place::take(&upgrade.sockets.counters, settings.connections_max, tenant)?;
    let request = Request {
        head: upgrade.head,
        bytes: &upgrade.bytes,
        extensions: settings.compression == Compression::Pass,
    };
    let ends = total_deadline(exchange);
    let dialled = dial::dial(exchange, request);
    let answer = match ends {
        None => dialled.await?,
        Some(ends) => timeout_at(ends.into(), dialled)
            .await
            .map_err(|_| Refusal::new(Reason::TotalTimeout))??,
    };
    Ok((answer, place))
}

/// When the handshake must be over.
fn total_deadline(exchange: &Exchange) -> Option<Instant> {
    let cluster = exchange.target?.cluster;
    let total = exchange.snapshot.config.clusters[cluster].total_timeout?;
    Some(exchange.arrival.at + total)
}

fn has_expired(exchange: &Exchange) -> bool {
    let expires = exchange.identity.as_ref().and_then(|who| who.expires);
    expires.is_some_and(|at| at <= SystemTime::now())
}

/// A browser says which page opens the session; any other client may say nothing.
fn check_origin(upgrade: &Upgrade<'_>, settings: &WebSocket) -> Result<(), Refusal> {
    if settings.origins.is_empty() {
        return Ok(());
    }
    match http1::field(upgrade.head, &upgrade.bytes, b"origin") {
        Some(origin) if !settings.origins.iter().any(|one| one.as_bytes() == origin) => {
            Err(Refusal::new(Reason::OriginRefused))
        }
        _ => Ok(()),
    }
}

/// Tells the client that its session is open, and runs it.
async fn begin(
    upgrade: &Upgrade<'_>,
    mut downstream: Box<Downstream>,
    mut exchange: Box<Exchange>,
    answer: Answer,
    place: Place,
) {
    let Answer {
        wire,
        mut head,
        rest,
        ..
    } = answer;
    let compressed = head.headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS);
    let key = http1::field(upgrade.head, &upgrade.bytes, b"sec-websocket-key").unwrap_or_default();
    dress(&mut head, key);
    let dress = ResponseDress::take(&mut exchange);
    let mut text = BytesMut::with_capacity(512);
    answer::put_head(&mut text, &head, &dress, None, true);
    exchange.status = head.status.as_u16();
    let sent = downstream.send(&text).await;
    let guard = exchange.guard().map(Guard::for_session);
    let session = sent.is_ok().then(|| {
        let now = Instant::now();
        let sockets = &upgrade.sockets;
        let terms = if compressed {
            &sockets.compressed
        } else {
            &sockets.plain
        };
        // What came over from a colour that failed stays until the routing changes.
        let followed = exchange.first_colour.map_or(0, |_| exchange.snapshot.epoch);
        let ticket = Registry::open(&exchange.hub, about(&exchange, sockets), followed);
        place.opened();
        let (stream, early) = downstream.into_stream();
        let mut relay = Relay::new(Arc::clone(terms), (stream, early.into()), (wire, rest), now);
        let expires = exchange.identity.as_ref().and_then(|who| who.expires);
        if let Some(at) = expires.filter(|_| sockets.settings.until_credential_expires) {
            let left = at.duration_since(SystemTime::now()).unwrap_or_default();
            relay.expire_at(now + left);
        }
        let snapshot = &exchange.snapshot;
        Session {
            hub: Arc::clone(&exchange.hub),
            relay,
            ticket,
            place,
            tenant: exchange
                .tenant
                .map(|tenant| Arc::clone(snapshot.tenant(tenant))),
            counted: [(0, 0); 2],
            _guard: guard,
            _in_flight: exchange.hub.begin(),
            _connection: Arc::clone(upgrade.connection),
            is_recorded: false,
        }
    });
    let fields = http1::fields(upgrade.head, &upgrade.bytes);
    record::finish(&mut exchange, &fields, session.is_none());
    if let Some(session) = session {
        // Much may have changed since its colour was chosen.
        Registry::catch_up(&exchange.hub, &session.ticket.entry);
        tokio::spawn(session.run());
    }
}

/// The upstream's 101 as the client gets it.
fn dress(head: &mut ResponseHeader, key: &[u8]) {
    let accept = HeaderValue::from_str(&accept_of(key)).expect("base64 is visible ASCII");
    let put = |head: &mut ResponseHeader, name, value| {
        head.insert_header(name, value)
            .expect("a name and a value that are good");
    };
    handshake::strip(head);
    put(head, header::UPGRADE, HeaderValue::from_static("websocket"));
    put(
        head,
        header::CONNECTION,
        HeaderValue::from_static("Upgrade"),
    );
    put(head, header::SEC_WEBSOCKET_ACCEPT, accept);
}

fn about(exchange: &Exchange, sockets: &RouteSockets) -> About {
    let target = exchange
        .target
        .expect("a request that was forwarded has a target");
    let cluster = &exchange.snapshot.config.clusters[target.cluster];
    About {
        request_id: exchange.request_id,
        route: exchange.route_name().into(),
        cluster: cluster.name.as_str().into(),
        colour: target.colour,
        endpoint: exchange.pick.as_ref().map_or("-", Pick::name).into(),
        tenant: exchange
            .tenant
            .map(|tenant| exchange.snapshot.config.tenants[tenant].id.clone()),
        client: exchange.arrival.client.address,
        settings: Arc::clone(&sockets.settings),
    }
}

/// Passes on an answer that opens nothing, and closes.
async fn pass_on(
    upgrade: &Upgrade<'_>,
    mut downstream: Box<Downstream>,
    mut exchange: Box<Exchange>,
    mut answer: Answer,
) {
    let status = answer.head.status;
    exchange.status = status.as_u16();
    exchange.upgrade_refused = record::refuses_upgrade(status.as_u16());
    let cluster = exchange.target.map(|target| target.cluster);
    let idle = cluster.map_or(Duration::from_secs(60), |cluster| {
        exchange.snapshot.config.clusters[cluster].idle_timeout
    });
    let dress = ResponseDress::take(&mut exchange);
    let mut text = BytesMut::with_capacity(1024);
    answer::put_head(&mut text, &answer.head, &dress, Some("close"), false);
    let passed = match downstream.send(&text).await {
        Ok(()) => {
            let body = pass_body(&mut downstream, &mut answer, idle, &mut exchange.bytes_out);
            let passed = timeout(BODY_TIME_MAX, body).await;
            passed.unwrap_or(Err(Reason::UpstreamTimeout))
        }
        Err(_) => Err(Reason::Internal),
    };
    if let Err(reason @ (Reason::UpstreamFailed | Reason::UpstreamTimeout)) = passed {
        exchange.refuse(Refusal::new(reason));
    }
    let fields = http1::fields(upgrade.head, &upgrade.bytes);
    record::finish(&mut exchange, &fields, passed.is_err());
    if passed.is_ok() {
        downstream.linger().await;
    }
}

/// Passes on a body as it is framed.
///
/// # Errors
/// Whose fault it was: the upstream's, or [`Reason::Internal`] for a client that left.
async fn pass_body(
    downstream: &mut Downstream,
    answer: &mut Answer,
    idle: Duration,
    sent: &mut u64,
) -> Result<(), Reason> {
    // Without a length, the end of the connection is the end of the body.
    let body = answer
        .framing
        .map(|framing| MessageBody::new(framing, BODY_BYTES_MAX));
    let mut body = body.transpose().map_err(|_| Reason::UpstreamFailed)?;
    let mut read = std::mem::take(&mut answer.rest);
    loop {
        let (count, done) = match &mut body {
            None => (read.len(), false),
            Some(body) => {
                let progress = body.advance(&read).map_err(|_| Reason::UpstreamFailed)?;
                (progress.consumed, progress.done)
            }
        };
        downstream
            .send(&read[..count])
            .await
            .map_err(|_| Reason::Internal)?;
        *sent += count as u64;
        if body.is_none() && *sent > BODY_BYTES_MAX {
            return Err(Reason::UpstreamFailed);
        }
        if done {
            return Ok(());
        }
        read.clear();
        read.reserve(READ_BYTES);
        match timeout(idle, answer.wire.read_buf(&mut read)).await {
            Err(_) => return Err(Reason::UpstreamTimeout),
            Ok(Ok(0)) if body.is_none() => return Ok(()),
            Ok(Ok(0) | Err(_)) => return Err(Reason::UpstreamFailed),
            Ok(Ok(_)) => {}
        }
    }
}
