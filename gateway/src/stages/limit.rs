//! limit: who sends too fast, and who has too much in flight.
//!
//! The address is checked before any credential is looked at, so that guessing them is limited too.
//! Order after that: the tenant's own quota, the route's rules, then the tenant's bulkhead; a
//! request that an earlier one refuses takes nothing from later ones.

use super::Exchange;
use crate::limit::{Decision, RateLimitState};
use crate::snapshot::Snapshot;
use crate::tenant_state::{Permit, TenantState};
use hub_config::runtime::LimitBy;
use hub_core::{Reason, Refusal, RequestView};
use std::net::IpAddr;

/// Holds the client's address to the limits of the gateway as a whole.
pub(super) fn by_address(exchange: &mut Exchange, snapshot: &Snapshot) -> Result<(), Refusal> {
    if snapshot.address_rules.is_empty() {
        return Ok(());
    }
    let mut buffer = [0; 16];
    let key = address_key(exchange.arrival.client.address, &mut buffer);
    let now = exchange.hub.nanos(exchange.arrival.at);
    for rule in &snapshot.address_rules {
        let decision = exchange.hub.limiter.check(rule, key, now);
        note(&mut exchange.rate, decision, Reason::AddressLimited)?;
    }
    Ok(())
}

/// Holds the request to its tenant's quota, its route's rules and its tenant's bulkhead. The permit
/// frees the tenant's place when dropped.
pub(super) fn by_tenant_and_route(
    exchange: &mut Exchange,
    snapshot: &Snapshot,
    route: usize,
    view: &RequestView<'_>,
) -> Result<Option<Permit>, Refusal> {
    let now = exchange.hub.nanos(exchange.arrival.at);
    let tenant = exchange
        .tenant
        .map(|tenant| (&snapshot.config.tenants[tenant], snapshot.tenant(tenant)));
    if let Some((config, state)) = tenant
        && let Some(quota) = &config.quota
    {
        let decision = state.check_quota(quota, now);
        note(&mut exchange.rate, decision, Reason::TenantLimited)?;
    }
    for rule in &snapshot.routes[route].rules {
        let mut buffer = [0; 16];
        let key: Option<&[u8]> = match rule.by() {
            LimitBy::Address => Some(address_key(exchange.arrival.client.address, &mut buffer)),
            LimitBy::Tenant => tenant.map(|(config, _)| config.id.as_str().as_bytes()),
            // Routes may share a rule by name, but each has a budget of its own.
            LimitBy::Route => Some(snapshot.config.routes[route].name.as_bytes()),
            // A subject is unique among one tenant's credentials of one kind and no further.
            LimitBy::Identity => {
                if let Some(identity) = &exchange.identity {
                    let tenant =
                        tenant.map_or(&b""[..], |(config, _)| config.id.as_str().as_bytes());
                    let method = identity.method.as_str().as_bytes();
                    let parts = [method, tenant, identity.subject.as_bytes()];
                    let decision = exchange.hub.limiter.check_parts(rule, &parts, now);
                    note(&mut exchange.rate, decision, Reason::RouteLimited)?;
                }
                None
            }
            // A request without the header shares one budget with all others without it, so that
            // leaving it out is no way around the limit.
            LimitBy::Header(name) => Some(view.headers.get(name.as_str()).unwrap_or(b"")),
        };
        let Some(key) = key else { continue };
        let decision = exchange.hub.limiter.check(rule, key, now);
        note(&mut exchange.rate, decision, Reason::RouteLimited)?;
    }
    match tenant {
        Some((config, state)) => TenantState::enter(state, config.in_flight_max).map(Some),
        None => Ok(None),
    }
}

/// Keeps the tightest limit for the headers, and refuses where it is used up.
fn note(
    tightest: &mut Option<RateLimitState>,
    decision: Decision,
    reason: Reason,
) -> Result<(), Refusal> {
    let state = decision.state();
    if tightest
        .as_ref()
        .is_none_or(|known| state.is_tighter_than(known))
    {
        *tightest = Some(state);
    }
    match decision.retry_after_seconds() {
        None => Ok(()),
        Some(seconds) => Err(Refusal::new(reason).retry_after(seconds)),
    }
}

/// The address as a key: IPv4 by address, IPv6 by its /64, since one subscriber has all of it.
fn address_key(address: IpAddr, buffer: &mut [u8; 16]) -> &[u8] {
    match address {
        IpAddr::V4(v4) => {
            buffer[..4].copy_from_slice(&v4.octets());
            &buffer[..4]
        }
        IpAddr::V6(v6) => {
            buffer[..8].copy_from_slice(&v6.octets()[..8]);
            &buffer[..8]
        }
    }
}
