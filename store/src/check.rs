//! Bounds that every engine asks for before it touches anything.

use crate::StoreError;
use uuid::{Uuid, Version};

/// Longest name of a cluster, scope, state or step, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// A name: 1 to 255 bytes, no control characters.
pub(crate) fn name(what: &str, value: &str) -> Result<(), StoreError> {
    if value.is_empty() || value.len() > NAME_BYTES_MAX {
        return Err(StoreError::Invalid(format!(
            "the {what} has {} bytes; give it 1 to {NAME_BYTES_MAX}",
            value.len()
        )));
    }
    if value.contains(char::is_control) {
        return Err(StoreError::Invalid(format!(
            "the {what} {value:?} holds a control character; leave it out"
        )));
    }
    Ok(())
}

/// An id that sorts by time, as every id of ours.
pub(crate) fn time_ordered(what: &str, id: Uuid) -> Result<(), StoreError> {
    if id.get_version() == Some(Version::SortRand) {
        Ok(())
    } else {
        Err(StoreError::Invalid(format!(
            "the {what} {id} is not a UUIDv7; make it with Uuid::now_v7"
        )))
    }
}

/// A number that both SQLite and Postgres can hold, as they know no unsigned ones.
pub(crate) fn signed(what: &str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| {
        StoreError::Invalid(format!(
            "the {what} {value} is too large; {} is the most",
            i64::MAX
        ))
    })
}
