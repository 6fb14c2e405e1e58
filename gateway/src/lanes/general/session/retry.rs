//! The beginning of a request's body, kept for a second try.

use bytes::{Bytes, BytesMut};

/// Most bytes that are kept; a longer body is not tried again.
const BYTES_MAX: usize = 64 * 1024;

/// Copies what passes, up to a bound.
#[derive(Debug, Default)]
pub(super) struct RetryBuffer {
    enabled: bool,
    truncated: bool,
    kept: BytesMut,
}

impl RetryBuffer {
    /// Begins to keep what passes.
    pub(super) fn enable(&mut self) {
        self.enabled = true;
    }

    /// Keeps `bytes`, if all that passed so far was kept and there is room.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !self.enabled || self.truncated {
            return;
        }
        if self.kept.len() + bytes.len() > BYTES_MAX {
            self.truncated = true;
            self.kept = BytesMut::new();
        } else {
            self.kept.extend_from_slice(bytes);
        }
    }

    /// More passed than was kept.
    pub(super) fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// All that passed; `None` where nothing did, or more than was kept.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        (!self.kept.is_empty()).then(|| Bytes::copy_from_slice(&self.kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_whole_or_not_at_all() {
        let mut retry = RetryBuffer::default();
        retry.push(b"before anyone asked");
        assert_eq!(retry.bytes(), None);
        retry.enable();
        retry.push(b"one ");
        retry.push(b"two");
        assert_eq!(retry.bytes().as_deref(), Some(&b"one two"[..]));
        retry.push(&vec![b'x'; BYTES_MAX]);
        retry.push(b"more");
        assert!(retry.is_truncated());
        assert_eq!(retry.bytes(), None);
    }
}
