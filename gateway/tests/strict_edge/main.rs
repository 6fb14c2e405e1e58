//! The strict edge over the wire: what an HTTP/1 client can do wrong, one named test each. Every
//! refusal is seen from four sides: the client's answer and close, the bytes that reached the origin,
//! the metric by reason, and the access-log line.

mod bodies;
mod edge;
mod forwarding;
mod heads;
mod hosts;
mod paths;
mod proxy_protocol;
mod sizes;
mod slow;
mod upgrades;
