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
//! | | `taken` | they are the right ones, and it is ready to accept and to do the rest: admin API, rollouts, files |
//! | `parted` | | all that is the new one's from now on, and the old one takes no connection any more |
//!
//! Until `taken` is read the old process serves as ever, and whatever goes wrong ends the child and nothing
//! else. The child accepts nobody before it has heard `parted`: so it may be killed at any moment, and no
//! client is lost with it. Connections wait in the sockets' queues for the moment between the two. A
//! new process whose predecessor goes away ends, unless it has the sockets and that one is dead: then it takes over.
//!
//! Invariant: the old process stops accepting only after it has read `taken` from a child that lives.
//! Invariant: a child accepts no connection before its predecessor's accept loops were told to stop.
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
const PROTOCOL: u32 = 3;
/// Most processes that drain behind the one that serves.
pub(crate) const DRAINING_MAX: usize = 2;
/// Names the control socket to the new process.
const SOCKET: &str = "HUB_UPGRADE_SOCKET";
/// Longest wait for a new process to say hello.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a new process that gets the sockets to be ready to serve.
const TAKEN_MAX: Duration = Duration::from_secs(10);
