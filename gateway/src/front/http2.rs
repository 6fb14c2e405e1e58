//! HTTP/2 connections: pingora's session code with its bounded defaults, each stream in a task that
//! knows its connection.

use super::app::Connection;
use super::downstream::{Deadline, Downstream, Progress};
use super::loan::Loan;
use super::raw::Raw;
use crate::hub::Hub;
use crate::lanes::general::{GeneralLane, STREAM, StreamContext};
use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// One HTTP/2 connection as pingora's application: it hands every stream to the general lane.
pub(super) struct Http2 {
    proxy: Arc<HttpProxy<GeneralLane>>,
    connection: Arc<Connection>,
    hub: Arc<Hub>,
    options: HttpServerOptions,
}

/// What a client says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Http2 {
    /// Serves the connection to its end.
    pub(super) async fn serve(
        proxy: Arc<HttpProxy<GeneralLane>>,
        connection: Arc<Connection>,
        hub: &Arc<Hub>,
        mut downstream: Box<Downstream>,
        shutdown: &ShutdownWatch,
    ) {
        let (head_timeout, idle_timeout) = {
            let snapshot = hub.peek();
            let settings = connection.settings(&snapshot);
            (settings.head_timeout, settings.idle_timeout)
        };
        let idle_end = hub.lifecycle().idle_end();
        if !preface(&mut downstream, head_timeout, idle_end).await {
            return;
        }
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(idle_timeout);
        let app = Arc::new(Self {
            proxy,
            connection,
            hub: Arc::clone(hub),
            options,
        });
        let (stream, unread) = downstream.into_stream();
        let (stream, returned) = Loan::of(Box::new(Raw::new(stream, unread.to_vec())));
        // An HTTP/2 connection is never handed back for reuse.
        let _never_reused = ServerApp::process_new(&app, Box::new(stream), shutdown).await;
        // After our GOAWAY the client may still write its own; a closed socket would answer that with
        // RST, which can destroy what the client has not read yet.
        if let Ok(stream) = returned.await {
            Downstream::new(stream, &[], Instant::now(), head_timeout)
                .linger()
                .await;
        }
    }
}

/// Waits for the preface. False where it does not come in time, something else comes, or the process
/// drains: pingora would wait for it without end.
async fn preface(
    downstream: &mut Downstream,
    longest: Duration,
    mut shutdown: ShutdownWatch,
) -> bool {
    let read = async {
        loop {
            let said = downstream.stash();
            let count = said.len().min(PREFACE.len());
            if said[..count] != PREFACE[..count] {
                return false;
            }
            if count == PREFACE.len() {
                return true;
            }
            if !matches!(downstream.fill().await, Ok(1..)) {
                return false;
            }
        }
    };
    tokio::select! {
        biased;
        said = tokio::time::timeout(longest, read) => said.unwrap_or(false),
        _ = shutdown.wait_for(|stop| *stop) => false,
    }
}

#[async_trait]
impl HttpServerApp for Http2 {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let write_timeout = self.connection.settings(&self.hub.peek()).write_timeout;
        session.set_write_timeout(Some(write_timeout));
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
