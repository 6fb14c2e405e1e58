//! One connection of an origin: reads requests, records every byte, and answers as scripted.

use super::Open;
use super::answer::After;
use super::behaviour::{Behaviour, Reply};
use super::record::{Entry, Ledger, RecordedRequest};
use crate::Gate;
use crate::fields::{self, Framing};
use crate::stream::Stream;
use crate::websocket::{Frame, Masking, Role, accept_key, opcode};
use bytes::{Bytes, BytesMut};
use serde_json::json;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Largest head, and most that is read ahead while an answer waits, in bytes.
const BUFFER_BYTES_MAX: usize = 256 * 1024;
/// Largest body that an echo repeats as text, in bytes.
const ECHO_BODY_BYTES_MAX: usize = 64 * 1024;

/// One connection.
pub(super) struct Connection {
    stream: Stream,
    buffer: BytesMut,
    open: Open,
}

impl Connection {
    pub(super) fn new(stream: Stream, open: Open) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            open,
        }
    }

    fn ledger(&self) -> &Ledger {
        &self.open.shared.ledger
    }

    /// Serves requests until either side closes. An error is the peer's way to close; what it had
    /// sent by then is recorded.
    pub(super) async fn serve(mut self) {
        while let Ok(Some(head)) = self.read_head().await {
            match self.one_request(head).await {
                Ok(After::KeepAlive) => {}
                Ok(After::Close) => return self.linger().await,
                // The drop makes the reset.
                Ok(After::Reset) => {
                    if self.stream.reset_on_close().is_err() {
                        eprintln!("the origin could not prepare a reset; the close is orderly");
                    }
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Reads more into the buffer and records it. 0 means that the peer has closed its half.
    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(16 * 1024);
        let before = self.buffer.len();
        let count = self.stream.read_buf(&mut self.buffer).await?;
        self.ledger().received(self.open.id, &self.buffer[before..]);
        Ok(count)
    }

    async fn fill_or_end(&mut self) -> io::Result<()> {
        match self.fill().await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Runs `work`, but gives up when the peer closes meanwhile. What the peer sends is read ahead
    /// up to a bound.
    pub(super) async fn unless_closed<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> io::Result<T> {
        tokio::pin!(work);
        while self.buffer.len() < BUFFER_BYTES_MAX {
            tokio::select! {
                biased;
                value = &mut work => return Ok(value),
                filled = self.fill_or_end() => filled?,
            }
        }
        Ok(work.await)
    }

    /// The next head; `None` where the peer closes before a whole one has come.
    async fn read_head(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(end) = fields::head_end(&self.buffer) {
                return Ok(Some(self.buffer.split_to(end).freeze()));
            }
            if self.buffer.len() >= BUFFER_BYTES_MAX || self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn one_request(&mut self, head: Bytes) -> io::Result<After> {
        let (line, headers) = fields::parse(&head);
        let mut words = line.split(' ').map(str::to_owned);
        let request = RecordedRequest {
            connection: self.open.id,
            head: head.to_vec(),
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            version: words.next().unwrap_or_default(),
            headers,
            ..RecordedRequest::default()
        };
        let well_formed = words.next().is_none() && request.version.starts_with("HTTP/1.");
        let entry = self.ledger().head(request.clone());
        if !well_formed {
            return self.answer(&request, &Reply::new(400).close()).await;
        }
        let behaviour = self.open.shared.behaviour(request.path());
        let after = self.behave(&request, entry, behaviour).await?;
        let closes = fields::says_close(&request.version, &request.headers);
        Ok(match after {
            After::KeepAlive if closes => After::Close,
            after => after,
        })
    }

    async fn behave(
        &mut self,
        request: &RecordedRequest,
        entry: Entry,
        behaviour: Behaviour,
    ) -> io::Result<After> {
        match behaviour {
            Behaviour::Reply(reply) => self.reply(request, entry, &reply).await,
            Behaviour::Echo => {
                self.take_body(request, entry).await?;
                let reply = self.echo(&self.ledger().request(entry));
                self.answer(request, &reply).await
            }
            Behaviour::Call(make) => {
                self.take_body(request, entry).await?;
                let reply = make(&self.ledger().request(entry));
                self.pass(reply.head_after.as_ref()).await?;
                self.answer(request, &reply).await
            }
            Behaviour::WebSocket => self.web_socket(request, entry).await,
            Behaviour::Hang => {
                self.take_body(request, entry).await?;
                self.unless_closed(std::future::pending::<()>()).await?;
                Ok(After::Close)
            }
            Behaviour::Close => {
                self.take_body(request, entry).await?;
                Ok(After::Close)
            }
            Behaviour::Reset => {
                self.take_body(request, entry).await?;
                Ok(After::Reset)
            }
            Behaviour::Raw(bytes) => {
                self.take_body(request, entry).await?;
                self.write(&bytes).await?;
                Ok(After::Close)
            }
        }
    }

    /// A canned answer with all that can be timed about it.
    async fn reply(
        &mut self,
        request: &RecordedRequest,
        entry: Entry,
        reply: &Reply,
    ) -> io::Result<After> {
        for (status, headers) in &reply.interim {
            self.write_interim(*status, headers).await?;
        }
        if reply.early {
            self.pass(reply.head_after.as_ref()).await?;
            let after = self.answer(request, reply).await?;
            if after == After::KeepAlive {
                self.pass(reply.read_after.as_ref()).await?;
                self.read_body(&request.headers, entry).await?;
            }
            return Ok(after);
        }
        if let Some(gate) = &reply.read_after {
            // Reading ahead would defeat the purpose, so this wait does not notice a close.
            gate.pass().await;
        }
        if reply.interim.iter().all(|(status, _)| *status != 100) {
            self.continue_if_expected(request).await?;
        }
        self.read_body(&request.headers, entry).await?;
        self.pass(reply.head_after.as_ref()).await?;
        self.answer(request, reply).await
    }

    pub(super) async fn pass(&mut self, gate: Option<&Gate>) -> io::Result<()> {
        match gate {
            Some(gate) => self.unless_closed(gate.pass()).await,
            None => Ok(()),
        }
    }

    async fn take_body(&mut self, request: &RecordedRequest, entry: Entry) -> io::Result<()> {
        self.continue_if_expected(request).await?;
        self.read_body(&request.headers, entry).await
    }

    async fn continue_if_expected(&mut self, request: &RecordedRequest) -> io::Result<()> {
        let expects = request
            .header("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        match expects {
            true => self.write_interim(100, &[]).await,
            false => Ok(()),
        }
    }

    async fn read_body(&mut self, headers: &[(String, String)], entry: Entry) -> io::Result<()> {
        let mut hash = sha2::Sha256::default();
        let mut trailers = Vec::new();
        match Framing::of(headers) {
            Framing::Unsaid => {}
            Framing::Length(length) => self.read_piece(length, entry, &mut hash).await?,
            Framing::Chunked => loop {
                let line = self.read_line().await?;
                let size = fields::chunk_size(&line).ok_or(io::ErrorKind::InvalidData)?;
                if size > 0 {
                    self.read_piece(size, entry, &mut hash).await?;
                    if !self.read_line().await?.is_empty() {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    continue;
                }
                loop {
                    let line = self.read_line().await?;
                    if line.is_empty() {
                        break;
                    }
                    trailers.extend(fields::parse(&[b"\n", line.as_ref()].concat()).1);
                }
                break;
            },
        }
        let sha256 = hex(&sha2::Digest::finalize(hash));
        self.ledger().complete(entry, sha256, trailers);
        Ok(())
    }

    async fn read_piece(
        &mut self,
        mut left: u64,
        entry: Entry,
        hash: &mut sha2::Sha256,
    ) -> io::Result<()> {
        while left > 0 {
            if self.buffer.is_empty() {
                self.fill_or_end().await?;
            }
            let take =
                usize::try_from(left).map_or(self.buffer.len(), |left| left.min(self.buffer.len()));
            let piece = self.buffer.split_to(take);
            sha2::Digest::update(hash, &piece);
            self.ledger().body(entry, &piece);
            left -= take as u64;
        }
        Ok(())
    }

    /// One line without its end, which must be CRLF.
    async fn read_line(&mut self) -> io::Result<BytesMut> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let mut line = self.buffer.split_to(end + 2);
                line.truncate(end);
                return Ok(line);
            }
            if self.buffer.len() >= BUFFER_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.fill_or_end().await?;
        }
    }

    fn echo(&self, request: &RecordedRequest) -> Reply {
        let small = request.body_bytes <= ECHO_BODY_BYTES_MAX as u64
            && request.body.len() as u64 == request.body_bytes;
        let text = small
            .then(|| std::str::from_utf8(&request.body).ok())
            .flatten();
        let body = json!({
            "colour": self.open.shared.colour,
            "connection": request.connection,
            "method": request.method,
            "target": request.target,
            "headers": request.headers,
            "body_bytes": request.body_bytes,
            "body_sha256": request.body_sha256,
            "body": text,
        });
        Reply::ok(body.to_string())
            .header("Content-Type", "application/json")
            .header("X-Colour", &self.open.shared.colour)
    }

    async fn web_socket(&mut self, request: &RecordedRequest, entry: Entry) -> io::Result<After> {
        let Some(protocol) = request.header("upgrade") else {
            self.take_body(request, entry).await?;
            return self.answer(request, &Reply::new(426)).await;
        };
        let mut head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {protocol}\r\nConnection: Upgrade\r\n"
        );
        if let Some(key) = request.header("sec-websocket-key") {
            head += &format!("Sec-WebSocket-Accept: {}\r\n", accept_key(key));
        }
        self.write((head + "\r\n").as_bytes()).await?;
        loop {
            let (frame, len) = match Frame::parse(&self.buffer) {
                Ok(Some(whole)) => whole,
                Ok(None) => {
                    if self.fill().await? > 0 {
                        continue;
                    }
                    self.ledger().complete(entry, String::new(), Vec::new());
                    return Ok(After::Close);
                }
                Err(error) => return Err(io::Error::other(error)),
            };
            let bytes = self.buffer.split_to(len);
            self.ledger().body(entry, &bytes);
            let echo = Frame {
                opcode: if frame.opcode == opcode::PING {
                    opcode::PONG
                } else {
                    frame.opcode
                },
                masking: Masking::ByRole,
                ..frame
            };
            if frame.opcode != opcode::PONG {
                self.write(&echo.bytes(Role::Server)).await?;
            }
            if frame.opcode == opcode::CLOSE {
                self.ledger().complete(entry, String::new(), Vec::new());
                return Ok(After::Close);
            }
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        self.ledger().sent(bytes.len());
        Ok(())
    }

    /// Closes our half and waits for the peer to close its own. Closing at once while bytes are
    /// unread would make a reset of it, which can take the answer with it.
    async fn linger(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        while matches!(self.fill().await, Ok(1..)) {
            self.buffer.clear();
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
