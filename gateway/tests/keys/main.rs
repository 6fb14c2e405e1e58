//! No dead key: each key of the configuration changes what the running gateway does.
//!
//! The list of keys comes from the schema. Each has a [`Row`]: two values, what else the
//! configuration needs, and a probe. The gateway is started once with either value and all else the
//! same; the key is alive where the probe does not see the same twice.

mod cluster;
mod config;
mod listener;
mod material;
mod plugin;
mod process;
mod route;
mod site;
mod socket;
mod websocket;

use site::{Probe, Site};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use serde_json::Value;

/// Gateways that run at a time.
const AT_ONCE: usize = 4;

/// One key, and how its effect is seen.
struct Row {
    key: &'static str,
    values: [Value; 2],
    /// What else is set, before the key is.
    with: Vec<(&'static str, Value)>,
    /// The key's effect is that the gateway does not start with one of the values.
    may_not_start: bool,
    probe: Probe,
}

/// A row. Null as a value means that the key is absent.
fn row(
    key: &'static str,
    a: impl Into<Value>,
    b: impl Into<Value>,
    with: &[(&'static str, Value)],
    probe: Probe,
) -> Row {
    Row {
        key,
        values: [a.into(), b.into()],
        with: with.to_vec(),
        may_not_start: false,
        probe,
    }
}

impl Row {
    fn may_not_start(mut self) -> Self {
        self.may_not_start = true;
        self
    }

    /// What the probe sees with this value.
    async fn see(&self, value: &Value) -> String {
        let config = config::build(self.key, value, &self.with);
        match Site::start(&config).await {
            Ok(mut site) => (self.probe)(&mut site).await,
            Err(failure) if self.may_not_start => {
                format!("does not start: {:?}", failure.status.code())
            }
            Err(failure) => panic!(
                "{} = {value}: the gateway does not start: {}",
                self.key, failure.stderr
            ),
        }
    }
}

fn rows() -> Vec<Row> {
    [
        process::rows(),
        listener::rows(),
        cluster::rows(),
        route::rows(),
        websocket::rows(),
        plugin::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Only rows whose key begins with this; for work on one of them.
fn wanted(key: &str) -> bool {
    std::env::var("HUB_TEST_KEYS").map_or(true, |prefix| key.starts_with(&prefix))
}

#[test]
fn every_key_of_the_schema_has_one_row() {
    let schema = hub_config::json_schema(&hub_plugins::Catalog::new(""));
    let keys = hub_config::key_paths(&schema);
    let rows: Vec<_> = rows().into_iter().map(|row| row.key).collect();
    let known: BTreeSet<_> = rows.iter().copied().collect();
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| !known.contains(key.as_str()))
        .collect();
    let strange: Vec<_> = known
        .iter()
        .filter(|key| !keys.iter().any(|known| known == *key))
        .collect();
    assert!(missing.is_empty(), "keys without a row: {missing:#?}");
    assert!(strange.is_empty(), "rows without a key: {strange:#?}");
    assert_eq!(known.len(), rows.len(), "a key has two rows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_key_is_dead() {
    let schema = hub_config::json_schema(&hub_plugins::Catalog::new(""));
    let keys = hub_config::key_paths(&schema).len();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    let mut count = 0;
    for row in rows().into_iter().filter(|row| wanted(row.key)) {
        count += 1;
        let places = Arc::clone(&places);
        running.spawn(async move {
            let key = row.key;
            // A panic in a probe must not take the other rows' results with it.
            let seen = tokio::spawn(async move {
                let _place = places.acquire().await.expect("never closed");
                let begun = std::time::Instant::now();
                let seen = [row.see(&row.values[0]).await, row.see(&row.values[1]).await];
                (seen, begun.elapsed())
            });
            (key, seen.await)
        });
    }
    let mut faults = Vec::new();
    let mut differences = 0;
    while let Some(done) = running.join_next().await {
        match done.expect("panics are caught inside") {
            (key, Ok(([a, b], took))) if a != b => {
                differences += 1;
                println!("{key}: {a:?} / {b:?} ({} ms)", took.as_millis());
            }
            (key, Ok(([a, _], _))) => {
                faults.push(format!("{key} is dead: {a:?} with either value"))
            }
            (key, Err(panic)) => faults.push(format!("{key}: {panic}")),
        }
    }
    println!("{keys} keys, {count} rows, {differences} differences seen");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
