//! Listeners as pingora's services.

use crate::front::app::Front;
use crate::front::listener::BoundListener;
use crate::hub::Hub;
use crate::lanes::general::GeneralLane;
use crate::lanes::general::errand::Errands;
use parking_lot::Mutex;
use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ListenFds};
use pingora::services::Service as _;
use pingora::services::listening::Service;
use std::io;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Idle upstream connections that a process keeps. pingora's default of 128 closes and opens
/// connections all the time under load.
const UPSTREAM_POOL: usize = 4_096;
/// Tries of one request, each kind of which has a bound of its own: the first, one on another endpoint, two
/// for pooled connections that turned out to be closed; and as many on the old colour of a rollout.
const TRIES_MAX: usize = 8;

/// Serves sockets: one pool of upstream connections for all of them.
#[derive(Clone)]
pub(super) struct Server {
    hub: Arc<Hub>,
    proxy: Arc<HttpProxy<GeneralLane>>,
}

impl Server {
    pub(super) fn new(hub: &Arc<Hub>) -> Self {
        let conf = ServerConf {
            upstream_keepalive_pool_size: UPSTREAM_POOL,
            max_retries: TRIES_MAX,
            ..ServerConf::default()
        };
        let lane = GeneralLane::new(Arc::clone(hub));
        Self {
            hub: Arc::clone(hub),
            proxy: Arc::new(http_proxy(&Arc::new(conf), lane)),
        }
    }

    /// Requests of our own, by the same pool. `data` is the runtime of clients' requests.
    pub(super) fn errands(&self, data: &Handle) -> Errands {
        let (hub, proxy) = (Arc::clone(&self.hub), Arc::clone(&self.proxy));
        Errands::new(hub, proxy, data.clone())
    }

    /// Takes connections of `bound`, by the settings of the listener with this position, until `stop` is
    /// true: the work of a task.
    pub(super) fn listen(
        &self,
        index: usize,
        bound: &Arc<BoundListener>,
        stop: watch::Receiver<bool>,
    ) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let address = bound.address.to_string();
        let mut fds = Fds::new();
        fds.add(address.clone(), bound.number()?);
        let fds: ListenFds = Arc::new(Mutex::new(fds));
        let front = Front {
            proxy: Arc::clone(&self.proxy),
            listener: index,
            bound: Arc::clone(bound),
            hub: Arc::clone(&self.hub),
        };
        let mut service = Service::new(format!("listener {}", bound.name), front);
        service
            .endpoints()
            .add_listener(ListenerConfig::tcp(address).l4_buffer(L4BufferSettings::unbuffered()));
        Ok(async move { service.start_service(Some(fds), stop, 1).await })
    }
}
