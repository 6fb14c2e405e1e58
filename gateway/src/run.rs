//! From a configuration file to a serving process, and from SIGTERM to its end.

use crate::control::admin::{Admin, AdminSocket};
use crate::control::reload::{self, Reloader, Trigger};
use crate::control::watch_files;
use crate::front::app::Front;
use crate::front::listener::{BoundListener, Source};
use crate::front::tls::ListenerTls;
use crate::hub::{Hub, Shared};
use crate::lanes::general::GeneralLane;
use crate::lanes::general::errand::Errands;
use crate::lifecycle::{Lifecycle, Phase};
use crate::limit::Limiter;
use crate::service::{self, activation::Inherited, notify::Notifier};
use crate::snapshot::Snapshot;
use crate::switch::driver::{self, Found, Rollouts};
use crate::switch::metrics::RolloutMetrics;
use crate::switch::traffic::Switchboard;
use crate::telemetry::{self, AccessLog, Metrics, Refusals, TenantGate, UpstreamMetrics};
use anyhow::Context;
use hub_config::Problems;
use hub_config::runtime::{Config, LogLevel};
use hub_store::Embedded;
use parking_lot::Mutex;
use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ListenFds};
use pingora::services::Service as _;
use pingora::services::listening::Service;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Idle upstream connections that a process keeps. pingora's default of 128 closes and opens
/// connections all the time under load.
const UPSTREAM_POOL: usize = 4_096;
/// Tries of one request, each kind of which has a bound of its own: the first, one on another endpoint, two
/// for pooled connections that turned out to be closed; and as many on the old colour of a rollout.
const TRIES_MAX: usize = 8;

/// Longest wait for the access log's last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Why the process could not serve.
#[derive(Debug)]
pub enum Failure {
    /// The configuration holds mistakes; nothing was bound.
    Config(Problems),
    /// The system refused something.
    System(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::System(error)
    }
}

/// Serves until SIGTERM or SIGINT, then drains.
pub fn run(file: PathBuf, ready_file: Option<PathBuf>) -> Result<(), Failure> {
    // Before there is a second thread, since it changes the environment.
    let inherited = Inherited::from_env();
    // One provider of cryptography for everything in the process.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        return Err(anyhow::anyhow!("another crypto provider is installed").into());
    }
    let began = std::time::SystemTime::now();
    // Before the load, which has things to say, too.
    let process_log =
        telemetry::init_process_log(LogLevel::Info).context("cannot set the process's log up")?;
    let config = reload::load(&file, None, false).map_err(Failure::Config)?;
    process_log.set_level(config.gateway.log_level);
    reload::tell_warnings(&config);

    // Everything that can fail fails before anything is served.
    let manager = Notifier::from_env().context("$NOTIFY_SOCKET")?;
    let mut inherited = inherited.map_err(anyhow::Error::from)?;
    let metrics = Arc::new(Metrics::new());
    let listeners = bind(&config, &metrics, &mut inherited)?;
    let admin_socket = match inherited
        .admin(&config.admin.address)
        .context("admin API")?
    {
        Some(socket) => socket,
        None => AdminSocket::bind(&config.admin.address)
            .with_context(|| format!("cannot bind the admin API to {:?}", config.admin.address))?,
    };
    inherited.finish().map_err(anyhow::Error::from)?;
    let shared = Shared {
        metrics,
        access_log: AccessLog::start(
            &config.access_log.target,
            config.access_log.queue_lines,
            config.access_log.flush_interval,
        )
        .context("cannot open the access log")?,
        upstreams: UpstreamMetrics::default(),
        process_log,
        tenant_gate: Mutex::new(TenantGate::new(config.tenant_labels_max)),
        limiter: Limiter::new(config.limiter_keys_max),
        refusals: Refusals::new(config.admin.refusals_remembered),
        listener_names: listeners.iter().map(|l| l.name.clone()).collect(),
        switchboard: Switchboard::default(),
        rollouts: RolloutMetrics::default(),
    };
    let workers = match config.gateway.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        count => count,
    };
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(4)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control plane's thread")?;
    // Before the first snapshot, so that no request goes by the configured colour where a rollout has
    // decided on another one.
    let store = config
        .store_directory
        .as_ref()
        .map(|directory| open_store(directory, &shared, &control))
        .transpose()?;
    let first = Snapshot::build(config, None, &shared);
    let lifecycle = Arc::new(Lifecycle::new(manager));
    let hub = Arc::new(Hub::new(first, shared, listeners, lifecycle));
    hub.after_swap(None, &hub.snapshot(), &[], None);
    hub.join_scrapes();

    let data = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("data")
        .enable_all()
        .build()
        .context("cannot start the data plane's threads")?;
    let reloader = Reloader::start(Arc::clone(&hub), file, control.handle().clone(), began)
        .context("cannot start the reload thread")?;

    let proxy = Arc::new(proxy(&hub));
    for index in 0..hub.listeners.len() {
        data.spawn(listen(Arc::clone(&hub), Arc::clone(&proxy), index));
    }
    let attend = service::attend(Arc::clone(&hub), data.handle().clone());
    let errands = Errands::new(Arc::clone(&hub), proxy, data.handle().clone());
    let store = store.map(|(store, found)| (store, found, errands));
    let operated = operate(hub, ready_file, reloader, admin_socket, store, attend);
    control.block_on(operated)?;
    // Requests that are still running after the drain's time are cut here.
    data.shutdown_background();
    control.shutdown_background();
    Ok(())
}

/// Binds every listener that was not handed over.
fn bind(
    config: &Config,
    metrics: &Metrics,
    inherited: &mut Inherited,
) -> Result<Vec<Arc<BoundListener>>, Failure> {
    config
        .listeners
        .iter()
        .map(|listener| {
            let tls = listener
                .tls
                .as_ref()
                .map(ListenerTls::load)
                .transpose()
                .with_context(|| format!("listener `{}`", listener.name))?;
            let counters = metrics.listener(&listener.name);
            let (name, address) = (&listener.name, listener.address);
            let socket = inherited
                .listener(name, address)
                .with_context(|| format!("listener `{name}`"))?;
            let bound = match socket {
                Some(socket) => BoundListener::inherit(name, socket, tls, counters),
                None => BoundListener::bind(name, address, tls, counters),
            };
            let bound =
                bound.with_context(|| format!("cannot bind listener `{name}` to {address}"))?;
            Ok(Arc::new(bound))
        })
        .collect()
}

/// Opens the store and takes over the routing that its ledger says.
fn open_store(
    directory: &Path,
    shared: &Shared,
    control: &tokio::runtime::Runtime,
) -> anyhow::Result<(Embedded, Vec<Found>)> {
    let store = Embedded::open(directory, &Default::default()).context("cannot open the store")?;
    let found = control
        .block_on(driver::find(&store, &shared.switchboard))
        .context("cannot read the ledger of rollouts")?;
    Ok((store, found))
}

/// Runs one listener as a pingora service on a socket that we have bound.
async fn listen(hub: Arc<Hub>, proxy: Arc<HttpProxy<GeneralLane>>, index: usize) {
    let bound = Arc::clone(&hub.listeners[index]);
    let address = bound.address.to_string();
    let mut fds = Fds::new();
    fds.add(address.clone(), bound.socket());
    let fds: ListenFds = Arc::new(Mutex::new(fds));
    let stop = hub.lifecycle().stop();
    let front = Front {
        proxy,
        listener: index,
        hub,
    };
    let mut service = Service::new(format!("listener {}", bound.name), front);
    service
        .endpoints()
        .add_listener(ListenerConfig::tcp(address).l4_buffer(L4BufferSettings::unbuffered()));
    service.start_service(Some(fds), stop, 1).await;
}

fn proxy(hub: &Arc<Hub>) -> HttpProxy<GeneralLane> {
    let conf = ServerConf {
        upstream_keepalive_pool_size: UPSTREAM_POOL,
        max_retries: TRIES_MAX,
        ..ServerConf::default()
    };
    http_proxy(&Arc::new(conf), GeneralLane::new(Arc::clone(hub)))
}

/// The control plane: admin API, signals, file changes; returns when the process has drained.
async fn operate(
    hub: Arc<Hub>,
    ready_file: Option<PathBuf>,
    reloader: Reloader,
    admin_socket: AdminSocket,
    store: Option<(Embedded, Vec<Found>, Errands)>,
    attend: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let admin_address = admin_socket.address()?;
    let mut signals = Signals::new().context("cannot listen for signals")?;
    hub.snapshot()
        .clusters
        .start_health_checks(&tokio::runtime::Handle::current());
    let rollouts = store.map(|(store, found, errands)| {
        let (hub, reloader) = (Arc::clone(&hub), reloader.clone());
        let store = Arc::new(store);
        let migrations = Arc::clone(&store);
        Rollouts::start(hub, reloader, errands, store, migrations, found)
    });
    let admin = Admin::new(Arc::clone(&hub), reloader.clone(), rollouts);
    tokio::spawn(async move {
        if let Err(error) = admin.serve(admin_socket).await {
            tracing::error!(%error, "the admin API ended");
        }
    });
    tokio::spawn(watch_files(Arc::clone(&hub), reloader.clone()));
    hub.lifecycle().advance(Phase::Serving);
    announce(&hub, &admin_address, ready_file.as_deref())?;
    tokio::spawn(attend);
    loop {
        tokio::select! {
            _ = signals.hang_up.recv() => reloader.nudge(Trigger::Signal),
            _ = signals.user1.recv() => hub.access_log.reopen(),
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
        }
    }
    {
        let mut drained = std::pin::pin!(drain(&hub));
        loop {
            tokio::select! {
                () = &mut drained => break,
                // A drain may take an hour, in which logs are rotated as ever.
                _ = signals.user1.recv() => hub.access_log.reopen(),
                _ = signals.terminate.recv() => {
                    tracing::warn!("a second signal: ending now");
                    break;
                }
                _ = signals.interrupt.recv() => {
                    tracing::warn!("a second signal: ending now");
                    break;
                }
            }
        }
    }
    if !hub.access_log.shutdown(LAST_LINES) {
        tracing::warn!("the access log's last lines could not be written in time");
    }
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user1: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }
}

/// Says where everything is, on the log and in the ready file.
fn announce(hub: &Hub, admin: &str, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let listeners: serde_json::Map<_, _> = hub
        .listeners
        .iter()
        .map(|listener| (listener.name.clone(), json!(listener.address.to_string())))
        .collect();
    let snapshot = hub.snapshot();
    tracing::info!(
        listeners = %json!(listeners),
        admin,
        hash = %snapshot.config.hash,
        tenants = snapshot.config.tenants.len(),
        routes = snapshot.config.routes.len(),
        "serving"
    );
    let Some(path) = ready_file else {
        return Ok(());
    };
    let text = json!({"pid": std::process::id(), "admin": admin, "listeners": listeners});
    // Written beside and renamed, so that whoever waits for it never reads half of it.
    let beside = path.with_extension("part");
    std::fs::write(&beside, format!("{text}\n"))
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("cannot write the ready file {}", path.display()))
}

/// How long HTTP/2 connections may take to write what is left and to part, after the last request.
const HTTP2_FLUSH_MAX: Duration = Duration::from_secs(5);

/// Waits until what was just taken from inherited sockets has asked and is answered, or did not ask: to its
/// client it looks as if the next process had it. A moment at first for connections that are between the
/// accept loop and their own task.
async fn first_requests(hub: &Hub, ends: Instant) {
    let pause = Duration::from_millis(10);
    let handed_over = |one: &Arc<BoundListener>| one.source == Source::Inherited;
    if hub.listeners.iter().any(handed_over) {
        tokio::time::sleep(2 * pause).await;
    }
    while hub.listeners.iter().any(|one| one.fresh_connections() > 0) && Instant::now() < ends {
        tokio::time::sleep(pause).await;
    }
}

/// Turns readiness off, waits for load balancers to notice, then for the last request.
async fn drain(hub: &Hub) {
    let (notice, longest) = {
        let snapshot = hub.snapshot();
        let gateway = &snapshot.config.gateway;
        (gateway.drain_notice, gateway.drain_timeout)
    };
    hub.lifecycle().advance(Phase::Notice);
    service::stopping(hub, notice + longest);
    tracing::info!(
        notice_ms = notice.as_millis() as u64,
        "draining: readiness is off, connections are still taken"
    );
    tokio::time::sleep(notice).await;
    hub.lifecycle().advance(Phase::Draining);
    tracing::info!(
        in_flight = hub.lifecycle().in_flight(),
        "draining: no new connections"
    );
    service::draining(hub);
    let ends = Instant::now() + longest;
    first_requests(hub, ends).await;
    let longest = ends.saturating_duration_since(Instant::now());
    let left = hub.lifecycle().wait_idle(longest).await;
    if left > 0 {
        tracing::warn!(left, "the drain's time is over; these requests are cut");
    }
    // The last answers of HTTP/1 are in the kernel's hands; those of HTTP/2 may still be in buffers of
    // this process, and their connections end once all is written. A client that answers no more
    // must not hold every drain up to its end.
    let ends = ends.min(Instant::now() + HTTP2_FLUSH_MAX);
    let unwritten = || hub.listeners.iter().any(|one| one.http2_connections() > 0);
    while unwritten() && Instant::now() < ends {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A moment for tasks to close in good order.
    tokio::time::sleep(Duration::from_millis(20)).await;
}
