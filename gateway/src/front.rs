//! Public listeners: everything between `accept` and the decision where a request goes.
//!
//! A public listener is a plain pingora listener with our own `ServerApp` ([`app`]). It reads a PROXY
//! header where one is due, shakes TLS hands, and reads each HTTP/1 head strictly, under one
//! deadline and one bound, before pingora sees a byte. HTTP/2 goes to pingora's session code.
//!
//! Invariant: an idle keepalive connection holds one small task and no buffer.
//! Invariant: pingora sees exactly one message's bytes at a time, and none that the strict rules
//! refuse.

pub(crate) mod app;
pub mod body;
pub(crate) mod downstream;
pub mod forwarded;
pub mod head;
pub mod host;
pub(crate) mod http1;
mod http2;
pub(crate) mod knock;
pub(crate) mod listener;
mod loan;
pub mod path;
pub mod proxy_protocol;
mod raw;
pub(crate) mod stall;
pub(crate) mod tls;
mod wrap;
