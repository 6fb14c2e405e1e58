//! Binary upgrades that abort themselves.
//!
//! The serving process starts the new binary, and the two talk over a control socket (mode 0600, in a
//! folder of mode 0700) whose other end must be that very child. What each says, in order:
//!
//! | old | new | meaning |
//! |---|---|---|
//! | | `hello` | it runs and speaks this protocol |
//! | `offer` | | which sockets can be had |
//! | | `ready` | configuration checked, everything built, own probe answered |
//! | `sockets` | | descriptors, in as many messages as it takes |
//! | | `serving` | each listener has taken a connection |
//! | `commit` | | the old one does nothing but serve clients from here on |
//! | | `taken` | the new one is ready to do the rest: admin API, rollouts, files |
//! | `parted` | | that is the new one's from now on, and the old one takes no connection any more |
//!
//! Until `taken` is read the old process serves as ever, and whatever goes wrong ends the child and nothing
//! else. Both take connections from `serving` on, so that there is no moment in which nobody does. So a child
//! that has the sockets may have clients: it is told to withdraw (SIGTERM), which is to take no more of them,
//! finish with those that it has, and end (`gave_up`); it is killed only where it does not, or does not say so
//! soon, and drains behind the old process as a predecessor does. A new process whose predecessor goes away ends if it has no sockets. If it
//! has them, it takes over where that one is dead, and withdraws where it lives.
//!
//! Invariant: the old process stops accepting only after it has read `taken` from a child that lives.
//! Invariant: one process at a time decides rollouts, and does what else only one may do: the old one's are
//! held from before the child starts, and the new one's begin with `parted`, or with the old one's death.
//! Invariant: no reload begins from before the child starts until the upgrade is over.
//! Invariant: a process that is draining, or that upgrades already, begins no upgrade, and at most
//! [`DRAINING_MAX`] processes drain behind the one that serves.
//!
//! Shape and what it was compared with: `docs/adr/0006-binary-upgrade.md`.

mod channel;
mod child;
mod control_socket;
mod error;
mod handover;
mod history;
mod order;
mod predecessors;
mod sockets;
mod takeover;
mod upgrader;

pub(crate) use child::Program;
pub(crate) use handover::AdminPort;
pub(crate) use order::{Order, Refused, Trigger};
pub(crate) use predecessors::Predecessors;
pub(crate) use takeover::{Handed, Takeover};
pub(crate) use upgrader::Upgrader;

use std::time::Duration;

/// Version of the messages. Processes of different versions do not hand anything over.
const PROTOCOL: u32 = 2;
/// Most processes that drain behind the one that serves.
pub(crate) const DRAINING_MAX: usize = 2;
/// Names the control socket to the new process.
const SOCKET: &str = "HUB_UPGRADE_SOCKET";
/// Longest wait for a new process to say hello.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a new process that has the sockets to serve.
const SERVING_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a new process to take what is left.
const TAKEN_MAX: Duration = Duration::from_secs(5);
/// How long a new process that withdraws waits for clients who keep a connection and ask nothing. Requests
/// may take `gateway.drain_timeout_ms` after that.
pub(crate) const WITHDRAW_IDLE_MAX: Duration = Duration::from_secs(5);
/// What it may take beyond both, before it is killed.
const WITHDRAW_END: Duration = Duration::from_secs(5);
/// Longest of its drains that is waited for.
const WITHDRAW_DRAIN_MAX: Duration = Duration::from_secs(3600);
/// How soon it has to say that it withdraws. One that cannot would go on taking connections.
const WITHDRAW_SAID_MAX: Duration = Duration::from_secs(3);
