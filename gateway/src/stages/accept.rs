//! accept: from bytes to an exchange with an id, a client and a snapshot.

use super::{Arrival, BodyLength, Exchange, Target};
use crate::hub::Hub;
use crate::snapshot::Snapshot;
use hub_config::runtime::TenantIndex;
use hub_core::{
    Edit, Edits, HeaderName, Headers, Reason, Refusal, RequestId, TraceContext, Version,
};
use rand::Rng;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

impl Exchange {
    /// Begins a request: gives it an id and a trace. It keeps the snapshot to its end.
    pub fn begin(
        hub: &Arc<Hub>,
        snapshot: Arc<Snapshot>,
        arrival: Arrival,
        version: Version,
        headers: Headers<'_>,
    ) -> Box<Self> {
        hub.metrics.started();
        Self::new(hub, snapshot, arrival, version, headers)
    }

    /// An errand of the gateway's own to a target. It is in no metric and no log.
    pub(crate) fn errand(
        hub: &Arc<Hub>,
        snapshot: Arc<Snapshot>,
        arrival: Arrival,
        tenant: Option<TenantIndex>,
        target: Target,
    ) -> Box<Self> {
        let headers = Headers::new(&[]);
        let mut exchange = Self::new(hub, snapshot, arrival, Version::Http11, headers);
        exchange.tenant = tenant;
        exchange.target = Some(target);
        exchange.recorded = true;
        exchange
    }

    fn new(
        hub: &Arc<Hub>,
        snapshot: Arc<Snapshot>,
        arrival: Arrival,
        version: Version,
        headers: Headers<'_>,
    ) -> Box<Self> {
        let wall = SystemTime::now();
        let mut rng = rand::rng();
        let unix_ms = wall
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        let request_id = RequestId::new(u64::try_from(unix_ms).unwrap_or(0), rng.random());
        let (trace, begun) = trace(headers, &mut rng);
        let mut edits = Edits::default();
        if begun && headers.get("tracestate").is_some() {
            // It belongs to a trace that does not go on (W3C Trace Context, section 3.3.1).
            edits.request.push(Edit::Remove(TRACESTATE));
        }
        Box::new(Self {
            snapshot,
            arrival,
            wall,
            request_id,
            trace,
            version,
            route: None,
            identity: None,
            tenant: None,
            edits,
            rate: None,
            permit: None,
            guard: None,
            target: None,
            first_colour: None,
            pick: None,
            retries: 0,
            upstream_began: None,
            upstream_first_byte: None,
            refusal: None,
            status: 0,
            upgrade_refused: false,
            bytes_in: 0,
            bytes_out: 0,
            recorded: false,
            _in_flight: hub.begin(),
            hub: Arc::clone(hub),
        })
    }

    /// True once; the caller then records the exchange.
    pub(super) fn take_record(&mut self) -> bool {
        !std::mem::replace(&mut self.recorded, true)
    }
}

/// Goes on with the caller's trace where exactly one well-formed `traceparent` is there, starts one
/// otherwise, which the second value tells. The span id is ours in either case.
fn trace(headers: Headers<'_>, rng: &mut impl Rng) -> (TraceContext, bool) {
    let mut values = headers.get_all("traceparent");
    let given = match (values.next(), values.next()) {
        (Some(value), None) => TraceContext::parse(value),
        _ => None,
    };
    let trace = TraceContext {
        trace_id: given.map_or_else(|| rng.random::<u128>().max(1), |trace| trace.trace_id),
        parent_id: rng.random::<u64>().max(1),
        flags: given.map_or(0, |trace| trace.flags),
    };
    (trace, given.is_none())
}

/// Refuses a body that says beforehand that it is too large. One that does not say is counted while
/// it streams.
pub(super) fn check_body_length(body: BodyLength, bytes_max: u64) -> Result<(), Refusal> {
    match body {
        BodyLength::Known(bytes) if bytes > bytes_max => Err(Refusal::new(Reason::BodyTooLarge)),
        BodyLength::None | BodyLength::Known(_) | BodyLength::Unknown => Ok(()),
    }
}
