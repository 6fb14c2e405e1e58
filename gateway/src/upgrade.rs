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
//! | | `taken` | the new one has the rest: admin API, rollouts |
//! | `parted` | | the service manager knows; the old one takes no connection any more |
//!
//! Until `taken` is read the old process serves as ever, and whatever goes wrong ends the child and nothing
//! else. Both take connections from `serving` on, so that there is no moment in which nobody does. A new
//! process whose predecessor goes away ends if it has no sockets, and takes over if it has them.
//!
//! Invariant: the old process stops accepting only after it has read `taken` from a child that lives.
//! Invariant: one process at a time decides rollouts: those of the old one are held from before the child
//! starts, and those of the new one start after `commit`.
//! Invariant: a process that is draining, or that upgrades already, begins no upgrade, and at most
//! [`DRAINING_MAX`] processes drain behind the one that serves.
//!
//! Shape and what it was compared with: `docs/adr/0006-binary-upgrade.md`.

mod channel;
mod child;
mod control_socket;
mod error;
mod handover;
mod predecessors;
mod sockets;
mod takeover;
mod upgrader;

pub(crate) use child::Program;
pub(crate) use handover::AdminPort;
pub(crate) use predecessors::Predecessors;
pub(crate) use takeover::{Handed, Takeover};
pub(crate) use upgrader::{Order, Refused, Trigger, Upgrader};

use std::time::Duration;

/// Version of the messages. Processes of different versions do not hand anything over.
const PROTOCOL: u32 = 1;
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
