//! Rate limits and the bulkhead, as clients, origins and metrics see them.
//!
//! Limits refill so slowly here (once an hour) that no test depends on how fast it runs.

use hub_testkit::{Gate, Hub, Origin, Reply, Wire, WireResponse, demo_config};
use sha2::{Digest, Sha256};
use std::fmt::Write;

const HOUR_MS: u32 = 3_600_000;
const TENANT: &str = "tenant = { sources = [{ header = \"x-location-id\" }] }\n";

async fn start(config: &str) -> Hub {
    Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(config)
        .start()
        .await
}

/// Sends GET with these headers on a connection of its own.
async fn get(hub: &Hub, headers: &str) -> WireResponse {
    get_path(hub, "/", headers).await
}

async fn get_path(hub: &Hub, path: &str, headers: &str) -> WireResponse {
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send(format!(
        "GET {path} HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n"
    ))
    .await;
    wire.read_response().await
}

async fn of_tenant(hub: &Hub, id: &str) -> WireResponse {
    get(hub, &format!("X-Location-Id: {id}\r\n")).await
}

fn code(answer: &WireResponse) -> String {
    answer.json()["error"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn number(answer: &WireResponse, header: &str) -> u32 {
    let value = answer.header(header);
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{header} is {value:?} in {}", answer.raw_text()))
}

fn assert_limited(answer: &WireResponse, expected: &str, retry_after_max: u32) {
    assert_eq!(answer.status, 429, "{}", answer.raw_text());
    assert_eq!(code(answer), expected);
    let retry = number(answer, "retry-after");
    assert!((1..=retry_after_max).contains(&retry), "{retry}");
    assert_eq!(number(answer, "ratelimit-remaining"), 0);
    assert!(number(answer, "ratelimit-reset") >= retry);
    assert_eq!(answer.header("connection"), None, "the connection is kept");
}

fn api_keys(names: &[(&str, &str)]) -> String {
    let mut keys = String::from("[[plugin]]\nname = \"key\"\nkind = \"api_key\"\n");
    for (name, key) in names {
        let hash = Sha256::digest(key)
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        write!(
            keys,
            "[[plugin.config.keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n"
        )
        .expect("a String takes whatever is written");
    }
    keys
}

#[tokio::test]
async fn a_tenant_over_its_quota_is_told_when_to_come_back_and_others_are_not_touched() {
    let origin = Origin::start().await;
    let hub = start(
        &(demo_config(origin.endpoint())
            + TENANT
            + "[[tenant]]\nid = \"busy\"\nrequests_per_second = 1\nburst = 3\n"
            + "[[tenant]]\nid = \"calm\"\nrequests_per_second = 1\nburst = 3\n"
            + "[[tenant]]\nid = \"free\"\n"),
    )
    .await;
    let first = of_tenant(&hub, "busy").await;
    assert_eq!(first.status, 200);
    assert_eq!(number(&first, "ratelimit-limit"), 3);
    assert_eq!(number(&first, "ratelimit-remaining"), 2);
    assert_eq!(number(&first, "ratelimit-reset"), 1);
    assert_eq!(first.header("retry-after"), None);
    // One a second comes back, so of ten at once some are refused however slow this machine is.
    let mut limited = None;
    for _ in 0..50 {
        let answer = of_tenant(&hub, "busy").await;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
    }
    let limited = limited.expect("50 requests are more than the quota allows");
    assert_limited(&limited, "tenant_limited", 1);
    assert_eq!(number(&limited, "ratelimit-limit"), 3);

    let calm = of_tenant(&hub, "calm").await;
    assert_eq!(calm.status, 200);
    assert_eq!(number(&calm, "ratelimit-remaining"), 2);
    let free = of_tenant(&hub, "free").await;
    assert_eq!(free.status, 200);
    assert_eq!(free.header("ratelimit-limit"), None);

    hub.wait_for_metric("hub_tenant_limited_total", &[("tenant", "busy")], |count| {
        count >= 1.0
    })
    .await;
    assert_eq!(
        hub.metric("hub_tenant_limited_total", &[("tenant", "calm")])
            .await,
        0.0
    );
    let line = hub.wait_for_log_line(|line| line["status"] == 429).await;
    assert_eq!(line["reason"], "tenant_limited");
    assert_eq!(line["tenant"], "busy");
    let served = origin.request_count();
    let answered = hub
        .access_log()
        .iter()
        .filter(|line| line["status"] == 200)
        .count();
    assert!(served >= answered, "a limited request reaches no origin");
}

#[tokio::test]
async fn exactly_the_burst_passes_at_once() {
    let origin = Origin::start().await;
    let config = format!(
        "{}limits = [\"r\"]\n[[limit]]\nname = \"r\"\nby = \"route\"\nrequests = 1\nper_ms = {HOUR_MS}\nburst = 7\n",
        demo_config(origin.endpoint())
    );
    let hub = start(&config).await;
    for left in (0..7).rev() {
        let answer = get(&hub, "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(number(&answer, "ratelimit-limit"), 7);
        assert_eq!(number(&answer, "ratelimit-remaining"), left);
    }
    for _ in 0..3 {
        assert_limited(&get(&hub, "").await, "route_limited", 3600);
    }
    assert_eq!(origin.request_count(), 7);
    hub.wait_for_metric(
        "hub_refusals_total",
        &[("reason", "route_limited")],
        |count| count == 3.0,
    )
    .await;
}

#[tokio::test]
async fn a_limited_answer_keeps_the_connection() {
    let origin = Origin::start().await;
    let config = format!(
        "{}limits = [\"r\"]\n[[limit]]\nname = \"r\"\nby = \"header:x-key\"\nrequests = 1\nper_ms = {HOUR_MS}\n",
        demo_config(origin.endpoint())
    );
    let hub = start(&config).await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    for (key, status) in [("a", 200), ("a", 429), ("b", 200), ("b", 429), ("c", 200)] {
        wire.send(format!(
            "GET / HTTP/1.1\r\nHost: a.test\r\nX-Key: {key}\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.read_response().await.status, status, "{key}");
    }
}

#[tokio::test]
async fn the_address_limit_comes_before_identity_tenant_and_quota() {
    let origin = Origin::start().await;
    let config = format!(
        "{}plugins = [\"key\"]\n{}[limits]\naddress = [\"ip\"]\n[[limit]]\nname = \"ip\"\nby = \"address\"\nrequests = 3\nper_ms = {HOUR_MS}\n",
        demo_config(origin.endpoint()),
        api_keys(&[("ann", "secret-of-ann")]),
    );
    let hub = start(&config).await;
    // Guesses at credentials are counted like anything else.
    for _ in 0..3 {
        let answer = get(&hub, "X-Api-Key: guess\r\n").await;
        assert_eq!(
            (answer.status, code(&answer)),
            (401, "unauthenticated".into())
        );
    }
    assert_limited(
        &get(&hub, "X-Api-Key: guess\r\n").await,
        "address_limited",
        3600,
    );
    assert_limited(
        &get(&hub, "X-Api-Key: secret-of-ann\r\n").await,
        "address_limited",
        3600,
    );
    assert_eq!(origin.request_count(), 0);
}

#[tokio::test]
async fn a_route_limit_has_a_budget_for_each_identity() {
    let origin = Origin::start().await;
    let config = format!(
        "{}plugins = [\"key\"]\nlimits = [\"who\"]\n{}[[limit]]\nname = \"who\"\nby = \"identity\"\nrequests = 2\nper_ms = {HOUR_MS}\n",
        demo_config(origin.endpoint()),
        api_keys(&[("ann", "secret-of-ann"), ("bob", "secret-of-bob")]),
    );
    let hub = start(&config).await;
    for key in ["secret-of-ann", "secret-of-bob"] {
        let headers = format!("X-Api-Key: {key}\r\n");
        for _ in 0..2 {
            assert_eq!(get(&hub, &headers).await.status, 200);
        }
        assert_limited(&get(&hub, &headers).await, "route_limited", 3600);
    }
}

#[tokio::test]
async fn one_subject_has_a_budget_in_each_tenant() {
    let origin = Origin::start().await;
    // Two issuers that call somebody by the same name.
    let issuer = |plugin: &str, tenant: &str| {
        api_keys(&[("ann", "secret-of-ann")])
            .replace("name = \"key\"", &format!("name = \"{plugin}\""))
            .replace(
                "[[plugin.config",
                &format!("config.header = \"x-{plugin}\"\n[[plugin.config"),
            )
            + &format!("tenant = \"{tenant}\"\n[[tenant]]\nid = \"{tenant}\"\n")
    };
    let config = format!(
        "{}tenant = {{ sources = [\"credential\"] }}\nplugins = [\"one\", \"two\"]\nlimits = [\"who\"]\n{}{}[[limit]]\nname = \"who\"\nby = \"identity\"\nrequests = 2\nper_ms = {HOUR_MS}\n",
        demo_config(origin.endpoint()),
        issuer("one", "loc_a"),
        issuer("two", "loc_b"),
    );
    let hub = start(&config).await;
    for header in ["x-one", "x-two"] {
        let headers = format!("{header}: secret-of-ann\r\n");
        for _ in 0..2 {
            assert_eq!(get(&hub, &headers).await.status, 200, "{header}");
        }
        assert_limited(&get(&hub, &headers).await, "route_limited", 3600);
    }
    // What a route refuses is counted under its name.
    let refused = [("route", "all"), ("cluster", "-"), ("status", "4xx")];
    assert_eq!(hub.metric("hub_requests_total", &refused).await, 2.0);
    let unrouted = [("route", "-")];
    assert_eq!(hub.metric("hub_requests_total", &unrouted).await, 0.0);
}

#[tokio::test]
async fn a_route_limit_by_header_counts_a_missing_header_as_one_value() {
    let origin = Origin::start().await;
    let config = format!(
        "{}limits = [\"device\"]\n[[limit]]\nname = \"device\"\nby = \"header:X-Device\"\nrequests = 1\nper_ms = {HOUR_MS}\n",
        demo_config(origin.endpoint())
    );
    let hub = start(&config).await;
    for headers in ["X-Device: 1\r\n", "x-device: 2\r\n", ""] {
        assert_eq!(get(&hub, headers).await.status, 200, "{headers:?}");
        assert_limited(&get(&hub, headers).await, "route_limited", 3600);
    }
}

#[tokio::test]
async fn a_limit_holds_its_own_route_only() {
    let origin = Origin::start().await;
    let config = format!(
        "{}[[route]]\nname = \"tight\"\npath = {{ prefix = \"/tight\" }}\ncluster = \"app\"\nlimits = [\"r\"]\n[[limit]]\nname = \"r\"\nby = \"route\"\nrequests = 1\nper_ms = {HOUR_MS}\n",
        demo_config(origin.endpoint())
    );
    let hub = start(&config).await;
    assert_eq!(get_path(&hub, "/tight", "").await.status, 200);
    assert_eq!(get_path(&hub, "/tight/below", "").await.status, 429);
    let other = get_path(&hub, "/", "").await;
    assert_eq!(other.status, 200);
    assert_eq!(other.header("ratelimit-limit"), None);
}

#[tokio::test]
async fn rate_headers_can_be_turned_off_but_retry_after_stays() {
    let origin = Origin::start().await;
    let config = format!(
        "{}limits = [\"r\"]\n[limits]\nheaders = false\n[[limit]]\nname = \"r\"\nby = \"route\"\nrequests = 1\nper_ms = {HOUR_MS}\n",
        demo_config(origin.endpoint())
    );
    let hub = start(&config).await;
    for status in [200, 429] {
        let answer = get(&hub, "").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("retry-after").is_some(), status == 429);
        for header in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
            assert_eq!(answer.header(header), None);
        }
    }
}

#[tokio::test]
async fn a_tenant_with_as_many_requests_in_flight_as_allowed_is_busy() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .on("/slow", Reply::ok("slow").after(&gate))
        .start()
        .await;
    let hub = start(
        &(demo_config(origin.endpoint())
            + TENANT
            + "[[tenant]]\nid = \"narrow\"\nin_flight_max = 2\n"
            + "[[tenant]]\nid = \"other\"\nin_flight_max = 2\n"),
    )
    .await;
    let slow = "GET /slow HTTP/1.1\r\nHost: a.test\r\nX-Location-Id: narrow\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::connect(hub.addr("public")).await;
        wire.send(slow).await;
        held.push(wire);
    }
    origin.wait_for_requests(2).await;
    let refused = of_tenant(&hub, "narrow").await;
    assert_eq!(
        (refused.status, code(&refused)),
        (503, "tenant_busy".into())
    );
    assert!(number(&refused, "retry-after") >= 1);
    assert_eq!(of_tenant(&hub, "other").await.status, 200);
    gate.open();
    for wire in &mut held {
        assert_eq!(wire.read_response().await.text(), "slow");
    }
    // The places are free again once both are recorded.
    hub.wait_for_metric("hub_requests_total", &[], |count| count == 4.0)
        .await;
    assert_eq!(of_tenant(&hub, "narrow").await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_place_back() {
    let origin = Origin::builder()
        .on("/hang", hub_testkit::Behaviour::Hang)
        .start()
        .await;
    let hub = start(
        &(demo_config(origin.endpoint())
            + TENANT
            + "[[tenant]]\nid = \"one\"\nin_flight_max = 1\n"),
    )
    .await;
    for gone in 1..=3 {
        let mut wire = Wire::connect(hub.addr("public")).await;
        wire.send("GET /hang HTTP/1.1\r\nHost: a.test\r\nX-Location-Id: one\r\n\r\n")
            .await;
        origin.wait_for_requests(gone).await;
        drop(wire);
        hub.wait_for_metric("hub_requests_total", &[], |count| count == gone as f64)
            .await;
    }
    assert_eq!(of_tenant(&hub, "one").await.status, 200);
}

#[tokio::test]
async fn defaults_hold_tenants_that_set_nothing_of_their_own() {
    let origin = Origin::start().await;
    let hub = start(
        &(demo_config(origin.endpoint())
            + TENANT
            + "[tenants]\ndefault_requests_per_second = 1\ndefault_burst = 5\n"
            + "[[tenant]]\nid = \"plain\"\n"
            + "[[tenant]]\nid = \"own\"\nrequests_per_second = 9\n"),
    )
    .await;
    assert_eq!(
        number(&of_tenant(&hub, "plain").await, "ratelimit-limit"),
        5
    );
    let own = number(&of_tenant(&hub, "own").await, "ratelimit-limit");
    assert!(own == 9 || own == 5, "{own}");
}

#[tokio::test]
async fn a_reload_changes_limits_at_once_and_forgets_no_debt() {
    let origin = Origin::start().await;
    let config = |burst: u32, tenant: &str| {
        format!(
            "{}limits = [\"r\"]\n{TENANT}[[limit]]\nname = \"r\"\nby = \"header:x-key\"\nrequests = 2\nper_ms = {HOUR_MS}\nburst = {burst}\n[[tenant]]\nid = \"one\"\n{tenant}[[tenant]]\nid = \"two\"\n",
            demo_config(origin.endpoint())
        )
    };
    let hub = start(&config(2, "")).await;
    let ask = async |tenant: &str| {
        get(
            &hub,
            &format!("X-Location-Id: {tenant}\r\nX-Key: {tenant}\r\n"),
        )
        .await
    };
    for _ in 0..2 {
        assert_eq!(ask("one").await.status, 200);
    }
    assert_limited(&ask("one").await, "route_limited", 3600);

    hub.write_config(&config(5, ""));
    let (status, outcome) = hub.reload().await;
    assert_eq!((status, &outcome["outcome"]), (200, &"applied".into()));
    let answer = ask("one").await;
    assert_eq!(answer.status, 200);
    assert_eq!(number(&answer, "ratelimit-limit"), 5);
    assert!(
        number(&answer, "ratelimit-remaining") < 4,
        "what was used counts"
    );

    hub.write_config(&config(
        5,
        "in_flight_max = 1\nrequests_per_second = 1\nburst = 1\n",
    ));
    let (status, outcome) = hub.reload().await;
    assert_eq!((status, &outcome["outcome"]), (200, &"applied".into()));
    assert_eq!(number(&ask("one").await, "ratelimit-limit"), 1);
    assert_eq!(number(&ask("two").await, "ratelimit-limit"), 5);

    hub.write_config(&config(1, ""));
    let (status, _) = hub.reload().await;
    assert_eq!(status, 200);
    assert_limited(&ask("one").await, "route_limited", 4 * 3600);
}
