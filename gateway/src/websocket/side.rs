//! One socket of a session: what it says, and what it has not taken yet.

use super::frame::{Control, ControlOpcode, Walker};
use super::pace::Pace;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read at a time.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Whether a side was asked if it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    No,
    /// The Ping waits for its place.
    Queued,
    /// It was sent then.
    Sent(Instant),
}

/// One socket of a session.
#[derive(Debug)]
pub(super) struct Side<S> {
    socket: S,
    /// Its frames are masked, so ours to it are not; and the other way round.
    sends_masked: bool,
    /// Through what it sends.
    pub(super) walker: Walker,
    /// Read from it, and too little to know what it is: the beginning of a head or of a control frame.
    tail: Vec<u8>,
    /// The tail has not been looked at: it came behind the handshake, or has to wait.
    early: bool,
    /// What it is to get and did not take yet, from `rest_at` on.
    rest: Vec<u8>,
    rest_at: usize,
    /// Frames of our own for it, which wait for the end of the frame under way.
    own: Vec<u8>,
    unflushed: bool,
    /// Since when it takes nothing.
    pub(super) stuck: Option<Instant>,
    /// It has sent Close with this code.
    pub(super) closed: Option<u16>,
    /// Among our own frames is a Close.
    own_closes: bool,
    /// It has had its Close, or none can be told it any more: nothing else goes to it.
    pub(super) shut: bool,
    /// What it was sent stops in the middle of a frame: the end of the connection is all that can tell it.
    pub(super) cut_off: bool,
    /// It was told that nothing more follows.
    finished: bool,
    /// Bytes from it that nobody took.
    pub(super) lost: usize,
    /// Nothing more comes from it, or is wanted.
    pub(super) ended: bool,
    /// It broke the protocol: what still comes means nothing.
    pub(super) broken: bool,
    /// It takes nothing more.
    pub(super) gone: bool,
    /// When something came from it last.
    pub(super) heard: Instant,
    /// Whether it was asked since if it is there.
    pub(super) asked: Asked,
    pub(super) pace: Pace,
    /// Messages and payload bytes, heads of frames included, that came from it.
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Side<S> {
    /// `early` was read behind the handshake.
    pub(super) fn new(
        socket: S,
        sends_masked: bool,
        early: Vec<u8>,
        pace: Pace,
        now: Instant,
    ) -> Self {
        Self {
            socket,
            sends_masked,
            walker: Walker::default(),
            early: !early.is_empty(),
            tail: early,
            rest: Vec::new(),
            rest_at: 0,
            own: Vec::new(),
            unflushed: false,
            stuck: None,
            closed: None,
            own_closes: false,
            shut: false,
            cut_off: false,
            finished: false,
            lost: 0,
            ended: false,
            broken: false,
            gone: false,
            heard: now,
            asked: Asked::No,
            pace,
            messages: 0,
            bytes: 0,
        }
    }

    /// Reads into `scratch`, behind what was too little before. How many bytes of it are filled; `None` at
    /// the end of what comes.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Option<usize>> {
        let held = self.tail.len().min(scratch.len());
        let mut count = held;
        if !self.early {
            let mut buffer = ReadBuf::new(&mut scratch[held..]);
            let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer));
            count += buffer.filled().len();
            if read.is_err() || count == held {
                self.ended = true;
                return Poll::Ready(None);
            }
        }
        scratch[..held].copy_from_slice(&self.tail[..held]);
        self.tail = self.tail.split_off(held);
        self.early = !self.tail.is_empty();
        Poll::Ready(Some(count))
    }

    /// Keeps what was too little.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.tail.splice(..0, bytes.iter().copied());
    }

    /// Keeps what has to wait, to be looked at before anything else is read.
    pub(super) fn keep_back(&mut self, bytes: &[u8]) {
        self.keep(bytes);
        self.early = !self.tail.is_empty();
    }

    /// Sends what came from the other side.
    pub(super) fn send(&mut self, bytes: &[u8], now: Instant, cx: &mut Context<'_>) {
        if self.gone || self.shut || bytes.is_empty() {
            return;
        }
        let mut sent = 0;
        while self.rest.is_empty() && sent < bytes.len() {
            match Pin::new(&mut self.socket).poll_write(cx, &bytes[sent..]) {
                Poll::Ready(Ok(count @ 1..)) => {
                    sent += count;
                    self.unflushed = true;
                    self.stuck = None;
                }
                Poll::Ready(_) => {
                    self.gone = true;
                    return;
                }
                Poll::Pending => {
                    self.stuck.get_or_insert(now);
                    break;
                }
            }
        }
        self.rest.extend_from_slice(&bytes[sent..]);
    }

    /// Queues a frame of our own. It goes out between two frames of the other side: see
    /// [`Side::release_own`].
    pub(super) fn say(&mut self, control: &Control) {
        if self.shut || self.own_closes {
            return;
        }
        self.own_closes = control.opcode == ControlOpcode::Close;
        // Who sends masked frames gets ours unmasked.
        let mask = (!self.sends_masked).then(rand::random);
        control.write(mask, &mut self.own);
    }

    /// Frames of our own wait for their place.
    pub(super) fn has_own(&self) -> bool {
        !self.own.is_empty()
    }

    /// The other side is between two frames: what was queued may go out. True where something was.
    pub(super) fn release_own(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let own = std::mem::take(&mut self.own);
        if self.asked == Asked::Queued {
            self.asked = Asked::Sent(now);
        }
        self.send(&own, now, cx);
        self.shut |= std::mem::take(&mut self.own_closes);
        !own.is_empty()
    }

    /// Writes what is left. Ready once nothing is.
    pub(super) fn poll_written(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        while !self.gone && self.rest_at < self.rest.len() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.rest[self.rest_at..]) {
                Poll::Ready(Ok(count @ 1..)) => {
                    self.rest_at += count;
                    self.unflushed = true;
                    self.stuck = None;
                }
                Poll::Ready(_) => self.gone = true,
                Poll::Pending => {
                    self.stuck.get_or_insert(now);
                    return Poll::Pending;
                }
            }
        }
        // Gone, so that a session which waits owns none.
        self.rest = Vec::new();
        self.rest_at = 0;
        if self.unflushed && !self.gone {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => self.gone = true,
                Poll::Pending => {
                    self.stuck.get_or_insert(now);
                    return Poll::Pending;
                }
            }
        }
        self.stuck = None;
        Poll::Ready(())
    }

    /// Ends our half of its connection where nothing more is expected of it. To be called once all is written. A
    /// client leaves the end to the server (RFC 6455, section 7.1.1), and would wait for as long as the other
    /// side.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>) {
        let is_last = self.cut_off || self.shut && (self.closed.is_some() || self.broken);
        if is_last && !self.finished && !self.gone {
            self.finished = self.poll_shutdown(cx).is_ready();
        }
    }

    /// Says that nothing more follows.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// It has said all that it will say.
    pub(super) fn is_done(&self) -> bool {
        self.closed.is_some() || self.ended
    }

    /// It stopped in the middle of a frame, and will not go on.
    pub(super) fn breaks_off(&self) -> bool {
        (self.broken || self.ended) && !self.walker.is_between_frames()
    }

    /// Nothing goes to it any more.
    pub(super) fn takes_nothing(&self) -> bool {
        self.shut || self.gone
    }

    /// There is nothing left to wait for from it, nor to tell it.
    pub(super) fn is_over(&self) -> bool {
        self.gone || self.is_done() && self.own.is_empty()
    }
}
