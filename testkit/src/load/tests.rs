use super::*;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// What a scripted server does when a request has arrived.
#[derive(Clone, Copy)]
enum Script {
    /// Sends these bytes and goes on.
    Say(&'static [u8]),
    /// Sends these bytes and closes.
    SayAndClose(&'static [u8]),
    /// Sends these bytes one at a time.
    Dribble(&'static [u8]),
    /// Says nothing.
    Silence,
}

struct Server {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
}

/// Serves `script` by the request's number on its connection.
async fn serve(script: impl Fn(u64) -> Script + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&connections);
    let script = Arc::new(script);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(talk(stream, Arc::clone(&script)));
        }
    });
    Server {
        address,
        connections,
    }
}

async fn talk(mut stream: TcpStream, script: Arc<impl Fn(u64) -> Script>) {
    stream.set_nodelay(true).unwrap();
    for number in 0.. {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        match script(number) {
            Script::Say(bytes) => stream.write_all(bytes).await.unwrap(),
            Script::SayAndClose(bytes) => {
                stream.write_all(bytes).await.unwrap();
                return;
            }
            Script::Dribble(bytes) => {
                for byte in bytes {
                    stream.write_u8(*byte).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            Script::Silence => {}
        }
    }
}

fn get(_: u64, request: &mut Vec<u8>) -> Ask {
    request.extend_from_slice(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    Ask {
        class: 0,
        status: 200,
        body: Body::Exact(b"hello"),
    }
}

/// One request on one connection; the outcome it was counted under.
async fn outcome_of(script: Script, settings: impl FnOnce(&mut Settings)) -> Outcome {
    let server = serve(move |_| script).await;
    let mut plan = Settings {
        connections: 1,
        requests_max: 1,
        ..Settings::new(server.address)
    };
    settings(&mut plan);
    let report = closed(plan, get).finished().await;
    assert_eq!(report.counts.all(), 1);
    Outcome::ALL
        .into_iter()
        .find(|kind| report.counts.get(*kind) == 1)
        .unwrap()
}

#[tokio::test]
async fn a_closed_loop_keeps_its_connections_and_stops_at_its_count() {
    let server = serve(|_| Script::Say(GOOD)).await;
    let plan = Settings {
        connections: 4,
        requests_max: 1_000,
        ..Settings::new(server.address)
    };
    let report = closed(plan, get).finished().await;
    assert_eq!(report.counts.ok(), 1_000);
    assert_eq!(report.counts.failed(), 0);
    assert_eq!(report.latency_us.len(), 1_000);
    assert_eq!(report.connects, 4);
    assert_eq!(server.connections.load(Ordering::Relaxed), 4);
    let by_second: u64 = report.seconds.iter().map(|second| second.counts.ok()).sum();
    assert_eq!(by_second, 1_000);
}

#[tokio::test]
async fn each_way_to_fail_is_counted_apart() {
    let no_change = |_: &mut Settings| {};
    let cases: &[(&'static [u8], Outcome)] = &[
        (
            b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
            Outcome::Status4xx,
        ),
        (
            b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
            Outcome::Status5xx,
        ),
        (
            b"HTTP/1.1 302 No\r\nContent-Length: 0\r\n\r\n",
            Outcome::WrongAnswer,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother",
            Outcome::WrongAnswer,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell",
            Outcome::WrongAnswer,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhello",
            Outcome::WrongAnswer,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
            Outcome::WrongAnswer,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Outcome::WrongAnswer,
        ),
        (b"nonsense\r\n\r\n", Outcome::WrongAnswer),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
            Outcome::ShortBody,
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Le", Outcome::Reset),
        (b"", Outcome::Reset),
        (GOOD, Outcome::Ok),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", Outcome::Ok),
    ];
    for (bytes, expected) in cases {
        let outcome = outcome_of(Script::SayAndClose(bytes), no_change).await;
        assert_eq!(outcome, *expected, "{}", String::from_utf8_lossy(bytes));
    }
    let short = |plan: &mut Settings| plan.request_timeout = Duration::from_millis(20);
    assert_eq!(outcome_of(Script::Silence, short).await, Outcome::Timeout);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let refused = |plan: &mut Settings| plan.address = nobody;
    assert_eq!(
        outcome_of(Script::Say(GOOD), refused).await,
        Outcome::Refused
    );
}

#[tokio::test]
async fn answers_in_pieces_and_after_interim_ones_are_read_whole() {
    let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let outcome = outcome_of(Script::Dribble(interim), |_| {}).await;
    assert_eq!(outcome, Outcome::Ok);
}

#[tokio::test]
async fn a_connection_that_says_close_is_replaced_without_a_failure() {
    const LAST: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    let server = serve(|_| Script::SayAndClose(LAST)).await;
    let plan = Settings {
        connections: 2,
        requests_max: 10,
        ..Settings::new(server.address)
    };
    let report = closed(plan, get).finished().await;
    assert_eq!(report.counts.failures(), "");
    assert_eq!(report.connects, 10);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_while_idle_is_stale_and_an_open_one_is_not() {
    let open = serve(|_| Script::Say(GOOD)).await;
    let closing = serve(|_| Script::SayAndClose(GOOD)).await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut kept = Connection::connect(open.address, None).await.unwrap();
    let mut left = Connection::connect(closing.address, None).await.unwrap();
    kept.exchange(request, Body::Any).await.unwrap();
    left.exchange(request, Body::Any).await.unwrap();
    while !left.is_stale() {
        tokio::task::yield_now().await;
    }
    assert!(!kept.is_stale());
    kept.exchange(request, Body::Any).await.unwrap();
}

#[tokio::test]
async fn taking_throws_the_warm_up_away() {
    let server = serve(|_| Script::Say(GOOD)).await;
    let (seen, mut watched) = watch::channel(0_u64);
    let running = closed(Settings::new(server.address), move |number, request| {
        seen.send_replace(number);
        get(number, request)
    });
    watched.wait_for(|number| *number > 500).await.unwrap();
    let warm_up = running.take();
    let rest = running.stop().await;
    assert!(warm_up.counts.ok() > 0);
    assert_eq!(warm_up.counts.failed() + rest.counts.failed(), 0);
    assert!(rest.since >= warm_up.since + warm_up.elapsed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_loop_charges_a_stall_to_every_request_it_delayed() {
    // The first answer is held back until 40 requests are due; closed-loop counting would see one
    // slow request, and open-loop counting has to see about 40.
    let (release, held) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1_024];
        while let Ok(1..) = stream.read(&mut buffer).await {
            held.clone().wait_for(|free| *free).await.unwrap();
            stream.write_all(GOOD).await.unwrap();
        }
    });
    let plan = Settings {
        connections: 1,
        requests_max: 50,
        ..Settings::new(address)
    };
    let begun = std::time::Instant::now();
    let running = open(plan, 200.0, get);
    let shared = running.due_for_tests();
    while shared() < 40 {
        tokio::task::yield_now().await;
    }
    let stalled = begun.elapsed();
    release.send_replace(true);
    let report = running.finished().await;
    assert_eq!(report.counts.ok(), 50);
    assert_eq!(report.unsent, 0);
    assert!(report.late >= 30, "late {}", report.late);
    // Due times spread evenly over the stall, so the median delay is about half of it.
    let median = Duration::from_micros(report.percentile_us(50.0));
    assert!(
        median > stalled / 4,
        "median {median:?} of a stall of {stalled:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_loop_counts_what_it_could_not_send() {
    let server = serve(|_| Script::Silence).await;
    let plan = Settings {
        connections: 1,
        requests_max: 100,
        queue_max: 10,
        request_timeout: Duration::from_millis(200),
        duration_max: Duration::from_millis(400),
        ..Settings::new(server.address)
    };
    let report = open(plan, 10_000.0, get).finished().await;
    assert_eq!(report.counts.all() + report.unsent, 100);
    assert!(report.unsent >= 80, "unsent {}", report.unsent);
    assert_eq!(report.counts.ok(), 0);
}

#[tokio::test]
async fn classes_are_counted_apart() {
    let server = serve(|_| Script::Say(GOOD)).await;
    let plan = Settings {
        connections: 2,
        requests_max: 30,
        classes: 3,
        ..Settings::new(server.address)
    };
    let report = closed(plan, |number, request| Ask {
        class: (number % 3) as u16,
        ..get(number, request)
    });
    let report = report.finished().await;
    let mut by_class = [0; 3];
    for second in &report.seconds {
        for (sum, more) in by_class.iter_mut().zip(&second.ok_by_class) {
            *sum += more;
        }
    }
    assert_eq!(by_class, [10; 3]);
}

#[tokio::test]
async fn every_number_is_generated_once() {
    let server = serve(|_| Script::Say(GOOD)).await;
    let plan = Settings {
        connections: 7,
        requests_max: 500,
        ..Settings::new(server.address)
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let run = closed(plan, move |number, request| {
        sink.lock().unwrap().push(number);
        get(number, request)
    });
    run.finished().await;
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_answer_has_headers_and_body_and_a_bound() {
    let server = serve(|_| {
        Script::Say(b"HTTP/1.1 404 No\r\nX-Id: a\r\nx-id: b\r\nContent-Length: 5\r\n\r\nhello")
    })
    .await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let wait = Duration::from_secs(5);
    let mut connection = Connection::connect(server.address, None).await.unwrap();
    let answer = connection.fetch(request, 5, wait).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (404, "hello"));
    assert_eq!(answer.header_all("x-id").collect::<Vec<_>>(), ["a", "b"]);
    let refused = connection.fetch(request, 4, wait).await;
    assert_eq!(refused, Err(Failure::Malformed));
}

#[test]
fn percentiles_of_chosen_seconds_ignore_the_others() {
    let since = std::time::Instant::now();
    let mut report = Report::new(since);
    for second in 0..4_u64 {
        for _ in 0..100 {
            let done = record::Done {
                outcome: Outcome::Ok,
                class: 0,
                due: since + Duration::from_secs(second),
                latency: Duration::from_millis(1 + 9 * (second % 2)),
                late: false,
            };
            report.add(&done, 1);
        }
    }
    let fast = report.percentile_us_of([0, 2], 99.0).unwrap();
    let slow = report.percentile_us_of([1, 3], 99.0).unwrap();
    assert!((990..=1_020).contains(&fast), "{fast}");
    assert!((9_900..=10_200).contains(&slow), "{slow}");
    assert_eq!(report.percentile_us_of([9], 99.0), None);
}

#[test]
fn spread_numbers_fill_their_range_evenly() {
    let mut buckets = [0_u32; 10];
    for number in 0..10_000 {
        buckets[(spread(number) % 10) as usize] += 1;
    }
    assert!(
        buckets.iter().all(|count| (850..1_150).contains(count)),
        "{buckets:?}"
    );
}
