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
        expect(&mut session.client, &frame(0x89, None, PING)).await;
        session
            .client
            .write_all(&frame(0x8a, MASK, PING))
            .await
            .expect("taken");
        let mut ping = [0; 2 + 4 + PING.len()];
        session
            .upstream
            .read_exact(&mut ping)
            .await
            .expect("a ping");
        session
            .upstream
            .write_all(&frame(0x8a, None, PING))
            .await
            .expect("taken");
    }
    // Nothing of it has come through: this is what comes next.
    let next = frame(0x81, None, b"next");
    session.upstream.write_all(&next).await.expect("taken");
    expect(&mut session.client, &next).await;
    // From now on the client is silent.
    expect(&mut session.client, &frame(0x89, None, PING)).await;
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
    use hub_stats::gcra::Gcra;
    let mut limits = terms();
    limits.client_rates.messages = Some(Gcra::new(10, SECOND, 10));
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
