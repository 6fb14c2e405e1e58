//! The old process's side of a hand-over.

use super::channel::{Channel, DESCRIPTORS_MAX, Message};
use super::control_socket::ControlSocket;
use super::error::Error;
use super::predecessors::Predecessors;
use super::sockets::{Offered, Place, Role};
use super::{HELLO_MAX, PROTOCOL, TAKEN_MAX};
use crate::control::admin::AdminSocket;
use crate::front::listener::Source;
use crate::hub::Hub;
use crate::switch::admission;
use parking_lot::Mutex;
use rustix::fd::{AsFd as _, OwnedFd};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Child;
use tokio::time::{Instant, timeout};

/// How far an upgrade is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The new process is waited for.
    Starting,
    /// It loads, checks, builds and probes itself.
    Preparing,
    /// It gets the sockets.
    HandingOver,
}

/// The admin API's socket, to be handed over.
#[derive(Debug)]
pub(crate) struct AdminPort {
    pub(super) at: Place,
    pub(super) kept: bool,
    pub(super) descriptor: Mutex<Option<OwnedFd>>,
}

/// One try.
pub(super) struct Handover<'a> {
    pub(super) hub: &'a Arc<Hub>,
    pub(super) id: &'a str,
    pub(super) admin: &'a AdminPort,
    pub(super) predecessors: &'a Predecessors,
    /// When it must be over.
    pub(super) ends: Instant,
    /// Hears of each step, and of the new process's version once it is known.
    pub(super) told: &'a (dyn Fn(Step, Option<&str>) + Send + Sync),
}

// === impl Step ===

impl Step {
    /// As operators read it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Preparing => "preparing",
            Self::HandingOver => "handing_over",
        }
    }
}

// === impl Handover ===

impl Handover<'_> {
    /// Hands everything over to `child`, by way of `channel`, which is there once it has said hello. Until this
    /// returns well, this process serves, and is to go on serving.
    pub(super) async fn to(
        &self,
        child: &mut Child,
        control: &ControlSocket,
        channel: &mut Option<Channel>,
    ) -> Result<(), Error> {
        (self.told)(Step::Starting, None);
        let channel = channel.insert(self.greet(child, control).await?);
        let offered = self.offered();
        self.offer(child, channel, &offered).await?;
        let longest = self.left();
        let ready = self.hear(child, channel, "prepare", longest).await?;
        let Message::Ready { claims, .. } = ready else {
            return Err(unexpected("prepare", &ready));
        };
        let mut once = claims.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() != claims.len() || once.iter().any(|position| *position >= offered.len()) {
            return Err(io::Error::other("it claims what was not offered").into());
        }
        (self.told)(Step::HandingOver, None);
        self.pass_sockets(child, channel, &offered, &claims).await?;
        let taken = self.hear(child, channel, "take over", TAKEN_MAX).await?;
        if !matches!(taken, Message::Taken) {
            return Err(unexpected("take over", &taken));
        }
        match child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Error::Ended {
                what: "take over",
                how: status.to_string(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the child says hello.
    async fn greet(&self, child: &mut Child, control: &ControlSocket) -> Result<Channel, Error> {
        const WHAT: &str = "say hello";
        let ended = |how: String| Err(Error::Ended { what: WHAT, how });
        let Some(pid) = child.id() else {
            return ended("at once".to_owned());
        };
        let longest = HELLO_MAX.min(self.left());
        let accepted = tokio::select! {
            // One that has said hello and died is heard first.
            biased;
            accepted = timeout(longest, control.accept(pid)) => accepted,
            status = child.wait() => return ended(match status {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            }),
        };
        let late = |_| Error::Late {
            what: WHAT,
            longest,
        };
        let mut channel = accepted.map_err(late)??;
        let hello = self.hear(child, &mut channel, WHAT, longest).await?;
        let Message::Hello { protocol, version } = hello else {
            return Err(unexpected(WHAT, &hello));
        };
        (self.told)(Step::Preparing, Some(&version));
        if protocol != PROTOCOL {
            return Err(Error::Protocol(protocol));
        }
        Ok(channel)
    }

    /// What can be had: public listeners in order, then the admin API.
    fn offered(&self) -> Vec<Offered> {
        let listeners = self.hub.listeners.iter().map(|one| Offered {
            role: Role::Listener(one.name.clone()),
            at: Place::Tcp(one.address),
            kept: one.source == Source::Inherited,
        });
        let admin = Offered {
            role: Role::Admin,
            at: self.admin.at.clone(),
            kept: self.admin.kept,
        };
        listeners.chain([admin]).collect()
    }

    async fn pass_sockets(
        &self,
        child: &mut Child,
        channel: &Channel,
        offered: &[Offered],
        claims: &[usize],
    ) -> Result<(), Error> {
        // From here on a connection that is taken is due an answer: the other process would give it one.
        self.hub.listeners.iter().for_each(|one| one.share(true));
        let mut rest = claims;
        loop {
            let (positions, more) = rest.split_at(rest.len().min(DESCRIPTORS_MAX));
            let descriptor = |position: &usize| match self.hub.listeners.get(*position) {
                Some(listener) => listener.descriptor(),
                None => self.admin.descriptor(),
            };
            debug_assert_eq!(offered.len(), self.hub.listeners.len() + 1);
            let descriptors: Vec<OwnedFd> = positions
                .iter()
                .map(descriptor)
                .collect::<io::Result<_>>()?;
            let borrowed: Vec<_> = descriptors.iter().map(|one| one.as_fd()).collect();
            let message = Message::Sockets {
                positions: positions.to_vec(),
                last: more.is_empty(),
            };
            let sent = timeout(self.left(), channel.send_with(&message, &borrowed)).await;
            self.sent(child, sent, "take over").await?;
            if more.is_empty() {
                return Ok(());
            }
            rest = more;
        }
    }

    /// Tells what can be had, and who drains already: the new process has to know even where this one dies.
    async fn offer(
        &self,
        child: &mut Child,
        channel: &Channel,
        offered: &[Offered],
    ) -> Result<(), Error> {
        let draining = self.predecessors.descriptors();
        let descriptors = draining.iter().map(|(_, handle)| handle.get_ref().as_fd());
        let descriptors: Vec<_> = descriptors.collect();
        let message = Message::Offer {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            upgrade: self.id.to_owned(),
            sockets: offered.to_vec(),
            draining: draining.iter().map(|(pid, _)| *pid).collect(),
            in_use: admission::in_use(&self.hub.snapshot(), &self.hub.switchboard),
        };
        let sent = timeout(self.left(), channel.send_with(&message, &descriptors)).await;
        self.sent(child, sent, "prepare").await
    }

    async fn sent(
        &self,
        child: &mut Child,
        sent: Result<io::Result<()>, tokio::time::error::Elapsed>,
        what: &'static str,
    ) -> Result<(), Error> {
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if is_gone(&error) => Err(ended(child, what).await),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Error::Late {
                what,
                longest: self.left(),
            }),
        }
    }

    /// What the child says next, `longest` from now at most, and before all must be over.
    async fn hear(
        &self,
        child: &mut Child,
        channel: &mut Channel,
        what: &'static str,
        longest: Duration,
    ) -> Result<Message, Error> {
        let longest = longest.min(self.left());
        match timeout(longest, channel.receive()).await {
            Ok(Ok(Some(Message::GaveUp { why, .. }))) => Err(Error::GaveUp(why)),
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => Err(ended(child, what).await),
            Ok(Err(error)) if is_gone(&error) => Err(ended(child, what).await),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Error::Late { what, longest }),
        }
    }

    fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }
}

// === impl AdminPort ===

impl AdminPort {
    /// Of the admin API's socket, which a service manager keeps, too, or not.
    pub(crate) fn new(socket: &AdminSocket, kept: bool) -> io::Result<Self> {
        let at = match socket {
            AdminSocket::Tcp(socket) => Place::Tcp(socket.local_addr()?),
            AdminSocket::Unix(socket) => {
                let address = socket.local_addr()?;
                Place::Unix(address.as_pathname().unwrap_or("".as_ref()).to_owned())
            }
        };
        Ok(Self {
            at,
            kept,
            descriptor: Mutex::new(Some(socket.descriptor()?)),
        })
    }

    /// Where it is, as text.
    pub(crate) fn address(&self) -> String {
        self.at.to_string()
    }

    fn descriptor(&self) -> io::Result<OwnedFd> {
        let descriptor = self.descriptor.lock();
        let closed = || io::Error::other("the admin API's socket is closed");
        descriptor.as_ref().ok_or_else(closed)?.try_clone()
    }

    /// Closes this descriptor; whoever accepts has one of its own.
    pub(crate) fn close(&self) {
        drop(self.descriptor.lock().take());
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

fn unexpected(what: &'static str, message: &Message) -> Error {
    Error::Unexpected {
        what,
        said: message.name(),
    }
}

/// The child has closed its side: how it ended, which it has or is about to.
async fn ended(child: &mut Child, what: &'static str) -> Error {
    let how = match timeout(Duration::from_secs(1), child.wait()).await {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it closed the control socket".to_owned(),
    };
    Error::Ended { what, how }
}
