//! The receiving half of [`Wire`].

use super::response::{Head, WireResponse};
use super::{End, Wire};
use crate::fields::{self, Framing};
use bytes::{Buf, BytesMut};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use tokio::io::AsyncReadExt;

/// Most that is held while what was asked for is looked for, in bytes.
const BUFFER_BYTES_MAX: usize = 8 << 20;

/// A piece of a chunked body.
enum Chunk {
    Data(Vec<u8>),
    Last { trailers: Vec<(String, String)> },
}

impl Wire {
    /// The next response, with its whole body.
    ///
    /// # Panics
    /// Where what comes is no whole HTTP/1 response.
    pub async fn read_response(&mut self) -> WireResponse {
        self.read_response_to("GET").await
    }

    /// The next response, to a request with this method: the answer to HEAD has no body, whatever
    /// its head says.
    pub async fn read_response_to(&mut self, method: &str) -> WireResponse {
        match self.try_read_response_to(method).await {
            Ok(Some(response)) => response,
            Ok(None) => panic!("the connection was closed instead of a response"),
            Err(error) => panic!("no whole response ({error}); so far: {}", self.so_far()),
        }
    }

    /// The next response; `None` where the connection ends in an orderly way before its first byte,
    /// and an error where what comes is no whole response. Interim answers (1xx, but 101) are
    /// collected in it.
    pub async fn try_read_response_to(&mut self, method: &str) -> io::Result<Option<WireResponse>> {
        self.raw.clear();
        let mut interim = Vec::new();
        let head = loop {
            let Some(head) = self.try_read_head().await? else {
                return match interim.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            };
            match head.status {
                100 | 102..=199 => interim.push(head),
                _ => break head,
            }
        };
        let (mut body, mut trailers) = (Vec::new(), Vec::new());
        if method != "HEAD" && !matches!(head.status, 101 | 204 | 304) {
            match Framing::of(&head.headers) {
                Framing::Length(length) => {
                    let length = usize::try_from(length).map_err(io::Error::other)?;
                    body = self.try_read_exact(length).await?;
                }
                Framing::Chunked => loop {
                    match self.try_read_chunk().await? {
                        Chunk::Data(chunk) => body.extend_from_slice(&chunk),
                        Chunk::Last { trailers: last } => {
                            trailers = last;
                            break;
                        }
                    }
                },
                Framing::Unsaid => {
                    let (rest, end) = self.read_to_end().await;
                    if end == End::Reset {
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                    body = rest;
                }
            }
        }
        Ok(Some(WireResponse {
            status: head.status,
            reason: head.reason,
            version: head.version,
            headers: head.headers,
            body,
            trailers,
            interim,
            raw: std::mem::take(&mut self.raw),
        }))
    }

    /// The next head alone, interim or not; for answers that are read as they come.
    pub async fn read_head(&mut self) -> Head {
        self.raw.clear();
        match self.try_read_head().await {
            Ok(Some(head)) => head,
            Ok(None) => panic!("the connection was closed instead of a head"),
            Err(error) => panic!("no whole head ({error}); so far: {}", self.so_far()),
        }
    }

    async fn try_read_head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(end) = fields::head_end(&self.buffer) {
                break end;
            }
            if self.fill("a head").await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        };
        let bytes = self.take(end);
        Head::parse(&bytes).map(Some)
    }

    /// Exactly so many bytes.
    ///
    /// # Panics
    /// Where the connection ends before.
    pub async fn read_exact(&mut self, count: usize) -> Vec<u8> {
        self.try_read_exact(count).await.unwrap_or_else(|error| {
            panic!("not {count} bytes ({error}); so far: {}", self.so_far())
        })
    }

    async fn try_read_exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            if self.buffer.is_empty() && self.fill("bytes").await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let take = self.buffer.len().min(count - bytes.len());
            bytes.extend(self.take(take));
        }
        Ok(bytes)
    }

    /// All up to and with the first `needle`.
    ///
    /// # Panics
    /// Where the connection ends before, or `needle` is empty.
    pub async fn read_until(&mut self, needle: impl AsRef<[u8]>) -> Vec<u8> {
        let needle = needle.as_ref();
        loop {
            if let Some(at) = self
                .buffer
                .windows(needle.len())
                .position(|window| window == needle)
            {
                return self.take(at + needle.len());
            }
            match self.fill("a part of the body").await {
                Ok(1..) => {}
                Ok(0) => panic!(
                    "closed before {:?}; so far: {}",
                    fields::latin1(needle),
                    self.so_far()
                ),
                Err(error) => panic!(
                    "{error} before {:?}; so far: {}",
                    fields::latin1(needle),
                    self.so_far()
                ),
            }
        }
    }

    /// Whatever comes next, at least one byte; empty where the connection has ended.
    pub async fn read_some(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() && !matches!(self.fill("anything").await, Ok(1..)) {
            return Vec::new();
        }
        self.take(self.buffer.len())
    }

    /// The next chunk of a chunked body; `None` after the last, whose trailers are passed over.
    ///
    /// # Panics
    /// Where what comes is no whole chunk.
    pub async fn read_chunk(&mut self) -> Option<Vec<u8>> {
        match self.try_read_chunk().await {
            Ok(Chunk::Data(chunk)) => Some(chunk),
            Ok(Chunk::Last { .. }) => None,
            Err(error) => panic!("no whole chunk ({error}); so far: {}", self.so_far()),
        }
    }

    async fn try_read_chunk(&mut self) -> io::Result<Chunk> {
        let line = self.read_line().await?;
        let size = fields::chunk_size(&line)
            .and_then(|size| usize::try_from(size).ok())
            .ok_or_else(|| {
                io::Error::other(format!("bad chunk line {:?}", fields::latin1(&line)))
            })?;
        if size > 0 {
            let chunk = self.try_read_exact(size).await?;
            return match self.read_line().await?.is_empty() {
                true => Ok(Chunk::Data(chunk)),
                false => Err(io::Error::other("a chunk is longer than it says")),
            };
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.read_line().await?;
            if line.is_empty() {
                return Ok(Chunk::Last { trailers });
            }
            trailers.extend(fields::parse(&[b"\n", line.as_slice()].concat()).1);
        }
    }

    async fn read_line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let mut line = self.take(end + 2);
                line.truncate(end);
                return Ok(line);
            }
            if self.fill("a line").await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// All that still comes, and how the connection ended.
    pub async fn read_to_end(&mut self) -> (Vec<u8>, End) {
        let mut all = Vec::new();
        loop {
            let filled = self.fill("the end of the connection").await;
            all.extend(self.take(self.buffer.len()));
            match filled {
                Ok(1..) => {}
                Ok(0) => return (all, End::Closed),
                Err(_) => return (all, End::Reset),
            }
        }
    }

    /// All that still comes until the connection ends in either way.
    pub async fn read_to_close(&mut self) -> Vec<u8> {
        self.read_to_end().await.0
    }

    /// Waits until the peer closes, and says how.
    ///
    /// # Panics
    /// Where bytes come instead.
    pub async fn wait_closed(&mut self) -> End {
        let (rest, end) = self.read_to_end().await;
        assert!(
            rest.is_empty(),
            "bytes instead of a close: {:?}",
            fields::latin1(&rest)
        );
        end
    }

    /// True where the peer's close has arrived by now. A close that is still on its way is not seen:
    /// to assert that there is one, use [`Wire::wait_closed`].
    pub async fn is_closed(&mut self) -> bool {
        // One poll of the read, after the runtime has had its chance to see what has arrived.
        tokio::task::yield_now().await;
        let mut probe = BytesMut::with_capacity(4096);
        let closed = {
            let mut read = pin!(self.stream.read_buf(&mut probe));
            poll_fn(|cx| {
                Poll::Ready(matches!(
                    read.as_mut().poll(cx),
                    Poll::Ready(Ok(0) | Err(_))
                ))
            })
            .await
        };
        self.buffer.extend_from_slice(&probe);
        closed
    }

    /// Reads more into the buffer; 0 where the peer has closed.
    async fn fill(&mut self, what: &str) -> io::Result<usize> {
        if self.buffer.len() > BUFFER_BYTES_MAX {
            return Err(io::Error::other(format!(
                "{} bytes without {what}",
                self.buffer.len()
            )));
        }
        self.buffer.reserve(16 * 1024);
        let read = self.stream.read_buf(&mut self.buffer);
        match tokio::time::timeout(crate::PATIENCE, read).await {
            Ok(read) => read,
            Err(_) => panic!(
                "waited {:?} for {what}; so far: {}",
                crate::PATIENCE,
                self.so_far()
            ),
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.buffer[..count].to_vec();
        self.buffer.advance(count);
        self.raw.extend_from_slice(&bytes);
        bytes
    }

    /// The last of what was read and of what waits, for messages.
    fn so_far(&self) -> String {
        let all = [self.raw.as_slice(), &self.buffer].concat();
        let tail = &all[all.len().saturating_sub(2_000)..];
        format!("{} bytes, {:?}", all.len(), fields::latin1(tail))
    }
}
