//! UTF-8 that comes in pieces.

/// Bytes that are unmasked at a time.
const CHUNK: usize = 512;
/// Bytes of a character that may wait for its rest.
const HELD_MAX: usize = 3;

/// Whether what was fed so far can be the beginning of UTF-8 text.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// The beginning of a character.
    held: [u8; HELD_MAX],
    len: u8,
}

impl Utf8 {
    /// Feeds bytes that are masked with `mask`, the first of them with its byte `phase`. False where no
    /// text begins like that.
    pub(super) fn feed_masked(&mut self, bytes: &[u8], mask: [u8; 4], phase: u8) -> bool {
        if mask == [0; 4] {
            return self.feed(bytes);
        }
        let mut buffer = [0; CHUNK];
        let mut turned = mask;
        turned.rotate_left(usize::from(phase % 4));
        // Whole words of the mask fit into a chunk, so each chunk begins where the mask does.
        bytes.chunks(CHUNK).all(|chunk| {
            let plain = &mut buffer[..chunk.len()];
            for (at, (to, from)) in plain.iter_mut().zip(chunk).enumerate() {
                *to = from ^ turned[at % 4];
            }
            self.feed(plain)
        })
    }

    /// True where the text may end here.
    pub(super) fn is_complete(&self) -> bool {
        self.len == 0
    }

    fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0 {
            let Some((&next, rest)) = bytes.split_first() else {
                return true;
            };
            bytes = rest;
            let held = usize::from(self.len);
            let mut character = [0; HELD_MAX + 1];
            character[..held].copy_from_slice(&self.held[..held]);
            character[held] = next;
            let character = &character[..=held];
            match std::str::from_utf8(character) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => self.hold(character),
                Err(_) => return false,
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                self.hold(&bytes[error.valid_up_to()..]);
                true
            }
            Err(_) => false,
        }
    }

    /// Keeps the beginning of a character, which is 3 bytes at most.
    fn hold(&mut self, beginning: &[u8]) {
        self.held[..beginning.len()].copy_from_slice(beginning);
        self.len = beginning.len() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_judged_as_the_whole_is(
            text in prop_oneof![
                any::<String>().prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..40),
                prop::collection::vec(prop::sample::select(vec![0xe2_u8, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xed, 0xa0, b'a']), 0..12),
            ],
            cuts in prop::collection::vec(0_usize..60, 0..6),
            mask in any::<[u8; 4]>(),
        ) {
            let masked: Vec<u8> = text.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut utf8 = Utf8::default();
            let good = cuts.windows(2).all(|cut| utf8.feed_masked(&masked[cut[0]..cut[1]], mask, (cut[0] % 4) as u8));
            prop_assert_eq!(good && utf8.is_complete(), std::str::from_utf8(&text).is_ok());
        }
    }

    #[test]
    fn text_that_went_bad_is_told_with_the_byte_that_spoils_it() {
        // A surrogate, a character past the last one, an overlong slash.
        for bad in [&[0xed, 0xa0][..], &[0xf4, 0x90], &[0xc0]] {
            let mut utf8 = Utf8::default();
            assert!(bad[..bad.len() - 1].iter().all(|byte| utf8.feed(&[*byte])));
            assert!(!utf8.feed(&bad[bad.len() - 1..]), "{bad:x?}");
        }
    }
}
