//! Reload: parse, check, build beside the running configuration, diff, swap.
//!
//! One thread decides, one reload at a time; all that takes long, which is everything up to the swap and
//! the freeing of what was, another one does at the lowest priority, so that the data plane keeps the
//! processors. A reload that fails at any step changes nothing.

mod prepare;
mod queue;
mod worker;

pub(crate) use queue::HeldReloads;

use super::stamps::Stamps;
use crate::hub::Hub;
use crate::snapshot::Snapshot;
use crate::switch::fence::GuardedLedger;
use crate::telemetry::ReloadOutcome;
use hub_config::{Diff, Loader, Problems, runtime};
use hub_plugins::Catalog;
use queue::{Batch, Job, QUEUE, Queue};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::oneshot;
use worker::Worker;

/// Problems that the log names; the answer to whoever asked has all of them.
const PROBLEMS_LOGGED: usize = 10;

/// Who asked for a reload; a field of the log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A watched file changed.
    FileChange,
    /// SIGHUP.
    Signal,
    /// The admin API.
    Admin,
}

/// How a reload ended.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The new configuration is in force.
    Applied {
        /// Epoch of the new snapshot.
        epoch: u64,
        /// Its hash.
        hash: String,
        /// What changed.
        diff: Diff,
        /// Milliseconds from reading the file to the swap.
        took_ms: u64,
    },
    /// Files and what they refer to are as they were.
    Unchanged {
        /// Hash of the snapshot in force.
        hash: String,
    },
    /// It would be applied; asked for by a dry run.
    WouldApply {
        /// What would change.
        diff: Diff,
    },
    /// Nothing was changed, because the files hold mistakes.
    Rejected {
        /// Every mistake, with its place and what to do.
        problems: Vec<String>,
    },
    /// Nothing was changed, because a running process cannot change these.
    NeedsUpgrade {
        /// Which settings.
        settings: Vec<String>,
        /// What would change in all.
        diff: Diff,
    },
}

impl Outcome {
    /// What the metric counts; a dry run is not counted.
    fn counted(&self) -> Option<ReloadOutcome> {
        match self {
            Self::Applied { .. } => Some(ReloadOutcome::Applied),
            Self::Unchanged { .. } => Some(ReloadOutcome::Unchanged),
            Self::WouldApply { .. } => None,
            Self::Rejected { .. } => Some(ReloadOutcome::Rejected),
            Self::NeedsUpgrade { .. } => Some(ReloadOutcome::NeedsUpgrade),
        }
    }

    /// As scripts and logs read it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::Unchanged { .. } => "unchanged",
            Self::WouldApply { .. } => "would_apply",
            Self::Rejected { .. } => "rejected",
            Self::NeedsUpgrade { .. } => "needs_upgrade",
        }
    }
}

/// What a reload may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Only say what would change.
    pub dry_run: bool,
    /// Let the directory lose any number of its tenants.
    pub allow_removals: bool,
}

/// Asks the reload thread for reloads.
#[derive(Clone, Debug)]
pub struct Reloader {
    queue: Arc<Queue>,
}

/// The ledger of migrations, and where to ask it.
#[derive(Debug)]
struct Fence {
    runtime: tokio::runtime::Handle,
    ledger: GuardedLedger,
}

/// The reload thread cannot take the request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// The queue is full.
    #[error("too many reloads are waiting; try again when they are done")]
    Busy,
    /// Another process may be about to serve, by the files as they are.
    #[error("an upgrade of the gateway is under way; reload again when it is over")]
    Upgrading,
}

impl Reloader {
    /// Starts the reload thread. `began` is when the process began to read the configuration in force.
    pub fn start(
        hub: Arc<Hub>,
        file: PathBuf,
        runtime: tokio::runtime::Handle,
        began: SystemTime,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let snapshot = hub.snapshot();
        let files = prepare::files(&file, &snapshot.config);
        *queue.read.lock() = Stamps::default().read_since(began, &files);
        let worker = Worker::new(hub, file, runtime, Arc::clone(&queue))?;
        std::thread::Builder::new()
            .name("reload".into())
            .spawn(move || worker.run())?;
        Ok(Self { queue })
    }

    /// Asks for a reload and does not wait. One that was asked for and has not begun stands for this
    /// one, too: it will read the newest files.
    pub fn nudge(&self, trigger: Trigger) {
        self.queue.asked.lock().nudge.get_or_insert(trigger);
        self.queue.wake.notify_one();
    }

    /// From now on no reload brings a colour into use that cannot run on its databases. `runtime` is where
    /// the ledger is asked.
    pub(crate) fn guard(&self, runtime: tokio::runtime::Handle, ledger: GuardedLedger) {
        // It is said once, when the driver of rollouts starts.
        let _said = self.queue.fence.set(Fence { runtime, ledger });
    }

    /// Lets the reload that is at work end, and none begin. Nudges wait; who would wait for an outcome is told
    /// to come again.
    pub(crate) async fn hold(&self) -> HeldReloads {
        HeldReloads::hold(&self.queue).await
    }

    /// Has a snapshot freed that is no longer in force, once nobody holds it.
    pub(crate) fn retire(&self, snapshot: Arc<Snapshot>) {
        self.queue.asked.lock().retired.push(snapshot);
        self.queue.wake.notify_one();
    }

    /// Reloads, or only says what a reload would do, and waits for the outcome.
    pub async fn reload(&self, trigger: Trigger, options: Options) -> Result<Outcome, NotNow> {
        let (done, outcome) = oneshot::channel();
        {
            let mut asked = self.queue.asked.lock();
            if asked.held {
                return Err(NotNow::Upgrading);
            }
            if asked.jobs.len() == QUEUE {
                return Err(NotNow::Busy);
            }
            asked.jobs.push(Job {
                trigger,
                options,
                done,
            });
        }
        self.queue.wake.notify_one();
        // It is dropped where another process has taken over.
        outcome.await.map_err(|_| NotNow::Upgrading)
    }

    /// Every file of the last load, good or not, as that load read it.
    pub(super) fn files_read(&self) -> Stamps {
        self.queue.read.lock().clone()
    }
}

/// Reads and checks a configuration file with the process's own environment, to start with or to follow
/// `running`.
///
/// # Errors
/// Every mistake in it.
pub fn load(
    file: &Path,
    running: Option<&runtime::Config>,
    allow_removals: bool,
) -> Result<runtime::Config, Problems> {
    let catalog = Catalog::new(file.parent().unwrap_or(Path::new("")));
    let env = |name: &str| std::env::var(name).ok();
    let mut loader = Loader::new(&catalog, &env).allow_removals(allow_removals);
    if let Some(running) = running {
        loader = loader.after(running);
    }
    loader.load(file)
}

/// Puts into the log what the load found worth telling.
pub(crate) fn tell_warnings(config: &runtime::Config) {
    for warning in &config.warnings {
        tracing::warn!(file = %warning.file.display(), line = warning.line, at = warning.at, "{}", warning.message);
    }
}

/// Tells log, metrics and audit trail of an outcome.
fn report(hub: &Hub, batch: &Batch, outcome: &Outcome) {
    audit(hub, batch, outcome);
    let trigger = match batch.trigger() {
        Trigger::FileChange => "file_change",
        Trigger::Signal => "signal",
        Trigger::Admin => "admin",
    };
    if batch.options.dry_run {
        tracing::info!(trigger, outcome = outcome.label(), "a reload was tried out");
        return;
    }
    if let Some(outcome) = outcome.counted() {
        hub.metrics.reloaded(outcome);
    }
    match outcome {
        Outcome::Applied {
            epoch,
            hash,
            diff,
            took_ms,
        } => tracing::info!(
            trigger,
            epoch,
            %hash,
            changes = diff.changes.len(),
            took_ms,
            "a new configuration is in force"
        ),
        Outcome::Unchanged { .. } | Outcome::WouldApply { .. } => {
            tracing::debug!(trigger, "nothing changed");
        }
        Outcome::Rejected { problems } => tracing::error!(
            trigger,
            problems = problems[..problems.len().min(PROBLEMS_LOGGED)].join("; "),
            more_problems = problems.len().saturating_sub(PROBLEMS_LOGGED),
            "the new configuration was rejected; the old one stays in force"
        ),
        Outcome::NeedsUpgrade { settings, .. } => tracing::error!(
            trigger,
            code = "needs_upgrade",
            settings = settings.join(", "),
            "the new configuration was rejected, because a running process cannot change these settings; `hubctl upgrade` starts one that has them"
        ),
    }
}

/// A line for each operator who asked. Written here and not where the caller is answered, who may have
/// gone by now: what was done was asked for all the same.
fn audit(hub: &Hub, batch: &Batch, outcome: &Outcome) {
    let action = action(batch.options.dry_run);
    let detail = serde_json::json!({"outcome": outcome.label()});
    let asked = batch.jobs.iter();
    for _ in asked.filter(|job| job.trigger == Trigger::Admin) {
        super::audit::write(&hub.snapshot().config.admin, "admin", action, &detail);
    }
}

/// As the audit trail names it.
pub(super) fn action(dry_run: bool) -> &'static str {
    if dry_run { "reload_dry_run" } else { "reload" }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
