//! Moving a cluster's traffic from one colour to the other, and back.
//!
//! [`machine`] decides, purely; [`driver`] writes decisions down and does what they say; [`traffic`] is
//! who gets which colour; [`watch`] and [`judge`] tell whether the new colour is worse; [`schema`] and
//! [`fence`] keep rollouts and migrations of databases from breaking each other.

pub mod driver;
pub mod fence;
pub mod judge;
pub mod machine;
pub mod plan;
pub mod schema;
pub mod traffic;
pub mod watch;
