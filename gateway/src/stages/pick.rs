//! pick: which cluster, which colour, which endpoint.

use super::{Exchange, Target};
use crate::snapshot::Snapshot;
use hub_config::runtime::TenantIndex;
use hub_core::{Reason, Refusal};
use std::time::Instant;

/// The cluster and colour for a tenant on a route: the tenant's overlay where it has one, else what
/// all share.
pub(crate) fn target(snapshot: &Snapshot, route: usize, tenant: Option<TenantIndex>) -> Target {
    let overlay = tenant.and_then(|tenant| snapshot.config.tenants[tenant].overlay.as_deref());
    let cluster = overlay
        .and_then(|overlay| overlay.cluster(route))
        .unwrap_or(snapshot.config.routes[route].cluster);
    let colour = overlay
        .and_then(|overlay| overlay.colour(cluster))
        .unwrap_or(snapshot.config.clusters[cluster].active);
    Target { cluster, colour }
}

/// Picks an endpoint for the first or second try and counts the request on it. The endpoint of an
/// earlier try is avoided while there is another.
pub(crate) fn pick(exchange: &mut Exchange, now: Instant) -> Result<(), Refusal> {
    let target = exchange.target.ok_or_else(|| {
        Refusal::new(Reason::Internal)
            .with_detail("no target was set before an endpoint was picked")
    })?;
    let tried = exchange.pick.take();
    let picked = exchange.snapshot.clusters.pick(
        target.cluster,
        target.colour,
        tried.as_ref(),
        now,
        &mut rand::rng(),
    );
    exchange.pick = picked;
    if exchange.pick.is_some() {
        Ok(())
    } else {
        Err(Refusal::new(Reason::NoEndpoint).retry_after(1))
    }
}
