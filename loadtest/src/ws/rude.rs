//! Peers that behave badly, on a thread of their own so that they cannot hold up the well-behaved ones inside
//! the client.
//!
//! Each has a fixed budget, and comes again when it was closed. What a proxy does about them is counted.

use super::client::{Client, Fault, connect, connect_with};
use super::contestant::source;
use super::frame;
use serde::Serialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Between two bursts of a peer.
const PAUSE: Duration = Duration::from_millis(10);
/// Frames in a burst: 10,000 a second for each peer that sends bursts.
const BURST: usize = 100;
/// Frames of a message that comes byte by byte.
const FRAGMENTS: usize = 1_000;
/// What a slow reader takes, how often, and how many times before it drops the connection in the middle of
/// a message.
const SIP_BYTES: usize = 1 << 10;
const SIP_PAUSE: Duration = Duration::from_millis(250);
const SIPS: usize = 8;
/// Between two connections of a peer that comes and goes.
const VISIT_PAUSE: Duration = Duration::from_millis(100);
/// How long a peer waits after it was closed or refused.
const RETURN: Duration = Duration::from_millis(100);
/// Where peers' source addresses begin: none is shared with the others.
const FIRST_SOURCE: usize = 20_000;
/// Words for what happened to peers that are told apart.
const WORDS_MAX: usize = 64;

/// How a peer behaves.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Connects, shakes hands, sends half of a frame, and drops the connection.
    ComesAndGoes,
    /// Pings of the largest size.
    Pings,
    /// Messages of 1-byte frames.
    Fragments,
    /// Large messages come, and are taken slowly, for a while.
    ReadsSlowly,
}

/// What the peers have done.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Deeds {
    sessions_opened: u64,
    connections_dropped: u64,
    pings: u64,
    fragments: u64,
    /// Of large messages.
    bytes_taken_slowly: u64,
    /// How sessions ended that the peer would have kept, or were refused.
    ends: BTreeMap<String, u64>,
}

impl Deeds {
    /// Peers of every kind did something.
    pub(super) fn are_hostile(&self) -> bool {
        let deeds = [
            self.connections_dropped,
            self.pings,
            self.fragments,
            self.bytes_taken_slowly,
        ];
        deeds.iter().all(|count| *count > 0)
    }
}

/// Peers at work. They end with this value.
#[derive(Debug)]
pub(super) struct Rude {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    deeds: Arc<Mutex<Deeds>>,
}

// === impl Rude ===

impl Rude {
    /// Starts `count` peers: half of them come and go, the others do the rest in turn. Their paths are below
    /// `/NAME`.
    pub(super) fn start(address: SocketAddr, name: &str, count: usize) -> Self {
        let deeds = Arc::new(Mutex::new(Deeds::default()));
        let (stop, stopped) = oneshot::channel();
        let (own, name) = (Arc::clone(&deeds), name.to_owned());
        // It takes the CPU of the thread that starts it.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let mut peers = JoinSet::new();
                for number in 0..count {
                    let peer = Peer {
                        number,
                        address,
                        name: name.clone(),
                        deeds: Arc::clone(&own),
                    };
                    peers.spawn(peer.run());
                }
                // An error means that whoever would stop them is gone, which is the same.
                stopped.await.ok();
            });
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
            deeds,
        }
    }

    /// Ends them; what they have done.
    pub(super) fn stop(mut self) -> Deeds {
        self.end();
        let deeds = self.deeds.lock().unwrap_or_else(PoisonError::into_inner);
        deeds.clone()
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // An error would be its panic, which has been printed.
            thread.join().ok();
        }
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        self.end();
    }
}

/// One of them.
struct Peer {
    number: usize,
    address: SocketAddr,
    name: String,
    deeds: Arc<Mutex<Deeds>>,
}

// === impl Peer ===

impl Peer {
    async fn run(self) {
        let manner = match self.number {
            even if even % 2 == 0 => Manner::ComesAndGoes,
            odd => [Manner::Pings, Manner::Fragments, Manner::ReadsSlowly][odd / 2 % 3],
        };
        loop {
            let end = match manner {
                Manner::ComesAndGoes => self.come_and_go().await,
                Manner::Pings => self.ping().await,
                Manner::Fragments => self.fragment().await,
                Manner::ReadsSlowly => self.read_slowly().await,
            };
            let Err(fault) = end;
            self.note(|deeds| {
                let word = fault.to_string();
                if deeds.ends.len() < WORDS_MAX || deeds.ends.contains_key(&word) {
                    *deeds.ends.entry(word).or_default() += 1;
                }
            });
            tokio::time::sleep(RETURN).await;
        }
    }

    fn note(&self, change: impl FnOnce(&mut Deeds)) {
        change(&mut self.deeds.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn open(&self, path: &str) -> Result<Client<TcpStream>, Fault> {
        let stream = connect(self.address, Some(self.source())).await?;
        self.shake_hands(stream, path).await
    }

    async fn shake_hands(&self, stream: TcpStream, path: &str) -> Result<Client<TcpStream>, Fault> {
        let client = Client::open(stream, &format!("/{}{path}", self.name)).await?;
        self.note(|deeds| deeds.sessions_opened += 1);
        Ok(client)
    }

    fn source(&self) -> IpAddr {
        source(FIRST_SOURCE + self.number)
    }

    async fn come_and_go(&self) -> Result<Infallible, Fault> {
        let mut due = interval(VISIT_PAUSE);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let frame = frame::client_frame(true, frame::BINARY, &[0; 1_000]);
        loop {
            due.tick().await;
            let mut client = self.open("/echo").await?;
            client.send(&frame[..500]).await?;
            drop(client);
            self.note(|deeds| deeds.connections_dropped += 1);
        }
    }

    async fn ping(&self) -> Result<Infallible, Fault> {
        let burst = frame::client_frame(true, frame::PING, &[b'?'; 125]).repeat(BURST);
        let client = self.open("/echo").await?;
        self.burst(client, |_| &burst, |deeds| deeds.pings += BURST as u64)
            .await
    }

    async fn fragment(&self) -> Result<Infallible, Fault> {
        let one = |fin, opcode| frame::client_frame(fin, opcode, b"x");
        let mut message = one(false, frame::BINARY);
        for _ in 2..FRAGMENTS {
            message.extend(one(false, frame::CONTINUATION));
        }
        message.extend(one(true, frame::CONTINUATION));
        let client = self.open("/echo").await?;
        let size = message.len() * BURST / FRAGMENTS;
        let part = |number: usize| {
            let at = number % (FRAGMENTS / BURST) * size;
            &message[at..at + size]
        };
        self.burst(client, part, |deeds| deeds.fragments += BURST as u64)
            .await
    }

    /// Sends a part each [`PAUSE`] and takes no notice of what comes.
    async fn burst<'b>(
        &self,
        client: Client<TcpStream>,
        part: impl Fn(usize) -> &'b [u8],
        done: impl Fn(&mut Deeds),
    ) -> Result<Infallible, Fault> {
        let (reader, mut writer) = client.into_stream().into_split();
        // Both at once: who sends all the same while nothing is taken from it is the rude one. Pings are not
        // answered.
        let mut ears = Client::shaken(tokio::io::join(reader, tokio::io::sink()));
        let sending = async {
            let mut due = interval(PAUSE);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for number in 0.. {
                due.tick().await;
                if writer.write_all(part(number)).await.is_err() {
                    break;
                }
                self.note(&done);
            }
            Fault::Broken
        };
        // What was said last is the better reason.
        tokio::select! {
            biased;
            fault = ears.ignore() => Err(fault),
            fault = sending => Err(fault),
        }
    }

    async fn read_slowly(&self) -> Result<Infallible, Fault> {
        loop {
            let socket = TcpSocket::new_v4().map_err(|_| Fault::Refused)?;
            // Otherwise the kernel would take megabytes for it.
            let small = socket.set_recv_buffer_size(SIP_BYTES as u32 * 4);
            small.map_err(|_| Fault::Refused)?;
            let stream = connect_with(socket, self.address, Some(self.source())).await?;
            let mut stream = self.shake_hands(stream, "/flood").await?.into_stream();
            let mut sip = [0; SIP_BYTES];
            let mut due = interval(SIP_PAUSE);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for _ in 0..SIPS {
                due.tick().await;
                let count = stream.read(&mut sip).await.map_err(|_| Fault::Broken)?;
                if count == 0 {
                    return Err(Fault::Broken);
                }
                self.note(|deeds| deeds.bytes_taken_slowly += count as u64);
            }
            drop(stream);
            self.note(|deeds| deeds.connections_dropped += 1);
        }
    }
}
