//! pingora-proxy's downstream session, as its trait wants it.

use super::Http1Session;
use ::pingora::Result;
use ::pingora::http::{RequestHeader, ResponseHeader};
use ::pingora::protocols::Digest;
use ::pingora::protocols::http::HttpTask;
use ::pingora::protocols::http::custom::CustomMessageWrite;
use ::pingora::protocols::http::custom::server::Session as CustomSession;
use ::pingora::protocols::l4::socket::SocketAddr;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::{HeaderMap, header};
use std::time::Duration;

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
                    self.terms.keep_alive = false;
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
        self.terms.body.is_done() && self.terms.body.payload() == 0
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
        false
    }

    fn was_upgraded(&self) -> bool {
        false
    }
}
