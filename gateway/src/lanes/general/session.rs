//! An HTTP/1 request and its answer as pingora-proxy sees them: our own downstream session.
//!
//! pingora's session would parse the head a second time, by other rules; keep names in a second map
//! for their case; and own the connection while it does. This one is made from the head that the
//! front has checked. It reads the body through [`MessageBody`], so pingora gets payload and never
//! framing, and writes the answer in as few system calls as it can.
//!
//! Invariant: a connection comes back to the front ([`Home`]) however the request ended, and as
//! reusable only if both messages were complete.

mod answer;
mod retry;

use crate::front::body::MessageBody;
use crate::front::downstream::Downstream;
use crate::front::head::Head;
use crate::front::stall::Stall;
use answer::Framer;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri, header};
use hub_core::{HeaderName, HeaderValue, Reason, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session as CustomSession;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, OrErr, Result};
use retry::RetryBuffer;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Where a connection waits for the front after a request.
#[derive(Debug, Default)]
pub(crate) struct Home(Mutex<Option<Returned>>);

/// A connection after a request.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) downstream: Box<Downstream>,
    /// Both messages are complete, and neither side asked for an end.
    pub(crate) reusable: bool,
}

/// What the front knows of a request beside its head.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) body: MessageBody,
    /// The request asks to become a tunnel and its route allows it.
    pub(crate) websocket: bool,
    /// The connection may serve another request after this one.
    pub(crate) keep_alive: bool,
    /// Longest wait for more of the request's body.
    pub(crate) body_timeout: Duration,
}

/// See the module.
pub(crate) struct Http1Session {
    /// There until the session ends.
    downstream: Option<Box<Downstream>>,
    home: Arc<Home>,
    request: RequestHeader,
    terms: Terms,
    /// The request came without a body.
    bodyless: bool,
    /// After a 101: both directions are bytes without framing.
    tunnel: bool,
    tunnel_closed: bool,
    stall: Stall,
    retry: RetryBuffer,
    response: Option<Box<ResponseHeader>>,
    framer: Framer,
}

// === impl Home ===

impl Home {
    fn put(&self, returned: Returned) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(returned);
    }

    /// The connection, once its request is over.
    pub(crate) fn take(&self) -> Option<Returned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

// === impl Http1Session ===

impl Http1Session {
    /// A session for the request whose head is `head`, as it stands in `bytes`.
    ///
    /// # Errors
    /// Where pingora cannot hold what the head says, which is not known to happen. The connection is
    /// dropped then.
    pub(crate) fn new(
        downstream: Box<Downstream>,
        home: Arc<Home>,
        head: &Head,
        bytes: &Bytes,
        terms: Terms,
    ) -> Result<Self> {
        let bodyless = terms.body.is_done();
        Ok(Self {
            downstream: Some(downstream),
            home,
            request: request_header(head, bytes, terms.websocket)?,
            bodyless,
            tunnel: false,
            tunnel_closed: false,
            stall: Stall::default(),
            retry: RetryBuffer::default(),
            response: None,
            framer: Framer::default(),
            terms,
        })
    }

    fn downstream(&mut self) -> &mut Downstream {
        self.downstream
            .as_mut()
            .expect("the connection is given back by Drop alone")
    }

    fn body_done(&self) -> bool {
        if self.tunnel {
            self.tunnel_closed
        } else {
            self.terms.body.is_done()
        }
    }

    fn fault(&mut self, reason: Reason) -> Box<Error> {
        self.downstream().progress().set_fault(reason);
        Error::explain(ErrorType::ReadError, reason.code()).into_down()
    }

    /// The next piece of the body, or of the tunnel; `None` at its end.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            if self.body_done() {
                return Poll::Ready(Ok(None));
            }
            if self.downstream().stash().is_empty()
                && (self.downstream().peer_closed() || ready!(self.poll_more(cx))? == 0)
            {
                return Poll::Ready(self.body_cut());
            }
            let tunnel = self.tunnel;
            let downstream = self
                .downstream
                .as_mut()
                .expect("the connection is given back by Drop alone");
            let stash = downstream.stash();
            let taken = if tunnel {
                Ok((0, stash.len()))
            } else {
                self.terms.body.next_payload(stash)
            };
            let (framing, payload) = match taken {
                Ok(taken) => taken,
                Err(reason) => return Poll::Ready(Err(self.fault(reason))),
            };
            downstream.discard(framing);
            if payload == 0 {
                continue;
            }
            let bytes = downstream.take(payload).freeze();
            downstream
                .progress()
                .bytes_in
                .fetch_add(payload as u64, Ordering::Relaxed);
            self.retry.push(&bytes);
            return Poll::Ready(Ok(Some(bytes)));
        }
    }

    /// Reads more of the body, within the time that the listener allows for it.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        match self.downstream().poll_fill_body(cx) {
            Poll::Ready(count) => {
                self.stall.moved();
                Poll::Ready(
                    count
                        .or_err(ErrorType::ReadError, "reading from the client")
                        .map_err(Error::into_down),
                )
            }
            Poll::Pending if self.tunnel => Poll::Pending,
            Poll::Pending => {
                ready!(self.stall.poll(self.terms.body_timeout, cx));
                Poll::Ready(Err(self.fault(Reason::BodyTimeout)))
            }
        }
    }

    fn body_cut(&mut self) -> Result<Option<Bytes>> {
        if self.tunnel {
            self.tunnel_closed = true;
            return Ok(None);
        }
        let error = Error::explain(ErrorType::ConnectionClosed, "the client left in its body");
        Err(error.into_down())
    }

    /// [`poll_body`](Self::poll_body), or with a complete body the wait for the end of the request: ready
    /// only where something ends it early.
    fn poll_event(
        &mut self,
        no_body_expected: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>>> {
        if let Poll::Ready(reason) = self.downstream().poll_deadline(cx) {
            return Poll::Ready(Err(self.fault(reason)));
        }
        // pingora reads when it has nothing to write at the moment, so what was gathered should go: a
        // head must not wait for a body that is slow to come.
        if self.downstream().has_gathered()
            && let Poll::Ready(Err(error)) = self.downstream().poll_flush(cx)
        {
            return Poll::Ready(Err(write_error(error)));
        }
        if !no_body_expected && !self.body_done() {
            let read = self.poll_body(cx);
            if read.is_ready() || !self.tunnel {
                return read;
            }
        } else if self.downstream().poll_gone(cx).is_ready() {
            let error = Error::explain(ErrorType::ConnectionClosed, "the client left");
            return Poll::Ready(Err(error.into_down()));
        }
        self.poll_silence(cx)
    }

    /// Ready where an answer has begun and its upstream was silent for too long; in a tunnel, where both
    /// sides were. Each event of the other side makes pingora ask anew, so time counts from there.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if self.response.is_none() {
            return Poll::Pending;
        }
        let Some(longest) = self.downstream().progress().silence_allowed() else {
            return Poll::Pending;
        };
        ready!(self.stall.poll(longest, cx));
        if self.tunnel {
            // Nobody's fault: an orderly end.
            self.tunnel_closed = true;
            return Poll::Ready(Ok(None));
        }
        Poll::Ready(Err(self.fault(Reason::UpstreamTimeout)))
    }

    /// Puts a head of an answer into the buffer.
    fn put_head(&mut self, response: Box<ResponseHeader>) -> Result<()> {
        let status = response.status.as_u16();
        let interim = response.status.is_informational() && status != 101;
        let answered = self.response.as_ref().is_some_and(|written| {
            !written.status.is_informational() || written.status.as_u16() == 101
        });
        if answered || interim && self.request.version == http::Version::HTTP_10 {
            // Interim answers came with HTTP/1.1; and there is one final answer.
            return Ok(());
        }
        if !interim {
            self.tunnel = self.terms.websocket && status == 101;
            self.framer = Framer::of(&self.request.method, &response, self.tunnel);
            // A client that has not sent its whole body yet may go on sending it for ever; and one that
            // asked for a tunnel may have sent what is no request.
            self.terms.keep_alive &= !self.terms.websocket
                && self.terms.body.is_done()
                && !self.framer.ends_with_connection()
                && !self.downstream().progress().closes();
        }
        let connection = match self.request.version {
            _ if interim || self.tunnel => None,
            _ if !self.terms.keep_alive => Some("close"),
            http::Version::HTTP_10 => Some("keep-alive"),
            _ => None,
        };
        let tunnel = self.tunnel;
        answer::put_head(self.downstream().gather(), &response, connection, tunnel);
        self.response = Some(response);
        Ok(())
    }

    /// Adds a piece of the answer's body.
    async fn put_body(&mut self, data: Option<Bytes>) -> Result<()> {
        let Some(data) = data.filter(|data| !data.is_empty()) else {
            return Ok(());
        };
        let Some(piece) = self.framer.piece(&data) else {
            return Ok(());
        };
        let downstream = self
            .downstream
            .as_mut()
            .expect("the connection is given back by Drop alone");
        if let Some(size) = piece.chunk_line {
            downstream.gather().extend_from_slice(size.as_bytes());
        }
        downstream.write(piece.payload).await.map_err(write_error)?;
        if piece.chunk_line.is_some() {
            downstream.gather().extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    /// Ends the answer's body and sends what is left of it.
    async fn end_answer(&mut self) -> Result<()> {
        let downstream = self
            .downstream
            .as_mut()
            .expect("the connection is given back by Drop alone");
        match self.framer.end() {
            Ok(end) => downstream.gather().extend_from_slice(end),
            Err(missing) => {
                self.terms.keep_alive = false;
                return Err(Error::explain(
                    ErrorType::ConnectionClosed,
                    format!("{missing} bytes of the answer are missing"),
                )
                .into_up());
            }
        }
        self.tunnel_closed |= self.tunnel;
        if downstream.has_gathered() {
            downstream.flush().await.map_err(write_error)?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.downstream().flush().await.map_err(write_error)
    }
}

fn write_error(error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut => ErrorType::WriteTimedout,
        _ => ErrorType::WriteError,
    };
    Error::because(kind, "writing to the client", error).into_down()
}

/// The head as pingora holds it, sharing the bytes of `bytes`.
fn request_header(head: &Head, bytes: &Bytes, websocket: bool) -> Result<RequestHeader> {
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = head.method.clone();
    parts.version = match head.version {
        Version::Http10 => http::Version::HTTP_10,
        _ => http::Version::HTTP_11,
    };
    // Origin form always: upstreams are origins, not proxies.
    let target = head.target(bytes);
    let held = PathAndQuery::from_maybe_shared(target.clone())
        .ok()
        .filter(|held| held.as_str().as_bytes() == target);
    let raw = held.is_none().then_some(target);
    if let Some(held) = held {
        parts.uri = Uri::from(held);
    }
    let mut headers = HeaderMap::with_capacity(head.field_count() + ADDED_HEADERS);
    for field in head.fields(bytes) {
        let name = HeaderName::from_bytes(field.name)
            .or_err(ErrorType::InvalidHTTPHeader, "a header's name")?;
        // Any Upgrade header makes pingora take the request for an upgrade. Without it, it is the plain
        // request that HTTP allows a server to make of it.
        if name == header::UPGRADE && !websocket {
            continue;
        }
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
            .or_err(ErrorType::InvalidHTTPHeader, "a header's value")?;
        headers.append(name, value);
    }
    if let Some(authority) = head.target_authority(bytes) {
        let value = HeaderValue::from_maybe_shared(authority)
            .or_err(ErrorType::InvalidHTTPHeader, "an authority")?;
        headers.insert(header::HOST, value);
    }
    parts.headers = headers;
    let mut request = RequestHeader::from(parts);
    if let Some(raw) = raw {
        request.set_raw_path(&raw)?;
    }
    Ok(request)
}

/// About how many headers the stages add for the upstream.
const ADDED_HEADERS: usize = 8;

impl Drop for Http1Session {
    fn drop(&mut self) {
        if let Some(downstream) = self.downstream.take() {
            let reusable = self.terms.keep_alive
                && self.terms.body.is_done()
                && !self.tunnel
                && self.framer.is_complete()
                && !downstream.has_gathered();
            self.home.put(Returned {
                downstream,
                reusable,
            });
        }
    }
}

#[async_trait]
impl CustomSession for Http1Session {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_body(cx)).await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        while self.read_body_bytes().await?.is_some() {}
        Ok(())
    }

    async fn write_response_header(
        &mut self,
        response: Box<ResponseHeader>,
        end: bool,
    ) -> Result<()> {
        self.put_head(response)?;
        if end {
            return self.end_answer().await;
        }
        self.flush().await
    }

    async fn write_response_header_ref(
        &mut self,
        response: &ResponseHeader,
        end: bool,
    ) -> Result<()> {
        self.write_response_header(Box::new(response.clone()), end)
            .await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.put_body(Some(data)).await?;
        if end {
            return self.end_answer().await;
        }
        self.flush().await
    }

    async fn write_trailers(&mut self, _trailers: HeaderMap) -> Result<()> {
        // As pingora's own session: HTTP/1 clients get none.
        Ok(())
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let (mut end, mut urgent) = (false, false);
        for task in tasks {
            end = match task {
                HttpTask::Header(response, end) => {
                    // The rest of an answer of known length follows at once, as a rule.
                    urgent |= !response.headers.contains_key(header::CONTENT_LENGTH);
                    self.put_head(response)?;
                    end
                }
                HttpTask::Body(data, end) | HttpTask::UpgradedBody(data, end) => {
                    urgent = true;
                    self.put_body(data).await?;
                    end
                }
                HttpTask::Trailer(_) | HttpTask::Done => true,
                HttpTask::Failed(error) => {
                    self.flush().await?;
                    return Err(error);
                }
            };
        }
        if end {
            self.end_answer().await?;
        } else if urgent {
            self.flush().await?;
        }
        Ok(end || self.framer.is_complete())
    }

    // Deadlines are the front's and the lane's: `Progress`, `Stall`.

    fn set_read_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_write_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_total_drain_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        None
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.request.method, self.request.uri.path())
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.response.as_deref()
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {
        self.terms.keep_alive = false;
    }

    fn is_body_done(&mut self) -> bool {
        self.body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.end_answer().await
    }

    fn is_body_empty(&mut self) -> bool {
        self.bodyless
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        self.stall.moved();
        std::future::poll_fn(|cx| self.poll_event(no_body_expected, cx)).await
    }

    fn body_bytes_sent(&self) -> usize {
        self.framer.sent()
    }

    fn body_bytes_read(&self) -> usize {
        usize::try_from(self.terms.body.payload()).unwrap_or(usize::MAX)
    }

    fn digest(&self) -> Option<&Digest> {
        None
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        self.request.header_to_h1_wire(&mut bytes);
        bytes.freeze()
    }

    fn enable_retry_buffering(&mut self) {
        self.retry.enable();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.retry.is_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.retry.bytes()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(
        &mut self,
        _writer: Box<dyn CustomMessageWrite>,
    ) -> Result<()> {
        Ok(())
    }

    fn is_upgrade_req(&self) -> bool {
        self.terms.websocket
    }

    fn was_upgraded(&self) -> bool {
        self.tunnel
    }
}

#[cfg(test)]
mod tests;
