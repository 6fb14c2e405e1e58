//! Bodies whose every byte client and application know.

use bytes::Bytes;
use hub_testkit::load::spread;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// How many there are.
pub(crate) const COUNT: usize = 16;

/// Bodies of 100 bytes to 25 KiB, and what the application answers to who sends them.
#[derive(Debug)]
pub(crate) struct Payloads(Vec<(Bytes, Bytes)>);

impl Payloads {
    pub(crate) fn new() -> Self {
        let one = |number: usize| {
            let length = 100 + number * number * 114;
            let words = (0..).map(|at| spread((number as u64) << 32 | at));
            let bytes: Bytes = words
                .flat_map(u64::to_be_bytes)
                .take(length)
                .collect::<Vec<u8>>()
                .into();
            let receipt = digest_line(bytes.len() as u64, &Sha256::digest(&bytes));
            (bytes, receipt)
        };
        Self((0..COUNT).map(one).collect())
    }

    /// A body; numbers start anew behind the last.
    pub(crate) fn body(&self, number: usize) -> &Bytes {
        &self.0[number % COUNT].0
    }

    /// What the application says when it has got that body.
    pub(crate) fn receipt(&self, number: usize) -> &Bytes {
        &self.0[number % COUNT].1
    }
}

/// What the application answers to a body: how long it was, and its SHA-256.
pub(crate) fn digest_line(bytes: u64, sha256: &[u8]) -> Bytes {
    let mut line = format!("{bytes} ");
    for byte in sha256 {
        write!(line, "{byte:02x}").expect("a String takes everything");
    }
    line.push('\n');
    line.into()
}
