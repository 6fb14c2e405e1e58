//! What a request waits for next, and how long it may.

use super::Admitted;
use crate::stages::Exchange;
use hub_core::{Reason, Version};
use std::time::{Duration, Instant};

/// Sets the deadline that is next: for the rest of the body (HTTP/2), for the first byte of the answer
/// once the request is sent, or for the request in all where that comes sooner.
pub(super) fn arm_deadlines(admitted: &mut Admitted, body_done: bool, answered: bool) {
    let exchange = &mut *admitted.exchange;
    let Some(target) = exchange.target else {
        return;
    };
    let cluster = &exchange.snapshot.config.clusters[target.cluster];
    admitted.progress.allow_silence(cluster.idle_timeout);
    let next = if !body_done && exchange.version == Version::Http2 {
        let longest = admitted
            .connection
            .settings(&exchange.snapshot)
            .body_timeout;
        Some((Instant::now() + longest, Reason::BodyTimeout))
    } else if body_done && !answered {
        // pingora tells the end of a request without a body twice.
        let began = *exchange.upstream_began.get_or_insert_with(Instant::now);
        let longest = cluster.first_byte_timeout + admitted.spare;
        Some((began + longest, Reason::UpstreamTimeout))
    } else {
        None
    };
    let total = total_deadline(exchange, cluster.total_timeout);
    let first = [next, total]
        .into_iter()
        .flatten()
        .min_by_key(|(deadline, _)| *deadline);
    match first {
        Some((deadline, reason)) => {
            admitted
                .progress
                .arm(admitted.connection.epoch, deadline, reason);
        }
        None => admitted.progress.disarm(),
    }
}

fn total_deadline(exchange: &Exchange, total: Option<Duration>) -> Option<(Instant, Reason)> {
    total.map(|total| (exchange.arrival.at + total, Reason::TotalTimeout))
}
