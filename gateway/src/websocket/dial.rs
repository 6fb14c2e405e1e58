//! The upstream's side of the handshake: an endpoint, a connection of our own, and what it answers.

use super::handshake::Asked;
use crate::front::head::Head;
use crate::lanes::general::request::upstream_headers;
use crate::stages::{Exchange, fallback, forward, pick, record};
use crate::upstream::Wire;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hub_core::{HeaderName, Reason, Refusal};
use pingora::http::ResponseHeader;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most headers of an answer.
const HEADERS_MAX: usize = 128;

/// The client's request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'r> {
    pub(super) head: &'r Head,
    /// The head as it came.
    pub(super) bytes: &'r Bytes,
    /// The client's extensions go along.
    pub(super) extensions: bool,
}

/// What an upstream answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) wire: Wire,
    pub(super) head: Box<ResponseHeader>,
    /// Read behind the head.
    pub(super) rest: Vec<u8>,
}

impl Answer {
    /// Both handshakes are good, as far as it depends on the upstream.
    pub(super) fn is_open(&self) -> bool {
        self.head.status == StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Asks endpoints for a WebSocket until one answers, as the general lane does for other requests: another one
/// where a connection cannot be made, and the other colour of a rollout where the route allows it.
///
/// # Errors
/// The refusal for the client.
pub(super) async fn dial(exchange: &mut Exchange, request: Request<'_>) -> Result<Answer, Refusal> {
    let mut connect_retries = 0;
    loop {
        let (refusal, status) = match attempt(exchange, request).await {
            Ok(answer) if !answer.head.status.is_server_error() => return Ok(answer),
            Ok(answer) => {
                let status = answer.head.status.as_u16();
                let ending = crate::switch::watch::Ending::ServerError;
                if !fallback::fall_back(exchange, &Method::GET, false, ending, status) {
                    return Ok(answer);
                }
                connect_retries = 0;
                continue;
            }
            Err(refusal) => (refusal, 0),
        };
        if matches!(
            refusal.reason,
            Reason::ConnectFailed | Reason::ConnectTimeout
        ) {
            record::connect_failed(exchange);
            if connect_retries < pick::connect_retries(exchange) {
                connect_retries += 1;
                exchange.retries += 1;
                record::retried(exchange);
                continue;
            }
        }
        let ending = record::ending_of(refusal.reason);
        if !ending.is_some_and(|ending| {
            fallback::fall_back(exchange, &Method::GET, false, ending, status)
        }) {
            return Err(refusal);
        }
        connect_retries = 0;
    }
}

/// Asks one endpoint.
async fn attempt(exchange: &mut Exchange, request: Request<'_>) -> Result<Answer, Refusal> {
    pick::pick(exchange, Instant::now())?;
    exchange.upstream_began = None;
    exchange.upstream_first_byte = None;
    let snapshot = Arc::clone(&exchange.snapshot);
    let pick = exchange.pick.as_ref().expect("pick just succeeded");
    let cluster = &snapshot.config.clusters[pick.cluster()];
    let connected = timeout(
        cluster.connect_timeout,
        snapshot.clusters.connect(cluster, pick),
    );
    let mut wire = connected
        .await
        .map_err(|_| Refusal::new(Reason::ConnectTimeout))?
        .map_err(|error| Refusal::new(Reason::ConnectFailed).with_detail(error.to_string()))?;
    record::connected(exchange);
    let (sent, asked) = written(exchange, request)?;
    let began = Instant::now();
    exchange.upstream_began = Some(began);
    let answered = timeout(cluster.first_byte_timeout, ask(&mut wire, &sent)).await;
    let (head, rest) = answered
        .map_err(|_| Refusal::new(Reason::UpstreamTimeout))?
        .map_err(failed)?;
    exchange.upstream_first_byte = Some(began.elapsed());
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        asked.check(&head.headers).map_err(failed)?;
    }
    Ok(Answer { wire, head, rest })
}

fn failed(error: impl ToString) -> Refusal {
    Refusal::new(Reason::UpstreamFailed).with_detail(error.to_string())
}

/// The request as the upstream gets it.
fn written(exchange: &Exchange, request: Request<'_>) -> Result<(Vec<u8>, Asked), Refusal> {
    let Request {
        head,
        bytes,
        extensions,
    } = request;
    let headers = upstream_headers(head, bytes);
    let mut headers =
        headers.map_err(|error| Refusal::new(Reason::Internal).with_detail(error.to_string()))?;
    let host = headers.get(header::HOST).cloned();
    forward::dress_request(exchange, host, &mut headers);
    // Last, so that no edit breaks the handshake.
    let asked = Asked::dress(&mut headers, extensions);
    let target = head.target(bytes);
    let mut out = Vec::with_capacity(bytes.len() + 512);
    out.extend_from_slice(b"GET ");
    out.extend_from_slice(&target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok((out, asked))
}

/// Sends the request and reads the head of the final answer, and what came behind it.
async fn ask(wire: &mut Wire, request: &[u8]) -> io::Result<(Box<ResponseHeader>, Vec<u8>)> {
    wire.write_all(request).await?;
    wire.flush().await?;
    let mut read = Vec::with_capacity(1024);
    loop {
        while let Some((head, len)) = parse(&read)? {
            read.drain(..len);
            // 100, 102 and 103 precede the answer.
            let precedes =
                head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS;
            if !precedes {
                return Ok((head, read));
            }
        }
        if read.len() >= HEAD_BYTES_MAX {
            let text = format!("the head of the answer is larger than {HEAD_BYTES_MAX} bytes");
            return Err(io::Error::other(text));
        }
        if wire.read_buf(&mut read).await? == 0 {
            return Err(io::Error::other(
                "the connection was closed before an answer",
            ));
        }
    }
}

/// The head at the front of `bytes`, and its length; `None` where it is incomplete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Box<ResponseHeader>, usize)>> {
    let wrong = |error: &dyn std::fmt::Display| {
        io::Error::other(format!("the answer is not HTTP/1: {error}"))
    };
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let len = match response.parse(bytes).map_err(|error| wrong(&error))? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(len) => len,
    };
    let code = response.code.unwrap_or_default();
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = StatusCode::from_u16(code).map_err(|error| wrong(&error))?;
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for field in response.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|error| wrong(&error))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|error| wrong(&error))?;
        headers.append(name, value);
    }
    parts.headers = headers;
    Ok(Some((Box::new(ResponseHeader::from(parts)), len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_whole_or_not_at_all() {
        let text =
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nA: 1\r\nA: 2\r\n\r\nrest";
        for end in 0..text.len() - 4 {
            assert!(parse(&text[..end]).expect("a beginning").is_none(), "{end}");
        }
        let (head, len) = parse(text).expect("a head").expect("all of it");
        assert_eq!((head.status.as_u16(), &text[len..]), (101, &b"rest"[..]));
        assert_eq!(head.headers.get_all("a").iter().count(), 2);
        assert!(parse(b"SSH-2.0-OpenSSH_9.2\r\n").is_err());
        assert!(parse(b"HTTP/1.1 101 x\r\nA b\r\n\r\n").is_err());
    }
}
