//! A load client for HTTP/1.1 over loopback: raw TCP with keepalive, cheap enough to share two cores
//! with what it measures.
//!
//! - [`closed`]: each connection sends its next request when the last one is answered. Finds
//!   capacity; says little about latency, because a slow server is asked less often.
//! - [`open`]: requests are due at a fixed rate, whatever the server does, and latency counts from
//!   the moment a request was **due**. A stall therefore shows in every request that it delayed (no
//!   coordinated omission).
//!
//! ```
//! use hub_testkit::load::{Ask, Body, Settings, closed};
//! use std::time::Duration;
//!
//! # async fn example(address: std::net::SocketAddr) {
//! let settings = Settings { connections: 8, requests_max: 1_000, ..Settings::new(address) };
//! let running = closed(settings, |number, request| {
//!     request.extend_from_slice(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
//!     Ask { class: 0, status: 200, body: Body::Any }
//! });
//! let report = running.finished().await;
//! assert_eq!(report.counts.failed(), 0);
//! # }
//! ```
//!
//! Invariant: a run holds at most [`Settings::connections`] requests in flight and at most
//! [`Settings::queue_max`] due ones that wait for a connection; more are counted as unsent.
//! Invariant: every request that was started is counted under exactly one [`Outcome`].
//!
//! Deliberately absent: TLS, HTTP/2, chunked answers (counted as [`Outcome::WrongAnswer`]),
//! redirects, retries.

mod connection;
mod record;
mod run;

pub use connection::{Answer, Connection, Failure, FullAnswer};
pub use record::{Counts, Outcome, Report, Second};
pub use run::{Running, closed, open};

use std::net::SocketAddr;
use std::time::Duration;

/// What a run does and where it ends.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to.
    pub address: SocketAddr,
    /// Connections, which is also the most requests in flight; 1 to 20000. Default 64.
    pub connections: usize,
    /// Longest wait for a complete answer, connecting included. Default 5 s.
    pub request_timeout: Duration,
    /// When the run ends by itself; at most one hour. Default 10 min.
    pub duration_max: Duration,
    /// After how many requests the run ends by itself. Default: no such end.
    pub requests_max: u64,
    /// Open loop only: due requests that may wait for a free connection. Default 4096.
    pub queue_max: usize,
    /// Open loop only: a request that is sent longer than this after it was due counts as late.
    /// Default 10 ms.
    pub late_after: Duration,
    /// How many values [`Ask::class`] takes; 1 to 1024. Default 1.
    pub classes: usize,
}

/// What a generator says about the request it has just written.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Which group it is counted in, below [`Settings::classes`]: a tenant, for example.
    pub class: u16,
    /// The only status that counts as success.
    pub status: u16,
    /// The only body that counts as success.
    pub body: Body,
}

/// What a body has to be.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// Anything that is as long as its `Content-Length`.
    Any,
    /// So many bytes.
    Length(u64),
    /// These bytes.
    Exact(&'static [u8]),
}

impl Settings {
    /// The defaults, for a server at `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connections: 64,
            request_timeout: Duration::from_secs(5),
            duration_max: Duration::from_secs(600),
            requests_max: u64::MAX,
            queue_max: 4_096,
            late_after: Duration::from_millis(10),
            classes: 1,
        }
    }
}

/// A well-spread number for `number`, the same on every run: the finaliser of SplitMix64 (Steele,
/// Lea and Flood, 2014). What generators draw tenants and paths with.
pub fn spread(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
