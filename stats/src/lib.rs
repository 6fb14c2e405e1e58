//! Streaming statistics: small values that take samples and the time, and touch nothing else.
//!
//! ```
//! use hub_stats::gcra::{Gcra, Verdict};
//! use std::time::Duration;
//!
//! let two_a_second = Gcra::new(2, Duration::from_secs(1), 1);
//! let Verdict::Allowed { tat, .. } = two_a_second.step(0, 5, 1) else { panic!("the first is free") };
//! assert!(matches!(two_a_second.step(tat, 6, 1), Verdict::Limited { .. }));
//! ```
//!
//! Invariant: no I/O, no clock, no randomness, no lock. Time is an argument, and state is a value that
//! the caller keeps where it likes (a field, an atomic, a row).

pub mod ewma;
pub mod gcra;
pub mod judge;
