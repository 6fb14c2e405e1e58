//! identify: whose request is it? Credentials only; nothing a client merely claims.

use crate::snapshot::RouteState;
use hub_core::{Edits, Identity, Refusal, RequestView};
use hub_plugins::{PluginContext, Verdict};
use std::time::SystemTime;

/// Runs the route's identify plugins in declared order. The first credential that proves something
/// decides, and a bad one refuses, whatever else the request carries. A plugin that finds no
/// credential of its kind lets the next one look; if none finds any, the first that demands one
/// refuses.
pub(crate) fn identify(
    route: &RouteState,
    view: &RequestView<'_>,
    now: SystemTime,
    edits: &mut Edits,
) -> Result<Option<Identity>, Refusal> {
    let mut missing = None;
    for plugin in &route.identify {
        let mut context = PluginContext {
            now,
            identity: None,
            edits,
        };
        match plugin.on_request(view, &mut context) {
            Verdict::Continue => {}
            Verdict::Identified(identity) => {
                // What other kinds of credential would have asked for does not belong in a good
                // answer.
                edits.response.retain(|edit| !is_challenge(edit));
                return Ok(Some(identity));
            }
            Verdict::Missing(refusal) => {
                missing.get_or_insert(refusal);
            }
            Verdict::Refuse(refusal) => return Err(refusal),
        }
    }
    missing.map_or(Ok(None), Err)
}

fn is_challenge(edit: &hub_core::Edit) -> bool {
    use hub_core::Edit;
    match edit {
        Edit::Set(name, _) | Edit::Append(name, _) | Edit::Remove(name) => {
            *name == http::header::WWW_AUTHENTICATE
        }
    }
}
