//! The client's side of an errand: a request in memory, and what is kept of its answer.

use ::pingora::http::{RequestHeader, ResponseHeader};
use ::pingora::protocols::Digest;
use ::pingora::protocols::http::HttpTask;
use ::pingora::protocols::http::custom::CustomMessageWrite;
use ::pingora::protocols::http::custom::server::Session as CustomSession;
use ::pingora::protocols::l4::socket::SocketAddr;
use ::pingora::{Error, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;

/// How much of a body is kept, in bytes. Its digest is of all of it.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// An answer to an errand, from the upstream or where that failed, from the gateway itself.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The beginning of the body, 64 KiB at most.
    pub(crate) body: Vec<u8>,
    /// Of the whole body.
    pub(crate) sha256: [u8; 32],
}

/// What the session has seen, for who sent it.
#[derive(Debug, Default)]
pub(super) struct Seen(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    status: Option<u16>,
    body: Vec<u8>,
    digest: Sha256,
    complete: bool,
}

/// One errand's session: no body comes, nobody leaves, and what is written is kept.
pub(super) struct OwnSession {
    request: RequestHeader,
    response: Option<Box<ResponseHeader>>,
    seen: Arc<Mutex<State>>,
    together: Arc<Barrier>,
}

// === impl Seen ===

impl Seen {
    /// The answer.
    ///
    /// # Errors
    /// A sentence where there is none, or no end of it.
    pub(super) fn take(self) -> Result<Answer, String> {
        let state = std::mem::take(&mut *self.0.lock());
        let status = state
            .status
            .ok_or("the connection broke before an answer")?;
        if !state.complete {
            return Err(match String::from_utf8_lossy(&state.body) {
                own if own.contains("\"error\"") => {
                    format!("no answer; the gateway would tell its client {status} {own}")
                }
                _ => "the answer broke off".into(),
            });
        }
        Ok(Answer {
            status,
            body: state.body,
            sha256: state.digest.finalize().into(),
        })
    }

    /// An errand that closes connections has closed as many as pingora has tries, and there may be more:
    /// only then does the gateway blame itself.
    pub(super) fn has_more(&self) -> bool {
        self.0.lock().status == Some(hub_core::Reason::Internal.status().as_u16())
    }
}

// === impl OwnSession ===

impl OwnSession {
    /// A session for the request. It ends together with others of that barrier.
    pub(super) fn new(request: RequestHeader, together: Arc<Barrier>) -> (Self, Seen) {
        let seen = Seen::default();
        let session = Self {
            request,
            response: None,
            seen: Arc::clone(&seen.0),
            together,
        };
        (session, seen)
    }

    fn put_head(&mut self, response: Box<ResponseHeader>) {
        if !response.status.is_informational() {
            self.seen.lock().status = Some(response.status.as_u16());
            self.response = Some(response);
        }
    }

    fn put_body(&self, data: Option<Bytes>) {
        let Some(data) = data else { return };
        let mut seen = self.seen.lock();
        seen.digest.update(&data);
        let room = BODY_BYTES_MAX - seen.body.len();
        seen.body.extend_from_slice(&data[..data.len().min(room)]);
    }
}

#[async_trait]
impl CustomSession for OwnSession {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        Ok(None)
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        Ok(())
    }

    async fn write_response_header(
        &mut self,
        response: Box<ResponseHeader>,
        _end: bool,
    ) -> Result<()> {
        self.put_head(response);
        Ok(())
    }

    async fn write_response_header_ref(
        &mut self,
        response: &ResponseHeader,
        _end: bool,
    ) -> Result<()> {
        self.put_head(Box::new(response.clone()));
        Ok(())
    }

    async fn write_body(&mut self, data: Bytes, _end: bool) -> Result<()> {
        self.put_body(Some(data));
        Ok(())
    }

    async fn write_trailers(&mut self, _trailers: HeaderMap) -> Result<()> {
        Ok(())
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut end = false;
        for task in tasks {
            end = match task {
                HttpTask::Header(response, end) => {
                    self.put_head(response);
                    end
                }
                HttpTask::Body(data, end) | HttpTask::UpgradedBody(data, end) => {
                    self.put_body(data);
                    end
                }
                HttpTask::Trailer(_) | HttpTask::Done => true,
                HttpTask::Failed(error) => return Err(error),
            };
        }
        Ok(end)
    }

    /// The answer is whole. pingora gives the upstream connection back after this.
    async fn finish(&mut self) -> Result<()> {
        self.seen.lock().complete = true;
        self.together.wait().await;
        Ok(())
    }

    async fn read_body_or_idle(&mut self, _no_body_expected: bool) -> Result<Option<Bytes>> {
        std::future::pending().await
    }

    fn is_body_done(&mut self) -> bool {
        true
    }

    fn is_body_empty(&mut self) -> bool {
        true
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.response.as_deref()
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {}

    // Whoever asks bounds the time.

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

    fn body_bytes_sent(&self) -> usize {
        0
    }

    fn body_bytes_read(&self) -> usize {
        0
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
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {}

    fn retry_buffer_truncated(&self) -> bool {
        false
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        None
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes, Box<Error>>> + Unpin + Send + Sync + 'static>>
    {
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
}
