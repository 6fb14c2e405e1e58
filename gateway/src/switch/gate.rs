//! What a colour must show before clients reach it.
//!
//! In this order, and the first failure ends it: its endpoints answer their probe a few times in a row;
//! they answer the configured requests as told; they take connections, which wait in the pool for the first
//! clients. What needs no endpoint to be asked (that there are some, and that the colour finds its schema)
//! was looked at before, by `driver::prepared`.

use crate::lanes::general::errand::{Answer, Errands, Question};
use crate::snapshot::Snapshot;
use crate::stages::Target;
use hub_config::runtime::{Cluster, Colour, Endpoint, EndpointAddress, GateRequest, HealthProbe};
use hub_core::Method;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Successful probes of each endpoint, one after the other.
const PROBES: u32 = 3;
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// What kept a gate shut.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) check: Check,
    /// With endpoint, what was wanted, and what was got.
    pub(super) why: String,
}

/// The checks of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// The health probe.
    Probe,
    /// The configured requests.
    Request,
    /// Connections for the first clients.
    WarmUp,
    /// What the colour can run on, beside what the databases are like.
    Schema,
}

// === impl Check ===

impl Check {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Probe, Self::Request, Self::WarmUp, Self::Schema];

    /// As metrics spell it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Request => "request",
            Self::WarmUp => "warm_up",
            Self::Schema => "schema",
        }
    }

    pub(super) fn failed(self, why: String) -> Failed {
        Failed { check: self, why }
    }
}

/// Opens for the colour of the cluster at this position, or says why not.
pub(super) async fn gate(
    snapshot: &Arc<Snapshot>,
    errands: &Errands,
    target: Target,
) -> Result<(), Failed> {
    let config = &snapshot.config.clusters[target.cluster];
    for round in 0..PROBES {
        if round > 0 {
            tokio::time::sleep(PROBE_PAUSE).await;
        }
        let probed = snapshot
            .clusters
            .probe(config, target.cluster, target.colour);
        probed.await.map_err(|why| Check::Probe.failed(why))?;
    }
    for request in &config.gate.requests {
        for (index, endpoint) in endpoints(config, target.colour).iter().enumerate() {
            ask(snapshot, errands, target, index, request)
                .await
                .map_err(|why| {
                    let (name, endpoint) = (&request.name, &endpoint.name);
                    let tenant = request.tenant.as_ref();
                    let tenant =
                        tenant.map_or(String::new(), |id| format!(" for tenant {}", id.as_str()));
                    Check::Request.failed(format!(
                        "endpoint {endpoint}: request {name:?}, {} {}{tenant}: {why}",
                        request.method, request.path
                    ))
                })?;
        }
    }
    for (index, endpoint) in endpoints(config, target.colour).iter().enumerate() {
        warm_up(snapshot, errands, target, index)
            .await
            .map_err(|why| {
                Check::WarmUp.failed(format!(
                    "endpoint {}: of {} connections at a time (cluster.gate.warm_connections) one failed: {why}",
                    endpoint.name, config.gate.warm_connections
                ))
            })?;
    }
    Ok(())
}

fn endpoints(config: &Cluster, colour: Colour) -> &[Endpoint] {
    match colour {
        Colour::Blue => &config.blue,
        Colour::Green => &config.green,
    }
}

/// The endpoint must answer one request as told.
async fn ask(
    snapshot: &Arc<Snapshot>,
    errands: &Errands,
    target: Target,
    endpoint: usize,
    request: &GateRequest,
) -> Result<(), String> {
    let tenant = match &request.tenant {
        None => None,
        Some(id) => {
            let known = snapshot.config.tenants.get(id.as_ref());
            Some(
                known
                    .ok_or("there is no such tenant; name another one in cluster.gate.requests")?,
            )
        }
    };
    let host = request.host.clone();
    let question = Question {
        tenant,
        method: request.method.clone(),
        path: request.path.clone(),
        headers: request.headers.clone(),
        longest: request.latency_max,
        ..question(snapshot, target, endpoint, host)
    };
    let answers = errands.ask(&question, 1).await?;
    answers.iter().try_for_each(|answer| check(request, answer))
}

fn check(request: &GateRequest, answer: &Answer) -> Result<(), String> {
    if answer.status != request.status {
        let (got, wanted) = (answer.status, request.status);
        return Err(format!("answered {got}, not {wanted}"));
    }
    if let Some(text) = &request.body_contains
        && memchr::memmem::find(&answer.body, text.as_bytes()).is_none()
    {
        // A tenant's data: none of it belongs into ledgers and logs.
        let bytes = answer.body.len();
        return Err(format!(
            "{text:?} is not in the body, of which {bytes} bytes were looked at"
        ));
    }
    match &request.body_sha256 {
        Some(wanted) if *wanted != answer.sha256 => {
            let (got, wanted) = (hex(&answer.sha256), hex(wanted));
            Err(format!("the body's SHA-256 is {got}, not {wanted}"))
        }
        _ => Ok(()),
    }
}

/// Leaves connections to the endpoint in the pool. What it answers does not count, only that it does:
/// until it has answered, a connection cannot be kept.
async fn warm_up(
    snapshot: &Arc<Snapshot>,
    errands: &Errands,
    target: Target,
    endpoint: usize,
) -> Result<(), String> {
    let config = &snapshot.config.clusters[target.cluster];
    if config.gate.warm_connections == 0 || config.keepalive_timeout.is_none() {
        return Ok(());
    }
    let (method, path, host) = match config.health.as_ref().map(|health| &health.probe) {
        Some(HealthProbe::Http { path, host, .. }) => (Method::GET, path.clone(), host.clone()),
        Some(HealthProbe::Tcp) | None => (Method::HEAD, "/".to_owned(), None),
    };
    let question = Question {
        method,
        path,
        ..question(snapshot, target, endpoint, host)
    };
    let times = config.gate.warm_connections as usize;
    errands.ask(&question, times).await.map(drop)
}

/// A question to an endpoint, of which the caller says the rest.
fn question(
    snapshot: &Arc<Snapshot>,
    target: Target,
    endpoint: usize,
    host: Option<String>,
) -> Question {
    let config = &snapshot.config.clusters[target.cluster];
    let place = &endpoints(config, target.colour)[endpoint];
    let host = host.unwrap_or_else(|| match place.address {
        EndpointAddress::Tcp(_) => place.name.clone(),
        EndpointAddress::Unix(_) => "localhost".to_owned(),
    });
    Question {
        snapshot: Arc::clone(snapshot),
        target,
        endpoint,
        tenant: None,
        method: Method::GET,
        path: "/".to_owned(),
        host,
        headers: Vec::new(),
        longest: config.connect_timeout + config.first_byte_timeout,
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}
