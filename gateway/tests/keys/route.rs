//! `[[route]]`, `[[tenant]]` and `tenants`.

use crate::site::{Site, answer, brief, probe, request};
use crate::{Row, row};
use hub_testkit::Reply;
use serde_json::{Value, json};

const ONE: &str = "X-Location-Id: loc_1\r\n";

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = routes();
    rows.extend(tenants());
    rows
}

fn sources(source: Value) -> (&'static str, Value) {
    ("route[].tenant", json!({ "sources": [source] }))
}

fn other_cluster() -> (&'static str, Value) {
    (
        "cluster[1]",
        json!({ "name": "other", "endpoints": { "blue": ["{green}"] } }),
    )
}

/// A plugin that identifies, without which no credential can be asked for.
fn identify() -> [(&'static str, Value); 2] {
    [
        (
            "plugin[]",
            json!({ "name": "key", "kind": "api_key", "config": {
            "required": false,
            "keys": [{ "name": "n", "sha256": "0".repeat(64) }],
        } }),
        ),
        ("route[].plugins", json!(["key"])),
    ]
}

fn routes() -> Vec<Row> {
    let no_path = ("route[].path", json!({}));
    let two = [
        ("tenant[]", json!({ "id": "loc_1" })),
        ("tenant[1]", json!({ "id": "loc_2" })),
    ];
    let [one, other] = two;
    let [plugin, on_route] = identify();
    let header = json!({ "header": "x-location-id" });
    vec![
        row(
            "route[].name",
            "one",
            "two",
            &[],
            probe!(site => site.logged("", "route").await),
        ),
        row(
            "route[].hosts",
            json!(["a.test"]),
            json!(["b.test"]),
            &[],
            probe!(site => site.status("/", "").await),
        ),
        row(
            "route[].path.prefix",
            "/a",
            "/b",
            std::slice::from_ref(&no_path),
            probe!(site => site.status("/a/x", "").await),
        ),
        row(
            "route[].path.exact",
            "/a",
            "/b",
            std::slice::from_ref(&no_path),
            probe!(site => site.status("/a", "").await),
        ),
        row(
            "route[].path.template",
            "/{x}/a",
            "/{x}/b",
            &[no_path],
            probe!(site => site.status("/q/a", "").await),
        ),
        row(
            "route[].methods",
            json!([]),
            json!(["POST"]),
            &[],
            probe!(site => site.status("/", "").await),
        ),
        row(
            "route[].headers[].name",
            "x-a",
            "x-b",
            &[],
            probe!(site => site.status("/", "X-A: 1\r\n").await),
        ),
        row(
            "route[].headers[].value",
            "1",
            "2",
            &[("route[].headers[].name", json!("x-a"))],
            probe!(site => site.status("/", "X-A: 1\r\n").await),
        ),
        row(
            "route[].cluster",
            "app",
            "other",
            &[other_cluster()],
            probe!(site => site.colour("").await),
        ),
        row(
            "route[].plugins",
            json!([]),
            json!(["p"]),
            &[(
                "plugin[]",
                json!({ "name": "p", "kind": "headers", "config": {
                "response": { "set": { "X-Plugin": "ran" } },
            } }),
            )],
            probe!(site => site.header("/", "", "x-plugin").await),
        ),
        row(
            "route[].limits",
            json!([]),
            json!(["narrow"]),
            &[(
                "limit[]",
                json!({ "name": "narrow", "by": "route", "requests": 1, "per_ms": 3_600_000 }),
            )],
            probe!(site => site.nth(2, "").await),
        ),
        row(
            "route[].retry_other_colour",
            false,
            true,
            &[
                (
                    "cluster[].endpoints",
                    json!({ "blue": ["{blue}"], "green": ["{green}"] }),
                ),
                ("store.directory", json!("{dir}/store")),
            ],
            probe!(site => {
                site.green.on("/work", Reply::new(500));
                site.roll_out("canary").await;
                site.status("/work", "").await
            }),
        ),
        row(
            "route[].body_bytes_max",
            1,
            1_000,
            &[],
            probe!(site => {
                let mut wire = site
                    .send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n0123456789")
                    .await;
                answer(&mut wire).await
            }),
        ),
        row(
            "route[].cors_origins",
            json!([]),
            json!(["https://x.test"]),
            &[sources(header.clone())],
            probe!(site =>
                site.header("/", "Origin: https://x.test\r\n", "access-control-allow-origin").await),
        ),
        row(
            "route[].tenant.required",
            true,
            false,
            &[sources(header.clone())],
            probe!(site => site.status("/", "").await),
        ),
        row(
            "route[].tenant.from_credential",
            true,
            false,
            &[
                sources(header),
                one.clone(),
                plugin.clone(),
                on_route.clone(),
            ],
            probe!(site => site.status("/", ONE).await),
        ),
        row(
            "route[].tenant.sources",
            json!(["credential"]),
            json!([{ "header": "x-location-id" }]),
            &[
                ("route[].tenant", json!({ "from_credential": false })),
                one.clone(),
                plugin,
                on_route,
            ],
            probe!(site => site.status("/", ONE).await),
        ),
        row(
            "route[].tenant.sources[].header",
            "x-location-id",
            "x-other",
            &[sources(json!({})), one.clone(), other.clone()],
            probe!(site =>
                site.forwarded("/", "X-Location-Id: loc_1\r\nX-Other: loc_2\r\n", "x-location-id").await),
        ),
        row(
            "route[].tenant.sources[].path",
            "a",
            "b",
            &[
                sources(json!({})),
                one.clone(),
                other.clone(),
                ("route[].path", json!({ "template": "/{a}/{b}" })),
            ],
            probe!(site => site.forwarded("/loc_1/loc_2", "", "x-location-id").await),
        ),
        row(
            "route[].tenant.sources[].query",
            "a",
            "b",
            &[sources(json!({})), one, other],
            probe!(site => site.forwarded("/?a=loc_1&b=loc_2", "", "x-location-id").await),
        ),
        row(
            "route[].tenant.sources[].subdomain",
            "one.test",
            "two.test",
            &[
                sources(json!({})),
                ("tenant[]", json!({ "id": "loc_1", "slug": "acme" })),
            ],
            probe!(site => of_host(site, "acme.one.test").await),
        ),
    ]
}

fn tenants() -> Vec<Row> {
    let by_header = sources(json!({ "header": "x-location-id" }));
    let with = [by_header.clone(), ("tenant[]", json!({ "id": "loc_1" }))];
    let limited = [
        by_header.clone(),
        (
            "tenant[]",
            json!({ "id": "loc_1", "requests_per_second": 1 }),
        ),
    ];
    let defaults = [
        by_header.clone(),
        ("tenant[]", json!({ "id": "loc_1" })),
        ("tenants.default_requests_per_second", json!(1)),
    ];
    let colours = [
        by_header.clone(),
        ("tenant[]", json!({ "id": "loc_1" })),
        ("cluster[].endpoints.green", json!(["{green}"])),
    ];
    let clusters = [
        by_header.clone(),
        ("tenant[]", json!({ "id": "loc_1" })),
        other_cluster(),
    ];
    vec![
        row(
            "tenant[].id",
            "loc_1",
            "loc_2",
            std::slice::from_ref(&by_header),
            probe!(site => site.status("/", ONE).await),
        ),
        row(
            "tenant[].slug",
            "acme",
            "beta",
            &[
                sources(json!({ "subdomain": "one.test" })),
                ("tenant[]", json!({ "id": "loc_1" })),
            ],
            probe!(site => of_host(site, "acme.one.test").await),
        ),
        row(
            "tenant[].enabled",
            true,
            false,
            &with,
            probe!(site => site.status("/", ONE).await),
        ),
        row(
            "tenant[].requests_per_second",
            1,
            100,
            &with,
            probe!(site => quota(site).await),
        ),
        row(
            "tenant[].burst",
            1,
            5,
            &limited,
            probe!(site => quota(site).await),
        ),
        row(
            "tenant[].in_flight_max",
            1,
            10,
            &with,
            probe!(site => beside(site).await),
        ),
        row(
            "tenant[].colours.*",
            json!({ "app": "blue" }),
            json!({ "app": "green" }),
            &colours,
            probe!(site => site.colour(ONE).await),
        ),
        row(
            "tenant[].routes.*",
            json!({ "all": "app" }),
            json!({ "all": "other" }),
            &clusters,
            probe!(site => site.colour(ONE).await),
        ),
        row(
            "tenants.directory",
            "{dir}/loc_1.jsonl",
            "{dir}/loc_2.jsonl",
            &[by_header],
            probe!(site => site.status("/", ONE).await),
        ),
        row(
            "tenants.default_requests_per_second",
            1,
            100,
            &with,
            probe!(site => quota(site).await),
        ),
        row(
            "tenants.default_burst",
            1,
            5,
            &defaults,
            probe!(site => quota(site).await),
        ),
        row(
            "tenants.default_in_flight_max",
            1,
            10,
            &with,
            probe!(site => beside(site).await),
        ),
    ]
}

async fn of_host(site: &Site, host: &str) -> String {
    let mut wire = site
        .send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    brief(&wire.read_response().await)
}

async fn quota(site: &Site) -> String {
    site.header("/", ONE, "ratelimit-limit").await
}

/// What becomes of a request while another of its tenant is in flight.
async fn beside(site: &Site) -> String {
    let _first = site.send(request("/hang", ONE)).await;
    site.blue.wait_for_requests(1).await;
    site.status("/", ONE).await
}
