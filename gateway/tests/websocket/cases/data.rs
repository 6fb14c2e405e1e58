//! Sections 9 and 10: sizes, and messages cut in many ways. Smaller than Autobahn's, which has up to 16 MiB.

use super::case::{Case, Cut, Expect, Step, case, events, steps};
use hub_testkit::websocket::{Event, Frame, Role, opcode};

const KIB: usize = 1024;
/// Cut into frames of many sizes.
const FRAGMENTED_BYTES: usize = 256 * KIB;
/// Written in pieces of many sizes.
const CHOPPED_BYTES: usize = 128 * KIB;
/// Round trips of one case.
const ROUND_TRIPS: usize = 100;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, subsections) in [
        (opcode::TEXT, ["9.1", "9.3", "9.5", "9.7"]),
        (opcode::BINARY, ["9.2", "9.4", "9.6", "9.8"]),
    ] {
        let [whole, fragmented, chopped, many] = subsections;
        cases.extend(whole_messages(whole, kind));
        cases.extend(fragmented_messages(fragmented, kind));
        cases.extend(chopped_messages(chopped, kind));
        cases.extend(many_messages(many, kind));
    }
    let fragments = Frame::fragments(opcode::TEXT, "*".repeat(65_536).as_bytes(), 1300);
    let shown = events([Event::Text("*".repeat(65_536))]);
    cases.push(case(
        "10.1.1",
        "65536 bytes of text in frames of 1300",
        Cut::Once,
        &fragments,
        shown,
    ));
    cases
}

/// Payload of this length, and the message that it comes back as.
fn message(kind: u8, bytes: usize) -> (Vec<u8>, Event) {
    if kind == opcode::TEXT {
        let text = "BAsd7&jh23".repeat(bytes / 10 + 1)[..bytes].to_owned();
        (text.clone().into_bytes(), Event::Text(text))
    } else {
        let payload: Vec<u8> = (0..bytes).map(|n| (n * 31 + n / 251) as u8).collect();
        (payload.clone(), Event::Binary(payload))
    }
}

fn whole_messages(section: &str, kind: u8) -> Vec<Case> {
    let sizes = [
        64 * KIB,
        256 * KIB,
        KIB * KIB,
        2 * KIB * KIB,
        4 * KIB * KIB,
        8 * KIB * KIB,
    ];
    numbered(section, &sizes, |name, size| {
        let (payload, shown) = message(kind, size);
        let about = format!("a message of {size} bytes");
        case(
            name,
            &about,
            Cut::Once,
            &[Frame::new(kind, payload)],
            events([shown]),
        )
    })
}

fn fragmented_messages(section: &str, kind: u8) -> Vec<Case> {
    let sizes = [
        64,
        256,
        KIB,
        4 * KIB,
        16 * KIB,
        64 * KIB,
        128 * KIB,
        192 * KIB,
        256 * KIB,
    ];
    numbered(section, &sizes, |name, size| {
        let (payload, shown) = message(kind, FRAGMENTED_BYTES);
        let about = format!("{FRAGMENTED_BYTES} bytes in frames of {size}");
        let frames = Frame::fragments(kind, &payload, size);
        case(name, &about, Cut::Once, &frames, events([shown]))
    })
}

fn chopped_messages(section: &str, kind: u8) -> Vec<Case> {
    let sizes = [64, 128, 256, 512, 1024, 2048];
    numbered(section, &sizes, |name, size| {
        let (payload, shown) = message(kind, CHOPPED_BYTES);
        let about = format!("{CHOPPED_BYTES} bytes in writes of {size}");
        let pieces = Step::Pieces(Frame::new(kind, payload).bytes(Role::Client), size);
        Case::new(name, &about, vec![pieces], events([shown]))
    })
}

fn many_messages(section: &str, kind: u8) -> Vec<Case> {
    let sizes = [0, 16, 64, 256, 1024, 4096];
    numbered(section, &sizes, |name, size| {
        let (payload, shown) = message(kind, size);
        let frame = Frame::new(kind, payload);
        let trips = (1..=ROUND_TRIPS).flat_map(|n| {
            [
                steps(Cut::Once, std::slice::from_ref(&frame)),
                vec![Step::Await(n)],
            ]
            .concat()
        });
        let about = format!("{ROUND_TRIPS} round trips of {size} bytes");
        Case::new(
            name,
            &about,
            trips.collect(),
            Expect::Events(vec![shown; ROUND_TRIPS]),
        )
    })
}

fn numbered(section: &str, sizes: &[usize], make: impl Fn(&str, usize) -> Case) -> Vec<Case> {
    let named = sizes.iter().enumerate();
    named
        .map(|(at, size)| make(&format!("{section}.{}", at + 1), *size))
        .collect()
}
