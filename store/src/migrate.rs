//! Running the steps of an application's schema on one of its databases, in the order that two
//! colours side by side need: expand, switch, contract.
//!
//! Steps are files ([`load`]), numbered without gaps; [`lint()`] says what would hurt a Postgres
//! database in use; [`status`], [`expand`] and [`contract`] are what `hubctl migrate` calls. Each step
//! is written down three times: in the [`MigrationLedger`](crate::MigrationLedger) before and after
//! it, where the switch between colours looks, and in the database's own history, in the transaction
//! of the step itself. Where a crash lets the two differ, the database is right about what it has.
//!
//! The history and the comparison with the files are refinery's ([`HISTORY_TABLE`]): refinery-core
//! 0.10.1, MIT or Apache-2.0, maintained (a release in the year), without its drivers. It knows no
//! kinds of steps, no locks and no retries, which are here.
//!
//! ```
//! use hub_store::migrate::{Database, Location, Run, RunOptions, Timeouts, expand, load};
//! use hub_store::Memory;
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! let file = directory.path().join("0001_leads.expand.sql");
//! std::fs::write(file, "CREATE TABLE lead (id bigint PRIMARY KEY);").unwrap();
//! let location = Location::Embedded(directory.path().join("app.db"));
//! let mut database = Database::connect(&location, &Timeouts::default()).await.unwrap();
//! let run = Run {
//!     steps: &load(directory.path()).unwrap(),
//!     scope: "app",
//!     ledger: &Memory::new(),
//!     options: &RunOptions::default(),
//! };
//! let report = expand(&run, &mut database, &mut |_| ()).await.unwrap();
//! assert_eq!(report.applied, [1]);
//! # });
//! ```
//!
//! Invariant: a step and its line in the history are one transaction, unless the step can only run
//! outside of one; then it is the only statement of its file.
//! Invariant: one run at a time works on a database. Its lock lives as long as its session, so who has it
//! knows that every run before has ended, and that the history says all of what they did.
//! Invariant: nothing runs while files, ledger and database disagree, or a finding stands.
//! Absent on purpose: a way back. After a contract step there is none, and before it none is needed.

mod database;
mod error;
mod files;
mod lexer;
pub mod lint;
mod runner;

pub use database::{
    APPLICATION_NAME, Applied, Database, HISTORY_TABLE, Location, Session, Timeouts,
};
pub use error::MigrateError;
pub use files::{FILE_BYTES_MAX, Problems, STEP_NAME_BYTES_MAX, StepFile, load};
pub use lint::{Finding, lint};
pub use runner::{
    Progress, Report, Run, RunOptions, Standing, StepStatus, contract, expand, status,
};
