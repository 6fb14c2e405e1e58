//! plugins: the route's request filters, in declared order, each as if alone.

use super::Exchange;
use crate::snapshot::RouteState;
use hub_core::{Refusal, RequestView};
use hub_plugins::{PluginContext, Verdict};
use std::sync::Arc;

/// Runs every request plugin of the route until one refuses.
pub(super) fn run(
    exchange: &mut Exchange,
    route: &Arc<RouteState>,
    view: &RequestView<'_>,
) -> Result<(), Refusal> {
    for plugin in &route.filters {
        let mut context = PluginContext {
            now: exchange.wall,
            identity: exchange.identity.as_ref(),
            edits: &mut exchange.edits,
        };
        match plugin.on_request(view, &mut context) {
            // Identities are established before the tenant is resolved; one that comes later could
            // contradict it, so it is not taken.
            Verdict::Continue | Verdict::Identified(_) => {}
            Verdict::Missing(refusal) | Verdict::Refuse(refusal) => return Err(refusal),
        }
    }
    Ok(())
}
