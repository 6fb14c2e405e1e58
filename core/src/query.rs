//! One parameter of a query, such that every server finds the same one or none.
//!
//! Servers differ: some split at `;` too, decode names, ignore their case, trim them, read `a[]` and
//! `a[b]` as `a`, or turn punctuation into underscores. A parameter that any of them could take for the
//! one that is looked for is refused unless it is spelt exactly, once, between `&`.

/// The raw value of the parameter `name`, which consists of `[A-Za-z0-9_.-]`; empty where it has no `=`.
/// `None` where it is not there.
///
/// # Errors
/// A sentence for the log, where it is there twice or where something looks like it.
pub fn parameter<'q>(query: &'q str, name: &str) -> Result<Option<&'q str>, &'static str> {
    let mut value = None;
    for pair in query.split('&') {
        for part in pair.split(';') {
            let (key, text) = part.split_once('=').unwrap_or((part, ""));
            if !looks_like(key, name) {
                continue;
            }
            if key != name {
                return Err("a parameter of the query looks like the one that is read");
            }
            if part.len() != pair.len() {
                return Err("a semicolon beside the parameter that is read");
            }
            if value.replace(text).is_some() {
                return Err("the parameter that is read is there twice");
            }
        }
    }
    Ok(value)
}

/// True where `key`, decoded, trimmed, up to its first `[`, in any case and with any punctuation, is
/// `name`.
fn looks_like(key: &str, name: &str) -> bool {
    let mut key = Decoded(key.as_bytes()).skip_while(u8::is_ascii_whitespace);
    for wanted in name.bytes() {
        let same = key.next().is_some_and(|byte| {
            byte.eq_ignore_ascii_case(&wanted)
                || !(byte.is_ascii_alphanumeric() || wanted.is_ascii_alphanumeric())
        });
        if !same {
            return false;
        }
    }
    let mut key = key.skip_while(u8::is_ascii_whitespace);
    // A NUL ends a name in servers written in C.
    matches!(key.next(), None | Some(b'[' | 0))
}

/// Bytes of a form-encoded name. What is no escape stands for itself.
struct Decoded<'k>(&'k [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        let digit = |at: usize| rest.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let escaped = match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => u8::try_from(high << 4 | low).ok(),
            _ => None,
        };
        self.0 = if escaped.is_some() { &rest[2..] } else { rest };
        match (escaped, byte) {
            (Some(byte), _) => Some(byte),
            (None, b'+') => Some(b' '),
            (None, byte) => Some(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_among_others() {
        for (query, value) in [
            ("", None),
            ("x=1", None),
            ("t=A", Some("A")),
            ("x=1&t=A&y=2", Some("A")),
            ("&&t=A&", Some("A")),
            ("t", Some("")),
            ("t=", Some("")),
            ("t=A=B", Some("A=B")),
            ("t=%41", Some("%41")),
            ("x=1;y=2&t=A", Some("A")),
            ("xt=1&tx=2&x=t", None),
            ("x[t]=1&x.t=1", None),
        ] {
            assert_eq!(parameter(query, "t"), Ok(value), "{query}");
        }
    }

    #[test]
    fn what_another_server_could_take_for_the_parameter_is_refused() {
        for query in [
            "a_b=1&a_b=1",
            "a_b&a_b=1",
            "A_B=1",
            "a_b=1&a_B=1",
            "%61_b=1",
            "a%5fb=1",
            "a%5Fb=1",
            "a-b=1",
            "a.b=1",
            "a+b=1",
            "a%20b=1",
            "+a_b=1",
            "%20a_b=1",
            "a_b+=1",
            "a_b[]=1",
            "a_b%5B%5D=1",
            "a_b[x]=1",
            "a_b[",
            "a_b%00=1",
            "a_b=1;x=2",
            "x=2;a_b=1",
            "x=2;A_B=1",
            ";a_b=1",
        ] {
            assert!(parameter(query, "a_b").is_err(), "{query}");
        }
    }

    #[test]
    fn broken_escapes_stand_for_themselves() {
        for query in ["a%=1", "a%5=1", "a%5gb=1", "%", "%%%", "a%zzb"] {
            assert_eq!(parameter(query, "a_b"), Ok(None), "{query}");
        }
    }
}
