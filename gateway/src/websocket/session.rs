//! An open session: its relay, what it counts on, and its record.

use super::registry::{Direction, Place, Ticket};
use super::relay::{By, Outcome, Relay, Why};
use crate::front::app::Connection;
use crate::hub::Hub;
use crate::lifecycle::InFlight;
use crate::switch::traffic::Guard;
use crate::telemetry::WebSocketRecord;
use crate::tenant_state::TenantState;
use crate::upstream::Wire;
use hub_core::LocationId;
use pingora::protocols::Stream;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

/// An open session.
///
/// Invariant: it holds no snapshot and no exchange. So sessions that last for days keep no configuration.
pub(super) struct Session {
    pub(super) hub: Arc<Hub>,
    pub(super) relay: Relay<Stream, Wire>,
    pub(super) ticket: Ticket,
    pub(super) place: Place,
    pub(super) tenant: Option<Arc<TenantState>>,
    /// Counted so far, by direction.
    pub(super) counted: [(u64, u64); 2],
    /// Its colour is in use.
    pub(super) _guard: Option<Guard>,
    pub(super) _in_flight: InFlight,
    /// The listener counts it.
    pub(super) _connection: Arc<Connection>,
    pub(super) is_recorded: bool,
}

impl Session {
    /// Relays until it is over.
    pub(super) async fn run(mut self) {
        let outcome = std::future::poll_fn(|cx| self.poll(cx)).await;
        self.record(outcome);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(order) = self.ticket.entry.look(cx.waker()) {
            self.relay.order(order);
        }
        let polled = self.relay.poll(cx);
        self.count();
        polled
    }

    /// Counts what went through since the last time.
    fn count(&mut self) {
        let counts = self.relay.counts();
        let directions = [Direction::In, Direction::Out];
        let mut bytes = [0; 2];
        for (at, direction) in directions.into_iter().enumerate() {
            let (now, before) = (counts[at], self.counted[at]);
            bytes[at] = now.1 - before.1;
            if now != before {
                let messages = now.0 - before.0;
                self.place.route.passed(direction, messages, bytes[at]);
                self.ticket.entry.passed(direction, messages, bytes[at]);
            }
        }
        self.counted = counts;
        if let Some(tenant) = self.tenant.as_ref().filter(|_| bytes != [0; 2]) {
            tenant.transferred(bytes[0], bytes[1]);
        }
    }

    fn record(&mut self, outcome: Outcome) {
        self.is_recorded = true;
        self.place.route.closed(outcome.code);
        let entry = &self.ticket.entry;
        let about = &entry.about;
        self.hub.access_log.log(&WebSocketRecord {
            at: SystemTime::now(),
            request_id: about.request_id,
            client: about.client,
            route: &about.route,
            cluster: &about.cluster,
            colour: crate::snapshot::colour_name(about.colour),
            endpoint: &about.endpoint,
            tenant: about.tenant.as_ref().map(LocationId::as_str),
            code: outcome.code,
            by: outcome.by.as_str(),
            why: outcome.why.as_str(),
            messages_in: outcome.up.0,
            messages_out: outcome.down.0,
            bytes_in: outcome.up.1,
            bytes_out: outcome.down.1,
            duration: entry.opened.elapsed(),
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.is_recorded {
            // Its task was dropped, at the end of the process.
            let [up, down] = self.relay.counts();
            self.record(Outcome {
                by: By::Gateway,
                why: Why::Cut,
                code: 1006,
                up,
                down,
            });
        }
    }
}
