//! The control plane: builds snapshots and swaps them, and tells operators what is going on.
//!
//! Invariant: the data plane never calls into this module.

pub mod admin;
pub(crate) mod audit;
mod explain;
mod low;
pub mod reload;
mod stamps;
mod watch;

pub use watch::watch_files;
