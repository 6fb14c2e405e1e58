//! pick: which cluster, which colour, which endpoint.

use super::{Exchange, Target};
use crate::snapshot::Snapshot;
use crate::switch::traffic::Generation;
use hub_config::runtime::{Colour, TenantIndex};
use hub_core::{Reason, Refusal};
use std::net::IpAddr;
use std::time::Instant;

/// The cluster and colour for a tenant on a route: the tenant's overlay where it has one, else what the
/// cluster's routing says of it, or of a client without a tenant.
pub(crate) fn target(
    snapshot: &Snapshot,
    route: usize,
    tenant: Option<TenantIndex>,
    client: IpAddr,
) -> Target {
    let config = &snapshot.config;
    let tenant = tenant.map(|tenant| &config.tenants[tenant]);
    let overlay = tenant.and_then(|tenant| tenant.overlay.as_deref());
    let cluster = overlay
        .and_then(|overlay| overlay.cluster(route))
        .unwrap_or(config.routes[route].cluster);
    let colour = overlay
        .and_then(|overlay| overlay.colour(cluster))
        .unwrap_or_else(|| {
            let id = tenant.map(|tenant| tenant.id.as_str());
            colour(
                &snapshot.routing[cluster],
                &config.clusters[cluster].name,
                id,
                client,
            )
        });
    Target { cluster, colour }
}

fn colour(generation: &Generation, cluster: &str, tenant: Option<&str>, client: IpAddr) -> Colour {
    match (tenant, client) {
        (Some(id), _) => generation.colour(cluster, tenant, id.as_bytes()),
        (None, IpAddr::V4(v4)) => generation.colour(cluster, None, &v4.octets()),
        (None, IpAddr::V6(v6)) => generation.colour(cluster, None, &v6.octets()[..8]),
    }
}

/// Finds the target and counts the request on its colour to its end. Where the routing has changed since
/// the snapshot was taken, the new one counts.
pub(super) fn aim(exchange: &mut Exchange, snapshot: &Snapshot, route: usize) {
    let client = exchange.arrival.client.address;
    let mut target = target(snapshot, route, exchange.tenant, client);
    let mut guard = snapshot.routing[target.cluster].enter(target.colour);
    while guard.is_none() {
        let cluster = &snapshot.config.clusters[target.cluster].name;
        let Some(present) = exchange.hub.switchboard.present(cluster) else {
            // A reload has removed the cluster; this request still has it.
            break;
        };
        let overlay = exchange
            .tenant
            .and_then(|tenant| snapshot.config.tenants[tenant].overlay.as_deref())
            .and_then(|overlay| overlay.colour(target.cluster));
        let wanted =
            overlay.unwrap_or_else(|| colour(&present, cluster, exchange.tenant_id(), client));
        let endpoints = snapshot.clusters.endpoints(target.cluster, wanted);
        if endpoints.is_empty() {
            // A reload brings them with the routing, and this request came just before it.
            break;
        }
        target.colour = wanted;
        guard = present.enter(target.colour);
    }
    exchange.move_to(target, guard);
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
