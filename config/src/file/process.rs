use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The process as a whole.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Worker threads of the data plane; 0 to 256. 0 means one a core. Default 0.
    #[schemars(range(min = 0, max = 256))]
    pub workers: u16,
    /// After SIGTERM: how long readiness says 503 while new connections are still taken, so that
    /// load balancers notice, in milliseconds; 0 to 600000. Default 2000.
    #[schemars(range(min = 0, max = 600000))]
    pub drain_notice_ms: u32,
    /// After that: longest wait for requests in flight, in milliseconds; 0 to 3600000. Default 30000.
    #[schemars(range(min = 0, max = 3600000))]
    pub drain_timeout_ms: u32,
    /// Longest time that an upgrade of the binary may take until the new process serves, in milliseconds;
    /// 100 to 600000. After it the new process is ended, and the old one goes on. Default 30000.
    #[schemars(range(min = 100, max = 600000))]
    pub upgrade_timeout_ms: u32,
    /// After an upgrade: how long the old process goes on serving the connections that it has, WebSockets
    /// among them, in milliseconds; 0 to 604800000. It ends earlier where none is left. Default 600000.
    #[schemars(range(min = 0, max = 604800000))]
    pub upgrade_grace_ms: u32,
    /// Watch this file, the tenant directory and the certificates, and reload when they change.
    /// Default true.
    pub reload_on_change: bool,
    /// Least log level of the gateway's own log: `error`, `warn`, `info`, `debug`. Default `info`.
    pub log_level: LogLevel,
}

/// Least level of a log line that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// And what healed itself.
    Warn,
    /// And what an operator did.
    Info,
    /// And everything else.
    Debug,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            workers: 0,
            drain_notice_ms: 2_000,
            drain_timeout_ms: 30_000,
            upgrade_timeout_ms: 30_000,
            upgrade_grace_ms: 600_000,
            reload_on_change: true,
            log_level: LogLevel::Info,
        }
    }
}

/// The admin API, for operators only.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Loopback address as `host:port`, or `unix:/path`. Port 0 takes a free one. Default
    /// `127.0.0.1:9900`.
    pub address: String,
    /// File that holds the bearer token (at least 16 characters, trailing newline ignored).
    /// Exactly one of `token_file` and `token_env`; without either only health, readiness and
    /// metrics are served.
    pub token_file: Option<String>,
    /// Environment variable that holds the bearer token.
    pub token_env: Option<String>,
    /// File that gets one JSON line for each change asked for over the admin API. Default: the
    /// gateway's own log.
    pub audit_file: Option<String>,
    /// Requests a second that one caller may send to the admin API; 1 to 10000. Default 50.
    #[schemars(range(min = 1, max = 10000))]
    pub requests_per_second: u32,
    /// How many refused requests are remembered for `explain`; 0 to 1000000. Default 10000.
    #[schemars(range(min = 0, max = 1000000))]
    pub refusals_remembered: u32,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:9900".into(),
            token_file: None,
            token_env: None,
            audit_file: None,
            requests_per_second: 50,
            refusals_remembered: 10_000,
        }
    }
}

/// Where the gateway keeps what must outlive it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Folder of the embedded store, made where it is missing: the ledger of rollouts. Default: none, and
    /// then there are no rollouts.
    pub directory: Option<String>,
}

/// The access log: one JSON object a line.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// `off`, `stdout`, or a file, which is reopened when it is renamed away or on SIGUSR1. Default
    /// `stdout`.
    pub target: String,
    /// Lines that may wait for the writer; more are dropped and counted; 64 to 1048576. Default
    /// 8192.
    #[schemars(range(min = 64, max = 1048576))]
    pub queue_lines: u32,
    /// Longest time a line waits in the writer's buffer, in milliseconds; 1 to 10000. Default 200.
    #[schemars(range(min = 1, max = 10000))]
    pub flush_interval_ms: u32,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            target: "stdout".into(),
            queue_lines: 8_192,
            flush_interval_ms: 200,
        }
    }
}

/// Metrics.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Most tenants with a label of their own: all of them while there are no more than this, else
    /// the busiest, the rest as `other`; 0 to 10000. Default 200.
    #[schemars(range(min = 0, max = 10000))]
    pub tenant_labels_max: u32,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            tenant_labels_max: 200,
        }
    }
}
