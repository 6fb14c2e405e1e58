//! Well-behaved sessions: messages are due at a fixed rate, whatever became of those before them.
//!
//! Latency counts from when a message was **due** until its echo is there, so a stall shows in every message
//! that it delays.
//!
//! Invariant: at most [`WAITING_MAX`] messages of a session wait for it or for their echo; more are not sent,
//! and counted.

use super::client::{Client, Fault, Message};
use crate::pacer::{Due, Pacer};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Messages that one session has waiting.
const WAITING_MAX: usize = 64;
/// A message that is sent longer than this after it was due counts as late.
const LATE_AFTER: Duration = Duration::from_millis(10);

/// Sessions that send. Ends with this value.
#[derive(Debug)]
pub(super) struct Steady {
    pacer: Pacer,
    record: Arc<Mutex<Record>>,
    _tasks: JoinSet<()>,
}

/// What came of the messages since the last look.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// From due to echo, in microseconds, in the order in which the echoes came.
    pub(super) took_us: Vec<f64>,
    /// Sent later than 10 ms after they were due.
    pub(super) late: u64,
    /// Never sent, because too many waited.
    pub(super) unsent: u64,
    /// Sessions that failed, in words.
    pub(super) faults: BTreeMap<String, u64>,
}

// === impl Steady ===

impl Steady {
    /// Sends `rate` messages a second, above 0, over the sessions in turn.
    pub(super) fn start(clients: Vec<Client<TcpStream>>, message: Message, rate: f64) -> Self {
        let (pacer, queue) = Pacer::start(rate, 16 * WAITING_MAX);
        let record = Arc::new(Mutex::new(Record::default()));
        let message = Arc::new(message);
        let mut tasks = JoinSet::new();
        let mut sessions = Vec::with_capacity(clients.len());
        for client in clients {
            let (due, own) = mpsc::channel(WAITING_MAX);
            sessions.push(due);
            let (message, record) = (Arc::clone(&message), Arc::clone(&record));
            tasks.spawn(async move {
                let Err(fault) = talk(client, own, &message, &record).await else {
                    return;
                };
                *lock(&record).faults.entry(fault.to_string()).or_default() += 1;
            });
        }
        tasks.spawn(hand_out(queue, sessions, Arc::clone(&record)));
        Self {
            pacer,
            record,
            _tasks: tasks,
        }
    }

    /// What came of messages since the last call.
    pub(super) fn take(&self) -> Record {
        std::mem::take(&mut *lock(&self.record))
    }

    /// Messages that the machine was too slow to hand out, since the start.
    pub(super) fn missed(&self) -> u64 {
        self.pacer.missed()
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn hand_out(
    mut queue: mpsc::Receiver<Due>,
    sessions: Vec<mpsc::Sender<Instant>>,
    record: Arc<Mutex<Record>>,
) {
    while let Some((number, due)) = queue.recv().await {
        let at = usize::try_from(number).unwrap_or(0) % sessions.len();
        if sessions[at].try_send(due).is_err() {
            lock(&record).unsent += 1;
        }
    }
}

/// Sends what is due and takes the echoes, until nothing becomes due any more.
async fn talk(
    mut client: Client<TcpStream>,
    mut queue: mpsc::Receiver<Instant>,
    message: &Message,
    record: &Mutex<Record>,
) -> Result<(), Fault> {
    let mut sent: VecDeque<Instant> = VecDeque::new();
    loop {
        tokio::select! {
            due = queue.recv(), if sent.len() < WAITING_MAX => {
                let Some(due) = due else { return Ok(()) };
                if due.elapsed() > LATE_AFTER {
                    lock(record).late += 1;
                }
                client.say(message).await?;
                sent.push_back(due);
            }
            heard = client.hear(message) => {
                heard?;
                let due = sent.pop_front().ok_or(Fault::Wrong)?;
                lock(record).took_us.push(due.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::connect;
    use super::super::{frame, origin};
    use super::*;

    #[tokio::test]
    async fn every_message_that_is_due_is_sent_and_its_echo_recorded() {
        let address = origin::started().await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let stream = connect(address, None).await.unwrap();
            clients.push(Client::open(stream, "/").await.unwrap());
        }
        let steady = Steady::start(clients, Message::new(frame::TEXT, 64), 500.0);
        let mut seen = 0;
        let deadline = Instant::now() + Duration::from_secs(20);
        while seen < 50 && Instant::now() < deadline {
            tokio::task::yield_now().await;
            let record = steady.take();
            assert_eq!((record.unsent, record.faults.len()), (0, 0));
            seen += record.took_us.len();
        }
        assert!(seen >= 50, "{seen}");
    }
}
