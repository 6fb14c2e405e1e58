use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A public listener.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Unique name, 1 to 64 of `[a-z0-9_-]`: a metric label.
    pub name: String,
    /// `host:port` with a literal IPv4 or `[IPv6]` host. Port 0 takes a free one.
    pub address: String,
    /// TLS. Absent: plain HTTP.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// PROXY protocol v1/v2 before anything else: `off`, `optional` or `required`. Default `off`.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    /// Networks (CIDR) that may send a PROXY header; from others it is refused. Needed unless
    /// `proxy_protocol` is `off`.
    #[serde(default)]
    pub proxy_protocol_from: Vec<String>,
    /// How many proxies in front of us append to `X-Forwarded-For`; 0 to 10. 0 means that the
    /// header is not believed. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10))]
    pub trusted_hops: u8,
    /// Networks (CIDR) of the nearest of those proxies. From others, after a PROXY header if there is
    /// one, `X-Forwarded-For` and `X-Forwarded-Proto` are not believed. Needed where `trusted_hops`
    /// is more than 0.
    #[serde(default)]
    pub trusted_from: Vec<String>,
    /// Most connections at a time; 1 to 1000000. Default 10000.
    #[serde(default = "Listener::connections_max")]
    #[schemars(range(min = 1, max = 1000000))]
    pub connections_max: u32,
    /// Most connections at a time from one address; 1 to 1000000. Default 1000.
    #[serde(default = "Listener::connections_per_address_max")]
    #[schemars(range(min = 1, max = 1000000))]
    pub connections_per_address_max: u32,
    /// Longest time from the first byte of a head to its last, and for the first bytes of an HTTP/2
    /// connection, in milliseconds; 100 to 120000. Default 10000.
    #[serde(default = "Listener::head_timeout_ms")]
    #[schemars(range(min = 100, max = 120000))]
    pub head_timeout_ms: u32,
    /// Longest wait of an idle connection for its next request, in milliseconds; 100 to 3600000.
    /// Default 60000.
    #[serde(default = "Listener::idle_timeout_ms")]
    #[schemars(range(min = 100, max = 3600000))]
    pub idle_timeout_ms: u32,
    /// Longest pause between two reads of a request's body, in milliseconds; 100 to 3600000.
    /// Default 30000.
    #[serde(default = "Listener::body_timeout_ms")]
    #[schemars(range(min = 100, max = 3600000))]
    pub body_timeout_ms: u32,
    /// Longest pause in which the client takes none of an answer that is ready for it, in
    /// milliseconds; 100 to 3600000. Default 60000.
    #[serde(default = "Listener::write_timeout_ms")]
    #[schemars(range(min = 100, max = 3600000))]
    pub write_timeout_ms: u32,
    /// Largest head (request line and headers), in bytes; 1024 to 65536. Default 32768.
    #[serde(default = "Listener::head_bytes_max")]
    #[schemars(range(min = 1024, max = 65536))]
    pub head_bytes_max: u32,
    /// Longest request target, in bytes; 64 to 65536. Default 8192.
    #[serde(default = "Listener::uri_bytes_max")]
    #[schemars(range(min = 64, max = 65536))]
    pub uri_bytes_max: u32,
    /// Most headers; 1 to 128. Default 100.
    #[serde(default = "Listener::header_count_max")]
    #[schemars(range(min = 1, max = 128))]
    pub header_count_max: u16,
    /// Most requests on one HTTP/1 connection; 1 to 4294967295. Default 1000000.
    #[serde(default = "Listener::requests_per_connection_max")]
    #[schemars(range(min = 1, max = 4294967295_u32))]
    pub requests_per_connection_max: u32,
}

/// TLS of a listener. Versions 1.2 and 1.3.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificates; the client's SNI picks one by the names that the certificate itself carries.
    /// The first is also for clients that send no SNI or an unknown one. At least one.
    pub certificates: Vec<Certificate>,
    /// Longest handshake, in milliseconds; 100 to 60000. Default 5000.
    #[serde(default = "Tls::handshake_timeout_ms")]
    #[schemars(range(min = 100, max = 60000))]
    pub handshake_timeout_ms: u32,
    /// Offer HTTP/2 by ALPN. Default true.
    #[serde(default = "Tls::http2")]
    pub http2: bool,
    /// Least version: `1.2` or `1.3`. Default `1.2`.
    #[serde(default)]
    pub version_min: TlsVersion,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V13,
}

/// A certificate and its key. Both files are read again when either changes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM file: the certificate, then its intermediates.
    pub certificate_file: String,
    /// PEM file: the private key (PKCS#8, PKCS#1 or SEC1).
    pub key_file: String,
}

/// PROXY protocol on a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// Not looked for.
    #[default]
    Off,
    /// Read where it is there.
    Optional,
    /// Connections without it are closed.
    Required,
}

impl Listener {
    fn connections_max() -> u32 {
        10_000
    }
    fn connections_per_address_max() -> u32 {
        1_000
    }
    fn head_timeout_ms() -> u32 {
        10_000
    }
    fn idle_timeout_ms() -> u32 {
        60_000
    }
    fn body_timeout_ms() -> u32 {
        30_000
    }
    fn write_timeout_ms() -> u32 {
        60_000
    }
    fn head_bytes_max() -> u32 {
        32_768
    }
    fn uri_bytes_max() -> u32 {
        8_192
    }
    fn header_count_max() -> u16 {
        100
    }
    fn requests_per_connection_max() -> u32 {
        1_000_000
    }
}

impl Tls {
    fn handshake_timeout_ms() -> u32 {
        5_000
    }
    fn http2() -> bool {
        true
    }
}
