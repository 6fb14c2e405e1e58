//! What operators ask for: begins upgrades, refuses them, and tells how they ended.

use super::DRAINING_MAX;
use super::channel::{Channel, Message};
use super::child::{self, Program};
use super::control_socket::{self, ControlSocket};
use super::error::Error;
use super::handover::{AdminPort, Handover, Step};
use super::history::{State, Upgrade};
use super::order::{Order, Refused, Trigger, may_be_left};
use super::predecessors::Predecessors;
use super::takeover::Handed;
use crate::control::audit;
use crate::control::reload::{HeldReloads, Reloader};
use crate::hub::Hub;
use crate::lifecycle::Phase;
use crate::service;
use crate::switch::driver::{Held, Rollouts};
use crate::telemetry::UpgradeOutcome;
use hub_core::names;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Child;
use tokio::sync::{OwnedMutexGuard, watch};
use uuid::Uuid;

/// Longest wait for the new process to hear that this one has parted.
const PARTED_MAX: Duration = Duration::from_secs(1);

/// How long the end of a process may take to be noticed.
const NOTICE_MAX: Duration = Duration::from_secs(1);

/// Begins upgrades. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Upgrader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hub: Arc<Hub>,
    program: Program,
    admin: AdminPort,
    admin_closed: watch::Sender<bool>,
    rollouts: Option<Rollouts>,
    reloader: Reloader,
    predecessors: Predecessors,
    last: Mutex<Option<Upgrade>>,
    /// Held while an upgrade is under way.
    turn: Arc<tokio::sync::Mutex<()>>,
    ending: watch::Sender<bool>,
    handed_over: watch::Sender<Option<HandedOver>>,
}

/// Another process serves; this one has `grace` for the clients that it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandedOver {
    pub(crate) grace: Duration,
}

/// A child that does not outlive its upgrade, unless that went well.
struct Guarded(Option<Child>);

/// What only one process may do, held back for the length of an upgrade.
struct Still {
    reloads: HeldReloads,
    rollouts: Option<Held>,
}

// === impl Upgrader ===

impl Upgrader {
    /// For a process that was started as `program`, whose admin API is at `admin`, with its rollouts and
    /// reloads. `handed` is how it came to serve, if that was an upgrade.
    pub(crate) fn new(
        hub: Arc<Hub>,
        program: Program,
        admin: AdminPort,
        rollouts: Option<Rollouts>,
        reloader: Reloader,
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
                "Processes of upgrades that still serve the clients that they have, and take no new ones.",
                &[],
                f64::from(count),
            );
        });
        Self(Arc::new(Inner {
            hub,
            program,
            admin,
            admin_closed: watch::Sender::new(false),
            rollouts,
            reloader,
            predecessors,
            last: Mutex::new(last),
            turn: Arc::default(),
            ending: watch::Sender::new(false),
            handed_over: watch::Sender::new(None),
        }))
    }

    /// Becomes true when the admin API is another process's.
    pub(crate) fn admin_closed(&self) -> watch::Receiver<bool> {
        self.0.admin_closed.subscribe()
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
        may_be_left(std::process::id())?;
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
        let mut ending = self.ending.subscribe();
        let still = tokio::select! {
            still = self.hold() => still?,
            _ = ending.wait_for(|ending| *ending) => return Err(Refused::NotServing),
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
        Ok((id, async move { inner.run(run, still, turn).await }))
    }

    /// Has reloads and rollouts stand still, once a reload that is at work is over.
    async fn hold(&self) -> Result<Still, Refused> {
        // In this order: the reload may wait for the turn that rollouts are held by.
        let reloads = self.reloader.hold().await;
        let rollouts = match &self.rollouts {
            Some(rollouts) => Some(rollouts.hold().await.map_err(Refused::Rollout)?),
            None => None,
        };
        Ok(Still { reloads, rollouts })
    }

    async fn run(&self, run: Run, still: Still, turn: OwnedMutexGuard<()>) {
        let began = Instant::now();
        tracing::info!(
            upgrade = %run.id,
            trigger = run.trigger.as_str(),
            binary = %run.binary.display(),
            "an upgrade begins"
        );
        service::upgrading(&self.hub, run.timeout);
        let (mut child, mut channel) = (Guarded(None), None);
        let mut ending = self.ending.subscribe();
        let outcome = tokio::select! {
            outcome = self.hand_over(&run, &mut child, &mut channel) => outcome,
            _ = ending.wait_for(|ending| *ending) => Err(Error::Ending),
        };
        let took = began.elapsed();
        match outcome {
            Ok(()) => {
                let channel = channel.expect("what went well went over a channel");
                self.part(&run, child, &channel, still, took).await;
            }
            Err(error) => self.resume(&run, child, still, &error, took).await,
        }
        drop(turn);
    }

    async fn hand_over(
        &self,
        run: &Run,
        child: &mut Guarded,
        channel: &mut Option<Channel>,
    ) -> Result<(), Error> {
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
            predecessors: &self.predecessors,
            ends: tokio::time::Instant::now() + run.timeout,
            told: &told,
        };
        handover.to(child, &control, channel).await
    }

    /// Another process serves: leaves it all but the clients that are here.
    async fn part(
        &self,
        run: &Run,
        mut child: Guarded,
        channel: &Channel,
        still: Still,
        took: Duration,
    ) {
        let child = child.0.take();
        let pid = child.as_ref().and_then(Child::id).unwrap_or_default();
        self.admin_closed.send_replace(true);
        self.admin.close();
        if let Some(rollouts) = still.rollouts {
            rollouts.end();
        }
        self.hub.lifecycle().service().hand_over(pid);
        self.hub.listeners.iter().for_each(|one| one.close());
        self.hub.lifecycle().advance(Phase::HandedOver);
        // Only now: the new process does what only one may do as soon as it hears of this.
        let parted = Message::Parted {
            reload: still.reloads.end(),
        };
        let parted = channel.send(&parted);
        // Where it is not heard, the new process is dead, or goes on once this one has ended.
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
        still: Still,
        error: &Error,
        took: Duration,
    ) {
        // It has taken nobody's connection and decides nothing: that begins with `parted`, which it will not
        // hear.
        if let Some(mut child) = child.0.take() {
            child::end(&mut child).await;
        }
        self.hub.listeners.iter().for_each(|one| one.share(false));
        drop(still);
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

// === impl Guarded ===

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // An error means that it has ended already.
            child.start_kill().ok();
        }
    }
}
