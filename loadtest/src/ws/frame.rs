//! Frames of RFC 6455, as far as a load generator needs them: made once, and read where they lie.

/// Opcodes (RFC 6455, section 5.2).
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// What stands before the payload of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    /// Of a client's frame.
    pub(crate) mask: Option<[u8; 4]>,
    /// Bytes of payload.
    pub(crate) payload: u64,
    /// Bytes of the head itself; not used where one is written.
    pub(crate) len: usize,
}

// === impl Head ===

impl Head {
    /// A frame of its own, as a server sends it.
    pub(crate) fn server(opcode: u8, payload: usize) -> Self {
        Self {
            fin: true,
            opcode,
            mask: None,
            payload: payload as u64,
            len: 0,
        }
    }

    /// Reads one; `None` while it is incomplete.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = bytes else {
            return None;
        };
        let (payload, rest) = match second & !MASKED {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*length), rest)
            }
            short => (u64::from(short), rest),
        };
        let (mask, rest) = if second & MASKED == 0 {
            (None, rest)
        } else {
            let (mask, rest) = rest.split_first_chunk()?;
            (Some(*mask), rest)
        };
        Some(Self {
            fin: first & FIN != 0,
            opcode: first & 0xF,
            mask,
            payload,
            len: bytes.len() - rest.len(),
        })
    }

    /// Appends it.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(if self.fin { FIN } else { 0 } | self.opcode);
        let masked = if self.mask.is_some() { MASKED } else { 0 };
        match (u8::try_from(self.payload), u16::try_from(self.payload)) {
            (Ok(short @ 0..=125), _) => out.push(masked | short),
            (_, Ok(length)) => {
                out.push(masked | 126);
                out.extend_from_slice(&length.to_be_bytes());
            }
            _ => {
                out.push(masked | 127);
                out.extend_from_slice(&self.payload.to_be_bytes());
            }
        }
        out.extend_from_slice(self.mask.as_ref().map_or(&[], |mask| &mask[..]));
    }
}

/// A frame of a client, head and masked payload.
pub(crate) fn client_frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    // Any mask does: there is nobody between who could be fooled.
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let head = Head {
        fin,
        mask: Some(mask),
        ..Head::server(opcode, payload.len())
    };
    let mut frame = Vec::with_capacity(payload.len() + 14);
    head.write(&mut frame);
    let from = frame.len();
    frame.extend_from_slice(payload);
    apply_mask(&mut frame[from..], mask, 0);
    frame
}

/// Masks or unmasks `payload`, whose first byte is number `place` of its frame.
pub(crate) fn apply_mask(payload: &mut [u8], mut mask: [u8; 4], place: u64) {
    mask.rotate_left((place % 4) as usize);
    let wide = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written_and_not_before_it_is_complete() {
        for payload in [0, 125, 126, 65_535, 65_536] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let head = Head {
                    mask,
                    fin: payload % 2 == 0,
                    ..Head::server(BINARY, payload)
                };
                let mut bytes = Vec::new();
                head.write(&mut bytes);
                for part in 0..bytes.len() {
                    assert_eq!(Head::read(&bytes[..part]), None);
                }
                let len = bytes.len();
                bytes.push(0xFF);
                assert_eq!(Head::read(&bytes), Some(Head { len, ..head }));
            }
        }
    }

    #[test]
    fn the_standards_example_of_a_masked_frame() {
        let bytes = client_frame(true, TEXT, b"Hello");
        let expected = [
            0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58,
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_payload_may_be_unmasked_in_parts() {
        let plain: Vec<u8> = (0..=99).collect();
        let mask = [9, 8, 7, 6];
        for cut in [0, 1, 3, 8, 50, 99] {
            let mut bytes = plain.clone();
            apply_mask(&mut bytes, mask, 0);
            assert_ne!(bytes, plain);
            let (first, second) = bytes.split_at_mut(cut);
            apply_mask(first, mask, 0);
            apply_mask(second, mask, cut as u64);
            assert_eq!(bytes, plain, "{cut}");
        }
    }
}
