//! WebSockets that end here (docs/adr/0007): a handshake on each side, and a relay between.

pub mod frame;
pub mod pace;
pub mod relay;
mod side;
mod utf8;
