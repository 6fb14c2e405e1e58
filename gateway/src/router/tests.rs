use super::testing::Request;
use super::*;
use hub_config::runtime::Segment;

mod linear;

/// A route that owns its parts.
#[derive(Clone, Debug)]
struct Entry {
    hosts: Vec<HostPattern>,
    path: PathPattern,
    methods: Vec<Method>,
    headers: Vec<(HeaderName, Option<HeaderValue>)>,
}

impl Entry {
    fn exact(path: &str) -> Self {
        Self::of(PathPattern::Exact(path.into()))
    }

    fn prefix(path: &str) -> Self {
        Self::of(PathPattern::Prefix(path.into()))
    }

    fn template(path: &str) -> Self {
        let segments = path[1..].split('/').map(|segment| {
            match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
                None => Segment::Literal(segment.into()),
                Some(name) => match name.strip_prefix('*') {
                    None => Segment::One(name.into()),
                    Some(name) => Segment::Rest(name.into()),
                },
            }
        });
        Self::of(PathPattern::Template(segments.collect()))
    }

    fn of(path: PathPattern) -> Self {
        Self {
            hosts: Vec::new(),
            path,
            methods: Vec::new(),
            headers: Vec::new(),
        }
    }

    fn host(mut self, host: &str) -> Self {
        self.hosts.push(match host.strip_prefix('*') {
            None => HostPattern::Exact(host.into()),
            Some(suffix) => HostPattern::Wildcard(suffix.into()),
        });
        self
    }

    fn method(mut self, method: Method) -> Self {
        self.methods.push(method);
        self
    }

    fn header(mut self, name: &'static str, value: Option<&'static str>) -> Self {
        let value = value.map(HeaderValue::from_static);
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    fn pattern(&self) -> RoutePattern<'_> {
        RoutePattern {
            hosts: &self.hosts,
            path: &self.path,
            methods: &self.methods,
            headers: &self.headers,
        }
    }
}

fn router(entries: &[Entry]) -> Router {
    Router::from_patterns(entries.iter().map(Entry::pattern))
}

fn find(router: &Router, request: &Request) -> Match {
    request.with(|view| router.find(view))
}

/// The route that each path of `table` leads to.
fn assert_paths(entries: &[Entry], table: &[(&str, Option<usize>)]) {
    let router = router(entries);
    for (path, route) in table {
        let wanted = route.map_or(Match::None, |route| Match::Found { route });
        assert_eq!(find(&router, &Request::new("h", path)), wanted, "{path}");
    }
}

#[test]
fn a_prefix_matches_whole_segments_and_the_longest_wins() {
    let entries = [
        Entry::prefix("/"),
        Entry::prefix("/api"),
        Entry::prefix("/api/v1"),
    ];
    assert_paths(
        &entries,
        &[
            ("/", Some(0)),
            ("/apix", Some(0)),
            ("/api", Some(1)),
            ("/api/", Some(1)),
            ("/api/v2", Some(1)),
            ("/api/v1", Some(2)),
            ("/api/v1/x/y", Some(2)),
            ("*", None),
        ],
    );
}

#[test]
fn an_exact_path_beats_a_template_and_a_template_a_prefix() {
    let entries = [
        Entry::prefix("/a/b"),
        Entry::template("/{x}/b"),
        Entry::exact("/a/b"),
    ];
    assert_paths(
        &entries,
        &[
            ("/a/b", Some(2)),
            ("/c/b", Some(1)),
            ("/a/b/c", Some(0)),
            ("/a/b/", Some(0)),
        ],
    );
}

#[test]
fn templates_are_compared_segment_by_segment_from_the_left() {
    let entries = [
        Entry::template("/{*rest}"),
        Entry::template("/{x}/b"),
        Entry::template("/a/{y}"),
        Entry::template("/a/{*rest}"),
        Entry::template("/a/{y}/c"),
    ];
    assert_paths(
        &entries,
        &[
            ("/a/b", Some(2)),
            ("/x/b", Some(1)),
            ("/x/c", Some(0)),
            ("/a/b/c", Some(4)),
            ("/a/b/d", Some(3)),
            ("/a/", Some(3)),
            ("/a", Some(0)),
            ("/", Some(0)),
        ],
    );
}

#[test]
fn one_takes_no_empty_segment_and_rest_takes_an_empty_one() {
    let entries = [Entry::template("/l/{id}"), Entry::template("/f/{*rest}")];
    assert_paths(
        &entries,
        &[
            ("/l/", None),
            ("/l/x", Some(0)),
            ("/l/x/", None),
            ("/f", None),
            ("/f/", Some(1)),
        ],
    );
}

#[test]
fn an_exact_host_beats_wildcards_and_the_longest_of_those_wins() {
    let entries = [
        Entry::prefix("/"),
        Entry::prefix("/").host("*.example.com"),
        Entry::prefix("/").host("*.eu.example.com"),
        Entry::prefix("/")
            .host("www.example.com")
            .host("example.com"),
    ];
    let router = router(&entries);
    for (host, route) in [
        ("other.org", 0),
        ("notexample.com", 0),
        ("a.example.com", 1),
        ("a.b.example.com", 1),
        ("eu.example.com", 1),
        ("a.eu.example.com", 2),
        ("www.example.com", 3),
        ("example.com", 3),
        (".example.com", 0),
    ] {
        assert_eq!(
            find(&router, &Request::new(host, "/x")),
            Match::Found { route },
            "{host}"
        );
    }
}

#[test]
fn what_a_better_host_or_path_does_not_answer_falls_to_the_next() {
    let entries = [
        Entry::exact("/a").host("h").method(Method::PUT),
        Entry::template("/{x}").host("h").header("x-a", Some("1")),
        Entry::prefix("/a"),
    ];
    let router = router(&entries);
    let get = Request::new("h", "/a");
    assert_eq!(find(&router, &get), Match::Found { route: 2 });
    assert_eq!(
        find(&router, &get.clone().header("X-A", "1")),
        Match::Found { route: 1 }
    );
    let put = get.header("x-a", "1").method(Method::PUT);
    assert_eq!(find(&router, &put), Match::Found { route: 0 });
}

#[test]
fn a_listed_method_beats_any_and_more_headers_beat_fewer() {
    let entries = [
        Entry::exact("/a"),
        Entry::exact("/a").header("x-a", None),
        Entry::exact("/a")
            .header("x-a", None)
            .header("x-b", Some("1")),
        Entry::exact("/a").method(Method::GET),
    ];
    let router = router(&entries);
    let post = Request::new("h", "/a").method(Method::POST);
    assert_eq!(find(&router, &post), Match::Found { route: 0 });
    let post = post.header("x-a", "");
    assert_eq!(find(&router, &post), Match::Found { route: 1 });
    let post = post.header("x-b", "2").header("X-B", "1");
    assert_eq!(find(&router, &post), Match::Found { route: 2 });
    assert_eq!(
        find(&router, &post.method(Method::GET)),
        Match::Found { route: 3 }
    );
}

#[test]
fn methods_of_every_route_that_would_match_are_told() {
    let entries = [
        Entry::exact("/a").host("h").method(Method::PUT),
        Entry::prefix("/").method(Method::GET).method(Method::PUT),
        Entry::prefix("/a")
            .method(Method::DELETE)
            .header("x-a", None),
    ];
    let router = router(&entries);
    let post = Request::new("h", "/a").method(Method::POST);
    let allowed = vec![Method::GET, Method::PUT];
    assert_eq!(find(&router, &post), Match::MethodNotAllowed { allowed });
    let allowed = vec![Method::DELETE, Method::GET, Method::PUT];
    assert_eq!(
        find(&router, &post.header("x-a", "")),
        Match::MethodNotAllowed { allowed }
    );
}

#[test]
fn equal_routes_go_by_the_order_of_the_file() {
    let entries = [
        Entry::exact("/a").header("x-b", None),
        Entry::exact("/a").header("x-a", None),
    ];
    let request = Request::new("h", "/a").header("x-a", "").header("x-b", "");
    assert_eq!(find(&router(&entries), &request), Match::Found { route: 0 });
}

#[test]
fn an_empty_router_matches_nothing() {
    let router = router(&[]);
    assert!(router.is_empty());
    assert_eq!(find(&router, &Request::new("", "")), Match::None);
}

#[test]
fn segments_are_counted_from_the_first_slash() {
    let path = "/ab/c//d";
    let text = |index| segment(path, index).map(|range| &path[range]);
    assert_eq!(text(0), Some("ab"));
    assert_eq!(text(1), Some("c"));
    assert_eq!(text(2), Some(""));
    assert_eq!(text(3), Some("d"));
    assert_eq!(text(4), None);
    assert_eq!(segment("*", 1), None);
    assert_eq!(segment("", 0), None);
}
