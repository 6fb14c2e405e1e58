//! From a configuration file to a serving process, and from SIGTERM to its end.

mod begin;
mod drain;
mod operate;
mod probe;
mod serve;

use crate::control::admin::AdminSocket;
use crate::control::reload::{self, Reloader};
use crate::front::listener::BoundListener;
use crate::front::tls::ListenerTls;
use crate::hub::{Hub, Shared};
use crate::lifecycle::Lifecycle;
use crate::limit::Limiter;
use crate::service::{self, activation::Inherited, notify::Notifier};
use crate::snapshot::Snapshot;
use crate::switch::admission::{self, Unfit};
use crate::switch::driver::{self, Found};
use crate::switch::metrics::RolloutMetrics;
use crate::switch::traffic::Switchboard;
use crate::telemetry::{
    self, AccessLog, Metrics, ProcessLog, Refusals, TenantGate, UpstreamMetrics,
};
use crate::upgrade::{Predecessors, Program, Takeover};
use crate::websocket::registry::Registry;
use anyhow::{Context, anyhow};
use begin::Begun;
use hub_config::Problems;
use hub_config::runtime::{Config, LogLevel};
use hub_store::Embedded;
use operate::{Nudges, Operation};
use parking_lot::Mutex;
use serve::Server;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::runtime::Runtime;

/// Why the process could not serve.
#[derive(Debug)]
pub enum Failure {
    /// The configuration holds mistakes; nothing was bound.
    Config(Problems),
    /// The configuration sends clients to colours that cannot run on their databases; nothing was served.
    Schema(Vec<String>),
    /// The system refused something.
    System(anyhow::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(problems) => write!(f, "{problems}"),
            Self::Schema(problems) => write!(f, "{}", problems.join("\n")),
            Self::System(error) => write!(f, "{error:#}"),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::System(error)
    }
}

/// A process in which everything is made and nothing is served.
struct Prepared {
    hub: Arc<Hub>,
    server: Server,
    data: Runtime,
    reloader: Reloader,
    store: Option<(Embedded, Vec<Found>)>,
    /// Positions of the listeners whose sockets another process will hand over, in the order in which they
    /// come.
    promised: Vec<usize>,
}

/// The admin API's socket, and whether a service manager keeps it.
enum Admin {
    Here(AdminSocket, bool),
    /// Another process will hand it over, after those of listeners.
    Promised(bool),
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
        return Err(anyhow!("another crypto provider is installed").into());
    }
    let program = Program::of_this_process().context("this program's file cannot be found")?;
    // Before the load, which has things to say, too.
    let log =
        telemetry::init_process_log(LogLevel::Info).context("cannot set the process's log up")?;
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(4)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the control plane's thread")?;
    let nudges = {
        let _within = control.enter();
        Nudges::new().context("cannot listen for signals")?
    };
    let mut takeover = control.block_on(Takeover::from_env())?;
    let inherited = inherited.map_err(anyhow::Error::from);
    let started = inherited
        .map_err(Failure::from)
        .and_then(|inherited| prepare(file, inherited, log, takeover.as_mut(), &control));
    let (started, admin) = match started {
        Ok(started) => started,
        Err(failure) => {
            if let Some(takeover) = &takeover {
                let why = failure.to_string();
                control.block_on(takeover.give_up(&why));
            }
            return Err(failure);
        }
    };
    let predecessors = Predecessors::default();
    let begun = control.block_on(begin::begin(
        &started,
        admin,
        takeover.as_mut(),
        &predecessors,
    ));
    let begun = match begun {
        Ok(begun) => begun,
        Err(failure) => {
            if let Some(takeover) = &takeover {
                let why = failure.to_string();
                control.block_on(takeover.give_up(&why));
            }
            return Err(failure);
        }
    };
    let Prepared {
        hub,
        data,
        reloader,
        store,
        server,
        ..
    } = started;
    let attend = service::attend(Arc::clone(&hub), data.handle().clone());
    let errands = server.errands(data.handle());
    let Begun {
        admin_socket,
        admin_port,
        handed,
        ends,
    } = begun;
    let operation = Operation {
        hub,
        program,
        ready_file,
        reloader,
        admin_socket,
        admin_port,
        store,
        errands,
        predecessors,
        handed,
        nudges,
        ends,
    };
    control.block_on(operation.run(attend))?;
    // Requests that are still running after the drain's time are cut here.
    data.shutdown_background();
    control.shutdown_background();
    Ok(())
}

/// Everything that can fail, and nothing that anybody outside sees, but for sockets that nobody has yet.
fn prepare(
    file: PathBuf,
    mut inherited: Inherited,
    process_log: ProcessLog,
    mut takeover: Option<&mut Takeover>,
    control: &Runtime,
) -> Result<(Prepared, Admin), Failure> {
    let began = SystemTime::now();
    let config = reload::load(&file, None, false).map_err(Failure::Config)?;
    process_log.set_level(config.gateway.log_level);
    reload::tell_warnings(&config);
    let manager = Notifier::from_env().context("$NOTIFY_SOCKET")?;
    let metrics = Arc::new(Metrics::new());
    let (listeners, promised) = bind(&config, &metrics, &mut inherited, takeover.as_deref_mut())?;
    let admin = bind_admin(&config, &mut inherited, takeover.as_deref_mut())?;
    inherited.finish().map_err(anyhow::Error::from)?;
    if let Some(takeover) = takeover.as_deref() {
        takeover.finish()?;
    }
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
        websockets: Registry::default(),
    };
    let workers = match config.gateway.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        count => count,
    };
    // Before the first snapshot, so that no request goes by the configured colour where a rollout has
    // decided on another one.
    let store = config
        .store_directory
        .as_ref()
        .map(|directory| open_store(directory, &shared, control))
        .transpose()?;
    let first = Snapshot::build(config, None, &shared);
    if let Some((store, _)) = &store {
        let follows = takeover.map(|takeover| takeover.in_use());
        let admitted = admission::first(&first, &shared.switchboard, store, follows);
        control.block_on(admitted).map_err(|unfit| match unfit {
            Unfit::Colours(problems) => Failure::Schema(problems),
            Unfit::Ledger(why) => Failure::System(anyhow!(why)),
        })?;
    }
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
    let prepared = Prepared {
        server: Server::new(&hub),
        hub,
        data,
        reloader,
        store,
        promised,
    };
    Ok((prepared, admin))
}

/// Binds every listener that is not handed over, and tells which are promised.
fn bind(
    config: &Config,
    metrics: &Metrics,
    inherited: &mut Inherited,
    mut takeover: Option<&mut Takeover>,
) -> Result<(Vec<Arc<BoundListener>>, Vec<usize>), Failure> {
    let mut listeners = Vec::with_capacity(config.listeners.len());
    let mut promised = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let (name, address) = (&listener.name, listener.address);
        let of_it = || format!("listener `{name}`");
        let tls = listener.tls.as_ref().map(ListenerTls::load);
        let tls = tls.transpose().with_context(of_it)?;
        let counters = metrics.listener(name);
        let offered = takeover
            .as_deref_mut()
            .and_then(|takeover| takeover.listener(name, address));
        let bound = if let Some((at, source)) = offered {
            promised.push(index);
            Ok(BoundListener::promised(name, at, source, tls, counters))
        } else {
            match inherited.listener(name, address).with_context(of_it)? {
                Some(socket) => BoundListener::inherit(name, socket, tls, counters),
                None => BoundListener::bind(name, address, tls, counters),
            }
        };
        let bound = bound.with_context(|| format!("cannot bind listener `{name}` to {address}"))?;
        listeners.push(Arc::new(bound));
    }
    Ok((listeners, promised))
}

fn bind_admin(
    config: &Config,
    inherited: &mut Inherited,
    takeover: Option<&mut Takeover>,
) -> anyhow::Result<Admin> {
    let address = &config.admin.address;
    if let Some(kept) = takeover.and_then(|takeover| takeover.admin(address)) {
        return Ok(Admin::Promised(kept));
    }
    if let Some(socket) = inherited.admin(address).context("admin API")? {
        return Ok(Admin::Here(socket, true));
    }
    let bound = AdminSocket::bind(address);
    let socket = bound.with_context(|| format!("cannot bind the admin API to {address:?}"))?;
    Ok(Admin::Here(socket, false))
}

/// Opens the store and takes over the routing that its ledger says.
fn open_store(
    directory: &Path,
    shared: &Shared,
    control: &Runtime,
) -> anyhow::Result<(Embedded, Vec<Found>)> {
    let store = Embedded::open(directory, &Default::default()).context("cannot open the store")?;
    let found = control
        .block_on(driver::find(&store, &shared.switchboard))
        .context("cannot read the ledger of rollouts")?;
    Ok((store, found))
}
