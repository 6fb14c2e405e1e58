//! The client's side of an HTTP/1 connection: what was read and belongs to no message yet, what was
//! gathered and is not yet written, and the deadlines of both directions.
//!
//! The front reads heads from it; while a request is served, `lanes::general::session` reads the body
//! and writes the answer. Bytes after a message stay here for the next head.
//!
//! Invariant: no wait on the socket is without a bound. Reading a head or a body and writing are bounded
//! here or by the caller; waiting for the upstream ends with the deadline of [`Progress`].

use super::stall::Stall;
use crate::stages::forward::ResponseDress;
use bytes::{Buf, BytesMut};
use hub_core::Reason;
use parking_lot::Mutex;
use pingora::protocols::Stream;
use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How much one read takes from the socket at most, in bytes.
const READ_BYTES: usize = 16 * 1024;
/// How much of an answer is gathered before it is written, in bytes: a head and a small body leave
/// in one system call.
const GATHER_BYTES: usize = 16 * 1024;
/// How much of an answer usually suffices: the first allocation for it, in bytes.
const GATHER_FIRST_BYTES: usize = 2 * 1024;
/// How many bytes of requests to come are read ahead while one is served. Past it the client waits in
/// the kernel's buffers.
const STASH_BYTES_MAX: usize = 64 * 1024;
/// How long a client may take to read what it was told last, once nothing more is served to it.
const LINGER: Duration = Duration::from_secs(2);
/// How much of what it still sends is read and dropped meanwhile, in bytes.
const LINGER_BYTES_MAX: usize = 256 * 1024;
/// How much later than the upstream's own timeouts a [`Watchdog`] looks.
const WATCHDOG_SLACK: Duration = Duration::from_secs(1);

thread_local! {
    /// Reads land here first, so that a connection which waits for its next request owns no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// The timer behind a [`Progress`]'s deadline. Kept from request to request: deadlines only move later
/// as a rule, so most requests touch no timer at all.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    /// When the timer fires, which is at or before the deadline in force.
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// Facts about the request in progress that both the connection and the lane need. One per
/// connection, so a request allocates none.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// `Reason as u8 + 1` of the fault that the connection found; 0 for none.
    fault: AtomicU8,
    /// Milliseconds after `Downstream::epoch` at which the request fails with `deadline_reason`;
    /// 0 for never.
    deadline_ms: AtomicU64,
    deadline_reason: AtomicU8,
    /// Longest silence of the upstream in the middle of an answer, in milliseconds; 0 for any.
    quiet_ms: AtomicU32,
    /// The connection serves no request after this one.
    last: AtomicBool,
    /// How often pingora has asked the connection for anything; for [`Watchdog`].
    asked: AtomicU32,
    /// What the lane wants changed in the answer whose head is written next.
    dress: Mutex<Option<ResponseDress>>,
    /// Body payload bytes read of this request.
    pub(crate) bytes_in: AtomicU64,
}

/// Ends a request that nobody asks about any more. pingora-proxy looks neither at the client nor at any
/// deadline while the pipe to its upstream is full; and once writing there has failed, nothing empties
/// that pipe. Costs a comparison until the interval is over.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    timer: Option<Pin<Box<Sleep>>>,
    asked: u32,
}

/// A client's connection.
pub(crate) struct Downstream {
    inner: Stream,
    /// Read from the socket and not yet consumed.
    stash: BytesMut,
    /// Part of an answer that is not yet written.
    gathered: BytesMut,
    /// Something was written that the stream below may still hold: TLS and pingora's sockets buffer.
    unflushed: bool,
    progress: Arc<Progress>,
    epoch: Instant,
    deadline: Deadline,
    write_timeout: Duration,
    write_stall: Stall,
    peer_closed: bool,
    /// The client closed its side behind a request that was still to be read: it wants its answers.
    half_closed: bool,
}

// === impl Progress ===

impl Progress {
    /// The fault that the connection found in the request, if any.
    pub(crate) fn fault(&self) -> Option<Reason> {
        reason_of(self.fault.load(Ordering::Relaxed))
    }

    /// Notes why the request cannot go on.
    pub(crate) fn set_fault(&self, reason: Reason) {
        self.fault.store(reason as u8 + 1, Ordering::Relaxed);
    }

    /// The try that the fault ended is over, and the request goes on.
    pub(crate) fn clear_fault(&self) {
        self.fault.store(0, Ordering::Relaxed);
    }

    /// Forgets the request before.
    pub(crate) fn reset(&self) {
        self.fault.store(0, Ordering::Relaxed);
        self.quiet_ms.store(0, Ordering::Relaxed);
        self.last.store(false, Ordering::Relaxed);
        self.bytes_in.store(0, Ordering::Relaxed);
        *self.dress.lock() = None;
        self.disarm();
    }

    /// Sets what changes in the answer whose head is written next.
    pub(crate) fn set_dress(&self, dress: ResponseDress) {
        *self.dress.lock() = Some(dress);
    }

    /// What changes in the answer whose head is written now.
    pub(crate) fn take_dress(&self) -> ResponseDress {
        self.dress.lock().take().unwrap_or_default()
    }

    /// Makes the request fail with `reason` at `deadline`, unless moved or disarmed before.
    pub(crate) fn arm(&self, epoch: Instant, deadline: Instant, reason: Reason) {
        let after = deadline.saturating_duration_since(epoch).as_millis();
        self.deadline_reason
            .store(reason as u8 + 1, Ordering::Relaxed);
        self.deadline_ms.store(
            u64::try_from(after).unwrap_or(u64::MAX).max(1),
            Ordering::Relaxed,
        );
    }

    /// Lets the request take as long as it likes again.
    pub(crate) fn disarm(&self) {
        self.deadline_ms.store(0, Ordering::Relaxed);
    }

    /// Sets how long the upstream may be silent in the middle of an answer.
    pub(crate) fn allow_silence(&self, longest: Duration) {
        let ms = u32::try_from(longest.as_millis()).unwrap_or(u32::MAX);
        self.quiet_ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn silence_allowed(&self) -> Option<Duration> {
        let ms = self.quiet_ms.load(Ordering::Relaxed);
        (ms > 0).then(|| Duration::from_millis(u64::from(ms)))
    }

    /// pingora asks the connection for something.
    pub(crate) fn asked(&self) {
        // One task alone does; no need for a locked addition.
        let asked = self.asked.load(Ordering::Relaxed);
        self.asked.store(asked.wrapping_add(1), Ordering::Relaxed);
    }

    /// Closes the connection after this request's answer.
    pub(crate) fn close_after(&self) {
        self.last.store(true, Ordering::Relaxed);
    }

    /// True where [`close_after`](Self::close_after) was called for this request.
    pub(crate) fn closes(&self) -> bool {
        self.last.load(Ordering::Relaxed)
    }
}

fn reason_of(code: u8) -> Option<Reason> {
    let index = code.checked_sub(1)?;
    Reason::ALL.get(usize::from(index)).copied()
}

// === impl Watchdog ===

impl Watchdog {
    /// Ready where the connection was asked for nothing in a whole interval. To be polled after what
    /// does the asking.
    pub(crate) fn poll(&mut self, progress: &Progress, cx: &mut Context<'_>) -> Poll<()> {
        // Before there is an upstream, connecting has its own bound.
        let Some(interval) = progress.silence_allowed() else {
            return Poll::Pending;
        };
        loop {
            match &mut self.timer {
                // It knows the connection's task already, and wakes it when the time has come.
                Some(timer) if !timer.is_elapsed() => return Poll::Pending,
                Some(_) => {}
                None => {
                    self.asked = progress.asked.load(Ordering::Relaxed);
                    let mut timer = Box::pin(tokio::time::sleep(interval + WATCHDOG_SLACK));
                    let fired = timer.as_mut().poll(cx);
                    self.timer = Some(timer);
                    ready!(fired);
                }
            }
            self.timer = None;
            if progress.asked.load(Ordering::Relaxed) == self.asked {
                return Poll::Ready(());
            }
        }
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
        let after = progress.deadline_ms.load(Ordering::Relaxed);
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
        Poll::Ready(reason_of(code).unwrap_or(Reason::Internal))
    }
}

// === impl Downstream ===

impl Downstream {
    pub(crate) fn new(
        inner: Stream,
        unread: &[u8],
        epoch: Instant,
        write_timeout: Duration,
    ) -> Self {
        Self {
            inner,
            stash: BytesMut::from(unread),
            gathered: BytesMut::new(),
            unflushed: false,
            progress: Arc::default(),
            epoch,
            deadline: Deadline::default(),
            write_timeout,
            write_stall: Stall::default(),
            peer_closed: false,
            half_closed: false,
        }
    }

    /// How long the client may take nothing of what is written to it.
    pub(crate) fn set_write_timeout(&mut self, longest: Duration) {
        self.write_timeout = longest;
    }

    /// What was read from the socket and belongs to no message yet.
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

    /// The client has closed its side of the connection.
    pub(crate) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Reads once from the socket into the stash; `Ok(0)` means that the client is gone. While it
    /// waits, the connection holds no read buffer.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Waits for the first bytes of the next head until `until`. False where there will be none.
    pub(crate) async fn await_head(&mut self, until: Instant) -> bool {
        self.progress.arm(self.epoch, until, Reason::HeadTimeout);
        let filled = std::future::poll_fn(|cx| {
            if let Poll::Ready(filled) = self.poll_fill(cx) {
                return Poll::Ready(matches!(filled, Ok(1..)));
            }
            self.poll_deadline(cx).map(|_| false)
        })
        .await;
        self.progress.disarm();
        filled
    }

    /// As [`fill`](Self::fill).
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
            let count = buf.filled().len();
            self.peer_closed |= count == 0;
            self.stash.extend_from_slice(buf.filled());
            Poll::Ready(Ok(count))
        })
    }

    /// As [`fill`](Self::fill), without a copy and with a buffer of the connection's own: for bodies,
    /// whose bytes go on as they are.
    pub(crate) fn poll_fill_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.stash.reserve(READ_BYTES);
        let count = ready!(pin!(self.inner.read_buf(&mut self.stash)).poll(cx))?;
        self.peer_closed |= count == 0;
        Poll::Ready(Ok(count))
    }

    /// While a request is served whose message is complete: reads ahead, and is ready once the client
    /// has gone.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.half_closed {
            return Poll::Pending;
        }
        // What is read at a time fits, too.
        while !self.peer_closed && self.stash.len() + READ_BYTES <= STASH_BYTES_MAX {
            if ready!(self.poll_fill(cx)).is_err() {
                return Poll::Ready(());
            }
        }
        // A client that has sent its next request and closed its sending side still wants both
        // answers. That it is gone altogether shows when they are written.
        self.half_closed = self.peer_closed && !self.stash.is_empty();
        if self.peer_closed && !self.half_closed {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Ready with the reason once the deadline that is armed has passed.
    pub(crate) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        self.deadline.poll(&self.progress, self.epoch, cx)
    }

    /// Back to reading heads; gives buffers back.
    pub(crate) fn end_request(&mut self) {
        if self.stash.is_empty() {
            self.gathered = BytesMut::new();
            self.stash = BytesMut::new();
        }
    }

    /// The buffer in which the next part of an answer is put together.
    pub(crate) fn gather(&mut self) -> &mut BytesMut {
        if self.gathered.capacity() == 0 {
            self.gathered.reserve(GATHER_FIRST_BYTES);
        }
        &mut self.gathered
    }

    /// True where part of an answer waits for [`flush`](Self::poll_flush), here or further down.
    pub(crate) fn needs_flush(&self) -> bool {
        self.unflushed || !self.gathered.is_empty()
    }

    /// Adds `bytes` to the answer. Large pieces are written at once, small ones with the next flush.
    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if bytes.len() + self.gathered.len() <= GATHER_BYTES {
            self.gather().extend_from_slice(bytes);
            return Ok(());
        }
        std::future::poll_fn(|cx| self.poll_written(cx)).await?;
        std::future::poll_fn(|cx| {
            while !bytes.is_empty() {
                let count = ready!(self.poll_write_some(cx, bytes))?;
                bytes = &bytes[count..];
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Writes what was gathered.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// As [`flush`](Self::flush).
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_written(cx))?;
        match Pin::new(&mut self.inner).poll_flush(cx) {
            Poll::Ready(flushed) => {
                self.unflushed &= flushed.is_err();
                self.write_stall.moved();
                Poll::Ready(flushed)
            }
            Poll::Pending => self.stalled(cx).map(Err),
        }
    }

    /// Writes all of `bytes` and flushes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes).await?;
        self.flush().await
    }

    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            let written = self.poll_write_some(cx, &gathered);
            self.gathered = gathered;
            self.gathered.advance(ready!(written)?);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes some of `bytes`; fails where the client took none of it for the listener's
    /// `write_timeout_ms`.
    fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.inner).poll_write(cx, bytes) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(written) => {
                self.unflushed = true;
                self.write_stall.moved();
                Poll::Ready(written)
            }
            Poll::Pending => self.stalled(cx).map(Err),
        }
    }

    /// The socket takes nothing: ready where that has lasted too long, or the request's own deadline has
    /// passed, for which nobody else looks meanwhile.
    fn stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.progress.asked();
        if let Poll::Ready(reason) = self.poll_deadline(cx) {
            self.progress.set_fault(reason);
            return Poll::Ready(io::ErrorKind::TimedOut.into());
        }
        self.write_stall
            .poll(self.write_timeout, cx)
            .map(|()| io::ErrorKind::TimedOut.into())
    }

    /// Hands the bare stream to whoever speaks another protocol from here on.
    pub(crate) fn into_stream(self) -> (Stream, BytesMut) {
        (self.inner, self.stash)
    }

    /// Ends the connection so that the client can still read the last answer: shuts the sending side
    /// down, then reads and drops what is under way for a bounded time and amount. Closing at once
    /// with unread bytes would make the kernel send RST, which can destroy the answer.
    pub(crate) async fn linger(mut self) {
        let mut left = LINGER_BYTES_MAX;
        let drained = async {
            self.inner.shutdown().await;
            while !self.peer_closed {
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
        let _in_time = tokio::time::timeout(LINGER, drained).await;
    }
}

impl std::fmt::Debug for Downstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Downstream")
            .field("stash", &self.stash.len())
            .field("gathered", &self.gathered.len())
            .finish_non_exhaustive()
    }
}
