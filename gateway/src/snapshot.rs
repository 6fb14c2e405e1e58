//! The one value that the data plane reads: everything that must change together.

use crate::hub::Shared;
use crate::lanes::general::Peers;
use crate::limit::RuleState;
use crate::router::Router;
use crate::telemetry::{RouteMetrics, UpstreamCounters};
use crate::tenant_state::TenantState;
use crate::upstream::Clusters;
use hub_config::runtime::{Colour, Config, Listener, TenantIndex};
use hub_plugins::{Plugin, Step};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

/// A checked configuration with all that was resolved from it. Immutable; only counters, health and
/// limits inside it move, and those are shared with the snapshots before and after.
#[derive(Debug)]
pub struct Snapshot {
    /// The configuration it was built from.
    pub config: Config,
    /// Counts snapshots of this process, from 1.
    pub epoch: u64,
    /// When it was built.
    pub taken_at: SystemTime,
    /// Finds routes.
    pub router: Router,
    /// State of clusters and endpoints.
    pub clusters: Clusters,
    /// State of routes, by the route's position in the configuration.
    pub routes: Vec<Arc<RouteState>>,
    /// State of tenants, by the tenant's index.
    pub tenants: Vec<Arc<TenantState>>,
    /// Limits that every request is held to by its address.
    pub address_rules: Vec<RuleState>,
    /// Settings of the bound listeners, in the order in which they were bound.
    pub listeners: Vec<Arc<Listener>>,
    pub(crate) peers: Peers,
    /// Connection counters by cluster and colour.
    upstreams: Vec<[Arc<UpstreamCounters>; 2]>,
    /// For requests that no route matched.
    pub(crate) unrouted: Arc<RouteMetrics>,
}

/// What a route needs at run time, resolved.
#[derive(Debug)]
pub struct RouteState {
    /// Plugins that establish an identity, in declared order.
    pub identify: Vec<Arc<dyn Plugin>>,
    /// Plugins that run after limits, in declared order.
    pub filters: Vec<Arc<dyn Plugin>>,
    /// The route's limits.
    pub rules: Vec<RuleState>,
    /// Metric handles by cluster and colour; one or two entries, as a rule.
    metrics: Vec<((usize, Colour), Arc<RouteMetrics>)>,
}

impl Snapshot {
    /// Builds the snapshot that follows `previous`. Cost: linear in routes and tenants; runs beside
    /// the data plane, never on it.
    pub fn build(config: Config, previous: Option<&Snapshot>, shared: &Shared) -> Self {
        let clusters = Clusters::build(&config, previous.map(|p| &p.clusters));
        let rule = |index: &usize| RuleState::new(&config.limits[*index]);
        let overlays = overlay_clusters(&config);
        let routes = config
            .routes
            .iter()
            .enumerate()
            .map(|(index, route)| {
                let plugins = route
                    .plugins
                    .iter()
                    .map(|plugin| hub_plugins::Catalog::instance(&plugin.built));
                let (identify, filters) =
                    plugins.partition(|plugin| plugin.step() == Step::Identify);
                let metrics = std::iter::once(route.cluster)
                    .chain(overlays.range((index, 0)..(index + 1, 0)).map(|(_, c)| *c))
                    .flat_map(|cluster| [(cluster, Colour::Blue), (cluster, Colour::Green)])
                    .filter(|(cluster, colour)| uses(&config, *cluster, *colour))
                    .map(|(cluster, colour)| {
                        let name = &config.clusters[cluster].name;
                        let handles = shared.metrics.route(&route.name, name, colour_name(colour));
                        ((cluster, colour), handles)
                    })
                    .collect();
                Arc::new(RouteState {
                    identify,
                    filters,
                    rules: route.limits.iter().map(rule).collect(),
                    metrics,
                })
            })
            .collect();
        let tenants = config
            .tenants
            .iter()
            .map(|(_, tenant)| {
                previous
                    .and_then(|p| p.state_of(tenant.id.as_ref()))
                    .cloned()
                    .unwrap_or_default()
            })
            .collect();
        Self {
            epoch: previous.map_or(1, |p| p.epoch + 1),
            taken_at: SystemTime::now(),
            router: Router::build(&config.routes),
            peers: Peers::build(&config.clusters),
            upstreams: config
                .clusters
                .iter()
                .map(|cluster| {
                    [Colour::Blue, Colour::Green]
                        .map(|c| shared.upstreams.counters(&cluster.name, colour_name(c)))
                })
                .collect(),
            address_rules: config.address_limits.iter().map(rule).collect(),
            listeners: shared.in_bound_order(&config.listeners),
            unrouted: shared.metrics.route("-", "-", "-"),
            clusters,
            routes,
            tenants,
            config,
        }
    }

    /// A tenant's counters and limits.
    pub fn tenant(&self, tenant: TenantIndex) -> &Arc<TenantState> {
        &self.tenants[tenant.as_usize()]
    }

    /// Connection counters of a colour.
    pub(crate) fn upstream(&self, cluster: usize, colour: Colour) -> &UpstreamCounters {
        let [blue, green] = &self.upstreams[cluster];
        match colour {
            Colour::Blue => blue,
            Colour::Green => green,
        }
    }

    fn state_of(&self, id: hub_core::LocationIdRef<'_>) -> Option<&Arc<TenantState>> {
        self.config.tenants.get(id).map(|index| self.tenant(index))
    }
}

impl RouteState {
    /// True where a credential is looked for.
    pub fn identifies(&self) -> bool {
        !self.identify.is_empty()
    }

    /// Handles for a cluster and colour that this route can reach.
    pub(crate) fn metrics(&self, cluster: usize, colour: Colour) -> Option<&Arc<RouteMetrics>> {
        self.metrics
            .iter()
            .find(|(key, _)| *key == (cluster, colour))
            .map(|(_, handles)| handles)
    }
}

/// Pairs (route, cluster) that tenants' overlays lead to.
fn overlay_clusters(config: &Config) -> BTreeSet<(usize, usize)> {
    config
        .tenants
        .iter()
        .filter_map(|(_, tenant)| tenant.overlay.as_deref())
        .flat_map(|overlay| overlay.clusters.iter().copied())
        .filter(|(route, cluster)| config.routes[*route].cluster != *cluster)
        .collect()
}

/// True where requests can reach this colour: it has endpoints or is the active one.
fn uses(config: &Config, cluster: usize, colour: Colour) -> bool {
    let cluster = &config.clusters[cluster];
    let endpoints = match colour {
        Colour::Blue => &cluster.blue,
        Colour::Green => &cluster.green,
    };
    cluster.active == colour || !endpoints.is_empty()
}

/// As labels and logs write a colour.
pub(crate) fn colour_name(colour: Colour) -> &'static str {
    match colour {
        Colour::Blue => "blue",
        Colour::Green => "green",
    }
}
