//! Frames as they are on the wire, well-formed or not.

use super::Role;

/// Largest payload that is taken from a peer, in bytes.
const PAYLOAD_BYTES_MAX: u64 = 256 << 20;

/// The opcodes of RFC 6455, section 11.8.
#[allow(missing_docs, reason = "the names say it")]
pub mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// One frame. What is made here is well-formed until a method spoils it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The last of its message.
    pub fin: bool,
    /// RSV1, RSV2 and RSV3 as 4, 2 and 1.
    pub reserved: u8,
    /// 0 to 15.
    pub opcode: u8,
    /// How it is masked.
    pub masking: Masking,
    /// How the length is written.
    pub length: Length,
    /// Unmasked.
    pub payload: Vec<u8>,
}

/// How a frame is masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masking {
    /// With a random key by a client, not at all by a server.
    ByRole,
    /// Not at all.
    Unmasked,
    /// With this key.
    Key([u8; 4]),
}

/// How a frame's length is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// In as few bytes as it can be.
    Shortest,
    /// In 2 bytes more, whatever it is.
    Bits16,
    /// In 8 bytes more, whatever it is.
    Bits64,
    /// Another one than that of the payload, in as few bytes as it can be.
    Says(u64),
}

// === impl Frame: making ===

impl Frame {
    /// A finished frame with this opcode.
    pub fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self {
            fin: true,
            reserved: 0,
            opcode,
            masking: Masking::ByRole,
            length: Length::Shortest,
            payload: payload.as_ref().to_vec(),
        }
    }

    /// A whole text message; need not be UTF-8.
    pub fn text(payload: impl AsRef<[u8]>) -> Self {
        Self::new(opcode::TEXT, payload)
    }

    /// A whole binary message.
    pub fn binary(payload: impl AsRef<[u8]>) -> Self {
        Self::new(opcode::BINARY, payload)
    }

    /// The last frame of a message.
    pub fn continuation(payload: impl AsRef<[u8]>) -> Self {
        Self::new(opcode::CONTINUATION, payload)
    }

    /// A Ping.
    pub fn ping(payload: impl AsRef<[u8]>) -> Self {
        Self::new(opcode::PING, payload)
    }

    /// A Pong.
    pub fn pong(payload: impl AsRef<[u8]>) -> Self {
        Self::new(opcode::PONG, payload)
    }

    /// A Close with a code.
    pub fn close(code: u16, reason: impl AsRef<[u8]>) -> Self {
        Self::close_with([&code.to_be_bytes(), reason.as_ref()].concat())
    }

    /// A Close with any payload.
    pub fn close_with(payload: impl AsRef<[u8]>) -> Self {
        Self::new(opcode::CLOSE, payload)
    }

    /// A message cut into frames whose payloads have `bytes` bytes, or fewer in the last one. At least one
    /// frame.
    pub fn fragments(opcode: u8, payload: &[u8], bytes: usize) -> Vec<Self> {
        let mut frames: Vec<_> = payload.chunks(bytes).map(Self::continuation).collect();
        if frames.is_empty() {
            frames.push(Self::continuation(""));
        }
        let last = frames.len() - 1;
        for frame in &mut frames[..last] {
            frame.fin = false;
        }
        frames[0].opcode = opcode;
        frames
    }

    /// More frames of its message follow.
    pub fn unfinished(mut self) -> Self {
        self.fin = false;
        self
    }

    /// With these reserved bits: RSV1, RSV2 and RSV3 are 4, 2 and 1.
    pub fn reserved(mut self, bits: u8) -> Self {
        self.reserved = bits;
        self
    }

    /// Not masked, whoever sends it.
    pub fn unmasked(mut self) -> Self {
        self.masking = Masking::Unmasked;
        self
    }

    /// Masked with this key, whoever sends it.
    pub fn masked(mut self, key: [u8; 4]) -> Self {
        self.masking = Masking::Key(key);
        self
    }

    /// With its length written so.
    pub fn length(mut self, length: Length) -> Self {
        self.length = length;
        self
    }
}

// === impl Frame: on the wire ===

impl Frame {
    /// The frame as this end sends it.
    pub fn bytes(&self, sender: Role) -> Vec<u8> {
        let mask = match (self.masking, sender) {
            (Masking::Key(key), _) => Some(key),
            (Masking::ByRole, Role::Client) => Some(rand::random()),
            (Masking::ByRole, Role::Server) | (Masking::Unmasked, _) => None,
        };
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let real = self.payload.len() as u64;
        let mut bytes = Vec::with_capacity(14 + self.payload.len());
        bytes.push(u8::from(self.fin) << 7 | (self.reserved & 7) << 4 | self.opcode & 15);
        let (length, form) = match self.length {
            Length::Says(said) => (said, Length::Shortest),
            form => (real, form),
        };
        match (form, length) {
            (Length::Bits64, _) | (Length::Shortest, 0x1_0000..) => {
                bytes.push(bit | 127);
                bytes.extend(length.to_be_bytes());
            }
            (Length::Bits16, _) | (Length::Shortest, 126..) => {
                bytes.push(bit | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => bytes.push(bit | length as u8),
        }
        match mask {
            Some(key) => {
                bytes.extend(key);
                let payload = self.payload.iter().zip(key.iter().cycle());
                bytes.extend(payload.map(|(byte, key)| byte ^ key));
            }
            None => bytes.extend(&self.payload),
        }
        bytes
    }

    /// The frame at the front, unmasked, and how many bytes it took; `None` where it is incomplete.
    ///
    /// # Errors
    /// Where it announces more than 256 MiB.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let more = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = second & 0x80 != 0;
        let head = more + if masked { 4 } else { 0 };
        let Some((fields, rest)) = rest.split_at_checked(head) else {
            return Ok(None);
        };
        let payload = match more {
            0 => u64::from(second & 0x7f),
            _ => number(&fields[..more]),
        };
        if payload > PAYLOAD_BYTES_MAX {
            return Err(format!("a frame of {payload} bytes"));
        }
        let Some(payload) = rest.get(..payload as usize) else {
            return Ok(None);
        };
        let mut frame = Self {
            fin: first & 0x80 != 0,
            reserved: first >> 4 & 7,
            opcode: first & 15,
            masking: Masking::Unmasked,
            length: match (more, payload.len()) {
                (2, ..126) => Length::Bits16,
                (8, ..0x1_0000) => Length::Bits64,
                _ => Length::Shortest,
            },
            payload: payload.to_vec(),
        };
        if masked {
            let key = [more, more + 1, more + 2, more + 3].map(|at| fields[at]);
            frame.masking = Masking::Key(key);
            for (byte, key) in frame.payload.iter_mut().zip(key.iter().cycle()) {
                *byte ^= key;
            }
        }
        let taken = 2 + head + frame.payload.len();
        Ok(Some((frame, taken)))
    }

    /// What RFC 6455 has against this frame, taken by itself, where this end sent it and no extension was
    /// agreed on.
    pub fn fault(&self, sender: Role) -> Option<&'static str> {
        let is_masked = self.masking != Masking::Unmasked;
        let control = self.opcode & 8 != 0;
        let faults = [
            (self.reserved != 0, "a reserved bit is set"),
            (
                !matches!(self.opcode, 0..=2 | 8..=10),
                "its opcode is reserved",
            ),
            (is_masked && sender == Role::Server, "a server masked it"),
            (
                !is_masked && sender == Role::Client,
                "a client did not mask it",
            ),
            (
                self.length != Length::Shortest,
                "its length is not in the shortest form",
            ),
            (control && !self.fin, "a control frame is fragmented"),
            (
                control && self.payload.len() > 125,
                "a control frame is too long",
            ),
        ];
        faults.into_iter().find_map(|(bad, why)| bad.then_some(why))
    }
}
