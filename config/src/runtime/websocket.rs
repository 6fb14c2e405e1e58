//! How a route takes WebSockets.

use crate::file::{Compression, OnSwitch, OnUpgrade};
use hub_core::HeaderValue;
use std::time::Duration;

/// How a route takes WebSockets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebSocket {
    /// Values of `Origin` that may connect, as a whole; empty: any. A client that sends none may always.
    pub origins: Vec<HeaderValue>,
    /// Text messages must be UTF-8.
    pub utf8: bool,
    /// What becomes of permessage-deflate.
    pub compression: Compression,
    /// Largest payload of one frame, either way, in bytes. May be more than a message may have.
    pub frame_bytes_max: u64,
    /// Largest payload of one message, either way, in bytes.
    pub message_bytes_max: u64,
    /// Most frames of one message.
    pub fragments_max: u32,
    /// Messages a second of one client, who is read more slowly beyond; `None`: unlimited.
    pub client_messages_per_second: Option<u32>,
    /// Kilobytes (1,024 bytes) a second of one client; `None`: unlimited.
    pub client_kilobytes_per_second: Option<u32>,
    /// Messages a second to one client; `None`: unlimited.
    pub upstream_messages_per_second: Option<u32>,
    /// Kilobytes (1,024 bytes) a second to one client; `None`: unlimited.
    pub upstream_kilobytes_per_second: Option<u32>,
    /// Sessions open at a time on the route, in this process; `None`: unlimited.
    pub connections_max: Option<u32>,
    /// Longest time without a message either way; zero for none.
    pub idle_timeout: Duration,
    /// Longest life; zero for none.
    pub lifetime: Duration,
    /// A side that said nothing for this long gets a Ping; zero for none.
    pub ping_interval: Duration,
    /// And must say something within this time, which is never zero.
    pub pong_timeout: Duration,
    /// A side that takes nothing for this long is given up. Never zero.
    pub write_timeout: Duration,
    /// Longest wait for the other Close and the last bytes. Never zero.
    pub close_timeout: Duration,
    /// A session ends when the credential that opened it expires.
    pub until_credential_expires: bool,
    /// What a session does when its tenant moves to the other colour.
    pub on_switch: OnSwitch,
    /// What a session does when another binary takes over.
    pub on_upgrade: OnUpgrade,
    /// Over how long sessions that drain are spread; zero for at once.
    pub jitter: Duration,
}
