//! The new process's side of a hand-over.

use super::channel::{Channel, Message};
use super::predecessors::{self, Predecessors};
use super::sockets::{Offer, Place, Role};
use super::{PROTOCOL, SOCKET};
use crate::front::listener::Source;
use crate::switch::admission::InUse;
use anyhow::{Context as _, bail};
use hub_config::runtime::AdminAddress;
use rustix::fd::OwnedFd;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Longest wait for the old process to answer hello.
const OFFER_MAX: Duration = Duration::from_secs(10);
/// How long a process whose end of the socket has closed may take to end.
const DEATH_MAX: Duration = Duration::from_secs(5);
/// Of a reason to give up, so many bytes are told; all of it is on stderr.
const WHY_BYTES_MAX: usize = 4096;

/// A process that serves, and would like this one to.
#[derive(Debug)]
pub(crate) struct Takeover {
    channel: Channel,
    offer: Offer,
    id: String,
    old: Old,
    /// Those that drain behind it.
    draining: Vec<(u32, OwnedFd)>,
    in_use: InUse,
    began: Instant,
}

/// The process that served before.
#[derive(Debug)]
struct Old {
    pid: u32,
    version: String,
    handle: OwnedFd,
}

/// All is this process's.
#[derive(Debug)]
pub(crate) struct Handed {
    /// The upgrade.
    pub(crate) id: String,
    /// Process id of the one that served before.
    pub(crate) from: u32,
    /// Its version.
    pub(crate) version: String,
    /// From hello to here.
    pub(crate) took: Duration,
    /// It may have been asked for a reload that it has left to this process.
    pub(crate) reload: bool,
}

// === impl Takeover ===

impl Takeover {
    /// Says hello to the process that has started this one as its successor. `None` where none has.
    /// Within a runtime.
    pub(crate) async fn from_env() -> anyhow::Result<Option<Self>> {
        let Some(path) = std::env::var_os(SOCKET) else {
            return Ok(None);
        };
        let began = Instant::now();
        let stream = UnixStream::connect(&path).await;
        let stream = stream.with_context(|| {
            format!("cannot connect to {path:?}, which {SOCKET} names; is it set by mistake?")
        })?;
        let peer = stream.peer_cred()?;
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        if peer.uid() != rustix::process::geteuid().as_raw() || peer.pid() != parent {
            bail!("the socket that {SOCKET} names does not belong to this process's parent");
        }
        let pid = u32::try_from(peer.pid().unwrap_or_default())?;
        let handle = predecessors::open(pid).context("the process that serves has ended")?;
        let mut channel = Channel::new(stream);
        let hello = Message::Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        channel.send(&hello).await?;
        let answer = timeout(OFFER_MAX, channel.receive()).await;
        let answer = answer.context("the process that serves does not answer")??;
        match answer {
            Some(Message::Offer {
                protocol: PROTOCOL,
                version,
                upgrade,
                sockets,
                draining,
                in_use,
            }) => {
                let handles = channel.take(draining.len())?;
                Ok(Some(Self {
                    channel,
                    offer: Offer::new(sockets),
                    id: upgrade,
                    old: Old {
                        pid,
                        version,
                        handle,
                    },
                    draining: draining.into_iter().zip(handles).collect(),
                    in_use,
                    began,
                }))
            }
            Some(Message::Offer { protocol, .. }) => bail!(
                "the process that serves speaks version {protocol} of the hand-over, and this one {PROTOCOL}"
            ),
            Some(other) => bail!("the process that serves said {}", other.name()),
            None => bail!("the process that serves has turned away"),
        }
    }

    /// The colours that clients of the process that serves are on.
    pub(crate) fn in_use(&self) -> &InUse {
        &self.in_use
    }

    /// The socket of the listener `name` at `wanted`, if it is offered: where it is bound, and whose it is.
    pub(crate) fn listener(
        &mut self,
        name: &str,
        wanted: SocketAddr,
    ) -> Option<(SocketAddr, Source)> {
        let role = Role::Listener(name.to_owned());
        let (_, offered) = self.offer.claim(&role, &Place::Tcp(wanted))?;
        let source = if offered.kept {
            Source::Inherited
        } else {
            Source::Bound
        };
        match offered.at {
            Place::Tcp(at) => Some((at, source)),
            Place::Unix(_) => None,
        }
    }

    /// True where the admin API's socket at `wanted` is offered; whether a service manager keeps it.
    pub(crate) fn admin(&mut self, wanted: &AdminAddress) -> Option<bool> {
        let (_, offered) = self.offer.claim(&Role::Admin, &Place::from(wanted))?;
        Some(offered.kept)
    }

    /// Ends the claiming.
    ///
    /// # Errors
    /// A socket that a service manager keeps is left: connections would wait in it for ever.
    pub(crate) fn finish(&self) -> anyhow::Result<()> {
        for left in self.offer.left() {
            let at = &left.at;
            let name = match &left.role {
                Role::Listener(name) => format!("listener `{name}`"),
                Role::Admin => "the admin API".to_owned(),
            };
            if left.kept {
                bail!(
                    "the socket of {name} ({at}) belongs to a socket unit, and the configuration has no listener for it any more; disable and stop the unit, and restart the service"
                );
            }
            tracing::warn!(
                socket = name,
                address = %at,
                "this socket is not taken over, because the configuration does not name it; it is closed with the process that serves now"
            );
        }
        Ok(())
    }

    /// Says that everything but the sockets is there, and waits for them: as many as were claimed, in order.
    pub(crate) async fn ready(
        &mut self,
        hash: String,
        bound: Vec<String>,
    ) -> anyhow::Result<Vec<OwnedFd>> {
        let claims = self.offer.claims().to_vec();
        let ready = Message::Ready {
            hash,
            claims: claims.clone(),
            bound,
        };
        self.channel.send(&ready).await?;
        let mut sockets = Vec::with_capacity(claims.len());
        loop {
            // The old process ends this one where it has waited for too long.
            match self.channel.receive().await? {
                Some(Message::Sockets { positions, last }) => {
                    let expected = claims.get(sockets.len()..sockets.len() + positions.len());
                    if expected != Some(&positions) {
                        bail!("the sockets that came are not those that were claimed");
                    }
                    sockets.extend(self.channel.take(positions.len())?);
                    if last {
                        break;
                    }
                }
                Some(other) => bail!("the process that serves said {}", other.name()),
                None => bail!(
                    "the process that serves has turned away before it handed its sockets over"
                ),
            }
        }
        if sockets.len() != claims.len() {
            bail!("fewer sockets came than were claimed");
        }
        Ok(sockets)
    }

    /// Says that this process could serve, and waits until it is the one that does. Where the old one has died
    /// it is, too. Before that it takes no connection.
    ///
    /// # Errors
    /// The old process lives and has turned away, so it goes on serving.
    pub(crate) async fn taken(&mut self, predecessors: &Predecessors) -> anyhow::Result<Handed> {
        let old = self.old.handle.try_clone()?;
        let parted = self.agree().await?;
        if parted.is_none() {
            let handle = predecessors::watched(self.old.handle.try_clone()?)?;
            let died = timeout(DEATH_MAX, handle.readable()).await.is_ok();
            if !died {
                bail!("the process that serves has turned away and lives");
            }
            tracing::warn!(
                pid = self.old.pid,
                "the process that served before has died in the middle of an upgrade; this one has its sockets and goes on"
            );
        }
        for (pid, handle) in self.draining.drain(..).chain([(self.old.pid, old)]) {
            // Nobody else serves any more, so this is no reason to end.
            if let Err(error) = predecessors.add(pid, handle) {
                tracing::error!(pid, %error, "a process that drains cannot be watched");
            }
        }
        Ok(Handed {
            id: self.id.clone(),
            from: self.old.pid,
            version: self.old.version.clone(),
            took: self.began.elapsed(),
            // What a dead one was asked for is not known.
            reload: parted.unwrap_or(true),
        })
    }

    /// From `taken` to `parted`: whether a reload is left to this process. `None` where the old one has
    /// closed its side: until it has parted it may change its mind, so this process does nothing that only
    /// one may do.
    async fn agree(&mut self) -> anyhow::Result<Option<bool>> {
        if self.channel.send(&Message::Taken).await.is_err() {
            return Ok(None);
        }
        // Without a bound: the old one parts, or ends this one, or dies.
        match self.channel.receive().await {
            Ok(Some(Message::Parted { reload })) => Ok(Some(reload)),
            Ok(Some(other)) => bail!("the process that serves said {}", other.name()),
            Ok(None) | Err(_) => Ok(None),
        }
    }

    /// Says why this process will not serve.
    pub(crate) async fn give_up(&self, why: &str) {
        let end = why.floor_char_boundary(WHY_BYTES_MAX);
        let why = why[..end].to_owned();
        let message = Message::GaveUp { why };
        let said = timeout(OFFER_MAX, self.channel.send(&message));
        // Where nobody hears it, it is on stderr all the same.
        let _unheard = said.await.map(drop);
    }
}
