//! Sockets bound by us, and how many connections each carries.

use super::knock::Arrivals;
use super::tls::ListenerTls;
use crate::telemetry::ListenerMetrics;
use parking_lot::Mutex;
use rustix::fd::{IntoRawFd, OwnedFd, RawFd};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Connections that the kernel may hold for us before we accept them.
const BACKLOG: i32 = 1024;
/// Shards of the per-address counts: accepting on many workers does not queue on one lock.
const SHARDS: usize = 16;

/// A public listener in this process: its socket, its TLS, its connection counts. What the
/// configuration says about timeouts and bounds is in the snapshot, since that may change.
#[derive(Debug)]
pub(crate) struct BoundListener {
    pub(crate) name: String,
    /// The address as bound: with the port that the system chose where port 0 was asked for.
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<ListenerTls>,
    pub(crate) metrics: Arc<ListenerMetrics>,
    pub(crate) arrivals: Arrivals,
    pub(crate) source: Source,
    /// Ours; accept loops have descriptors of their own. `None` before another process has handed it
    /// over, and once it is closed.
    socket: Mutex<Option<Socket>>,
    /// Others serve the socket, too, so it is not closed to clients when we close it.
    shared: AtomicBool,
    connections: AtomicUsize,
    http2: AtomicUsize,
    fresh: AtomicUsize,
    by_address: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

/// Where a listener's socket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Bound by this process.
    Bound,
    /// Handed over by a service manager, which keeps it.
    Inherited,
    /// Bound by this process to ask itself something.
    Probe,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Listener,
    Address,
}

/// One connection; counted until dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    listener: Arc<BoundListener>,
    address: IpAddr,
}

/// One connection that speaks HTTP/2; counted until dropped.
#[derive(Debug)]
pub(crate) struct Http2Count(Arc<BoundListener>);

/// A connection of a shared socket that has not been answered yet; counted until dropped.
#[derive(Debug)]
pub(crate) struct Fresh(Arc<BoundListener>);

/// Binds and listens. Fails at once where the address is taken: a gateway that cannot be reached
/// must not look as if it ran.
fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // One socket, one address family: `[::]:80` and `0.0.0.0:80` are two listeners.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn address_of(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?.as_socket();
    address.ok_or_else(|| io::Error::other("the socket has no internet address"))
}

impl BoundListener {
    /// Binds `address` for the listener `name`.
    pub(crate) fn bind(
        name: &str,
        address: SocketAddr,
        tls: Option<ListenerTls>,
        metrics: Arc<ListenerMetrics>,
    ) -> io::Result<Self> {
        let socket = bind(address)?;
        let address = address_of(&socket)?;
        let new = Self::new(name, address, Source::Bound, tls, metrics);
        *new.socket.lock() = Some(socket);
        Ok(new)
    }

    /// Takes a listening socket, which does not block, for the listener `name`.
    pub(crate) fn inherit(
        name: &str,
        socket: TcpListener,
        tls: Option<ListenerTls>,
        metrics: Arc<ListenerMetrics>,
    ) -> io::Result<Self> {
        let socket = Socket::from(socket);
        let address = address_of(&socket)?;
        let new = Self::new(name, address, Source::Inherited, tls, metrics);
        *new.socket.lock() = Some(socket);
        Ok(new)
    }

    /// A listener whose socket another process will hand over: [`BoundListener::receive`].
    pub(crate) fn promised(
        name: &str,
        address: SocketAddr,
        source: Source,
        tls: Option<ListenerTls>,
        metrics: Arc<ListenerMetrics>,
    ) -> Self {
        Self::new(name, address, source, tls, metrics)
    }

    /// A socket of this host's own, without TLS and in no metric, to ask the front through.
    pub(crate) fn probe(name: &str) -> io::Result<Self> {
        let any = |ip: IpAddr| bind(SocketAddr::new(ip, 0));
        let socket =
            any(Ipv4Addr::LOCALHOST.into()).or_else(|_| any(Ipv6Addr::LOCALHOST.into()))?;
        let new = Self::new(
            name,
            address_of(&socket)?,
            Source::Probe,
            None,
            Arc::default(),
        );
        *new.socket.lock() = Some(socket);
        Ok(new)
    }

    fn new(
        name: &str,
        address: SocketAddr,
        source: Source,
        tls: Option<ListenerTls>,
        metrics: Arc<ListenerMetrics>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            address,
            tls,
            metrics,
            arrivals: Arrivals::default(),
            source,
            socket: Mutex::new(None),
            shared: AtomicBool::new(source == Source::Inherited),
            connections: AtomicUsize::new(0),
            http2: AtomicUsize::new(0),
            fresh: AtomicUsize::new(0),
            by_address: Default::default(),
        }
    }

    /// Takes the socket that was promised.
    ///
    /// # Errors
    /// It is bound elsewhere, or nobody can connect to it.
    pub(crate) fn receive(&self, socket: OwnedFd) -> io::Result<()> {
        let socket = Socket::from(socket);
        let address = address_of(&socket)?;
        if address != self.address {
            let wanted = self.address;
            let text = format!("the socket is bound to {address}, and {wanted} was promised");
            return Err(io::Error::other(text));
        }
        if !socket.is_listener()? {
            return Err(io::Error::other("the socket does not listen"));
        }
        *self.socket.lock() = Some(socket);
        Ok(())
    }

    /// Another descriptor of the socket, for another process.
    ///
    /// # Errors
    /// There is none left, or the socket is closed.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        let socket = self.socket.lock();
        let closed = || io::Error::other("the listening socket is closed");
        Ok(socket.as_ref().ok_or_else(closed)?.try_clone()?.into())
    }

    /// Another descriptor of the socket, as a number, for pingora, which owns it from then on.
    ///
    /// # Errors
    /// As [`BoundListener::descriptor`].
    pub(crate) fn number(&self) -> io::Result<RawFd> {
        Ok(self.descriptor()?.into_raw_fd())
    }

    /// Closes our descriptor. The socket is closed to clients once its accept loop has ended, too, unless
    /// others hold it.
    pub(crate) fn close(&self) {
        drop(self.socket.lock().take());
    }

    /// Notes whether another process serves the socket, too.
    pub(crate) fn share(&self, shared: bool) {
        let shared = shared || self.source == Source::Inherited;
        self.shared.store(shared, Ordering::Release);
    }

    /// True where others serve the socket, too, or keep it for the next process.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    /// Where this host reaches it.
    pub(crate) fn own_address(&self) -> SocketAddr {
        let mut address = self.address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
        address
    }

    /// Open connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections that speak HTTP/2.
    pub(crate) fn http2_connections(&self) -> usize {
        self.http2.load(Ordering::Relaxed)
    }

    /// Counts a connection as one that speaks HTTP/2 until the returned value is dropped.
    pub(crate) fn begin_http2(self: &Arc<Self>) -> Http2Count {
        self.http2.fetch_add(1, Ordering::AcqRel);
        Http2Count(Arc::clone(self))
    }

    /// Connections whose first request a drain waits for.
    pub(crate) fn fresh_connections(&self) -> usize {
        self.fresh.load(Ordering::Acquire)
    }

    /// Counts a connection until its first request is over, where that is due to it: one that was taken
    /// from a socket which others serve, too, would have been served by them.
    pub(crate) fn begin_fresh(self: &Arc<Self>) -> Option<Fresh> {
        if !self.is_shared() {
            return None;
        }
        self.fresh.fetch_add(1, Ordering::AcqRel);
        Some(Fresh(Arc::clone(self)))
    }

    /// Takes a place for a connection from `address`, or says what is full.
    pub(crate) fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        connections_max: usize,
        per_address_max: usize,
    ) -> Result<ConnectionSlot, Full> {
        let address = subscriber(address);
        if self.connections.fetch_add(1, Ordering::AcqRel) >= connections_max {
            self.connections.fetch_sub(1, Ordering::AcqRel);
            return Err(Full::Listener);
        }
        {
            let mut counts = self.shard(address).lock();
            let count = counts.entry(address).or_insert(0);
            if *count as usize >= per_address_max {
                drop(counts);
                self.connections.fetch_sub(1, Ordering::AcqRel);
                return Err(Full::Address);
            }
            *count += 1;
        }
        self.metrics.opened();
        Ok(ConnectionSlot {
            listener: Arc::clone(self),
            address,
        })
    }

    fn shard(&self, address: IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        let last = match address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[7],
        };
        &self.by_address[usize::from(last) % SHARDS]
    }
}

impl Drop for Http2Count {
    fn drop(&mut self) {
        self.0.http2.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        self.0.fresh.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut counts = self.listener.shard(self.address).lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
                // An attack from many addresses must not leave its table behind.
                if counts.is_empty() {
                    counts.shrink_to_fit();
                }
            }
        }
        drop(counts);
        self.listener.connections.fetch_sub(1, Ordering::AcqRel);
        self.listener.metrics.closed();
    }
}

/// Who is counted as one: an IPv4 address, or the /64 of an IPv6 address, since one subscriber has all
/// of it.
fn subscriber(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> Arc<BoundListener> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Arc::new(BoundListener::bind("test", any, None, Arc::default()).expect("a free port"))
    }

    #[test]
    fn port_zero_becomes_a_real_port_and_a_taken_one_fails_at_once() {
        let first = listener();
        assert_ne!(first.address.port(), 0);
        let second = BoundListener::bind("second", first.address, None, Arc::default());
        assert_eq!(second.expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn connections_are_bounded_in_all_and_by_address() {
        let listener = listener();
        let one = IpAddr::from([10, 0, 0, 1]);
        let two = IpAddr::from([10, 0, 0, 2]);
        let first = listener.admit(one, 2, 1).expect("empty");
        assert_eq!(listener.admit(one, 2, 1).err(), Some(Full::Address));
        let _second = listener.admit(two, 2, 1).expect("another address");
        assert_eq!(listener.admit(two, 2, 9).err(), Some(Full::Listener));
        drop(first);
        assert_eq!(listener.connections(), 1);
        let _again = listener.admit(one, 2, 1).expect("room again");
        assert_eq!(listener.metrics.totals(), (3, 1));
    }

    #[test]
    fn a_subscriber_s_ipv6_addresses_are_counted_as_one() {
        let listener = listener();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let _first = listener.admit(address("2001:db8::1"), 9, 1).expect("empty");
        let same = listener.admit(address("2001:db8::ffff:2"), 9, 1);
        assert_eq!(same.err(), Some(Full::Address));
        let _other = listener
            .admit(address("2001:db8:0:1::1"), 9, 1)
            .expect("another subscriber");
    }
}
