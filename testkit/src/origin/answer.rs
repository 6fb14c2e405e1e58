//! How an origin writes an answer: head, framing, body, and the ways in which it can break off.

use super::behaviour::{Body, Fault, Reply, ReplyFraming};
use super::connection::Connection;
use super::record::RecordedRequest;
use bytes::Bytes;
use std::io;

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    KeepAlive,
    Close,
    Reset,
}

impl Connection {
    /// Writes the answer, as far as it is meant to come.
    pub(super) async fn answer(
        &mut self,
        request: &RecordedRequest,
        reply: &Reply,
    ) -> io::Result<After> {
        let has_body = request.method != "HEAD" && !matches!(reply.status, 100..=199 | 204 | 304);
        self.write(&head(reply)).await?;
        let mut sent = 0;
        if has_body {
            self.pass(reply.body_after.as_ref()).await?;
            let mut left = reply.fault.map(|fault| fault.after_bytes);
            sent = self.body(reply, &mut left).await?;
            if let Some(Fault { reset, .. }) = reply.fault {
                return Ok(if reset { After::Reset } else { After::Close });
            }
        }
        let short =
            has_body && matches!(reply.framing, ReplyFraming::Declared(said) if said > sent);
        Ok(match reply.close || short {
            true => After::Close,
            false => After::KeepAlive,
        })
    }

    pub(super) async fn write_interim(
        &mut self,
        status: u16,
        headers: &[(String, String)],
    ) -> io::Result<()> {
        let mut reply = Reply::new(status);
        for (name, value) in headers {
            reply = reply.header(name, value);
        }
        let mut bytes = status_line(&reply);
        push_headers(&mut bytes, &reply.headers);
        bytes.extend_from_slice(b"\r\n");
        self.write(&bytes).await
    }

    /// Writes the body and says how many bytes of it went out. `left` is how many may, where the
    /// answer is to break off.
    async fn body(&mut self, reply: &Reply, left: &mut Option<u64>) -> io::Result<u64> {
        let mut sent = 0;
        match &reply.body {
            Body::Bytes(bytes) => {
                for piece in bytes.chunks(reply.chunk_bytes) {
                    sent += self.piece(reply, piece, left).await?;
                }
            }
            Body::Repeated { byte, count } => {
                let block = vec![*byte; reply.chunk_bytes];
                while sent < *count {
                    let size =
                        usize::try_from(count - sent).map_or(block.len(), |n| n.min(block.len()));
                    let written = self.piece(reply, &block[..size], left).await?;
                    sent += written;
                    if *left == Some(0) || written == 0 {
                        break;
                    }
                }
            }
            Body::Fed(receiver) => {
                // Held to the end, so that two requests cannot tear one stream apart.
                let mut receiver = receiver.lock().await;
                while *left != Some(0) {
                    let piece: Option<Bytes> = self.unless_closed(receiver.recv()).await?;
                    let Some(piece) = piece else { break };
                    sent += self.piece(reply, &piece, left).await?;
                }
            }
        }
        if reply.framing == ReplyFraming::Chunked && left.is_none() {
            let mut end = b"0\r\n".to_vec();
            for (name, value) in &reply.trailers {
                end.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            end.extend_from_slice(b"\r\n");
            self.write(&end).await?;
        }
        Ok(sent)
    }

    /// Writes one piece, framed; a piece that exceeds what is left is announced whole and cut.
    async fn piece(
        &mut self,
        reply: &Reply,
        piece: &[u8],
        left: &mut Option<u64>,
    ) -> io::Result<u64> {
        let allowed = match left {
            Some(left) => usize::try_from(*left).map_or(piece.len(), |left| left.min(piece.len())),
            None => piece.len(),
        };
        if *left == Some(0) || piece.is_empty() {
            return Ok(0);
        }
        let mut framed = Vec::with_capacity(piece.len() + 16);
        let chunked = reply.framing == ReplyFraming::Chunked;
        if chunked {
            framed.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        }
        framed.extend_from_slice(&piece[..allowed]);
        if chunked && allowed == piece.len() {
            framed.extend_from_slice(b"\r\n");
        }
        self.write(&framed).await?;
        if let Some(left) = left {
            *left -= allowed as u64;
        }
        Ok(allowed as u64)
    }
}

fn status_line(reply: &Reply) -> Vec<u8> {
    format!("HTTP/1.1 {} {}\r\n", reply.status, reply.reason).into_bytes()
}

fn push_headers(to: &mut Vec<u8>, headers: &[(String, Vec<u8>)]) {
    for (name, value) in headers {
        to.extend_from_slice(name.as_bytes());
        to.extend_from_slice(b": ");
        to.extend_from_slice(value);
        to.extend_from_slice(b"\r\n");
    }
}

fn head(reply: &Reply) -> Vec<u8> {
    let mut bytes = status_line(reply);
    push_headers(&mut bytes, &reply.headers);
    // RFC 9110 8.6: no Content-Length in 1xx and 204; 304 needs none.
    let framing = match reply.framing {
        _ if matches!(reply.status, 100..=199 | 204 | 304) => None,
        ReplyFraming::Length => match &reply.body {
            Body::Bytes(bytes) => Some(format!("Content-Length: {}\r\n", bytes.len())),
            Body::Repeated { count, .. } => Some(format!("Content-Length: {count}\r\n")),
            // What is fed has no length; `Reply::fed` makes it chunked, and the end of the
            // connection frames it where a test has undone that.
            Body::Fed(_) => None,
        },
        ReplyFraming::Declared(length) => Some(format!("Content-Length: {length}\r\n")),
        ReplyFraming::Chunked => Some("Transfer-Encoding: chunked\r\n".into()),
        ReplyFraming::UntilClose => None,
    };
    bytes.extend_from_slice(framing.unwrap_or_default().as_bytes());
    if reply.close {
        bytes.extend_from_slice(b"Connection: close\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}
