//! What must outlive the process: traits by capability, and the engines that keep their promises.
//!
//! [`RolloutLedger`] is the history of every cluster's rollouts, one version after the other;
//! [`MigrationLedger`] says which schema steps ran where. [`Embedded`] keeps both in SQLite and needs
//! no server; [`Memory`] keeps them in the process, for tests and simulations.
//!
//! ```
//! use hub_store::{Embedded, NewEntry, Options, RolloutLedger, StoreError};
//! use uuid::Uuid;
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! let store = Embedded::open(directory.path(), &Options::default()).unwrap();
//! let entry = NewEntry {
//!     id: Uuid::now_v7(),
//!     rollout: Uuid::now_v7(),
//!     state: "preparing".to_owned(),
//!     body: r#"{"to":"green"}"#.to_owned(),
//!     at_us: 1_700_000_000_000_000,
//! };
//! let kept = store.append("app", 0, entry.clone()).await.unwrap();
//! assert_eq!(kept.version, 1);
//! // The same entry once more is the same version; another one has to look first.
//! assert_eq!(store.append("app", 0, entry.clone()).await.unwrap(), kept);
//! let other = NewEntry { id: Uuid::now_v7(), ..entry };
//! let refused = store.append("app", 0, other).await.unwrap_err();
//! assert!(matches!(refused, StoreError::Conflict { current: 1 }));
//! # });
//! ```
//!
//! Invariant: what a write has answered survives the end of the process and of the machine's power;
//! [`Memory`] alone forgets.
//! Invariant: every write can be repeated: the same write again changes nothing and answers the same.
//! Invariant: what is allowed is decided by one function per write ([`rollout`], [`migration`]), which
//! every engine asks; an engine only reads and writes.
//! Invariant: no type of a database library is part of the public interface.
//! Absent on purpose: a clock that decides anything (times are arguments), and a retry inside a call
//! (the caller knows what has become of its reason).

mod check;
pub mod embedded;
mod error;
mod memory;
pub mod migrate;
pub mod migration;
pub mod rollout;
mod sql;
mod write;

pub use embedded::{Embedded, Options};
pub use error::{OpenProblem, Source, StoreError};
pub use memory::{Fault, Memory};
pub use migration::{
    Finish, Kind, MigrationLedger, NewStep, Outcome, Step, StepState, WhenRunning,
};
pub use rollout::{Entry, NewEntry, RolloutLedger};
