//! Open WebSockets over the admin API.

use super::{Admin, problem};
use crate::control::audit;
use crate::control::low;
use crate::websocket::registry::Which;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Most sessions in one answer.
const SESSIONS_MAX: usize = 1_000;
/// Longest time over which sessions are closed, in milliseconds.
const SPREAD_MS_MAX: u64 = 3_600_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    limit: Option<usize>,
    session: Option<u64>,
    tenant: Option<String>,
    route: Option<String>,
    cluster: Option<String>,
    colour: Option<String>,
    endpoint: Option<String>,
}

/// What to close, and how.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    #[serde(default)]
    which: Which,
    /// Close all of them, which is to be said.
    #[serde(default)]
    all: bool,
    #[serde(default = "Order::code")]
    code: u16,
    #[serde(default)]
    spread_ms: u64,
}

impl Order {
    fn code() -> u16 {
        1001
    }

    fn check(&self) -> Result<(), String> {
        if self.which.is_any() != self.all {
            return Err(
                "say which: `which` with session, tenant, route, cluster, colour or endpoint; or `all` alone".into(),
            );
        }
        if !matches!(self.code, 1000 | 1001 | 1008 | 1011..=1013 | 3000..=4999) {
            return Err("code must be 1000, 1001, 1008, 1011, 1012, 1013, or 3000 to 4999".into());
        }
        if self.spread_ms > SPREAD_MS_MAX {
            return Err(format!("spread_ms must be 0 to {SPREAD_MS_MAX}"));
        }
        Ok(())
    }
}

pub(super) async fn list(
    State(admin): State<Admin>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    let wrong = |what: String| problem(StatusCode::BAD_REQUEST, "bad_query", what);
    let wanted = match query {
        Ok(Query(wanted)) => wanted,
        Err(error) => return wrong(error.body_text()),
    };
    let limit = wanted.limit.unwrap_or(100);
    if limit > SESSIONS_MAX {
        return wrong(format!("limit must be 0 to {SESSIONS_MAX}"));
    }
    let which = Which {
        session: wanted.session,
        tenant: wanted.tenant,
        route: wanted.route,
        cluster: wanted.cluster,
        colour: wanted.colour,
        endpoint: wanted.endpoint,
    };
    // Thousands take milliseconds to look through.
    let hub = Arc::clone(&admin.hub);
    let look = move || {
        low::nice(10);
        hub.websockets.show(&which, limit)
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(shown) => Json(shown).into_response(),
        Err(error) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            problem(status, "internal", error.to_string())
        }
    }
}

pub(super) async fn close(State(admin): State<Admin>, body: Bytes) -> Response {
    let order: Result<Order, String> =
        serde_json::from_slice(&body).map_err(|error| error.to_string());
    let checked = order.and_then(|order| order.check().map(|()| order));
    let order = match checked {
        Ok(order) => order,
        Err(why) => return problem(StatusCode::UNPROCESSABLE_ENTITY, "bad_order", why),
    };
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let hub = Arc::clone(&admin.hub);
    let work = move || {
        let spread = Duration::from_millis(order.spread_ms);
        let closing = hub.websockets.close(&order.which, order.code, spread);
        let config = &hub.snapshot().config;
        let detail = json!({"asked": asked, "closing": closing});
        audit::write(&config.admin, "admin", "websockets_close", &detail);
        closing
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(closing) => Json(json!({ "closing": closing })).into_response(),
        Err(error) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            problem(status, "internal", error.to_string())
        }
    }
}
