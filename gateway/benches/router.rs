//! Routing among 10,000 routes.

#[path = "shared/report.rs"]
mod report;

use criterion::Criterion;
use hub_config::runtime::{HostPattern, PathPattern, Segment};
use hub_core::{Client, HeaderField, Headers, Method, RequestId, RequestView, Scheme, Version};
use hub_gateway::router::{Match, RoutePattern, Router};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use report::{Figure, Samples};
use serde_json::json;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const ROUTES: usize = 10_000;
const SAMPLES: usize = 100_000;
const SEED: u64 = 20_260_101;

/// A route, and a request that it takes.
struct Entry {
    hosts: Vec<HostPattern>,
    path: PathPattern,
    methods: Vec<Method>,
    request: Request,
}

/// What is looked at of a request.
#[derive(Clone)]
struct Request {
    host: String,
    path: String,
}

fn main() {
    let entries = entries();
    let router = build(&entries);
    let mut order: Vec<usize> = (0..ROUTES).collect();
    order.shuffle(&mut StdRng::seed_from_u64(SEED));
    for (number, entry) in entries.iter().enumerate() {
        let found = find(&router, &entry.request);
        assert_eq!(
            found,
            Match::Found { route: number },
            "each request is its own route's"
        );
    }
    // Copies that lie one after the other: a real request has just been read, and waiting for its
    // bytes is no part of routing.
    let requests: Vec<Request> = order
        .iter()
        .map(|number| entries[*number].request.clone())
        .collect();
    criterion(&router, &entries, &requests);
    if report::is_measuring() {
        measure(&router, &entries, &requests);
    }
}

fn criterion(router: &Router, entries: &[Entry], requests: &[Request]) {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("router_10000");
    let mut number = 0;
    group.bench_function("find", |bencher| {
        bencher.iter(|| {
            number += 1;
            find(router, &requests[number % ROUTES])
        });
    });
    group.sample_size(20);
    group.bench_function("build", |bencher| {
        bencher.iter(|| build(black_box(entries)))
    });
    group.finish();
    criterion.final_summary();
}

fn measure(router: &Router, entries: &[Entry], requests: &[Request]) {
    let clock = Samples::take(SAMPLES, black_box);
    let found = Samples::take(SAMPLES, |number| {
        match find(router, &requests[number % ROUTES]) {
            Match::Found { route } => route,
            other => panic!("every request has a route: {other:?}"),
        }
    });
    let lost = Request {
        host: "nobody.example.org".into(),
        path: "/v1/service7/contacts/x/y/z".into(),
    };
    let missed = Samples::take(SAMPLES, |_| usize::from(find(router, &lost) == Match::None));
    let mut builds: Vec<Duration> = (0..11)
        .map(|_| {
            let started = Instant::now();
            black_box(build(black_box(entries)));
            started.elapsed()
        })
        .collect();
    builds.sort_unstable();
    let note = format!(
        "{ROUTES} routes on 200 hosts, 20 wildcards and any host; exact, template and prefix; one header; each \
         waits for the one before; the clock's {:.1} ns are included",
        clock.percentile(0.5)
    );
    let figure = |name, value, unit, floor, note: &str| Figure {
        name,
        value,
        unit,
        floor,
        note: note.to_owned(),
    };
    let figures = [
        figure(
            "route found among 10,000, p50",
            found.percentile(0.5),
            "ns",
            Some(500.0),
            &note,
        ),
        figure(
            "route found among 10,000, p99",
            found.percentile(0.99),
            "ns",
            None,
            &note,
        ),
        figure(
            "no route found among 10,000, p50",
            missed.percentile(0.5),
            "ns",
            None,
            &note,
        ),
        figure(
            "router of 10,000 routes built",
            builds[builds.len() / 2].as_secs_f64() * 1e3,
            "ms",
            Some(100.0),
            "median of 11",
        ),
    ];
    let raw = json!({
        "seed": SEED,
        "clock": clock.raw(),
        "found": found.raw(),
        "missed": missed.raw(),
        "build_seconds": builds.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(),
    });
    report::write("router", &figures, raw);
}

fn build(entries: &[Entry]) -> Router {
    Router::from_patterns(entries.iter().map(|entry| RoutePattern {
        hosts: &entry.hosts,
        path: &entry.path,
        methods: &entry.methods,
        headers: &[],
    }))
}

fn find(router: &Router, request: &Request) -> Match {
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    router.find(&RequestView {
        method: &Method::GET,
        version: Version::Http11,
        scheme: Scheme::Http,
        host: &request.host,
        path: &request.path,
        path_raw: &request.path,
        query: None,
        headers: Headers::new(&[HeaderField {
            name: b"x-location-id",
            value: b"ve9EPM428h8vShlRW1KT",
        }]),
        client: &Client {
            address: peer.ip(),
            peer,
        },
        request_id: &RequestId::new(0, [0; 10]),
    })
}

fn entries() -> Vec<Entry> {
    let mut rng = StdRng::seed_from_u64(SEED);
    (0..ROUTES).map(|number| entry(number, &mut rng)).collect()
}

fn entry(number: usize, rng: &mut StdRng) -> Entry {
    let (hosts, host) = match rng.random_range(0..10) {
        0..5 => (Vec::new(), "other.example.net".to_owned()),
        5..9 => {
            let host = format!("app{}.example.com", rng.random_range(0..200));
            (vec![HostPattern::Exact(host.clone())], host)
        }
        _ => {
            let suffix = format!(".region{}.example.com", rng.random_range(0..20));
            let host = format!("acme{suffix}");
            (vec![HostPattern::Wildcard(suffix)], host)
        }
    };
    let service = format!("service{number}");
    let text = |text: &str| Segment::Literal(text.to_owned());
    let (path, request_path) = match number % 3 {
        0 => {
            let path = format!("/v1/{service}/status");
            (PathPattern::Exact(path.clone()), path)
        }
        1 => {
            let path = format!("/v1/{service}");
            let below = format!("{path}/contacts/12345");
            (PathPattern::Prefix(path), below)
        }
        _ => (
            PathPattern::Template(vec![
                text("v1"),
                text(&service),
                Segment::One("location_id".into()),
                text("contacts"),
            ]),
            format!("/v1/{service}/ve9EPM428h8vShlRW1KT/contacts"),
        ),
    };
    Entry {
        hosts,
        path,
        methods: if rng.random_bool(0.5) {
            vec![Method::GET]
        } else {
            Vec::new()
        },
        request: Request {
            host,
            path: request_path,
        },
    }
}
