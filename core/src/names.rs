//! Every metric and label name, and the family of headers that is ours, once.

/// Headers by which the gateway speaks to upstreams begin with this, in lower case. No client may set
/// one, nor one that an origin could take for one.
pub const OUR_HEADERS: &str = "x-hub-";

/// Requests finished, by route, cluster, colour and class of status.
pub const REQUESTS_TOTAL: &str = "hub_requests_total";
/// Seconds from the first byte of the head to the end of the answer.
pub const REQUEST_SECONDS: &str = "hub_request_duration_seconds";
/// Requests refused by the gateway itself, by reason.
pub const REFUSALS_TOTAL: &str = "hub_refusals_total";
/// Requests finished, by tenant (through the cardinality gate) and class of status.
pub const TENANT_REQUESTS_TOTAL: &str = "hub_tenant_requests_total";
/// Requests refused by a limit, by tenant (through the cardinality gate).
pub const TENANT_LIMITED_TOTAL: &str = "hub_tenant_limited_total";
/// Body bytes to and from clients, by tenant (through the cardinality gate) and direction.
pub const TENANT_BYTES_TOTAL: &str = "hub_tenant_bytes_total";
/// Requests begun. In flight is this less the finished ones.
pub const REQUESTS_STARTED_TOTAL: &str = "hub_requests_started_total";
/// Downstream connections accepted, by listener.
pub const CONNECTIONS_OPENED_TOTAL: &str = "hub_connections_opened_total";
/// Downstream connections closed, by listener.
pub const CONNECTIONS_CLOSED_TOTAL: &str = "hub_connections_closed_total";
/// TLS handshakes that failed, by reason.
pub const TLS_HANDSHAKE_FAILURES_TOTAL: &str = "hub_tls_handshake_failures_total";
/// When the certificate expires, in seconds since 1970, by file.
pub const TLS_CERTIFICATE_EXPIRY_SECONDS: &str = "hub_tls_certificate_expiry_timestamp_seconds";
/// Reads of certificate files, by outcome.
pub const TLS_CERTIFICATE_RELOADS_TOTAL: &str = "hub_tls_certificate_reloads_total";
/// 1 where the endpoint takes traffic, by cluster, colour and endpoint.
pub const ENDPOINT_HEALTHY: &str = "hub_endpoint_healthy";
/// Connect attempts, by cluster, colour and outcome.
pub const UPSTREAM_CONNECTS_TOTAL: &str = "hub_upstream_connects_total";
/// Requests tried on a second endpoint, by cluster.
pub const UPSTREAM_RETRIES_TOTAL: &str = "hub_upstream_retries_total";
/// Requests that the new colour of a rollout failed, by cluster, colour and outcome: `sent` to the old
/// colour, or `over_budget`.
pub const COLOUR_RETRIES_TOTAL: &str = "hub_colour_retries_total";
/// 1 for the phase in which a cluster's rollout is, by cluster and phase.
pub const ROLLOUT_PHASE: &str = "hub_rollout_phase";
/// Changes of a cluster's routing, by cluster.
pub const ROLLOUT_EPOCH: &str = "hub_rollout_epoch";
/// Steps of rollouts, by cluster and the phase that they led to.
pub const ROLLOUT_TRANSITIONS_TOTAL: &str = "hub_rollout_transitions_total";
/// Rollouts that went back or were given up, by cluster and reason.
pub const ROLLOUT_ROLLBACKS_TOTAL: &str = "hub_rollout_rollbacks_total";
/// What judges said, by cluster and outcome (`undecided`, `pass`, `fail`).
pub const ROLLOUT_VERDICTS_TOTAL: &str = "hub_rollout_verdicts_total";
/// Checks that kept a gate shut, by cluster and check.
pub const ROLLOUT_GATE_FAILURES_TOTAL: &str = "hub_rollout_gate_failures_total";
/// Requests of the present rollout that its judges did not hear of, by cluster.
pub const ROLLOUT_SAMPLES_LOST_TOTAL: &str = "hub_rollout_samples_lost_total";
/// From a routing on disk to the routing in force, in seconds, by cluster.
pub const ROLLOUT_FLIP_SECONDS: &str = "hub_rollout_flip_seconds";
/// Reloads, by outcome (`applied`, `unchanged`, `rejected`, `needs_upgrade`).
pub const RELOADS_TOTAL: &str = "hub_config_reloads_total";
/// Upgrades of the binary, by outcome (`committed`, told by the new process, and `aborted`).
pub const UPGRADES_TOTAL: &str = "hub_upgrades_total";
/// Processes that served before this one and still serve the clients that they have.
pub const PROCESSES_DRAINING: &str = "hub_processes_draining";
/// When the snapshot in force was taken, in seconds since 1970.
pub const SNAPSHOT_TIMESTAMP_SECONDS: &str = "hub_config_snapshot_timestamp_seconds";
/// Snapshots that are no longer in force and still held by requests.
pub const SNAPSHOTS_RETIRED: &str = "hub_config_snapshots_retired";
/// Tenants in the snapshot in force.
pub const TENANTS: &str = "hub_tenants";
/// WebSocket sessions that are open, by route.
pub const WEBSOCKETS_OPEN: &str = "hub_websockets_open";
/// WebSocket sessions that were opened, by route.
pub const WEBSOCKETS_OPENED_TOTAL: &str = "hub_websockets_opened_total";
/// WebSocket sessions that have ended, by route and code of the Close.
pub const WEBSOCKETS_CLOSED_TOTAL: &str = "hub_websockets_closed_total";
/// Complete WebSocket messages passed on, by route and direction.
pub const WEBSOCKET_MESSAGES_TOTAL: &str = "hub_websocket_messages_total";
/// Bytes of WebSocket frames passed on, by route and direction.
pub const WEBSOCKET_BYTES_TOTAL: &str = "hub_websocket_bytes_total";
/// Access-log lines written.
pub const LOG_LINES_TOTAL: &str = "hub_access_log_lines_total";
/// Access-log lines dropped because the queue was full or the file could not be written.
pub const LOG_DROPS_TOTAL: &str = "hub_access_log_dropped_total";
/// Failed attempts to open or write the access log.
pub const LOG_ERRORS_TOTAL: &str = "hub_access_log_errors_total";
/// Live entries evicted from the limiter's table because it was full.
pub const LIMITER_EVICTIONS_TOTAL: &str = "hub_limiter_evictions_total";
/// JWKS fetches, by plugin and outcome.
pub const JWKS_FETCHES_TOTAL: &str = "hub_jwks_fetches_total";
/// CPU time used, user and system, in seconds.
pub const PROCESS_CPU_SECONDS_TOTAL: &str = "process_cpu_seconds_total";
/// Resident memory in bytes.
pub const PROCESS_RESIDENT_BYTES: &str = "process_resident_memory_bytes";
/// Threads of the process.
pub const PROCESS_THREADS: &str = "process_threads";
/// Open file descriptors.
pub const PROCESS_OPEN_FDS: &str = "process_open_fds";
/// Most file descriptors that may be open (the soft limit).
pub const PROCESS_MAX_FDS: &str = "process_max_fds";
/// When the process started, in seconds since 1970.
pub const PROCESS_START_SECONDS: &str = "process_start_time_seconds";

/// Label names.
pub mod label {
    /// Name of the route, or `-` where none matched.
    pub const ROUTE: &str = "route";
    /// Name of the cluster, or `-`.
    pub const CLUSTER: &str = "cluster";
    /// `blue` or `green`, or `-`.
    pub const COLOUR: &str = "colour";
    /// `2xx`, `3xx`, `4xx`, `5xx`, `1xx`, or `none` where no answer was sent.
    pub const STATUS: &str = "status";
    /// A tenant's id, or `other`.
    pub const TENANT: &str = "tenant";
    /// A [`crate::Reason`]'s code.
    pub const REASON: &str = "reason";
    /// Name of the listener.
    pub const LISTENER: &str = "listener";
    /// Address of the endpoint as configured.
    pub const ENDPOINT: &str = "endpoint";
    /// Code of a WebSocket's Close, or `other`.
    pub const CODE: &str = "code";
    /// How something ended.
    pub const OUTCOME: &str = "outcome";
    /// Phase of a rollout.
    pub const PHASE: &str = "phase";
    /// A check of a gate.
    pub const CHECK: &str = "check";
    /// `in` or `out`.
    pub const DIRECTION: &str = "direction";
    /// Path of a file as configured.
    pub const FILE: &str = "file";
    /// Name of the plugin as configured.
    pub const PLUGIN: &str = "plugin";
}
