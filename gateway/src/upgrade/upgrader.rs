//! What operators ask for: begins upgrades, refuses them, and tells how they ended.

use super::child::{self, Program};
use super::control_socket::{self, ControlSocket};
use super::error::Error;
use super::handover::{AdminPort, Handover, Step};
use super::predecessors::Predecessors;
use super::sockets::Place;
use super::takeover::Handed;
use super::{DRAINING_MAX, channel, channel::Message};
use crate::control::admin::{AdminSocket, Gate};
use crate::control::audit;
use crate::hub::Hub;
use crate::lifecycle::Phase;
use crate::service;
use crate::switch::driver::{Held, Rollouts};
use crate::telemetry::UpgradeOutcome;
use hub_core::names;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Child;
use tokio::sync::{OwnedMutexGuard, watch};
use uuid::Uuid;

/// Longest wait for the new process to hear that this one has parted.
const PARTED_MAX: Duration = Duration::from_secs(1);

/// How long the end of a process may take to be noticed.
const NOTICE_MAX: Duration = Duration::from_millis(250);

/// Begins upgrades. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Upgrader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hub: Arc<Hub>,
    program: Program,
    admin: AdminPort,
    gate: watch::Sender<Gate>,
    rollouts: Option<Rollouts>,
    predecessors: Predecessors,
    last: Mutex<Option<Upgrade>>,
    /// Held while an upgrade is under way.
    turn: Arc<tokio::sync::Mutex<()>>,
    ending: watch::Sender<bool>,
    handed_over: watch::Sender<Option<HandedOver>>,
}

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    /// The new program; else the one that this process was started as.
    pub(crate) binary: Option<PathBuf>,
    /// Longest time for which this process serves the clients that it has; else as configured.
    pub(crate) grace: Option<Duration>,
}

/// Who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// SIGUSR2.
    Signal,
    /// The admin API.
    Admin,
}

/// Why no upgrade was begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("an upgrade is under way; its outcome is at GET /v1/upgrade")]
    UnderWay,
    #[error("this process does not serve any more, or not yet; ask the one that does")]
    NotServing,
    #[error(
        "{DRAINING_MAX} processes still serve clients of earlier upgrades ({}); wait, or end them with SIGTERM", pids(.0)
    )]
    Draining(Vec<u32>),
    #[error("{0}")]
    Rollout(String),
    #[error("{} is no absolute path", .0.display())]
    Path(PathBuf),
}

/// Another process serves; this one has `grace` for the clients that it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandedOver {
    pub(crate) grace: Duration,
}

/// One upgrade, for whoever asks.
#[derive(Clone, Debug)]
struct Upgrade {
    id: String,
    trigger: Option<Trigger>,
    binary: PathBuf,
    from: u32,
    from_version: String,
    to: Option<u32>,
    to_version: Option<String>,
    state: State,
    took: Duration,
}

#[derive(Clone, Debug)]
enum State {
    UnderWay(Step),
    Committed,
    Aborted(String),
}

/// A child that does not outlive its upgrade, unless that went well.
struct Guarded(Option<Child>);

// === impl Upgrader ===

impl Upgrader {
    /// For a process that was started as `program`, whose admin API is at `admin` and whose rollouts are
    /// `rollouts`. `handed` is how it came to serve, if that was an upgrade.
    pub(crate) fn new(
        hub: Arc<Hub>,
        program: Program,
        admin: AdminPort,
        rollouts: Option<Rollouts>,
        predecessors: Predecessors,
        handed: Option<&Handed>,
    ) -> Self {
        let last = handed.map(|handed| Upgrade {
            id: handed.id.clone(),
            trigger: None,
            binary: program.path().to_owned(),
            from: handed.from,
            from_version: handed.version.clone(),
            to: Some(std::process::id()),
            to_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            state: State::Committed,
            took: handed.took,
        });
        if handed.is_some() {
            hub.metrics.upgraded(UpgradeOutcome::Committed);
        }
        let draining = predecessors.clone();
        hub.metrics.register_scrape(move |scrape| {
            let count = u32::try_from(draining.pids().len()).unwrap_or(u32::MAX);
            scrape.gauge(
                names::PROCESSES_DRAINING,
                "Processes that served before this one and still serve the clients that they have.",
                &[],
                f64::from(count),
            );
        });
        Self(Arc::new(Inner {
            hub,
            program,
            admin,
            gate: watch::Sender::new(Gate::Open),
            rollouts,
            predecessors,
            last: Mutex::new(last),
            turn: Arc::default(),
            ending: watch::Sender::new(false),
            handed_over: watch::Sender::new(None),
        }))
    }

    /// What the admin API's accept loop goes by.
    pub(crate) fn gate(&self) -> watch::Receiver<Gate> {
        self.0.gate.subscribe()
    }

    /// Becomes something once another process serves.
    pub(crate) fn handed_over(&self) -> watch::Receiver<Option<HandedOver>> {
        self.0.handed_over.subscribe()
    }

    /// Begins an upgrade, and does not wait for its end.
    ///
    /// # Errors
    /// [`Refused`], where nothing was begun.
    pub(crate) async fn begin(&self, order: Order, trigger: Trigger) -> Result<String, Refused> {
        let inner = &self.0;
        let begun = inner.begin(order, trigger).await;
        if let Err(refused) = &begun {
            tracing::warn!(trigger = trigger.as_str(), why = %refused, "an upgrade was refused");
            inner.audit(
                trigger,
                json!({"outcome": "refused", "why": refused.to_string()}),
            );
        }
        let (id, work) = begun?;
        tokio::spawn(work);
        Ok(id)
    }

    /// Aborts the upgrade that is under way, and begins no other one: the process ends.
    pub(crate) async fn stop(&self) {
        self.0.ending.send_replace(true);
        drop(self.0.turn.lock().await);
    }

    /// The last upgrade, and who drains.
    pub(crate) fn show(&self) -> Value {
        let last = self.0.last.lock().clone();
        json!({
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "draining": self.0.predecessors.pids(),
            "last": last.as_ref().map(Upgrade::show),
        })
    }
}

// === impl Inner ===

impl Inner {
    async fn begin(
        self: &Arc<Self>,
        order: Order,
        trigger: Trigger,
    ) -> Result<(String, impl Future<Output = ()> + Send + use<>), Refused> {
        let turn = Arc::clone(&self.turn).try_lock_owned();
        let turn = turn.map_err(|_| Refused::UnderWay)?;
        if self.hub.lifecycle().phase() != Phase::Serving || *self.ending.borrow() {
            return Err(Refused::NotServing);
        }
        // One that has just ended may still be listed.
        self.predecessors.fewer_than(DRAINING_MAX, NOTICE_MAX).await;
        let draining = self.predecessors.pids();
        if draining.len() >= DRAINING_MAX {
            return Err(Refused::Draining(draining));
        }
        let binary = order.binary.unwrap_or(self.program.path().to_owned());
        if !binary.is_absolute() {
            return Err(Refused::Path(binary));
        }
        let held = match &self.rollouts {
            Some(rollouts) => Some(rollouts.hold().await.map_err(Refused::Rollout)?),
            None => None,
        };
        let (timeout, grace) = {
            let snapshot = self.hub.snapshot();
            let gateway = &snapshot.config.gateway;
            (gateway.upgrade_timeout, gateway.upgrade_grace)
        };
        let id = Uuid::now_v7().to_string();
        *self.last.lock() = Some(Upgrade {
            id: id.clone(),
            trigger: Some(trigger),
            binary: binary.clone(),
            from: std::process::id(),
            from_version: env!("CARGO_PKG_VERSION").to_owned(),
            to: None,
            to_version: None,
            state: State::UnderWay(Step::Starting),
            took: Duration::ZERO,
        });
        let run = Run {
            id: id.clone(),
            trigger,
            binary,
            timeout,
            grace: order.grace.unwrap_or(grace),
        };
        let inner = Arc::clone(self);
        Ok((id, async move { inner.run(run, held, turn).await }))
    }

    async fn run(&self, run: Run, held: Option<Held>, turn: OwnedMutexGuard<()>) {
        let began = Instant::now();
        tracing::info!(
            upgrade = %run.id,
            trigger = run.trigger.as_str(),
            binary = %run.binary.display(),
            "an upgrade begins"
        );
        service::upgrading(&self.hub, run.timeout);
        let mut child = Guarded(None);
        let mut ending = self.ending.subscribe();
        let outcome = tokio::select! {
            outcome = self.hand_over(&run, &mut child) => outcome,
            _ = ending.wait_for(|ending| *ending) => Err(Error::Ending),
        };
        let took = began.elapsed();
        match outcome {
            Ok(channel) => self.part(&run, child, &channel, held, took).await,
            Err(error) => self.resume(&run, child, held, &error, took).await,
        }
        drop(turn);
    }

    async fn hand_over(&self, run: &Run, child: &mut Guarded) -> Result<channel::Channel, Error> {
        let folder = control_socket::parent();
        let control = ControlSocket::bind(&folder);
        let control = control.map_err(|source| Error::ControlSocket { folder, source })?;
        let child = child
            .0
            .insert(self.program.start(&run.binary, control.path())?);
        let pid = child.id();
        let told = |step: Step, version: Option<&str>| {
            tracing::info!(upgrade = %run.id, step = step.as_str(), pid, version, "upgrading");
            if let Some(last) = self.last.lock().as_mut() {
                last.state = State::UnderWay(step);
                last.to = pid;
                if let Some(version) = version {
                    last.to_version = Some(version.to_owned());
                }
            }
        };
        let handover = Handover {
            hub: &self.hub,
            id: &run.id,
            admin: &self.admin,
            gate: &self.gate,
            predecessors: &self.predecessors,
            ends: tokio::time::Instant::now() + run.timeout,
            told: &told,
        };
        handover.to(child, &control).await
    }

    /// Another process serves: leaves it all but the clients that are here.
    async fn part(
        &self,
        run: &Run,
        mut child: Guarded,
        channel: &channel::Channel,
        held: Option<Held>,
        took: Duration,
    ) {
        let child = child.0.take();
        let pid = child.as_ref().and_then(Child::id).unwrap_or_default();
        self.gate.send_replace(Gate::Closed);
        self.admin.close();
        if let Some(held) = held {
            held.end();
        }
        self.hub.lifecycle().service().hand_over(pid);
        self.hub.listeners.iter().for_each(|one| one.close());
        self.hub.lifecycle().advance(Phase::HandedOver);
        let parted = channel.send(&Message::Parted);
        // It waits for that no longer than it must.
        let _unheard = tokio::time::timeout(PARTED_MAX, parted).await.map(drop);
        self.set(State::Committed, took);
        let took_ms = took.as_millis() as u64;
        tracing::info!(
            upgrade = %run.id,
            pid,
            took_ms,
            grace_ms = run.grace.as_millis() as u64,
            connections = self.hub.listeners.iter().map(|one| one.connections()).sum::<usize>(),
            "another process serves; this one takes no new connections"
        );
        let detail = json!({
            "outcome": "committed", "upgrade": run.id, "binary": run.binary, "pid": pid, "took_ms": took_ms,
        });
        self.audit(run.trigger, detail);
        self.handed_over
            .send_replace(Some(HandedOver { grace: run.grace }));
    }

    /// The other process is ended, if it is there, and this one serves as before.
    async fn resume(
        &self,
        run: &Run,
        mut child: Guarded,
        held: Option<Held>,
        error: &Error,
        took: Duration,
    ) {
        // Before anything else: two must not decide the same thing.
        if let Some(child) = &mut child.0 {
            child::end(child).await;
        }
        self.hub.listeners.iter().for_each(|one| one.share(false));
        drop(held);
        self.gate.send_replace(Gate::Open);
        let why = error.to_string();
        self.set(State::Aborted(why.clone()), took);
        self.hub.metrics.upgraded(UpgradeOutcome::Aborted);
        tracing::error!(
            upgrade = %run.id,
            why,
            took_ms = took.as_millis() as u64,
            "the upgrade was aborted; this process serves as before"
        );
        let detail = json!({
            "outcome": "aborted", "upgrade": run.id, "binary": run.binary, "why": why,
        });
        self.audit(run.trigger, detail);
        service::upgrade_aborted(&self.hub, &why);
    }

    fn set(&self, state: State, took: Duration) {
        if let Some(last) = self.last.lock().as_mut() {
            last.state = state;
            last.took = took;
        }
    }

    fn audit(&self, trigger: Trigger, detail: Value) {
        let hub = Arc::clone(&self.hub);
        tokio::task::spawn_blocking(move || {
            let config = &hub.snapshot().config;
            audit::write(&config.admin, trigger.as_str(), "upgrade", &detail);
        });
    }
}

/// What one upgrade goes by.
struct Run {
    id: String,
    trigger: Trigger,
    binary: PathBuf,
    timeout: Duration,
    grace: Duration,
}

// === impl AdminPort ===

impl AdminPort {
    /// Of the admin API's socket, which a service manager keeps, too, or not.
    pub(crate) fn new(socket: &AdminSocket, kept: bool) -> io::Result<Self> {
        let at = match socket {
            AdminSocket::Tcp(socket) => Place::Tcp(socket.local_addr()?),
            AdminSocket::Unix(socket) => {
                let address = socket.local_addr()?;
                Place::Unix(address.as_pathname().unwrap_or("".as_ref()).to_owned())
            }
        };
        Ok(Self {
            at,
            kept,
            descriptor: Mutex::new(Some(socket.descriptor()?)),
        })
    }

    /// Where it is, as text.
    pub(crate) fn address(&self) -> String {
        self.at.to_string()
    }
}

// === impl Upgrade ===

impl Upgrade {
    fn show(&self) -> Value {
        let (state, step, why) = match &self.state {
            State::UnderWay(step) => ("under_way", Some(step.as_str()), None),
            State::Committed => ("committed", None, None),
            State::Aborted(why) => ("aborted", None, Some(why)),
        };
        json!({
            "id": self.id,
            "state": state,
            "step": step,
            "why": why,
            "trigger": self.trigger.map(Trigger::as_str),
            "binary": self.binary,
            "from": {"pid": self.from, "version": self.from_version},
            "to": self.to.map(|pid| json!({"pid": pid, "version": self.to_version})),
            "took_ms": self.took.as_millis() as u64,
        })
    }
}

// === impl Trigger ===

impl Trigger {
    /// As log and audit trail name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Admin => "admin",
        }
    }
}

// === impl Refused ===

impl Refused {
    /// As scripts read it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::UnderWay => "upgrade_under_way",
            Self::NotServing => "not_serving",
            Self::Draining(_) => "too_many_draining",
            Self::Rollout(_) => "rollout_under_way",
            Self::Path(_) => "bad_binary",
        }
    }
}

// === impl Guarded ===

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // An error means that it has ended already.
            child.start_kill().ok();
        }
    }
}

fn pids(pids: &[u32]) -> String {
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    pids.join(", ")
}
