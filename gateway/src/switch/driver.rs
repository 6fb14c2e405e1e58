//! Runs the machine: takes events one by one, writes each decision down, and does what follows.
//!
//! One task for all clusters of a process. It waits for nothing but the ledger; what takes time (looking
//! a colour up, probing it, waiting for requests to end) runs in tasks that answer with an event.

mod contract;

use super::admission::{self, Documents};
use super::fence::{Contract, GuardedLedger};
use super::gate::{self, Check};
use super::judge::{Bench, Ruling};
use super::machine::{self, Action, Durable, Event, Micros, Name, Phase, Record, Refused};
use super::metrics::Cause;
use super::plan::{Routing, WHOLE};
use super::watch::Watch;
use crate::control::reload::Reloader;
use crate::hub::Hub;
use crate::lanes::general::errand::Errands;
use crate::snapshot::colour_name;
use crate::stages::Target;
use crate::upgrade::Predecessors;
use hub_config::runtime::{Colour, TenantIndex};
use hub_store::{MigrationLedger, NewEntry, RolloutLedger, StoreError};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use uuid::Uuid;

/// Commands and answers that may wait.
const QUEUE: usize = 256;
/// How often deadlines and judges are looked at while a rollout is under way.
const TICK: Duration = Duration::from_millis(250);
/// Tries to write a decision down before it is given up for now.
const APPENDS: u32 = 4;

/// A rollout for whoever asks.
#[derive(Clone, Debug)]
pub struct View {
    /// Where it stands.
    pub record: Record,
    /// Its id; nil where there was none.
    pub rollout: Uuid,
    /// The judges' numbers, while they watch.
    pub judges: Vec<String>,
    /// Of the last change of routing: from its record on disk to the moment since when no request picks its
    /// colour by the routing before. One that a failure sends back to the old colour counts for the new one.
    pub flip: Option<Duration>,
}

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No such cluster in the configuration.
    #[error("there is no cluster {0:?}")]
    UnknownCluster(String),
    /// The plan makes no sense.
    #[error("{0}")]
    Plan(String),
    /// It does not fit where the rollout stands.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The ledger did not take it, so nothing was done.
    #[error("the ledger of rollouts cannot be written, so nothing was done: {0}")]
    Ledger(#[from] StoreError),
    /// The gateway is going away.
    #[error("the gateway is ending")]
    Ending,
    /// Another process is about to decide.
    #[error("an upgrade of the gateway is under way; try again when it is over")]
    Upgrading,
    /// Other processes of the gateway still send their clients by a routing of their own.
    #[error("{0}")]
    Draining(String),
}

/// Commands rollouts and shows them.
#[derive(Clone, Debug)]
pub struct Rollouts {
    commands: mpsc::Sender<Message>,
    views: Arc<Mutex<BTreeMap<String, View>>>,
    ledger: Ledger,
    migrations: GuardedLedger,
    turn: Arc<tokio::sync::Mutex<()>>,
    held: Arc<AtomicBool>,
    driver: AbortHandle,
}

/// While this is there nothing is decided and nothing is written.
#[derive(Debug)]
pub struct Held {
    held: Arc<AtomicBool>,
    driver: AbortHandle,
    _turn: OwnedMutexGuard<()>,
}

#[derive(Clone)]
struct Ledger(Arc<dyn RolloutLedger>);

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ledger")
    }
}

#[derive(Debug)]
struct Message {
    cluster: String,
    event: Event,
    /// The rollout that it answers; nothing is heard of one that is over.
    of: Option<Uuid>,
    reply: Option<oneshot::Sender<Result<View, Failure>>>,
}

/// Where tasks of a rollout answer.
#[derive(Clone)]
struct Answers {
    to: mpsc::Sender<Message>,
    rollout: Uuid,
}

/// What a process finds in the ledger.
#[derive(Clone, Debug)]
pub struct Found {
    cluster: String,
    rollout: Uuid,
    record: Record,
}

struct Driver {
    hub: Arc<Hub>,
    reloader: Reloader,
    errands: Errands,
    ledger: Ledger,
    migrations: Arc<dyn MigrationLedger>,
    answers: mpsc::Sender<Message>,
    views: Arc<Mutex<BTreeMap<String, View>>>,
    clusters: BTreeMap<String, Running>,
    began: Instant,
    /// Held for each decision.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Their requests are on colours, too, and are not counted here.
    predecessors: Predecessors,
}

struct Running {
    record: Record,
    rollout: Uuid,
    flip: Option<Duration>,
    watch: Option<Arc<Watch>>,
    bench: Option<Bench>,
    /// Look-ups, gates and waits of the present phase; aborted with it.
    tasks: JoinSet<()>,
    /// Why the judges want to go back, since they last did.
    blame: Cause,
    /// Decisions that the ledger did not take are tried again with the next tick.
    again: Option<Event>,
}

fn unix_us() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
    })
}

/// Reads the ledger and makes its routing that of the first snapshot, which is to be built afterwards.
///
/// # Errors
/// Where the ledger cannot be read, or holds what this version does not know.
pub async fn find(
    ledger: &dyn RolloutLedger,
    board: &super::traffic::Switchboard,
) -> anyhow::Result<Vec<Found>> {
    use anyhow::Context as _;
    let mut found = Vec::new();
    for entry in ledger.latest_all().await? {
        let record: Record = serde_json::from_str(&entry.body).with_context(|| {
            format!(
                "the ledger's last record of cluster {:?} cannot be read; was it written by a newer version?",
                entry.cluster
            )
        })?;
        // One that never moved traffic has decided nothing: the configured colour counts.
        if record.epoch > 0 {
            let mut changing = board.change();
            changing.decide(&entry.cluster, record.routing.clone(), record.epoch);
        }
        found.push(Found {
            cluster: entry.cluster,
            rollout: entry.rollout,
            record,
        });
    }
    Ok(found)
}

// === impl Rollouts ===

impl Rollouts {
    /// Starts the driver on the present runtime, over a store. `found` is what [`find`] found in it;
    /// `predecessors` are processes whose clients may be on any colour.
    pub(crate) fn start<S: RolloutLedger + MigrationLedger + 'static>(
        hub: Arc<Hub>,
        reloader: Reloader,
        errands: Errands,
        store: Arc<S>,
        found: Vec<Found>,
        predecessors: Predecessors,
    ) -> Self {
        let ledger: Arc<dyn RolloutLedger> = Arc::clone(&store) as _;
        let migrations: Arc<dyn MigrationLedger> = store;
        let (commands, queue) = mpsc::channel(QUEUE);
        let (contracts, contract_queue) = mpsc::channel(QUEUE);
        let held: Arc<AtomicBool> = Arc::default();
        let turn = Arc::default();
        let guarded = GuardedLedger::new(
            Arc::clone(&hub),
            Arc::clone(&migrations),
            contracts,
            Arc::clone(&held),
            Arc::clone(&turn),
        );
        reloader.guard(tokio::runtime::Handle::current(), guarded.clone());
        let (views, ledger) = (Arc::default(), Ledger(ledger));
        let mut driver = Driver {
            hub,
            reloader,
            errands,
            ledger: ledger.clone(),
            migrations,
            answers: commands.clone(),
            views: Arc::clone(&views),
            clusters: BTreeMap::new(),
            began: Instant::now(),
            turn: Arc::clone(&turn),
            predecessors,
        };
        // Who asks at once is told where they stand, not that there are none.
        for one in &found {
            let running = Running::new(one.record.clone(), one.rollout);
            driver.clusters.insert(one.cluster.clone(), running);
            driver.show(&one.cluster);
        }
        Self {
            commands,
            views,
            ledger,
            migrations: guarded,
            turn,
            held,
            driver: tokio::spawn(driver.run(found, queue, contract_queue)).abort_handle(),
        }
    }

    /// Keeps the driver from deciding anything, for another process to decide.
    ///
    /// # Errors
    /// A rollout is under way; which one, and what to do.
    pub async fn hold(&self) -> Result<Held, String> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let views = self.views.lock();
        let mut under_way = views
            .iter()
            .filter(|(_, view)| !view.record.phase.is_over());
        if let Some((cluster, view)) = under_way.next() {
            return Err(format!(
                "a rollout of cluster {cluster:?} is under way ({}); upgrade when it is over, or end it with `hubctl rollout abort {cluster}`",
                view.record.phase.name().as_str()
            ));
        }
        self.held.store(true, Ordering::Release);
        Ok(Held {
            held: Arc::clone(&self.held),
            driver: self.driver.clone(),
            _turn: turn,
        })
    }

    /// Tells of what an operator wants, and waits until it is decided and written down.
    ///
    /// # Errors
    /// [`Failure`] where nothing was changed.
    pub async fn command(&self, cluster: &str, event: Event) -> Result<View, Failure> {
        if self.held.load(Ordering::Acquire) {
            return Err(Failure::Upgrading);
        }
        let (reply, answer) = oneshot::channel();
        let message = Message {
            cluster: cluster.to_owned(),
            event,
            of: None,
            reply: Some(reply),
        };
        self.commands
            .send(message)
            .await
            .map_err(|_| Failure::Ending)?;
        answer.await.map_err(|_| Failure::Ending)?
    }

    /// Every cluster that has had a rollout, by name.
    pub fn views(&self) -> BTreeMap<String, View> {
        self.views.lock().clone()
    }

    /// The ledger of migrations, in which contract steps begin when no rollout needs what they take
    /// away.
    pub fn migrations(&self) -> &GuardedLedger {
        &self.migrations
    }

    /// The last records of a cluster, newest first.
    ///
    /// # Errors
    /// Where the ledger cannot be read.
    pub async fn history(
        &self,
        cluster: &str,
        limit: u32,
    ) -> Result<Vec<hub_store::Entry>, StoreError> {
        self.ledger.0.history(cluster, None, limit).await
    }
}

// === impl Held ===

impl Held {
    /// Ends the driver for good: what is commanded from now on, or waits, is told that the gateway ends.
    pub fn end(self) {
        self.driver.abort();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.held.store(false, Ordering::Release);
    }
}

// === impl Driver ===

impl Driver {
    async fn run(
        mut self,
        found: Vec<Found>,
        mut queue: mpsc::Receiver<Message>,
        mut contracts: mpsc::Receiver<Contract>,
    ) {
        let turns = Arc::clone(&self.turn);
        let recovering = turns.lock().await;
        for Found {
            cluster, record, ..
        } in found
        {
            if let Some(decision) = machine::recover(&record, unix_us()) {
                tracing::warn!(
                    cluster,
                    phase = record.phase.name().as_str(),
                    "a rollout was under way when the gateway ended; it goes on"
                );
                // The ledger was readable a moment ago; where it is not writable, deadlines decide.
                if let Err(error) = self.carry_out(&cluster, decision, Cause::Restarts).await {
                    tracing::error!(cluster, %error, "the rollout cannot go on");
                }
            }
            self.show(&cluster);
        }
        drop(recovering);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let busy = self.clusters.values().any(Running::is_busy);
            tokio::select! {
                message = queue.recv() => match message {
                    Some(message) => {
                        let _turn = turns.lock().await;
                        self.take(message).await;
                    }
                    None => return,
                },
                Some(contract) = contracts.recv() => {
                    let _turn = turns.lock().await;
                    self.contract(contract).await;
                }
                _ = tick.tick(), if busy => {
                    let _turn = turns.lock().await;
                    self.tick().await;
                }
            }
        }
    }

    async fn take(&mut self, message: Message) {
        let Message {
            cluster,
            event,
            of,
            reply,
        } = message;
        let running = self.clusters.get(&cluster);
        if of.is_some_and(|of| running.is_none_or(|running| running.rollout != of)) {
            return;
        }
        let outcome = self.event(&cluster, &event).await;
        match (reply, outcome) {
            (reply, Err(Failure::Ledger(error @ StoreError::Conflict { .. }))) => {
                self.adopt(&cluster, event).await;
                if let Some(reply) = reply {
                    let _asker_gone = reply.send(Err(error.into()));
                }
            }
            (Some(reply), outcome) => {
                let outcome = outcome.map(|()| self.show(&cluster));
                // Whoever asked may have gone.
                let _asker_gone = reply.send(outcome);
            }
            (None, Err(Failure::Ledger(error))) => {
                tracing::error!(cluster, %error, "a decision of a rollout cannot be written down");
                if matches!(error, StoreError::Unavailable(_)) {
                    self.later(&cluster, event);
                }
            }
            (None, Ok(()) | Err(_)) => {
                self.show(&cluster);
            }
        }
    }

    /// Has an event told again with the next tick. Time comes again by itself.
    fn later(&mut self, cluster: &str, event: Event) {
        if event != Event::Tick
            && let Some(running) = self.clusters.get_mut(cluster)
        {
            running.again.get_or_insert(event);
        }
    }

    /// The ledger knows more than this process: a write that seemed lost was not, or another process has
    /// decided. What stands there counts.
    async fn adopt(&mut self, cluster: &str, event: Event) {
        let latest = self.ledger.0.latest(cluster).await;
        let entry = match latest {
            Ok(Some(entry)) => entry,
            Ok(None) | Err(_) => return self.later(cluster, event),
        };
        let Ok(record) = serde_json::from_str::<Record>(&entry.body) else {
            tracing::error!(
                cluster,
                "the ledger holds a record of a rollout that cannot be read"
            );
            return;
        };
        tracing::warn!(
            cluster,
            version = record.version,
            "the ledger's record of the rollout is adopted"
        );
        let (old, _closed_at) = self
            .hub
            .reroute(cluster, record.routing.clone(), record.epoch);
        self.reloader.retire(old);
        if let Some(present) = self.hub.switchboard.present(cluster) {
            present.stop_watching();
        }
        self.clusters.insert(
            cluster.to_owned(),
            Running::new(record.clone(), entry.rollout),
        );
        if matches!(record.phase.name(), Name::Committed | Name::RolledBack) {
            let unused = record.routing.active.other();
            self.act(cluster, &Action::Release(unused), Instant::now());
        }
        if let Some(decision) = machine::recover(&record, unix_us())
            && let Err(error) = self.carry_out(cluster, decision, Cause::Restarts).await
        {
            tracing::error!(cluster, %error, "the rollout cannot go on");
        }
        self.show(cluster);
    }

    async fn event(&mut self, cluster: &str, event: &Event) -> Result<(), Failure> {
        let snapshot = self.hub.snapshot();
        let known = snapshot
            .config
            .clusters
            .iter()
            .find(|one| one.name == cluster);
        if let Event::Start(plan) = event {
            let known = known.ok_or_else(|| Failure::UnknownCluster(cluster.to_owned()))?;
            plan.check().map_err(Failure::Plan)?;
            if let Some(who) = self.predecessors.told() {
                return Err(Failure::Draining(format!(
                    "{who}; a rollout would be judged without their clients, and could let a colour go that those are on"
                )));
            }
            let running = self
                .clusters
                .entry(cluster.to_owned())
                .or_insert_with(|| Running::new(Record::idle(known.active), Uuid::nil()));
            if running.record.phase.is_over() && !self.hub.switchboard.is_decided(cluster) {
                // The file may have changed since.
                running.record.routing = Routing::all(known.active);
                running.record.passed = known.active;
            }
        }
        let Some(running) = self.clusters.get_mut(cluster) else {
            return Err(match known {
                Some(_) => Refused::NothingUnderWay.into(),
                None => Failure::UnknownCluster(cluster.to_owned()),
            });
        };
        let decision = machine::step(&running.record, event, unix_us())?;
        if matches!(event, Event::Start(_)) {
            running.rollout = Uuid::now_v7();
        }
        let cause = running.cause(event);
        self.carry_out(cluster, decision, cause).await
    }

    /// Writes a decision down, then acts on it. `cause` is why, where it goes back.
    async fn carry_out(
        &mut self,
        cluster: &str,
        decision: machine::Decision,
        cause: Cause,
    ) -> Result<(), Failure> {
        let running = self.clusters.get_mut(cluster).expect("the caller has it");
        let before = running.record.phase.name();
        let record = decision.record.clone();
        let entry = NewEntry {
            id: Uuid::now_v7(),
            rollout: running.rollout,
            state: record.phase.name().as_str().to_owned(),
            body: serde_json::to_string(&record).expect("plain values"),
            at_us: unix_us(),
        };
        let durable_at = append(&self.ledger, cluster, record.version - 1, entry).await?;
        let after = record.phase.name();
        if before != after {
            running.tasks = JoinSet::new();
        }
        running.record = record;
        running.fence_fallback();
        let receipt = Durable::version(running.record.version);
        for action in decision.actions(&receipt) {
            self.act(cluster, &action, durable_at);
        }
        // What is decided is done first and told second: a log may be slow to take a line.
        let Running {
            record, rollout, ..
        } = &self.clusters[cluster];
        tracing::info!(
            cluster,
            %rollout,
            from = before.as_str(),
            to = after.as_str(),
            epoch = record.epoch,
            why = why(&record.phase),
            "rollout"
        );
        self.hub.rollouts.went(cluster, before, after, cause);
        Ok(())
    }

    fn act(&mut self, cluster: &str, action: &Action, durable_at: Instant) {
        let running = self.clusters.get_mut(cluster).expect("the caller has it");
        let epoch = running.record.epoch;
        let answers = Answers {
            to: self.answers.clone(),
            rollout: running.rollout,
        };
        match action {
            Action::Prepare(colour) => {
                let seconds = self.began.elapsed().as_secs();
                running.begin_watching(&self.hub, cluster, seconds);
                let hub = Arc::clone(&self.hub);
                let migrations = Arc::clone(&self.migrations);
                let (cluster, colour) = (cluster.to_owned(), *colour);
                running.tasks.spawn(async move {
                    let outcome = match prepared(&hub, &cluster, colour) {
                        Ok(()) => {
                            let documents = Documents::Later;
                            admission::admit(&hub, &*migrations, &cluster, colour, documents).await
                        }
                        refused => refused,
                    };
                    let event = match outcome {
                        Ok(()) => Event::Prepared,
                        Err(why) => Event::PrepareFailed(why),
                    };
                    send(&answers, cluster, event).await;
                });
            }
            Action::Gate(colour) => {
                let hub = Arc::clone(&self.hub);
                let (errands, migrations) = (self.errands.clone(), Arc::clone(&self.migrations));
                let (cluster, colour) = (cluster.to_owned(), *colour);
                let baseline = running.record.plan.baseline_us();
                running.tasks.spawn(async move {
                    let pass = || pass_gate(&hub, &errands, &*migrations, &cluster, colour);
                    let mut passed = pass().await;
                    if passed.is_ok() && baseline > 0 {
                        // Meanwhile the judges learn what the old colour is like. What the gate has shown
                        // is old by then, so it is asked again.
                        tokio::time::sleep(Duration::from_micros(baseline.unsigned_abs())).await;
                        passed = pass().await;
                    }
                    let event = match passed {
                        Ok(()) => Event::GatePassed,
                        Err(why) => Event::GateFailed(why),
                    };
                    send(&answers, cluster, event).await;
                });
            }
            Action::Apply => {
                let routing = running.record.routing.clone();
                let (old, closed_at) = self.hub.reroute(cluster, routing, epoch);
                running.flip = closed_at.map(|closed| closed.saturating_duration_since(durable_at));
                if let Some(flip) = running.flip {
                    self.hub.rollouts.flipped(cluster, flip);
                }
                self.reloader.retire(old);
                running.attach_watch(&self.hub, cluster);
                answer(
                    &answers,
                    cluster,
                    Event::Applied { epoch },
                    &mut running.tasks,
                );
            }
            Action::Watch => {
                let seconds = self.began.elapsed().as_secs();
                if running.bench.is_none() {
                    running.begin_watching(&self.hub, cluster, seconds);
                }
                let share = running.share();
                if let (Some(bench), Some(watch)) = (&mut running.bench, &running.watch) {
                    bench.hear(&watch.take(), seconds);
                    bench.begin_step(epoch, share, seconds);
                }
            }
            Action::StopWatching => {
                running.watch = None;
                running.bench = None;
                if let Some(generation) = self.hub.switchboard.present(cluster) {
                    generation.stop_watching();
                }
            }
            Action::AwaitDrain(colour) => {
                let (hub, predecessors) = (Arc::clone(&self.hub), self.predecessors.clone());
                let (cluster, colour) = (cluster.to_owned(), *colour);
                running.tasks.spawn(async move {
                    predecessors.all_ended().await;
                    hub.switchboard.drained(&cluster, colour).await;
                    send(&answers, cluster, Event::Drained { epoch, colour }).await;
                });
            }
            Action::Release(colour) => {
                let (hub, errands) = (Arc::clone(&self.hub), self.errands.clone());
                let (predecessors, cluster) = (self.predecessors.clone(), cluster.to_owned());
                let colour = *colour;
                // Not bound to the phase: the last request may take its time.
                tokio::spawn(async move {
                    predecessors.all_ended().await;
                    release(hub, errands, cluster, colour).await;
                });
            }
        }
    }

    async fn tick(&mut self) {
        let names: Vec<String> = self
            .clusters
            .iter()
            .filter(|(_, running)| running.is_busy())
            .map(|(name, _)| name.clone())
            .collect();
        let seconds = self.began.elapsed().as_secs();
        for cluster in names {
            let running = self.clusters.get_mut(&cluster).expect("just seen");
            if running.bench.is_none() && running.is_judged() {
                // A recovery that could not be written down has left it without judges.
                self.act(&cluster, &Action::Watch, Instant::now());
            }
            let running = self.clusters.get_mut(&cluster).expect("just seen");
            let switchboard = &self.hub.switchboard;
            let hangs = switchboard.requests_on(&cluster, running.record.to) > 0;
            let mut events: Vec<Event> = running.again.take().into_iter().collect();
            let ruling = running.hear(seconds, hangs);
            if let (Some(ruling), Some(watch)) = (&ruling, &running.watch) {
                self.hub.rollouts.ruled(&cluster, ruling);
                self.hub.rollouts.lost(&cluster, watch.lost());
            }
            events.extend(ruling.and_then(|ruling| running.follow(ruling)));
            events.push(Event::Tick);
            for event in events {
                let message = Message {
                    cluster: cluster.clone(),
                    event,
                    of: None,
                    reply: None,
                };
                self.take(message).await;
            }
        }
    }

    /// Brings the cluster's view up to date.
    fn show(&self, cluster: &str) -> View {
        let seconds = self.began.elapsed().as_secs();
        let running = &self.clusters[cluster];
        let view = View {
            record: running.record.clone(),
            rollout: running.rollout,
            judges: running
                .bench
                .as_ref()
                .map_or_else(Vec::new, |bench| bench.explain(seconds)),
            flip: running.flip,
        };
        let phase = running.record.phase.name();
        self.hub
            .rollouts
            .stands(cluster, phase, running.record.epoch);
        self.views.lock().insert(cluster.to_owned(), view.clone());
        view
    }
}

// === impl Running ===

impl Running {
    fn new(record: Record, rollout: Uuid) -> Self {
        Self {
            record,
            rollout,
            flip: None,
            watch: None,
            bench: None,
            tasks: JoinSet::new(),
            blame: Cause::NoVerdict,
            again: None,
        }
    }

    fn is_busy(&self) -> bool {
        !self.record.phase.is_over() || self.again.is_some()
    }

    fn begin_watching(&mut self, hub: &Arc<Hub>, cluster: &str, seconds: u64) {
        let snapshot = hub.snapshot();
        let tenants = snapshot.config.tenants.iter();
        let traffic = tenants.map(|(index, tenant): (TenantIndex, _)| {
            let who = super::traffic::who(tenant.id.as_str().as_bytes());
            (who, snapshot.tenant(index).totals().requests())
        });
        self.bench = Some(Bench::new(&self.record.plan, traffic, seconds));
        self.watch = Some(Arc::default());
        self.fence_fallback();
        self.attach_watch(hub, cluster);
    }

    fn attach_watch(&self, hub: &Hub, cluster: &str) {
        if let Some(watch) = &self.watch
            && let Some(generation) = hub.switchboard.present(cluster)
        {
            generation.watch_with(self.record.to, Arc::clone(watch));
        }
    }

    /// The old colour would not find its schema after a contract step.
    fn fence_fallback(&self) {
        if let (Some(watch), true) = (&self.watch, self.record.contracted) {
            watch.budget.close();
        }
    }

    /// Lets the judges hear what came in; what they say of it, where there are some.
    fn hear(&mut self, seconds: u64, hangs: bool) -> Option<Ruling> {
        let (watch, bench) = (self.watch.as_ref()?, self.bench.as_mut()?);
        let samples = watch.take();
        watch.budget.earn(samples.len());
        bench.hear(&samples, seconds);
        let now = unix_us();
        let enough = match self.record.phase {
            // A tick before the machine gives up waiting for them.
            Phase::Canary { deadline, .. } => now + 2 * TICK.as_micros() as Micros >= deadline,
            _ => false,
        };
        let requests_min = self.record.plan.requests_min;
        Some(bench.rule(seconds, enough, requests_min, hangs))
    }

    fn follow(&mut self, ruling: Ruling) -> Option<Event> {
        let epoch = self.record.epoch;
        match ruling {
            Ruling::Undecided => None,
            Ruling::Pass => Some(Event::Pass { epoch }),
            Ruling::Fail(cause, why) => {
                self.blame = cause;
                Some(Event::Fail { epoch, why })
            }
        }
    }

    /// Why it goes back, if it does.
    fn cause(&self, event: &Event) -> Cause {
        match (event, self.record.phase.name()) {
            (Event::Fail { .. }, _) => self.blame,
            (Event::Abort | Event::Accept, _) => Cause::Operator,
            (Event::PrepareFailed(_), _) | (Event::Tick, Name::Preparing) => Cause::Prepare,
            (Event::GateFailed(_), _) | (Event::Tick, Name::Gate) => Cause::Gate,
            _ => Cause::NoVerdict,
        }
    }

    fn is_judged(&self) -> bool {
        matches!(
            self.record.phase.name(),
            Name::Canary | Name::Switched | Name::Bake
        )
    }

    /// Part of the tenants on the new colour.
    fn share(&self) -> u16 {
        let canary = self.record.routing.canary.as_ref();
        canary.map_or(WHOLE, |canary| canary.share)
    }
}

/// Writes a record down; when it was on disk.
async fn append(
    ledger: &Ledger,
    cluster: &str,
    expected: u64,
    entry: NewEntry,
) -> Result<Instant, StoreError> {
    let mut pause = Duration::from_millis(20);
    for left in (0..APPENDS).rev() {
        match ledger
            .0
            .append_timed(cluster, expected, entry.clone())
            .await
        {
            Ok((_, durable_at)) => return Ok(durable_at),
            Err(StoreError::Unavailable(_)) if left > 0 => {
                tokio::time::sleep(pause).await;
                pause *= 3;
            }
            Err(error) => return Err(error),
        }
    }
    unreachable!("the last try returns")
}

fn answer(answers: &Answers, cluster: &str, event: Event, tasks: &mut JoinSet<()>) {
    let (answers, cluster) = (answers.clone(), cluster.to_owned());
    tasks.spawn(async move { send(&answers, cluster, event).await });
}

async fn send(answers: &Answers, cluster: String, event: Event) {
    let message = Message {
        cluster,
        event,
        of: Some(answers.rollout),
        reply: None,
    };
    // The driver ends with the process.
    let _ended = answers.to.send(message).await;
}

fn why(phase: &Phase) -> Option<&str> {
    match phase {
        Phase::RollingBack { why, .. } | Phase::RolledBack { why } | Phase::Frozen { why } => {
            Some(why)
        }
        _ => None,
    }
}

/// The colour is there to be rolled out. What can be known of it without asking it belongs here: its
/// endpoints, the schema that it needs.
fn prepared(hub: &Hub, cluster: &str, colour: Colour) -> Result<(), String> {
    let snapshot = hub.snapshot();
    let index = index_of(&snapshot, cluster)?;
    if snapshot.clusters.endpoints(index, colour).is_empty() {
        let colour = colour_name(colour);
        return Err(format!(
            "cluster {cluster:?} has no {colour} endpoint; add some to endpoints.{colour} and reload"
        ));
    }
    Ok(())
}

fn index_of(snapshot: &crate::snapshot::Snapshot, cluster: &str) -> Result<usize, String> {
    let mut clusters = snapshot.config.clusters.iter();
    clusters
        .position(|one| one.name == cluster)
        .ok_or_else(|| format!("cluster {cluster:?} was removed from the configuration"))
}

/// Whether the gate opens; counts what kept it shut.
async fn pass_gate(
    hub: &Hub,
    errands: &Errands,
    migrations: &dyn MigrationLedger,
    cluster: &str,
    colour: Colour,
) -> Result<(), String> {
    // It may have changed since it was looked up.
    prepared(hub, cluster, colour)?;
    let snapshot = hub.snapshot();
    let target = Target {
        cluster: index_of(&snapshot, cluster)?,
        colour,
    };
    let failed = match gate::gate(&snapshot, errands, target).await {
        Ok(()) => admission::admit(hub, migrations, cluster, colour, Documents::Read)
            .await
            .map_err(|why| Check::Schema.failed(why)),
        failed => failed,
    };
    failed.map_err(|failed| {
        hub.rollouts.gate_failed(cluster, failed.check);
        failed.why
    })
}

/// Tenants who have the colour as their own in this cluster.
fn kept_on(hub: &Hub, cluster: &str, colour: Colour) -> usize {
    let snapshot = hub.snapshot();
    let Ok(index) = index_of(&snapshot, cluster) else {
        return 0;
    };
    let overlays = snapshot.config.tenants.iter();
    overlays
        .filter_map(|(_, tenant)| tenant.overlay.as_ref())
        .filter(|overlay| overlay.colour(index) == Some(colour))
        .count()
}

/// Waits for a colour's last request, then closes its connections. Ends early where the colour is asked for
/// again.
async fn release(hub: Arc<Hub>, errands: Errands, cluster: String, colour: Colour) {
    hub.switchboard.drained(&cluster, colour).await;
    let mut look = tokio::time::interval(TICK);
    loop {
        look.tick().await;
        let Some(present) = hub.switchboard.present(&cluster) else {
            return;
        };
        if present.routing.reaches(colour) || present.is_watched() {
            return;
        }
        // Requests that fell back to it end as well.
        if hub.switchboard.on(&cluster, colour) == 0 {
            break;
        }
    }
    let kept = kept_on(&hub, &cluster, colour);
    if kept > 0 {
        tracing::warn!(
            cluster,
            colour = colour_name(colour),
            tenants = kept,
            "the colour is not released: tenants have it as their own (`colours`)"
        );
        return;
    }
    errands.close_pooled(&cluster, colour).await;
    tracing::info!(
        cluster,
        colour = colour_name(colour),
        "the colour is released: no request is on it, and its connections are closed"
    );
}
