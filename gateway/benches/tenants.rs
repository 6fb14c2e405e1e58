//! Look-ups among 100,000 tenants, by uniformly random keys, and the load of such a configuration.

#[path = "shared/report.rs"]
mod report;

use criterion::{Criterion, Throughput};
use hub_config::runtime;
use hub_core::LocationIdRef;
use hub_gateway::router::Router;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use report::{Figure, Samples};
use serde_json::json;
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

const TENANTS: usize = 100_000;
const ROUTES: usize = 10_000;
const SAMPLES: usize = 200_000;
const SEED: u64 = 20_260_101;

/// As long as GoHighLevel's.
const ID_LEN: usize = 20;

/// Text of equal length, one after the other, in the order of the look-ups.
struct Keys {
    text: String,
    len: usize,
}

fn main() {
    let mut rng = StdRng::seed_from_u64(SEED);
    let folder = tempfile::tempdir().expect("the bench may write temporary files");
    let (ids, slugs) = write_configuration(folder.path(), &mut rng);
    let started = Instant::now();
    let config = load(folder.path());
    let router = Router::build(&config.routes);
    let loaded = started.elapsed();
    assert_eq!((config.tenants.len(), router.len()), (TENANTS, ROUTES));

    let ids = Keys::shuffled(ids, &mut rng);
    let slugs = Keys::shuffled(slugs, &mut rng);
    criterion(&config, &ids, &slugs);
    if report::is_measuring() {
        measure(&config, &ids, &slugs, loaded, folder.path());
    }
}

fn criterion(config: &runtime::Config, ids: &Keys, slugs: &Keys) {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("tenants_100000");
    group.throughput(Throughput::Elements(1));
    let mut number = 0;
    let mut next = || {
        number += 1;
        number
    };
    group.bench_function("by_id", |bencher| {
        bencher.iter(|| by_id(config, ids, black_box(next())));
    });
    group.bench_function("by_slug", |bencher| {
        bencher.iter(|| by_slug(config, slugs, black_box(next())));
    });
    group.finish();
    criterion.final_summary();
}

fn measure(
    config: &runtime::Config,
    ids: &Keys,
    slugs: &Keys,
    first_load: Duration,
    folder: &Path,
) {
    let clock = Samples::take(SAMPLES, black_box);
    let id = Samples::take(SAMPLES, |number| by_id(config, ids, number));
    let slug = Samples::take(SAMPLES, |number| by_slug(config, slugs, number));
    let mut loads = vec![first_load];
    for _ in 0..4 {
        let started = Instant::now();
        let config = load(folder);
        black_box(Router::build(&config.routes));
        loads.push(started.elapsed());
    }
    loads.sort_unstable();
    let looked_up = format!(
        "bytes to a checked id to the position of its enabled tenant; {TENANTS} tenants, uniform keys, each \
         look-up waits for the one before; the clock's {:.1} ns are included",
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
            "tenant look-up by id, p50",
            id.percentile(0.5),
            "ns",
            Some(100.0),
            &looked_up,
        ),
        figure(
            "tenant look-up by id, p99",
            id.percentile(0.99),
            "ns",
            None,
            &looked_up,
        ),
        figure(
            "tenant look-up by slug, p50",
            slug.percentile(0.5),
            "ns",
            None,
            &looked_up,
        ),
        figure(
            "tenant look-up by slug, p99",
            slug.percentile(0.99),
            "ns",
            None,
            &looked_up,
        ),
        figure(
            "load of 10,000 routes and 100,000 tenants",
            loads[loads.len() / 2].as_secs_f64(),
            "s",
            Some(1.0),
            "files to checked configuration and router, median of 5; warm file cache",
        ),
    ];
    let raw = json!({
        "seed": SEED,
        "clock": clock.raw(),
        "by_id": id.raw(),
        "by_slug": slug.raw(),
        "load_seconds": loads.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(),
    });
    report::write("tenants", &figures, raw);
}

fn by_id(config: &runtime::Config, ids: &Keys, number: usize) -> usize {
    let id =
        LocationIdRef::parse(ids.get(number).as_bytes()).expect("the bench's ids are well formed");
    let index = config.tenants.get_enabled(id);
    index.expect("every key is an enabled tenant's").as_usize()
}

fn by_slug(config: &runtime::Config, slugs: &Keys, number: usize) -> usize {
    let index = config.tenants.get_by_slug(slugs.get(number));
    index.expect("every key is a tenant's").as_usize()
}

fn load(folder: &Path) -> runtime::Config {
    let catalog = hub_plugins::Catalog::new("");
    hub_config::load(&folder.join("gateway.toml"), &catalog, &|_| None)
        .unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn write_configuration(folder: &Path, rng: &mut StdRng) -> (Vec<String>, Vec<String>) {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut ids = Vec::with_capacity(TENANTS);
    let mut slugs = Vec::with_capacity(TENANTS);
    let mut lines = String::new();
    for number in 0..TENANTS {
        let id: String = (0..ID_LEN)
            .map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]))
            .collect();
        let slug = format!("agency-{number:07}");
        writeln!(
            lines,
            r#"{{"id":"{id}","slug":"{slug}","requests_per_second":50}}"#
        )
        .expect("a string takes all that is written");
        ids.push(id);
        slugs.push(slug);
    }
    let mut text = String::from(
        r#"
[tenants]
directory = "tenants.jsonl"
[[listener]]
name = "http"
address = "127.0.0.1:0"
[[cluster]]
name = "app"
endpoints = { blue = ["127.0.0.1:1"] }
"#,
    );
    for number in 0..ROUTES {
        let path = match number % 3 {
            0 => format!(r#"{{ exact = "/v1/service{number}/status" }}"#),
            1 => format!(r#"{{ prefix = "/v1/service{number}" }}"#),
            _ => format!(r#"{{ template = "/v1/service{number}/{{location_id}}/contacts" }}"#),
        };
        write!(
            text,
            r#"
[[route]]
name = "r{number}"
path = {path}
cluster = "app"
tenant = {{ sources = [{{ header = "x-location-id" }}] }}
"#
        )
        .expect("a string takes all that is written");
    }
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).expect("the bench may write temporary files");
    };
    write("tenants.jsonl", &lines);
    write("gateway.toml", &text);
    (ids, slugs)
}

impl Keys {
    fn shuffled(mut texts: Vec<String>, rng: &mut StdRng) -> Self {
        texts.shuffle(rng);
        let len = texts[0].len();
        assert!(
            texts.iter().all(|text| text.len() == len),
            "keys have one length"
        );
        Self {
            text: texts.concat(),
            len,
        }
    }

    fn get(&self, number: usize) -> &str {
        let start = number % TENANTS * self.len;
        &self.text[start..start + self.len]
    }
}
