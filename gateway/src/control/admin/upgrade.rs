//! Upgrades over the admin API.

use super::{Admin, problem};
use crate::upgrade::{Order, Refused, Trigger};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Longest grace, in milliseconds, as in the configuration.
const GRACE_MS_MAX: u64 = 604_800_000;

/// What is wanted. All of it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    binary: Option<PathBuf>,
    grace_ms: Option<u64>,
}

pub(super) async fn show(State(admin): State<Admin>) -> Json<Value> {
    Json(admin.upgrader.show())
}

pub(super) async fn begin(State(admin): State<Admin>, body: Bytes) -> Response {
    let order = match order(&body) {
        Ok(order) => order,
        Err(why) => return problem(StatusCode::UNPROCESSABLE_ENTITY, "bad_upgrade", why),
    };
    match admin.upgrader.begin(order, Trigger::Admin).await {
        Ok(id) => (StatusCode::ACCEPTED, Json(json!({ "id": id }))).into_response(),
        Err(refused) => {
            let status = match &refused {
                Refused::Path(_) => StatusCode::UNPROCESSABLE_ENTITY,
                Refused::UnderWay
                | Refused::NotServing
                | Refused::Draining(_)
                | Refused::Rollout(_)
                | Refused::First => StatusCode::CONFLICT,
            };
            problem(status, refused.code(), refused.to_string())
        }
    }
}

fn order(body: &[u8]) -> Result<Order, String> {
    let wanted = match body {
        [] => Wanted::default(),
        body => serde_json::from_slice(body).map_err(|error| {
            format!("{error}; the body may hold binary (an absolute path) and grace_ms only")
        })?,
    };
    if wanted.grace_ms.is_some_and(|grace| grace > GRACE_MS_MAX) {
        return Err(format!("grace_ms must be 0 to {GRACE_MS_MAX}"));
    }
    Ok(Order {
        binary: wanted.binary,
        grace: wanted.grace_ms.map(Duration::from_millis),
    })
}
