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
    let overlay = tenant.and_then(|tenant| config.tenants[tenant].overlay.as_deref());
    let cluster = overlay
        .and_then(|overlay| overlay.cluster(route))
        .unwrap_or(config.routes[route].cluster);
    let colour = colour_on(snapshot, cluster, tenant, client);
    Target { cluster, colour }
}

/// The colour of a cluster for a tenant, or for a client without one.
pub(crate) fn colour_on(
    snapshot: &Snapshot,
    cluster: usize,
    tenant: Option<TenantIndex>,
    client: IpAddr,
) -> Colour {
    let config = &snapshot.config;
    let tenant = tenant.map(|tenant| &config.tenants[tenant]);
    let overlay = tenant.and_then(|tenant| tenant.overlay.as_deref());
    overlay
        .and_then(|overlay| overlay.colour(cluster))
        .unwrap_or_else(|| {
            let id = tenant.map(|tenant| tenant.id.as_str());
            let name = &config.clusters[cluster].name;
            colour(&snapshot.routing[cluster], name, id, client)
        })
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

/// How often a request may try another endpoint because it could not connect.
pub(crate) fn connect_retries(exchange: &Exchange) -> u32 {
    exchange.target.map_or(0, |target| {
        let snapshot = &exchange.snapshot;
        let endpoints = snapshot.clusters.endpoints(target.cluster, target.colour);
        let retries = snapshot.config.clusters[target.cluster].connect_retries;
        u32::from(retries) * u32::from(endpoints.len() > 1)
    })
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
