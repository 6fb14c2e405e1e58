use super::*;
use crate::websocket::frame::tests::frame;
use crate::websocket::registry::Cause;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

const MASK: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);
const SECOND: Duration = Duration::from_secs(1);

fn terms() -> Terms {
    let client = Rules {
        masked: true,
        compressed: false,
        utf8: true,
        frame_bytes_max: 1 << 20,
        message_bytes_max: 1 << 20,
        fragments_max: 100,
    };
    Terms {
        client,
        upstream: Rules {
            masked: false,
            ..client
        },
        client_rates: Rates::default(),
        upstream_rates: Rates::default(),
        idle_timeout: Duration::ZERO,
        lifetime: Duration::ZERO,
        ping_interval: Duration::ZERO,
        pong_timeout: 5 * SECOND,
        write_timeout: 30 * SECOND,
        close_timeout: 5 * SECOND,
    }
}

/// Both ends of a session, and its outcome.
struct Session {
    client: DuplexStream,
    upstream: DuplexStream,
    outcome: JoinHandle<Outcome>,
}

impl Session {
    fn start(terms: Terms) -> Self {
        Self::with_pipes(terms, 1 << 16)
    }

    /// With sockets that take so many bytes.
    fn with_pipes(terms: Terms, bytes: usize) -> Self {
        let (client, inner) = duplex(bytes);
        let (upstream, outer) = duplex(bytes);
        let outcome = tokio::spawn(async move {
            let now = tokio::time::Instant::now().into_std();
            let mut relay = Relay::new(
                Arc::new(terms),
                (inner, Vec::new()),
                (outer, Vec::new()),
                now,
            );
            std::future::poll_fn(|cx| relay.poll(cx)).await
        });
        Self {
            client,
            upstream,
            outcome,
        }
    }

    async fn outcome(self) -> (By, Why, u16) {
        let outcome = self.outcome.await.expect("it does not panic");
        (outcome.by, outcome.why, outcome.code)
    }
}

async fn expect(from: &mut DuplexStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    from.read_exact(&mut read).await.expect("it comes");
    assert_eq!(read, bytes);
}

/// Reads a Close: its code.
async fn expect_close(from: &mut DuplexStream, masked: bool) -> u16 {
    let mut head = [0; 2];
    from.read_exact(&mut head).await.expect("a head");
    assert_eq!((head[0], head[1] & 0x80 != 0), (0x88, masked));
    let mut rest = vec![0; usize::from(head[1] & 0x7f) + if masked { 4 } else { 0 }];
    from.read_exact(&mut rest).await.expect("a payload");
    let (mask, said) = rest.split_at(if masked { 4 } else { 0 });
    let plain = |at: usize| said[at] ^ mask.get(at).copied().unwrap_or_default();
    u16::from_be_bytes([plain(0), plain(1)])
}

/// Reads a Ping of the gateway's own: its payload.
async fn read_ping(from: &mut DuplexStream, masked: bool) -> Vec<u8> {
    let mut read = vec![0; 2 + if masked { 4 } else { 0 } + size_of::<Ping>()];
    from.read_exact(&mut read).await.expect("a Ping");
    assert_eq!((read[0], read[1] & 0x80 != 0), (0x89, masked));
    let (head, said) = read.split_at(read.len() - size_of::<Ping>());
    let mask = if masked { &head[2..] } else { &[0; 4] };
    let ping: Vec<u8> = said
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    assert!(ping.starts_with(&PING), "{ping:?}");
    ping
}

fn close(mask: Option<[u8; 4]>, code: u16) -> Vec<u8> {
    frame(0x88, mask, &code.to_be_bytes())
}

#[tokio::test]
async fn frames_go_both_ways_as_they_are_and_are_counted() {
    let mut session = Session::start(terms());
    let up = [
        frame(0x01, MASK, b"he"),
        frame(0x89, MASK, b"?"),
        frame(0x80, MASK, b"llo"),
    ]
    .concat();
    session.client.write_all(&up).await.expect("taken");
    expect(&mut session.upstream, &up).await;
    let down = [frame(0x82, None, &[7; 70_000]), frame(0x8a, None, b"?")].concat();
    let (written, ()) = tokio::join!(
        session.upstream.write_all(&down),
        expect(&mut session.client, &down)
    );
    written.expect("taken");
    session
        .client
        .write_all(&close(MASK, 1000))
        .await
        .expect("taken");
    expect(&mut session.upstream, &close(MASK, 1000)).await;
    session
        .upstream
        .write_all(&close(None, 1000))
        .await
        .expect("taken");
    expect(&mut session.client, &close(None, 1000)).await;
    let outcome = session.outcome.await.expect("it does not panic");
    assert_eq!(
        (outcome.by, outcome.why, outcome.code),
        (By::Client, Why::Closed, 1000)
    );
    assert_eq!(outcome.up, (1, (up.len() + 8) as u64));
    assert_eq!(outcome.down, (1, (down.len() + 4) as u64));
}

#[tokio::test]
async fn an_upstream_may_close_first_and_what_the_client_was_saying_goes_on() {
    let mut session = Session::start(terms());
    session
        .upstream
        .write_all(&close(None, 1001))
        .await
        .expect("taken");
    expect(&mut session.client, &close(None, 1001)).await;
    let last = [frame(0x81, MASK, b"last words"), close(MASK, 1001)].concat();
    session.client.write_all(&last).await.expect("taken");
    expect(&mut session.upstream, &last).await;
    assert_eq!(session.outcome().await, (By::Upstream, Why::Closed, 1001));
}

#[tokio::test]
async fn who_breaks_the_protocol_gets_the_code_and_the_other_side_1001() {
    for (bytes, code) in [
        (frame(0x81, None, b"x"), 1002),
        (frame(0x81, MASK, b"\xff"), 1007),
        (frame(0x82, MASK, &vec![0; (1 << 20) + 1]), 1009),
    ] {
        let mut session = Session::start(terms());
        let good = frame(0x81, MASK, b"good");
        session.client.write_all(&good).await.expect("taken");
        expect(&mut session.upstream, &good).await;
        let head = bytes.len().min(60_000);
        session
            .client
            .write_all(&bytes[..head])
            .await
            .expect("taken");
        assert_eq!(expect_close(&mut session.client, false).await, code);
        assert_eq!(expect_close(&mut session.upstream, true).await, 1001);
        drop(session.client);
        drop(session.upstream);
        let outcome = session.outcome.await.expect("it does not panic");
        assert_eq!((outcome.by, outcome.code), (By::Client, code));
    }
}

#[tokio::test]
async fn an_upstream_that_breaks_the_protocol_is_1011_for_the_client() {
    let mut session = Session::start(terms());
    session
        .upstream
        .write_all(&frame(0x81, MASK, b"x"))
        .await
        .expect("taken");
    assert_eq!(expect_close(&mut session.client, false).await, 1011);
    assert_eq!(expect_close(&mut session.upstream, true).await, 1002);
    session
        .client
        .write_all(&close(MASK, 1011))
        .await
        .expect("taken");
    drop(session.upstream);
    let outcome = session.outcome.await.expect("it does not panic");
    assert_eq!(
        (outcome.by, outcome.why),
        (By::Upstream, Why::Fault(Fault::Masked))
    );
}

#[tokio::test]
async fn a_side_that_vanishes_is_told_to_the_other() {
    let mut session = Session::start(terms());
    drop(session.upstream);
    assert_eq!(expect_close(&mut session.client, false).await, 1011);
    session
        .client
        .write_all(&close(MASK, 1011))
        .await
        .expect("taken");
    let outcome = session.outcome.await.expect("it does not panic");
    assert_eq!(
        (outcome.by, outcome.why, outcome.code),
        (By::Upstream, Why::Gone, 1006)
    );

    let mut session = Session::start(terms());
    drop(session.client);
    assert_eq!(expect_close(&mut session.upstream, true).await, 1001);
    drop(session.upstream);
    let outcome = session.outcome.await.expect("it does not panic");
    assert_eq!((outcome.by, outcome.why), (By::Client, Why::Gone));
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_not_answered_is_not_waited_for_without_end() {
    let mut session = Session::start(terms());
    session
        .client
        .write_all(&close(MASK, 1000))
        .await
        .expect("taken");
    expect(&mut session.upstream, &close(MASK, 1000)).await;
    assert_eq!(session.outcome().await, (By::Client, Why::Closed, 1000));
}

#[tokio::test(start_paused = true)]
async fn idle_and_old_sessions_are_closed() {
    for (terms, why) in [
        (
            Terms {
                idle_timeout: 60 * SECOND,
                ..terms()
            },
            Why::Idle,
        ),
        (
            Terms {
                lifetime: 60 * SECOND,
                ..terms()
            },
            Why::Lifetime,
        ),
    ] {
        let began = tokio::time::Instant::now();
        let mut session = Session::start(terms);
        assert_eq!(expect_close(&mut session.client, false).await, 1001);
        assert_eq!(expect_close(&mut session.upstream, true).await, 1001);
        assert_eq!(began.elapsed().as_secs(), 60);
        assert_eq!(session.outcome().await, (By::Gateway, why, 1001));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_stays_and_one_that_does_not_is_let_go() {
    let mut session = Session::start(Terms {
        ping_interval: 20 * SECOND,
        ..terms()
    });
    for _ in 0..3 {
        let ping = read_ping(&mut session.client, false).await;
        let pong = frame(0x8a, MASK, &ping);
        session.client.write_all(&pong).await.expect("taken");
        let ping = read_ping(&mut session.upstream, true).await;
        let pong = frame(0x8a, None, &ping);
        session.upstream.write_all(&pong).await.expect("taken");
    }
    // Another gateway's Pong is none of ours.
    let other = frame(0x8a, MASK, b"hub1 alive 12345678");
    session.client.write_all(&other).await.expect("taken");
    expect(&mut session.upstream, &other).await;
    // Nothing of it has come through: this is what comes next.
    let next = frame(0x81, None, b"next");
    session.upstream.write_all(&next).await.expect("taken");
    expect(&mut session.client, &next).await;
    // From now on the client is silent.
    read_ping(&mut session.client, false).await;
    assert_eq!(expect_close(&mut session.client, false).await, 1011);
    assert_eq!(session.outcome().await, (By::Gateway, Why::Silent, 1011));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_holds_the_writer_back_and_is_let_go() {
    let session = Session::with_pipes(terms(), 1_000);
    let Session {
        client,
        mut upstream,
        outcome,
    } = session;
    let writer = tokio::spawn(async move {
        let message = frame(0x82, None, &[0; 900]);
        let mut sent = 0_usize;
        while upstream.write_all(&message).await.is_ok() {
            sent += message.len();
        }
        sent
    });
    let outcome = outcome.await.expect("it does not panic");
    assert_eq!((outcome.by, outcome.why), (By::Gateway, Why::Slow));
    drop(client);
    // Two pipes, and what one read may bring.
    let sent = writer.await.expect("it does not panic");
    assert!(sent < 2 * 1_000 + READ_BYTES, "{sent}");
}

#[tokio::test(start_paused = true)]
async fn who_sends_too_fast_is_slowed_and_loses_nothing() {
    let mut limits = terms();
    limits.client_rates.messages = Some(Rate::each_second(10));
    let Session {
        mut client,
        mut upstream,
        ..
    } = Session::with_pipes(limits, 64);
    let began = tokio::time::Instant::now();
    let message = frame(0x81, MASK, b"tick");
    let all = message.repeat(100);
    let writer = tokio::spawn(async move { client.write_all(&all).await.map(|()| client) });
    expect(&mut upstream, &message.repeat(100)).await;
    writer.await.expect("it does not panic").expect("taken");
    let took = began.elapsed().as_secs_f64();
    assert!((7.0..10.0).contains(&took), "{took}");
}

#[tokio::test]
async fn what_was_read_behind_the_handshake_is_not_forgotten() {
    let (mut client, inner) = duplex(1_000);
    let (mut upstream, outer) = duplex(1_000);
    let (up, down) = (frame(0x81, MASK, b"up"), frame(0x81, None, b"down"));
    let early = (up.clone(), down[..3].to_vec());
    let relay = tokio::spawn(async move {
        let terms = terms();
        let now = tokio::time::Instant::now().into_std();
        let mut relay = Relay::new(Arc::new(terms), (inner, early.0), (outer, early.1), now);
        std::future::poll_fn(|cx| relay.poll(cx)).await
    });
    expect(&mut upstream, &up).await;
    upstream.write_all(&down[3..]).await.expect("taken");
    expect(&mut client, &down).await;
    drop((client, upstream));
    relay.await.expect("it does not panic");
}

#[tokio::test]
async fn an_order_to_close_waits_for_the_end_of_a_frame() {
    let (mut client, inner) = duplex(1_000);
    let (mut upstream, outer) = duplex(1_000);
    let order = std::sync::Arc::new(tokio::sync::Notify::new());
    let ordered = std::sync::Arc::clone(&order);
    let relay = tokio::spawn(async move {
        let terms = terms();
        let now = tokio::time::Instant::now().into_std();
        let mut relay = Relay::new(
            Arc::new(terms),
            (inner, Vec::new()),
            (outer, Vec::new()),
            now,
        );
        let mut ordered = Box::pin(ordered.notified());
        let mut done = false;
        std::future::poll_fn(|cx| {
            if !done && ordered.as_mut().poll(cx).is_ready() {
                done = true;
                relay.order(Some(Order {
                    cause: Cause::Operator,
                    at: tokio::time::Instant::now().into_std(),
                    code: 1012,
                    reason: "maintenance",
                }));
            }
            relay.poll(cx)
        })
        .await
    });
    let message = frame(0x81, None, b"in two pieces");
    upstream.write_all(&message[..5]).await.expect("taken");
    expect(&mut client, &message[..5]).await;
    order.notify_one();
    // The rest of the frame comes first.
    upstream.write_all(&message[5..]).await.expect("taken");
    expect(&mut client, &message[5..]).await;
    assert_eq!(expect_close(&mut client, false).await, 1012);
    assert_eq!(expect_close(&mut upstream, true).await, 1001);
    client.write_all(&close(MASK, 1012)).await.expect("taken");
    upstream.write_all(&close(None, 1001)).await.expect("taken");
    let outcome = relay.await.expect("it does not panic");
    assert_eq!(
        (outcome.by, outcome.why, outcome.code),
        (By::Gateway, Why::Ordered, 1012)
    );
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_asked_because_a_frame_is_under_way_is_not_silent() {
    let mut session = Session::start(Terms {
        ping_interval: 20 * SECOND,
        idle_timeout: 30 * SECOND,
        ..terms()
    });
    let message = frame(0x82, None, &[7; 100]);
    // A minute and a half, in which the client says nothing.
    for part in message.chunks(12) {
        tokio::time::sleep(10 * SECOND).await;
        session.upstream.write_all(part).await.expect("taken");
        expect(&mut session.client, part).await;
    }
    // Now it is asked, and has its time.
    let ping = read_ping(&mut session.client, false).await;
    let pong = frame(0x8a, MASK, &ping);
    session.client.write_all(&pong).await.expect("taken");
    session.upstream.write_all(&message).await.expect("taken");
    expect(&mut session.client, &message).await;
    assert!(!session.outcome.is_finished());
}

#[tokio::test(start_paused = true)]
async fn who_sent_far_too_much_at_once_is_slowed_and_not_taken_for_dead() {
    let mut limits = Terms {
        ping_interval: 20 * SECOND,
        ..terms()
    };
    limits.client_rates.messages = Some(Rate::each_second(10));
    let Session {
        mut client,
        mut upstream,
        outcome,
    } = Session::start(limits);
    let began = tokio::time::Instant::now();
    let message = frame(0x81, MASK, b"x");
    // All of them in one read, for five minutes.
    client
        .write_all(&message.repeat(3_000))
        .await
        .expect("taken");
    let reader = tokio::spawn(async move {
        let mut pings = 0;
        for _ in 0..3_000 {
            let mut head = [0; 2];
            loop {
                upstream.read_exact(&mut head).await.expect("a head");
                let mut rest = vec![0; 4 + usize::from(head[1] & 0x7f)];
                upstream.read_exact(&mut rest).await.expect("the rest");
                if head[0] == 0x81 {
                    break;
                }
                // It answers, as every application does.
                let ping: Vec<u8> = (4..rest.len()).map(|at| rest[at] ^ rest[at % 4]).collect();
                let pong = frame(0x8a, None, &ping);
                upstream.write_all(&pong).await.expect("taken");
                pings += 1;
            }
        }
        pings
    });
    let pings = reader.await.expect("all of them");
    let took = began.elapsed().as_secs();
    assert!(
        (290..310).contains(&took) && pings > 5,
        "{took} s, {pings} pings"
    );
    assert!(!outcome.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_that_goes_on_reading_is_not_let_go() {
    let Session {
        mut client,
        mut upstream,
        outcome,
    } = Session::with_pipes(terms(), 100);
    let message = frame(0x82, None, &[1; 5_000]);
    let sent = message.clone();
    let writer = tokio::spawn(async move { upstream.write_all(&sent).await.map(|()| upstream) });
    // Some more than the write timeout in all, and never without a byte for so long.
    for part in message.chunks(100) {
        tokio::time::sleep(20 * SECOND).await;
        expect(&mut client, part).await;
    }
    writer.await.expect("it does not panic").expect("taken");
    assert!(!outcome.is_finished());
}

#[tokio::test]
async fn much_that_was_read_behind_the_handshake_goes_on_whole() {
    let (client, inner) = duplex(1_000);
    let (mut upstream, outer) = duplex(1_000);
    let early = frame(0x82, MASK, &[5; 1_000]).repeat(200);
    let whole = early.clone();
    let relay = tokio::spawn(async move {
        let now = tokio::time::Instant::now().into_std();
        let mut relay = Relay::new(Arc::new(terms()), (inner, early), (outer, Vec::new()), now);
        std::future::poll_fn(|cx| relay.poll(cx)).await
    });
    expect(&mut upstream, &whole).await;
    drop(client);
    drop(upstream);
    relay.await.expect("it does not panic");
}

#[tokio::test(start_paused = true)]
async fn who_sends_to_a_client_that_left_is_not_read_for_ever_and_not_counted() {
    let Session {
        client,
        mut upstream,
        outcome,
    } = Session::start(terms());
    let message = frame(0x82, None, &[1; 10_000]);
    drop(client);
    let writer = tokio::spawn(async move {
        let mut sent = 0_usize;
        while upstream.write_all(&message).await.is_ok() {
            sent += message.len();
        }
        sent
    });
    let outcome = outcome.await.expect("it does not panic");
    assert_eq!((outcome.by, outcome.why), (By::Client, Why::Gone));
    // One read may have been on its way.
    assert!(outcome.down.1 <= READ_BYTES as u64, "{outcome:?}");
    let sent = writer.await.expect("it does not panic");
    assert!(sent < 3 * LOST_BYTES_MAX, "{sent}");
}

#[tokio::test(start_paused = true)]
async fn an_application_is_not_kept_waiting_for_the_rest_of_a_frame() {
    let began = tokio::time::Instant::now();
    let Session {
        mut client,
        mut upstream,
        outcome,
    } = Session::start(terms());
    let message = frame(0x81, MASK, b"in two pieces");
    client.write_all(&message[..9]).await.expect("taken");
    expect(&mut upstream, &message[..9]).await;
    drop(client);
    let mut rest = Vec::new();
    upstream.read_to_end(&mut rest).await.expect("the end");
    assert_eq!(rest, b"");
    drop(upstream);
    let outcome = outcome.await.expect("it does not panic");
    assert_eq!((outcome.by, outcome.why), (By::Client, Why::Gone));
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_is_slowed_past_the_time_to_be_asked_costs_no_turns() {
    let mut limits = Terms {
        ping_interval: SECOND / 10,
        ..terms()
    };
    limits.client_rates.messages = Some(Rate::each_second(1));
    let (mut client, inner) = duplex(1_000);
    let (mut upstream, outer) = duplex(1_000);
    tokio::spawn(async move {
        let now = tokio::time::Instant::now().into_std();
        let sides = ((inner, Vec::new()), (outer, Vec::new()));
        let mut relay = Relay::new(Arc::new(limits), sides.0, sides.1, now);
        let mut turns = 0;
        std::future::poll_fn(|cx| {
            turns += 1;
            assert!(turns < 10_000, "it never rests");
            relay.poll(cx)
        })
        .await
    });
    let message = frame(0x81, MASK, b"x");
    client.write_all(&message.repeat(5)).await.expect("taken");
    let mut seen = 0;
    while seen < 5 {
        let mut head = [0; 2];
        upstream.read_exact(&mut head).await.expect("it lives");
        let mut rest = vec![0; 4 + usize::from(head[1] & 0x7f)];
        upstream.read_exact(&mut rest).await.expect("the rest");
        if head[0] == 0x81 {
            seen += 1;
            continue;
        }
        let ping: Vec<u8> = (4..rest.len()).map(|at| rest[at] ^ rest[at % 4]).collect();
        let pong = frame(0x8a, None, &ping);
        upstream.write_all(&pong).await.expect("taken");
    }
}
