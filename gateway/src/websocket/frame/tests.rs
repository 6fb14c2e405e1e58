use super::*;
use proptest::prelude::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const FROM_CLIENT: Rules = Rules {
    masked: true,
    compressed: false,
    utf8: true,
    frame_bytes_max: 1 << 20,
    message_bytes_max: 1 << 20,
    fragments_max: 1_000,
};
const FROM_SERVER: Rules = Rules {
    masked: false,
    ..FROM_CLIENT
};

/// A frame with the length written as short as can be.
pub(crate) fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let bit = if mask.is_some() { MASKED } else { 0 };
    match payload.len() {
        short @ 0..=125 => out.push(bit | short as u8),
        middle @ 126..=0xffff => {
            out.push(bit | 126);
            out.extend((middle as u16).to_be_bytes());
        }
        long => {
            out.push(bit | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend(mask.into_iter().flatten());
    let mask = mask.unwrap_or_default();
    out.extend(
        payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ mask[at % 4]),
    );
    out
}

fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, Some(MASK), payload)
}

/// What a whole stream comes to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    passed: Vec<u8>,
    messages: usize,
    controls: Vec<(ControlOpcode, Vec<u8>)>,
    fault: Option<Fault>,
    left_over: usize,
    at_rest: bool,
}

/// Shows `bytes` in pieces that end at `cuts`.
fn walk(bytes: &[u8], cuts: &[usize], rules: &Rules) -> Sum {
    let mut walker = Walker::default();
    let mut sum = Sum::default();
    let mut taken = 0;
    let ends = cuts.iter().copied().filter(|cut| *cut < bytes.len());
    'pieces: for end in ends.chain([bytes.len()]) {
        while taken < end {
            match walker.next(&bytes[taken..end], rules) {
                Ok(Item::Incomplete) => continue 'pieces,
                Ok(Item::Data {
                    len, message_ends, ..
                }) => {
                    sum.passed.extend(&bytes[taken..taken + len]);
                    sum.messages += usize::from(message_ends);
                    taken += len;
                }
                Ok(Item::Control { len, control }) => {
                    sum.controls
                        .push((control.opcode, control.payload().to_vec()));
                    taken += len;
                }
                Err(fault) => {
                    sum.fault = Some(fault);
                    return sum;
                }
            }
        }
    }
    sum.left_over = bytes.len() - taken;
    sum.at_rest = walker.is_between_messages();
    sum
}

fn fault(bytes: &[u8], rules: &Rules) -> Option<Fault> {
    walk(bytes, &[], rules).fault
}

#[test]
fn messages_of_every_length_go_on_as_they_came() {
    for length in [0, 1, 125, 126, 65_535, 65_536, 100_000] {
        let payload = vec![b'x'; length];
        for (rules, mask) in [(&FROM_CLIENT, Some(MASK)), (&FROM_SERVER, None)] {
            let bytes = [frame(0x81, mask, &payload), frame(0x82, mask, b"next")].concat();
            let sum = walk(&bytes, &[], rules);
            assert_eq!(sum.passed, bytes);
            assert_eq!((sum.messages, sum.fault, sum.at_rest), (2, None, true));
        }
    }
}

#[test]
fn control_frames_are_taken_out_from_between_fragments() {
    let bytes = [
        client(0x01, b"Hel"),
        client(0x89, b"are you there"),
        client(0x80, b"lo"),
        client(0x8a, b""),
        client(0x88, &[&1000_u16.to_be_bytes()[..], b"bye"].concat()),
    ]
    .concat();
    let sum = walk(&bytes, &[], &FROM_CLIENT);
    assert_eq!(
        sum.passed,
        [client(0x01, b"Hel"), client(0x80, b"lo")].concat()
    );
    let controls = [
        (ControlOpcode::Ping, b"are you there".to_vec()),
        (ControlOpcode::Pong, vec![]),
        (ControlOpcode::Close, b"\x03\xe8bye".to_vec()),
    ];
    assert_eq!(sum.controls, controls);
    assert_eq!((sum.messages, sum.fault), (1, None));
}

#[test]
fn what_breaks_the_protocol_is_a_fault_with_its_code() {
    let close =
        |code: u16, reason: &[u8]| client(0x88, &[&code.to_be_bytes()[..], reason].concat());
    let long = |payload: usize, marker: u8| {
        let mut bytes = vec![0x82, MASKED | marker];
        let length = (payload as u64).to_be_bytes();
        bytes.extend(&length[if marker == 126 { 6 } else { 0 }..]);
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, Fault, u16)> = vec![
        ("not masked", frame(0x81, None, b"x"), Fault::Unmasked, 1002),
        ("RSV1", client(0xc1, b"x"), Fault::ReservedBit, 1002),
        ("RSV2", client(0xa1, b"x"), Fault::ReservedBit, 1002),
        (
            "RSV3 of a ping",
            client(0x99, b"x"),
            Fault::ReservedBit,
            1002,
        ),
        ("opcode 3", client(0x83, b"x"), Fault::ReservedOpcode, 1002),
        ("opcode 11", client(0x8b, b"x"), Fault::ReservedOpcode, 1002),
        (
            "a fragmented ping",
            client(0x09, b"x"),
            Fault::BadControl,
            1002,
        ),
        (
            "a long ping",
            client(0x89, &[0; 126]),
            Fault::BadControl,
            1002,
        ),
        ("two bytes for 125", long(125, 126), Fault::LongLength, 1002),
        (
            "eight bytes for 65535",
            long(65_535, 127),
            Fault::LongLength,
            1002,
        ),
        (
            "a length of 64 bits",
            long(usize::MAX, 127),
            Fault::LongLength,
            1002,
        ),
        (
            "a continuation of nothing",
            client(0x80, b"x"),
            Fault::StrayContinuation,
            1002,
        ),
        (
            "a message within one",
            [client(0x01, b"a"), client(0x81, b"b")].concat(),
            Fault::UnfinishedMessage,
            1002,
        ),
        ("half a code", client(0x88, b"\x03"), Fault::BadClose, 1002),
        ("code 1005", close(1005, b""), Fault::BadClose, 1002),
        ("code 1016", close(1016, b""), Fault::BadClose, 1002),
        ("code 999", close(999, b""), Fault::BadClose, 1002),
        ("code 5000", close(5000, b""), Fault::BadClose, 1002),
        ("a bad reason", close(1000, b"\xff"), Fault::NotUtf8, 1007),
        ("bad text", client(0x81, b"\xc3\x28"), Fault::NotUtf8, 1007),
        (
            "text that ends early",
            client(0x81, b"\xe2\x82"),
            Fault::NotUtf8,
            1007,
        ),
    ];
    for (what, bytes, expected, code) in cases {
        assert_eq!(fault(&bytes, &FROM_CLIENT), Some(expected), "{what}");
        assert_eq!(expected.code(), code, "{what}");
    }
    assert_eq!(
        fault(&client(0x81, b"x"), &FROM_SERVER),
        Some(Fault::Masked)
    );
}

#[test]
fn a_fault_is_told_before_its_frame_is_complete() {
    assert_eq!(fault(&[0x83], &FROM_CLIENT), Some(Fault::ReservedOpcode));
    assert_eq!(fault(&[0x81, 0x01], &FROM_CLIENT), Some(Fault::Unmasked));
    let rules = Rules {
        frame_bytes_max: 1_000,
        ..FROM_CLIENT
    };
    let large = client(0x82, &[0; 1_001]);
    assert_eq!(fault(&large[..8], &rules), Some(Fault::FrameTooLarge));
}

#[test]
fn sizes_and_fragments_are_bounded() {
    let rules = Rules {
        frame_bytes_max: 10,
        message_bytes_max: 15,
        fragments_max: 3,
        ..FROM_CLIENT
    };
    let good = [client(0x02, &[0; 10]), client(0x80, &[0; 5])].concat();
    assert_eq!(fault(&good, &rules), None);
    assert_eq!(
        fault(&client(0x82, &[0; 11]), &rules),
        Some(Fault::FrameTooLarge)
    );
    let large = [client(0x02, &[0; 10]), client(0x80, &[0; 6])].concat();
    assert_eq!(fault(&large, &rules), Some(Fault::MessageTooLarge));
    let many = [
        client(0x02, b"1"),
        client(0, b"2"),
        client(0, b"3"),
        client(0x80, b"4"),
    ]
    .concat();
    assert_eq!(fault(&many, &rules), Some(Fault::TooManyFragments));
    assert_eq!(Fault::TooManyFragments.code(), 1008);
    assert_eq!(Fault::MessageTooLarge.code(), 1009);
}

#[test]
fn compressed_messages_are_passed_where_they_were_negotiated_and_their_text_is_not_read() {
    let rules = Rules {
        compressed: true,
        ..FROM_CLIENT
    };
    assert_eq!(fault(&client(0xc1, b"\xff\xff"), &rules), None);
    assert_eq!(
        fault(&client(0x81, b"\xff\xff"), &rules),
        Some(Fault::NotUtf8)
    );
    let marked_again = [client(0x41, b"a"), client(0xc0, b"b")].concat();
    assert_eq!(fault(&marked_again, &rules), Some(Fault::ReservedBit));
    assert_eq!(fault(&client(0xc9, b""), &rules), Some(Fault::ReservedBit));
}

#[test]
fn text_is_not_read_where_that_is_off() {
    let rules = Rules {
        utf8: false,
        ..FROM_CLIENT
    };
    assert_eq!(fault(&client(0x81, b"\xff"), &rules), None);
}

#[test]
fn frames_of_our_own_are_read_as_they_were_meant() {
    let close = Control::close(1012, "try again");
    for (mask, rules) in [(None, &FROM_SERVER), (Some(MASK), &FROM_CLIENT)] {
        let mut bytes = Vec::new();
        close.write(mask, &mut bytes);
        let sum = walk(&bytes, &[], rules);
        assert_eq!(
            sum.controls,
            [(ControlOpcode::Close, b"\x03\xf4try again".to_vec())]
        );
    }
    assert_eq!(close.code(), 1012);
    assert_eq!(Control::new(ControlOpcode::Close, b"").code(), 1005);
    // Cut where a character ends.
    let long = Control::close(1000, &"é".repeat(100));
    assert_eq!(long.payload().len(), 124);
    assert!(std::str::from_utf8(&long.payload()[2..]).is_ok());
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..8),
            Just(vec![b'a'; 126]),
            Just("grün".as_bytes().to_vec()),
        ]
    };
    let first = prop::sample::select(vec![
        0x01_u8, 0x81, 0x02, 0x82, 0x00, 0x80, 0x89, 0x8a, 0x88, 0xc1, 0x83,
    ]);
    prop::collection::vec((first, payload(), any::<[u8; 4]>()), 0..8).prop_map(|all| {
        all.iter()
            .flat_map(|(first, payload, mask)| frame(*first, Some(*mask), payload))
            .collect()
    })
}

proptest! {
    #[test]
    fn how_a_stream_is_cut_changes_nothing(
        bytes in prop_oneof![frames(), prop::collection::vec(any::<u8>(), 0..40)],
        mut cuts in prop::collection::vec(0_usize..400, 0..12),
    ) {
        cuts.sort_unstable();
        let whole = walk(&bytes, &[], &FROM_CLIENT);
        let cut = walk(&bytes, &cuts, &FROM_CLIENT);
        // Where the text of a frame goes bad, part of the frame may have gone on before.
        if whole.fault == Some(Fault::NotUtf8) {
            prop_assert_eq!(cut.fault, whole.fault);
            prop_assert!(cut.passed.starts_with(&whole.passed));
        } else {
            prop_assert_eq!(cut, whole);
        }
    }
}
