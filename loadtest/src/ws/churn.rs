//! Sessions that come, exchange some messages, and leave in one of several ways.
//!
//! Invariant: at most [`LIVE_MAX`] live at a time; one that is due while so many do does not come, and is counted.

use super::client::{Client, Fault, Message, connect};
use super::contestant::source;
use super::frame;
use crate::pacer::{Due, Pacer};
use hub_testkit::load::spread;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// See the invariant.
const LIVE_MAX: usize = 4_000;
/// Sessions that may wait for the client to take them on.
const WAITING_MAX: usize = 1_024;
/// Messages that a session exchanges at most; at least one.
const MESSAGES_MAX: u64 = 20;
/// Longest life of a session, over which its messages are spread.
const LIFE_MAX_MS: u64 = 10_000;
/// Payloads, drawn evenly.
const BYTES: [usize; 4] = [16, 200, 4_096, 70_000];
/// Addresses that the sessions come from, in blocks of 500 numbers.
const SOURCES: usize = 20 * 500;
/// Ways to fail that are told apart.
const WORDS_MAX: usize = 64;

/// How a session leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Leave {
    /// With Close, and waits for the answer.
    Close,
    /// The connection ends without Close.
    Drop,
    /// The same with a reset.
    Reset,
    /// Sends nothing more, and waits until the other side has ended.
    HalfClose,
    /// In the middle of a frame.
    MidFrame,
}

/// What came of the sessions.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Record {
    /// Sessions that left as they wanted, by the way in which they did.
    left: BTreeMap<Leave, u64>,
    messages: u64,
    /// Sessions that did not come, because too many lived.
    pub(super) unsent: u64,
    failures: BTreeMap<String, u64>,
}

/// Sessions that come and go. Dropped, no more come, and those that are there are forgotten.
#[derive(Debug)]
pub(super) struct Churn {
    pacer: Pacer,
    shared: Arc<Shared>,
    dispatcher: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    messages: Vec<Message>,
    places: Arc<Semaphore>,
    record: Mutex<Record>,
}

// === impl Record ===

impl Record {
    pub(super) fn left(&self) -> u64 {
        self.left.values().sum()
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

// === impl Churn ===

impl Churn {
    /// `rate` sessions a second, above 0.
    pub(super) fn start(address: SocketAddr, rate: f64) -> Self {
        let (pacer, queue) = Pacer::start(rate, WAITING_MAX);
        let shared = Arc::new(Shared {
            address,
            messages: BYTES.map(|bytes| Message::new(frame::TEXT, bytes)).into(),
            places: Arc::new(Semaphore::new(LIVE_MAX)),
            record: Mutex::default(),
        });
        let dispatcher = tokio::spawn(Arc::clone(&shared).dispatch(queue));
        Self {
            pacer,
            shared,
            dispatcher,
        }
    }

    /// Sessions that live.
    pub(super) fn live(&self) -> usize {
        LIVE_MAX - self.shared.places.available_permits()
    }

    /// Sessions that have left so far, and those that failed.
    pub(super) fn so_far(&self) -> (u64, u64) {
        let record = self.shared.record();
        (record.left(), record.failed())
    }

    /// No more come; waits for those that are there.
    pub(super) async fn stop(self) -> Record {
        self.pacer.stop();
        // It ends once the pacer does; an error would be its panic, which has been printed.
        self.dispatcher.await.ok();
        let all = u32::try_from(LIVE_MAX).unwrap_or(u32::MAX);
        // Never closed, so this waits for every session that holds a place.
        drop(self.shared.places.acquire_many(all).await);
        let mut record = self.shared.record().clone();
        record.unsent += self.pacer.missed();
        record
    }
}

// === impl Shared ===

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dispatch(self: Arc<Self>, mut queue: mpsc::Receiver<Due>) {
        while let Some((number, _)) = queue.recv().await {
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                self.record().unsent += 1;
                continue;
            };
            let shared = Arc::clone(&self);
            tokio::spawn(async move {
                let leave = Leave::draw(number);
                let lived = shared.live(number, leave).await;
                let mut record = shared.record();
                match lived {
                    Ok(()) => *record.left.entry(leave).or_default() += 1,
                    Err(fault) => {
                        let word = format!("{leave:?}: {fault}");
                        if record.failures.len() < WORDS_MAX || record.failures.contains_key(&word)
                        {
                            *record.failures.entry(word).or_default() += 1;
                        }
                    }
                }
                drop(record);
                drop(place);
            });
        }
    }

    /// One session from beginning to end. All of it follows from its number.
    async fn live(&self, number: u64, leave: Leave) -> Result<(), Fault> {
        let from = source(usize::try_from(number).unwrap_or(0) % SOURCES);
        let stream = connect(self.address, Some(from)).await?;
        let mut client = Client::open(stream, "/echo").await?;
        let draw = |what: u64, below: u64| spread(spread(number) ^ what) % below;
        let count = 1 + draw(1, MESSAGES_MAX);
        let pause = Duration::from_millis(draw(2, LIFE_MAX_MS) / count);
        for message in 0..count {
            let size = draw(3 + message, self.messages.len() as u64);
            client.echo(&self.messages[size as usize]).await?;
            self.record().messages += 1;
            tokio::time::sleep(pause).await;
        }
        match leave {
            Leave::Close => client.close().await,
            Leave::HalfClose => client.half_close().await,
            Leave::Drop => Ok(()),
            Leave::Reset => {
                let stream = client.into_stream();
                stream.set_zero_linger().map_err(|_| Fault::Broken)
            }
            Leave::MidFrame => {
                let whole = frame::client_frame(true, frame::BINARY, &[0; 100]);
                client.send(&whole[..50]).await
            }
        }
    }
}

// === impl Leave ===

impl Leave {
    const ALL: [Self; 5] = [
        Self::Close,
        Self::Drop,
        Self::Reset,
        Self::HalfClose,
        Self::MidFrame,
    ];

    fn draw(number: u64) -> Self {
        let at = spread(number ^ 0x5EED) % Self::ALL.len() as u64;
        Self::ALL[at as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::super::origin;
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn sessions_leave_in_every_way_and_none_is_left() {
        let churn = Churn::start(origin::started().await, 200.0);
        let deadline = Instant::now() + Duration::from_secs(30);
        // What was drawn for the first ones is over within a second or two.
        while churn.shared.record().left.len() < Leave::ALL.len() {
            assert!(Instant::now() < deadline, "{:?}", churn.shared.record());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (left, failed) = churn.so_far();
        assert!(left >= 5 && failed == 0 && churn.live() > 0);
        let record = churn.stop().await;
        assert_eq!((record.failed(), record.unsent), (0, 0), "{record:?}");
        assert!(record.left() >= left && record.messages >= record.left());
    }
}
