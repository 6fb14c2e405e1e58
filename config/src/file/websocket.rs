use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a route takes WebSockets. Each key has a default, so an empty table will do.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocket {
    /// Origins whose pages may connect, as browsers send them: `https://app.example.com`. Empty: any.
    /// A client that sends no `Origin` may always connect; every browser sends it.
    pub origins: Vec<String>,
    /// Text messages must be UTF-8 (RFC 6455, section 8.1). Default true.
    pub utf8: bool,
    /// permessage-deflate (RFC 7692): `refuse`, or `pass` for what client and application agree on. With
    /// `pass`, sizes count what travels, and text in compressed messages is not checked. Default `refuse`.
    pub compression: Compression,
    /// Largest payload of one frame, either way, in bytes; 1 to 1073741824. Default 1048576 (1 MiB).
    #[schemars(range(min = 1, max = 1073741824))]
    pub frame_bytes_max: u64,
    /// Largest payload of one message, either way, in bytes; 1 to 1099511627776. Default 1048576 (1 MiB).
    #[schemars(range(min = 1, max = 1099511627776_u64))]
    pub message_bytes_max: u64,
    /// Most frames of one message, either way; 1 to 1000000. Default 1024.
    #[schemars(range(min = 1, max = 1000000))]
    pub fragments_max: u32,
    /// Messages a second that one client may send; 1 to 1000000. One that is faster is read more slowly, and
    /// nothing is lost. Absent: unlimited.
    #[schemars(range(min = 1, max = 1000000))]
    pub client_messages_per_second: Option<u32>,
    /// Kilobytes (1,024 bytes) a second that one client may send, heads of frames included; 1 to 1000000.
    /// Absent: unlimited.
    #[schemars(range(min = 1, max = 1000000))]
    pub client_kilobytes_per_second: Option<u32>,
    /// Messages a second that the application may send to one client; 1 to 1000000. Absent: unlimited.
    #[schemars(range(min = 1, max = 1000000))]
    pub upstream_messages_per_second: Option<u32>,
    /// Kilobytes (1,024 bytes) a second that the application may send to one client, heads of frames
    /// included; 1 to 1000000. Absent: unlimited.
    #[schemars(range(min = 1, max = 1000000))]
    pub upstream_kilobytes_per_second: Option<u32>,
    /// Most sessions open at a time on this route, in this process; 1 to 1000000. Absent: unlimited.
    #[schemars(range(min = 1, max = 1000000))]
    pub connections_max: Option<u32>,
    /// Longest time without a message either way, in milliseconds; 0 to 86400000. 0 means no such bound.
    /// Default 0.
    #[schemars(range(min = 0, max = 86400000))]
    pub idle_timeout_ms: u32,
    /// Longest life of a session, in milliseconds; 0 to 86400000. 0 means no such bound. Default 86400000.
    #[schemars(range(min = 0, max = 86400000))]
    pub lifetime_ms: u32,
    /// A side that said nothing for this long gets a Ping, in milliseconds; 0 to 86400000. 0 sends none.
    /// Default 30000.
    #[schemars(range(min = 0, max = 86400000))]
    pub ping_interval_ms: u32,
    /// Longest wait for anything from a side that got a Ping, in milliseconds; 1 to 86400000. Default 10000.
    #[schemars(range(min = 1, max = 86400000))]
    pub pong_timeout_ms: u32,
    /// Longest pause in which a side takes nothing of what is sent to it, in milliseconds; 1 to 86400000.
    /// Default 30000.
    #[schemars(range(min = 1, max = 86400000))]
    pub write_timeout_ms: u32,
    /// Longest wait, at a session's end, for the other side's Close and the last bytes, in milliseconds; 1 to
    /// 86400000. Default 5000.
    #[schemars(range(min = 1, max = 86400000))]
    pub close_timeout_ms: u32,
    /// A session ends when the credential that opened it expires. Default true.
    pub until_credential_expires: bool,
    /// What a session does when its tenant moves to the other colour: `pin` (stays until it ends), `drain`
    /// (gets Close 1012 at a random moment within `jitter_ms`), `cut` (gets it at once). Default `pin`.
    pub on_switch: OnSwitch,
    /// What a session does when another binary takes over: `keep` (stays with the old process until its grace
    /// ends), `drain` (gets Close 1012 at a random moment within `jitter_ms`). Default `keep`.
    pub on_upgrade: OnUpgrade,
    /// Over how long the sessions that `drain` are spread, in milliseconds; 0 to 3600000. Default 10000.
    #[schemars(range(min = 0, max = 3600000))]
    pub jitter_ms: u32,
}

/// What becomes of permessage-deflate (RFC 7692).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// The application is never asked for it, so it is not agreed on.
    #[default]
    Refuse,
    /// Client and application may agree on it.
    Pass,
}

/// What a session does when its tenant moves to the other colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnSwitch {
    /// Stays where it is until it ends.
    #[default]
    Pin,
    /// Gets Close 1012 at a random moment within the jitter.
    Drain,
    /// Gets Close 1012 at once.
    Cut,
}

/// What a session does when another binary takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUpgrade {
    /// Stays with the old process until its grace ends.
    #[default]
    Keep,
    /// Gets Close 1012 at a random moment within the jitter.
    Drain,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            utf8: true,
            compression: Compression::default(),
            frame_bytes_max: 1 << 20,
            message_bytes_max: 1 << 20,
            fragments_max: 1_024,
            client_messages_per_second: None,
            client_kilobytes_per_second: None,
            upstream_messages_per_second: None,
            upstream_kilobytes_per_second: None,
            connections_max: None,
            idle_timeout_ms: 0,
            lifetime_ms: 86_400_000,
            ping_interval_ms: 30_000,
            pong_timeout_ms: 10_000,
            write_timeout_ms: 30_000,
            close_timeout_ms: 5_000,
            until_credential_expires: true,
            on_switch: OnSwitch::default(),
            on_upgrade: OnUpgrade::default(),
            jitter_ms: 10_000,
        }
    }
}
