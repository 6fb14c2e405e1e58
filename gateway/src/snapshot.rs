//! The one value that the data plane reads: everything that must change together.

use crate::hub::Shared;
use crate::lanes::general::Peers;
use crate::limit::RuleState;
use crate::router::{RoutePattern, Router};
use crate::switch::plan::Routing;
use crate::switch::traffic::Generation;
use crate::telemetry::metrics::RouteKey;
use crate::telemetry::{RouteMetrics, UpstreamCounters};
use crate::tenant_state::TenantState;
use crate::upstream::Clusters;
use crate::websocket::open::RouteSockets;
use foldhash::fast::RandomState;
use hub_config::runtime::{Colour, Config, Listener, Route, Tenant, TenantIndex};
use hub_plugins::{Catalog, Plugin, Step};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

/// A checked configuration with all that was resolved from it, and who gets which colour. Immutable; only
/// counters, health and limits inside it move, and those are shared with the snapshots before and after.
#[derive(Debug)]
pub struct Snapshot {
    /// What a reload replaces; a change of colour shares it.
    tables: Arc<Tables>,
    /// Counts snapshots of this process, from 1.
    pub epoch: u64,
    /// Who gets which colour, by the cluster's position in the configuration.
    pub routing: Arc<[Arc<Generation>]>,
}

/// All that follows from a configuration.
#[derive(Debug)]
pub struct Tables {
    /// The configuration that the rest was built from.
    pub config: Config,
    /// When it was built.
    pub taken_at: SystemTime,
    /// Finds routes.
    pub router: Arc<Router>,
    /// State of clusters and endpoints.
    pub clusters: Clusters,
    /// State of routes, by the route's position in the configuration.
    pub routes: Vec<Arc<RouteState>>,
    /// State of tenants, by the tenant's index.
    pub tenants: Arc<Vec<Arc<TenantState>>>,
    /// Limits that every request is held to by its address.
    pub address_rules: Vec<RuleState>,
    /// Settings of the bound listeners, in the order in which they were bound.
    pub listeners: Vec<Arc<Listener>>,
    pub(crate) peers: Arc<Peers>,
    /// Connection counters by cluster and colour.
    upstreams: Vec<[Arc<UpstreamCounters>; 2]>,
    /// For requests that no route matched.
    pub(crate) unrouted: Arc<RouteMetrics>,
    /// Every plugin that a route uses, by name.
    plugins: BTreeMap<Arc<str>, Arc<dyn Plugin>>,
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
    /// Metric handles by cluster and colour, sorted; one or two entries, as a rule.
    metrics: Vec<((usize, Colour), Arc<RouteMetrics>)>,
    /// Where the route takes WebSockets.
    pub(crate) websocket: Option<Arc<RouteSockets>>,
    /// For requests that the gateway refused before a cluster was known.
    pub(crate) refused: Arc<RouteMetrics>,
}

impl std::ops::Deref for Snapshot {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        &self.tables
    }
}

impl Snapshot {
    /// This snapshot with another routing. Costs two reference counts.
    pub fn with_routing(&self, epoch: u64, routing: Arc<[Arc<Generation>]>) -> Self {
        Self {
            tables: Arc::clone(&self.tables),
            epoch,
            routing,
        }
    }

    /// Builds the snapshot that follows `previous`. What did not change is shared with it, so that a
    /// request that holds an old snapshot for long holds little. Cost: linear in routes and tenants;
    /// runs beside the data plane, never on it.
    pub fn build(mut config: Config, previous: Option<&Snapshot>, shared: &Shared) -> Self {
        let tenants = match previous.filter(|p| has_same_tenants(&p.config, &config)) {
            Some(previous) => {
                config.tenants = Arc::clone(&previous.config.tenants);
                Arc::clone(&previous.tenants)
            }
            None => Arc::new(tenants(&config, previous)),
        };
        let router = match previous.filter(|p| matches_alike(&p.config.routes, &config.routes)) {
            Some(previous) => Arc::clone(&previous.router),
            None => Arc::new(Router::build(&config.routes)),
        };
        let peers = match previous.filter(|p| p.config.clusters == config.clusters) {
            Some(previous) => Arc::clone(&previous.peers),
            None => Arc::new(Peers::build(&config.clusters)),
        };
        let routes = routes(&config, previous, shared);
        let plugins = config
            .routes
            .iter()
            .flat_map(|route| &route.plugins)
            .map(|plugin| (&plugin.name, &plugin.built))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .map(|(name, built)| (Arc::clone(name), Catalog::instance(built)))
            .collect();
        let routing = match previous {
            None => shared.switchboard.change().routing(&config),
            // What is only prepared must change nothing: the routing that counts is taken when it is put
            // in force.
            Some(previous) => previous.routing_for(&config),
        };
        let tables = Tables {
            taken_at: SystemTime::now(),
            clusters: Clusters::build(&config, previous.map(|p| &p.clusters)),
            peers,
            upstreams: config
                .clusters
                .iter()
                .map(|cluster| {
                    [Colour::Blue, Colour::Green]
                        .map(|c| shared.upstreams.counters(&cluster.name, colour_name(c)))
                })
                .collect(),
            address_rules: rules(&config, &config.address_limits),
            listeners: shared.in_bound_order(&config.listeners),
            unrouted: shared.metrics.route("-", "-", "-"),
            router,
            routes,
            tenants,
            plugins,
            config,
        };
        Self {
            tables: Arc::new(tables),
            epoch: previous.map_or(1, |p| p.epoch + 1),
            routing,
        }
    }

    /// This snapshot's routing for the clusters of another configuration.
    fn routing_for(&self, config: &Config) -> Arc<[Arc<Generation>]> {
        let known: HashMap<&str, &Arc<Generation>> = self
            .config
            .clusters
            .iter()
            .map(|cluster| cluster.name.as_str())
            .zip(self.routing.iter())
            .collect();
        let clusters = config.clusters.iter();
        clusters
            .map(|cluster| match known.get(cluster.name.as_str()) {
                Some(generation) => Arc::clone(generation),
                None => Arc::new(Generation::new(Routing::all(cluster.active), 0)),
            })
            .collect()
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

    /// What `old` counts requests of and this one does not.
    pub(crate) fn lacks_of(&self, old: &Self) -> Vec<RouteKey> {
        let handles = self.series().map(|(_, handles)| Arc::as_ptr(handles));
        let kept: HashSet<_, RandomState> = handles.collect();
        old.series()
            .filter(|(_, handles)| !kept.contains(&Arc::as_ptr(handles)))
            .map(|((route, cluster, colour), _)| RouteKey::new(route, cluster, colour))
            .collect()
    }

    /// Every handle that counts requests of a route, with its route, cluster and colour.
    fn series(&self) -> impl Iterator<Item = ((&str, &str, &str), &Arc<RouteMetrics>)> {
        let config = &self.config;
        let routes = config.routes.iter().zip(&self.routes);
        routes.flat_map(|(route, state)| {
            let by_cluster = state.metrics.iter().map(|((cluster, colour), handles)| {
                let cluster = config.clusters[*cluster].name.as_str();
                (
                    (route.name.as_str(), cluster, colour_name(*colour)),
                    handles,
                )
            });
            by_cluster.chain([((route.name.as_str(), "-", "-"), &state.refused)])
        })
    }

    /// Every plugin that a route uses, with its name.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = (&str, &dyn Plugin)> {
        self.plugins
            .iter()
            .map(|(name, plugin)| (&**name, &**plugin))
    }
}

impl RouteState {
    /// Handles for a cluster of this name in the snapshot that the route belongs to.
    fn handles_of(
        &self,
        snapshot: &Snapshot,
        cluster: &str,
        colour: Colour,
    ) -> Option<Arc<RouteMetrics>> {
        let is_it = |(index, other): (usize, Colour)| {
            other == colour && snapshot.config.clusters[index].name == cluster
        };
        let found = self.metrics.iter().find(|(key, _)| is_it(*key));
        found.map(|(_, handles)| Arc::clone(handles))
    }

    /// True where a credential is looked for.
    pub fn identifies(&self) -> bool {
        !self.identify.is_empty()
    }

    /// Handles for a cluster and colour that this route can reach.
    pub(crate) fn metrics(&self, cluster: usize, colour: Colour) -> Option<&Arc<RouteMetrics>> {
        let wanted = (cluster, colour as u8);
        let found = self
            .metrics
            .binary_search_by_key(&wanted, |((cluster, colour), _)| (*cluster, *colour as u8));
        found.ok().map(|at| &self.metrics[at].1)
    }
}

/// True where both have the same tenants in the same order.
fn has_same_tenants(old: &Config, new: &Config) -> bool {
    old.tenants.len() == new.tenants.len()
        && old
            .tenants
            .iter()
            .zip(new.tenants.iter())
            .all(|((_, old), (_, new))| old == new)
}

/// The state of each tenant: that of `previous` where it has the tenant.
fn tenants(config: &Config, previous: Option<&Snapshot>) -> Vec<Arc<TenantState>> {
    let mut same_place = previous.map(|previous| previous.config.tenants.iter());
    let mut state = |tenant: &Tenant| {
        let previous = previous?;
        // Most stand where they stood, which saves looking them up.
        let index = match same_place.as_mut().and_then(Iterator::next) {
            Some((index, known)) if known.id == tenant.id => index,
            _ => previous.config.tenants.get(tenant.id.as_ref())?,
        };
        Some(Arc::clone(previous.tenant(index)))
    };
    config
        .tenants
        .iter()
        .map(|(_, tenant)| state(tenant).unwrap_or_default())
        .collect()
}

/// True where the same requests match the routes at the same places.
fn matches_alike(old: &[Route], new: &[Route]) -> bool {
    old.len() == new.len()
        && old
            .iter()
            .zip(new)
            .all(|(old, new)| RoutePattern::from(old) == RoutePattern::from(new))
}

fn rules(config: &Config, limits: &[usize]) -> Vec<RuleState> {
    let rule = |index: &usize| RuleState::new(&config.limits[*index]);
    limits.iter().map(rule).collect()
}

/// The state of each route.
fn routes(config: &Config, previous: Option<&Snapshot>, shared: &Shared) -> Vec<Arc<RouteState>> {
    let overlays = overlay_clusters(config);
    let known = previous.map(KnownRoutes::new);
    let state = |(index, route): (usize, &Route)| {
        let plugins = route.plugins.iter();
        let (identify, filters) = plugins
            .map(|plugin| Catalog::instance(&plugin.built))
            .partition(|plugin| plugin.step() == Step::Identify);
        let known = known
            .as_ref()
            .and_then(|known| known.find(index, &route.name));
        let mut metrics: Vec<_> = std::iter::once(route.cluster)
            .chain(overlays.range((index, 0)..(index + 1, 0)).map(|(_, c)| *c))
            .flat_map(|cluster| [(cluster, Colour::Blue), (cluster, Colour::Green)])
            .filter(|(cluster, colour)| uses(config, *cluster, *colour))
            .map(|(cluster, colour)| {
                let name = &config.clusters[cluster].name;
                let handles = known
                    .and_then(|(previous, state)| state.handles_of(previous, name, colour))
                    .unwrap_or_else(|| {
                        shared.metrics.route(&route.name, name, colour_name(colour))
                    });
                ((cluster, colour), handles)
            })
            .collect();
        metrics.sort_unstable_by_key(|((cluster, colour), _)| (*cluster, *colour as u8));
        Arc::new(RouteState {
            identify,
            filters,
            rules: rules(config, &route.limits),
            websocket: route.websocket.as_ref().map(|settings| {
                let counters = shared.websockets.route(&route.name);
                Arc::new(RouteSockets::new(settings, counters))
            }),
            metrics,
            refused: known.map_or_else(
                || shared.metrics.route(&route.name, "-", "-"),
                |(_, state)| Arc::clone(&state.refused),
            ),
        })
    };
    config.routes.iter().enumerate().map(state).collect()
}

/// Finds routes of a snapshot by name.
struct KnownRoutes<'s> {
    snapshot: &'s Snapshot,
    by_name: OnceCell<HashMap<&'s str, usize, RandomState>>,
}

impl<'s> KnownRoutes<'s> {
    fn new(snapshot: &'s Snapshot) -> Self {
        Self {
            snapshot,
            by_name: OnceCell::new(),
        }
    }

    /// The route of this name, which probably stands where it stands in the new configuration.
    fn find(&self, place: usize, name: &str) -> Option<(&'s Snapshot, &'s RouteState)> {
        let routes = &self.snapshot.config.routes;
        let index = match routes.get(place) {
            Some(route) if route.name == name => place,
            _ => *self
                .by_name
                .get_or_init(|| {
                    let names = routes.iter().enumerate();
                    names.map(|(at, route)| (route.name.as_str(), at)).collect()
                })
                .get(name)?,
        };
        Some((self.snapshot, &self.snapshot.routes[index]))
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

#[cfg(test)]
mod tests;
