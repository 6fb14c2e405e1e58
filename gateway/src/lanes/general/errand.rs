//! Errands of the gateway's own, which go the way of clients' requests: the same headers, TLS, timeouts and
//! pool of connections.
//!
//! A gate that asked by other means would prove something about those means. And the pool belongs to
//! pingora's proxy and has no door but this one: a connection is in it because a request has used it, and
//! leaves it with one.

mod session;

pub(crate) use session::Answer;

use super::{Admitted, Asked, GeneralLane, HANDOVER};
use crate::front::app::Connection;
use crate::hub::Hub;
use crate::snapshot::Snapshot;
use crate::stages::{Arrival, Exchange, Target};
use bytes::Bytes;
use hub_config::runtime::{Colour, TenantIndex};
use hub_core::{Client, HeaderName, HeaderValue, Method, Reason, Refusal};
use pingora::apps::HttpServerApp as _;
use pingora::connectors::L4Connect;
use pingora::http::RequestHeader;
use pingora::prelude::HttpPeer;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::proxy::HttpProxy;
use pingora::{Error, ErrorType, OrErr as _, Result};
use session::OwnSession;
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// What an errand is about; each names an endpoint by its position in its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// To get an answer from it.
    Ask(usize),
    /// To close a connection to it that waits in the pool.
    Close(usize),
}

/// Runs errands.
#[derive(Clone)]
pub(crate) struct Errands {
    hub: Arc<Hub>,
    proxy: Arc<HttpProxy<GeneralLane>>,
    /// The runtime of clients' requests: pooled connections are watched from where they were made.
    data: Handle,
}

/// A request of the gateway's own, without a body.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) target: Target,
    /// Position of the endpoint.
    pub(crate) endpoint: usize,
    pub(crate) tenant: Option<TenantIndex>,
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Longest time to the end of the answer.
    pub(crate) longest: Duration,
}

/// Connects to nothing: an errand that closes pooled connections must make no new one.
#[derive(Debug)]
struct NoNewConnection;

/// Errands after which nobody looks for more connections to an endpoint: more than the pool holds.
const CLOSES_MAX: usize = 4_096;
/// Longest wait for pooled connections to be closed, by endpoint.
const CLOSE_MAX: Duration = Duration::from_secs(10);

impl std::fmt::Debug for Errands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Errands")
    }
}

// === impl Errand ===

impl Errand {
    /// Picks its endpoint.
    pub(super) fn pick(self, exchange: &mut Exchange) -> Result<(), Refusal> {
        let (Self::Ask(index) | Self::Close(index)) = self;
        let target = exchange.target;
        exchange.pick = target.and_then(|target| {
            let clusters = &exchange.snapshot.clusters;
            clusters.pick_at(target.cluster, target.colour, index)
        });
        match exchange.pick {
            Some(_) => Ok(()),
            None => Err(Refusal::new(Reason::NoEndpoint)),
        }
    }

    /// Changes the peer for it.
    pub(super) fn prepare(self, peer: &mut HttpPeer) {
        if let Self::Close(_) = self {
            peer.options.custom_l4 = Some(Arc::new(NoNewConnection));
        }
    }
}

#[async_trait::async_trait]
impl L4Connect for NoNewConnection {
    async fn connect(&self, _address: &SocketAddr) -> Result<Stream> {
        Error::e_explain(ErrorType::ConnectNoRoute, "the pool holds no more")
    }
}

// === impl Errands ===

impl Errands {
    pub(crate) fn new(hub: Arc<Hub>, proxy: Arc<HttpProxy<GeneralLane>>, data: Handle) -> Self {
        Self { hub, proxy, data }
    }

    /// Asks `times` times at a time; each holds its connection until all are answered, so that as many are
    /// left in the pool.
    ///
    /// # Errors
    /// What kept the first that failed from its answer, as a sentence. The others are given up.
    pub(crate) async fn ask(
        &self,
        question: &Question,
        times: usize,
    ) -> Result<Vec<Answer>, String> {
        let together = Arc::new(Barrier::new(times));
        let mut asking = JoinSet::new();
        for _ in 0..times {
            let (errands, question) = (self.clone(), question.clone());
            let together = Arc::clone(&together);
            let ask = async move { errands.ask_once(question, together).await };
            asking.spawn_on(ask, &self.data);
        }
        let mut answers = Vec::with_capacity(times);
        while let Some(asked) = asking.join_next().await {
            answers.push(asked.map_err(|error| error.to_string())??);
        }
        Ok(answers)
    }

    async fn ask_once(self, question: Question, together: Arc<Barrier>) -> Result<Answer, String> {
        let errand = Errand::Ask(question.endpoint);
        let longest = question.longest;
        let request = question.request().map_err(|error| error.to_string())?;
        let (session, answer) = OwnSession::new(request, together);
        let served = self.serve(errand, &question, session);
        match tokio::time::timeout(longest, served).await {
            Ok(()) => answer.take(),
            Err(_) => Err(format!("no answer within {} ms", longest.as_millis())),
        }
    }

    /// Closes the connections to a colour's endpoints that wait in the pool.
    pub(crate) async fn close_pooled(&self, cluster: &str, colour: Colour) {
        let snapshot = self.hub.snapshot();
        let mut clusters = snapshot.config.clusters.iter();
        let Some(index) = clusters.position(|one| one.name == cluster) else {
            return;
        };
        for endpoint in 0..snapshot.clusters.endpoints(index, colour).len() {
            let (errands, snapshot) = (self.clone(), Arc::clone(&snapshot));
            let target = Target {
                cluster: index,
                colour,
            };
            let mut closing = JoinSet::new();
            let close = async move { errands.close_endpoint(snapshot, target, endpoint).await };
            closing.spawn_on(close, &self.data);
            // What is not closed by then idles out: the set ends its task when it goes.
            let _late_or_panicked = tokio::time::timeout(CLOSE_MAX, closing.join_next()).await;
        }
    }

    async fn close_endpoint(&self, snapshot: Arc<Snapshot>, target: Target, endpoint: usize) {
        let question = Question {
            snapshot,
            target,
            endpoint,
            tenant: None,
            method: Method::GET,
            path: "/".into(),
            host: String::new(),
            headers: Vec::new(),
            longest: CLOSE_MAX,
        };
        // pingora tries an errand a few times, each with another connection, until there is none.
        for _ in 0..CLOSES_MAX {
            let cluster = &question.snapshot.config.clusters[target.cluster].name;
            let present = self.hub.switchboard.present(cluster);
            if present.is_some_and(|one| one.is_watched() || one.routing.reaches(target.colour)) {
                // A rollout wants them.
                return;
            }
            let Ok(request) = question.request() else {
                return;
            };
            let (session, answer) = OwnSession::new(request, Arc::new(Barrier::new(1)));
            self.serve(Errand::Close(endpoint), &question, session)
                .await;
            if !answer.has_more() {
                return;
            }
        }
    }

    /// Has the lane serve it.
    async fn serve(&self, errand: Errand, question: &Question, session: OwnSession) {
        let connection = Arc::new(Connection::own(&self.hub));
        let arrival = Arrival {
            listener: connection.listener,
            scheme: connection.scheme,
            at: Instant::now(),
            client: Client {
                address: connection.source.ip(),
                peer: connection.peer,
            },
            forwarded_for: HeaderValue::from_static("127.0.0.1"),
        };
        let exchange = Exchange::errand(
            &self.hub,
            Arc::clone(&question.snapshot),
            arrival,
            question.tenant,
            question.target,
        );
        let admitted = Box::new(Admitted {
            exchange,
            connection,
            progress: Arc::default(),
            asked: Asked {
                method: question.method.clone(),
                target: Bytes::copy_from_slice(question.path.as_bytes()),
                host: None,
                user_agent: None,
                origin: None,
            },
            outgoing: None,
            spare: Duration::ZERO,
            errand: Some(errand),
        });
        let shutdown = self.hub.lifecycle().stop();
        let session = ServerSession::new_custom(Box::new(session));
        let served = self.proxy.process_new_http(session, &shutdown);
        // A session of our own is never reused.
        let _none = HANDOVER.scope(Cell::new(Some(admitted)), served).await;
    }
}

// === impl Question ===

impl Question {
    fn request(&self) -> Result<RequestHeader> {
        let target = self.path.as_bytes();
        let mut request = RequestHeader::build(self.method.clone(), target, None)?;
        let host = HeaderValue::from_str(&self.host)
            .or_err(ErrorType::InvalidHTTPHeader, "the host of an errand")?;
        request.insert_header(http::header::HOST, host)?;
        request.insert_header(http::header::USER_AGENT, "hub-gateway-gate")?;
        request.insert_header(http::header::ACCEPT, "*/*")?;
        for (name, value) in &self.headers {
            request.append_header(name.clone(), value.clone())?;
        }
        Ok(request)
    }
}
