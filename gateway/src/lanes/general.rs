//! The general lane: pingora-proxy. HTTP/2, anything unusual, and until there is another lane,
//! everything.
//!
//! Callbacks are a few lines each: they translate between pingora's session and the stages, and
//! decide nothing themselves. HTTP/1 requests arrive here admitted; HTTP/2 requests are admitted in
//! `request_filter`, which is the first place that sees their headers.

mod answer;
mod deadlines;
pub(crate) mod errand;
mod errors;
mod headers;
mod peers;
pub(crate) mod request;
pub(crate) mod session;
mod view;

pub(crate) use peers::Peers;

use crate::front::downstream::Progress;
use crate::hub::Hub;
use crate::stages::forward::HeaderSink as _;
use crate::stages::{Exchange, fallback, forward, pick, record};
use crate::switch::watch::Ending;
use answer::{answer, is_answered};
use async_trait::async_trait;
use bytes::Bytes;
use deadlines::arm_deadlines;
use errand::Errand;
use errors::{ending_of, refusal_of, waits_for};
use hub_core::{HeaderValue, Method, Reason, Refusal, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::{HttpPeer, ProxyHttp, Session};
use pingora::protocols::Digest;
use pingora::proxy::FailToProxy;
use pingora::upstreams::peer::HttpUpstreamRequestPolicy;
use pingora::{Error, ErrorType, Result};
use request::Outgoing;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

tokio::task_local! {
    /// What the front knows of the HTTP/2 stream that this task serves: pingora gives streams no
    /// context of their own.
    pub(crate) static STREAM: StreamContext;
    /// The request that the front hands over, until [`GeneralLane::new_ctx`] takes it.
    pub(crate) static HANDOVER: Cell<Option<Box<Admitted>>>;
}

/// See [`Admitted::spare`].
const SPARE: Duration = Duration::from_millis(500);
/// See [`Context::reuse_retries`].
const REUSE_RETRIES_MAX: u32 = 2;

/// An HTTP/2 stream as the front hands it over.
#[derive(Debug)]
pub(crate) struct StreamContext {
    pub(crate) connection: Arc<crate::front::app::Connection>,
    pub(crate) progress: Arc<Progress>,
}

/// What the front hands over beside the stream.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) exchange: Box<Exchange>,
    pub(crate) connection: Arc<crate::front::app::Connection>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) asked: Asked,
    /// Headers for the upstream; pingora's session has those of HTTP/2.
    pub(crate) outgoing: Option<Outgoing>,
    /// It is the gateway's own.
    pub(crate) errand: Option<Errand>,
    /// Beyond the first byte's timeout, so that pingora's own comes first.
    pub(crate) spare: Duration,
}

/// What the record and the gateway's own answers say of a request: its session may be gone by then.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: Bytes,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) user_agent: Option<HeaderValue>,
    pub(crate) origin: Option<HeaderValue>,
}

/// pingora's per-request context: empty until the request is admitted.
#[derive(Debug, Default)]
pub(crate) struct Context {
    admitted: Option<Box<Admitted>>,
    /// Request body bytes seen in this try, for HTTP/2, whose framing pingora checks.
    body_bytes: u64,
    /// Some of the body was read for a try, this one or one before: it may be gone.
    body_gone: bool,
    /// Tries on another endpoint after one that could not be reached.
    connect_retries: u32,
    /// Tries after a pooled connection that turned out to be closed.
    reuse_retries: u32,
    /// An answer was given up for one of the other colour.
    falls_back: bool,
}

/// The general lane of one process.
#[derive(Debug)]
pub(crate) struct GeneralLane {
    hub: Arc<Hub>,
}

impl GeneralLane {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.note_fault();
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // A task may be dropped in the middle, with its session.
        if let Some(mut admitted) = self.admitted.take() {
            admitted.note_fault();
            admitted.record(self.body_bytes, true);
        }
    }
}

impl Admitted {
    /// A stream whose deadline passed is dropped in the middle; its record should say why.
    fn note_fault(&mut self) {
        if let Some(reason) = self.progress.fault() {
            self.exchange.refuse(Refusal::new(reason));
        }
    }

    /// Ends the request. pingora has shown `body_bytes` of its body.
    fn record(&mut self, body_bytes: u64, failed: bool) {
        let asked = &self.asked;
        let fields = record::Fields {
            method: asked.method.as_str(),
            host: asked.host.as_ref().map_or(b"", HeaderValue::as_bytes),
            path: &asked.target,
            user_agent: asked.user_agent.as_ref().map(HeaderValue::as_bytes),
        };
        self.exchange.bytes_in = body_bytes.max(self.progress.bytes_in.load(Ordering::Relaxed));
        record::finish(&mut self.exchange, &fields, failed);
    }
}

/// The answer may be a stream of events, in which pauses are of any length.
fn accepts_events(request: &RequestHeader) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let mut accepted = request.headers.get_all(http::header::ACCEPT).iter();
    accepted.any(|value| {
        let mut parts = value.as_bytes().windows(EVENTS.len());
        parts.any(|part| part.eq_ignore_ascii_case(EVENTS))
    })
}

impl Admitted {
    /// Picks the endpoint of a try.
    fn pick(&mut self, now: Instant) -> std::result::Result<(), Refusal> {
        match &self.errand {
            None => pick::pick(&mut self.exchange, now),
            Some(errand) => errand.pick(&mut self.exchange),
        }
    }
}

impl Context {
    /// Whether the request, which its colour failed, goes to the other one, with all tries anew. `status` is
    /// what it answered, 0 for nothing.
    fn goes_over(&mut self, ending: Ending, status: u16) -> bool {
        let Some(admitted) = self.admitted.as_deref_mut() else {
            return false;
        };
        let (exchange, method) = (&mut admitted.exchange, &admitted.asked.method);
        let goes = fallback::fall_back(exchange, method, self.body_gone, ending, status);
        if goes {
            admitted.progress.clear_fault();
            admitted.progress.disarm();
            (self.connect_retries, self.reuse_retries) = (0, 0);
        }
        goes
    }

    fn admitted(&mut self) -> Result<&mut Admitted> {
        self.admitted
            .as_deref_mut()
            .ok_or_else(|| Error::explain(ErrorType::InternalError, "a request was never admitted"))
    }
}

#[async_trait]
impl ProxyHttp for GeneralLane {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        let mut context = Context::default();
        context.admitted = HANDOVER.try_with(Cell::take).ok().flatten();
        context
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // None: pingora's default compresses on demand, which no route asks for.
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        if ctx.admitted.is_some() {
            return Ok(false);
        }
        let (connection, progress) = STREAM
            .try_with(|stream| (Arc::clone(&stream.connection), Arc::clone(&stream.progress)))
            .map_err(|_| {
                Error::explain(ErrorType::InternalError, "a stream without a connection")
            })?;
        let request = session.req_header_mut();
        view::join_cookies(request)?;
        let asked = view::asked(request);
        let verdict = view::admit(&self.hub, &connection, session.req_header());
        let admitted = ctx.admitted.insert(Box::new(Admitted {
            exchange: verdict.exchange,
            connection,
            progress,
            asked,
            outgoing: None,
            errand: None,
            spare: Duration::ZERO,
        }));
        match verdict.refusal {
            None => Ok(false),
            Some(refusal) => {
                answer(session, admitted, refusal).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        // pingora shows the body's beginning again to each try.
        ctx.body_bytes = 0;
        let now = Instant::now();
        let mut picked = ctx.admitted()?.pick(now);
        if matches!(&picked, Err(refusal) if refusal.reason == Reason::NoEndpoint)
            && ctx.goes_over(Ending::ConnectError, 0)
        {
            picked = ctx.admitted()?.pick(now);
        }
        let admitted = ctx.admitted()?;
        let exchange = &mut *admitted.exchange;
        if let Err(refusal) = picked {
            let status = refusal.reason.status().as_u16();
            exchange.refuse(refusal);
            return Err(Error::new(ErrorType::HTTPStatus(status)));
        }
        exchange.upstream_began = None;
        exchange.upstream_first_byte = None;
        let pick = exchange.pick.as_ref().expect("pick just succeeded");
        let mut peer = exchange.snapshot.peers.get(pick).clone();
        if exchange.version == Version::Http2 {
            // HTTP/1 sessions watch over a silent upstream themselves. Here the deadline of the first byte
            // ends the stream, unless pingora's own timeout, which leaves time for another colour, comes
            // first. That one also bounds pauses within the answer.
            let cluster = &exchange.snapshot.config.clusters[pick.cluster()];
            let brief = fallback::may_leave_silence(exchange, &admitted.asked.method)
                && !accepts_events(session.req_header());
            admitted.spare = if brief { SPARE } else { Duration::ZERO };
            peer.options.read_timeout = Some(match brief {
                true => cluster.first_byte_timeout,
                false => cluster.idle_timeout.max(cluster.first_byte_timeout),
            });
        } else {
            // There is nothing to strip: see `Outgoing`.
            peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
        }
        if peer.options.idle_timeout.is_some_and(|idle| idle.is_zero()) {
            // An idle time of zero ends a pooled connection soon, not at once: a request that follows
            // closely would still get it. Under a key of its own nobody finds it.
            peer.group_key = rand::random();
        }
        if let Some(errand) = &admitted.errand {
            errand.prepare(&mut peer);
        }
        Ok(Box::new(peer))
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::fd::RawFd,
        _digest: Option<&Digest>,
        ctx: &mut Context,
    ) -> Result<()> {
        let admitted = ctx.admitted()?;
        if !reused {
            record::connected(&admitted.exchange);
        } else if matches!(admitted.errand, Some(Errand::Close(_))) {
            // An error now drops the connection, and `error_while_proxy` asks for the next one.
            return Error::e_explain(ErrorType::ConnectionClosed, "its colour is let go");
        }
        let body_done = session.as_downstream_mut().is_body_done();
        arm_deadlines(admitted, body_done, false);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let admitted = ctx.admitted()?;
        let made = match &mut admitted.outgoing {
            Some(outgoing) => Some(outgoing.take()?),
            None => None,
        };
        headers::edit_request(request, |headers| {
            match made {
                Some(made) => *headers = made,
                None => headers.remove_where(forward::is_ours),
            }
            let host = headers.get(http::header::HOST).cloned();
            forward::dress_request(&admitted.exchange, host, headers);
        })
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        ctx.body_bytes += body.as_ref().map_or(0, Bytes::len) as u64;
        ctx.body_gone |= ctx.body_bytes > 0;
        let bytes = ctx.body_bytes;
        let admitted = ctx.admitted()?;
        let exchange = &mut *admitted.exchange;
        if let Some(route) = exchange.route
            && bytes > exchange.snapshot.config.routes[route].body_bytes_max
        {
            exchange.refuse(Refusal::new(Reason::BodyTooLarge));
            return Err(Error::new_down(ErrorType::HTTPStatus(413)));
        }
        // pingora has no timeout for bodies on HTTP/2.
        if end_of_stream || exchange.version == Version::Http2 {
            arm_deadlines(admitted, end_of_stream, is_answered(session));
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let admitted = ctx.admitted()?;
        if response.status.is_informational() && response.status.as_u16() != 101 {
            return Ok(());
        }
        let exchange = &mut *admitted.exchange;
        if exchange.upstream_first_byte.is_none() {
            exchange.upstream_first_byte = exchange.upstream_began.map(|began| began.elapsed());
        }
        let body_done = session.as_downstream_mut().is_body_done();
        arm_deadlines(admitted, body_done, true);
        let code = response.status.as_u16();
        if response.status.is_server_error() && ctx.goes_over(Ending::ServerError, code) {
            // Nothing of it is written yet, and an error is how pingora asks for another upstream.
            ctx.falls_back = true;
            let status = ErrorType::HTTPStatus(code);
            return Err(Error::explain(status, "the other colour is asked").into_up());
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let admitted = ctx.admitted()?;
        if response.status.is_informational() && response.status.as_u16() != 101 {
            return Ok(());
        }
        if self.hub.asks_clients_to_leave() {
            admitted.progress.close_after();
        }
        if admitted.exchange.version == Version::Http10
            && response
                .headers
                .contains_key(http::header::TRANSFER_ENCODING)
        {
            // It knows no chunks: the end of the connection is the end of the body.
            response.remove_header(&http::header::TRANSFER_ENCODING);
        }
        if admitted.outgoing.is_some() {
            let dress = forward::ResponseDress::take(&mut admitted.exchange);
            admitted.progress.set_dress(dress);
            return Ok(());
        }
        headers::edit_response(response, |headers| {
            forward::dress_response(&admitted.exchange, headers);
        })
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let Some(admitted) = ctx.admitted.as_mut() else {
            return error;
        };
        if matches!(admitted.errand, Some(Errand::Close(_))) {
            // None is left.
            error.set_retry(false);
            return error;
        }
        let exchange = &mut *admitted.exchange;
        record::connect_failed(exchange);
        // Nothing was sent, so even a request that must not run twice may try another endpoint.
        let again = ctx.connect_retries < pick::connect_retries(exchange);
        if again {
            ctx.connect_retries += 1;
            exchange.retries += 1;
            record::retried(exchange);
        }
        let again = again || ctx.goes_over(Ending::ConnectError, 0);
        error.set_retry(again);
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        let closes = |admitted: &Admitted| matches!(admitted.errand, Some(Errand::Close(_)));
        if std::mem::take(&mut ctx.falls_back) || ctx.admitted.as_deref().is_some_and(closes) {
            error.set_retry(true);
            return error;
        }
        // pingora's own rule: again where a kept connection was closed under the request, and the request
        // may run twice and is still there as a whole. But not until the pool is empty: a colour that
        // closes each connection must not take all tries.
        if !session.req_header().method.is_idempotent() || session.as_ref().retry_buffer_truncated()
        {
            error.set_retry(false);
        } else {
            error.retry.decide_reuse(reused);
            if ctx.reuse_retries == REUSE_RETRIES_MAX {
                error.set_retry(false);
            }
        }
        let Some(admitted) = ctx.admitted.as_mut() else {
            return error;
        };
        if error.retry() {
            ctx.reuse_retries += 1;
            admitted.exchange.retries += 1;
            record::retried(&admitted.exchange);
        } else if !is_answered(session)
            && let Some(ending) = ending_of(&error, admitted.progress.fault(), session)
            && ctx.goes_over(ending, 0)
        {
            error.set_retry(true);
        }
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        let Some(admitted) = ctx.admitted.as_mut() else {
            return FailToProxy {
                error_code: 0,
                can_reuse_downstream: false,
            };
        };
        let exchange = &mut *admitted.exchange;
        let waits_for = waits_for(session);
        let code = match refusal_of(error, admitted.progress.fault(), waits_for) {
            // The client went away: there is nobody to answer.
            None => 0,
            Some(refusal) => {
                exchange.refuse(refusal);
                let refusal = exchange
                    .refusal
                    .clone()
                    .expect("refuse keeps the first refusal");
                let status = refusal.reason.status().as_u16();
                if !is_answered(session) {
                    admitted.progress.close_after();
                    // A client that is gone by now needs no answer.
                    let _gone = answer(session, admitted, refusal).await;
                }
                status
            }
        };
        FailToProxy {
            error_code: code,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        let body_bytes = ctx.body_bytes;
        let Some(mut admitted) = ctx.admitted.take() else {
            return;
        };
        admitted.progress.disarm();
        let exchange = &mut *admitted.exchange;
        exchange.bytes_out = session.body_bytes_sent() as u64;
        if let Some(response) = session.response_written() {
            exchange.status = response.status.as_u16();
        }
        admitted.record(body_bytes, error.is_some());
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        // The access log has the reason; a line a failed request would let clients fill the disk.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Context,
        _error: &Error,
        _context: pingora::proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
