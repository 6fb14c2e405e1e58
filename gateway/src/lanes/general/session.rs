//! An HTTP/1 request and its answer as pingora-proxy sees them: our own downstream session.
//!
//! pingora's session would parse the head a second time, by other rules; keep names in a second map
//! for their case; and own the connection while it does. This one is made from the head that the
//! front has checked. It reads the body through [`MessageBody`], so pingora gets payload and never
//! framing, and writes the answer in as few system calls as it can.
//!
//! Invariant: a connection comes back to the front ([`Home`]) however the request ended, and as
//! reusable only if both messages were complete.

pub(crate) mod answer;
mod home;
mod pingora;
mod retry;

pub(crate) use home::{Home, Returned};

use crate::front::body::MessageBody;
use crate::front::downstream::Downstream;
use crate::front::head::Head;
use crate::front::stall::Stall;
use crate::lanes::general::request::request_line;
use crate::stages::forward::ResponseDress;
use ::pingora::http::{RequestHeader, ResponseHeader};
use ::pingora::{Error, ErrorType, OrErr, Result};
use answer::Framer;
use bytes::Bytes;
use hub_core::Reason;
use retry::RetryBuffer;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// What the front knows of a request beside its head.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) body: MessageBody,
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
    stall: Stall,
    retry: RetryBuffer,
    response: Option<Box<ResponseHeader>>,
    framer: Framer,
    /// A piece of the answer has left the framer and is not safely on its way.
    writing: bool,
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
        Ok(Self {
            downstream: Some(downstream),
            home,
            request: request_line(head, bytes)?,
            stall: Stall::default(),
            retry: RetryBuffer::default(),
            response: None,
            framer: Framer::default(),
            writing: false,
            terms,
        })
    }

    fn downstream(&mut self) -> &mut Downstream {
        self.downstream
            .as_mut()
            .expect("the connection is given back by Drop alone")
    }

    fn body_done(&self) -> bool {
        self.terms.body.is_done()
    }

    fn fault(&mut self, reason: Reason) -> Box<Error> {
        self.downstream().progress().set_fault(reason);
        Error::explain(ErrorType::ReadError, reason.code()).into_down()
    }

    /// The next piece of the body; `None` at its end.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            if self.body_done() {
                return Poll::Ready(Ok(None));
            }
            if self.downstream().stash().is_empty()
                && (self.downstream().peer_closed() || ready!(self.poll_more(cx))? == 0)
            {
                let error =
                    Error::explain(ErrorType::ConnectionClosed, "the client left in its body");
                return Poll::Ready(Err(error.into_down()));
            }
            let downstream = self
                .downstream
                .as_mut()
                .expect("the connection is given back by Drop alone");
            let (framing, payload) = match self.terms.body.next_payload(downstream.stash()) {
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
            Poll::Pending => {
                ready!(self.stall.poll(self.terms.body_timeout, cx));
                Poll::Ready(Err(self.fault(Reason::BodyTimeout)))
            }
        }
    }

    /// [`poll_body`](Self::poll_body), or with a complete body the wait for the end of the request: ready
    /// only where something ends it early.
    fn poll_event(
        &mut self,
        no_body_expected: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>>> {
        self.downstream().progress().asked();
        if let Poll::Ready(reason) = self.downstream().poll_deadline(cx) {
            return Poll::Ready(Err(self.fault(reason)));
        }
        // pingora reads when it has nothing to write at the moment, so what was gathered should go: a
        // head must not wait for a body that is slow to come.
        if self.downstream().needs_flush()
            && let Poll::Ready(Err(error)) = self.downstream().poll_flush(cx)
        {
            return Poll::Ready(Err(write_error(error)));
        }
        if self.framer.is_complete() && !self.body_done() {
            // The origin has said all it will; the rest of the body is the front's to drop.
            let error = Error::explain(
                ErrorType::ConnectionClosed,
                "answered before the body's end",
            );
            return Poll::Ready(Err(error.into_down()));
        }
        if !no_body_expected && !self.body_done() {
            return self.poll_body(cx);
        } else if self.downstream().poll_gone(cx).is_ready() {
            let error = Error::explain(ErrorType::ConnectionClosed, "the client left");
            return Poll::Ready(Err(error.into_down()));
        }
        self.poll_silence(cx)
    }

    /// Ready where an answer has begun and its upstream was silent for too long. Each event of the other side makes pingora ask anew, so time counts from there.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if self.response.is_none() {
            return Poll::Pending;
        }
        let Some(longest) = self.downstream().progress().silence_allowed() else {
            return Poll::Pending;
        };
        ready!(self.stall.poll(longest, cx));
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
            self.framer = Framer::of(&self.request.method, &response);
            // A client that has not sent its whole body yet may go on sending it for ever.
            self.terms.keep_alive &= self.terms.body.is_done()
                && !self.framer.ends_with_connection()
                && !self.downstream().progress().closes();
        }
        let connection = match self.request.version {
            _ if interim => None,
            _ if !self.terms.keep_alive => Some("close"),
            http::Version::HTTP_10 => Some("keep-alive"),
            _ => None,
        };
        let downstream = self.downstream();
        let dress = if interim {
            ResponseDress::default()
        } else {
            downstream.progress().take_dress()
        };
        answer::put_head(downstream.gather(), &response, &dress, connection, false);
        self.response = Some(response);
        Ok(())
    }

    /// Adds a piece of the answer's body.
    async fn put_body(&mut self, data: Option<Bytes>) -> Result<()> {
        let Some(data) = data.filter(|data| !data.is_empty()) else {
            return Ok(());
        };
        self.writing = true;
        let Some(piece) = self.framer.piece(&data) else {
            self.writing = false;
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
        self.writing = false;
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
        if downstream.needs_flush() {
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

impl Drop for Http1Session {
    fn drop(&mut self) {
        if let Some(downstream) = self.downstream.take() {
            let reusable = self.terms.keep_alive
                && self.terms.body.is_done()
                && self.framer.is_complete()
                && !self.writing
                && !downstream.needs_flush();
            self.home.put(Returned {
                downstream,
                reusable,
            });
        }
    }
}

#[cfg(test)]
mod tests;
