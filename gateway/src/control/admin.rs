//! The admin API: for operators, on loopback or a unix socket, with a token, audited.
//!
//! | method and path | token | what |
//! |---|---|---|
//! | GET /healthz | no | 200 while the process lives |
//! | GET /readyz | no | 200 while it serves, 503 before and while it drains |
//! | GET /metrics | no | Prometheus text |
//! | GET /v1/snapshot | yes | the configuration in force: hash, epoch, age, counts |
//! | GET /v1/tenants?prefix=&limit= | yes | tenants with quota and traffic |
//! | GET /v1/tenants/ID | yes | one tenant |
//! | GET /v1/clusters | yes | clusters, endpoints and their health |
//! | POST /v1/reload?dry_run=true&allow_removals=true | yes | reload, or only the diff |
//! | GET /v1/rollouts | yes | rollouts: where they stand, and what the judges say |
//! | POST /v1/rollouts/CLUSTER/start | yes | roll the other colour out; the body is a plan |
//! | POST /v1/rollouts/CLUSTER/pause, resume, promote, abort, accept | yes | steer a rollout |
//! | POST /v1/rollouts/CLUSTER/contracted | yes | say that the old colour's schema is gone |
//! | GET /v1/rollouts/CLUSTER/history?limit= | yes | its records, newest first |
//! | GET /v1/migrations, /v1/migrations/SCOPE | yes | databases: their steps, and which colours fit |
//! | POST /v1/migrations/SCOPE/begin, finish | yes | write down that a step begins, or how it ended |
//! | GET /v1/websockets?tenant=&route=&cluster=&colour=&endpoint=&session=&limit= | yes | open sessions, and counts by route |
//! | POST /v1/websockets/close | yes | close those that the body describes |
//! | POST /v1/upgrade | yes | start another binary, which takes over; answered before it has |
//! | GET /v1/upgrade | yes | how the last upgrade went, and who drains |
//! | POST /v1/explain | yes | what would happen to a request |
//! | GET /v1/explain/REQUEST_ID | yes | why a past request was refused |

mod migrations;
mod rollouts;
mod upgrade;
mod websockets;

use super::audit;
use super::explain::{self, Question};
use super::reload::{NotNow, Options, Outcome, Reloader, Trigger, unix_seconds};
use crate::hub::Hub;
use crate::lifecycle::Phase;
use crate::snapshot::{Snapshot, colour_name};
use crate::switch::driver::Rollouts;
use crate::upgrade::Upgrader;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::Listener;
use axum::{Json, Router};
use hub_config::runtime::{AdminAddress, Colour, TenantIndex};
use hub_core::{LocationIdRef, RequestId};
use hub_stats::gcra::{Gcra, Verdict};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, watch};

/// Largest body that the API reads, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Most connections at a time; more wait until one ends.
const CONNECTIONS_MAX: usize = 64;
/// Longest wait for a request's head, on a new connection and on one that is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest life of a connection, so that one whose client stopped reading ends. Reloads are shorter.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(120);
/// Most tenants in one answer.
const TENANTS_MAX: usize = 1_000;

/// The admin API's state.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    hub: Arc<Hub>,
    reloader: Reloader,
    pub(super) rollouts: Option<Rollouts>,
    upgrader: Upgrader,
    /// One budget for all callers: whoever can reach loopback is one caller as far as harm goes.
    /// By [`Caller`].
    budgets: Arc<[Mutex<u64>; 3]>,
    began: Instant,
}

/// The admin API's socket, bound before anything is served.
#[derive(Debug)]
pub enum AdminSocket {
    /// Loopback TCP.
    Tcp(std::net::TcpListener),
    /// A unix socket, readable and writable by its owner alone.
    Unix(std::os::unix::net::UnixListener),
}

impl AdminSocket {
    /// Binds where the configuration says.
    pub fn bind(address: &AdminAddress) -> io::Result<Self> {
        match address {
            AdminAddress::Tcp(address) => {
                let socket = std::net::TcpListener::bind(address)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Tcp(socket))
            }
            AdminAddress::Unix(path) => {
                remove_stale(path)?;
                let socket = std::os::unix::net::UnixListener::bind(path)?;
                std::fs::set_permissions(
                    path,
                    std::os::unix::fs::PermissionsExt::from_mode(0o600),
                )?;
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(socket))
            }
        }
    }

    /// Another descriptor of it, for another process.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Tcp(socket) => socket.try_clone()?.into(),
            Self::Unix(socket) => socket.try_clone()?.into(),
        })
    }

    /// A listening socket for `address` that another process has handed over.
    pub(crate) fn received(socket: OwnedFd, address: &AdminAddress) -> Self {
        match address {
            AdminAddress::Tcp(_) => Self::Tcp(socket.into()),
            AdminAddress::Unix(_) => Self::Unix(socket.into()),
        }
    }
}

/// Removes a socket that a dead process left behind, which refuses connections, and nothing else: not
/// one that somebody listens on, and no file that a mistyped address names.
fn remove_stale(path: &std::path::Path) -> io::Result<()> {
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if is_socket && error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        // Binding will say what is wrong, if something is.
        Ok(_) | Err(_) => Ok(()),
    }
}

impl Admin {
    /// An admin API over a gateway.
    pub(crate) fn new(
        hub: Arc<Hub>,
        reloader: Reloader,
        rollouts: Option<Rollouts>,
        upgrader: Upgrader,
    ) -> Self {
        Self {
            hub,
            reloader,
            rollouts,
            upgrader,
            budgets: Arc::default(),
            began: Instant::now(),
        }
    }

    /// Serves until another process does, or the runtime ends.
    pub(crate) async fn serve(self, socket: AdminSocket) -> io::Result<()> {
        let closed = self.upgrader.admin_closed();
        let app = self.routes();
        match socket {
            AdminSocket::Tcp(socket) => {
                serve(tokio::net::TcpListener::from_std(socket)?, app, closed).await
            }
            AdminSocket::Unix(socket) => {
                serve(tokio::net::UnixListener::from_std(socket)?, app, closed).await
            }
        }
    }

    fn routes(self) -> Router {
        let guarded = Router::new()
            .route("/v1/snapshot", get(snapshot))
            .route("/v1/tenants", get(tenants))
            .route("/v1/tenants/{id}", get(tenant))
            .route("/v1/clusters", get(clusters))
            .route("/v1/reload", post(reload))
            .route("/v1/rollouts", get(rollouts::list))
            .route("/v1/rollouts/{cluster}/history", get(rollouts::history))
            .route("/v1/rollouts/{cluster}/{command}", post(rollouts::command))
            .route("/v1/migrations", get(migrations::list))
            .route("/v1/migrations/{scope}", get(migrations::one))
            .route("/v1/migrations/{scope}/begin", post(migrations::begin))
            .route("/v1/migrations/{scope}/finish", post(migrations::finish))
            .route("/v1/upgrade", get(upgrade::show).post(upgrade::begin))
            .route("/v1/websockets", get(websockets::list))
            .route("/v1/websockets/close", post(websockets::close))
            .route("/v1/explain", post(explain_request))
            .route("/v1/explain/{request_id}", get(explain_past))
            .layer(middleware::from_fn_with_state(self.clone(), authenticate));
        let scraped = Router::new()
            .route("/metrics", get(metrics))
            .layer(middleware::from_fn_with_state(self.clone(), limit_scrapes));
        // Probes cost nothing and are not limited: else anybody could make the process look dead.
        Router::new()
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .merge(scraped)
            .merge(guarded)
            .fallback(|| async {
                problem(
                    StatusCode::NOT_FOUND,
                    "unknown_path",
                    "no such path; see `hubctl --help`",
                )
            })
            .method_not_allowed_fallback(|| async {
                problem(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method_not_allowed",
                    "this path takes another method; Allow names it",
                )
            })
            .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(self)
    }
}

/// As `axum::serve`, which knows neither a bound nor a deadline: whoever can reach the address could
/// otherwise, without a token, hold connections until the process has no descriptor left for clients.
async fn serve(
    mut listener: impl Listener,
    app: Router,
    mut closed: watch::Receiver<bool>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.map_err(io::Error::other)?;
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted,
            // They are another process's from then on.
            _ = closed.wait_for(|closed| *closed) => return Ok(()),
        };
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // Whoever breaks a connection, or keeps one for too long, is not worth a line.
            let _ended = tokio::time::timeout(CONNECTION_TIME_MAX, connection).await;
            drop(place);
        });
    }
}

/// An error as the API tells it.
fn problem(status: StatusCode, code: &str, message: impl Into<String>) -> Response {
    let message: String = message.into();
    (
        status,
        Json(json!({"error": {"code": code, "message": message}})),
    )
        .into_response()
}

/// Who asks. Each kind has a budget of its own, so that those without the token take nothing from those
/// who have it.
#[derive(Clone, Copy, Debug)]
enum Caller {
    Operator,
    Stranger,
    Scraper,
}

impl Admin {
    /// Takes one request from the budget of `caller`, or answers 429.
    #[allow(clippy::result_large_err)] // The error is the answer.
    fn spend(&self, caller: Caller) -> Result<(), Response> {
        let per_second = self.hub.snapshot().config.admin.requests_per_second;
        let gcra = Gcra::new(per_second, Duration::from_secs(1), per_second);
        let now = u64::try_from(self.began.elapsed().as_nanos())
            .unwrap_or(u64::MAX)
            .saturating_add(3_600_000_000_000);
        let mut tat = self.budgets[caller as usize].lock();
        if let Verdict::Allowed { tat: next, .. } = gcra.step(*tat, now, 1) {
            *tat = next;
            return Ok(());
        }
        let mut response = problem(
            StatusCode::TOO_MANY_REQUESTS,
            "admin_limited",
            "too many requests to the admin API; see admin.requests_per_second",
        );
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        Err(response)
    }
}

async fn limit_scrapes(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    match admin.spend(Caller::Scraper) {
        Ok(()) => next.run(request).await,
        Err(response) => response,
    }
}

async fn authenticate(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let snapshot = admin.hub.snapshot();
    let Some(token) = &snapshot.config.admin.token else {
        return problem(
            StatusCode::FORBIDDEN,
            "no_admin_token",
            "the admin API is off: set admin.token_file or admin.token_env and reload",
        );
    };
    let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
    let given = match (values.next(), values.next()) {
        (Some(value), None) => value.as_bytes().strip_prefix(b"Bearer "),
        _ => None,
    };
    // Constant time in the content; the length is no secret.
    let good = given.is_some_and(|given| bool::from(given.ct_eq(token.expose())));
    let caller = if good {
        Caller::Operator
    } else {
        Caller::Stranger
    };
    if let Err(response) = admin.spend(caller) {
        return response;
    }
    if good {
        return next.run(request).await;
    }
    let text = if given.is_some() {
        "the token is wrong; the one that admin.token_file or admin.token_env names is right"
    } else {
        "send `Authorization: Bearer TOKEN` (hubctl: --token-file or HUB_ADMIN_TOKEN_FILE) with the token that admin.token_file or admin.token_env names"
    };
    let mut response = problem(StatusCode::UNAUTHORIZED, "unauthenticated", text);
    response.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        header::HeaderValue::from_static("Bearer"),
    );
    response
}

async fn ready(State(admin): State<Admin>) -> Response {
    match admin.hub.lifecycle().phase() {
        Phase::Serving => (StatusCode::OK, "ready\n").into_response(),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
        Phase::Notice | Phase::HandedOver | Phase::Draining => {
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
        }
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    // Thousands of tenants take milliseconds to write out: not on a thread that serves others, and after
    // those that serve clients. The threads for such work do nothing urgent, so they may stay behind.
    let hub = Arc::clone(&admin.hub);
    let scrape = move || {
        super::low::nice(10);
        hub.scrape()
    };
    match tokio::task::spawn_blocking(scrape).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            error.to_string(),
        ),
    }
}

async fn snapshot(State(admin): State<Admin>) -> Json<Value> {
    let hub = &admin.hub;
    let snapshot = hub.snapshot();
    let age = SystemTime::now()
        .duration_since(snapshot.taken_at)
        .unwrap_or_default();
    let listeners: Vec<_> = hub
        .listeners
        .iter()
        .map(|listener| {
            json!({
                "name": listener.name,
                "address": listener.address.to_string(),
                "tls": listener.tls.is_some(),
                "connections": listener.connections(),
                "certificates": listener.tls.as_ref().map(|tls| tls.certificates().iter().map(|c| json!({
                    "file": c.file,
                    "names": c.names,
                    "not_after_unix_seconds": c.not_after_unix_seconds,
                })).collect::<Vec<_>>()),
            })
        })
        .collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "phase": format!("{:?}", hub.lifecycle().phase()).to_lowercase(),
        "in_flight": hub.lifecycle().in_flight(),
        "epoch": snapshot.epoch,
        "hash": snapshot.config.hash,
        "taken_at_unix_seconds": unix_seconds(snapshot.taken_at),
        "age_seconds": age.as_secs(),
        "routes": snapshot.config.routes.len(),
        "clusters": snapshot.config.clusters.len(),
        "tenants": snapshot.config.tenants.len(),
        "listeners": listeners,
    }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantsQuery {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    limit: Option<usize>,
}

async fn tenants(
    State(admin): State<Admin>,
    query: Result<Query<TenantsQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return problem(
            StatusCode::BAD_REQUEST,
            "bad_query",
            "the query may hold prefix=TEXT and limit=NUMBER only",
        );
    };
    let limit = query.limit.unwrap_or(100);
    if !(1..=TENANTS_MAX).contains(&limit) {
        return problem(
            StatusCode::BAD_REQUEST,
            "bad_query",
            format!("limit must be 1 to {TENANTS_MAX}"),
        );
    }
    let snapshot = admin.hub.snapshot();
    let mut matching = snapshot
        .config
        .tenants
        .iter()
        .filter(|(_, tenant)| tenant.id.as_str().starts_with(&query.prefix));
    let shown: Vec<_> = matching
        .by_ref()
        .take(limit)
        .map(|(index, _)| show_tenant(&snapshot, index))
        .collect();
    let more = matching.count();
    Json(json!({"tenants": shown, "more": more, "total": snapshot.config.tenants.len()}))
        .into_response()
}

async fn tenant(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    let snapshot = admin.hub.snapshot();
    let id = match LocationIdRef::parse(id.as_bytes()) {
        Ok(id) => id,
        Err(error) => {
            return problem(
                StatusCode::BAD_REQUEST,
                "tenant_malformed",
                error.to_string(),
            );
        }
    };
    match snapshot.config.tenants.get(id) {
        Some(index) => Json(show_tenant(&snapshot, index)).into_response(),
        None => problem(
            StatusCode::NOT_FOUND,
            "tenant_unknown",
            "no such tenant in the snapshot in force; see `hubctl tenants`",
        ),
    }
}

fn show_tenant(snapshot: &Snapshot, index: TenantIndex) -> Value {
    let tenant = &snapshot.config.tenants[index];
    let state = snapshot.tenant(index);
    let totals = state.totals();
    json!({
        "id": tenant.id.as_str(),
        "slug": tenant.slug.as_ref().map(hub_core::Slug::as_str),
        "enabled": tenant.enabled,
        "requests_per_second": tenant.quota.as_ref().map(|q| q.requests),
        "burst": tenant.quota.as_ref().map(|q| q.burst),
        "in_flight_max": tenant.in_flight_max,
        "in_flight": state.in_flight(),
        "requests": totals.requests(),
        "limited": totals.limited,
        "bytes_in": totals.bytes_in,
        "bytes_out": totals.bytes_out,
        "colours": tenant.overlay.as_ref().map(|overlay| overlay.colours.iter().map(|(cluster, colour)| (snapshot.config.clusters[*cluster].name.clone(), json!(colour_name(*colour)))).collect::<serde_json::Map<_, _>>()),
        "routes": tenant.overlay.as_ref().map(|overlay| overlay.clusters.iter().map(|(route, cluster)| (snapshot.config.routes[*route].name.clone(), json!(snapshot.config.clusters[*cluster].name))).collect::<serde_json::Map<_, _>>()),
    })
}

async fn clusters(State(admin): State<Admin>) -> Json<Value> {
    let snapshot = admin.hub.snapshot();
    let clusters: Vec<_> = snapshot
        .config
        .clusters
        .iter()
        .enumerate()
        .map(|(index, cluster)| {
            json!({
                "name": cluster.name,
                "active": colour_name(snapshot.routing[index].routing.active),
                // Checks say that all of its endpoints are down, so all of them are tried.
                "fails_open": snapshot.clusters.fails_open(index, snapshot.routing[index].routing.active),
                "endpoints": endpoints(&snapshot, index, None),
            })
        })
        .collect();
    Json(json!({"clusters": clusters}))
}

/// Endpoints of a cluster as the API shows them, of one colour or both.
pub(super) fn endpoints(snapshot: &Snapshot, cluster: usize, colour: Option<Colour>) -> Value {
    let colours = [Colour::Blue, Colour::Green];
    colours
        .into_iter()
        .filter(|c| colour.is_none_or(|wanted| wanted == *c))
        .flat_map(|c| {
            snapshot
                .clusters
                .endpoints(cluster, c)
                .iter()
                .map(move |endpoint| (c, endpoint))
        })
        .map(|(c, endpoint)| {
            let view = endpoint.view();
            json!({
                "colour": colour_name(c),
                "address": endpoint.name(),
                "healthy": view.healthy,
                "checked": view.checked,
                "in_flight": view.in_flight,
                "latency_ms": view.latency.map(|latency| latency.as_secs_f64() * 1e3),
                "last_error": view.last_error,
            })
        })
        .collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadQuery {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    allow_removals: bool,
}

async fn reload(
    State(admin): State<Admin>,
    query: Result<Query<ReloadQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return problem(
            StatusCode::BAD_REQUEST,
            "bad_query",
            "the query may hold dry_run and allow_removals only, each true or false",
        );
    };
    let options = Options {
        dry_run: query.dry_run,
        allow_removals: query.allow_removals,
    };
    match admin.reloader.reload(Trigger::Admin, options).await {
        Err(refused) => {
            let hub = Arc::clone(&admin.hub);
            let action = super::reload::action(query.dry_run);
            let (status, code) = match refused {
                NotNow::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy"),
                NotNow::Upgrading => (StatusCode::CONFLICT, "upgrade_under_way"),
            };
            tokio::task::spawn_blocking(move || {
                let detail = json!({ "outcome": code });
                audit::write(&hub.snapshot().config.admin, "admin", action, &detail);
            });
            problem(status, code, refused.to_string())
        }
        Ok(outcome) => {
            let status = match &outcome {
                Outcome::Applied { .. }
                | Outcome::Unchanged { .. }
                | Outcome::WouldApply { .. } => StatusCode::OK,
                Outcome::Rejected { .. } => StatusCode::UNPROCESSABLE_ENTITY,
                Outcome::NeedsUpgrade { .. } => StatusCode::CONFLICT,
            };
            (status, Json(outcome)).into_response()
        }
    }
}

async fn explain_request(
    State(admin): State<Admin>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return problem(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the body may have {BODY_BYTES_MAX} bytes"),
            );
        }
        Err(error) => return problem(StatusCode::BAD_REQUEST, "bad_body", error.body_text()),
    };
    let question: Question = match serde_json::from_slice(&body) {
        Ok(question) => question,
        Err(error) => {
            return problem(
                StatusCode::BAD_REQUEST,
                "bad_body",
                format!(
                    "{error}; send {{\"method\": \"GET\", \"host\": \"…\", \"path\": \"/…\", \"headers\": [[\"Name\", \"value\"]]}}"
                ),
            );
        }
    };
    match explain::explain(&admin.hub, &question) {
        Ok(story) => Json(story).into_response(),
        Err(message) => problem(StatusCode::BAD_REQUEST, "bad_body", message),
    }
}

async fn explain_past(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    let Some(id) = RequestId::parse(&id) else {
        return problem(
            StatusCode::BAD_REQUEST,
            "bad_request_id",
            "a request id is a UUID, as in the X-Request-Id header of the refusal",
        );
    };
    match explain::past(&admin.hub, id) {
        Some(story) => Json(story).into_response(),
        None => problem(
            StatusCode::NOT_FOUND,
            "not_remembered",
            "no refusal with this id is remembered: the request was not refused, or more were refused since than admin.refusals_remembered",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let address = |name| AdminAddress::Unix(folder.path().join(name));
        let file = folder.path().join("hub.toml");
        std::fs::write(&file, "precious").expect("written");
        assert!(AdminSocket::bind(&address("hub.toml")).is_err());
        assert!(file.exists());
        let live = AdminSocket::bind(&address("socket")).expect("a socket");
        assert!(AdminSocket::bind(&address("socket")).is_err());
        drop(live);
        assert!(AdminSocket::bind(&address("socket")).is_ok(), "a stale one");
    }
}
