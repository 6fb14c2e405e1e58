//! From a process in which everything is made to one that serves, and alone, or the way out of that.

use super::operate::Ends;
use super::{Admin, Failure, Prepared, probe};
use crate::control::admin::AdminSocket;
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

/// What has everything and takes no connection yet.
struct Set<L> {
    admin_socket: AdminSocket,
    admin_port: AdminPort,
    /// An accept loop for each listener.
    loops: Vec<L>,
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
        let set = set(prepared, admin, takeover.as_deref_mut()).await?;
        let handed = match takeover {
            Some(takeover) => Some(takeover.taken(predecessors).await?),
            None => None,
        };
        for accept in set.loops {
            prepared.data.spawn(accept);
        }
        Ok::<_, Failure>((set.admin_socket, set.admin_port, handed))
    };
    let (admin_socket, admin_port, handed) = tokio::select! {
        // Once the other one has let go, there is nobody else to serve.
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

/// Everything but the start. Where another process serves, proves itself, and gets its sockets.
async fn set(
    prepared: &Prepared,
    admin: Admin,
    takeover: Option<&mut Takeover>,
) -> Result<Set<impl Future<Output = ()> + Send + use<>>, Failure> {
    let Prepared {
        hub,
        server,
        data,
        promised,
        ..
    } = prepared;
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
    let (admin_socket, kept) = match admin {
        Admin::Here(socket, kept) => (socket, kept),
        Admin::Promised(kept) => {
            let socket = sockets
                .next()
                .context("the admin API's socket is missing")?;
            let address = &hub.snapshot().config.admin.address;
            (AdminSocket::received(socket, address), kept)
        }
    };
    let admin_port = AdminPort::new(&admin_socket, kept).context("admin API")?;
    let mut loops = Vec::with_capacity(hub.listeners.len());
    for (index, bound) in hub.listeners.iter().enumerate() {
        let accept = server.listen(index, bound, hub.lifecycle().stop());
        loops.push(accept.with_context(|| format!("listener `{}`", bound.name))?);
    }
    hub.snapshot()
        .clusters
        .start_health_checks(&tokio::runtime::Handle::current());
    Ok(Set {
        admin_socket,
        admin_port,
        loops,
    })
}
