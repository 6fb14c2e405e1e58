//! From a process in which everything is made to one that serves, and alone, or the way out of that.

use super::operate::{Ends, LAST_LINES};
use super::{Admin, Failure, Prepared, drain, probe};
use crate::control::admin::AdminSocket;
use crate::hub::Hub;
use crate::service::watchdog;
use crate::upgrade::{AdminPort, Handed, Predecessors, Takeover};
use anyhow::{Context as _, anyhow};
use rustix::fd::OwnedFd;

/// A process that serves, and is the only one that does, but for those that drain.
pub(super) struct Begun {
    pub(super) admin_socket: AdminSocket,
    pub(super) admin_port: AdminPort,
    pub(super) handed: Option<Handed>,
    pub(super) ends: Ends,
}

/// Serves, and where another process does, waits until that one has let go. All that may fail comes before.
pub(super) async fn begin(
    prepared: &Prepared,
    admin: Admin,
    takeover: Option<&mut Takeover>,
    predecessors: &Predecessors,
) -> Result<Begun, Failure> {
    let mut ends = Ends::new().context("cannot listen for signals")?;
    let is_successor = takeover.is_some();
    let begin = async {
        let mut takeover = takeover;
        let (admin_socket, kept) = start(prepared, admin, takeover.as_deref_mut()).await?;
        let admin_port = AdminPort::new(&admin_socket, kept).context("admin API")?;
        let handed = match takeover {
            Some(takeover) => Some(takeover.serving(predecessors).await?),
            None => None,
        };
        Ok::<_, Failure>((admin_socket, admin_port, handed))
    };
    let (admin_socket, admin_port, handed) = tokio::select! {
        // Once the other one has let go, there is nobody to withdraw for.
        biased;
        begun = begin => begun?,
        () = ends.recv(), if is_successor => {
            return Err(anyhow!("it was told to end before it had taken over").into());
        }
    };
    Ok(Begun {
        admin_socket,
        admin_port,
        handed,
        ends,
    })
}

/// Leaves the service to the process that serves, and its own clients with their answers. Signals that end a
/// process change nothing any more: the other one kills this one where it takes too long.
pub(super) async fn withdraw(hub: &Hub, takeover: &Takeover, why: &Failure) {
    let why = why.to_string();
    tracing::error!(
        why,
        "this process does not take over; it finishes with the clients that it has"
    );
    let drain = hub.snapshot().config.gateway.drain_timeout;
    tokio::join!(drain::withdraw(hub, drain), takeover.give_up(&why, drain));
    if !hub.access_log.shutdown(LAST_LINES) {
        tracing::warn!("the access log's last lines could not be written in time");
    }
}

/// Starts to take connections. Where another process serves, proves itself before and afterwards. The admin
/// API's socket, and whether a service manager keeps it.
async fn start(
    prepared: &Prepared,
    admin: Admin,
    takeover: Option<&mut Takeover>,
) -> Result<(AdminSocket, bool), Failure> {
    let Prepared {
        hub,
        server,
        data,
        promised,
        ..
    } = prepared;
    let is_taken_over = takeover.is_some();
    let mut sockets = Vec::new();
    if let Some(takeover) = takeover {
        let asked = probe::ask_ourselves(hub, server, data.handle()).await;
        asked.map_err(|why| anyhow!(why))?;
        let listeners = hub.listeners.iter().enumerate();
        let bound = listeners.filter(|(index, _)| !promised.contains(index));
        let bound = bound.map(|(_, listener)| listener.name.clone()).collect();
        let hash = hub.snapshot().config.hash.to_string();
        sockets = takeover.ready(hash, bound).await?;
    }
    let mut sockets = sockets.into_iter();
    for index in promised {
        let socket: OwnedFd = sockets.next().context("a socket is missing")?;
        let listener = &hub.listeners[*index];
        listener
            .receive(socket)
            .with_context(|| format!("listener `{}`", listener.name))?;
    }
    let admin = match admin {
        Admin::Here(socket, kept) => (socket, kept),
        Admin::Promised(kept) => {
            let socket = sockets
                .next()
                .context("the admin API's socket is missing")?;
            let address = &hub.snapshot().config.admin.address;
            (AdminSocket::received(socket, address), kept)
        }
    };
    for (index, bound) in hub.listeners.iter().enumerate() {
        // Until the other process lets go.
        bound.share(is_taken_over);
        let serve = server.listen(index, bound, hub.lifecycle().stop());
        data.spawn(serve.with_context(|| format!("listener `{}`", bound.name))?);
    }
    hub.snapshot()
        .clusters
        .start_health_checks(&tokio::runtime::Handle::current());
    if is_taken_over {
        watchdog::take_turns(hub).await.map_err(|name| {
            anyhow!("listener `{name}` takes no connection of this process's own")
        })?;
    }
    Ok(admin)
}
