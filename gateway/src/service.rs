//! The gateway as a service of systemd, or of whoever speaks its protocol: sockets that it was started with
//! ([`activation`]), what it tells its manager ([`notify`]), and that it is alive ([`watchdog`]).
//!
//! Each part does nothing where the environment does not ask for it: a gateway that was started from a
//! shell behaves as if this module were not there.
//!
//! Invariant: READY=1 is told when each listener has taken a connection, not when it is bound.
//! Invariant: nothing is told to be ready once the drain has begun.

pub mod activation;
pub mod notify;
pub(crate) mod watchdog;

use crate::control::reload::Outcome;
use crate::hub::Hub;
use crate::lifecycle::Phase;
use notify::{Word, monotonic};
use std::sync::Arc;
use std::time::Duration;
use watchdog::Watch;

/// Added to what a drain may take: the last lines of the log, and the end of threads.
const END: Duration = Duration::from_secs(10);

/// Tells that the process is ready once it has proved that, and from then on that it is alive, as often as
/// the manager wants to hear it. Without a manager it returns at once.
pub(crate) async fn attend(hub: Arc<Hub>, data: tokio::runtime::Handle) {
    let service = hub.lifecycle().service();
    if !service.is_heard() {
        return;
    }
    let every = watchdog::from_env();
    let mut watch = Watch::begin(Arc::clone(&hub), data).await;
    ready(&hub);
    if let Some(every) = every {
        watch.feed(every).await;
    }
}

/// Tells that a reload has begun.
pub(crate) fn reloading(hub: &Hub) {
    if hub.lifecycle().phase() == Phase::Serving {
        let words = [Word::Reloading(monotonic()), Word::Status("reloading")];
        hub.lifecycle().service().tell(&words);
    }
}

/// Tells that a reload has ended, and how. Ready in any case: what was in force goes on.
pub(crate) fn reloaded(hub: &Hub, outcome: &Outcome) {
    if hub.lifecycle().phase() != Phase::Serving {
        return;
    }
    let remark = match outcome {
        Outcome::Applied { .. } | Outcome::Unchanged { .. } | Outcome::WouldApply { .. } => {
            String::new()
        }
        Outcome::Rejected { problems } => format!(
            "; the last reload was rejected, the log says why (problems: {})",
            problems.len()
        ),
        Outcome::NeedsUpgrade { settings, .. } => format!(
            "; the last reload was rejected, because a running process cannot change {}",
            settings.join(", ")
        ),
    };
    let status = status(hub) + &remark;
    let words = [Word::Ready, Word::Status(&status)];
    hub.lifecycle().service().tell(&words);
}

/// Tells that an upgrade has begun, which is a kind of reload, and asks for the time that it may take.
pub(crate) fn upgrading(hub: &Hub, longest: Duration) {
    hub.lifecycle().service().tell(&[
        Word::Reloading(monotonic()),
        Word::ExtendTimeout(longest + END),
        Word::Status("upgrading: another process is started; this one serves meanwhile"),
    ]);
}

/// Tells that an upgrade came to nothing. Of one that went well, the new process tells.
pub(crate) fn upgrade_aborted(hub: &Hub, why: &str) {
    if hub.lifecycle().phase() != Phase::Serving {
        return;
    }
    let status = format!("{}; the last upgrade was aborted: {why}", status(hub));
    let words = [Word::Ready, Word::Status(&status)];
    hub.lifecycle().service().tell(&words);
}

/// Tells that the drain has begun, and asks for the time that it may take.
pub(crate) fn stopping(hub: &Hub, longest: Duration) {
    hub.lifecycle().service().tell(&[
        Word::Stopping,
        Word::Status("draining: readiness is off, connections are still taken"),
        // A drain is as long as the configuration says; TimeoutStopSec= need not know.
        Word::ExtendTimeout(longest + END),
    ]);
}

/// Tells that listeners are closed and how many requests are waited for.
pub(crate) fn draining(hub: &Hub) {
    let status = format!(
        "draining: no new connections, requests in flight: {}",
        hub.lifecycle().in_flight()
    );
    hub.lifecycle().service().tell(&[Word::Status(&status)]);
}

fn ready(hub: &Hub) {
    if hub.lifecycle().phase() != Phase::Serving {
        return;
    }
    let status = status(hub);
    hub.lifecycle().service().tell(&[
        Word::Ready,
        // Says nothing new to a manager that started this process, and all to one that started the
        // process before it.
        Word::MainPid(std::process::id()),
        Word::Status(&status),
    ]);
}

fn status(hub: &Hub) -> String {
    let snapshot = hub.snapshot();
    let config = &snapshot.config;
    format!(
        "serving: listeners {}, routes {}, tenants {}, configuration {} (epoch {})",
        hub.listeners.len(),
        config.routes.len(),
        config.tenants.len(),
        config.hash,
        snapshot.epoch
    )
}
