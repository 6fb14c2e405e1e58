//! The sample application behind the demo: a toy CRM that shows what the gateway told it.
//!
//! It believes `X-Location-Id` and the other headers that the gateway sets, as an application behind
//! the gateway may; it is not meant to be reached in any other way.

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use clap::{Parser, ValueEnum};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Longest wait for open requests after a signal.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Longest wait that `/slow` can be asked for, in milliseconds.
const SLOW_MS_MAX: u64 = 60_000;
/// Largest body that `/api/echo` repeats as text, in bytes. Larger ones are counted and hashed.
const ECHO_TEXT_BYTES_MAX: usize = 64 * 1024;
/// Largest WebSocket message, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Sample application of the EnterpriseHub Gateway's demo.
#[derive(Debug, Parser)]
#[command(name = "hub-sample-app", version)]
struct Args {
    /// Which of the two versions this one plays.
    #[arg(long, value_enum)]
    colour: Colour,
    /// Where to listen, as 127.0.0.1:PORT. Port 0 takes a free one; the first line of output says
    /// which.
    #[arg(long)]
    listen: SocketAddr,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Colour {
    Blue,
    Green,
}

#[derive(Clone, Debug)]
struct App {
    colour: Colour,
    /// Turns true when the process is to end; streams watch it.
    stopping: watch::Receiver<bool>,
}

#[derive(Debug, Deserialize)]
struct Slow {
    /// Milliseconds until the answer.
    ms: u64,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let args = Args::parse();
    // Before the port is bound: a signal that comes early must not be lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopping) = watch::channel(false);
    let listener = TcpListener::bind(args.listen).await?;
    println!(
        "{} listens on http://{}",
        args.colour.name(),
        listener.local_addr()?
    );

    let app = App {
        colour: args.colour,
        stopping: stopping.clone(),
    };
    let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
    let serve = axum::serve(listener, service).with_graceful_shutdown(stopped(stopping));
    let end = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
        tokio::time::sleep(DRAIN_MAX).await;
    };
    let served = tokio::select! {
        served = serve => served,
        () = end => Ok(()),
    };
    // A WebSocket is none of the server's connections any more. Each holds a receiver until it has said goodbye.
    tokio::time::timeout(DRAIN_MAX, stop.closed()).await.ok();
    served
}

/// Waits until the process is to end.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is an end as well.
    stopping.wait_for(|stopping| *stopping).await.ok();
}

fn router(app: App) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(async || "ok\n"))
        .route("/api/contacts", get(contacts))
        .route("/api/whoami", get(who_am_i))
        .route("/agent/whoami", get(who_am_i))
        .route("/partner/whoami", get(who_am_i))
        .route("/api/echo", post(echo))
        .route("/events", get(events))
        .route("/slow", get(slow))
        .route("/ws", get(web_socket))
        .with_state(app)
}

async fn page(State(app): State<App>, headers: HeaderMap) -> Html<String> {
    let tenant = tenant(&headers);
    let shown = tenant.as_deref().map_or_else(
        || "<em>no tenant on this request</em>".into(),
        |id| format!("<code>{}</code>", escape(id)),
    );
    let rows: String = tenant
        .as_deref()
        .map(people)
        .unwrap_or_default()
        .iter()
        .fold(String::new(), |rows, person| {
            let cell = |key: &str| escape(person[key].as_str().unwrap_or_default());
            rows + &format!(
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                cell("name"),
                cell("stage"),
                cell("property")
            )
        });
    Html(
        include_str!("sample-app.html")
            .replace("{colour}", app.colour.name())
            .replace("{accent}", app.colour.accent())
            .replace("{tenant}", &shown)
            .replace("{rows}", &rows),
    )
}

async fn contacts(State(app): State<App>, headers: HeaderMap) -> Response {
    let Some(tenant) = tenant(&headers) else {
        let problem = json!({
            "error": "no_tenant",
            "message": "The request carries no X-Location-Id: send it through a route of the gateway that has a tenant.",
        });
        return (StatusCode::BAD_REQUEST, Json(problem)).into_response();
    };
    let contacts = people(&tenant);
    Json(json!({ "colour": app.colour.name(), "location_id": tenant, "contacts": contacts }))
        .into_response()
}

/// What the gateway said about the request, and where it came from.
async fn who_am_i(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Json<Value> {
    let said = |name: &str| text(&headers, name);
    Json(json!({
        "colour": app.colour.name(),
        "location_id": tenant(&headers),
        "subject": said("x-hub-subject"),
        "client_address": said("x-real-ip"),
        "forwarded_for": said("x-forwarded-for"),
        "forwarded_proto": said("x-forwarded-proto"),
        "forwarded_host": said("x-forwarded-host"),
        "host": said("host"),
        "request_id": said("x-request-id"),
        "traceparent": said("traceparent"),
        "peer": peer.to_string(),
    }))
}

/// Says what was posted. The body is read as it comes and never held whole.
async fn echo(State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    let (mut bytes, mut hash, mut start) = (0_u64, Sha256::new(), Vec::new());
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else {
            return (StatusCode::BAD_REQUEST, "the body broke off\n").into_response();
        };
        bytes += piece.len() as u64;
        hash.update(&piece);
        let room = ECHO_TEXT_BYTES_MAX.saturating_sub(start.len());
        start.extend_from_slice(&piece[..piece.len().min(room)]);
    }
    let whole = start.len() as u64 == bytes;
    let sha256: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Json(json!({
        "colour": app.colour.name(),
        "location_id": tenant(&headers),
        "content_type": text(&headers, "content-type"),
        "bytes": bytes,
        "sha256": sha256,
        "text": whole.then(|| String::from_utf8(start).ok()).flatten(),
    }))
    .into_response()
}

/// An event a second, the first at once, until the client leaves or the process ends.
async fn events(
    State(app): State<App>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let tenant = tenant(&headers);
    let beat = tokio::time::interval(Duration::from_secs(1));
    Sse::new(stream::unfold((beat, 0_u64), move |(mut beat, number)| {
        let (app, tenant) = (app.clone(), tenant.clone());
        async move {
            tokio::select! {
                _ = beat.tick() => {}
                () = stopped(app.stopping) => return None,
            }
            let data =
                json!({ "colour": app.colour.name(), "location_id": tenant, "tick": number });
            let event = Event::default()
                .event("tick")
                .id(number.to_string())
                .data(data.to_string());
            Some((Ok(event), (beat, number + 1)))
        }
    }))
}

async fn slow(State(app): State<App>, Query(Slow { ms }): Query<Slow>) -> Response {
    if ms > SLOW_MS_MAX {
        let problem = format!("ms must be 0 to {SLOW_MS_MAX}\n");
        return (StatusCode::BAD_REQUEST, problem).into_response();
    }
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Json(json!({ "colour": app.colour.name(), "waited_ms": ms })).into_response()
}

async fn web_socket(State(app): State<App>, upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| echo_messages(socket, app.stopping))
}

/// Sends every message back; says goodbye with 1001 when the process ends.
async fn echo_messages(mut socket: WebSocket, stopping: watch::Receiver<bool>) {
    loop {
        let message = tokio::select! {
            message = socket.recv() => message,
            () = stopped(stopping.clone()) => {
                let goodbye = CloseFrame { code: 1001, reason: "going away".into() };
                // Nothing is left to do where the client is gone already.
                socket.send(Message::Close(Some(goodbye))).await.ok();
                return;
            }
        };
        match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            // The library answers pings and closes by itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
            Some(Err(_)) | None => return,
        }
    }
}

fn tenant(headers: &HeaderMap) -> Option<String> {
    text(headers, "x-location-id")
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// Five people that are always the same for one tenant and rarely for two.
fn people(tenant: &str) -> Vec<Value> {
    const NAMES: &[&str] = &[
        "Ada Moreau",
        "Ben Okafor",
        "Carla Ruiz",
        "Dan Weber",
        "Elif Kaya",
        "Femi Bello",
    ];
    const STAGES: &[&str] = &[
        "new lead",
        "viewing booked",
        "offer made",
        "under contract",
        "closed",
    ];
    const STREETS: &[&str] = &[
        "Harbour Road",
        "Oak Lane",
        "Mill Street",
        "Skyline Avenue",
        "Vista Close",
    ];
    let seed = Sha256::digest(tenant.as_bytes());
    let pick = |from: &[&str], byte: u8| from[usize::from(byte) % from.len()].to_owned();
    seed.chunks(4)
        .take(5)
        .map(|bytes| {
            json!({
                "name": pick(NAMES, bytes[0]),
                "stage": pick(STAGES, bytes[1]),
                "property": format!("{} {}", 1 + bytes[3] % 120, pick(STREETS, bytes[2])),
            })
        })
        .collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

impl Colour {
    fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    /// The page's accent, dark enough for white text on it.
    fn accent(self) -> &'static str {
        match self {
            Self::Blue => "#1d5fbf",
            Self::Green => "#1c7a43",
        }
    }
}
