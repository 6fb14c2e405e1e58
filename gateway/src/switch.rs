//! Moving a cluster's traffic from one colour to the other, and back.

pub mod machine;
pub mod plan;
pub mod traffic;
