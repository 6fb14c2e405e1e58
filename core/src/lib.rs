//! The words every other crate shares: who a tenant is, what a request looks like to a stage or a
//! plugin, and how the gateway says no.
//!
//! ```
//! use hub_core::LocationId;
//!
//! let id = LocationId::parse(b"ve9EPM428h8vShlRW1KT").unwrap();
//! assert_eq!(id.as_str(), "ve9EPM428h8vShlRW1KT");
//! assert!(LocationId::parse("løc".as_bytes()).is_err());
//! ```
//!
//! Invariant: no I/O, no async, no clock of its own. Time is an argument everywhere.
//! Invariant: a [`LocationId`] exists only if [`LocationId::parse`] accepted its bytes.

mod client;
mod edits;
mod identity;
pub mod names;
pub mod query;
mod refusal;
mod request_id;
mod tenant;
mod view;

pub use client::Client;
pub use edits::{Edit, Edits};
pub use identity::{Identity, IdentityMethod};
pub use refusal::{Reason, Refusal};
pub use request_id::{RequestId, TraceContext};
pub use tenant::{LocationId, LocationIdError, LocationIdRef, Slug, SlugError};
pub use view::{HeaderField, Headers, RequestView, Scheme, Version};

pub use http::{HeaderName, HeaderValue, Method, StatusCode};
