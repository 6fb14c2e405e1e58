//! The client's side of an HTTP/1 connection, between our front and pingora's session code.
//!
//! The front reads heads from it. While pingora owns a request, the same object gates what pingora
//! can read: exactly the bytes of this request's body, each checked against the strict framing rules
//! before pingora sees it. Bytes after the message stay here for the next head, so pipelined
//! requests never skip the strict parser.

use super::body::MessageBody;
use super::stall::Stall;
use super::wrap::delegate_io;
use bytes::{Buf, BytesMut};
use hub_core::Reason;
use parking_lot::Mutex;
use pingora::protocols::Stream;
use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much one read takes from the socket at most, in bytes.
const READ_BYTES: usize = 16 * 1024;
/// How much of an answer is gathered before it is written, in bytes: a head and a small body leave
/// in one system call.
const GATHER_BYTES: usize = 16 * 1024;
/// How many bytes of requests to come an idle peek may hold, in bytes. Past it the client waits in
/// the kernel's buffers.
const STASH_BYTES_MAX: usize = 64 * 1024;

/// How long a client may take nothing, until the listener's setting is known.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

thread_local! {
    /// Reads land here first, so that a connection which waits for its next request owns no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// What the client may send, and pingora may see, at the moment.
#[derive(Debug)]
enum Gate {
    /// Between requests: the front reads heads.
    Head,
    /// A request's body, up to its last byte.
    Body(MessageBody),
    /// The request is complete; what comes next is another one.
    Done,
    /// After an upgrade: everything passes.
    Tunnel,
}

/// The timer behind a [`Progress`]'s deadline. Kept from request to request: deadlines only move later
/// as a rule, so most requests touch no timer at all.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    /// When the timer fires, which is at or before the deadline in force.
    timer: Option<(Instant, Pin<Box<tokio::time::Sleep>>)>,
}

/// Facts about the request in progress that both the stream and the lane need. One per connection,
/// so a request allocates none.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// `Reason as u8 + 1` of the fault that the stream found; 0 for none.
    fault: AtomicU8,
    /// Milliseconds after `Downstream::epoch` at which the stream fails with `deadline_reason`;
    /// 0 for never.
    deadline_ms: AtomicU64,
    deadline_reason: AtomicU8,
    /// Body payload bytes read of this request.
    pub(crate) bytes_in: AtomicU64,
    /// The socket of a connection that ended before its request was read, for [`Downstream::linger`].
    unread: Mutex<Option<Stream>>,
}

/// The socket, until it is taken from a [`Downstream`] that ends.
#[derive(Debug)]
struct Socket(Option<Stream>);

/// A client's connection as pingora sees it. Implements pingora's `IO`.
pub(crate) struct Downstream {
    inner: Socket,
    /// Read from the socket and not yet consumed.
    stash: BytesMut,
    /// Accepted from pingora and not yet written.
    gathered: BytesMut,
    gate: Gate,
    progress: Arc<Progress>,
    epoch: Instant,
    deadline: Deadline,
    stall: Stall,
    peer_closed: bool,
    /// The client closed its sending side behind requests that are still to be answered.
    half_closed: bool,
}

/// The error with which the stream stops a request: it names the row of the refusal table.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{}", .0.code())]
pub(crate) struct StreamFault(pub(crate) Reason);

// === impl Progress ===

impl Progress {
    /// The fault that the stream found in the request, if any.
    pub(crate) fn fault(&self) -> Option<Reason> {
        let code = self.fault.load(Ordering::Acquire);
        code.checked_sub(1)
            .and_then(|index| Reason::ALL.get(usize::from(index)))
            .copied()
    }

    /// Notes why the request cannot go on.
    pub(crate) fn set_fault(&self, reason: Reason) {
        self.fault.store(reason_code(reason), Ordering::Release);
    }

    fn reset(&self) {
        self.fault.store(0, Ordering::Release);
        self.disarm();
        self.bytes_in.store(0, Ordering::Relaxed);
    }

    /// Makes the stream fail with `reason` at `deadline`, unless moved or disarmed before.
    pub(crate) fn arm(&self, epoch: Instant, deadline: Instant, reason: Reason) {
        let after = deadline.saturating_duration_since(epoch).as_millis();
        self.deadline_reason
            .store(reason_code(reason), Ordering::Relaxed);
        self.deadline_ms.store(
            u64::try_from(after).unwrap_or(u64::MAX).max(1),
            Ordering::Release,
        );
    }

    /// Lets the request take as long as it likes again.
    pub(crate) fn disarm(&self) {
        self.deadline_ms.store(0, Ordering::Release);
    }
}

// === impl Deadline ===

impl Deadline {
    /// Ready with the reason once the deadline that is armed in `progress`, if any, has passed.
    pub(crate) fn poll(
        &mut self,
        progress: &Progress,
        epoch: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Reason> {
        let after = progress.deadline_ms.load(Ordering::Acquire);
        if after == 0 {
            return Poll::Pending;
        }
        let at = epoch + Duration::from_millis(after);
        let (fires, timer) = self
            .timer
            .get_or_insert_with(|| (at, Box::pin(tokio::time::sleep_until(at.into()))));
        if *fires > at {
            timer.as_mut().reset(at.into());
            *fires = at;
        }
        ready!(timer.as_mut().poll(cx));
        while *fires < at {
            // It fired for an earlier deadline that was disarmed or moved.
            timer.as_mut().reset(at.into());
            *fires = at;
            ready!(timer.as_mut().poll(cx));
        }
        self.timer = None;
        progress.disarm();
        let code = progress.deadline_reason.load(Ordering::Relaxed);
        Poll::Ready(Reason::ALL[usize::from(code.saturating_sub(1))])
    }
}

fn reason_code(reason: Reason) -> u8 {
    let index = Reason::ALL
        .iter()
        .position(|r| *r == reason)
        .expect("ALL holds every reason");
    u8::try_from(index + 1).expect("the table has far fewer than 255 rows")
}

// === impl Socket ===

impl Socket {
    fn take(&mut self) -> Stream {
        self.0.take().expect("a socket is taken once, at the end")
    }
}

impl Deref for Socket {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        self.0.as_ref().expect("the socket is there until the end")
    }
}

impl DerefMut for Socket {
    fn deref_mut(&mut self) -> &mut Stream {
        self.0.as_mut().expect("the socket is there until the end")
    }
}

// === impl Downstream ===

impl Downstream {
    pub(crate) fn new(inner: Stream, unread: &[u8], epoch: Instant) -> Self {
        Self {
            inner: Socket(Some(inner)),
            stash: BytesMut::from(unread),
            gathered: BytesMut::new(),
            gate: Gate::Head,
            progress: Arc::default(),
            epoch,
            deadline: Deadline::default(),
            stall: Stall::new(WRITE_TIMEOUT),
            peer_closed: false,
            half_closed: false,
        }
    }

    /// What was read from the socket and belongs to no request yet.
    pub(crate) fn stash(&self) -> &BytesMut {
        &self.stash
    }

    /// Takes the first `count` bytes of the stash.
    pub(crate) fn take(&mut self, count: usize) -> BytesMut {
        if count == self.stash.len() {
            std::mem::take(&mut self.stash)
        } else {
            self.stash.split_to(count)
        }
    }

    /// Drops the first `count` bytes of the stash.
    pub(crate) fn discard(&mut self, count: usize) {
        self.stash.advance(count);
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Reads once from the socket into the stash; `Ok(0)` means that the client is gone. While it
    /// waits, the connection holds no read buffer.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx)).await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *self.inner).poll_read(cx, &mut buf))?;
            self.stash.extend_from_slice(buf.filled());
            Poll::Ready(Ok(buf.filled().len()))
        })
    }

    /// Opens the gate for one request's body.
    pub(crate) fn begin_body(&mut self, body: MessageBody) {
        self.progress.reset();
        self.gate = Gate::Body(body);
    }

    /// Opens the gate for a request without a body.
    pub(crate) fn begin_empty(&mut self) {
        self.progress.reset();
        self.gate = Gate::Done;
    }

    /// Opens the gate for a request that may become a tunnel. A client that sends before the upstream
    /// has answered 101 is refused by pingora; none of it reaches the upstream.
    pub(crate) fn begin_tunnel(&mut self) {
        self.progress.reset();
        self.gate = Gate::Tunnel;
    }

    /// True where the request's message was read to its end, so that the next head can follow.
    pub(crate) fn message_complete(&self) -> bool {
        match &self.gate {
            Gate::Head | Gate::Done => true,
            Gate::Body(body) => body.is_done(),
            Gate::Tunnel => false,
        }
    }

    /// Back to reading heads; gives buffers back.
    pub(crate) fn end_request(&mut self) {
        self.gate = Gate::Head;
        self.gathered = BytesMut::new();
        if self.stash.is_empty() {
            self.stash = BytesMut::new();
        }
    }

    /// Writes all of `bytes` and flushes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        use tokio::io::AsyncWriteExt;
        self.write_all(bytes).await?;
        self.flush().await
    }

    /// Hands the bare stream to whoever speaks another protocol from here on.
    pub(crate) fn into_stream(mut self) -> (Stream, BytesMut) {
        (self.inner.take(), std::mem::take(&mut self.stash))
    }

    /// Takes back the socket of a connection that pingora has dropped before its request was read.
    pub(crate) fn take_unread(progress: &Arc<Progress>, epoch: Instant) -> Option<Self> {
        let socket = progress.unread.lock().take()?;
        Some(Self::new(socket, &[], epoch))
    }

    /// Ends the connection so that the client can still read the last answer: shuts the sending side
    /// down, then reads and drops what is under way for a bounded time and amount. Closing at once
    /// with unread bytes would make the kernel send RST, which can destroy the answer.
    pub(crate) async fn linger(mut self, longest: Duration, bytes_max: usize) {
        use tokio::io::AsyncWriteExt;
        let mut left = bytes_max;
        let drained = async {
            // A client that is gone needs no closing.
            let _gone = self.shutdown().await;
            loop {
                self.stash.clear();
                match self.fill().await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => match left.checked_sub(count) {
                        Some(rest) => left = rest,
                        None => return,
                    },
                }
            }
        };
        // Running out of time is one of the two ordinary ends.
        let _in_time = tokio::time::timeout(longest, drained).await;
    }

    /// How long the client may take nothing of what is written to it.
    pub(crate) fn set_write_timeout(&mut self, longest: Duration) {
        self.stall.set_longest(longest);
    }

    fn fail(&self, reason: Reason) -> io::Error {
        self.progress.set_fault(reason);
        io::Error::new(io::ErrorKind::InvalidData, StreamFault(reason))
    }

    /// Passes body bytes from the stash through the gate into `buf`.
    fn deliver(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let Gate::Body(body) = &mut self.gate else {
            return Ok(());
        };
        let count = buf.remaining().min(self.stash.len());
        match body.advance(&self.stash[..count]) {
            Ok(step) => {
                self.progress
                    .bytes_in
                    .store(body.payload(), Ordering::Relaxed);
                buf.put_slice(&self.stash[..step.consumed]);
                self.stash.advance(step.consumed);
                Ok(())
            }
            Err(reason) => Err(self.fail(reason)),
        }
    }

    /// Waits for the client to go, or for its next request, which is kept for later.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.half_closed {
            return Poll::Pending;
        }
        if self.peer_closed {
            return Poll::Ready(Ok(()));
        }
        while self.stash.len() < STASH_BYTES_MAX {
            if ready!(self.poll_fill(cx))? == 0 {
                self.peer_closed = true;
                // A client that has sent its next request and closed its sending side still wants
                // both answers. Whether it is there to read them, writing will tell.
                self.half_closed = !self.stash.is_empty();
                return if self.half_closed {
                    Poll::Pending
                } else {
                    Poll::Ready(Ok(()))
                };
            }
        }
        Poll::Pending
    }
}

impl std::fmt::Debug for Downstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Downstream")
            .field("stash", &self.stash.len())
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

delegate_io!(Downstream);

impl AsyncRead for Downstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(reason) = this.deadline.poll(&this.progress, this.epoch, cx) {
            return Poll::Ready(Err(this.fail(reason)));
        }
        // pingora reads when it has nothing to write at the moment, so what was gathered should go: a
        // head must not wait for a body that is slow to come.
        if !this.gathered.is_empty()
            && let Poll::Ready(Err(error)) = this.poll_gathered(cx)
        {
            return Poll::Ready(Err(error));
        }
        match &mut this.gate {
            Gate::Head | Gate::Done => this.poll_idle(cx),
            Gate::Tunnel => {
                if this.stash.is_empty() {
                    return Pin::new(&mut *this.inner).poll_read(cx, buf);
                }
                let count = buf.remaining().min(this.stash.len());
                buf.put_slice(&this.stash[..count]);
                this.stash.advance(count);
                Poll::Ready(Ok(()))
            }
            Gate::Body(body) if body.is_done() => this.poll_idle(cx),
            Gate::Body(_) => {
                if this.stash.is_empty() && ready!(this.poll_fill(cx))? == 0 {
                    this.peer_closed = true;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(this.deliver(buf))
            }
        }
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.gathered.len() + buf.len() > GATHER_BYTES {
            ready!(this.poll_gathered(cx))?;
        }
        if buf.len() > GATHER_BYTES {
            let written = Pin::new(&mut *this.inner).poll_write(cx, buf);
            let written = ready!(this.watch(written, cx))?;
            return Poll::Ready(Ok(written));
        }
        this.gathered.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_gathered(cx))?;
        let flushed = Pin::new(&mut *self.inner).poll_flush(cx);
        self.watch(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_gathered(cx))?;
        let shut = Pin::new(&mut *self.inner).poll_shutdown(cx);
        self.watch(shut, cx)
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        // pingora drops the stream when it has answered before the request was read. Who lent it the
        // stream then lingers on the socket.
        if matches!(&self.gate, Gate::Body(body) if !body.is_done()) && !self.peer_closed {
            *self.progress.unread.lock() = Some(self.inner.take());
        }
    }
}

impl Downstream {
    /// Passes on how writing to the socket went; fails where the client has taken nothing for too
    /// long, or the request's own deadline has passed, for which nobody else looks meanwhile.
    fn watch<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        let written = self.stall.watch(written, cx);
        if written.is_pending()
            && let Poll::Ready(reason) = self.deadline.poll(&self.progress, self.epoch, cx)
        {
            return Poll::Ready(Err(self.fail(reason)));
        }
        written
    }

    fn poll_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = Pin::new(&mut *self.inner).poll_write(cx, &self.gathered);
            let written = ready!(self.watch(written, cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}
