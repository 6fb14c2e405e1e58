//! WebSockets that end here (docs/adr/0007): the relay between two handshakes. The front does not use it yet.

pub mod frame;
pub mod pace;
pub mod relay;
mod side;
mod utf8;
