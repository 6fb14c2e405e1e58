//! WebSockets end here: a handshake with the client, one with the upstream, and a relay between them
//! (docs/adr/0007).
//!
//! `front::http1` admits an upgrade as any request and hands it to [`open`], which asks an endpoint (`dial`),
//! answers, and leaves the session to a task of its own (`session`), which moves frames (`relay`). The
//! `registry` knows every session.

pub(crate) mod dial;
pub mod frame;
pub(crate) mod handshake;
pub(crate) mod open;
pub mod pace;
pub(crate) mod registry;
pub mod relay;
pub(crate) mod session;
mod side;
mod utf8;
