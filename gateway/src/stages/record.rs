//! record: always last, always once: metrics, access log, refusals, and what the tenant used.

use super::{Exchange, forward};
use crate::snapshot::colour_name;
use crate::switch::watch::Ending;
use crate::telemetry::{Record, RefusalNote, RouteMetrics, StatusClass};
use hub_core::{Edit, Reason};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the record needs of the request's text; the lane still has it when the request ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a [u8],
    /// Raw path with query; the query is cut off before it is logged, since it may hold secrets.
    pub(crate) path: &'a [u8],
    pub(crate) user_agent: Option<&'a [u8]>,
}

/// Response headers for a refusal: those that stages asked for and those of the limits.
pub(crate) fn refusal_edits(exchange: &Exchange) -> Vec<Edit> {
    let rate = forward::rate_headers(exchange)
        .into_iter()
        .flatten()
        .map(|(name, value)| Edit::Set(name, value));
    exchange
        .edits
        .response
        .iter()
        .cloned()
        .chain(rate)
        .collect()
}

/// A new connection to the picked endpoint was made.
pub(crate) fn connected(exchange: &Exchange) {
    if exchange.recorded {
        // An errand of the gateway's own.
        return;
    }
    if let Some(target) = exchange.target {
        let snapshot = &exchange.snapshot;
        snapshot.upstream(target.cluster, target.colour).connected();
    }
}

/// A connection to the picked endpoint could not be made.
pub(crate) fn connect_failed(exchange: &mut Exchange) {
    if exchange.recorded {
        // An errand of the gateway's own.
        return;
    }
    if let Some(target) = exchange.target {
        let snapshot = &exchange.snapshot;
        snapshot.upstream(target.cluster, target.colour).failed();
    }
    if let Some(pick) = exchange.pick.as_mut() {
        pick.fail(Instant::now());
    }
}

/// A try failed, and the request goes on without it.
pub(crate) fn try_failed(exchange: &mut Exchange, ending: Ending, status: u16) {
    let now = Instant::now();
    if let Some(pick) = exchange.pick.as_mut() {
        match (ending, exchange.upstream_first_byte) {
            // As in `finish`: a status like 500 is the application's, not the endpoint's.
            (Ending::ServerError, Some(latency)) if !says_it_cannot_serve(status) => {
                pick.succeed(latency, now);
            }
            _ => pick.fail(now),
        }
    }
    tell(exchange, ending);
}

/// The request goes to another endpoint.
pub(crate) fn retried(exchange: &Exchange) {
    if exchange.recorded {
        // An errand of the gateway's own.
        return;
    }
    if let Some(target) = exchange.target {
        let snapshot = &exchange.snapshot;
        snapshot.upstream(target.cluster, target.colour).retried();
    }
}

/// What counts the request: its route's counters of the cluster that it went to, or of none where it
/// was refused before.
fn handles(exchange: &Exchange) -> &Arc<RouteMetrics> {
    let snapshot = &exchange.snapshot;
    let Some(route) = exchange.route else {
        return &snapshot.unrouted;
    };
    let route = &snapshot.routes[route];
    exchange
        .target
        .and_then(|target| route.metrics(target.cluster, target.colour))
        .unwrap_or(&route.refused)
}

/// Ends a request.
pub(crate) fn finish(exchange: &mut Exchange, fields: &Fields<'_>, failed: bool) {
    if !exchange.take_record() {
        return;
    }
    let now = Instant::now();
    let duration = now.saturating_duration_since(exchange.arrival.at);
    let reason = exchange.reason();
    if let Some(mut pick) = exchange.pick.take() {
        match exchange.upstream_first_byte {
            // It says itself that it cannot serve, which it says fast.
            Some(_) if reason.is_none() && says_it_cannot_serve(exchange.status) => pick.fail(now),
            Some(latency) if !failed => pick.succeed(latency, now),
            // A client that left is no fault of the endpoint's.
            _ if reason.is_some_and(is_upstream_fault) => pick.fail(now),
            _ => {}
        }
        exchange.pick = Some(pick);
    }
    judge(exchange, reason);
    handles(exchange).finished(StatusClass::of(exchange.status), duration);
    if let Some(reason) = reason {
        exchange.hub.metrics.refused(reason);
    }
    if let Some(tenant) = exchange.tenant {
        exchange.snapshot.tenant(tenant).record(
            exchange.status,
            exchange.bytes_in,
            exchange.bytes_out,
            matches!(
                reason,
                Some(Reason::TenantLimited | Reason::TenantBusy | Reason::RouteLimited)
            ),
        );
    }
    log(exchange, fields, duration);
    exchange.release();
}

/// A client that leaves after waiting this long for an answer has met a timeout of its own.
const PATIENCE: Duration = Duration::from_secs(1);

fn says_it_cannot_serve(status: u16) -> bool {
    matches!(status, 502..=504)
}

/// What a reason says of the colour; `None` for the gateway's own refusals, and clients that left.
pub(crate) fn ending_of(reason: Reason) -> Option<Ending> {
    match reason {
        Reason::ConnectFailed | Reason::ConnectTimeout | Reason::NoEndpoint => {
            Some(Ending::ConnectError)
        }
        Reason::UpstreamTimeout | Reason::TotalTimeout => Some(Ending::Timeout),
        Reason::UpstreamFailed => Some(Ending::ServerError),
        _ => None,
    }
}

/// Tells the judges of a rollout how it went.
fn judge(exchange: &Exchange, reason: Option<Reason>) {
    if exchange.guard().is_none() || exchange.first_colour.is_some() {
        // They have heard of it: the new colour failed. That the old one is asked more for that reason
        // says nothing of either.
        return;
    }
    let ending = match reason {
        Some(reason) => match ending_of(reason) {
            Some(ending) => ending,
            None => return,
        },
        None if exchange.upstream_first_byte.is_none() => match exchange.upstream_began {
            // The client gave up on a colour that hangs, before a timeout of ours did.
            Some(began) if began.elapsed() >= PATIENCE => Ending::Timeout,
            _ => return,
        },
        None if exchange.status >= 500 || exchange.upgrade_refused => Ending::ServerError,
        None => Ending::Good,
    };
    tell(exchange, ending);
}

fn tell(exchange: &Exchange, ending: Ending) {
    let (Some(guard), Some(target)) = (exchange.guard(), exchange.target) else {
        return;
    };
    let cluster = &exchange.snapshot.config.clusters[target.cluster].name;
    let latency = exchange.upstream_first_byte.unwrap_or_default();
    match (exchange.tenant_id(), exchange.arrival.client.address) {
        (Some(tenant), _) => guard.tell(cluster, tenant.as_bytes(), latency, ending),
        (None, IpAddr::V4(v4)) => guard.tell(cluster, &v4.octets(), latency, ending),
        (None, IpAddr::V6(v6)) => guard.tell(cluster, &v6.octets()[..8], latency, ending),
    }
}

/// What who knows no WebSocket says to an upgrade. Also a good colour tells a client that it may not (401,
/// 403, 407, 429) or should go elsewhere (3xx).
pub(crate) fn refuses_upgrade(status: u16) -> bool {
    matches!(status, 200..=299 | 400..=599) && !matches!(status, 401 | 403 | 407 | 429)
}

fn is_upstream_fault(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConnectFailed
            | Reason::ConnectTimeout
            | Reason::UpstreamFailed
            | Reason::UpstreamTimeout
            | Reason::TotalTimeout
    )
}

fn log(exchange: &Exchange, fields: &Fields<'_>, duration: std::time::Duration) {
    let path = fields
        .path
        .split(|byte| *byte == b'?')
        .next()
        .unwrap_or(b"");
    let snapshot = &exchange.snapshot;
    let detail = exchange
        .refusal
        .as_ref()
        .and_then(|refusal| refusal.detail.as_deref());
    let cluster = exchange
        .target
        .map(|target| snapshot.config.clusters[target.cluster].name.as_str());
    exchange.hub.access_log.log(&Record {
        at: exchange.wall,
        request_id: exchange.request_id,
        trace_id: exchange.trace.trace_id,
        listener: &snapshot.listeners[exchange.arrival.listener].name,
        client: exchange.arrival.client.address,
        method: fields.method,
        host: fields.host,
        path,
        protocol: exchange.version.as_str(),
        status: exchange.status,
        reason: exchange.reason().map(Reason::code),
        detail,
        route: exchange.route.map(|_| exchange.route_name()),
        cluster,
        colour: exchange.target.map(|target| colour_name(target.colour)),
        endpoint: exchange.pick.as_ref().map(crate::upstream::Pick::name),
        tenant: exchange.tenant_id(),
        subject: exchange.identity.as_ref().map(|i| &*i.subject),
        bytes_in: exchange.bytes_in,
        bytes_out: exchange.bytes_out,
        duration,
        upstream: exchange.upstream_first_byte,
        retries: exchange.retries,
        first_colour: exchange.first_colour.map(colour_name),
        user_agent: fields.user_agent,
    });
    if let Some(refusal) = &exchange.refusal {
        exchange.hub.refusals.note(&RefusalNote {
            request_id: exchange.request_id,
            reason: refusal.reason,
            detail,
            route: exchange.route.map(|_| exchange.route_name()),
            tenant: exchange.tenant_id(),
            client: exchange.arrival.client.address,
            at: exchange.wall,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // A task that is cancelled, or panics, still leaves a line and a count.
        let fields = Fields {
            method: "-",
            host: b"",
            path: b"",
            user_agent: None,
        };
        finish(self, &fields, true);
    }
}
