//! pingora's peers, built when the snapshot is, so that a request only copies one.

use crate::upstream::Pick;
use hub_config::runtime::{Cluster, Colour, Endpoint, EndpointAddress};
use pingora::prelude::HttpPeer;
use pingora::protocols::TcpKeepalive;
use pingora::upstreams::peer::PeerOptions;
use pingora::utils::tls::{WrappedX509, parse_x509};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// A peer for each endpoint of each colour of each cluster.
#[derive(Debug)]
pub(crate) struct Peers(Vec<[Vec<HttpPeer>; 2]>);

impl Peers {
    /// Builds the peers of all clusters.
    pub(crate) fn build(clusters: &[Cluster]) -> Self {
        Self(
            clusters
                .iter()
                .map(|cluster| {
                    let peers = |colour: Colour, endpoints: &[Endpoint]| {
                        endpoints
                            .iter()
                            .map(|endpoint| peer(cluster, colour, endpoint))
                            .collect()
                    };
                    [
                        peers(Colour::Blue, &cluster.blue),
                        peers(Colour::Green, &cluster.green),
                    ]
                })
                .collect(),
        )
    }

    /// The peer of a picked endpoint of the same snapshot.
    pub(crate) fn get(&self, pick: &Pick) -> &HttpPeer {
        let colour = match pick.colour() {
            Colour::Blue => 0,
            Colour::Green => 1,
        };
        &self.0[pick.cluster()][colour][pick.index()]
    }
}

fn peer(cluster: &Cluster, colour: Colour, endpoint: &Endpoint) -> HttpPeer {
    let (tls, sni) = match &cluster.tls {
        Some(tls) => (true, tls.server_name.clone()),
        None => (false, String::new()),
    };
    let mut peer = match &endpoint.address {
        EndpointAddress::Tcp(address) => HttpPeer::new(address, tls, sni),
        EndpointAddress::Unix(path) => HttpPeer::new_uds(&path.to_string_lossy(), tls, sni)
            .expect("the check made sure that the path fits a socket address"),
    };
    let options = &mut peer.options;
    options.connection_timeout = Some(cluster.connect_timeout);
    options.total_connection_timeout = Some(cluster.connect_timeout);
    options.write_timeout = Some(cluster.idle_timeout);
    // Zero stands for "do not keep"; the lane sees to it, since pingora's pool would keep it for a
    // moment.
    options.idle_timeout = Some(cluster.keepalive_timeout.unwrap_or(Duration::ZERO));
    if cluster.tls.is_none() {
        options.tcp_keepalive = Some(keepalive());
    }
    authorities(cluster, options);
    // Two clusters may share an address but not a connection: TLS settings and limits differ. Nor may two
    // colours: when one is let go, its connections are closed.
    peer.group_key = group(&cluster.name, colour);
    peer
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive {
        idle: Duration::from_secs(60),
        interval: Duration::from_secs(10),
        count: 3,
        user_timeout: Duration::ZERO,
    }
}

fn authorities(cluster: &Cluster, options: &mut PeerOptions) {
    let Some(authorities) = cluster
        .tls
        .as_ref()
        .and_then(|tls| tls.authorities.as_ref())
    else {
        return;
    };
    let certificates: Vec<_> = authorities
        .iter()
        .map(|der| WrappedX509::new(der.clone(), parse_x509))
        .collect();
    options.ca = Some(Arc::from(certificates.into_boxed_slice()));
}

fn group(name: &str, colour: Colour) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (name, colour).hash(&mut hasher);
    hasher.finish()
}
