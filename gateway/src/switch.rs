//! Moving a cluster's traffic from one colour to the other, and back.
//!
//! [`machine`] decides, purely; [`driver`] writes decisions down and does what they say; [`traffic`] is
//! who gets which colour; [`gate`] tells whether the new colour may be tried, [`watch`] and [`judge`] whether
//! it is worse, and [`metrics`] what came of it. [`budget`] bounds second tries on the old colour; [`schema`],
//! [`admission`] and [`fence`] keep rollouts and migrations of databases from breaking each other.

pub(crate) mod admission;
pub mod budget;
pub mod decided;
pub mod driver;
pub mod fence;
pub(crate) mod gate;
pub mod judge;
pub mod machine;
pub mod metrics;
pub mod plan;
pub mod schema;
pub mod traffic;
pub mod watch;
