//! Whether an answer is the one that was asked for, whatever the protocol.

use super::record::{Answer, Outcome};

/// Bytes of an unexpected answer that are looked at for a reason.
const KEPT_MAX: usize = 1_024;

/// An answer as it comes in.
#[derive(Debug)]
pub(super) struct Check<'e> {
    /// The body of a good one.
    expected: &'e [u8],
    tenant: &'e str,
    status: u16,
    green: bool,
    tenant_seen: bool,
    /// Bytes that came so far, and whether they were all as expected.
    came: usize,
    same: bool,
    kept: Vec<u8>,
}

impl<'e> Check<'e> {
    pub(super) fn new(expected: &'e [u8], tenant: &'e str, status: u16) -> Self {
        Self {
            expected,
            tenant,
            status,
            green: false,
            tenant_seen: false,
            came: 0,
            same: true,
            kept: Vec::new(),
        }
    }

    /// A header, its name in lower case.
    pub(super) fn header(&mut self, name: &str, value: &[u8]) {
        match name {
            "x-colour" => self.green = value == b"green",
            "x-seen-tenant" => self.tenant_seen = value == self.tenant.as_bytes(),
            _ => {}
        }
    }

    /// A piece of the body.
    pub(super) fn piece(&mut self, piece: &[u8]) {
        let end = self.came + piece.len();
        self.same &= self.expected.get(self.came..end) == Some(piece);
        self.came = end;
        if self.status != 200 {
            let room = KEPT_MAX.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    /// The body has ended as its framing says.
    pub(super) fn end(self) -> Answer {
        if self.status != 200 {
            return Answer::of_status(self.status, self.green, &self.kept);
        }
        let whole = self.same && self.came == self.expected.len();
        let (outcome, why) = match (whole, self.tenant_seen) {
            (true, true) => (Outcome::Ok, None),
            (true, false) => (Outcome::WrongBody, Some("another tenant's".to_owned())),
            (false, _) => (
                Outcome::WrongBody,
                Some(format!("{} of {} bytes", self.came, self.expected.len())),
            ),
        };
        Answer {
            outcome,
            green: self.green,
            why,
        }
    }

    /// The body broke off, or never began.
    pub(super) fn broken(self) -> Answer {
        Answer {
            outcome: Outcome::ShortBody,
            green: self.green,
            why: None,
        }
    }
}
