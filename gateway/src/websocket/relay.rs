//! One session: two sockets, and what goes between them (docs/adr/0007).
//!
//! Invariant: a session that waits holds no buffer. Reads land in a buffer of the thread, and what a side does
//! not take at once is kept only until it does; meanwhile nothing is read for it.
//! Invariant: a frame of the gateway's own stands between two frames of the other side.

use super::frame::{Control, ControlOpcode, Fault, Item, Rules};
use super::pace::{Pace, Rate, Rates};
use super::registry::{Cause, Order};
use super::side::{Asked, READ_BYTES, Side};
use hub_config::runtime::WebSocket;
use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

/// What a session is held to. Times of zero stand for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What the client may send.
    pub client: Rules,
    /// What the upstream may send.
    pub upstream: Rules,
    /// How fast the client may.
    pub client_rates: Rates,
    /// How fast the upstream may.
    pub upstream_rates: Rates,
    /// Without any of a message for this long the session is closed.
    pub idle_timeout: Duration,
    /// After this long it is closed in any case.
    pub lifetime: Duration,
    /// A side that said nothing for this long is asked whether it is there.
    pub ping_interval: Duration,
    /// And has this long to say something.
    pub pong_timeout: Duration,
    /// A side that takes nothing for this long is given up.
    pub write_timeout: Duration,
    /// How long the other Close, and the last bytes, may take.
    pub close_timeout: Duration,
}

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The client.
    Client,
    /// The application.
    Upstream,
    /// The gateway, for the terms or by order.
    Gateway,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Close was sent.
    Closed,
    /// The connection ended without one.
    Gone,
    /// The protocol was broken, or a size was exceeded.
    Fault(Fault),
    /// Nothing was said for too long.
    Idle,
    /// It was open for as long as it may be.
    Lifetime,
    /// The credential that opened it has expired.
    Expired,
    /// A side did not answer a Ping.
    Silent,
    /// A side took nothing for too long.
    Slow,
    /// Somebody asked for it.
    Ordered,
    /// The process ended first.
    Cut,
}

/// How a session went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Who ended it.
    pub by: By,
    /// Why.
    pub why: Why,
    /// The code of the Close that ended it; 1006 where there was none.
    pub code: u16,
    /// Complete messages and bytes of the client.
    pub up: (u64, u64),
    /// The same of the upstream.
    pub down: (u64, u64),
}

/// One session. A future that is ready once both sockets may be dropped.
#[derive(Debug)]
pub struct Relay<C, U> {
    terms: Arc<Terms>,
    client: Side<C>,
    upstream: Side<U>,
    began: Instant,
    /// When what allowed it expires.
    expires: Option<Instant>,
    /// When it is to close, by order.
    order: Option<Order>,
    /// When some of a message came last.
    active: Instant,
    /// Set once the session is to end: how, and the latest moment for it.
    end: Option<(Ending, Instant)>,
    ping: Ping,
    /// Kept from wait to wait, and for when it is set.
    timer: Option<Pin<Box<Sleep>>>,
    armed: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Ending {
    by: By,
    why: Why,
    code: u16,
}

// === impl By ===

impl By {
    /// As logs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
        }
    }
}

// === impl Why ===

impl Why {
    /// As logs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Gone => "gone",
            Self::Fault(fault) => fault.name(),
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Expired => "expired",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Ordered => "ordered",
            Self::Cut => "cut",
        }
    }
}

// === impl Terms ===

impl Terms {
    /// These, with compression agreed on.
    pub(super) fn compressed(&self) -> Self {
        let mut terms = self.clone();
        terms.client.compressed = true;
        terms.upstream.compressed = true;
        terms
    }

    /// What a route's configuration says, without compression.
    pub(crate) fn of(settings: &WebSocket) -> Self {
        let client = Rules {
            masked: true,
            compressed: false,
            utf8: settings.utf8,
            frame_bytes_max: settings.frame_bytes_max,
            message_bytes_max: settings.message_bytes_max,
            fragments_max: settings.fragments_max,
        };
        let rate = |each: Option<u32>| each.map(Rate::each_second);
        Self {
            client,
            upstream: Rules {
                masked: false,
                ..client
            },
            client_rates: Rates {
                messages: rate(settings.client_messages_per_second),
                kilobytes: rate(settings.client_kilobytes_per_second),
            },
            upstream_rates: Rates {
                messages: rate(settings.upstream_messages_per_second),
                kilobytes: rate(settings.upstream_kilobytes_per_second),
            },
            idle_timeout: settings.idle_timeout,
            lifetime: settings.lifetime,
            ping_interval: settings.ping_interval,
            pong_timeout: settings.pong_timeout,
            write_timeout: settings.write_timeout,
            close_timeout: settings.close_timeout,
        }
    }
}

/// What begins a Ping of the gateway's own.
const PING: [u8; 11] = *b"hub1 alive ";
/// Payload of a Ping of this session's, whose Pong goes no further: with a number that no other has.
type Ping = [u8; PING.len() + 8];
/// Most bytes that are read of a side that nobody listens to any more.
const LOST_BYTES_MAX: usize = 256 * 1024;
/// Most bytes that a session moves before others get their turn.
const TURN_BYTES: u64 = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

impl<C, U> Relay<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// A session whose handshakes are over. `early` is what was read behind each of them, at most
    /// 64 KiB.
    pub fn new(
        terms: Arc<Terms>,
        client: (C, Vec<u8>),
        upstream: (U, Vec<u8>),
        now: Instant,
    ) -> Self {
        Self {
            terms,
            client: Side::new(client.0, true, client.1, Pace::new(now), now),
            upstream: Side::new(upstream.0, false, upstream.1, Pace::new(now), now),
            began: now,
            expires: None,
            order: None,
            active: now,
            end: None,
            ping: ping(),
            timer: None,
            armed: None,
        }
    }

    /// Ends it with 1008 at this moment: what allowed it is no longer good.
    pub fn expire_at(&mut self, at: Instant) {
        self.expires = Some(at);
    }

    /// Messages and bytes of the client and of the upstream so far.
    pub fn counts(&self) -> [(u64, u64); 2] {
        [
            (self.client.messages, self.client.bytes),
            (self.upstream.messages, self.upstream.bytes),
        ]
    }

    /// Has it end by this order, and by none before. To be polled afterwards.
    pub(super) fn order(&mut self, order: Option<Order>) {
        self.order = order;
    }

    /// Drives it. Ready with its outcome.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        // Tokio's clock, which tests can stop.
        let now = tokio::time::Instant::now().into_std();
        self.due(now, cx);
        let turn_ends = self.client.bytes + self.upstream.bytes + TURN_BYTES;
        SCRATCH.with_borrow_mut(|scratch| {
            while self.step(scratch, now, cx) {
                if self.client.bytes + self.upstream.bytes > turn_ends {
                    cx.waker().wake_by_ref();
                    break;
                }
            }
        });
        if let Some(outcome) = self.outcome(now, cx) {
            return Poll::Ready(outcome);
        }
        if self.arm(now, cx) {
            // Something is due already.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Moves what can be moved; true where it is worth another try.
    fn step(&mut self, scratch: &mut [u8], now: Instant, cx: &mut Context<'_>) -> bool {
        let written = [
            self.client.poll_written(now, cx).is_ready(),
            self.upstream.poll_written(now, cx).is_ready(),
        ];
        let mut moved = false;
        for (by, gone) in [
            (By::Client, self.client.gone),
            (By::Upstream, self.upstream.gone),
        ] {
            if gone && self.end.is_none() {
                // What comes for it would be lost unseen.
                moved |= self.heed(by, Pumped::Ended, now);
            }
        }
        // Whoever gets nothing more holds nobody back: the other one is read on, so that its Close is seen
        // and nothing is reset.
        if written[1] || self.upstream.shut {
            let limits = (&self.terms.client, &self.terms.client_rates, &self.ping);
            let pumped = pump(
                &mut self.client,
                &mut self.upstream,
                scratch,
                limits,
                now,
                cx,
            );
            moved |= self.heed(By::Client, pumped, now);
        }
        if written[0] || self.client.shut {
            let limits = (&self.terms.upstream, &self.terms.upstream_rates, &self.ping);
            let pumped = pump(
                &mut self.upstream,
                &mut self.client,
                scratch,
                limits,
                now,
                cx,
            );
            moved |= self.heed(By::Upstream, pumped, now);
        }
        moved
    }

    fn heed(&mut self, by: By, pumped: Pumped, now: Instant) -> bool {
        match pumped {
            Pumped::Nothing => return false,
            Pumped::Bytes { data } => {
                if data {
                    self.active = now;
                }
            }
            Pumped::Closed(code) => {
                let end = Ending {
                    by,
                    why: Why::Closed,
                    code,
                };
                self.end
                    .get_or_insert((end, now + self.terms.close_timeout));
            }
            Pumped::Ended => {
                let left = (1001, "the client left");
                let lost = (1011, "the application is gone");
                match by {
                    By::Client => self.part(by, Why::Gone, left, left, now),
                    By::Upstream | By::Gateway => self.part(by, Why::Gone, lost, lost, now),
                }
            }
            Pumped::Fault(fault) => {
                let own = fault.to_string();
                match by {
                    By::Client => self.part(
                        by,
                        Why::Fault(fault),
                        (fault.code(), &own),
                        (1001, "the client broke the protocol"),
                        now,
                    ),
                    By::Upstream | By::Gateway => self.part(
                        by,
                        Why::Fault(fault),
                        (1011, "the application broke the protocol"),
                        (fault.code(), &own),
                        now,
                    ),
                }
            }
        }
        true
    }

    /// Ends the session from here: Close to each side that has had none.
    fn part(&mut self, by: By, why: Why, client: (u16, &str), upstream: (u16, &str), now: Instant) {
        // Who is in the middle of a frame whose sender will not end it cannot be told.
        self.client.cut_off |= self.upstream.breaks_off();
        self.client.shut |= self.client.cut_off;
        self.upstream.cut_off |= self.client.breaks_off();
        self.upstream.shut |= self.upstream.cut_off;
        self.client.say(&Control::close(client.0, client.1));
        self.upstream.say(&Control::close(upstream.0, upstream.1));
        let code = if why == Why::Gone { 1006 } else { client.0 };
        let end = Ending { by, why, code };
        self.end
            .get_or_insert((end, now + self.terms.close_timeout));
    }

    /// Does what time asks for.
    fn due(&mut self, now: Instant, cx: &mut Context<'_>) {
        if let (Some(at), Some(timer)) = (self.armed, &mut self.timer) {
            // Polled, so that it wakes this task where it has not fired yet.
            let is_ordered = self.order.is_some_and(|order| order.at <= now);
            if timer.as_mut().poll(cx).is_pending() && at > now && !is_ordered {
                return;
            }
            self.armed = None;
        }
        if let Some(order) = self.order.filter(|order| order.cause == Cause::Cut) {
            let (by, why, code) = (By::Gateway, Why::Cut, 1006);
            self.end = Some((Ending { by, why, code }, order.at));
        }
        if self.end.is_some() {
            return;
        }
        let terms = Arc::clone(&self.terms);
        if self.expires.is_some_and(|at| at <= now) {
            let left = (1001, "the client may stay no longer");
            let said = (1008, "the credential has expired");
            return self.part(By::Gateway, Why::Expired, said, left, now);
        }
        if let Some(order) = self.order.filter(|order| order.at <= now) {
            let left = (1001, order.reason);
            return self.part(
                By::Gateway,
                Why::Ordered,
                (order.code, order.reason),
                left,
                now,
            );
        }
        if over(self.began, terms.lifetime, now) {
            let said = (1001, "the session is as old as it may be");
            return self.part(By::Gateway, Why::Lifetime, said, said, now);
        }
        if over(self.active, terms.idle_timeout, now) {
            let said = (1001, "the session was idle");
            return self.part(By::Gateway, Why::Idle, said, said, now);
        }
        let stuck = [self.client.stuck, self.upstream.stuck]
            .into_iter()
            .flatten();
        if stuck
            .min()
            .is_some_and(|since| over(since, terms.write_timeout, now))
        {
            let said = (1008, "too slow");
            return self.part(By::Gateway, Why::Slow, said, said, now);
        }
        let silent = [
            ask(&mut self.client, &terms, &self.ping, now),
            ask(&mut self.upstream, &terms, &self.ping, now),
        ];
        if silent.contains(&true) {
            let said = (1011, "no answer to a Ping");
            self.part(By::Gateway, Why::Silent, said, said, now);
        }
    }

    /// When time asks for something next.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let terms = &*self.terms;
        if let Some((_, until)) = self.end {
            return Some(until);
        }
        let after = |since: Instant, time: Duration| (!time.is_zero()).then(|| since + time);
        [
            after(self.began, terms.lifetime),
            self.expires,
            self.order.map(|order| order.at),
            after(self.active, terms.idle_timeout),
            self.client
                .stuck
                .and_then(|since| after(since, terms.write_timeout)),
            self.upstream
                .stuck
                .and_then(|since| after(since, terms.write_timeout)),
            alive_by(&self.client, terms),
            alive_by(&self.upstream, terms),
            self.client.pace.waits_until.filter(|until| *until > now),
            self.upstream.pace.waits_until.filter(|until| *until > now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Sets the timer. It is left where it is when it fires early enough: most of the time deadlines only
    /// move later. True where it has fired already.
    fn arm(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let Some(next) = self.next_due(now) else {
            return false;
        };
        if self.armed.is_some_and(|at| at <= next) {
            return false;
        }
        let timer = match &mut self.timer {
            Some(timer) => {
                timer.as_mut().reset(next.into());
                timer
            }
            None => self
                .timer
                .insert(Box::pin(tokio::time::sleep_until(next.into()))),
        };
        self.armed = Some(next);
        timer.as_mut().poll(cx).is_ready()
    }

    /// How it went, once it is over.
    fn outcome(&mut self, now: Instant, cx: &mut Context<'_>) -> Option<Outcome> {
        let (end, until) = self.end?;
        // Both are asked, so that both are written to.
        let written = [
            self.client.poll_written(now, cx).is_ready(),
            self.upstream.poll_written(now, cx).is_ready(),
        ];
        if written[0] {
            self.client.finish(cx);
        }
        if written[1] {
            self.upstream.finish(cx);
        }
        let over = written == [true, true] && self.client.is_over() && self.upstream.is_over();
        if now < until && !over {
            return None;
        }
        // Whoever does not take this is dropped now.
        let _ends = (
            self.client.poll_shutdown(cx),
            self.upstream.poll_shutdown(cx),
        );
        let [up, down] = self.counts();
        Some(Outcome {
            by: end.by,
            why: end.why,
            code: end.code,
            up,
            down,
        })
    }
}

/// What one look at a side has brought.
enum Pumped {
    Nothing,
    Bytes { data: bool },
    Closed(u16),
    Ended,
    Fault(Fault),
}

impl Pumped {
    fn nothing_but(released: bool) -> Self {
        match released {
            true => Self::Bytes { data: false },
            false => Self::Nothing,
        }
    }
}

/// Reads from one side and sends it to the other.
fn pump<A, B>(
    from: &mut Side<A>,
    to: &mut Side<B>,
    scratch: &mut [u8],
    limits: (&Rules, &Rates, &Ping),
    now: Instant,
    cx: &mut Context<'_>,
) -> Pumped
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let released = from.walker.is_between_frames() && to.release_own(now, cx);
    if from.is_done() || !from.pace.may_send(now) {
        return Pumped::nothing_but(released);
    }
    // No more at a time than a second's worth.
    let most = limits.1.bytes_at_once(scratch.len());
    let count = match from.poll_fill(cx, &mut scratch[..most]) {
        Poll::Pending => return Pumped::nothing_but(released),
        Poll::Ready(None) => return Pumped::Ended,
        Poll::Ready(Some(count)) => count,
    };
    from.heard = now;
    from.asked = Asked::No;
    if from.broken || to.takes_nothing() {
        // Read all the same: a Close may come, and a socket that is closed with bytes unread resets what it has
        // sent. But not for ever.
        from.lost += count;
        from.ended |= from.lost > LOST_BYTES_MAX;
    }
    if from.broken {
        return Pumped::nothing_but(true);
    }
    walk(from, to, &scratch[..count], limits, now, cx)
}

/// Goes over what came: sends on what may go on, and takes out what concerns the gateway alone.
fn walk<A, B>(
    from: &mut Side<A>,
    to: &mut Side<B>,
    bytes: &[u8],
    (rules, rates, ping): (&Rules, &Rates, &Ping),
    now: Instant,
    cx: &mut Context<'_>,
) -> Pumped
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let is_heard = !to.takes_nothing();
    // `begin..at` may go on and has not yet.
    let (mut begin, mut at, mut messages) = (0, 0, 0);
    // Control frames weigh as much as messages.
    let (mut charged, mut data) = (0, false);
    let most = rates.messages_at_once();
    let pumped = loop {
        if charged >= most {
            from.keep_back(&bytes[at..]);
            break None;
        }
        match from.walker.next(&bytes[at..], rules) {
            Ok(Item::Incomplete) => {
                from.keep(&bytes[at..]);
                break None;
            }
            Ok(Item::Data {
                len,
                frame_ends,
                message_ends,
            }) => {
                at += len;
                messages += u32::from(message_ends);
                charged += u32::from(message_ends);
                data = true;
                if frame_ends && to.has_own() {
                    to.send(&bytes[begin..at], now, cx);
                    to.release_own(now, cx);
                    begin = at;
                }
            }
            Ok(Item::Control { len, control }) => {
                let is_close = control.opcode == ControlOpcode::Close;
                charged += 1;
                if is_close || control.opcode == ControlOpcode::Pong && control.payload() == ping {
                    to.send(&bytes[begin..at], now, cx);
                    begin = at + len;
                    if is_close {
                        // Where a Close of our own waits, that one tells it.
                        to.release_own(now, cx);
                        to.send(&bytes[at..at + len], now, cx);
                        to.shut = true;
                        from.closed = Some(control.code());
                    }
                }
                at += len;
                if is_close {
                    break Some(Pumped::Closed(control.code()));
                }
            }
            Err(fault) => {
                from.broken = true;
                break Some(Pumped::Fault(fault));
            }
        }
    };
    to.send(&bytes[begin..at], now, cx);
    if is_heard {
        from.messages += u64::from(messages);
        from.bytes += at as u64;
    }
    from.pace.sent(charged, at, rates, now);
    pumped.unwrap_or(Pumped::Bytes { data })
}

/// When a side is to be asked whether it is there, or is to have answered. `None` for one that nobody reads at
/// the moment: what it may have said is not known.
fn alive_by<S: AsyncRead + AsyncWrite + Unpin>(side: &Side<S>, terms: &Terms) -> Option<Instant> {
    if terms.ping_interval.is_zero() || side.is_done() || side.pace.waits_until.is_some() {
        return None;
    }
    match side.asked {
        Asked::No => Some(side.heard + terms.ping_interval),
        Asked::Queued => None,
        Asked::Sent(at) => Some(at + terms.pong_timeout),
    }
}

/// Asks a side whether it is there, when it is time to. True where it was asked and did not answer.
fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    side: &mut Side<S>,
    terms: &Terms,
    ping: &[u8],
    now: Instant,
) -> bool {
    if alive_by(side, terms).is_none_or(|at| at > now) {
        return false;
    }
    let is_silent = side.asked != Asked::No;
    if !is_silent {
        side.asked = Asked::Queued;
        side.say(&Control::new(ControlOpcode::Ping, ping));
    }
    is_silent
}

fn ping() -> Ping {
    let mut ping = [0; _];
    ping[..PING.len()].copy_from_slice(&PING);
    ping[PING.len()..].copy_from_slice(&rand::random::<[u8; 8]>());
    ping
}

fn over(since: Instant, longest: Duration, now: Instant) -> bool {
    !longest.is_zero() && now.saturating_duration_since(since) >= longest
}

#[cfg(test)]
mod tests;
