//! What telemetry costs a request, and what a scrape costs.
//!
//! Each hot-path figure is taken with one thread and with several; that of the counters beside the
//! obvious alternative, `prometheus` metrics that all threads share.

use criterion::{Criterion, criterion_group, criterion_main};
use hub_config::runtime::LogTarget;
use hub_core::RequestId;
use hub_gateway::telemetry::metrics::DURATION_BOUNDS;
use hub_gateway::telemetry::{
    AccessLog, Metrics, Record, StatusClass, TenantCounters, TenantGate, TenantTotals,
};
use parking_lot::Mutex;
use prometheus::{Histogram, HistogramOpts, IntCounter};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

const THREADS: [u64; 3] = [1, 2, 8];
const TENANTS: usize = 100_000;

/// Time for `threads` threads to do `work` `rounds` times in all. On a machine with a free core for
/// each thread, what costs nothing to share takes the lone thread's time divided by their number.
fn together(threads: u64, rounds: u64, work: impl Fn(u64) + Sync) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..rounds.div_ceil(threads)).for_each(&work));
        }
    });
    start.elapsed()
}

fn counters(criterion: &mut Criterion) {
    let metrics = Metrics::new();
    let route = metrics.route("contacts", "crm", "blue");
    let total = IntCounter::new("total", "requests").expect("a name");
    let options = HistogramOpts::new("seconds", "durations").buckets(DURATION_BOUNDS.to_vec());
    let histogram = Histogram::with_opts(options).expect("a name");
    let mut group = criterion.benchmark_group("finished_request");
    for threads in THREADS {
        group.bench_function(format!("sharded/{threads}_threads"), |bench| {
            bench.iter_custom(|rounds| {
                together(threads, rounds, |round| {
                    let duration = Duration::from_nanos(black_box(round * 977 % 100_000_000));
                    route.finished(StatusClass::of(black_box(200)), duration);
                })
            });
        });
        group.bench_function(format!("prometheus/{threads}_threads"), |bench| {
            bench.iter_custom(|rounds| {
                together(threads, rounds, |round| {
                    let duration = Duration::from_nanos(black_box(round * 977 % 100_000_000));
                    total.inc();
                    histogram.observe(duration.as_secs_f64());
                })
            });
        });
    }
    group.finish();
}

fn record(round: u64) -> Record<'static> {
    Record {
        at: SystemTime::UNIX_EPOCH + Duration::from_micros(1_790_000_000_000_000 + round * 20),
        request_id: RequestId::new(1_790_000_000_000, [7; 10]),
        trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
        listener: "public",
        client: [192, 0, 2, 7].into(),
        method: "GET",
        host: b"api.example.com",
        path: b"/v1/contacts/ocQHyuzHvysMo5N5VsXc/notes",
        protocol: "HTTP/1.1",
        status: 200,
        reason: None,
        detail: None,
        route: Some("contacts"),
        cluster: Some("crm"),
        colour: Some("blue"),
        endpoint: Some("10.0.0.1:8080"),
        tenant: Some("ve9EPM428h8vShlRW1KT"),
        subject: Some("user_5f3c"),
        bytes_in: 0,
        bytes_out: 18_234,
        duration: Duration::from_micros(1_500 + round % 1_000),
        upstream: Some(Duration::from_micros(900)),
        retries: 0,
        first_colour: None,
        user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    }
}

/// What a request pays. The queue has room for a second and more of lines at full speed; where the
/// writer still falls behind, the drops are printed, since a dropped line is cheaper than a kept one.
fn access_log(criterion: &mut Criterion) {
    let null = LogTarget::File("/dev/null".into());
    let queue = 1 << 20;
    let mut group = criterion.benchmark_group("access_log_line");
    for threads in THREADS {
        group.bench_function(format!("{threads}_threads"), |bench| {
            let flush = Duration::from_millis(200);
            let log = AccessLog::start(&null, queue, flush).expect("a log");
            bench.iter_custom(|rounds| together(threads, rounds, |round| log.log(&record(round))));
            println!("lines {} drops {}", log.lines(), log.drops());
        });
    }
    group.finish();
}

struct Tenant {
    id: String,
    finished: [AtomicU64; StatusClass::COUNT],
    limited: AtomicU64,
    bytes: [AtomicU64; 2],
}

impl TenantCounters for Tenant {
    fn id(&self) -> &str {
        &self.id
    }

    fn read(&self) -> TenantTotals {
        TenantTotals {
            requests: self
                .finished
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed)),
            limited: self.limited.load(Ordering::Relaxed),
            bytes_in: self.bytes[0].load(Ordering::Relaxed),
            bytes_out: self.bytes[1].load(Ordering::Relaxed),
        }
    }
}

/// Every tenant has had traffic since the last scrape, the worst case.
fn scrape(criterion: &mut Criterion) {
    let tenants: Vec<Box<Tenant>> = (0..TENANTS)
        .map(|number| {
            Box::new(Tenant {
                id: format!("ve9EPM428h8vShlR{number:08}"),
                finished: Default::default(),
                limited: AtomicU64::new(0),
                bytes: Default::default(),
            })
        })
        .collect();
    let bump = || {
        for (number, tenant) in (1..).zip(&tenants) {
            tenant.finished[1].fetch_add(number, Ordering::Relaxed);
            tenant.bytes[1].fetch_add(number * 1_000, Ordering::Relaxed);
        }
    };
    let mut group = criterion.benchmark_group("scrape");
    group.sample_size(20);
    for (name, step) in [("within_a_term", 0), ("with_an_election", 61)] {
        let gate = Mutex::new(TenantGate::new(200));
        let mut now = Instant::now();
        group.bench_function(format!("100000_tenants/{name}"), |bench| {
            bench.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    bump();
                    now += Duration::from_secs(step);
                    let start = Instant::now();
                    let mut scrape = hub_gateway::telemetry::Scrape::default();
                    let all = tenants.iter().map(|tenant| &**tenant);
                    gate.lock().scrape(now, all, &mut scrape);
                    black_box(&scrape);
                    spent += start.elapsed();
                }
                spent
            });
        });
    }
    let metrics = Metrics::new();
    for number in 0..1_000 {
        let route = metrics.route(&format!("route-{number}"), "crm", "blue");
        route.finished(StatusClass::Success, Duration::from_millis(number % 100));
    }
    group.bench_function("encode_1000_routes", |bench| {
        bench.iter(|| black_box(metrics.encode()));
    });
    group.finish();
}

criterion_group!(benches, counters, access_log, scrape);
criterion_main!(benches);
