//! The router against a linear scan over all routes, on generated tables and requests.

use super::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;

const TABLES: usize = 3_000;
const REQUESTS: usize = 40;

/// Smaller is more specific. The parts are compared from the left: host, path, method, headers, order.
type Rank = ((u8, usize), (u8, Vec<u8>), bool, usize, usize);

#[test]
fn the_index_finds_what_a_linear_scan_finds() {
    let seed: u64 = std::env::var("HUB_SEED").map_or_else(
        |_| rand::rng().random(),
        |text| text.parse().expect("HUB_SEED is a number"),
    );
    println!("HUB_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut verdicts = [0_usize; 3];
    for _ in 0..TABLES {
        let entries: Vec<Entry> = (0..rng.random_range(0..24))
            .map(|_| entry(&mut rng))
            .collect();
        let router = router(&entries);
        for _ in 0..REQUESTS {
            let request = request(&mut rng);
            let found = find(&router, &request);
            assert_eq!(
                found,
                scan(&entries, &request),
                "{request:?} in {entries:#?}, seed {seed}"
            );
            verdicts[match found {
                Match::Found { .. } => 0,
                Match::MethodNotAllowed { .. } => 1,
                Match::None => 2,
            }] += 1;
        }
    }
    let [matched, method, none] = verdicts;
    println!("{matched} found, {method} with another method, {none} without a route");
    assert!(
        verdicts.iter().all(|count| *count > TABLES),
        "the generator covers every verdict"
    );
}

/// Sorts all routes that match by their rank, and takes the first.
fn scan(entries: &[Entry], request: &Request) -> Match {
    let mut found: Vec<Rank> = Vec::new();
    let mut methods: BTreeSet<&str> = BTreeSet::new();
    for (index, entry) in entries.iter().enumerate() {
        let hosts = match entry.hosts.is_empty() {
            true => vec![(2, 0)],
            false => entry
                .hosts
                .iter()
                .filter_map(|host| host_rank(host, &request.host))
                .collect(),
        };
        let Some(path) = path_rank(&entry.path, &request.path) else {
            continue;
        };
        let headers = entry.headers.iter().all(|(name, wanted)| {
            request.headers.iter().any(|(other, value)| {
                other.to_lowercase() == name.as_str()
                    && wanted
                        .as_ref()
                        .is_none_or(|wanted| wanted.to_str().expect("ASCII") == value)
            })
        });
        for host in hosts {
            if !headers {
            } else if entry.methods.is_empty() || entry.methods.contains(&request.method) {
                let any = entry.methods.is_empty();
                found.push((host, path.clone(), any, 9 - entry.headers.len(), index));
            } else {
                methods.extend(entry.methods.iter().map(Method::as_str));
            }
        }
    }
    match found.into_iter().min() {
        Some((.., route)) => Match::Found { route },
        None if methods.is_empty() => Match::None,
        None => Match::MethodNotAllowed {
            allowed: methods
                .iter()
                .map(|name| name.parse().expect("a method"))
                .collect(),
        },
    }
}

fn host_rank(pattern: &HostPattern, host: &str) -> Option<(u8, usize)> {
    match pattern {
        HostPattern::Exact(exact) => (exact == host).then_some((0, 0)),
        HostPattern::Wildcard(suffix) => {
            (host.len() > suffix.len() && host.ends_with(suffix)).then(|| (1, 99 - suffix.len()))
        }
    }
}

fn path_rank(pattern: &PathPattern, path: &str) -> Option<(u8, Vec<u8>)> {
    if !path.starts_with('/') {
        return None;
    }
    match pattern {
        PathPattern::Exact(exact) => (exact == path).then(|| (0, Vec::new())),
        PathPattern::Prefix(prefix) => {
            let with_slash = format!("{}/", prefix.trim_end_matches('/'));
            let matches = path == prefix || path.starts_with(&with_slash);
            matches.then(|| (2, vec![99 - prefix.len() as u8]))
        }
        PathPattern::Template(segments) => {
            let parts: Vec<&str> = path.split('/').skip(1).collect();
            let rest = matches!(segments.last(), Some(Segment::Rest(_)));
            if parts.len() < segments.len() || (parts.len() > segments.len() && !rest) {
                return None;
            }
            let ranks = segments
                .iter()
                .zip(parts)
                .map(|(segment, part)| match segment {
                    Segment::Literal(text) => (text == part).then_some(0),
                    Segment::One(_) => (!part.is_empty()).then_some(1),
                    Segment::Rest(_) => Some(2),
                });
            ranks.collect::<Option<Vec<u8>>>().map(|ranks| (1, ranks))
        }
    }
}

fn pick<'a>(rng: &mut StdRng, from: &[&'a str]) -> &'a str {
    from.choose(rng).expect("not empty")
}

/// Few words, so that routes overlap and requests hit.
fn path(rng: &mut StdRng, words: &[&str]) -> String {
    let count = rng.random_range(1..=4);
    (0..count)
        .map(|_| format!("/{}", pick(rng, words)))
        .collect()
}

fn entry(rng: &mut StdRng) -> Entry {
    let mut entry = match rng.random_range(0..6) {
        0 => Entry::prefix("/"),
        1 => Entry::prefix(&path(rng, &["a", "b"])),
        2 => Entry::exact(&path(rng, &["a", "b", ""])),
        _ => {
            let mut text = path(rng, &["a", "b", "{x}"]);
            if rng.random_bool(0.3) {
                text.push_str("/{*rest}");
            }
            Entry::template(&text)
        }
    };
    let hosts = ["x.y", "a.x.y", "b.a.x.y", "*.y", "*.x.y", "*.a.x.y"];
    for _ in 0..rng.random_range(0..3) {
        entry = entry.host(pick(rng, &hosts));
    }
    for method in [Method::GET, Method::POST, Method::PUT] {
        if rng.random_bool(0.25) {
            entry = entry.method(method);
        }
    }
    for name in ["x-a", "x-b"] {
        if rng.random_bool(0.2) {
            let value = [None, Some("1"), Some("2")];
            entry = entry.header(name, *value.choose(rng).expect("not empty"));
        }
    }
    entry
}

fn request(rng: &mut StdRng) -> Request {
    let host = pick(
        rng,
        &["x.y", "a.x.y", "b.a.x.y", "c.x.y", "c.b.a.x.y", "y", "z"],
    );
    let path = match rng.random_range(0..20) {
        0 => "*".to_owned(),
        1 => "/".to_owned(),
        _ => path(rng, &["a", "a", "b", "b", "ab", ""]),
    };
    let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
    let mut request =
        Request::new(host, &path).method(methods.choose(rng).expect("not empty").clone());
    for _ in 0..rng.random_range(0..4) {
        request = request.header(
            pick(rng, &["x-a", "X-A", "X-b", "x-c"]),
            pick(rng, &["1", "2", ""]),
        );
    }
    request
}
