//! What limits cost a request: one rule with its keys in cache and out of it, and a tenant's own state.

use criterion::{Criterion, criterion_group, criterion_main};
use hub_config::runtime::Config;
use hub_core::LocationId;
use hub_gateway::limit::{Limiter, RuleState};
use hub_gateway::tenant_state::TenantState;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

const TEXT: &str = r#"
[[listener]]
name = "http"
address = "127.0.0.1:8080"
[[cluster]]
name = "app"
endpoints = { blue = ["127.0.0.1:9001"] }
[[limit]]
name = "per-address"
by = "address"
requests = 100
[[route]]
name = "all"
path = { prefix = "/" }
cluster = "app"
[[tenant]]
id = "loc_1"
requests_per_second = 1000000
in_flight_max = 100
"#;

fn config() -> Config {
    let catalog = hub_plugins::Catalog::new("");
    match hub_config::load_str(
        TEXT,
        Path::new("bench.toml"),
        Path::new(""),
        &catalog,
        &|_| None,
    ) {
        Ok(config) => config,
        Err(problems) => panic!("{problems:?}"),
    }
}

/// Time passes as if each request came 10 us after the one before.
fn clock() -> impl FnMut() -> u64 {
    let mut now = 3_600_000_000_000;
    move || {
        now += 10_000;
        now
    }
}

fn check(c: &mut Criterion) {
    let config = config();
    let rule = RuleState::new(&config.limits[0]);
    for (name, keys) in [("cached", 64_u32), ("uncached", 1_000_000)] {
        let limiter = Limiter::new(1 << 20);
        let mut now = clock();
        let mut key = 0_u32;
        c.bench_function(&format!("limit/check/{name}"), |b| {
            b.iter(|| {
                // A step that is prime to the number of keys visits all of them, far apart.
                key = (key + 611_953) % keys;
                limiter.check(&rule, black_box(&key.to_be_bytes()), now())
            });
        });
    }
}

fn acquire(c: &mut Criterion) {
    let config = config();
    let id = LocationId::parse(b"loc_1").expect("well formed");
    let index = config.tenants.get(id.as_ref()).expect("configured above");
    let tenant = &config.tenants[index];
    let state = Arc::new(TenantState::default());
    let mut now = clock();
    c.bench_function("limit/acquire", |b| {
        b.iter(|| {
            let permit =
                TenantState::acquire(&state, tenant.quota.as_ref(), tenant.in_flight_max, now());
            black_box(permit.is_ok())
        });
    });
    c.bench_function("limit/record", |b| {
        b.iter(|| state.record(black_box(200), black_box(100), black_box(1_000), false));
    });
}

criterion_group!(benches, check, acquire);
criterion_main!(benches);
