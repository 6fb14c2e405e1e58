//! HTTP/2 connections: pingora's session code with its bounded defaults, each stream in a task that
//! knows its connection.

use super::app::Connection;
use super::downstream::{Deadline, Progress};
use crate::hub::Hub;
use crate::lanes::general::{GeneralLane, STREAM, StreamContext};
use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

/// One HTTP/2 connection as pingora's application: it hands every stream to the general lane.
pub(super) struct Http2 {
    proxy: Arc<HttpProxy<GeneralLane>>,
    connection: Arc<Connection>,
    options: HttpServerOptions,
}

impl Http2 {
    /// Serves the connection to its end.
    pub(super) async fn serve(
        proxy: Arc<HttpProxy<GeneralLane>>,
        connection: Arc<Connection>,
        hub: &Hub,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) {
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(connection.settings(&hub.snapshot()).idle_timeout);
        let app = Arc::new(Self {
            proxy,
            connection,
            options,
        });
        // An HTTP/2 connection is never handed back for reuse.
        let _never_reused = ServerApp::process_new(&app, stream, shutdown).await;
    }
}

#[async_trait]
impl HttpServerApp for Http2 {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let progress = Arc::new(Progress::default());
        let stream = StreamContext {
            connection: Arc::clone(&self.connection),
            progress: Arc::clone(&progress),
        };
        let mut serve = pin!(STREAM.scope(stream, self.proxy.process_new_http(session, shutdown)));
        let mut deadline = Deadline::default();
        std::future::poll_fn(|cx| {
            if let Poll::Ready(reused) = serve.as_mut().poll(cx) {
                return Poll::Ready(reused);
            }
            // Deadlines are armed while the stream is served, so they are looked at after it. Where
            // one has passed, dropping the stream resets it; the exchange is recorded all the same.
            deadline
                .poll(&progress, self.connection.epoch, cx)
                .map(|reason| {
                    progress.set_fault(reason);
                    None
                })
        })
        .await
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
