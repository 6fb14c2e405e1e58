//! identify: whose request is it? Credentials only; nothing a client merely claims.

use super::Exchange;
use crate::snapshot::RouteState;
use hub_core::{Refusal, RequestView};
use hub_plugins::{PluginContext, Verdict};
use std::sync::Arc;

/// Runs the route's identify plugins in declared order. The first credential that proves something
/// decides, and a bad one refuses, whatever else the request carries. A plugin that finds no
/// credential of its kind lets the next one look; if none finds any, the first that demands one
/// refuses.
pub(super) fn identify(
    exchange: &mut Exchange,
    route: &Arc<RouteState>,
    view: &RequestView<'_>,
) -> Result<(), Refusal> {
    let mut missing = None;
    for plugin in &route.identify {
        let mut context = PluginContext {
            now: exchange.wall,
            identity: exchange.identity.as_ref(),
            edits: &mut exchange.edits,
        };
        match plugin.on_request(view, &mut context) {
            Verdict::Continue => {}
            Verdict::Identified(identity) => {
                exchange.identity = Some(identity);
                // What other kinds of credential would have asked for does not belong in a good
                // answer.
                exchange.edits.response.retain(|edit| !is_challenge(edit));
                return Ok(());
            }
            Verdict::Missing(refusal) => {
                missing.get_or_insert(refusal);
            }
            Verdict::Refuse(refusal) => return Err(refusal),
        }
    }
    missing.map_or(Ok(()), Err)
}

fn is_challenge(edit: &hub_core::Edit) -> bool {
    use hub_core::Edit;
    match edit {
        Edit::Set(name, _) | Edit::Append(name, _) | Edit::Remove(name) => {
            *name == http::header::WWW_AUTHENTICATE
        }
    }
}
