use super::*;
use crate::app::{App, Fault};
use crate::workload::tenant_ids;
use bytes::Bytes;
use hub_testkit::Ca;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

fn settings(plain: SocketAddr, kinds: &[Kind]) -> Settings {
    let target = Target {
        plain,
        secure: NOWHERE,
        tls: Ca::new("nobody").client_config(&["h2"]),
    };
    Settings {
        mix: Mix::of(kinds),
        rate: 500.0,
        timeout: Duration::from_secs(5),
        ..Settings::new(target, tenant_ids(5))
    }
}

/// What came of at least so many requests.
async fn ended(settings: Settings, count: u64) -> Record {
    let load = Load::start(settings);
    let enough = async {
        while load.so_far().0 < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), enough).await;
    waited.expect("the requests end in time");
    load.stop().await
}

fn outcomes(record: &Record) -> Vec<Outcome> {
    let mut all: Vec<Outcome> = record.done.iter().map(|one| one.outcome).collect();
    all.sort_unstable();
    all.dedup();
    all
}

const PLAIN: [Kind; 5] = [
    Kind::Get1,
    Kind::Post1,
    Kind::Upload1,
    Kind::Drip1,
    Kind::WebSocket,
];

#[tokio::test]
async fn every_kind_on_http_1_is_answered_and_its_bytes_are_compared() {
    let app = App::start("green", None).unwrap();
    let record = ended(settings(app.address, &PLAIN), 300).await;
    assert_eq!(outcomes(&record), [Outcome::Ok], "{:?}", record.why);
    assert!(record.done.iter().all(|one| one.green));
    for kind in PLAIN {
        assert!(record.done.iter().any(|one| one.kind == kind), "{kind:?}");
    }
    // Eight pieces and as many pauses.
    let slow = record.percentile_ms(Some(Kind::Drip1), 0.0).unwrap();
    assert!(slow >= 800.0, "{slow}");
}

#[tokio::test]
async fn ways_to_be_bad_are_told_apart() {
    let app = App::start("blue", None).unwrap();
    for (fault, outcome) in [
        (Fault::Errors, Outcome::Status5xx),
        (Fault::WrongBody, Outcome::WrongBody),
    ] {
        app.be(fault);
        let record = ended(settings(app.address, &[Kind::Get1, Kind::Post1]), 50).await;
        assert_eq!(outcomes(&record), [outcome]);
    }
    app.be(Fault::RefusesWebSocket);
    let record = ended(settings(app.address, &[Kind::WebSocket]), 20).await;
    assert_eq!(outcomes(&record), [Outcome::Status4xx]);
    app.die();
    let record = ended(settings(app.address, &[Kind::Get1]), 50).await;
    assert!(record.count(Outcome::Refused) > 0);
    assert_eq!(record.failed(), record.ended());
}

/// A server that answers the first bytes of every connection with these, and closes.
async fn says(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // Requests of these tests come in one piece.
                let mut head = [0; 4_096];
                if matches!(stream.read(&mut head).await, Ok(1..)) {
                    stream.write_all(answer).await.ok();
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn answers_that_break_off_and_strange_ones_are_told_apart() {
    let cases: [(&[u8], Outcome); 5] = [
        (b"", Outcome::Reset),
        (b"HTTP/1.1 200 OK\r\nContent-", Outcome::Reset),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf",
            Outcome::ShortBody,
        ),
        (b"SSH-2.0-x\r\n\r\n", Outcome::Other),
        (
            b"HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n",
            Outcome::Status4xx,
        ),
    ];
    for (answer, outcome) in cases {
        let record = ended(settings(says(answer).await, &[Kind::Get1]), 10).await;
        assert_eq!(outcomes(&record), [outcome], "{answer:?}");
    }
}

#[tokio::test]
async fn requests_stay_due_while_answers_hang_and_a_bound_that_is_hit_is_told() {
    let app = App::start("blue", None).unwrap();
    app.be(Fault::Hangs);
    let settings = Settings {
        in_flight_max: 20,
        timeout: Duration::from_millis(300),
        ..settings(app.address, &[Kind::Get1])
    };
    let record = ended(settings, 40).await;
    assert_eq!(outcomes(&record), [Outcome::Timeout]);
    assert!(record.unsent > 0);
}

/// An HTTP/2 server whose first connection refuses every stream; later ones answer as the application.
async fn refuses_first(ca: &Ca) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = TlsAcceptor::from(ca.issue(&[HOST]).server_config(&["h2"]));
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                let stream = tls.accept(stream).await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let payloads = Payloads::new();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    if number == 0 {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                        continue;
                    }
                    let path = request.uri().path();
                    let item: usize = path.rsplit('/').next().unwrap().parse().unwrap();
                    let tenant = request.headers()["x-location-id"].clone();
                    let answer = http::Response::builder().header("x-seen-tenant", tenant);
                    let mut body = respond
                        .send_response(answer.body(()).unwrap(), false)
                        .unwrap();
                    let payload: Bytes = payloads.body(item).clone();
                    body.send_data(payload, true).unwrap();
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_stream_that_was_never_begun_goes_to_another_connection() {
    let ca = Ca::new("test");
    let target = Target {
        plain: NOWHERE,
        secure: refuses_first(&ca).await,
        tls: ca.client_config(&["h2"]),
    };
    let settings = Settings {
        mix: Mix::of(&[Kind::Get2]),
        rate: 100.0,
        ..Settings::new(target, tenant_ids(5))
    };
    let record = ended(settings, 50).await;
    assert_eq!(outcomes(&record), [Outcome::Ok], "{:?}", record.why);
    assert!(record.resent > 0);
}

#[test]
fn a_percentile_is_a_value_that_was_there() {
    let values = || (1..=200).map(f64::from).collect::<Vec<_>>();
    assert_eq!(percentile(values(), 50.0), Some(100.0));
    assert_eq!(percentile(values(), 99.0), Some(198.0));
    assert_eq!(percentile(values(), 100.0), Some(200.0));
    assert_eq!(percentile(values(), 0.0), Some(1.0));
    assert_eq!(percentile(Vec::new(), 50.0), None);
}
