//! Reload: parse, check, build beside the running configuration, diff, swap.
//!
//! One thread does it all, one reload at a time, at a low priority, so that the data plane keeps the
//! processors. A reload that fails at any step changes nothing.

use crate::front::tls;
use crate::hub::Hub;
use crate::snapshot::Snapshot;
use crate::telemetry::ReloadOutcome;
use hub_config::{Diff, Loader, Problems, runtime};
use hub_plugins::Catalog;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, oneshot};

/// Reloads that may wait; more are told to try again. Each one reads the files as they are when its
/// turn comes, so one waiting reload already stands for all that were asked for before it.
const QUEUE: usize = 8;
/// How long the thread waits at most before it looks whether retired snapshots can be freed.
const SWEEP: Duration = Duration::from_millis(500);

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
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Only say what would change.
    pub dry_run: bool,
    /// Let the directory lose any number of its tenants.
    pub allow_removals: bool,
}

struct Job {
    trigger: Trigger,
    options: Options,
    done: Option<oneshot::Sender<Outcome>>,
}

/// Asks the reload thread for reloads.
#[derive(Clone, Debug)]
pub struct Reloader {
    jobs: mpsc::Sender<Job>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("trigger", &self.trigger)
            .finish_non_exhaustive()
    }
}

/// The reload thread cannot take the request now.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many reloads are waiting; try again when they are done")]
pub struct Busy;

impl Reloader {
    /// Starts the reload thread.
    pub fn start(
        hub: Arc<Hub>,
        file: PathBuf,
        runtime: tokio::runtime::Handle,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("reload".into())
            .spawn(move || {
                lower_priority();
                Worker {
                    hub,
                    file,
                    runtime,
                    retired: Vec::new(),
                }
                .run(queue);
            })?;
        Ok(Self { jobs })
    }

    /// Asks for a reload and does not wait. Where reloads wait already, one of them will see the
    /// change.
    pub fn nudge(&self, trigger: Trigger) {
        let job = Job {
            trigger,
            options: Options::default(),
            done: None,
        };
        if self.jobs.try_send(job).is_err() {
            tracing::debug!("a reload is waiting already; it will read the newest files");
        }
    }

    /// Reloads, or only says what a reload would do, and waits for the outcome.
    pub async fn reload(&self, trigger: Trigger, options: Options) -> Result<Outcome, Busy> {
        let (done, outcome) = oneshot::channel();
        self.jobs
            .try_send(Job {
                trigger,
                options,
                done: Some(done),
            })
            .map_err(|_| Busy)?;
        outcome.await.map_err(|_| Busy)
    }
}

struct Worker {
    hub: Arc<Hub>,
    file: PathBuf,
    runtime: tokio::runtime::Handle,
    /// Snapshots that requests may still hold. They are freed here, by this thread, so that no
    /// request pays for freeing one.
    retired: Vec<Arc<Snapshot>>,
}

impl Worker {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        loop {
            let job = if self.retired.is_empty() {
                queue.blocking_recv()
            } else {
                let wait = async { tokio::time::timeout(SWEEP, queue.recv()).await };
                match self.runtime.block_on(wait) {
                    Ok(job) => job,
                    Err(_) => {
                        self.sweep();
                        continue;
                    }
                }
            };
            let Some(job) = job else { return };
            let outcome = self.reload(job.options);
            report(&self.hub, job.trigger, job.options.dry_run, &outcome);
            if let Some(done) = job.done {
                // Whoever asked may have given up waiting; the outcome is in the log.
                let _asker_gone = done.send(outcome);
            }
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        self.retired
            .retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    fn reload(&mut self, options: Options) -> Outcome {
        let began = Instant::now();
        let current = self.hub.snapshot();
        let config = match load(&self.file, Some(&current.config), options.allow_removals) {
            Ok(config) => config,
            Err(problems) => {
                return Outcome::Rejected {
                    problems: problems.iter().map(ToString::to_string).collect(),
                };
            }
        };
        tell_warnings(&config);
        let diff = hub_config::diff(&current.config, &config);
        if !diff.needs_upgrade.is_empty() {
            return Outcome::NeedsUpgrade {
                settings: diff.needs_upgrade.clone(),
                diff,
            };
        }
        let certificates = match self.prepare_certificates(&config) {
            Ok(certificates) => certificates,
            Err(problem) => {
                return Outcome::Rejected {
                    problems: vec![problem],
                };
            }
        };
        if options.dry_run {
            return Outcome::WouldApply { diff };
        }
        for (listener, prepared) in certificates {
            if let Some(tls) = &self.hub.listeners[listener].tls {
                tls.commit(prepared);
            }
        }
        self.hub.publish_certificates();
        // The hash leaves secrets out, since it is shown; the difference knows of them.
        if config.hash == current.config.hash && diff.is_empty() {
            return Outcome::Unchanged { hash: config.hash };
        }
        let next = Arc::new(Snapshot::build(config, Some(&current), &self.hub));
        self.hub.limiter.resize(next.config.limiter_keys_max);
        let outcome = Outcome::Applied {
            epoch: next.epoch,
            hash: next.config.hash.clone(),
            diff,
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        next.clusters.start_health_checks(&self.runtime);
        drop(current);
        let old = self.hub.swap(Arc::clone(&next));
        self.hub.after_swap(&next);
        self.retired.push(old);
        outcome
    }

    /// Reads every listener's certificates, so that a bad one refuses the reload as a whole.
    fn prepare_certificates(
        &self,
        config: &runtime::Config,
    ) -> Result<Vec<(usize, tls::Prepared)>, String> {
        let mut prepared = Vec::new();
        for (index, settings) in self
            .hub
            .in_bound_order(&config.listeners)
            .iter()
            .enumerate()
        {
            let (Some(tls), Some(settings)) = (&self.hub.listeners[index].tls, &settings.tls)
            else {
                continue;
            };
            let certificates = tls.prepare(settings).map_err(|error| {
                self.hub.metrics.certificates_read("rejected");
                format!("listener `{}`: {error}", self.hub.listeners[index].name)
            })?;
            prepared.push((index, certificates));
        }
        Ok(prepared)
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

fn report(hub: &Hub, trigger: Trigger, dry_run: bool, outcome: &Outcome) {
    let trigger = match trigger {
        Trigger::FileChange => "file_change",
        Trigger::Signal => "signal",
        Trigger::Admin => "admin",
    };
    if dry_run {
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
            problems = problems.join("; "),
            "the new configuration was rejected; the old one stays in force"
        ),
        Outcome::NeedsUpgrade { settings, .. } => tracing::error!(
            trigger,
            code = "needs_upgrade",
            settings = settings.join(", "),
            "the new configuration was rejected, because a running process cannot change these settings; restart or upgrade the process"
        ),
    }
}

/// Lets the data plane go first. The reload still finishes; on an idle machine as fast as ever.
fn lower_priority() {
    // On Linux a nice value belongs to the thread. Not being allowed to is no reason not to reload.
    if let Err(error) = rustix::process::setpriority_process(None, 10) {
        tracing::warn!(%error, "the reload thread keeps its priority");
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
