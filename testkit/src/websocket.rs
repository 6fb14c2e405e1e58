//! WebSockets byte by byte: a client that sends what the test says, right or wrong, a server that a test
//! plays frame by frame, and an echo server that does everything as RFC 6455 has it.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use hub_testkit::websocket::{Client, EchoServer, Event, Frame};
//!
//! let echo = EchoServer::start().await;
//! let mut client = Client::connect(echo.addr(), "/").await;
//! client.send(&Frame::text("hel").unfinished()).await;
//! client.send(&Frame::continuation("lo")).await;
//! assert_eq!(client.next().await, Event::text("hello"));
//! client.send(&Frame::text("x").unmasked()).await;
//! assert!(matches!(client.next().await, Event::Close(Some(1002), _)));
//! # });
//! ```
//!
//! Invariant: what is sent is not checked, what is received is: the peer's frames have to be as RFC 6455
//! asks.
//! Invariant: every wait ends within [`PATIENCE`].

mod echo;
mod frame;
mod handshake;
mod peer;
mod receiver;
mod sender;
mod server;
#[cfg(test)]
mod tests;

pub use echo::EchoServer;
pub use frame::{Frame, Length, Masking, opcode};
pub use handshake::{Handshake, accept_key};
pub use peer::{Client, Peer};
pub use receiver::{Event, Receiver};
pub use sender::Sender;
pub use server::{Knock, PlayedServer};

use std::time::Duration;

/// Longest wait for anything that should take no time.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Which end of a connection somebody is: it decides whose frames are masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Masks its frames.
    Client,
    /// Does not.
    Server,
}

impl Role {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}
