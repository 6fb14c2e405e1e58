//! The open-loop client of the rollout benches: requests of many kinds are due on a schedule,
//! whatever the server does with those before them.
//!
//! ```text
//! let load = Load::start(Settings::new(target, tenants));
//! ... what is to be measured ...
//! let record = load.stop().await;
//! assert_eq!(record.failed(), 0);
//! ```
//!
//! Latency counts from when a request was **due**, so a stall shows in every request that it delays.
//! A slow answer holds nobody up: each request has a task of its own, and connections are made as
//! they are needed.
//!
//! Invariant: at most [`Settings::in_flight_max`] requests are in flight; a request that is due while
//! so many are is not sent, and counted as unsent.
//! Invariant: every request that was sent is recorded with exactly one [`Outcome`].

mod check;
mod http1;
mod http2;
mod payload;
mod record;
mod request;

pub(crate) use http2::HOST;
pub(crate) use payload::{Payloads, digest_line};
pub(crate) use record::{Outcome, Record, percentile};
pub(crate) use request::{Kind, Mix};

use crate::pacer::{Due, Pacer};
use http1::Pool;
use http2::Lanes;
use record::Answer;
use request::Request;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// A request that is sent longer than this after it was due counts as late.
const LATE_AFTER: Duration = Duration::from_millis(10);

/// Bodies that are sent slowly, or are answered slowly, come in so many pieces, one after each pause.
pub(crate) const PIECES: usize = 8;
/// See [`PIECES`].
pub(crate) const PIECE_PAUSE: Duration = Duration::from_millis(100);

/// Where requests go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// A listener without TLS: HTTP/1.1 and WebSocket.
    pub(crate) plain: SocketAddr,
    /// A listener with TLS: HTTP/2, agreed on by ALPN.
    pub(crate) secure: SocketAddr,
    /// Whom to trust there; offers `h2` alone.
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

/// What a load consists of.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) target: Target,
    /// Ids that requests carry as `X-Location-Id`, drawn evenly.
    pub(crate) tenants: Vec<String>,
    pub(crate) mix: Mix,
    /// Requests a second; above 0.
    pub(crate) rate: f64,
    /// Most requests in flight. Default 4096.
    pub(crate) in_flight_max: usize,
    /// Longest wait for a whole answer, from when its request is sent. Default 10 s.
    pub(crate) timeout: Duration,
}

/// Requests are under way. Dropped, no more become due; those in flight are forgotten.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    pacer: Pacer,
    dispatcher: tokio::task::JoinHandle<()>,
}

/// What the requests of one load share.
struct Shared {
    settings: Settings,
    places: Arc<Semaphore>,
    payloads: Payloads,
    pool: Pool,
    lanes: Lanes,
    record: Mutex<Record>,
}

// === impl Settings ===

impl Settings {
    /// 1,100 requests a second of the whole mix.
    pub(crate) fn new(target: Target, tenants: Vec<String>) -> Self {
        Self {
            target,
            tenants,
            mix: Mix::switch(),
            rate: 1_100.0,
            in_flight_max: 4_096,
            timeout: Duration::from_secs(10),
        }
    }
}

// === impl Load ===

impl Load {
    /// Starts on the current runtime.
    pub(crate) fn start(settings: Settings) -> Self {
        let (pacer, queue) = Pacer::start(settings.rate, settings.in_flight_max);
        let shared = Arc::new(Shared {
            places: Arc::new(Semaphore::new(settings.in_flight_max)),
            payloads: Payloads::new(),
            pool: Pool::new(settings.target.plain),
            lanes: Lanes::new(&settings.target),
            record: Mutex::new(Record::new(pacer.began)),
            settings,
        });
        let dispatcher = tokio::spawn(Arc::clone(&shared).dispatch(queue));
        Self {
            shared,
            pacer,
            dispatcher,
        }
    }

    /// When the first request was due; what a record counts from.
    pub(crate) fn began(&self) -> Instant {
        self.pacer.began
    }

    /// Requests that have ended so far, and those of them that failed.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        let record = self.shared.record();
        (record.ended(), record.failed())
    }

    /// No more requests become due; waits for those in flight, at most the timeout of a request.
    pub(crate) async fn stop(mut self) -> Record {
        self.pacer.stop();
        // It ends once the pacer does; an error would be its panic, which has been printed.
        (&mut self.dispatcher).await.ok();
        let all = u32::try_from(self.shared.settings.in_flight_max).unwrap_or(u32::MAX);
        // Never closed, so this waits for every request that holds a place.
        drop(self.shared.places.acquire_many(all).await);
        let mut record =
            std::mem::replace(&mut *self.shared.record(), Record::new(self.pacer.began));
        // Not taken over by the dispatcher, because it was held up for long.
        record.unsent += self.pacer.missed();
        record.resent = self.shared.lanes.resent();
        record.unasked = self.shared.pool.unasked();
        record
    }
}

// === impl Shared ===

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dispatch(self: Arc<Self>, mut queue: mpsc::Receiver<Due>) {
        while let Some((number, due)) = queue.recv().await {
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                self.record().unsent += 1;
                continue;
            };
            if due.elapsed() > LATE_AFTER {
                self.record().late += 1;
            }
            let shared = Arc::clone(&self);
            tokio::spawn(async move {
                shared.one(number, due).await;
                drop(place);
            });
        }
    }

    /// Sends one request and records what came of it.
    async fn one(&self, number: u64, due: Instant) {
        let settings = &self.settings;
        let request = Request::draw(number, &settings.mix, &settings.tenants);
        let answering = async {
            if request.kind.is_http2() {
                self.lanes.ask(&request, &self.payloads).await
            } else {
                self.pool.ask(&request, &self.payloads).await
            }
        };
        let answer = tokio::time::timeout(settings.timeout, answering)
            .await
            .unwrap_or_else(|_| Answer::failed(Outcome::Timeout));
        self.record().add(request.kind, due, due.elapsed(), &answer);
    }
}

#[cfg(test)]
mod tests;
