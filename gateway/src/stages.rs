//! The stages of a request, in the order in which they run, for every lane.
//!
//! accept -> route -> address limit -> identify -> tenant -> limit -> detect -> plugins -> pick ->
//! forward -> record. A stage takes what earlier ones found and says no with a [`Refusal`].
//!
//! Invariant: no stage names a pingora type, waits, or reads `control/`.
//! Invariant: an [`Exchange`] holds one snapshot from accept to record, so no request sees half of
//! two configurations.
//! Invariant: an [`Exchange`] is recorded exactly once, also where a client or a task goes away.

pub mod accept;
pub mod detect;
pub(crate) mod fallback;
pub mod forward;
pub mod identify;
pub mod limit;
pub mod pick;
pub mod plugins;
pub mod record;
pub mod route;
pub mod tenant;

use crate::hub::Hub;
use crate::lifecycle::InFlight;
use crate::limit::RateLimitState;
use crate::snapshot::Snapshot;
use crate::switch::traffic::Guard;
use crate::tenant_state::Permit;
use crate::upstream::Pick;
use hub_config::runtime::{Colour, TenantIndex};
use hub_core::{
    Client, Edits, HeaderValue, Identity, Reason, Refusal, RequestId, RequestView, Scheme,
    TraceContext, Version,
};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What is known of a request before the stages run.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Position of the listener in [`Snapshot::listeners`].
    pub listener: usize,
    /// Plain or TLS.
    pub scheme: Scheme,
    /// Monotonic time of the head's first byte.
    pub at: Instant,
    /// Who asks.
    pub client: Client,
    /// `X-Forwarded-For` for upstreams: what trusted hops told, then our own peer.
    pub forwarded_for: HeaderValue,
}

/// One request from accept to record: all that the stages found, did and owe.
#[derive(Debug)]
pub struct Exchange {
    pub(crate) hub: Arc<Hub>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) arrival: Arrival,
    pub(crate) wall: SystemTime,
    pub(crate) request_id: RequestId,
    pub(crate) trace: TraceContext,
    pub(crate) version: Version,
    pub(crate) route: Option<usize>,
    pub(crate) identity: Option<Identity>,
    pub(crate) tenant: Option<TenantIndex>,
    pub(crate) edits: Edits,
    pub(crate) rate: Option<RateLimitState>,
    permit: Option<Permit>,
    guard: Option<Guard>,
    pub(crate) target: Option<Target>,
    /// The colour that failed the request before `target`'s was asked.
    pub(crate) first_colour: Option<Colour>,
    pub(crate) pick: Option<Pick>,
    pub(crate) retries: u32,
    pub(crate) upstream_began: Option<Instant>,
    pub(crate) upstream_first_byte: Option<Duration>,
    pub(crate) refusal: Option<Refusal>,
    /// The status that the client got; 0 for none.
    pub(crate) status: u16,
    /// The upstream answered an upgrade that the route passes through as if it knew none.
    pub(crate) upgrade_refused: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    recorded: bool,
    _in_flight: InFlight,
}

/// Where a request goes: fixed before the first try, the same for a second one but for `fallback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Position of the cluster in the snapshot.
    pub cluster: usize,
    /// Its colour for this tenant.
    pub colour: Colour,
}

/// Length of a request's body as announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    None,
    /// This many bytes.
    Known(u64),
    /// As many as come.
    Unknown,
}

/// Runs every stage between accept and pick. On refusal the exchange keeps what was found so far, for
/// the record.
pub fn admit(
    exchange: &mut Exchange,
    view: &RequestView<'_>,
    body: BodyLength,
) -> Result<(), Refusal> {
    let snapshot = Arc::clone(&exchange.snapshot);
    let found = route::route(&snapshot.router, view, &mut exchange.edits)?;
    exchange.route = Some(found.route);
    let route = &snapshot.routes[found.route];
    let route_config = &snapshot.config.routes[found.route];
    limit::by_address(exchange, &snapshot)?;
    exchange.identity = identify::identify(route, view, exchange.wall, &mut exchange.edits)?;
    exchange.tenant = match &route_config.tenant {
        Some(rule) => tenant::tenant(
            &snapshot.config.tenants,
            rule,
            &found,
            view,
            exchange.identity.as_ref(),
            route.identifies(),
        )?,
        None => None,
    };
    accept::check_body_length(body, route_config.body_bytes_max)?;
    exchange.permit = limit::by_tenant_and_route(exchange, &snapshot, found.route, view)?;
    detect::detect(exchange, view)?;
    plugins::run(
        route,
        view,
        exchange.wall,
        exchange.identity.as_ref(),
        &mut exchange.edits,
    )?;
    pick::aim(exchange, &snapshot, found.route);
    Ok(())
}

impl Exchange {
    /// Name of the route, or `-`.
    pub(crate) fn route_name(&self) -> &str {
        self.route.map_or("-", |route| {
            self.snapshot.config.routes[route].name.as_str()
        })
    }

    /// The tenant's id, where one was resolved.
    pub(crate) fn tenant_id(&self) -> Option<&str> {
        self.tenant
            .map(|tenant| self.snapshot.config.tenants[tenant].id.as_str())
    }

    /// Notes why the request ends here. The first reason stands.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        if self.refusal.is_none() {
            self.refusal = Some(refusal);
        }
    }

    /// The reason noted by [`Exchange::refuse`].
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.refusal.as_ref().map(|refusal| refusal.reason)
    }

    /// Gives it a target, and a place on its colour.
    fn move_to(&mut self, target: Target, guard: Option<Guard>) {
        if let Some(permit) = &mut self.permit {
            permit.count_on(target.colour);
        }
        self.target = Some(target);
        self.guard = guard;
    }

    /// Its place on a colour.
    pub(crate) fn guard(&self) -> Option<&Guard> {
        self.guard.as_ref()
    }

    /// Gives the tenant's place and the colour back: the request is over, though its exchange may live on.
    pub(crate) fn release(&mut self) {
        self.permit = None;
        self.guard = None;
    }
}
