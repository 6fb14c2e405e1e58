//! Which route a request takes.
//!
//! Candidates are tried from the most to the least specific, and the first whose method and header
//! conditions hold is taken, so a host or path that matches better hides nothing that it does not
//! itself answer:
//!
//! 1. host: exact, then `*.` wildcards from the longest suffix to the shortest, then routes for any;
//! 2. path: exact, then templates, then prefixes from the longest to the shortest. Two templates
//!    are compared segment by segment from the left: text before `{one}` before `{*rest}`;
//! 3. method: listed, then any;
//! 4. headers: more conditions, then fewer;
//! 5. what is still equal goes by the order of the file.
//!
//! `{one}` takes a segment of at least one byte. `{*rest}` takes everything after a slash, which may
//! be nothing: `/files/{*rest}` matches `/files/` and not `/files`. A header condition holds where any
//! field of that name has the value.
//!
//! ```
//! use hub_config::runtime::{PathPattern, Segment};
//! use hub_gateway::router::{RoutePattern, Router, segment};
//!
//! let path = PathPattern::Template(vec![Segment::Literal("l".into()), Segment::One("id".into())]);
//! let router = Router::from_patterns([RoutePattern::any(&path)]);
//! assert_eq!(router.len(), 1);
//! assert_eq!(&"/l/abc"[segment("/l/abc", 1).unwrap()], "abc");
//! ```
//!
//! Cost: one hash of the host, one of the path, and one of each segment for as far as a template or
//! prefix goes; a route that shares host and path with others adds a comparison. No allocation, except
//! to say which methods are allowed.

mod hosts;
mod trie;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hosts::Hosts;
use hub_config::runtime::{self, HostPattern, PathPattern};
use hub_core::{HeaderName, HeaderValue, Method, RequestView};
use std::hash::BuildHasher;
use std::ops::Range;
use trie::{NodeId, Trie};

/// All routes of a snapshot, indexed. Immutable.
#[derive(Debug)]
pub struct Router {
    hosts: Hosts,
    sites: Vec<Site>,
    exact: HashTable<ExactPath>,
    exact_hasher: RandomState,
    trie: Trie,
    conditions: Vec<Conditions>,
}

/// What a route matches, apart from what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutePattern<'p> {
    /// Empty: any host.
    pub hosts: &'p [HostPattern],
    /// The path.
    pub path: &'p PathPattern,
    /// Empty: any method.
    pub methods: &'p [Method],
    /// All must be there; `None` for any value.
    pub headers: &'p [(HeaderName, Option<HeaderValue>)],
}

/// What was found for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The route with this position among those that the router was built from.
    Found {
        /// The position.
        route: usize,
    },
    /// Routes match host, path and headers, but none takes the method.
    MethodNotAllowed {
        /// Methods that would be taken, by name and without repetition; at least one.
        allowed: Vec<Method>,
    },
    /// Nothing matches.
    None,
}

/// Position of a host pattern's own routes in [`Router::sites`].
type SiteId = u32;
/// Position of a route.
type RouteId = u32;

/// The routes of one host pattern.
#[derive(Debug)]
struct Site {
    templates: NodeId,
    prefixes: NodeId,
}

/// The routes of one site and path, in the order in which they are tried.
#[derive(Debug)]
struct ExactPath {
    site: SiteId,
    path: Box<str>,
    routes: Vec<RouteId>,
}

/// What is left to hold when host and path match.
#[derive(Debug)]
struct Conditions {
    methods: Box<[Method]>,
    headers: Box<[(HeaderName, Option<HeaderValue>)]>,
}

/// Bytes of `path` that a template's segment with this position stands for, for `{one}` and text.
/// `None` where the path is shorter.
///
/// Every segment of a template but a last `{*rest}` takes exactly one of the path, so a capture needs
/// no storage: it is the segment with the same position.
pub fn segment(path: &str, index: usize) -> Option<Range<usize>> {
    let mut start = 1;
    for _ in 0..index {
        start += path.get(start..)?.find('/')? + 1;
    }
    let rest = path.get(start..)?;
    Some(start..start + rest.find('/').unwrap_or(rest.len()))
}

// === impl Router ===

impl Router {
    /// Indexes `routes`. A route's position in `routes` is what [`Router::find`] tells.
    pub fn build(routes: &[runtime::Route]) -> Self {
        Self::from_patterns(routes.iter().map(RoutePattern::from))
    }

    /// Indexes what is left of routes when only their matches are looked at.
    pub fn from_patterns<'p>(patterns: impl IntoIterator<Item = RoutePattern<'p>>) -> Self {
        let mut router = Self {
            hosts: Hosts::default(),
            sites: Vec::new(),
            exact: HashTable::new(),
            exact_hasher: RandomState::default(),
            trie: Trie::default(),
            conditions: Vec::new(),
        };
        for (route, pattern) in patterns.into_iter().enumerate() {
            let route =
                RouteId::try_from(route).expect("a configuration holds fewer than 2^32 routes");
            router.conditions.push(Conditions {
                methods: pattern.methods.into(),
                headers: pattern.headers.into(),
            });
            if pattern.hosts.is_empty() {
                router.insert(None, pattern.path, route);
            }
            for host in pattern.hosts {
                router.insert(Some(host), pattern.path, route);
            }
        }
        router.sort();
        router
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.conditions.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Finds the route of a request by host, path, method and headers.
    pub fn find(&self, view: &RequestView<'_>) -> Match {
        let mut other_method = false;
        let found = self.walk(view.host, view.path, &mut |routes| {
            routes.iter().copied().find(|route| {
                let conditions = &self.conditions[*route as usize];
                let method = conditions.take_method(view.method);
                // Headers decide even where the method does not fit: what another header would be
                // needed for is not there for this client.
                let fits = (method || !other_method) && conditions.hold_headers(view);
                other_method |= fits && !method;
                fits && method
            })
        });
        match found {
            Some(route) => Match::Found {
                route: route as usize,
            },
            None if other_method => Match::MethodNotAllowed {
                allowed: self.allowed(view),
            },
            None => Match::None,
        }
    }

    /// A second walk, since requests with a wrong method are rare and all others should not pay.
    #[cold]
    fn allowed(&self, view: &RequestView<'_>) -> Vec<Method> {
        let mut allowed: Vec<Method> = Vec::new();
        let none: Option<()> = self.walk(view.host, view.path, &mut |routes| {
            for route in routes {
                let conditions = &self.conditions[*route as usize];
                if conditions.hold_headers(view) {
                    allowed.extend_from_slice(&conditions.methods);
                }
            }
            None
        });
        debug_assert!(none.is_none(), "this walk never ends early");
        allowed.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        allowed.dedup();
        allowed
    }

    /// Shows all routes that match host and path, from the most to the least specific, until `visit`
    /// is content.
    fn walk<T>(
        &self,
        host: &str,
        path: &str,
        visit: &mut impl FnMut(&[RouteId]) -> Option<T>,
    ) -> Option<T> {
        let below_root = path.strip_prefix('/');
        self.hosts.walk(host, &mut |site| {
            if let Some(exact) = self.exact_path(site, path)
                && let Some(found) = visit(&exact.routes)
            {
                return Some(found);
            }
            // `*`, as in `OPTIONS *`, is no path that a pattern could be about.
            let below_root = below_root?;
            let site = &self.sites[site as usize];
            self.trie
                .walk(site.templates, below_root, visit)
                .or_else(|| self.trie.walk(site.prefixes, below_root, visit))
        })
    }

    fn exact_path(&self, site: SiteId, path: &str) -> Option<&ExactPath> {
        if self.exact.is_empty() {
            return None;
        }
        self.exact
            .find(self.exact_hasher.hash_one((site, path)), |exact| {
                exact.site == site && *exact.path == *path
            })
    }

    fn insert(&mut self, host: Option<&HostPattern>, path: &PathPattern, route: RouteId) {
        let next =
            SiteId::try_from(self.sites.len()).expect("there are fewer than 2^32 host patterns");
        let site = self.hosts.insert(host, next);
        if site == next {
            self.sites.push(Site {
                templates: self.trie.root(),
                prefixes: self.trie.root(),
            });
        }
        let Site {
            templates,
            prefixes,
        } = self.sites[site as usize];
        match path {
            PathPattern::Exact(path) => self.insert_exact(site, path, route),
            PathPattern::Template(segments) => {
                self.trie.insert_template(templates, segments, route)
            }
            PathPattern::Prefix(path) => self.trie.insert_prefix(prefixes, path, route),
        }
    }

    fn insert_exact(&mut self, site: SiteId, path: &str, route: RouteId) {
        let hasher = &self.exact_hasher;
        let hash = |site: SiteId, path: &str| hasher.hash_one((site, path));
        self.exact
            .entry(
                hash(site, path),
                |exact| exact.site == site && *exact.path == *path,
                |exact| hash(exact.site, &exact.path),
            )
            .or_insert_with(|| ExactPath {
                site,
                path: path.into(),
                routes: Vec::new(),
            })
            .into_mut()
            .routes
            .push(route);
    }

    /// Puts routes of the same host and path into the order in which they are tried.
    fn sort(&mut self) {
        let conditions = &self.conditions;
        let by_specificity = |routes: &mut Vec<RouteId>| {
            routes.sort_by_key(|route| {
                let conditions = &conditions[*route as usize];
                let any_method = conditions.methods.is_empty();
                (any_method, usize::MAX - conditions.headers.len(), *route)
            });
            // A route that lists the same host twice is still one route.
            routes.dedup();
        };
        self.exact
            .iter_mut()
            .for_each(|exact| by_specificity(&mut exact.routes));
        self.trie.for_each_list(by_specificity);
    }
}

// === impl RoutePattern ===

impl<'p> RoutePattern<'p> {
    /// A path on any host, with any method and any headers.
    pub fn any(path: &'p PathPattern) -> Self {
        Self {
            hosts: &[],
            path,
            methods: &[],
            headers: &[],
        }
    }
}

impl<'p> From<&'p runtime::Route> for RoutePattern<'p> {
    fn from(route: &'p runtime::Route) -> Self {
        Self {
            hosts: &route.hosts,
            path: &route.path,
            methods: &route.methods,
            headers: &route.headers,
        }
    }
}

// === impl Conditions ===

impl Conditions {
    fn take_method(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    fn hold_headers(&self, view: &RequestView<'_>) -> bool {
        self.headers.iter().all(|(name, wanted)| {
            let mut values = view.headers.get_all(name.as_str());
            match wanted {
                None => values.next().is_some(),
                Some(wanted) => values.any(|value| value == wanted.as_bytes()),
            }
        })
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
