//! Telling the service manager that the gateway is alive, and only if that was seen.
//!
//! What must hold at every beat:
//! - each listener has taken a connection since the last one, or takes one now: we knock, from this
//!   process, and the data plane's own task answers by closing ([`Arrivals::take`](crate::front::knock::Arrivals::take)). That goes through
//!   the kernel's queue, pingora's accept loop and a task on the data runtime. It is not TLS and no
//!   request, so it leaves no trace in metrics and logs;
//! - the data runtime runs a task that is handed to it. This alone is asked once listeners are closed;
//! - the control runtime runs this code.
//!
//! What it does not show: that every one of several data workers is free, or that an upstream answers.
//!
//! A listener that cannot be reached from its own host even at the start (an interface that it is bound
//! to, a packet filter) is told in the log and not knocked at: a gateway that serves must not be killed for
//! that. Nor is one for want of a port or a descriptor to knock with.

use super::notify::Word;
use crate::front::listener::BoundListener;
use crate::hub::Hub;
use crate::lifecycle::Phase;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

/// How long a start may wait until each listener has taken a connection.
const START_MAX: Duration = Duration::from_secs(5);
/// How long one knock is waited for before the next one: another process may have taken it.
const KNOCK_MAX: Duration = Duration::from_millis(500);

/// How often the manager wants to hear of us, at least, if it does.
pub(crate) fn from_env() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let meant = match std::env::var("WATCHDOG_PID") {
        Ok(pid) => pid.parse() == Ok(std::process::id()),
        Err(_) => true,
    };
    number("WATCHDOG_USEC")
        .filter(|usec| meant && *usec > 0)
        .map(Duration::from_micros)
}

/// Looks whether the data plane is alive.
#[derive(Debug)]
pub(crate) struct Watch {
    hub: Arc<Hub>,
    data: Handle,
    listeners: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    bound: Arc<BoundListener>,
    /// Connections that it had taken at the last look.
    seen: u64,
    reach: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Reachable,
    Unreachable,
}

/// What came of a knock.
#[derive(Debug, PartialEq, Eq)]
enum Knock {
    Taken,
    /// The kernel took it, or another process.
    Unanswered,
    /// Not even the kernel said anything.
    Silent,
    /// The kernel said no.
    Refused,
    /// There was nothing to knock with, which says nothing of the listener.
    Impossible,
}

impl Watch {
    /// Waits until each listener has taken a connection, a few seconds at most.
    pub(crate) async fn begin(hub: Arc<Hub>, data: Handle) -> Self {
        let ends = Instant::now() + START_MAX;
        let mut listeners = Vec::with_capacity(hub.listeners.len());
        for bound in &hub.listeners {
            let mut watched = Watched::new(Arc::clone(bound));
            if !watched.is_alive(ends).await {
                watched.reach = Reach::Unreachable;
                tracing::warn!(
                    listener = bound.name,
                    address = %bound.address,
                    "this listener takes no connection from its own host; the watchdog will not look at it"
                );
            }
            listeners.push(watched);
        }
        Self {
            hub,
            data,
            listeners,
        }
    }

    /// Tells the manager at half of `every` that the process is alive, as long as that is so, and until
    /// another process does.
    pub(crate) async fn feed(&mut self, every: Duration) {
        let mut pause = Duration::ZERO;
        loop {
            tokio::time::sleep(pause).await;
            if self.hub.lifecycle().service().is_silent() {
                // Knocks would be the other process's to answer.
                return;
            }
            // A proof that takes its whole time is still told before the manager loses patience.
            pause = match self.prove(every / 4).await {
                Ok(()) => {
                    self.hub.lifecycle().service().tell(&[Word::Watchdog]);
                    every / 2
                }
                Err(what) => {
                    tracing::error!(
                        what,
                        "not alive; the service manager is not told otherwise, and will end this process"
                    );
                    every / 8
                }
            };
        }
    }

    /// Says what is dead, if something is. Takes `longest` at most.
    async fn prove(&mut self, longest: Duration) -> Result<(), String> {
        let ends = Instant::now() + longest;
        if !runs(&self.data, ends).await {
            return Err("the data plane's threads".into());
        }
        for watched in &mut self.listeners {
            // The phase is asked after a silence: the drain may have closed the listener meanwhile.
            if !watched.is_alive(ends).await && self.hub.lifecycle().phase() < Phase::HandedOver {
                return Err(format!("listener `{}`", watched.bound.name));
            }
        }
        Ok(())
    }
}

/// True where a runtime takes up work.
async fn runs(runtime: &Handle, ends: Instant) -> bool {
    let nudge = runtime.spawn(async {});
    matches!(timeout_at(ends, nudge).await, Ok(Ok(())))
}

impl Watched {
    fn new(bound: Arc<BoundListener>) -> Self {
        Self {
            seen: bound.arrivals.count(),
            bound,
            reach: Reach::Reachable,
        }
    }

    /// True where it has taken a connection since the last look, or takes ours, or cannot be asked.
    async fn is_alive(&mut self, ends: Instant) -> bool {
        let alive = self.reach == Reach::Unreachable
            || matches!(self.answer(ends).await, Knock::Taken | Knock::Impossible);
        self.seen = self.bound.arrivals.count();
        alive
    }

    /// Knocks again and again until a connection was taken.
    async fn answer(&self, ends: Instant) -> Knock {
        loop {
            if self.has_moved() {
                return Knock::Taken;
            }
            let slice = ends.min(Instant::now() + KNOCK_MAX);
            let answer = knock(&self.bound, slice).await;
            // Others may have been taken while we stood in a long queue.
            if self.has_moved() {
                return Knock::Taken;
            }
            if slice == ends || !matches!(answer, Knock::Unanswered | Knock::Silent) {
                return answer;
            }
            // Where whoever took it has closed it at once.
            tokio::time::sleep_until(slice).await;
        }
    }

    fn has_moved(&self) -> bool {
        self.bound.arrivals.count() != self.seen
    }
}

/// Connects to a listener and waits until the data plane has taken that connection and closed it.
async fn knock(bound: &BoundListener, ends: Instant) -> Knock {
    let to = bound.own_address();
    let socket = match to.is_ipv4() {
        true => TcpSocket::new_v4(),
        false => TcpSocket::new_v6(),
    };
    // Bound before it connects, so that the listener knows whom to expect.
    let ready = socket.and_then(|socket| {
        let mut from = to;
        from.set_port(0);
        socket.bind(from)?;
        let from = socket.local_addr()?;
        Ok((socket, from))
    });
    let Ok((socket, from)) = ready else {
        return Knock::Impossible;
    };
    let expected = bound.arrivals.expect(from.port());
    let mut stream = match timeout_at(ends, socket.connect(to)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return Knock::Refused,
        Err(_) => return Knock::Silent,
    };
    // However it is closed: what counts is who did.
    let _closed = timeout_at(ends, stream.read(&mut [0])).await.map(drop);
    match expected.is_answered() {
        true => Knock::Taken,
        false => Knock::Unanswered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener};

    /// A listener, and its socket for whoever accepts.
    fn listener(address: &str) -> (Arc<BoundListener>, TcpListener) {
        let socket = TcpListener::bind(address).expect("a free port");
        let other = socket.try_clone().expect("a descriptor");
        socket.set_nonblocking(true).expect("our own socket");
        let bound = BoundListener::inherit("test", socket, None, Arc::default());
        (Arc::new(bound.expect("it listens")), other)
    }

    /// Accepts as the front does.
    fn accept(bound: &Arc<BoundListener>, socket: TcpListener) {
        let bound = Arc::clone(bound);
        let socket = tokio::net::TcpListener::from_std(socket).expect("a listener");
        tokio::spawn(async move {
            while let Ok((_stream, peer)) = socket.accept().await {
                let own = bound.own_address().ip();
                bound.arrivals.take(own, || Some(peer));
            }
        });
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(100)
    }

    #[tokio::test]
    async fn a_listener_that_takes_connections_is_alive_every_time() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let (bound, socket) = listener(address);
            accept(&bound, socket);
            let mut watched = Watched::new(Arc::clone(&bound));
            for _ in 0..3 {
                let patient = Instant::now() + Duration::from_secs(10);
                assert!(watched.is_alive(patient).await, "{address}");
            }
            assert_eq!(bound.arrivals.count(), 3);
        }
    }

    #[tokio::test]
    async fn a_socket_whose_connections_nobody_takes_is_dead() {
        let (bound, _socket) = listener("127.0.0.1:0");
        let mut watched = Watched::new(Arc::clone(&bound));
        // The kernel takes the connection, and that is not enough.
        assert!(!watched.is_alive(soon()).await);
        watched.reach = Reach::Unreachable;
        assert!(watched.is_alive(soon()).await, "it is not asked");
    }

    #[tokio::test]
    async fn a_runtime_whose_threads_take_nothing_up_is_dead() {
        // Nobody drives it, as if its thread hung.
        let stuck = tokio::runtime::Builder::new_current_thread().build();
        let stuck = stuck.expect("a runtime");
        assert!(!runs(stuck.handle(), soon()).await);
        assert!(runs(&Handle::current(), soon()).await);
        stuck.shutdown_background();
    }

    #[tokio::test]
    async fn connections_of_others_show_life_without_a_knock() {
        let (bound, _socket) = listener("127.0.0.1:0");
        let mut watched = Watched::new(Arc::clone(&bound));
        let peer = SocketAddr::from(([192, 0, 2, 1], 4711));
        let own = bound.own_address().ip();
        assert!(!bound.arrivals.take(own, || Some(peer)));
        assert!(watched.is_alive(soon()).await);
        assert!(!watched.is_alive(soon()).await, "that was before");
    }
}
