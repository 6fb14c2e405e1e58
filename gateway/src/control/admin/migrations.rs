//! The ledger of migrations over the admin API: `hubctl migrate` runs the SQL, and asks here whether it may.

use super::rollouts::rollouts;
use super::{Admin, problem};
use crate::control::audit;
use crate::snapshot::colour_name;
use crate::switch::driver::Rollouts;
use crate::switch::fence::{GuardedLedger, Standing};
use crate::switch::schema;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hub_store::{Finish, MigrationLedger, NewStep, Step, StoreError, WhenRunning};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    step: NewStep,
    when_running: WhenRunning,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    number: u32,
    finish: Finish,
}

pub(super) async fn list(State(admin): State<Admin>) -> Result<Response, Response> {
    let ledger = ledger(&admin)?;
    let scopes = ledger.known().await.map_err(|error| refusal(&error))?;
    let mut shown = Vec::with_capacity(scopes.len());
    for scope in scopes {
        let scope = show(ledger, &scope).await;
        shown.push(scope.map_err(|error| refusal(&error))?);
    }
    Ok(Json(json!({ "scopes": shown })).into_response())
}

pub(super) async fn one(
    State(admin): State<Admin>,
    Path(scope): Path<String>,
) -> Result<Response, Response> {
    let shown = show(ledger(&admin)?, &scope).await;
    let shown = shown.map_err(|error| refusal(&error))?;
    Ok(Json(shown).into_response())
}

pub(super) async fn begin(
    State(admin): State<Admin>,
    Path(scope): Path<String>,
    body: Bytes,
) -> Result<Response, Response> {
    let ledger = ledger(&admin)?;
    let Begin { step, when_running } = read(&body)?;
    if step.scope != scope {
        let message = format!(
            "the path names `{scope}`, and the step is of `{}`",
            step.scope
        );
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(problem(status, "invalid", message));
    }
    let detail = json!({
        "scope": scope, "step": step.number, "name": step.name, "kind": step.kind, "run": step.run,
        "when_running": when_running,
    });
    let outcome = ledger.begin(step, when_running).await;
    Ok(answer(&admin, "migration_begin", detail, outcome))
}

pub(super) async fn finish(
    State(admin): State<Admin>,
    Path(scope): Path<String>,
    body: Bytes,
) -> Result<Response, Response> {
    let ledger = ledger(&admin)?;
    let End { number, finish } = read(&body)?;
    let detail =
        json!({"scope": scope, "step": number, "run": finish.run, "ended": finish.outcome});
    let outcome = ledger.finish(&scope, number, finish).await;
    if let Ok(step) = &outcome {
        tracing::info!(
            scope,
            step = number,
            kind = step.kind.as_str(),
            state = step.state.as_str(),
            detail = step.detail,
            "a step of the migrations has ended"
        );
    }
    Ok(answer(&admin, "migration_finish", detail, outcome))
}

#[allow(clippy::result_large_err)] // The error is the answer.
fn ledger(admin: &Admin) -> Result<&GuardedLedger, Response> {
    rollouts(admin).map(Rollouts::migrations)
}

#[allow(clippy::result_large_err)] // The error is the answer.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Response> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("{error}; is hubctl of another version?");
        problem(StatusCode::BAD_REQUEST, "bad_body", message)
    })
}

/// Answers, and leaves a line in the audit trail, also of what was refused.
fn answer(
    admin: &Admin,
    action: &'static str,
    mut detail: Value,
    outcome: Result<Step, StoreError>,
) -> Response {
    detail["outcome"] = match &outcome {
        Ok(step) => json!(step.state),
        Err(error) => json!(error.to_string()),
    };
    let hub = Arc::clone(&admin.hub);
    tokio::task::spawn_blocking(move || {
        audit::write(&hub.snapshot().config.admin, "admin", action, &detail);
    });
    match outcome {
        Ok(step) => Json(json!(step)).into_response(),
        Err(error) => refusal(&error),
    }
}

/// An error so that the other side can make the same one of it.
fn refusal(error: &StoreError) -> Response {
    let (status, code, more) = match error {
        StoreError::Refused(_) => (StatusCode::CONFLICT, "refused", json!({})),
        StoreError::Conflict { current } => (
            StatusCode::CONFLICT,
            "conflict",
            json!({ "current": current }),
        ),
        StoreError::Held {
            scope,
            number,
            run,
            since_us,
        } => (
            StatusCode::CONFLICT,
            "held",
            json!({"scope": scope, "number": number, "run": run, "since_us": since_us}),
        ),
        StoreError::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", json!({})),
        StoreError::Unavailable(_) | StoreError::Open { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable", json!({}))
        }
    };
    let error = json!({"code": code, "message": error.to_string(), "of": more});
    (status, Json(json!({ "error": error }))).into_response()
}

async fn show(ledger: &GuardedLedger, scope: &str) -> Result<Value, StoreError> {
    let steps = ledger.list(scope).await?;
    let standings = ledger.standings(scope, &steps).await;
    // Where clusters differ, nobody but the operator knows whose sessions are the old ones.
    let retired: BTreeSet<&str> = standings
        .iter()
        .filter(|standing| standing.active)
        .map(|standing| colour_name(standing.colour.other()))
        .collect();
    Ok(json!({
        "scope": scope,
        "step": schema::applied(&steps),
        "steps": steps,
        "retired": retired,
        "colours": standings.iter().map(colour).collect::<Vec<_>>(),
    }))
}

fn colour(standing: &Standing) -> Value {
    let range = standing.range.as_ref();
    json!({
        "cluster": standing.cluster,
        "colour": colour_name(standing.colour),
        "active": standing.active,
        "min": range.ok().map(|range| range.min),
        "max": range.ok().map(|range| range.max),
        "fits": standing.range.is_ok() && standing.misfit.is_none(),
        "why": range.err().or(standing.misfit.as_ref()),
    })
}
