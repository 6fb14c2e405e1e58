//! The tasks that check endpoints, one each.
//!
//! They belong to no snapshot: a retired one may be held for days by a WebSocket, and must neither keep
//! checks of endpoints that are gone nor stop those of endpoints that are not. So all generations of
//! [`super::Clusters`] share one [`Checks`], and each reload compares what runs with what is wanted.

use super::endpoint::Endpoint;
use super::health::{Health, Thresholds, Transition};
use super::probe::{self, Tls};
use hub_config::runtime::{self, HealthProbe, UpstreamTls};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

/// Most checks under way at a time, and so most sockets that checks use. Further ones wait their turn.
const CHECKS_MAX: usize = 256;

/// First checks are spread over this long (or one interval, if that is less), and not over a whole
/// interval, which may be an hour.
const START_SPREAD: Duration = Duration::from_secs(1);

/// All running checks of the process.
#[derive(Debug)]
pub(super) struct Checks {
    state: Mutex<State>,
    slots: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    /// By address of the endpoint in memory, which stays taken while the entry holds it.
    running: HashMap<usize, Running>,
    /// Number of the last check that was started.
    last: u64,
}

/// How an endpoint is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) probe: HealthProbe,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) thresholds: Thresholds,
    pub(super) tls: Option<TlsSettings>,
}

/// Whom to trust, and under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TlsSettings {
    pub(super) server_name: String,
    /// DER; `None` for the system's.
    pub(super) authorities: Option<Arc<Vec<Vec<u8>>>>,
}

/// A check that should be running.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check<'c> {
    pub(super) cluster: &'c str,
    pub(super) colour: &'static str,
    pub(super) endpoint: &'c Arc<Endpoint>,
    pub(super) settings: &'c Arc<Settings>,
}

/// A check that is running; it stops when this is dropped.
#[derive(Debug)]
struct Running {
    endpoint: Arc<Endpoint>,
    settings: Arc<Settings>,
    task: AbortHandle,
}

// === impl Settings ===

impl Settings {
    /// How an endpoint of the cluster is looked at outside of running checks: as they do, or by
    /// connecting where there are none.
    pub(super) fn of(cluster: &runtime::Cluster) -> Self {
        let tls = cluster.tls.as_ref();
        match &cluster.health {
            Some(health) => Self::new(health, tls),
            None => Self {
                probe: HealthProbe::Tcp,
                interval: cluster.connect_timeout,
                timeout: cluster.connect_timeout,
                thresholds: Thresholds {
                    healthy_after: 1,
                    unhealthy_after: 1,
                },
                tls: TlsSettings::of(tls),
            },
        }
    }

    pub(super) fn new(health: &runtime::Health, tls: Option<&UpstreamTls>) -> Self {
        Self {
            probe: health.probe.clone(),
            interval: health.interval,
            timeout: health.timeout,
            thresholds: Thresholds {
                healthy_after: health.healthy_after,
                unhealthy_after: health.unhealthy_after,
            },
            tls: TlsSettings::of(tls),
        }
    }
}

impl TlsSettings {
    fn of(tls: Option<&UpstreamTls>) -> Option<Self> {
        tls.map(|tls| Self {
            server_name: tls.server_name.clone(),
            authorities: tls.authorities.clone(),
        })
    }
}

/// Checks an endpoint once, outside of the running checks.
pub(super) async fn once(endpoint: &Endpoint, settings: &Settings) -> Result<(), String> {
    let tls = settings.tls.clone();
    // May read the system's certificate store.
    let tls = tokio::task::spawn_blocking(move || tls.map(|tls| probe::Trust::default().tls(&tls)));
    let tls = tls.await.map_err(|error| error.to_string())?;
    let check = probe::probe(endpoint, &settings.probe, tls.as_ref());
    match tokio::time::timeout(settings.timeout, check).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!(
            "no result within {} ms",
            settings.timeout.as_millis()
        )),
    }
}

// === impl Checks ===

impl Default for Checks {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            slots: Arc::new(Semaphore::new(CHECKS_MAX)),
        }
    }
}

impl Checks {
    /// Makes the running checks those that are wanted. Whoever is wanted with the settings it has is
    /// left alone, so that reloads do not shift its rhythm or forget its count.
    pub(super) fn replace<'c>(&self, wanted: impl Iterator<Item = Check<'c>>, runtime: &Handle) {
        let mut state = self.state.lock();
        let mut before = std::mem::take(&mut state.running);
        let mut trust = probe::Trust::default();
        for check in wanted {
            let key = Arc::as_ptr(check.endpoint).addr();
            let old = match before.remove(&key) {
                Some(old) if old.settings == *check.settings => {
                    state.running.insert(key, old);
                    continue;
                }
                other => other,
            };
            state.last += 1;
            // Before the old one is stopped, so that a result it has in hand is not taken for one of
            // the new settings.
            check.endpoint.begin_checks(state.last);
            drop(old);
            let task = Task {
                cluster: check.cluster.to_owned(),
                colour: check.colour,
                endpoint: Arc::clone(check.endpoint),
                settings: Arc::clone(check.settings),
                number: state.last,
                tls: check.settings.tls.as_ref().map(|tls| trust.tls(tls)),
                slots: Arc::clone(&self.slots),
            };
            let running = Running {
                endpoint: Arc::clone(check.endpoint),
                settings: Arc::clone(check.settings),
                task: runtime.spawn(task.run()).abort_handle(),
            };
            state.running.insert(key, running);
        }
        for gone in before.into_values() {
            gone.endpoint.end_checks();
        }
    }

    /// Number of endpoints under check.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.state.lock().running.len()
    }
}

// === impl Running ===

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One endpoint's check.
struct Task {
    cluster: String,
    colour: &'static str,
    endpoint: Arc<Endpoint>,
    settings: Arc<Settings>,
    number: u64,
    tls: Option<Result<Tls, String>>,
    slots: Arc<Semaphore>,
}

impl Task {
    async fn run(self) {
        let spread = self.settings.interval.min(START_SPREAD);
        tokio::time::sleep(spread.mul_f64(rand::random())).await;
        loop {
            let outcome = self.check().await;
            let error = outcome.as_ref().err().cloned();
            let now = SystemTime::now();
            let thresholds = self.settings.thresholds;
            if let Some(transition) = self.endpoint.report(self.number, outcome, thresholds, now) {
                self.log(transition, error.as_deref());
            }
            // A tenth to either side, so that checks that once met do not go on in step.
            let pause = self
                .settings
                .interval
                .mul_f64(0.9 + 0.2 * rand::random::<f64>());
            tokio::time::sleep(pause).await;
        }
    }

    async fn check(&self) -> Result<(), String> {
        let slot = self.slots.acquire().await;
        let _slot = slot.expect("the semaphore is never closed");
        let check = probe::probe(&self.endpoint, &self.settings.probe, self.tls.as_ref());
        match tokio::time::timeout(self.settings.timeout, check).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!(
                "no result within {} ms",
                self.settings.timeout.as_millis()
            )),
        }
    }

    fn log(&self, transition: Transition, error: Option<&str>) {
        let (cluster, colour) = (self.cluster.as_str(), self.colour);
        let (endpoint, before) = (self.endpoint.name(), transition.from.as_str());
        match transition.to {
            Health::Unhealthy => tracing::warn!(
                cluster,
                colour,
                endpoint,
                before,
                error,
                "the endpoint is unhealthy and takes no more requests while others do"
            ),
            Health::Unknown | Health::Healthy => {
                tracing::info!(cluster, colour, endpoint, before, "the endpoint is healthy");
            }
        }
    }
}
