//! What a server answered, byte for byte.

use crate::fields;
use std::io;

/// A head as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// First word of the status line.
    pub version: String,
    /// The status.
    pub status: u16,
    /// The rest of the status line; may be empty.
    pub reason: String,
    /// Fields in their order and their own case; bytes above 0x7F as Latin-1 characters.
    pub headers: Vec<(String, String)>,
}

/// A whole response as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireResponse {
    /// The status.
    pub status: u16,
    /// What the status line says after it; may be empty.
    pub reason: String,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// Fields in their order and their own case; bytes above 0x7F as Latin-1 characters.
    pub headers: Vec<(String, String)>,
    /// The body, without its chunk framing.
    pub body: Vec<u8>,
    /// Fields after the last chunk.
    pub trailers: Vec<(String, String)>,
    /// Interim answers (100, 103 ...) that came before.
    pub interim: Vec<Head>,
    /// Every byte of it, interim answers and framing included.
    pub raw: Vec<u8>,
}

impl Head {
    pub(crate) fn parse(bytes: &[u8]) -> io::Result<Self> {
        let (line, headers) = fields::parse(bytes);
        let mut words = line.splitn(3, ' ');
        let version = words.next().filter(|version| version.starts_with("HTTP/"));
        let status = words.next().and_then(|status| status.parse().ok());
        match (version, status) {
            (Some(version), Some(status)) => Ok(Self {
                version: version.to_owned(),
                status,
                reason: words.next().unwrap_or_default().to_owned(),
                headers,
            }),
            _ => Err(io::Error::other(format!("bad status line {line:?}"))),
        }
    }

    /// The first field of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        fields::values(&self.headers, name).next()
    }
}

impl WireResponse {
    /// The first field of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_all(name).next()
    }

    /// Every field of this name, in any case, in their order.
    pub fn header_all(&self, name: &str) -> impl Iterator<Item = &str> {
        fields::values(&self.headers, name)
    }

    /// The body as text, lossily.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// Where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!(
                "the body of this {} is no JSON ({error}): {:?}",
                self.status,
                self.text()
            )
        })
    }

    /// Everything as text, for messages.
    pub fn raw_text(&self) -> String {
        fields::latin1(&self.raw)
    }
}
