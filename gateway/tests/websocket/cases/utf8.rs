//! Section 6: text that is UTF-8, and text that is not.

use super::case::{Case, Cut, Expect, Step, case, events, fails, steps};
use hub_testkit::websocket::{Event, Frame, Role, opcode};

/// Greek, as Autobahn has it.
const GREEK: &str = "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}";
/// Latin and German letters of one and two bytes.
const LETTERS: &str = "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!";
const SURROGATE: &[u8] = &[0xed, 0xa0, 0x80];

pub(crate) fn cases() -> Vec<Case> {
    [empty(), valid(), invalid(), fail_fast(), sequences()].concat()
}

#[rustfmt::skip]
fn empty() -> Vec<Case> {
    let part = |text| Frame::continuation(text).unfinished();
    let nothing = [
        Frame::text("").unfinished(),
        part(""),
        Frame::continuation(""),
    ];
    let middle = [
        Frame::text("").unfinished(),
        part("middle frame payload"),
        Frame::continuation(""),
    ];
    vec![
        case("6.1.1", "no text", Cut::Once, &[Frame::text("")], events([Event::text("")])),
        case("6.1.2", "no text in three frames", Cut::Once, &nothing, events([Event::text("")])),
        case("6.1.3", "text between two empty frames", Cut::Once, &middle, events([Event::text("middle frame payload")])),
    ]
}

#[rustfmt::skip]
fn valid() -> Vec<Case> {
    let frames = |text: &str, bytes| Frame::fragments(opcode::TEXT, text.as_bytes(), bytes);
    let letters = || events([Event::text(LETTERS)]);
    vec![
        case("6.2.1", "letters", Cut::Once, &[Frame::text(LETTERS)], letters()),
        case("6.2.2", "letters in two frames, cut between letters", Cut::Once, &frames(LETTERS, 12), letters()),
        case("6.2.3", "letters in frames of one byte", Cut::Once, &frames(LETTERS, 1), letters()),
        case("6.2.4", "Greek in frames of one byte", Cut::Once, &frames(GREEK, 1), events([Event::text(GREEK)])),
    ]
}

#[rustfmt::skip]
fn invalid() -> Vec<Case> {
    let text = [GREEK.as_bytes(), SURROGATE, b"edited"].concat();
    let frames = Frame::fragments(opcode::TEXT, &text, 1);
    vec![
        case("6.3.1", "a surrogate", Cut::Once, &[Frame::text(&text)], fails(1007)),
        case("6.3.2", "a surrogate in frames of one byte", Cut::Once, &frames, fails(1007)),
    ]
}

/// Bad text is noticed before the message has come to its end.
#[rustfmt::skip]
fn fail_fast() -> Vec<Case> {
    let beyond: &[&[u8]] = &[GREEK.as_bytes(), &[0xf4, 0x90, 0x80, 0x80], b"edited"];
    let first_bad = [
        [GREEK.as_bytes(), &[0xf4]].concat(),
        vec![0x90],
        b"\x80\x80edited".to_vec(),
    ];
    let first_bad: Vec<&[u8]> = first_bad.iter().map(Vec::as_slice).collect();
    let by_frame = |name, about, parts: &[&[u8]]| {
        let [a, b, c] = parts else {
            unreachable!("three parts")
        };
        let begun = [
            Frame::text(a).unfinished(),
            Frame::continuation(b).unfinished(),
        ];
        let all = [
            steps(Cut::Frames, &begun),
            vec![Step::Judge],
            steps(Cut::Frames, &[Frame::continuation(c)]),
        ];
        Case::new(name, about, all.concat(), fails(1007))
    };
    let by_write = |name, about, parts: &[&[u8]]| {
        let bytes = Frame::text(parts.concat()).bytes(Role::Client);
        let head = bytes.len() - parts.concat().len();
        let (a, rest) = bytes.split_at(head + parts[0].len());
        let (b, c) = rest.split_at(parts[1].len());
        let send = |bytes: &[u8]| Step::Send(bytes.to_vec());
        let all = vec![send(a), send(b), Step::Judge, send(c)];
        Case::new(name, about, all, fails(1007))
    };
    vec![
        by_frame("6.4.1", "bad in the second of three frames", beyond),
        by_frame("6.4.2", "bad with one byte in the second of three frames", &first_bad),
        by_write("6.4.3", "bad in the second of three writes of one frame", beyond),
        by_write("6.4.4", "bad with one byte in the second of three writes", &first_bad),
    ]
}

/// One message for each sequence.
fn sequences() -> Vec<Case> {
    let mut cases = Vec::new();
    for (section, (about, good, sequences)) in SEQUENCES.iter().enumerate() {
        // All prefixes of one text.
        let prefixes = (1..=GREEK.len()).map(|end| GREEK.as_bytes()[..end].to_vec());
        let written = sequences.split_ascii_whitespace().map(bytes);
        let all: Vec<Vec<u8>> = match *about {
            PREFIXES => prefixes.collect(),
            _ => written.collect(),
        };
        for (at, sequence) in all.iter().enumerate() {
            let text = std::str::from_utf8(sequence);
            // The table's word, so that the list does not lean on Rust's; prefixes have both.
            if let Some(good) = good {
                assert_eq!(text.is_ok(), *good, "{sequence:x?}");
            }
            let expect = match text {
                Ok(text) => Expect::Events(vec![Event::text(text)]),
                Err(_) => fails(1007),
            };
            let name = format!("6.{}.{}", section + 5, at + 1);
            let about = format!("{about}: {sequence:x?}");
            cases.push(case(
                &name,
                &about,
                Cut::Once,
                &[Frame::text(sequence)],
                expect,
            ));
        }
    }
    cases
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("two hex digits");
    (0..hex.len()).step_by(2).map(digit).collect()
}

const PREFIXES: &str = "a prefix";

/// What it is, whether it is UTF-8, and the sequences: 6.5 to 6.23.
const SEQUENCES: &[(&str, Option<bool>, &str)] = &[
    (
        "text",
        Some(true),
        "68656c6c6f24776f726c64 68656c6c6fc2a2776f726c64 68656c6c6fe282ac776f726c64 68656c6c6ff0a4ada2776f726c64 cebae1bdb9cf83cebcceb5",
    ),
    (PREFIXES, None, ""),
    (
        "the first of its length",
        Some(true),
        "00 c280 e0a080 f0908080",
    ),
    ("five and six bytes", Some(false), "f888808080 fc8480808080"),
    (
        "the last of its length",
        Some(true),
        "7f dfbf efbfbf f48fbfbf",
    ),
    (
        "past the last",
        Some(false),
        "f7bfbfbf fbbfbfbfbf fdbfbfbfbfbf",
    ),
    ("a boundary", Some(true), "ed9fbf ee8080 efbfbd f48fbfbf"),
    (
        "continuations alone",
        Some(false),
        "f4908080 80 bf 80bf 80bf80 80bf80bf 80bf80bf80 80bf80bf80bf 808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf",
    ),
    (
        "beginnings before spaces",
        Some(false),
        "c020c120c220c320c420c520c620c720c820c920ca20cb20cc20cd20ce20cf20d020d120d220d320d420d520d620d720d820d920da20db20dc20dd20de20df20 e020e120e220e320e420e520e620e720e820e920ea20eb20ec20ed20ee20ef20 f020f120f220f320f420f520f620f720 f820f920fa20fb20 fc20fd20",
    ),
    (
        "the last byte is missing",
        Some(false),
        "c0 e080 f08080 f8808080 fc80808080 df efbf f7bfbf fbbfbfbf fdbfbfbfbf",
    ),
    (
        "those one after the other",
        Some(false),
        "c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf",
    ),
    ("bytes that never are", Some(false), "fe ff fefeffff"),
    (
        "an overlong slash",
        Some(false),
        "c0af e080af f08080af f8808080af fc80808080af",
    ),
    (
        "the longest overlong",
        Some(false),
        "c1bf e09fbf f08fbfbf f887bfbfbf fc83bfbfbfbf",
    ),
    (
        "an overlong NUL",
        Some(false),
        "c080 e08080 f0808080 f880808080 fc8080808080",
    ),
    (
        "a surrogate",
        Some(false),
        "eda080 edadbf edae80 edafbf edb080 edbe80 edbfbf",
    ),
    (
        "two surrogates",
        Some(false),
        "eda080edb080 eda080edbfbf edadbfedb080 edadbfedbfbf edae80edb080 edae80edbfbf edafbfedb080 edafbfedbfbf",
    ),
    (
        "no character, but a code point",
        Some(true),
        "efbfbe efbfbf f09fbfbe f09fbfbf f0afbfbe f0afbfbf f0bfbfbe f0bfbfbf f18fbfbe f18fbfbf f19fbfbe f19fbfbf f1afbfbe f1afbfbf f1bfbfbe f1bfbfbf f28fbfbe f28fbfbf f29fbfbe f29fbfbf f2afbfbe f2afbfbf f2bfbfbe f2bfbfbf f38fbfbe f38fbfbf f39fbfbe f39fbfbf f3afbfbe f3afbfbf f3bfbfbe f3bfbfbf f48fbfbe f48fbfbf",
    ),
    (
        "a special",
        Some(true),
        "efbfb9 efbfba efbfbb efbfbc efbfbd efbfbe efbfbf",
    ),
];
