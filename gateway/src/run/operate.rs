//! The control plane of a process that serves: admin API, signals, file changes, upgrades; to its end.

use super::drain;
use crate::control::admin::{Admin, AdminSocket};
use crate::control::reload::{Reloader, Trigger as ReloadTrigger};
use crate::control::watch_files;
use crate::hub::Hub;
use crate::lanes::general::errand::Errands;
use crate::lifecycle::Phase;
use crate::switch::driver::{Found, Rollouts};
use crate::upgrade::{AdminPort, Handed, Order, Predecessors, Program, Trigger, Upgrader};
use anyhow::Context as _;
use hub_store::Embedded;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Longest wait for the access log's last lines.
const LAST_LINES: Duration = Duration::from_secs(2);
/// What processes that drain behind this one may take beyond their drain, when all are told to end.
const PREDECESSORS_END: Duration = Duration::from_secs(5);

/// What there is to operate.
pub(super) struct Operation {
    pub(super) hub: Arc<Hub>,
    pub(super) program: Program,
    pub(super) ready_file: Option<PathBuf>,
    pub(super) reloader: Reloader,
    pub(super) admin_socket: AdminSocket,
    pub(super) admin_port: AdminPort,
    pub(super) store: Option<(Embedded, Vec<Found>)>,
    pub(super) errands: Errands,
    pub(super) predecessors: Predecessors,
    /// Another process has handed over to this one.
    pub(super) handed: Option<Handed>,
    pub(super) nudges: Nudges,
    pub(super) ends: Ends,
}

/// Signals that ask for something and end nothing. Heard from early on, since each of them ends a process
/// that does not.
pub(super) struct Nudges {
    hang_up: Signal,
    user1: Signal,
    user2: Signal,
}

/// Signals that end the process.
pub(super) struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

/// Why a process stops serving.
enum End {
    Told,
    HandedOver { grace: Duration },
}

impl Operation {
    /// Returns when the process has drained. `attend` speaks to the service manager.
    pub(super) async fn run(
        self,
        attend: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let Self {
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
            mut nudges,
            mut ends,
        } = self;
        let admin_address = admin_port.address();
        let rollouts = store.map(|(store, found)| {
            let (hub, reloader, store) = (Arc::clone(&hub), reloader.clone(), Arc::new(store));
            let predecessors = predecessors.clone();
            Rollouts::start(hub, reloader, errands, store, found, predecessors)
        });
        let upgrader = Upgrader::new(
            Arc::clone(&hub),
            program,
            admin_port,
            rollouts.clone(),
            reloader.clone(),
            predecessors.clone(),
            handed.as_ref(),
        );
        let admin = Admin::new(
            Arc::clone(&hub),
            reloader.clone(),
            rollouts,
            upgrader.clone(),
        );
        // First, so that nobody hears in between that nobody is ready.
        hub.lifecycle().advance(Phase::Serving);
        tokio::spawn(async move {
            if let Err(error) = admin.serve(admin_socket).await {
                tracing::error!(%error, "the admin API ended");
            }
        });
        let watching = tokio::spawn(watch_files(Arc::clone(&hub), reloader.clone()));
        match announce(&hub, &admin_address, ready_file.as_deref()) {
            // Nobody else serves any more, so this is no reason to end.
            Err(error) if handed.is_some() => tracing::error!("{error:#}"),
            announced => announced?,
        }
        if handed.is_some_and(|handed| handed.reload) {
            reloader.nudge(ReloadTrigger::Signal);
        }
        tokio::spawn(attend);

        let end = serve(&hub, &reloader, &upgrader, &mut nudges, &mut ends).await;
        upgrader.stop().await;
        // It may have been committed while it was to be stopped.
        let handed_over = *upgrader.handed_over().borrow();
        let grace = match end {
            End::HandedOver { grace } => Some(grace),
            End::Told => handed_over.map(|_| Duration::ZERO),
        };
        // Files and their changes are the other process's, or nobody's.
        watching.abort();
        let (notice, longest) = {
            let snapshot = hub.snapshot();
            let gateway = &snapshot.config.gateway;
            (gateway.drain_notice, gateway.drain_timeout)
        };
        let mut told = matches!(end, End::Told);
        if let Some(grace) = grace.filter(|_| !told) {
            told = drain::serve_the_rest(&hub, grace)
                .until_told(&hub, &mut nudges, &mut ends)
                .await;
        }
        // Who was told to end waits for requests; whose grace is over has done so.
        let longest = if told { longest } else { Duration::ZERO };
        let notice = if grace.is_some() {
            Duration::ZERO
        } else {
            notice
        };
        if grace.is_none() {
            // Whoever stops the service stops all of it.
            predecessors.terminate();
        }
        let draining = async {
            drain::drain(&hub, notice, longest).await;
            if grace.is_none() {
                predecessors.ended(longest + PREDECESSORS_END).await;
            }
        };
        if draining.until_told(&hub, &mut nudges, &mut ends).await {
            tracing::warn!("a second signal: ending now");
        }
        if !hub.access_log.shutdown(LAST_LINES) {
            tracing::warn!("the access log's last lines could not be written in time");
        }
        Ok(())
    }
}

/// Answers signals until the process is told to end, or another one serves.
async fn serve(
    hub: &Hub,
    reloader: &Reloader,
    upgrader: &Upgrader,
    nudges: &mut Nudges,
    ends: &mut Ends,
) -> End {
    let mut handed_over = upgrader.handed_over();
    loop {
        tokio::select! {
            _ = nudges.hang_up.recv() => reloader.nudge(ReloadTrigger::Signal),
            _ = nudges.user1.recv() => hub.access_log.reopen(),
            _ = nudges.user2.recv() => {
                // It may wait for a reload, and signals are heard meanwhile. Where it is refused, the log
                // says why.
                let upgrader = upgrader.clone();
                tokio::spawn(async move {
                    let _told = upgrader.begin(Order::default(), Trigger::Signal).await.map(drop);
                });
            }
            () = ends.recv() => return End::Told,
            _ = handed_over.changed() => {
                if let Some(handed_over) = *handed_over.borrow() {
                    return End::HandedOver { grace: handed_over.grace };
                }
            }
        }
    }
}

/// Work that a signal cuts short.
trait UntilTold: Future<Output = ()> + Sized {
    /// True where it was cut short. Logs are rotated meanwhile as ever: it may take an hour.
    async fn until_told(self, hub: &Hub, nudges: &mut Nudges, ends: &mut Ends) -> bool {
        let mut work = std::pin::pin!(self);
        loop {
            tokio::select! {
                () = &mut work => return false,
                _ = nudges.user1.recv() => hub.access_log.reopen(),
                () = ends.recv() => return true,
            }
        }
    }
}

impl<F: Future<Output = ()>> UntilTold for F {}

// === impl Nudges ===

impl Nudges {
    /// Hears of them from now on. Within a runtime.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }
}

// === impl Ends ===

impl Ends {
    /// Hears of them from now on. Within a runtime.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
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
