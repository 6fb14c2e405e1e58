//! Which bytes may stand where, as one table, and the fast search for the end of a header value.

use hub_core::{Reason, Refusal};

const TOKEN: u8 = 1;
const PATH: u8 = 2;
const QUERY: u8 = 4;
/// Token bytes that no ordinary header name holds.
const ODD: u8 = 8;

/// What each byte may be part of.
static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    loop {
        let mut class = 0;
        let unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        let sub_delim = matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        );
        // RFC 9110, section 5.6.2.
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            class |= TOKEN;
            if !byte.is_ascii_alphanumeric() && byte != b'-' {
                class |= ODD;
            }
        }
        // RFC 3986's pchar and the slash, and the three bytes beside them that browsers leave as
        // they are in a path. The percent sign is no member: an escape is checked as a whole.
        if unreserved || sub_delim || matches!(byte, b':' | b'@' | b'/' | b'[' | b']' | b'|') {
            class |= PATH | QUERY;
        }
        // Browsers leave more as it is in a query.
        if matches!(byte, b'?' | b'^' | b'`' | b'{' | b'}') {
            class |= QUERY;
        }
        table[byte as usize] = class;
        if byte == 255 {
            return table;
        }
        byte += 1;
    }
}

/// True for the bytes of a token: methods and header names.
pub(crate) fn is_token(byte: u8) -> bool {
    CLASS[usize::from(byte)] & TOKEN != 0
}

/// Length of the token that `bytes` start with, and whether it holds a byte other than letters, digits
/// and hyphens. `None` where nothing ends it.
pub(crate) fn token(bytes: &[u8]) -> Option<(usize, bool)> {
    let mut all = 0;
    for (len, byte) in bytes.iter().enumerate() {
        let class = CLASS[usize::from(*byte)];
        if class & TOKEN == 0 {
            return Some((len, all & ODD != 0));
        }
        all |= class;
    }
    None
}

/// True for a token of at least one byte.
pub(crate) fn is_whole_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token(*byte))
}

/// True for what may stand unescaped in a path.
pub(crate) fn is_path(byte: u8) -> bool {
    CLASS[usize::from(byte)] & PATH != 0
}

/// True for what may stand unescaped in a query.
pub(crate) fn is_query(byte: u8) -> bool {
    CLASS[usize::from(byte)] & QUERY != 0
}

/// The value of a hexadecimal digit of either case.
pub(crate) fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The byte that an escape's two digits stand for; `None` where they are not two hexadecimal digits.
pub(crate) fn escaped(digits: Option<&[u8; 2]>) -> Option<u8> {
    let [high, low] = digits?;
    Some(hex_digit(*high)? << 4 | hex_digit(*low)?)
}

/// Index of the first control byte other than a tab at or after `from`, or the length of `bytes`.
///
/// Looks at eight bytes at a time: a byte below 0x20 borrows from its high bit when 0x20 is taken
/// away, and one that equals 0x7f becomes zero, which borrows likewise. A borrow can flag bytes above
/// a true hit, never below, and only the lowest flag is used.
pub(crate) fn first_control(bytes: &[u8], from: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = from.min(bytes.len());
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let low = word.wrapping_sub(ONES * 0x20) & !word;
        let delete = word ^ (ONES * 0x7f);
        let hits = (low | (delete.wrapping_sub(ONES) & !delete)) & HIGHS;
        if hits == 0 {
            at += 8;
            continue;
        }
        at += (hits.trailing_zeros() / 8) as usize;
        if bytes[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    bytes[at..]
        .iter()
        .position(|byte| is_control(*byte))
        .map_or(bytes.len(), |offset| at + offset)
}

/// True for control bytes, of which a value may hold none: all but the tab.
pub(crate) fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

/// A refusal and the words for the log that name the rule.
#[cold]
pub(crate) fn refuse(reason: Reason, rule: &'static str) -> Refusal {
    Refusal::new(reason).with_detail(rule)
}

/// The refusal for a line that ends in LF alone.
#[cold]
pub(crate) fn bare_lf() -> Refusal {
    refuse(Reason::BadLineEnd, "a line ends in a bare LF")
}

/// The refusal for a byte that stands where a line was to go on, or to end in CRLF.
#[cold]
pub(crate) fn control_in_line(byte: u8, otherwise: Reason, rule: &'static str) -> Refusal {
    match byte {
        b'\n' => bare_lf(),
        b'\r' => refuse(Reason::BadLineEnd, "a CR is not followed by LF"),
        _ => refuse(otherwise, rule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_fast_search_agrees_with_a_plain_one(
            bytes in proptest::collection::vec(
                prop_oneof![8 => any::<u8>(), 30 => 0x20..0x7f_u8, 4 => Just(b'\t')], 0..80),
            from in 0..90_usize,
        ) {
            let from_clamped = from.min(bytes.len());
            let plain = bytes[from_clamped..].iter().position(|b| is_control(*b));
            prop_assert_eq!(
                first_control(&bytes, from),
                plain.map_or(bytes.len(), |offset| from_clamped + offset)
            );
        }
    }

    #[test]
    fn the_table_holds_what_the_standards_name() {
        let members = |test: fn(u8) -> bool| (0..=255_u8).filter(|b| test(*b)).count();
        assert_eq!(members(is_token), 62 + 15);
        // 66 unreserved, 11 sub-delims, and `:@/[]|`.
        assert_eq!(members(is_path), 66 + 11 + 6);
        assert_eq!(members(is_query), 66 + 11 + 6 + 5);
        for refused in *b" \"#%<>\\\x7f\x80\0" {
            assert!(!is_path(refused) && !is_query(refused), "{refused:#x}");
        }
    }
}
