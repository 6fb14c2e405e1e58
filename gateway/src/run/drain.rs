//! The ways out: a drain, after a signal; and a hand-over, after which a drain comes, too.

use crate::front::listener::BoundListener;
use crate::hub::Hub;
use crate::lifecycle::Phase;
use crate::service;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long HTTP/2 connections may take to write what is left and to part, after the last request.
const HTTP2_FLUSH_MAX: Duration = Duration::from_secs(5);
/// How long WebSockets have to be closed in good order, where there is no time for anything else.
const CLOSE_MIN: Duration = Duration::from_secs(1);
/// Pause between two looks at what is left.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until what was just taken from shared sockets has asked and is answered, or did not ask: to its
/// client it looks as if the other process had it. A moment at first for connections that are between the
/// accept loop and their own task.
async fn first_requests(hub: &Hub, ends: Instant) {
    if hub.listeners.iter().any(|one| one.is_shared()) {
        tokio::time::sleep(2 * LOOK).await;
    }
    while hub.listeners.iter().any(|one| one.fresh_connections() > 0) && Instant::now() < ends {
        tokio::time::sleep(LOOK).await;
    }
}

/// After another process has taken over: waits until nobody is left here, `grace` at most. Connections of
/// HTTP/1 are closed with their next answer and not before, because a client that is about to ask on one that
/// is idle would find it closed, and could not know whether it was heard.
pub(super) async fn serve_the_rest(hub: &Hub, grace: Duration) {
    let ends = Instant::now() + grace;
    hub.websockets.handed_over();
    let is_left = |one: &Arc<BoundListener>| {
        one.connections() > 0 || one.fresh_connections() > 0 || one.http2_connections() > 0
    };
    // As above: what was just taken may not be counted yet.
    tokio::time::sleep((2 * LOOK).min(grace)).await;
    while hub.listeners.iter().any(is_left) || hub.lifecycle().in_flight() > 0 {
        if Instant::now() >= ends {
            tracing::warn!(
                connections = hub
                    .listeners
                    .iter()
                    .map(|one| one.connections())
                    .sum::<usize>(),
                in_flight = hub.lifecycle().in_flight(),
                "the grace after the upgrade is over; what is left is cut"
            );
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    tracing::info!("nobody is left here");
}

/// Turns readiness off, waits for load balancers to notice, then for the last request, `longest` at most.
pub(super) async fn drain(hub: &Hub, notice: Duration, longest: Duration) {
    hub.lifecycle().advance(Phase::Notice);
    service::stopping(hub, notice + longest);
    if hub.lifecycle().phase() == Phase::Notice {
        tracing::info!(
            notice_ms = notice.as_millis() as u64,
            "draining: readiness is off, connections are still taken"
        );
        tokio::time::sleep(notice).await;
    }
    hub.listeners.iter().for_each(|one| one.close());
    hub.lifecycle().advance(Phase::Draining);
    tracing::info!(
        in_flight = hub.lifecycle().in_flight(),
        "draining: no new connections"
    );
    service::draining(hub);
    hub.websockets.stop(longest / 2);
    let least = match hub.websockets.count() {
        0 => Duration::ZERO,
        _ => CLOSE_MIN,
    };
    finish(hub, longest.max(least)).await;
}

/// Waits for the last request and its answer, `longest` at most.
async fn finish(hub: &Hub, longest: Duration) {
    let ends = Instant::now() + longest;
    first_requests(hub, ends).await;
    let longest = ends.saturating_duration_since(Instant::now());
    let left = hub.lifecycle().wait_idle(longest).await;
    if left > 0 {
        tracing::warn!(left, "the drain's time is over; these requests are cut");
    }
    // The last answers of HTTP/1 are in the kernel's hands; those of HTTP/2 may still be in buffers of
    // this process, and their connections end once all is written. A client that answers no more
    // must not hold every drain up to its end.
    let ends = ends.min(Instant::now() + HTTP2_FLUSH_MAX);
    let unwritten = || hub.listeners.iter().any(|one| one.http2_connections() > 0);
    while unwritten() && Instant::now() < ends {
        tokio::time::sleep(LOOK).await;
    }
    // A moment for tasks to close in good order.
    tokio::time::sleep(2 * LOOK).await;
}
