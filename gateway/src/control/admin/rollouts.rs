//! Rollouts over the admin API.

use super::{Admin, problem};
use crate::control::audit;
use crate::hub::Hub;
use crate::snapshot::colour_name;
use crate::switch::driver::{Failure, Rollouts, View};
use crate::switch::machine::{Event, Name, Phase};
use crate::switch::plan::{Plan, Stage};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hub_config::runtime::Colour;
use hub_store::StoreError;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A plan as operators write it. What is left out is as [`Plan::default`] has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    stages: Option<Vec<WantedStage>>,
    bake_seconds: Option<f64>,
    drain_timeout_seconds: Option<f64>,
    gate_timeout_seconds: Option<f64>,
    verdict_timeout_seconds: Option<f64>,
    requests_min: Option<u64>,
    baseline_seconds: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedStage {
    /// 0 to below 100.
    #[serde(default)]
    percent: f64,
    #[serde(default)]
    tenants: BTreeSet<String>,
    #[serde(default = "a_minute")]
    observe_seconds: f64,
}

fn a_minute() -> f64 {
    60.0
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    limit: Option<u32>,
}

#[allow(clippy::result_large_err)] // The error is the answer.
pub(super) fn rollouts(admin: &Admin) -> Result<&Rollouts, Response> {
    admin.rollouts.as_ref().ok_or_else(|| {
        problem(
            StatusCode::CONFLICT,
            "no_store",
            "rollouts and migrations are written down before they are acted on, and there is no place for that: set `directory` in the section `[store]` of the configuration, then `hubctl upgrade` brings it into force without a request lost",
        )
    })
}

pub(super) async fn list(State(admin): State<Admin>) -> Response {
    match rollouts(&admin) {
        Ok(rollouts) => {
            let views = rollouts.views();
            let show = |(name, view): (&String, &View)| show(&admin.hub, name, view);
            let shown: Vec<Value> = views.iter().map(show).collect();
            Json(json!({ "rollouts": shown })).into_response()
        }
        Err(response) => response,
    }
}

pub(super) async fn command(
    State(admin): State<Admin>,
    Path((cluster, command)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let event = match command.as_str() {
        "start" => match plan(&body) {
            Ok(plan) => Event::Start(plan),
            Err(message) => return problem(StatusCode::UNPROCESSABLE_ENTITY, "bad_plan", message),
        },
        "pause" => Event::Pause,
        "resume" => Event::Resume,
        "promote" => Event::Promote,
        "abort" => Event::Abort,
        "accept" => Event::Accept,
        "contracted" => Event::Contracted,
        _ => {
            return problem(
                StatusCode::NOT_FOUND,
                "unknown_path",
                "a rollout takes start, pause, resume, promote, abort, accept and contracted",
            );
        }
    };
    let rollouts = match rollouts(&admin) {
        Ok(rollouts) => rollouts,
        Err(response) => return response,
    };
    let outcome = rollouts.command(&cluster, event).await;
    let told = outcome.as_ref().map_or_else(ToString::to_string, |view| {
        view.record.phase.name().to_string()
    });
    let detail = json!({"cluster": cluster, "command": command, "outcome": told});
    let hub = Arc::clone(&admin.hub);
    tokio::task::spawn_blocking(move || {
        audit::write(&hub.snapshot().config.admin, "admin", "rollout", &detail);
    });
    match outcome {
        Ok(view) => Json(show(&admin.hub, &cluster, &view)).into_response(),
        Err(Failure::UnknownCluster(name)) => unknown(&admin.hub, &name),
        Err(failure) => {
            let (status, code) = match &failure {
                Failure::UnknownCluster(_) => (StatusCode::NOT_FOUND, "unknown_cluster"),
                Failure::Plan(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_plan"),
                Failure::Refused(_) => (StatusCode::CONFLICT, "refused"),
                Failure::Upgrading => (StatusCode::CONFLICT, "upgrade_under_way"),
                Failure::Draining(_) => (StatusCode::CONFLICT, "processes_draining"),
                Failure::Ledger(_) | Failure::Ending => {
                    (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
                }
            };
            problem(status, code, failure.to_string())
        }
    }
}

pub(super) async fn history(
    State(admin): State<Admin>,
    Path(cluster): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Response {
    let rollouts = match rollouts(&admin) {
        Ok(rollouts) => rollouts,
        Err(response) => return response,
    };
    match rollouts.history(&cluster, query.limit.unwrap_or(50)).await {
        Ok(entries) if entries.is_empty() && !is_known(&admin.hub, &cluster) => {
            unknown(&admin.hub, &cluster)
        }
        Ok(entries) => {
            let entries: Vec<Value> = entries
                .iter()
                .map(|entry| {
                    let record: Value = serde_json::from_str(&entry.body).unwrap_or_default();
                    json!({
                        "version": entry.version,
                        "rollout": entry.rollout.to_string(),
                        "state": entry.state,
                        "at_us": entry.at_us,
                        "epoch": record["epoch"],
                        "from": record["from"],
                        "to": record["to"],
                        "why": record["phase"]["why"],
                        "stage": record["phase"]["stage"],
                        "paused": record["paused"],
                        "contracted": record["contracted"],
                    })
                })
                .collect();
            Json(json!({"cluster": cluster, "history": entries})).into_response()
        }
        Err(StoreError::Invalid(message)) => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, "bad_query", message)
        }
        Err(error) => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            error.to_string(),
        ),
    }
}

fn is_known(hub: &Hub, cluster: &str) -> bool {
    let snapshot = hub.snapshot();
    let mut clusters = snapshot.config.clusters.iter();
    clusters.any(|known| known.name == cluster)
}

/// Most clusters that are named beside one that there is not.
const NAMED_MAX: usize = 20;

fn unknown(hub: &Hub, cluster: &str) -> Response {
    let snapshot = hub.snapshot();
    let clusters = &snapshot.config.clusters;
    let names: Vec<String> = clusters
        .iter()
        .take(NAMED_MAX)
        .map(|known| format!("{:?}", known.name))
        .collect();
    let more = match clusters.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    problem(
        StatusCode::NOT_FOUND,
        "unknown_cluster",
        format!(
            "there is no cluster {cluster:?}; there are {}{more}",
            names.join(", ")
        ),
    )
}

fn plan(body: &[u8]) -> Result<Plan, String> {
    let wanted: Wanted = if body.is_empty() {
        serde_json::from_str("{}")
    } else {
        serde_json::from_slice(body)
    }
    .map_err(|error| format!("the body is no plan: {error}"))?;
    let mut plan = Plan::default();
    if let Some(stages) = wanted.stages {
        plan.stages = stages
            .into_iter()
            .map(|stage| {
                if !(0.0..100.0).contains(&stage.percent) {
                    return Err(format!(
                        "a stage has 0 to below 100 percent of the tenants, not {}; everyone moves at the end anyway",
                        stage.percent
                    ));
                }
                Ok(Stage {
                    // Ten-thousandths; `check` says what is wrong with less than one.
                    share: (stage.percent * 100.0).round() as u16,
                    ring: Arc::new(stage.tenants),
                    observe_us: micros(stage.observe_seconds)?,
                })
            })
            .collect::<Result<_, String>>()?;
    }
    for (wanted, planned) in [
        (wanted.bake_seconds, &mut plan.bake_us),
        (wanted.drain_timeout_seconds, &mut plan.drain_timeout_us),
        (wanted.gate_timeout_seconds, &mut plan.gate_timeout_us),
        (wanted.verdict_timeout_seconds, &mut plan.verdict_timeout_us),
        (wanted.baseline_seconds, &mut plan.baseline_us),
    ] {
        if let Some(seconds) = wanted {
            *planned = micros(seconds)?;
        }
    }
    plan.requests_min = wanted.requests_min.unwrap_or(plan.requests_min);
    plan.check()?;
    Ok(plan)
}

fn micros(seconds: f64) -> Result<i64, String> {
    if (0.0..=604_800.0).contains(&seconds) {
        Ok((seconds * 1e6) as i64)
    } else {
        Err(format!("{seconds} seconds are not between 0 and 7 days"))
    }
}

/// Most tenants that are shown on a colour that is being left.
const STAYING_MAX: usize = 10;

/// The colour that everyone is to leave, and the tenants with most requests on it. They are counted
/// over all clusters. Linear in tenants while there are such requests.
fn staying(hub: &Hub, view: &View, on: [usize; 2]) -> Value {
    let record = &view.record;
    let left = match record.phase.name() {
        Name::Switched | Name::Bake | Name::Committed => record.from,
        Name::RollingBack | Name::RolledBack => record.to,
        Name::Idle | Name::Preparing | Name::Gate | Name::Canary | Name::Frozen => {
            return Value::Null;
        }
    };
    if on[left as usize] == 0 {
        return Value::Null;
    }
    let snapshot = hub.snapshot();
    let tenants = snapshot.config.tenants.iter();
    let mut busy: Vec<(u32, &str)> = tenants
        .map(|(index, tenant)| (snapshot.tenant(index).on(left), tenant.id.as_str()))
        .filter(|(requests, _)| *requests > 0)
        .collect();
    busy.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let shown: Vec<Value> = busy
        .iter()
        .take(STAYING_MAX)
        .map(|(requests, tenant)| json!({"tenant": tenant, "requests": requests}))
        .collect();
    json!({"colour": colour_name(left), "tenants": busy.len(), "busiest": shown})
}

fn show(hub: &Hub, cluster: &str, view: &View) -> Value {
    let record = &view.record;
    let colour = |colour: Colour| colour_name(colour);
    let on = [Colour::Blue, Colour::Green].map(|one| hub.switchboard.on(cluster, one));
    let until_us = match record.phase {
        Phase::Preparing { deadline }
        | Phase::Gate { deadline }
        | Phase::Switched { deadline }
        | Phase::RollingBack { deadline, .. } => Some(deadline),
        Phase::Canary { until, .. } | Phase::Bake { until } => Some(until),
        _ => None,
    };
    let why = match &record.phase {
        Phase::RollingBack { why, .. } | Phase::RolledBack { why } | Phase::Frozen { why } => {
            Some(why)
        }
        _ => None,
    };
    let stage = match record.phase {
        Phase::Canary { stage, .. } => Some(stage + 1),
        _ => None,
    };
    json!({
        "cluster": cluster,
        "rollout": view.rollout.to_string(),
        "phase": record.phase.name().as_str(),
        "over": record.phase.is_over(),
        "stage": stage,
        "stages": record.plan.stages.len(),
        "paused": record.paused,
        "contracted": record.contracted,
        "from": colour(record.from),
        "to": colour(record.to),
        "active": colour(record.routing.active),
        "canary_percent": record.routing.canary.as_ref().map(|canary| f64::from(canary.share) / 100.0),
        "epoch": record.epoch,
        "version": record.version,
        "until_us": until_us,
        "why": why,
        "judges": view.judges,
        "requests_in_flight": {"blue": on[0], "green": on[1]},
        "staying": staying(hub, view, on),
        "flip_us": view.flip.map(|flip| flip.as_micros() as u64),
    })
}
