//! Sections 1 to 5: one frame, control frames, what is reserved, fragments.

use super::case::{Case, Cut, Step, case, events, fails, fails_after, pong, steps};
use hub_testkit::websocket::{Event, Frame, Role};

const HELLO: &str = "Hello, world!";
/// The payload of the binary control frames.
const BINARY: [u8; 8] = [0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff];

pub(crate) fn cases() -> Vec<Case> {
    [
        framing(),
        pings(),
        reserved_bits(),
        opcodes(),
        fragmented_control(),
        fragments(),
        stray_continuations(),
        broken_messages(),
    ]
    .concat()
}

fn hello() -> Frame {
    Frame::text(HELLO)
}

fn framing() -> Vec<Case> {
    let mut cases = Vec::new();
    for (at, length) in [0, 125, 126, 127, 128, 65_535, 65_536].iter().enumerate() {
        let (text, bytes) = ("*".repeat(*length), vec![0xfe; *length]);
        let (said, shown) = (Frame::text(&text), events([Event::Text(text)]));
        let name = format!("1.1.{}", at + 1);
        cases.push(case(
            &name,
            &format!("{length} bytes of text"),
            Cut::Once,
            &[said],
            shown,
        ));
        let (said, shown) = (Frame::binary(&bytes), events([Event::Binary(bytes)]));
        let name = format!("1.2.{}", at + 1);
        cases.push(case(
            &name,
            &format!("{length} bytes"),
            Cut::Once,
            &[said],
            shown,
        ));
    }
    let (text, bytes) = ("*".repeat(65_536), vec![0xfe; 65_536]);
    for (name, frame, shown) in [
        ("1.1.8", Frame::text(&text), Event::Text(text)),
        ("1.2.8", Frame::binary(&bytes), Event::Binary(bytes)),
    ] {
        let pieces = Step::Pieces(frame.bytes(Role::Client), 997);
        cases.push(Case::new(
            name,
            "65536 bytes in writes of 997",
            vec![pieces],
            events([shown]),
        ));
    }
    cases
}

#[rustfmt::skip]
fn pings() -> Vec<Case> {
    let long = [0xfe; 125];
    let ten: Vec<Frame> = (0..10)
        .map(|n| Frame::ping(format!("payload-{n}")))
        .collect();
    let pongs: [Event; 10] = std::array::from_fn(|n| pong(format!("payload-{n}")));
    let unasked = Frame::pong("unsolicited pong payload");
    let ping = Frame::ping("ping payload");
    vec![
        case("2.1", "an empty Ping", Cut::Once, &[Frame::ping("")], events([pong("")])),
        case("2.2", "a Ping with text", Cut::Once, &[Frame::ping(HELLO)], events([pong(HELLO)])),
        case("2.3", "a Ping with bytes", Cut::Once, &[Frame::ping(BINARY)], events([pong(BINARY)])),
        case("2.4", "a Ping of 125 bytes", Cut::Once, &[Frame::ping(long)], events([pong(long)])),
        case("2.5", "a Ping of 126 bytes", Cut::Once, &[Frame::ping([0xfe; 126])], fails(1002)),
        case("2.6", "a Ping byte by byte", Cut::Bytes, &[Frame::ping(long)], events([pong(long)])),
        case("2.7", "an empty Pong that nobody asked for", Cut::Once, &[Frame::pong("")], events([])),
        case("2.8", "a Pong that nobody asked for", Cut::Once, std::slice::from_ref(&unasked), events([])),
        case("2.9", "such a Pong, then a Ping", Cut::Once, &[unasked, ping], events([pong("ping payload")])),
        case("2.10", "ten Pings", Cut::Once, &ten, events(pongs.clone())),
        case("2.11", "ten Pings byte by byte", Cut::Bytes, &ten, events(pongs)),
    ]
}

#[rustfmt::skip]
fn reserved_bits() -> Vec<Case> {
    let after_hello = |name, about, cut, bad: Frame| {
        let frames = [hello(), bad, Frame::ping("")];
        case(name, about, cut, &frames, fails_after(Event::text(HELLO)))
    };
    vec![
        case("3.1", "text with RSV3", Cut::Once, &[hello().reserved(1)], fails(1002)),
        after_hello("3.2", "text, then text with RSV2", Cut::Once, hello().reserved(2)),
        after_hello("3.3", "text, then text with RSV2 and 3", Cut::Frames, hello().reserved(3)),
        after_hello("3.4", "text, then text with RSV1", Cut::Bytes, hello().reserved(4)),
        case("3.5", "bytes with RSV1 and 3", Cut::Once, &[Frame::binary(BINARY).reserved(5)], fails(1002)),
        case("3.6", "a Ping with RSV1 and 2", Cut::Once, &[Frame::ping(HELLO).reserved(6)], fails(1002)),
        case("3.7", "a Close with all three", Cut::Once, &[Frame::close(1000, "").reserved(7)], fails(1002)),
    ]
}

fn opcodes() -> Vec<Case> {
    let alone = |name, opcode, payload| {
        let about = format!("opcode {opcode}");
        case(
            name,
            &about,
            Cut::Once,
            &[Frame::new(opcode, payload)],
            fails(1002),
        )
    };
    let after_hello = |name, opcode, payload, cut| {
        let about = format!("text, then opcode {opcode}");
        let frames = [hello(), Frame::new(opcode, payload), Frame::ping("")];
        case(name, &about, cut, &frames, fails_after(Event::text(HELLO)))
    };
    vec![
        alone("4.1.1", 3, ""),
        alone("4.1.2", 4, "reserved opcode payload"),
        after_hello("4.1.3", 5, "", Cut::Once),
        after_hello("4.1.4", 6, HELLO, Cut::Frames),
        after_hello("4.1.5", 7, HELLO, Cut::Bytes),
        alone("4.2.1", 11, ""),
        alone("4.2.2", 12, "reserved opcode payload"),
        after_hello("4.2.3", 13, "", Cut::Once),
        after_hello("4.2.4", 14, HELLO, Cut::Frames),
        after_hello("4.2.5", 15, HELLO, Cut::Bytes),
    ]
}

/// Text in two frames.
fn two() -> [Frame; 2] {
    [
        Frame::text("fragment1").unfinished(),
        Frame::continuation("fragment2"),
    ]
}

const BOTH: &str = "fragment1fragment2";

fn fragmented_control() -> Vec<Case> {
    let ping = [
        Frame::ping("fragment1").unfinished(),
        Frame::continuation("fragment2"),
    ];
    let pong = [
        Frame::pong("fragment1").unfinished(),
        Frame::continuation("fragment2"),
    ];
    vec![
        case("5.1", "a Ping in two frames", Cut::Once, &ping, fails(1002)),
        case("5.2", "a Pong in two frames", Cut::Once, &pong, fails(1002)),
    ]
}

fn fragments() -> Vec<Case> {
    let mut cases = Vec::new();
    let [first, second] = two();
    let around = [first, Frame::ping("ping payload"), second];
    for (name, around_name, how, cut) in [
        ("5.3", "5.6", "in one write", Cut::Once),
        ("5.4", "5.7", "frame by frame", Cut::Frames),
        ("5.5", "5.8", "byte by byte", Cut::Bytes),
    ] {
        let shown = events([Event::text(BOTH)]);
        cases.push(case(
            name,
            &format!("text in two frames, {how}"),
            cut,
            &two(),
            shown,
        ));
        let shown = events([pong("ping payload"), Event::text(BOTH)]);
        let about = format!("a Ping between two frames, {how}");
        cases.push(case(around_name, &about, cut, &around, shown));
    }
    let part = |n: u8| Frame::continuation(format!("fragment{n}")).unfinished();
    let before = [
        Frame::text("fragment1").unfinished(),
        part(2),
        Frame::ping("pongme 1!"),
    ];
    let after = [
        part(3),
        part(4),
        Frame::ping("pongme 2!"),
        Frame::continuation("fragment5"),
    ];
    for (name, how, cut) in [
        ("5.19", "frame by frame", Cut::Frames),
        ("5.20", "byte by byte", Cut::Bytes),
    ] {
        let all = [
            steps(cut, &before),
            vec![Step::Await(1)],
            steps(cut, &after),
        ]
        .concat();
        let text = "fragment1fragment2fragment3fragment4fragment5";
        let shown = events([pong("pongme 1!"), pong("pongme 2!"), Event::text(text)]);
        let about = format!("five frames, two Pings, and a pause, {how}");
        cases.push(Case::new(name, &about, all, shown));
    }
    cases
}

fn stray_continuations() -> Vec<Case> {
    let stray = || Frame::continuation("non-continuation payload");
    let mut cases = Vec::new();
    for (finished, unfinished, how, cut) in [
        ("5.9", "5.12", "in one write", Cut::Once),
        ("5.10", "5.13", "frame by frame", Cut::Frames),
        ("5.11", "5.14", "byte by byte", Cut::Bytes),
    ] {
        let about = format!("a continuation of nothing, then text, {how}");
        cases.push(case(
            finished,
            &about,
            cut,
            &[stray(), hello()],
            fails(1002),
        ));
        let about = format!("an unfinished continuation of nothing, then text, {how}");
        let frames = [stray().unfinished(), hello()];
        cases.push(case(unfinished, &about, cut, &frames, fails(1002)));
    }
    cases
}

#[rustfmt::skip]
fn broken_messages() -> Vec<Case> {
    let stray = Frame::continuation("fragment3").unfinished();
    let [first, second] = two();
    let after_two = [first.clone(), second.clone(), stray.clone(), hello()];
    let twice = |stray: Frame| {
        let once = [stray, first.clone(), second.clone()];
        [once.clone(), once].concat()
    };
    let two_texts = [first.clone(), Frame::text("fragment2")];
    let begun_twice = [
        first.clone(),
        Frame::binary("fragment2").unfinished(),
        second.clone(),
    ];
    vec![
        case("5.15", "two frames, then a continuation of nothing", Cut::Once, &after_two, fails_after(Event::text(BOTH))),
        case("5.16", "unfinished continuations before messages", Cut::Once, &twice(stray.clone()), fails(1002)),
        case("5.17", "finished continuations before messages", Cut::Once, &twice(Frame::continuation("fragment3")), fails(1002)),
        case("5.18", "two frames that both say text", Cut::Once, &two_texts, fails(1002)),
        case("5.18b", "bytes that begin within text", Cut::Frames, &begun_twice, fails(1002)),
    ]
}
