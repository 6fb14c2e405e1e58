//! How a connection comes back to the front.

use crate::front::downstream::Downstream;
use std::sync::{Mutex, PoisonError};

/// Where a connection waits for the front after a request.
#[derive(Debug, Default)]
pub(crate) struct Home(Mutex<Option<Returned>>);

/// A connection after a request.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) downstream: Box<Downstream>,
    /// Both messages are complete, and neither side asked for an end.
    pub(crate) reusable: bool,
}

impl Home {
    pub(super) fn put(&self, returned: Returned) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(returned);
    }

    /// The connection, once its request is over.
    pub(crate) fn take(&self) -> Option<Returned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
