//! JSON text, written by hand: no serialiser, no allocation beyond the buffer's own.
//!
//! What is written is ASCII without control characters. So whatever a client sends, a line is one
//! line, and a terminal that shows it obeys no escape sequence, neither the ASCII ones nor those of
//! Unicode (C1 controls, changes of direction).

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Writes `text` as a JSON string, quotes included. Bytes that are not UTF-8 become U+FFFD, as
/// `String::from_utf8_lossy` has it.
pub(super) fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    if is_plain(text) {
        out.extend_from_slice(text);
    } else {
        put_odd(out, text);
    }
    out.push(b'"');
}

/// True where every byte stands for itself within a JSON string. Without an early end, so that the
/// compiler looks at sixteen bytes at a time; texts are short and nearly always plain.
fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, byte| {
        let odd = *byte < b' ' || *byte > b'~' || *byte == b'"' || *byte == b'\\';
        plain & !odd
    })
}

/// The first `bytes_max` bytes of `text`, less those that would leave a character cut in two.
pub(super) fn bounded(text: &[u8], bytes_max: usize) -> &[u8] {
    if text.len() <= bytes_max {
        return text;
    }
    // A character has at most three bytes behind its first one.
    let continues = |at: &usize| text[*at] & 0b1100_0000 == 0b1000_0000;
    let cut = (bytes_max.saturating_sub(3)..=bytes_max)
        .rev()
        .find(|at| !continues(at));
    &text[..cut.unwrap_or(bytes_max)]
}

/// Writes a decimal number.
pub(super) fn put_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes 32 hexadecimal digits.
pub(super) fn put_hex(out: &mut Vec<u8>, number: u128) {
    let mut digits = [0; 32];
    for (pair, byte) in digits
        .as_chunks_mut::<2>()
        .0
        .iter_mut()
        .zip(number.to_be_bytes())
    {
        *pair = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
    }
    out.extend_from_slice(&digits);
}

/// The slow path, character by character.
#[cold]
fn put_odd(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                ' '..='~' => out.push(character as u8),
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        put_escape(out, *unit);
                    }
                }
            }
        }
        if !chunk.invalid().is_empty() {
            put_escape(out, 0xfffd);
        }
    }
}

fn put_escape(out: &mut Vec<u8>, unit: u16) {
    let digit = |shift: u16| HEX[usize::from(unit >> shift & 15)];
    out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(text: &[u8]) -> String {
        let mut out = Vec::new();
        put_string(&mut out, text);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn quotes_controls_and_terminal_escapes_are_defused() {
        assert_eq!(written(b"plain /path?x=1"), r#""plain /path?x=1""#);
        assert_eq!(written(b"a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(written(b"x\r\n{\"forged\":1}"), r#""x\r\n{\"forged\":1}""#);
        assert_eq!(written(b"\x1b[31m\0\x7f"), r#""\u001b[31m\u0000\u007f""#);
        // CSI as one character, and a change of direction.
        assert_eq!(
            written("\u{9b}31m\u{202e}".as_bytes()),
            r#""\u009b31m\u202e""#
        );
        assert_eq!(written("ü😀".as_bytes()), r#""\u00fc\ud83d\ude00""#);
        assert_eq!(written(b"\xff\xc3"), r#""\ufffd\ufffd""#);
    }

    #[test]
    fn each_byte_alone_is_written_as_visible_ascii_and_reads_back() {
        for byte in 0..=255_u8 {
            let written = written(&[byte]);
            assert!(
                written.bytes().all(|b| (b' '..=b'~').contains(&b)),
                "{byte:#x}"
            );
            let back: String = serde_json::from_str(&written).expect("JSON");
            assert_eq!(back, String::from_utf8_lossy(&[byte]));
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(bounded(b"abc", 3), b"abc");
        assert_eq!(bounded(b"abc", 2), b"ab");
        assert_eq!(bounded("aü".as_bytes(), 2), b"a");
        assert_eq!(bounded("😀😀".as_bytes(), 7), "😀".as_bytes());
        assert_eq!(bounded("😀".as_bytes(), 3), b"");
        // Not UTF-8: nothing to keep whole.
        assert_eq!(bounded(&[0x80; 9], 5), [0x80; 5]);
        assert!(bounded(&[0x80; 9], 0).is_empty());
    }

    #[test]
    fn hexadecimal_numbers_keep_their_leading_noughts() {
        let mut out = Vec::new();
        put_hex(&mut out, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(out, b"0af7651916cd43dd8448eb211c80319c");
    }

    proptest! {
        #[test]
        fn any_bytes_read_back_as_the_text_they_are(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let written = written(&text);
            prop_assert!(written.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            let back: String = serde_json::from_str(&written).expect("JSON");
            prop_assert_eq!(back, String::from_utf8_lossy(&text));
        }

        #[test]
        fn any_text_reads_back_unchanged(text in any::<String>()) {
            let back: String = serde_json::from_str(&written(text.as_bytes())).expect("JSON");
            prop_assert_eq!(back, text);
        }

        #[test]
        fn cut_text_is_still_text(text in any::<String>(), bytes_max in 0..40_usize) {
            let cut = bounded(text.as_bytes(), bytes_max);
            prop_assert!(cut.len() <= bytes_max && cut.len() + 3 >= bytes_max.min(text.len()));
            prop_assert!(std::str::from_utf8(cut).is_ok());
        }
    }
}
