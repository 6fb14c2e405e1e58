use super::*;
use crate::limit::Limiter;
use crate::switch::metrics::RolloutMetrics;
use crate::switch::traffic::Switchboard;
use crate::telemetry::{
    AccessLog, Metrics, Refusals, TenantGate, UpstreamMetrics, init_process_log,
};
use hub_config::runtime::{LogLevel, LogTarget};
use std::path::Path;
use std::time::Duration;

const BASE: &str = r#"
[admin]
address = "127.0.0.1:0"
[[listener]]
name = "public"
address = "127.0.0.1:0"
[[cluster]]
name = "app"
endpoints = { blue = ["127.0.0.1:9"] }
[[route]]
name = "all"
path = { prefix = "/" }
cluster = "app"
[[tenant]]
id = "loc_a"
requests_per_second = 5
"#;

fn config(text: &str) -> Config {
    let (file, base) = (Path::new("hub.toml"), Path::new(""));
    let loaded = hub_config::load_str(text, file, base, &Catalog::new(""), &|_| None);
    loaded.unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn what_did_not_change_is_shared_and_what_did_keeps_its_state() {
    let shared = Shared {
        metrics: Arc::new(Metrics::new()),
        access_log: AccessLog::start(&LogTarget::Off, 1, Duration::from_secs(60)).expect("a log"),
        upstreams: UpstreamMetrics::default(),
        process_log: init_process_log(LogLevel::Error).expect("no other test sets it up"),
        tenant_gate: parking_lot::Mutex::new(TenantGate::new(1)),
        limiter: Limiter::new(1_024),
        refusals: Refusals::new(1),
        listener_names: vec!["public".into()],
        switchboard: Switchboard::default(),
        rollouts: RolloutMetrics::default(),
        websockets: crate::websocket::registry::Registry::default(),
    };
    let first = Snapshot::build(config(BASE), None, &shared);
    let second = Snapshot::build(
        config(&format!("# written anew\n{BASE}")),
        Some(&first),
        &shared,
    );
    assert!(Arc::ptr_eq(&first.config.tenants, &second.config.tenants));
    assert!(Arc::ptr_eq(&first.tenants, &second.tenants));
    assert!(Arc::ptr_eq(&first.router, &second.router));
    assert!(Arc::ptr_eq(&first.peers, &second.peers));
    let switched = BASE.replace("blue =", "green = [\"127.0.0.1:8\"], blue =");
    let other = Snapshot::build(config(&switched), Some(&second), &shared);
    assert!(Arc::ptr_eq(&first.tenants, &other.tenants));
    assert!(!Arc::ptr_eq(&first.peers, &other.peers));

    // What is only prepared changes nothing; what is put in force does.
    let present = || {
        shared
            .switchboard
            .present("app")
            .expect("a cluster")
            .routing
            .active
    };
    let turned =
        config(&switched.replace("name = \"app\"\n", "name = \"app\"\nactive = \"green\"\n"));
    let prepared = Snapshot::build(turned, Some(&second), &shared);
    assert_eq!(present(), Colour::Blue);
    shared.switchboard.change().routing(&prepared.config);
    assert_eq!(present(), Colour::Green);
    // A rollout's decision outlives the file's colour, and the cluster's absence.
    let mut changing = shared.switchboard.change();
    changing.decide("app", Routing::all(Colour::Green), 1);
    changing.routing(&config(&BASE.replace("\"app\"", "\"other\"")));
    let back = changing.routing(&first.config);
    assert_eq!(back[0].routing.active, Colour::Green);
    drop(changing);

    let more = BASE
        .replace(
            "[[route]]",
            "[[route]]\nname = \"new\"\npath = { exact = \"/new\" }\ncluster = \"app\"\n[[route]]",
        )
        .replace("[[tenant]]", "[[tenant]]\nid = \"loc_new\"\n[[tenant]]");
    let third = Snapshot::build(config(&more), Some(&second), &shared);
    let tenant = |snapshot: &Snapshot| {
        let id = hub_core::LocationId::parse(b"loc_a").expect("an id");
        let index = snapshot.config.tenants.get(id.as_ref()).expect("a tenant");
        Arc::clone(snapshot.tenant(index))
    };
    assert!(Arc::ptr_eq(&tenant(&second), &tenant(&third)));
    let (old, new) = (&second.routes[0], &third.routes[1]);
    let handles = |route: &RouteState| Arc::clone(route.metrics(0, Colour::Blue).expect("handles"));
    assert!(Arc::ptr_eq(&handles(old), &handles(new)));
    assert!(Arc::ptr_eq(&old.refused, &new.refused));
    assert!(third.lacks_of(&second).is_empty());
    let gone = [
        RouteKey::new("new", "app", "blue"),
        RouteKey::new("new", "-", "-"),
    ];
    assert_eq!(second.lacks_of(&third), gone);
}
