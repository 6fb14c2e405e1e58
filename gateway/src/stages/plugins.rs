//! plugins: the route's request filters, in declared order, each as if alone.

use crate::snapshot::RouteState;
use hub_core::{Edits, Identity, Refusal, RequestView};
use hub_plugins::{PluginContext, Verdict};
use std::time::SystemTime;

/// Runs every request plugin of the route until one refuses.
pub(crate) fn run(
    route: &RouteState,
    view: &RequestView<'_>,
    now: SystemTime,
    identity: Option<&Identity>,
    edits: &mut Edits,
) -> Result<(), Refusal> {
    for plugin in &route.filters {
        let mut context = PluginContext {
            now,
            identity,
            edits,
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
