//! A scriptable HTTP/1.1 origin that remembers every byte it was sent.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use hub_testkit::{Origin, Reply, Wire};
//!
//! let origin = Origin::builder().on("/hello", Reply::ok("hi")).start().await;
//! let mut client = Wire::connect(origin.addr()).await;
//! client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await;
//! assert_eq!(client.read_response().await.text(), "hi");
//! assert_eq!(origin.requests()[0].header("host"), Some("a"));
//! # });
//! ```
//!
//! Invariant: written on bare sockets, so that no HTTP library can hide what arrived.
//! Invariant: what is recorded is bounded; beyond the bound it is counted.

mod answer;
mod behaviour;
mod connection;
mod record;

pub use behaviour::{Behaviour, Feed, Reply};
pub use record::RecordedRequest;

use crate::stream::Stream;
use connection::Connection;
use record::Ledger;
use rustls::ServerConfig;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A running origin. It stops, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct Origin {
    shared: Arc<Shared>,
    place: Place,
    task: JoinHandle<()>,
}

/// Settings of an origin that is about to start.
#[derive(Debug)]
pub struct OriginBuilder {
    script: Script,
    colour: String,
    bind: Bind,
    tls: Option<Arc<ServerConfig>>,
    record_bytes_max: usize,
}

/// What the connections of one origin share.
#[derive(Debug)]
struct Shared {
    ledger: Ledger,
    script: Mutex<Script>,
    colour: String,
}

/// Behaviours by path or by prefix; echo where none matches.
#[derive(Debug, Default)]
struct Script(Vec<(String, Behaviour)>);

#[derive(Debug)]
enum Bind {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Clone, Debug)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

enum Listener {
    Tcp(TcpListener, Option<TlsAcceptor>),
    Unix(UnixListener),
}

// === impl OriginBuilder ===

impl OriginBuilder {
    /// Does this with requests for `path`: a path without its query, `/below/*` for all that begins
    /// with `/below/`, or `*` for all. Where several match, the most specific one counts.
    pub fn on(mut self, path: &str, behaviour: impl Into<Behaviour>) -> Self {
        self.script.set(path, behaviour.into());
        self
    }

    /// Does this with every request whose path no [`OriginBuilder::on`] names.
    pub fn respond(self, behaviour: impl Into<Behaviour>) -> Self {
        self.on("*", behaviour)
    }

    /// The name that echoes carry. Default `blue`.
    pub fn colour(mut self, colour: &str) -> Self {
        colour.clone_into(&mut self.colour);
        self
    }

    /// Listens on this address, for an origin that comes back where another one was. Default: a free
    /// port of 127.0.0.1.
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.bind = Bind::Tcp(address);
        self
    }

    /// Listens on a unix socket, which must not exist yet.
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.bind = Bind::Unix(path.into());
        self
    }

    /// Speaks TLS. Not on a unix socket.
    pub fn tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Most bytes that are kept of one body, and of one connection. Default 1 MiB.
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// Binds and serves.
    ///
    /// # Panics
    /// Where the address cannot be bound.
    pub async fn start(self) -> Origin {
        let (listener, place) = match self.bind {
            Bind::Tcp(address) => {
                let listener = TcpListener::bind(address).await.unwrap_or_else(|error| {
                    panic!("the origin cannot listen on {address}: {error}")
                });
                let address = listener
                    .local_addr()
                    .expect("a bound socket has an address");
                (
                    Listener::Tcp(listener, self.tls.map(TlsAcceptor::from)),
                    Place::Tcp(address),
                )
            }
            Bind::Unix(path) => {
                assert!(
                    self.tls.is_none(),
                    "an origin on a unix socket speaks no TLS"
                );
                let listener = UnixListener::bind(&path).unwrap_or_else(|error| {
                    panic!("the origin cannot listen on {}: {error}", path.display())
                });
                (Listener::Unix(listener), Place::Unix(path))
            }
        };
        let shared = Arc::new(Shared {
            ledger: Ledger::new(self.record_bytes_max),
            script: Mutex::new(self.script),
            colour: self.colour,
        });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Origin {
            shared,
            place,
            task,
        }
    }
}

// === impl Origin ===

impl Origin {
    /// An origin that echoes every request, on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Starts with an echo for every request.
    pub fn builder() -> OriginBuilder {
        OriginBuilder {
            script: Script::default(),
            colour: "blue".into(),
            bind: Bind::Tcp((Ipv4Addr::LOCALHOST, 0).into()),
            tls: None,
            record_bytes_max: 1 << 20,
        }
    }

    /// Where it listens.
    ///
    /// # Panics
    /// Where it listens on a unix socket.
    pub fn addr(&self) -> SocketAddr {
        match &self.place {
            Place::Tcp(address) => *address,
            Place::Unix(path) => panic!("the origin listens on {}", path.display()),
        }
    }

    /// Where it listens, as a cluster of the gateway names it: `127.0.0.1:4711` or `unix:/path`.
    pub fn endpoint(&self) -> String {
        match &self.place {
            Place::Tcp(address) => address.to_string(),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Changes the script; requests whose head has arrived keep what they were given.
    pub fn on(&self, path: &str, behaviour: impl Into<Behaviour>) {
        self.shared
            .script
            .lock()
            .expect("nobody panics while they hold the script")
            .set(path, behaviour.into());
    }

    /// Every request whose head has arrived, in the order of arrival; the first 65,536.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.ledger.state().requests.clone()
    }

    /// How many heads have arrived.
    pub fn request_count(&self) -> usize {
        self.shared.ledger.state().heads
    }

    /// Bytes received over all connections; after TLS, before any parsing.
    pub fn raw_bytes(&self) -> u64 {
        self.shared.ledger.state().received
    }

    /// The exact bytes that one connection has received, up to the recording bound. 0 is the first
    /// connection.
    pub fn raw(&self, connection: usize) -> Vec<u8> {
        self.shared.ledger.raw(connection)
    }

    /// Bytes that the peers' kernels have taken of the answers; with TLS, before it.
    pub fn sent_bytes(&self) -> u64 {
        self.shared.ledger.state().sent
    }

    /// Connections accepted so far, closed ones included.
    pub fn connections(&self) -> usize {
        self.shared.ledger.state().connections
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.shared.ledger.state().open
    }

    /// Waits until `count` heads have arrived and returns the requests. Their bodies may still be on
    /// their way: see [`Origin::wait_for_complete`].
    ///
    /// # Panics
    /// After 10 seconds, as all that wait here do.
    pub async fn wait_for_requests(&self, count: usize) -> Vec<RecordedRequest> {
        self.shared
            .ledger
            .wait(&format!("{count} requests"), |state| state.heads >= count)
            .await;
        self.requests()
    }

    /// Waits until `count` requests have arrived with the whole of their bodies.
    pub async fn wait_for_complete(&self, count: usize) -> Vec<RecordedRequest> {
        self.shared
            .ledger
            .wait(&format!("{count} whole requests"), |state| {
                state.completed >= count
            })
            .await;
        self.requests()
    }

    /// Waits until `count` connections have been accepted.
    pub async fn wait_for_connections(&self, count: usize) {
        self.shared
            .ledger
            .wait(&format!("{count} connections"), |state| {
                state.connections >= count
            })
            .await;
    }

    /// Waits until exactly `count` connections are open: 0 to see that a peer has let go.
    pub async fn wait_for_open_connections(&self, count: usize) {
        self.shared
            .ledger
            .wait(&format!("{count} open connections"), |state| {
                state.open == count
            })
            .await;
    }

    /// Waits until so many bytes have arrived over all connections.
    pub async fn wait_for_raw_bytes(&self, count: u64) {
        self.shared
            .ledger
            .wait(&format!("{count} bytes"), |state| state.received >= count)
            .await;
    }

    /// Stops, and returns once the port refuses connections.
    pub async fn stop(mut self) {
        self.task.abort();
        // An error says that the task was aborted, as asked.
        drop((&mut self.task).await);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
        if let Place::Unix(path) = &self.place {
            // The test's directory may be gone already, and the socket with it.
            drop(std::fs::remove_file(path));
        }
    }
}

impl Shared {
    fn behaviour(&self, path: &str) -> Behaviour {
        self.script
            .lock()
            .expect("nobody panics while they hold the script")
            .get(path)
    }
}

impl Script {
    fn set(&mut self, path: &str, behaviour: Behaviour) {
        self.0.retain(|(known, _)| known != path);
        self.0.push((path.to_owned(), behaviour));
    }

    fn get(&self, path: &str) -> Behaviour {
        // An exact path is longer than any prefix of it, so the longest match is the most specific;
        // the mark of a prefix breaks the tie between `/a` and `/a*`.
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix).then_some((prefix.len(), false)),
            None => (path == pattern).then_some((pattern.len(), true)),
        };
        self.0
            .iter()
            .filter_map(|(pattern, behaviour)| Some((matches(pattern)?, behaviour)))
            .max_by_key(|(specific, _)| *specific)
            .map_or(Behaviour::Echo, |(_, behaviour)| behaviour.clone())
    }
}

/// Accepts until it is aborted; the set it holds takes the connections with it.
async fn accept(listener: Listener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        // Out of descriptors, or a peer that was gone before it was accepted: the next may do better.
        let Ok((stream, tls)) = accepted else {
            tokio::task::yield_now().await;
            continue;
        };
        let open = Open::count(&shared);
        connections.spawn(async move {
            if let Some(stream) = secure(stream, tls).await {
                Connection::new(stream, open).serve().await;
            }
        });
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Option<TlsAcceptor>)> {
        match self {
            Self::Tcp(listener, tls) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), tls.clone()))
            }
            Self::Unix(listener) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }
}

/// Shakes hands where there is TLS; `None` where that fails, which the peer sees as an alert.
async fn secure(stream: Stream, tls: Option<TlsAcceptor>) -> Option<Stream> {
    match (stream, tls) {
        (Stream::Tcp(tcp), Some(tls)) => {
            let stream = tls.accept(tcp).await.ok()?;
            Some(Stream::Tls(Box::new(stream.into())))
        }
        (stream, _) => Some(stream),
    }
}

/// A connection that counts as open until this is dropped.
#[derive(Debug)]
struct Open {
    id: usize,
    shared: Arc<Shared>,
}

impl Open {
    fn count(shared: &Arc<Shared>) -> Self {
        Self {
            id: shared.ledger.opened(),
            shared: shared.clone(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.ledger.closed();
    }
}
