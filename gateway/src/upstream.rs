//! Clusters at run time: which endpoint takes the next request.
//!
//! [`Clusters`] belongs to one snapshot; the [`Endpoint`]s in it are shared with the snapshots before
//! and after, so that a reload keeps what is known of them. Picking allocates nothing and takes no
//! lock; health is found out elsewhere (`checks`) and read here as one atomic.
//!
//! Whom a pick may go to, best first:
//! 1. usable endpoints other than the one tried before,
//! 2. usable endpoints,
//! 3. where none is usable: any, other than the one tried before,
//! 4. any.
//!
//! An endpoint is usable until its checks say otherwise. Step 3 is Envoy's panic mode with a threshold
//! of zero: when checks say that everything is down, the checks are as likely at fault as the
//! endpoints, and refusing all traffic would make sure of the outage. [`Clusters::fails_open`] shows it.
//!
//! Invariant: a cluster's endpoints have the positions that they have in the configuration.

mod checks;
mod connect;
mod endpoint;
mod health;
mod probe;

pub(crate) use connect::Wire;
pub use endpoint::{Endpoint, EndpointView, Pick};
pub use health::Health;

use checks::{Checks, Settings};
use hub_config::runtime::{self, Balance, Colour, Config, EndpointAddress};
use rand::Rng;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How often two endpoints are drawn before all are looked at. With half of them unusable, four draws
/// miss in one pick of three.
const DRAWS: usize = 4;

/// All clusters of a snapshot, in the order of the configuration.
#[derive(Debug)]
pub struct Clusters {
    clusters: Vec<Cluster>,
    checks: Arc<Checks>,
}

/// One cluster.
#[derive(Debug)]
struct Cluster {
    name: String,
    balance: Balance,
    blue: Pool,
    green: Pool,
    check: Option<Arc<Settings>>,
    /// For connections of our own; made for the first.
    tls: tokio::sync::OnceCell<Option<Result<probe::Tls, String>>>,
}

/// The endpoints of one colour.
#[derive(Debug, Default)]
struct Pool {
    endpoints: Vec<Arc<Endpoint>>,
    cursor: AtomicUsize,
}

/// What a cluster is built from.
#[derive(Debug)]
struct Plan {
    name: String,
    balance: Balance,
    blue: Vec<(String, EndpointAddress)>,
    green: Vec<(String, EndpointAddress)>,
    check: Option<Settings>,
}

/// Whom a pick may go to.
#[derive(Clone, Copy, Debug)]
struct Scope {
    usable_only: bool,
    tried_too: bool,
}

/// Best first; see the module.
const SCOPES: [Scope; 4] = [
    Scope {
        usable_only: true,
        tried_too: false,
    },
    Scope {
        usable_only: true,
        tried_too: true,
    },
    Scope {
        usable_only: false,
        tried_too: false,
    },
    Scope {
        usable_only: false,
        tried_too: true,
    },
];

// === impl Clusters ===

impl Clusters {
    /// Builds the clusters of a configuration. An endpoint that `previous` has in a cluster of that
    /// name, in that colour, at that address and under that name is the same endpoint: its health,
    /// latency and requests in flight go on.
    pub fn build(config: &Config, previous: Option<&Self>) -> Self {
        Self::assemble(config.clusters.iter().map(Plan::new), previous)
    }

    fn assemble(plans: impl Iterator<Item = Plan>, previous: Option<&Self>) -> Self {
        let known: HashMap<&str, &Cluster> = previous
            .into_iter()
            .flat_map(|previous| &previous.clusters)
            .map(|cluster| (cluster.name.as_str(), cluster))
            .collect();
        let clusters = plans
            .map(|plan| {
                let known = known.get(plan.name.as_str());
                Cluster {
                    blue: Pool::new(plan.blue, known.map(|cluster| &cluster.blue)),
                    green: Pool::new(plan.green, known.map(|cluster| &cluster.green)),
                    balance: plan.balance,
                    check: plan.check.map(Arc::new),
                    tls: tokio::sync::OnceCell::new(),
                    name: plan.name,
                }
            })
            .collect();
        Self {
            clusters,
            checks: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.checks)),
        }
    }

    /// Picks an endpoint and counts a request on it until the [`Pick`] is dropped. `cluster` is the
    /// cluster's position in the configuration, `tried` the pick of an earlier try that failed.
    ///
    /// `None` where the colour has no endpoint. Cost: a few atomic reads, two random numbers; with
    /// unusable endpoints, a look at each.
    pub fn pick(
        &self,
        cluster: usize,
        colour: Colour,
        tried: Option<&Pick>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<Pick> {
        let balance = self.clusters[cluster].balance;
        let pool = self.pool(cluster, colour);
        let tried = tried.map(Pick::endpoint);
        let index = match balance {
            Balance::RoundRobin => pool.next(tried),
            Balance::PeakEwma => pool.better_of_two(tried, now, rng),
        }?;
        let endpoint = &pool.endpoints[index];
        Some(Pick::new(endpoint, cluster, colour, index))
    }

    /// As [`Clusters::pick`], of the endpoint at this position in the configuration.
    pub(crate) fn pick_at(&self, cluster: usize, colour: Colour, index: usize) -> Option<Pick> {
        let endpoint = self.endpoints(cluster, colour).get(index)?;
        Some(Pick::new(endpoint, cluster, colour, index))
    }

    /// The endpoints of a colour of the cluster at this position, in the order of the configuration.
    pub fn endpoints(&self, cluster: usize, colour: Colour) -> &[Arc<Endpoint>] {
        &self.pool(cluster, colour).endpoints
    }

    /// True where every endpoint of the colour is unhealthy, so that all of them get traffic; false
    /// where there is none.
    pub fn fails_open(&self, cluster: usize, colour: Colour) -> bool {
        let endpoints = self.endpoints(cluster, colour);
        !endpoints.is_empty() && endpoints.iter().all(|endpoint| !endpoint.is_usable())
    }

    /// A connection of our own to the endpoint of `pick`, TLS handshake included. The caller bounds the time.
    /// The first one to a cluster with TLS may read the system's certificate store.
    ///
    /// # Errors
    /// It cannot be reached, or TLS cannot be agreed on.
    pub(crate) async fn connect(
        &self,
        config: &runtime::Cluster,
        pick: &Pick,
    ) -> std::io::Result<Wire> {
        let tls = &self.clusters[pick.cluster()].tls;
        let tls = tls
            .get_or_init(|| async {
                let settings = Settings::of(config).tls?;
                let made =
                    tokio::task::spawn_blocking(move || probe::Trust::default().tls(&settings));
                Some(made.await.unwrap_or_else(|error| Err(error.to_string())))
            })
            .await;
        connect::connect(pick.endpoint().address(), tls.as_ref()).await
    }

    /// Probes every endpoint of a colour once, as its health checks do, or where it has none, by
    /// connecting.
    ///
    /// # Errors
    /// What the first endpoint that fails says.
    pub(crate) async fn probe(
        &self,
        config: &runtime::Cluster,
        cluster: usize,
        colour: Colour,
    ) -> Result<(), String> {
        let settings = &Settings::of(config);
        for endpoint in self.endpoints(cluster, colour) {
            let outcome = checks::once(endpoint, settings).await;
            outcome.map_err(|error| format!("endpoint {}: {error}", endpoint.name()))?;
        }
        Ok(())
    }

    /// What every endpoint of a colour answers to its health check, by the endpoint's name.
    ///
    /// # Errors
    /// What the first endpoint that fails says.
    pub(crate) async fn documents(
        &self,
        config: &runtime::Cluster,
        cluster: usize,
        colour: Colour,
    ) -> Result<Vec<(String, Vec<u8>)>, String> {
        let settings = &Settings::of(config);
        let mut documents = Vec::new();
        for endpoint in self.endpoints(cluster, colour) {
            let document = probe::document(endpoint, settings).await;
            let document =
                document.map_err(|error| format!("endpoint {}: {error}", endpoint.name()))?;
            documents.push((endpoint.name().to_owned(), document));
        }
        Ok(documents)
    }

    /// Makes the running health checks those of these clusters: starts new ones on `runtime`, stops
    /// those of endpoints that are gone, restarts those whose settings changed, and leaves the rest
    /// alone. An endpoint that is no longer checked counts as usable again. May read the system's
    /// certificate store, which blocks for some milliseconds.
    ///
    /// Checks belong to the process: they go on after this value is dropped, as long as a later one
    /// built from it lives.
    pub fn start_health_checks(&self, runtime: &tokio::runtime::Handle) {
        let wanted = self.clusters.iter().flat_map(|cluster| {
            let colours = [("blue", &cluster.blue), ("green", &cluster.green)];
            let settings = cluster.check.as_ref();
            settings.into_iter().flat_map(move |settings| {
                colours.into_iter().flat_map(move |(colour, pool)| {
                    pool.endpoints.iter().map(move |endpoint| checks::Check {
                        cluster: &cluster.name,
                        colour,
                        endpoint,
                        settings,
                    })
                })
            })
        });
        self.checks.replace(wanted, runtime);
    }

    fn pool(&self, cluster: usize, colour: Colour) -> &Pool {
        let cluster = &self.clusters[cluster];
        match colour {
            Colour::Blue => &cluster.blue,
            Colour::Green => &cluster.green,
        }
    }
}

// === impl Plan ===

impl Plan {
    fn new(cluster: &runtime::Cluster) -> Self {
        let pairs = |endpoints: &[runtime::Endpoint]| {
            endpoints
                .iter()
                .map(|endpoint| (endpoint.name.clone(), endpoint.address.clone()))
                .collect()
        };
        Self {
            name: cluster.name.clone(),
            balance: cluster.balance,
            blue: pairs(&cluster.blue),
            green: pairs(&cluster.green),
            check: cluster
                .health
                .as_ref()
                .map(|health| Settings::new(health, cluster.tls.as_ref())),
        }
    }
}

// === impl Pool ===

impl Pool {
    fn new(endpoints: Vec<(String, EndpointAddress)>, known: Option<&Self>) -> Self {
        let known: HashMap<&EndpointAddress, &Arc<Endpoint>> = known
            .into_iter()
            .flat_map(|pool| &pool.endpoints)
            .map(|endpoint| (endpoint.address(), endpoint))
            .collect();
        let endpoints = endpoints
            .into_iter()
            .map(|(name, address)| match known.get(&address) {
                Some(endpoint) if endpoint.name() == name => Arc::clone(endpoint),
                Some(_) | None => Arc::new(Endpoint::new(name, address)),
            })
            .collect();
        Self {
            endpoints,
            cursor: AtomicUsize::new(0),
        }
    }

    /// Round robin. Where the endpoint whose turn it is may not be picked, the turn goes to one of the
    /// others in turn, so that its load is spread and does not all fall on its neighbour.
    fn next(&self, tried: Option<&Endpoint>) -> Option<usize> {
        let count = self.endpoints.len();
        let turn = self.cursor.fetch_add(1, Ordering::Relaxed);
        let index = turn.checked_rem(count)?;
        if SCOPES[0].holds(&self.endpoints[index], tried) {
            return Some(index);
        }
        let (scope, candidates) = self.candidates(tried)?;
        Some(self.nth(scope, tried, (turn / count) % candidates))
    }

    /// The one with less load of two different ones drawn at random ("power of two choices").
    fn better_of_two(
        &self,
        tried: Option<&Endpoint>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<usize> {
        let count = self.endpoints.len();
        if count < 2 {
            return (count == 1).then_some(0);
        }
        let fine = |index: usize| SCOPES[0].holds(&self.endpoints[index], tried);
        for _ in 0..DRAWS {
            let (a, b) = two_of(count, rng);
            if fine(a) && fine(b) {
                return Some(self.lighter(a, b, now));
            }
        }
        let (scope, candidates) = self.candidates(tried)?;
        let (a, b) = match candidates {
            1 => (0, 0),
            more => two_of(more, rng),
        };
        let (a, b) = (self.nth(scope, tried, a), self.nth(scope, tried, b));
        Some(self.lighter(a, b, now))
    }

    fn lighter(&self, a: usize, b: usize, now: Instant) -> usize {
        if self.endpoints[b].load(now) < self.endpoints[a].load(now) {
            b
        } else {
            a
        }
    }

    /// The best scope that anybody is in, and how many are.
    fn candidates(&self, tried: Option<&Endpoint>) -> Option<(Scope, usize)> {
        SCOPES.into_iter().find_map(|scope| {
            let endpoints = self.endpoints.iter();
            let count = endpoints.filter(|one| scope.holds(one, tried)).count();
            (count > 0).then_some((scope, count))
        })
    }

    /// Position of the `rank`th endpoint in a scope. Health may change between counting and choosing:
    /// then of the last in scope, or of the first at all, of a pool that is not empty.
    fn nth(&self, scope: Scope, tried: Option<&Endpoint>, rank: usize) -> usize {
        let positions = self.endpoints.iter().enumerate();
        let in_scope = positions.filter(|(_, endpoint)| scope.holds(endpoint, tried));
        let found = in_scope.map(|(index, _)| index).take(rank + 1).last();
        found.unwrap_or(0)
    }
}

/// Two different numbers below `count`, which is at least 2.
fn two_of(count: usize, rng: &mut impl Rng) -> (usize, usize) {
    let a = rng.random_range(0..count);
    let b = rng.random_range(0..count - 1);
    (a, if b < a { b } else { b + 1 })
}

// === impl Scope ===

impl Scope {
    fn holds(self, endpoint: &Endpoint, tried: Option<&Endpoint>) -> bool {
        (!self.usable_only || endpoint.is_usable())
            && (self.tried_too || tried.is_none_or(|tried| !std::ptr::eq(tried, endpoint)))
    }
}

#[cfg(test)]
mod tests;
