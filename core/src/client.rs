//! Who is at the other end of a downstream connection.

use std::net::{IpAddr, SocketAddr};

/// The downstream peer of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address that limits and logs use: the socket's, or the one told by a trusted PROXY
    /// header or by the configured number of trusted hops in `X-Forwarded-For`.
    pub address: IpAddr,
    /// The socket's own peer, before any of that.
    pub peer: SocketAddr,
}
