//! Our application on pingora's plain listeners.

use super::downstream::Downstream;
use super::http2::Http2;
use super::listener::{BoundListener, ConnectionSlot, Fresh, Full, Source};
use super::proxy_protocol::{self, Prelude};
use super::raw::Raw;
use super::{forwarded, http1};
use crate::hub::Hub;
use crate::lanes::general::GeneralLane;
use crate::lifecycle::Phase;
use crate::snapshot::Snapshot;
use crate::stages::Arrival;
use async_trait::async_trait;
use bytes::Bytes;
use hub_config::runtime::{Listener, ProxyProtocol};
use hub_core::{Client, HeaderValue, Headers, Reason, Scheme};
use ipnet::IpNet;
use pingora::apps::ServerApp;
use pingora::protocols::{ALPN, Ssl, Stream};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// Most bytes that are read before a PROXY header is judged; the parser decides within 536.
const PROXY_HEADER_BYTES_MAX: usize = 1024;

/// A public listener's application.
pub(crate) struct Front {
    pub(crate) hub: Arc<Hub>,
    /// Position in the snapshot of the settings that hold.
    pub(crate) listener: usize,
    /// The socket that is served.
    pub(crate) bound: Arc<BoundListener>,
    pub(crate) proxy: Arc<HttpProxy<GeneralLane>>,
}

/// What is known of one downstream connection, shared by its requests.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Position of the listener in the snapshot and in the hub.
    pub(crate) listener: usize,
    pub(crate) scheme: Scheme,
    /// The socket's peer.
    pub(crate) peer: SocketAddr,
    /// The peer as told by a trusted PROXY header, else the socket's.
    pub(crate) source: SocketAddr,
    /// When it was accepted; deadlines count from here.
    pub(crate) epoch: Instant,
    /// `source`'s address as a header value: most requests forward just this.
    source_value: HeaderValue,
    /// `None` for the gateway's own errands, which take nobody's place.
    _slot: Option<ConnectionSlot>,
}

impl Connection {
    /// What stands for a connection where the gateway itself asks: this host, and the first listener's
    /// scheme.
    pub(crate) fn own(hub: &Hub) -> Self {
        let is_tls = hub.listeners.first().is_some_and(|one| one.tls.is_some());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listener: 0,
            scheme: if is_tls { Scheme::Https } else { Scheme::Http },
            peer: address,
            source: address,
            epoch: Instant::now(),
            source_value: HeaderValue::from_static("127.0.0.1"),
            _slot: None,
        }
    }

    /// The listener's settings in force for a request.
    pub(crate) fn settings<'s>(&self, snapshot: &'s Snapshot) -> &'s Listener {
        &snapshot.listeners[self.listener]
    }

    /// What is known of a request of this connection before the stages run: who asks, as far as the
    /// configured number of trusted hops may tell, and what upstreams are told of that.
    pub(crate) fn arrival(
        &self,
        snapshot: &Snapshot,
        headers: Headers<'_>,
        at: Instant,
    ) -> Arrival {
        let settings = self.settings(snapshot);
        let mut hops = settings.trusted_hops;
        // A stranger who reaches us past the proxies speaks for nobody but himself.
        if hops > 0 && !is_from(&settings.trusted_from, self.source.ip()) {
            hops = 0;
        }
        let mut arrival = Arrival {
            listener: self.listener,
            scheme: self.scheme,
            at,
            client: Client {
                address: self.source.ip(),
                peer: self.peer,
            },
            forwarded_for: self.source_value.clone(),
        };
        if hops > 0 {
            arrival.scheme = forwarded::scheme(headers, hops, self.scheme);
            arrival.client.address = forwarded::client_address(headers, hops, self.source.ip());
            let mut chain = Vec::with_capacity(64);
            forwarded::write_forwarded_for(&mut chain, headers, hops, self.source.ip());
            if let Ok(chain) = HeaderValue::from_maybe_shared(Bytes::from(chain)) {
                arrival.forwarded_for = chain;
            }
        }
        arrival
    }
}

#[async_trait]
impl ServerApp for Front {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let bound = &self.bound;
        if bound
            .arrivals
            .take(bound.own_address().ip(), || peer_of(&stream))
        {
            // Our own knock: being taken is all that it asked for.
            return None;
        }
        let fresh = bound.begin_fresh();
        if fresh.is_none() && self.hub.lifecycle().phase() == Phase::Draining {
            // It came while the socket was being closed.
            return None;
        }
        // A task of our own, so that pingora's larger one ends here: this is most of what an idle
        // connection costs.
        tokio::spawn(Arc::clone(self).serve(stream, shutdown.clone(), fresh));
        None
    }
}

impl Front {
    async fn serve(self: Arc<Self>, stream: Stream, shutdown: ShutdownWatch, fresh: Option<Fresh>) {
        let bound = Arc::clone(&self.bound);
        let opened = Instant::now();
        let Some((downstream, connection, is_http2)) =
            Box::pin(self.establish(stream, &bound, opened)).await
        else {
            return;
        };
        let connection = Arc::new(connection);
        if is_http2 {
            // Its client learns which requests were not begun, and may send them again.
            drop(fresh);
            let _counted = bound.begin_http2();
            Http2::serve(
                Arc::clone(&self.proxy),
                connection,
                &self.hub,
                downstream,
                &shutdown,
            )
            .await;
        } else {
            http1::serve(&self, downstream, &connection, fresh).await;
        }
    }

    /// Everything between accept and the first HTTP byte: bounds, PROXY header, TLS. `None` where
    /// the connection was refused; why is counted.
    async fn establish(
        &self,
        stream: Stream,
        bound: &Arc<BoundListener>,
        opened: Instant,
    ) -> Option<(Box<Downstream>, Connection, bool)> {
        let settings = Arc::clone(&self.hub.snapshot().listeners[self.listener]);
        let peer = peer_of(&stream)?;
        let mut raw = Raw::new(stream, Vec::new());
        let source = match self.proxy_header(&mut raw, &settings, peer).await {
            Ok(source) => source,
            Err(reason) => {
                self.hub.metrics.refused(reason);
                return None;
            }
        };
        let slot = match bound.admit(
            source.ip().to_canonical(),
            settings.connections_max,
            settings.connections_per_address_max,
        ) {
            Ok(slot) => slot,
            Err(full) => {
                self.refuse_connection(raw, bound, full).await;
                return None;
            }
        };
        let scheme = if bound.tls.is_some() {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let connection = Connection {
            listener: self.listener,
            scheme,
            peer,
            source,
            epoch: opened,
            source_value: HeaderValue::from_str(&source.ip().to_canonical().to_string())
                .expect("addresses are visible ASCII"),
            _slot: Some(slot),
        };
        let Some(tls) = &bound.tls else {
            let (stream, unread) = raw.into_parts();
            let downstream = Box::new(Downstream::new(
                stream,
                &unread,
                opened,
                settings.write_timeout,
            ));
            return Some((downstream, connection, false));
        };
        let longest = settings
            .tls
            .as_ref()
            .map_or(Duration::from_secs(5), |tls| tls.handshake_timeout);
        match tokio::time::timeout(longest, tls.accept(raw)).await {
            Ok(Ok(stream)) => {
                let is_http2 = stream.selected_alpn_proto() == Some(ALPN::H2);
                let downstream = Box::new(Downstream::new(
                    Box::new(stream),
                    &[],
                    opened,
                    settings.write_timeout,
                ));
                Some((downstream, connection, is_http2))
            }
            Ok(Err(_)) => {
                self.hub.metrics.handshake_failed("handshake");
                None
            }
            Err(_) => {
                self.hub.metrics.handshake_failed("timeout");
                None
            }
        }
    }

    /// Reads the PROXY header where the listener looks for one. Gives bytes after it back to `raw`.
    async fn proxy_header(
        &self,
        raw: &mut Raw,
        settings: &Listener,
        peer: SocketAddr,
    ) -> Result<SocketAddr, Reason> {
        // No proxy stands before the gateway's own probe.
        if settings.proxy_protocol == ProxyProtocol::Off || self.bound.source == Source::Probe {
            return Ok(peer);
        }
        if !is_from(&settings.proxy_protocol_from, peer.ip()) {
            // A stranger may not tell us who it is. Where the header is optional, what it sends is
            // read as HTTP, and a header there is malformed HTTP.
            return match settings.proxy_protocol {
                ProxyProtocol::Required => Err(Reason::BadProxyHeader),
                ProxyProtocol::Optional | ProxyProtocol::Off => Ok(peer),
            };
        }
        let read = async {
            let mut bytes = Vec::new();
            loop {
                match proxy_protocol::parse(&bytes).map_err(|refusal| refusal.reason)? {
                    Prelude::Incomplete if bytes.len() < PROXY_HEADER_BYTES_MAX => {}
                    Prelude::Incomplete => return Err(Reason::BadProxyHeader),
                    Prelude::Absent => {
                        raw.give_back(bytes);
                        return match settings.proxy_protocol {
                            ProxyProtocol::Required => Err(Reason::BadProxyHeader),
                            ProxyProtocol::Optional | ProxyProtocol::Off => Ok(peer),
                        };
                    }
                    Prelude::Header { len, addresses } => {
                        raw.give_back(bytes.split_off(len));
                        return Ok(addresses.map_or(peer, |addresses| addresses.source));
                    }
                }
                let mut chunk = [0; 1024];
                let count = raw
                    .read(&mut chunk)
                    .await
                    .map_err(|_| Reason::BadProxyHeader)?;
                if count == 0 {
                    return Err(Reason::BadProxyHeader);
                }
                bytes.extend_from_slice(&chunk[..count]);
            }
        };
        tokio::time::timeout(settings.head_timeout, read)
            .await
            .unwrap_or(Err(Reason::BadProxyHeader))
    }

    /// Tells a plain client why it is not served. On TLS there is no cheap way to say anything, and
    /// an overload is the wrong time for a dear one.
    async fn refuse_connection(&self, raw: Raw, bound: &BoundListener, _full: Full) {
        self.hub.metrics.refused(Reason::TooManyConnections);
        if bound.tls.is_some() {
            return;
        }
        let (stream, unread) = raw.into_parts();
        let longest = Duration::from_secs(1);
        let mut downstream = Downstream::new(stream, &unread, Instant::now(), longest);
        let bytes = http1::stateless_answer(Reason::TooManyConnections);
        // The client may be gone already.
        let _gone = downstream.send(&bytes).await;
    }
}

fn is_from(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// The socket's peer; `None` where it is gone before we could ask.
fn peer_of(stream: &Stream) -> Option<SocketAddr> {
    stream
        .get_socket_digest()
        .and_then(|digest| digest.peer_addr().and_then(|peer| peer.as_inet().copied()))
        .map(|peer| SocketAddr::new(IpAddr::to_canonical(&peer.ip()), peer.port()))
}
