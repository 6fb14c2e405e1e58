//! fallback: a request that the new colour of a rollout failed is tried once on the old one.
//!
//! Invariant: only from the new colour to the old one, so the old colour never has more to do than before
//! the rollout; once for a request; and within a [budget](crate::switch::budget).
//! Invariant: a tenant with a colour of its own never leaves it.
//! Invariant: the judges hear of the failure as if the client had met it, and of nothing else.

use super::{Exchange, Target, record};
use crate::switch::watch::{Ending, Watch};
use hub_config::runtime::Colour;
use hub_core::Method;
use std::sync::Arc;

/// Sends the request to the old colour, where its route allows it, a rollout keeps both colours, its method
/// is idempotent and nothing of its body is gone. True where the caller is to pick anew.
///
/// Where the new colour is silent it may still act, perhaps after the client's next request: then only
/// methods that change nothing go over.
pub(crate) fn fall_back(
    exchange: &mut Exchange,
    method: &Method,
    body_gone: bool,
    ending: Ending,
    status: u16,
) -> bool {
    if body_gone {
        return false;
    }
    let Some((target, colour, watch)) = other(exchange, method, ending) else {
        return false;
    };
    let Some(guard) = exchange.guard() else {
        return false;
    };
    let snapshot = &exchange.snapshot;
    let counters = snapshot.upstream(target.cluster, target.colour);
    if !watch.budget.take() {
        counters.over_budget();
        return false;
    }
    let cluster = &snapshot.config.clusters[target.cluster].name;
    let Some(guard) = guard.move_to(colour, &exchange.hub.switchboard, cluster) else {
        return false;
    };
    counters.fell_back();
    record::try_failed(exchange, ending, status);
    exchange.pick = None;
    exchange.upstream_first_byte = None;
    exchange.retries += 1;
    exchange.first_colour = Some(target.colour);
    exchange.move_to(Target { colour, ..target }, Some(guard));
    true
}

/// Whether a request that gets no answer in time may go to the old colour.
pub(crate) fn may_leave_silence(exchange: &Exchange, method: &Method) -> bool {
    other(exchange, method, Ending::Timeout).is_some()
}

/// Where the request is, the colour that it may go to, and whose budget counts it.
fn other(
    exchange: &Exchange,
    method: &Method,
    ending: Ending,
) -> Option<(Target, Colour, Arc<Watch>)> {
    let may_run_twice = match ending {
        Ending::Timeout => method.is_safe(),
        _ => method.is_idempotent(),
    };
    let (route, target, guard) = (exchange.route?, exchange.target?, exchange.guard()?);
    let snapshot = &exchange.snapshot;
    if exchange.first_colour.is_some()
        || !snapshot.config.routes[route].retry_other_colour
        || !may_run_twice
        || has_own_colour(exchange, target.cluster)
    {
        return None;
    }
    let (colour, watch) = guard.fallback()?;
    let endpoints = snapshot.clusters.endpoints(target.cluster, colour);
    (!endpoints.is_empty()).then_some((target, colour, watch))
}

fn has_own_colour(exchange: &Exchange, cluster: usize) -> bool {
    let tenant = exchange
        .tenant
        .map(|tenant| &exchange.snapshot.config.tenants[tenant]);
    let overlay = tenant.and_then(|tenant| tenant.overlay.as_ref());
    overlay.is_some_and(|overlay| overlay.colour(cluster).is_some())
}
