//! Frames of RFC 6455, walked over where they lie: nothing is copied but the payload of control frames.
//!
//! A [`Walker`] is one direction of one session. It is shown bytes as they come and tells what may go on as
//! it is; it holds no bytes itself, so what is incomplete is to be shown again with more behind it.

use super::utf8::Utf8;

/// Longest payload of a control frame, in bytes (RFC 6455, section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;
/// Longest head of a frame, in bytes.
const HEAD_BYTES_MAX: usize = 14;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// What a direction may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Frames are masked: those of a client are, those of a server are not.
    pub masked: bool,
    /// Messages may be compressed (RFC 7692): their first frame may have RSV1.
    pub compressed: bool,
    /// Text that is not compressed is UTF-8.
    pub utf8: bool,
    /// Bytes of payload in one frame.
    pub frame_bytes_max: u64,
    /// Bytes of payload in one message.
    pub message_bytes_max: u64,
    /// Frames in one message.
    pub fragments_max: u32,
}

/// What a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8, or what is compressed to it.
    Text,
    /// Any bytes.
    Binary,
}

/// What stands at the front of the bytes shown.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// Too little to know. Nothing was taken.
    Incomplete,
    /// This many bytes of a message's frame, its head among them, may go on.
    Data {
        /// Bytes taken.
        len: usize,
        /// The frame ended, and nothing or another frame may follow.
        frame_ends: bool,
        /// The message ended.
        message_ends: bool,
    },
    /// A whole control frame.
    Control {
        /// Bytes taken.
        len: usize,
        /// What it says.
        control: Control,
    },
}

/// A control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Which one.
    pub opcode: ControlOpcode,
    payload: [u8; CONTROL_BYTES_MAX],
    len: u8,
}

/// See RFC 6455, section 5.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlOpcode {
    /// The sender will send nothing more.
    Close,
    /// Is to be answered.
    Ping,
    /// An answer, or a sign of life.
    Pong,
}

/// Why a direction cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A frame of a client is not masked.
    #[error("a frame of a client is not masked")]
    Unmasked,
    /// A frame of a server is masked.
    #[error("a frame of a server is masked")]
    Masked,
    /// A reserved bit is set.
    #[error("a reserved bit is set")]
    ReservedBit,
    /// An opcode is reserved.
    #[error("an opcode is reserved")]
    ReservedOpcode,
    /// A control frame is fragmented, or longer than 125 bytes.
    #[error("a control frame is fragmented, or longer than {CONTROL_BYTES_MAX} bytes")]
    BadControl,
    /// A length is not written in its shortest form.
    #[error("a length is not written in its shortest form")]
    LongLength,
    /// A continuation without a message.
    #[error("a continuation without a message")]
    StrayContinuation,
    /// A message begins within another one.
    #[error("a message begins within another one")]
    UnfinishedMessage,
    /// A Close frame has half of a code, or one that may not be sent.
    #[error("a Close frame has half of a code, or one that may not be sent")]
    BadClose,
    /// Text is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// A frame is too large.
    #[error("a frame is too large")]
    FrameTooLarge,
    /// A message is too large.
    #[error("a message is too large")]
    MessageTooLarge,
    /// A message has too many fragments.
    #[error("a message has too many fragments")]
    TooManyFragments,
}

/// One direction of one session.
#[derive(Debug, Default)]
pub struct Walker {
    /// Payload of the frame under way that has not come yet.
    left: u64,
    mask: [u8; 4],
    /// Place in the mask of the next byte.
    phase: u8,
    last_frame: bool,
    message: Option<Message>,
}

#[derive(Debug)]
struct Message {
    kind: Kind,
    bytes: u64,
    fragments: u32,
    utf8: Option<Utf8>,
}

struct Head {
    len: usize,
    first: u8,
    mask: [u8; 4],
    payload: u64,
}

// === impl Walker ===

impl Walker {
    /// Takes what stands at the front of `bytes`.
    ///
    /// # Errors
    /// A [`Fault`]; nothing may be shown after it.
    pub fn next(&mut self, bytes: &[u8], rules: &Rules) -> Result<Item, Fault> {
        if bytes.is_empty() {
            return Ok(Item::Incomplete);
        }
        if self.left > 0 {
            return self.payload(0, bytes);
        }
        let Some(head) = Head::read(bytes, rules)? else {
            return Ok(Item::Incomplete);
        };
        if head.first & 0x08 != 0 {
            return control(&head, bytes);
        }
        self.begin(&head, rules)?;
        self.payload(head.len, bytes)
    }

    /// True where another sender's frame may stand before what is shown next.
    pub fn is_between_frames(&self) -> bool {
        self.left == 0
    }

    /// True where no message is under way.
    pub fn is_between_messages(&self) -> bool {
        self.left == 0 && self.message.is_none()
    }

    /// The kind of the message under way.
    pub fn kind(&self) -> Option<Kind> {
        self.message.as_ref().map(|message| message.kind)
    }

    /// Takes note of a data frame's head.
    fn begin(&mut self, head: &Head, rules: &Rules) -> Result<(), Fault> {
        let compressed = head.first & RSV1 != 0;
        let message = match (head.first & 0x0f, &mut self.message) {
            (0, Some(message)) if !compressed => message,
            (0, Some(_)) => return Err(Fault::ReservedBit),
            (0, None) => return Err(Fault::StrayContinuation),
            (_, Some(_)) => return Err(Fault::UnfinishedMessage),
            (opcode, none) => {
                let kind = if opcode == 1 {
                    Kind::Text
                } else {
                    Kind::Binary
                };
                let checked = kind == Kind::Text && rules.utf8 && !compressed;
                none.insert(Message {
                    kind,
                    bytes: 0,
                    fragments: 0,
                    utf8: checked.then(Utf8::default),
                })
            }
        };
        if head.payload > rules.frame_bytes_max {
            return Err(Fault::FrameTooLarge);
        }
        message.bytes = message.bytes.saturating_add(head.payload);
        if message.bytes > rules.message_bytes_max {
            return Err(Fault::MessageTooLarge);
        }
        message.fragments += 1;
        if message.fragments > rules.fragments_max {
            return Err(Fault::TooManyFragments);
        }
        self.left = head.payload;
        self.mask = head.mask;
        self.phase = 0;
        self.last_frame = head.first & FIN != 0;
        Ok(())
    }

    /// Takes payload from `at` on.
    fn payload(&mut self, at: usize, bytes: &[u8]) -> Result<Item, Fault> {
        let there = bytes.len() - at;
        let taken = usize::try_from(self.left).map_or(there, |left| left.min(there));
        self.left -= taken as u64;
        let frame_ends = self.left == 0;
        let message_ends = frame_ends && self.last_frame;
        if let Some(utf8) = self.message.as_mut().and_then(|one| one.utf8.as_mut()) {
            let good = utf8.feed_masked(&bytes[at..at + taken], self.mask, self.phase);
            if !good || message_ends && !utf8.is_complete() {
                // Where the head of this frame went on before, the frame stays unfinished.
                self.left = u64::from(at == 0);
                return Err(Fault::NotUtf8);
            }
        }
        self.phase = self.phase.wrapping_add((taken % 4) as u8) % 4;
        if message_ends {
            self.message = None;
        }
        Ok(Item::Data {
            len: at + taken,
            frame_ends,
            message_ends,
        })
    }
}

// === impl Head ===

impl Head {
    /// `None` where it is incomplete. What is wrong with it is told as soon as it can be known.
    fn read(bytes: &[u8], rules: &Rules) -> Result<Option<Self>, Fault> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let is_control = first & 0x08 != 0;
        if !matches!(first & 0x0f, 0..=2 | 8..=10) {
            return Err(Fault::ReservedOpcode);
        }
        let allowed = if rules.compressed && !is_control {
            RSV1
        } else {
            0
        };
        if first & RESERVED & !allowed != 0 {
            return Err(Fault::ReservedBit);
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        match (second & MASKED != 0, rules.masked) {
            (true, false) => return Err(Fault::Masked),
            (false, true) => return Err(Fault::Unmasked),
            _ => {}
        }
        let short = second & !MASKED;
        if is_control && (first & FIN == 0 || usize::from(short) > CONTROL_BYTES_MAX) {
            return Err(Fault::BadControl);
        }
        let more = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(length) = bytes.get(2..2 + more) else {
            return Ok(None);
        };
        let long = length
            .iter()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let (payload, shortest) = match more {
            0 => (u64::from(short), true),
            2 => (long, long > 125),
            _ => (long, long > 0xffff && long >> 63 == 0),
        };
        if !shortest {
            return Err(Fault::LongLength);
        }
        let (mask, len) = if rules.masked {
            let Some(mask) = bytes.get(2 + more..6 + more) else {
                return Ok(None);
            };
            ([mask[0], mask[1], mask[2], mask[3]], 6 + more)
        } else {
            ([0; 4], 2 + more)
        };
        Ok(Some(Self {
            len,
            first,
            mask,
            payload,
        }))
    }
}

fn control(head: &Head, bytes: &[u8]) -> Result<Item, Fault> {
    let end = head.len + usize::try_from(head.payload).map_err(|_| Fault::BadControl)?;
    let Some(shown) = bytes.get(head.len..end) else {
        return Ok(Item::Incomplete);
    };
    let opcode = match head.first & 0x0f {
        8 => ControlOpcode::Close,
        9 => ControlOpcode::Ping,
        _ => ControlOpcode::Pong,
    };
    let mut payload = [0; CONTROL_BYTES_MAX];
    for (at, (to, from)) in payload.iter_mut().zip(shown).enumerate() {
        *to = from ^ head.mask[at % 4];
    }
    let control = Control {
        opcode,
        payload,
        len: shown.len() as u8,
    };
    if opcode == ControlOpcode::Close {
        control.check_close()?;
    }
    Ok(Item::Control { len: end, control })
}

// === impl Control ===

impl Control {
    /// A control frame of the gateway's own. Payload past [`CONTROL_BYTES_MAX`] is cut off.
    pub fn new(opcode: ControlOpcode, said: &[u8]) -> Self {
        let mut payload = [0; CONTROL_BYTES_MAX];
        let len = said.len().min(CONTROL_BYTES_MAX);
        payload[..len].copy_from_slice(&said[..len]);
        Self {
            opcode,
            payload,
            len: len as u8,
        }
    }

    /// A Close frame.
    pub fn close(code: u16, reason: &str) -> Self {
        let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let said = [&code.to_be_bytes(), &reason.as_bytes()[..end]].concat();
        Self::new(ControlOpcode::Close, &said)
    }

    /// Its payload, unmasked.
    pub fn payload(&self) -> &[u8] {
        &self.payload[..usize::from(self.len)]
    }

    /// The code of a Close frame; 1005 where it has none (RFC 6455, section 7.1.5).
    pub fn code(&self) -> u16 {
        match self.payload() {
            [high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => 1005,
        }
    }

    /// Appends the frame to `out`: masked with `mask` where there is one, as a client's are.
    pub fn write(&self, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
        let opcode = match self.opcode {
            ControlOpcode::Close => 8,
            ControlOpcode::Ping => 9,
            ControlOpcode::Pong => 10,
        };
        out.reserve(HEAD_BYTES_MAX + self.payload().len());
        out.push(FIN | opcode);
        out.push(self.len | if mask.is_some() { MASKED } else { 0 });
        out.extend(mask.into_iter().flatten());
        let mask = mask.unwrap_or_default();
        let masked = self.payload().iter().enumerate();
        out.extend(masked.map(|(at, byte)| byte ^ mask[at % 4]));
    }

    /// RFC 6455, section 7.4: 1004 to 1006 and 1015 are never sent, and what is below 3000 is registered.
    fn check_close(&self) -> Result<(), Fault> {
        let reason = match self.payload() {
            [] => return Ok(()),
            [_] => return Err(Fault::BadClose),
            [_, _, reason @ ..] => reason,
        };
        if !matches!(self.code(), 1000..=1003 | 1007..=1014 | 3000..=4999) {
            return Err(Fault::BadClose);
        }
        match std::str::from_utf8(reason) {
            Ok(_) => Ok(()),
            Err(_) => Err(Fault::NotUtf8),
        }
    }
}

// === impl Fault ===

impl Fault {
    /// As logs write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unmasked => "unmasked",
            Self::Masked => "masked",
            Self::ReservedBit => "reserved_bit",
            Self::ReservedOpcode => "reserved_opcode",
            Self::BadControl => "bad_control",
            Self::LongLength => "long_length",
            Self::StrayContinuation => "stray_continuation",
            Self::UnfinishedMessage => "unfinished_message",
            Self::BadClose => "bad_close",
            Self::NotUtf8 => "not_utf8",
            Self::FrameTooLarge => "frame_too_large",
            Self::MessageTooLarge => "message_too_large",
            Self::TooManyFragments => "too_many_fragments",
        }
    }

    /// The code to close with (RFC 6455, section 7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::NotUtf8 => 1007,
            Self::FrameTooLarge | Self::MessageTooLarge => 1009,
            Self::TooManyFragments => 1008,
            _ => 1002,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
