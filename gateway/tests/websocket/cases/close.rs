//! Section 7: Close.

use super::case::{Case, Cut, Expect, case, closes, events, fails};
use hub_testkit::websocket::{Event, Frame};

pub(crate) fn cases() -> Vec<Case> {
    [order(), payloads(), codes()].concat()
}

fn normal() -> Frame {
    Frame::close(1000, "")
}

/// What follows a Close means nothing.
#[rustfmt::skip]
fn order() -> Vec<Case> {
    let [first, second] = [
        Frame::text("fragment1").unfinished(),
        Frame::continuation("fragment2"),
    ];
    let text = || Frame::text("Hello, world!");
    let large = "BAsd7&jh23".repeat(26_000);
    let last = [Frame::text(&large), normal(), Frame::ping("")];
    let echoed = Expect::Close(vec![Event::Text(large)], vec![Some(1000)]);
    vec![
        case("7.1.1", "text, then Close", Cut::Once, &[text()], events([Event::text("Hello, world!")])),
        case("7.1.2", "two Closes", Cut::Frames, &[normal(), normal()], closes(1000)),
        case("7.1.3", "Close, then a Ping", Cut::Frames, &[normal(), Frame::ping("")], closes(1000)),
        case("7.1.4", "Close, then text", Cut::Frames, &[normal(), text()], closes(1000)),
        case("7.1.5", "Close within a message", Cut::Frames, &[first, normal(), second], closes(1000)),
        case("7.1.6", "a large text, then Close and a Ping", Cut::Frames, &last, echoed),
    ]
}

#[rustfmt::skip]
fn payloads() -> Vec<Case> {
    let reason = |length| Frame::close(1000, "*".repeat(length));
    let either = Expect::Close(Vec::new(), vec![None, Some(1000)]);
    let cut_off = Frame::close(1000, [0xce, 0xba, 0xe1, 0xbd, 0xb9, 0xcf]);
    let spoilt = [
        "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}".as_bytes(),
        &[0xed, 0xa0, 0x80],
        b"edited",
    ]
    .concat();
    vec![
        case("7.3.1", "an empty Close", Cut::Once, &[Frame::close_with("")], either),
        case("7.3.2", "half of a code", Cut::Once, &[Frame::close_with("a")], fails(1002)),
        case("7.3.3", "a code alone", Cut::Once, &[normal()], closes(1000)),
        case("7.3.4", "a code and a reason", Cut::Once, &[Frame::close(1000, "Hello World!")], closes(1000)),
        case("7.3.5", "a reason of 123 bytes", Cut::Once, &[reason(123)], closes(1000)),
        case("7.3.6", "a reason of 124 bytes", Cut::Once, &[reason(124)], fails(1002)),
        case("7.5.1", "a reason that is not UTF-8", Cut::Once, &[Frame::close(1000, spoilt)], fails(1007)),
        case("7.5.1b", "a reason that stops within a character", Cut::Once, &[cut_off], fails(1007)),
    ]
}

fn codes() -> Vec<Case> {
    // The last two were registered after Autobahn's plan was written.
    let good = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999, 1012, 1013,
    ];
    let bad = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 1015];
    let mut cases = Vec::new();
    for (at, code) in good.into_iter().enumerate() {
        let (name, about) = (format!("7.7.{}", at + 1), format!("Close {code}"));
        cases.push(case(
            &name,
            &about,
            Cut::Once,
            &[Frame::close(code, "")],
            closes(code),
        ));
    }
    for (at, code) in bad.into_iter().enumerate() {
        let (name, about) = (format!("7.9.{}", at + 1), format!("Close {code}"));
        cases.push(case(
            &name,
            &about,
            Cut::Once,
            &[Frame::close(code, "")],
            fails(1002),
        ));
    }
    // RFC 6455 says nothing of these, and Autobahn takes any answer; they are refused as well.
    for (name, code) in [("7.13.1", 5000), ("7.13.2", u16::MAX)] {
        let about = format!("Close {code}");
        cases.push(case(
            name,
            &about,
            Cut::Once,
            &[Frame::close(code, "")],
            fails(1002),
        ));
    }
    cases
}
