use super::*;
use proptest::prelude::*;

fn normal(raw: &str) -> String {
    normalise(raw)
        .unwrap_or_else(|refusal| panic!("{raw} is refused: {refusal:?}"))
        .into_owned()
}

fn rule(raw: &str) -> Cow<'static, str> {
    let refusal = normalise(raw).expect_err(raw);
    assert_eq!(refusal.reason, Reason::BadPath);
    refusal.detail.expect("every rule is named")
}

#[test]
fn a_normal_path_is_borrowed() {
    for path in [
        "/",
        "/a",
        "/a/b/",
        "/.well-known/x",
        "/a..b/...",
        "/a;v=1/b",
        "/caf%C3%A9",
        "/[x]|y",
    ] {
        assert!(matches!(normalise(path), Ok(Cow::Borrowed(_))), "{path}");
    }
}

#[test]
fn dot_segments_are_removed() {
    assert_eq!(normal("/a/./b"), "/a/b");
    assert_eq!(normal("/a/."), "/a/");
    assert_eq!(normal("/%2e/a/%2E/b"), "/a/b");
}

#[test]
fn doubled_slashes_are_read_as_one() {
    assert_eq!(normal("//a///b//"), "/a/b/");
    assert_eq!(normal("//"), "/");
}

#[test]
fn escapes_get_one_spelling() {
    assert_eq!(normal("/%41%7e%3a%2D"), "/A~:-");
    assert_eq!(normal("/%c3%a9%20%3c"), "/%C3%A9%20%3C");
    assert_eq!(normal("/100%25"), "/100%25");
    assert_eq!(normal("/50%25off"), "/50%25off");
}

#[test]
fn parameters_are_ordinary_bytes_unless_a_dot_segment_carries_them() {
    assert_eq!(normal("/a;x=1/b%3bc"), "/a;x=1/b;c");
    for path in ["/a/..;/b", "/a/.;x/b", "/a/%2e%2e;/b", "/a/..%3bx", "/..;"] {
        assert_eq!(rule(path), "a dot segment with a parameter", "{path}");
    }
    assert_eq!(normal("/a/;x=1"), "/a/;x=1");
    for path in ["/;x/admin", "/a/;/b", "/a/%3bx/", "/;x//"] {
        assert_eq!(rule(path), "a parameter without a segment", "{path}");
    }
}

#[test]
fn parameters_are_dropped_as_some_origins_drop_them() {
    for (path, dropped) in [
        ("/a/b", None),
        ("/a;x=1/b;y", Some("/a/b")),
        ("/a;", Some("/a")),
        ("/a/;x", Some("/a/")),
        ("/;x", Some("/")),
    ] {
        assert_eq!(without_parameters(path).as_deref(), dropped, "{path}");
    }
}

#[test]
fn what_origins_disagree_on_is_refused_by_name() {
    for (path, expected) in [
        ("", "the path does not start with a slash"),
        ("a", "the path does not start with a slash"),
        ("/a%2fb", "an escaped slash in the path"),
        ("/a%2Fb", "an escaped slash in the path"),
        ("/a%5cb", "an escaped backslash in the path"),
        ("/a\\b", "a backslash in the path"),
        ("/a%00", "an escaped NUL in the path"),
        ("/a%0d%0ab", "an escaped control byte in the path"),
        ("/a%09b", "an escaped control byte in the path"),
        ("/a%7f", "an escaped control byte in the path"),
        ("/a%", "an escape is not two hexadecimal digits"),
        ("/a%4", "an escape is not two hexadecimal digits"),
        ("/a%4g", "an escape is not two hexadecimal digits"),
        ("/a%u0041", "an escape is not two hexadecimal digits"),
        ("/%252f", "an escape of an escape in the path"),
        ("/%25%32f", "an escape of an escape in the path"),
        ("/%252e%252e/", "an escape of an escape in the path"),
        ("/%25252f", "an escape of an escape in the path"),
        ("/%255c", "an escape of an escape in the path"),
        ("/%2500", "an escape of an escape in the path"),
        ("/%c0%af", "the path's escapes are not UTF-8"),
        ("/%c0%ae%c0%ae/", "the path's escapes are not UTF-8"),
        ("/%e0%80%af", "the path's escapes are not UTF-8"),
        ("/%ed%a0%80", "the path's escapes are not UTF-8"),
        ("/%ff", "the path's escapes are not UTF-8"),
        ("/..", "a `..` segment"),
        ("/../a", "a `..` segment"),
        ("/a/../b", "a `..` segment"),
        ("/a/..", "a `..` segment"),
        ("/a/b/%2E%2e", "a `..` segment"),
        ("/a/.%2e/b", "a `..` segment"),
        ("/a//../b", "a `..` segment"),
        ("/a#b", "a fragment in the request target"),
        ("/a b", "the path holds a byte that a path may not"),
        ("/<a>", "the path holds a byte that a path may not"),
        ("/a\"", "the path holds a byte that a path may not"),
        ("/{a}", "the path holds a byte that a path may not"),
        ("/a^b", "the path holds a byte that a path may not"),
        ("/é", "the path holds a byte that a path may not"),
    ] {
        assert_eq!(rule(path), expected, "{path}");
    }
}

/// RFC 3986, section 5.2.4, word for word, over an input whose escapes are decoded and whose slashes
/// are merged by repeated replacement. Knows nothing of refusals.
fn by_the_book(raw: &str) -> String {
    let mut input = raw.to_owned();
    for byte in 0..=255_u8 {
        let allowed = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@[]|".contains(&byte);
        let to = if allowed {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        };
        let (upper, lower) = (format!("{byte:02X}"), format!("{byte:02x}"));
        for escape in [
            format!("%{lower}"),
            format!("%{}{}", &upper[..1], &lower[1..]),
            format!("%{}{}", &lower[..1], &upper[1..]),
            format!("%{upper}"),
        ] {
            input = input.replace(&escape, &to);
        }
    }
    while input.contains("//") {
        input = input.replace("//", "/");
    }
    let mut output = String::new();
    while !input.is_empty() {
        if input.starts_with("/./") {
            input.replace_range(..2, "");
        } else if input == "/." {
            input = "/".into();
        } else if input.starts_with("/../") || input == "/.." {
            input.replace_range(..3, "");
            if input.is_empty() {
                input = "/".into();
            }
            let cut = output.rfind('/').unwrap_or(0);
            output.truncate(cut);
        } else {
            let next = input[1..].find('/').map_or(input.len(), |index| index + 1);
            output.push_str(&input[..next]);
            input.replace_range(..next, "");
        }
    }
    output
}

fn paths() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[a-z]{1,3}",
        4 => Just("/".to_owned()),
        3 => Just("/..".to_owned()),
        2 => Just("/.".to_owned()),
        2 => Just("%2e".to_owned()),
        1 => Just("%2E%2E/".to_owned()),
        1 => Just("%41".to_owned()),
        1 => Just("%c3%A9".to_owned()),
        1 => Just("%20".to_owned()),
        1 => Just("%25".to_owned()),
        1 => Just("%2f".to_owned()),
        1 => Just(";x".to_owned()),
        1 => Just("%3B".to_owned()),
        1 => "%[0-9a-fA-F]{2}",
        1 => "[ -~]",
    ];
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn a_normal_form_is_its_own_and_never_climbs(path in paths()) {
        if let Ok(normal) = normalise(&path) {
            prop_assert!(normal.starts_with('/') && normal.is_ascii());
            prop_assert!(!normal.contains("//"));
            prop_assert!(normal.split('/').all(|segment| segment != ".." && segment != "."));
            let again = normalise(&normal);
            prop_assert!(matches!(&again, Ok(Cow::Borrowed(text)) if *text == normal), "{:?}", again);
        }
    }

    #[test]
    fn the_normal_form_is_the_one_of_the_standard(path in paths()) {
        if let Ok(normal) = normalise(&path) {
            prop_assert_eq!(normal.as_ref(), by_the_book(&path));
        }
    }

    #[test]
    fn no_text_makes_it_panic(path in "\\PC{0,40}") {
        // Only that it returns counts here; what it returns is the other tests' matter.
        let _outcome = normalise(&path);
    }
}
