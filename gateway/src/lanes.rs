//! Lanes: how an admitted request gets to its upstream and back.

pub(crate) mod general;
