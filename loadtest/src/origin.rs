//! The server behind every proxy of the benches: one thread, keepalive, a fixed answer.

use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// What every path answers but those below `/__`.
pub(crate) const BODY: &[u8; 100] = b"{\"ok\":true,\"items\":[{\"id\":1,\"name\":\"first\"},{\"id\":2,\"name\":\"second\"},{\"id\":3,\"name\":\"the third\"}]} \n";

/// Most connections at a time.
const CONNECTIONS_MAX: usize = 20_000;
/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Longest time that `/__hold/MS` holds an answer back.
const HOLD_MAX: Duration = Duration::from_secs(5);

/// Arguments of `hub-loadtest origin`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// File that gets `{"address":"IP:PORT"}` once it is listening.
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

/// What has been asked for so far. Requests for `/__stats` do not count, nor do connections that
/// carried nothing else.
#[derive(Debug, Default)]
struct Stats {
    connections: AtomicU64,
    requests: AtomicU64,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("{} cannot be listened on", args.listen))?;
    let address = listener.local_addr().context("the socket has no address")?;
    let ready = serde_json::json!({ "address": address.to_string() });
    match &args.ready_file {
        Some(path) => crate::bench::write_ready(path, &ready)?,
        None => println!("{ready}"),
    }
    serve(listener).await
}

async fn serve(listener: TcpListener) -> Result<()> {
    let stats = Arc::new(Stats::default());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .context("the semaphore is never closed")?;
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: what is there goes on, and one may be freed.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let stats = Arc::clone(&stats);
        tokio::spawn(async move {
            // A connection that breaks is the client's loss and is counted there.
            talk(stream, &stats).await.ok();
            drop(place);
        });
    }
}

/// What is answered to one request.
enum Reply {
    Fixed,
    Stats,
    /// The head as it arrived, up to this many bytes.
    Echo(usize),
    Hold(Duration),
    /// It has a body, or is not HTTP.
    Bad,
}

async fn talk(mut stream: TcpStream, stats: &Stats) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let fixed = answer(200, BODY);
    let mut buffer = vec![0; 4 << 10];
    let mut filled = 0;
    let mut counted = false;
    loop {
        let Some((bytes, keepalive, reply)) = read_request(&buffer[..filled]) else {
            if filled == buffer.len() {
                if filled >= HEAD_BYTES_MAX {
                    return Ok(());
                }
                buffer.resize(filled * 2, 0);
            }
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                count => filled += count,
            }
            continue;
        };
        if !matches!(reply, Reply::Stats) {
            stats.requests.fetch_add(1, Ordering::Relaxed);
            if !counted {
                counted = true;
                stats.connections.fetch_add(1, Ordering::Relaxed);
            }
        }
        match reply {
            Reply::Fixed => stream.write_all(&fixed).await?,
            Reply::Stats => {
                let body = serde_json::json!({
                    "connections": stats.connections.load(Ordering::Relaxed),
                    "requests": stats.requests.load(Ordering::Relaxed),
                });
                stream
                    .write_all(&answer(200, body.to_string().as_bytes()))
                    .await?;
            }
            Reply::Echo(bytes) => stream.write_all(&answer(200, &buffer[..bytes])).await?,
            Reply::Hold(time) => {
                tokio::time::sleep(time).await;
                stream.write_all(&fixed).await?;
            }
            Reply::Bad => return stream.write_all(&answer(400, b"")).await,
        }
        if !keepalive {
            return Ok(());
        }
        buffer.copy_within(bytes..filled, 0);
        filled -= bytes;
    }
}

/// Reads one head; `None` while it is incomplete.
fn read_request(bytes: &[u8]) -> Option<(usize, bool, Reply)> {
    if bytes.is_empty() {
        return None;
    }
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return None,
        Err(_) => return Some((bytes.len(), false, Reply::Bad)),
    };
    let mut keepalive = request.version == Some(1);
    for field in request.headers.iter() {
        // Lengths first: most headers are settled by one comparison of numbers.
        match field.name.len() {
            10 if field.name.eq_ignore_ascii_case("connection") => {
                keepalive &= !field.value.eq_ignore_ascii_case(b"close");
            }
            14 if field.name.eq_ignore_ascii_case("content-length") && field.value != b"0" => {
                return Some((length, false, Reply::Bad));
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                return Some((length, false, Reply::Bad));
            }
            _ => {}
        }
    }
    let path = request.path.unwrap_or_default();
    let reply = match path.strip_prefix("/__") {
        None => Reply::Fixed,
        Some("stats") => Reply::Stats,
        Some("echo") => Reply::Echo(length),
        Some(rest) => match rest.strip_prefix("hold/").map(str::parse) {
            Some(Ok(ms)) => Reply::Hold(Duration::from_millis(ms).min(HOLD_MAX)),
            _ => Reply::Bad,
        },
    };
    Some((length, keepalive, reply))
}

fn answer(status: u16, body: &[u8]) -> Vec<u8> {
    let reason = if status == 200 { "OK" } else { "Bad Request" };
    let mut bytes = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_testkit::load::{Ask, Body, Connection, Settings, closed};

    async fn started() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener));
        address
    }

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut connection = Connection::connect(address, None).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Mark: m\r\n\r\n");
        let wait = Duration::from_secs(5);
        let answer = connection
            .fetch(request.as_bytes(), 4_096, wait)
            .await
            .unwrap();
        (answer.status, answer.text())
    }

    #[tokio::test]
    async fn connections_and_requests_are_counted_and_asking_for_the_count_is_not() {
        let address = started().await;
        let plan = Settings {
            connections: 3,
            requests_max: 60,
            ..Settings::new(address)
        };
        let report = closed(plan, |_, request| {
            request.extend_from_slice(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
            Ask {
                class: 0,
                status: 200,
                body: Body::Exact(BODY),
            }
        });
        assert_eq!(report.finished().await.counts.ok(), 60);
        get(address, "/__stats").await;
        let (status, text) = get(address, "/__stats").await;
        assert_eq!(status, 200);
        assert_eq!(text, r#"{"connections":3,"requests":60}"#);
    }

    #[tokio::test]
    async fn an_echo_shows_the_head_as_it_arrived() {
        let (status, text) = get(started().await, "/__echo").await;
        assert_eq!(status, 200);
        assert_eq!(text, "GET /__echo HTTP/1.1\r\nHost: a\r\nX-Mark: m\r\n\r\n");
    }

    #[tokio::test]
    async fn pipelined_requests_are_answered_in_turn() {
        let address = started().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let two = b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n";
        stream.write_all(two).await.unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, answer(200, BODY).repeat(2));
    }

    #[test]
    fn requests_with_bodies_are_refused() {
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /__hold/x HTTP/1.1\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            let read = read_request(head.as_bytes());
            assert!(matches!(read, Some((_, _, Reply::Bad))), "{head}");
        }
    }
}
