//! `[[plugin]]` and the settings of each kind.

use crate::material::{self, API_KEYS, eddsa, es384, hs256, sha256};
use crate::process::pipeline;
use crate::site::{Probe, Site, probe, request, whether};
use crate::{Row, row};
use hub_testkit::Reply;
use serde_json::{Value, json};

type Setting = (&'static str, Value);

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = any();
    rows.extend(api_key());
    rows.extend(headers());
    rows.extend(jwt());
    rows
}

fn on_route() -> Setting {
    ("route[].plugins", json!(["p"]))
}

fn plugin(kind: &str, config: Value) -> [Setting; 2] {
    [
        (
            "plugin[]",
            json!({ "name": "p", "kind": kind, "config": config }),
        ),
        on_route(),
    ]
}

fn and(mut with: Vec<Setting>, more: &[Setting]) -> Vec<Setting> {
    with.extend_from_slice(more);
    with
}

/// A route whose tenant is what the credential says.
fn tenants() -> [Setting; 3] {
    [
        ("tenant[]", json!({ "id": "loc_1" })),
        ("tenant[1]", json!({ "id": "loc_2" })),
        ("route[].tenant", json!({ "sources": ["credential"] })),
    ]
}

fn any() -> Vec<Row> {
    let sets = |value: &str| json!({ "response": { "set": { "X-Plugin": value } } });
    let request_id = plugin("request_id", json!({}));
    vec![
        row(
            "plugin[].kind",
            "request_id",
            "headers",
            &[
                on_route(),
                (
                    "plugin[]",
                    json!({ "name": "p", "config": {
                "by_value": { "request_id": {}, "headers": sets("headers") },
            } }),
                ),
            ],
            probe!(site => {
                let answer = site.get("/", "").await;
                format!("{} {:?}", answer.header("x-request-id").is_some(), answer.header("x-plugin"))
            }),
        ),
        row(
            "plugin[].name",
            "p",
            "q",
            &[
                on_route(),
                (
                    "plugin[]",
                    json!({ "kind": "headers", "config": sets("first") }),
                ),
                (
                    "plugin[1]",
                    json!({
                        "name": { "by_value": { "p": "q", "q": "p" } },
                        "kind": "headers", "config": sets("second"),
                    }),
                ),
            ],
            probe!(site => site.header("/", "", "x-plugin").await),
        ),
        row(
            "plugin[request_id].config.header",
            "X-Request-Id",
            "X-Rid",
            &request_id,
            probe!(site => {
                let answer = site.get("/", "").await;
                format!("{:?}", ["x-request-id", "x-rid"].map(|name| answer.header(name).is_some()))
            }),
        ),
        row(
            "plugin[request_id].config.accept_incoming",
            false,
            true,
            &request_id,
            probe!(site => site.forwarded("/", "X-Request-Id: mine\r\n", "x-parent-request-id").await),
        ),
    ]
}

fn api_key() -> Vec<Row> {
    let key =
        |which: usize| json!({ "name": "n", "tenant": "loc_1", "sha256": sha256(API_KEYS[which]) });
    let with = [
        plugin("api_key", json!({ "keys": [key(0)] })).to_vec(),
        tenants().to_vec(),
    ]
    .concat();
    let probe: Probe = probe!(site => with_key(site, "X-Api-Key").await);
    vec![
        row(
            "plugin[api_key].config.file",
            "{dir}/keys1",
            "{dir}/keys2",
            &plugin("api_key", json!({})),
            probe,
        ),
        row(
            "plugin[api_key].config.header",
            "X-Api-Key",
            "X-Other",
            &with,
            probe,
        ),
        row(
            "plugin[api_key].config.keys[].name",
            "alice",
            "bob",
            &with,
            probe!(site =>
            site.logged(&format!("X-Api-Key: {}\r\n", API_KEYS[0]), "subject").await),
        ),
        row(
            "plugin[api_key].config.keys[].sha256",
            sha256(API_KEYS[0]),
            sha256(API_KEYS[1]),
            &with,
            probe,
        ),
        row(
            "plugin[api_key].config.keys[].tenant",
            "loc_1",
            "loc_2",
            &with,
            probe!(site =>
            site.forwarded("/", &format!("X-Api-Key: {}\r\n", API_KEYS[0]), "x-location-id").await),
        ),
        row(
            "plugin[api_key].config.required",
            true,
            false,
            &plugin("api_key", json!({ "keys": [key(0)] })),
            probe!(site => site.status("/", "").await),
        ),
    ]
}

fn headers() -> Vec<Row> {
    let with = plugin("headers", json!({}));
    let request: Probe = probe!(site => site.forwarded("/", "X-Seen: mine\r\n", "x-seen").await);
    let response: Probe = probe!(site => {
        let answer = site.get("/out", "").await;
        format!("{:?}", answer.header_all("x-out").collect::<Vec<_>>())
    });
    let map = |name: &str, value: &str| json!({ name: value });
    vec![
        row(
            "plugin[headers].config.request.append.*",
            map("X-Seen", "a"),
            map("X-Seen", "b"),
            &with,
            request,
        ),
        row(
            "plugin[headers].config.request.set.*",
            map("X-Seen", "a"),
            map("X-Seen", "b"),
            &with,
            request,
        ),
        row(
            "plugin[headers].config.request.remove",
            json!(["X-Seen"]),
            json!(["X-Gone"]),
            &with,
            request,
        ),
        row(
            "plugin[headers].config.response.append.*",
            map("X-Out", "a"),
            map("X-Out", "b"),
            &with,
            response,
        ),
        row(
            "plugin[headers].config.response.set.*",
            map("X-Out", "a"),
            map("X-Out", "b"),
            &with,
            response,
        ),
        row(
            "plugin[headers].config.response.remove",
            json!(["X-Out"]),
            json!(["X-Gone"]),
            &with,
            response,
        ),
    ]
}

fn jwt() -> Vec<Row> {
    let hmac = json!({ "algorithms": ["HS256"], "secret_file": "{dir}/secret1" });
    let with = plugin("jwt", json!({ "audiences": ["us"], "keys": [hmac] })).to_vec();
    let ed = json!({ "algorithms": ["EdDSA"] });
    let by_ed = plugin("jwt", json!({ "audiences": ["us"], "keys": [ed] })).to_vec();
    let by_env = plugin(
        "jwt",
        json!({ "audiences": ["us"], "keys": [{ "algorithms": ["HS256"] }] }),
    );
    let no_keys = plugin("jwt", json!({ "audiences": ["us"] })).to_vec();
    let fetched = and(
        no_keys.clone(),
        &[("plugin[jwt].config.jwks.url", json!("http://{blue}/jwks"))],
    );
    let secure = and(
        no_keys.clone(),
        &[("plugin[jwt].config.jwks.url", json!("https://{tls}/jwks"))],
    );
    let by_p384 = plugin(
        "jwt",
        json!({ "audiences": ["us"], "keys": [
        { "algorithms": ["ES384"], "public_key_file": "{dir}/p384.pem" },
    ] }),
    )
    .to_vec();
    let no_tenant = (
        "route[].tenant",
        json!({ "sources": [{ "header": "x-location-id" }] }),
    );
    let probe: Probe = probe!(site => bearer(site, &hs256(json!({}))).await);
    let ed_probe: Probe = probe!(site => bearer(site, &eddsa("ed")).await);
    vec![
        row(
            "plugin[jwt].config.keys[].secret_file",
            "{dir}/secret1",
            "{dir}/secret2",
            &with,
            probe,
        ),
        row(
            "plugin[jwt].config.keys[].secret_env",
            "HUB_TEST_SECRET_A",
            "HUB_TEST_SECRET_B",
            &by_env,
            probe,
        ),
        row(
            "plugin[jwt].config.keys[].public_key_file",
            "{dir}/ed1.pem",
            "{dir}/ed2.pem",
            &by_ed,
            ed_probe,
        ),
        row(
            "plugin[jwt].config.keys[].algorithms",
            json!(["HS256"]),
            json!(["HS384"]),
            &with,
            probe,
        ),
        row("plugin[jwt].config.keys[].kid", "k1", "k2", &with, probe),
        row(
            "plugin[jwt].config.issuers",
            json!(["them"]),
            json!(["others"]),
            &with,
            probe,
        ),
        row(
            "plugin[jwt].config.audiences",
            json!(["us"]),
            json!(["others"]),
            &with,
            probe,
        ),
        row(
            "plugin[jwt].config.any_audience",
            true,
            false,
            &and(
                with.clone(),
                &[(
                    "plugin[jwt].config.audiences",
                    json!({ "by_value": { "true": [], "false": ["others"] } }),
                )],
            ),
            probe,
        ),
        row(
            "plugin[jwt].config.tenant_claim",
            "location_id",
            "other_id",
            &and(with.clone(), &tenants()),
            probe!(site =>
                site.forwarded("/", &authorization(&hs256(json!({}))), "x-location-id").await),
        ),
        row(
            "plugin[jwt].config.leeway_seconds",
            0,
            300,
            &with,
            probe!(site =>
            bearer(site, &hs256(json!({ "exp": material::now() - 60 }))).await),
        ),
        row(
            "plugin[jwt].config.token_bytes_max",
            256,
            8_192,
            &with,
            probe!(site =>
            bearer(site, &hs256(json!({ "padding": "x".repeat(300) }))).await),
        ),
        row(
            "plugin[jwt].config.cookie",
            "one",
            "two",
            &with,
            probe!(site =>
            site.status("/", &format!("Cookie: one={}\r\n", hs256(json!({})))).await),
        ),
        row(
            "plugin[jwt].config.query_parameter",
            "one",
            "two",
            &with,
            probe!(site =>
            site.status(&format!("/?one={}", hs256(json!({}))), "").await),
        ),
        row(
            "plugin[jwt].config.required",
            true,
            false,
            &with,
            probe!(site => site.status("/", "").await),
        ),
        row(
            "plugin[jwt].config.cache_entries",
            0,
            10_000,
            &and(by_p384, &[no_tenant]),
            probe!(site => remembers(site).await),
        ),
        row(
            "plugin[jwt].config.jwks.file",
            "{dir}/jwks1.json",
            "{dir}/jwks2.json",
            &no_keys,
            ed_probe,
        ),
        row(
            "plugin[jwt].config.jwks.url",
            "http://{blue}/jwks",
            "http://{green}/jwks",
            &no_keys,
            ed_probe,
        ),
        row(
            "plugin[jwt].config.jwks.algorithms",
            json!(["EdDSA"]),
            json!(["ES384"]),
            &fetched,
            ed_probe,
        ),
        row(
            "plugin[jwt].config.jwks.ca_file",
            "{dir}/ca.pem",
            "{dir}/other-ca.pem",
            &secure,
            ed_probe,
        ),
        row(
            "plugin[jwt].config.jwks.refresh_seconds",
            1,
            86_400,
            &fetched,
            probe!(site => whether(site.blue.wait_for_requests(2)).await),
        ),
        row(
            "plugin[jwt].config.jwks.early_refresh_seconds",
            1,
            86_400,
            &fetched,
            probe!(site => {
                site.blue.on("/jwks", Reply::ok(material::jwks(1)));
                bearer(site, &eddsa("unknown")).await;
                whether(site.blue.wait_for_requests(2)).await
            }),
        ),
    ]
}

fn authorization(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

async fn bearer(site: &Site, token: &str) -> String {
    site.status("/", &authorization(token)).await
}

async fn with_key(site: &Site, header: &str) -> String {
    site.status("/", &format!("{header}: {}\r\n", API_KEYS[0]))
        .await
}

/// Whether a token that comes again costs less than one that is new. A signature on P-384 takes longer
/// than the rest of a request that is refused for want of a tenant.
async fn remembers(site: &Site) -> String {
    const TOKENS: usize = 300;
    let of = |token: &str| request("/", &authorization(token));
    let fresh: Vec<_> = (0..TOKENS)
        .map(|i| of(&es384(json!({ "jti": i }))))
        .collect();
    let same = of(&es384(json!({})));
    pipeline(site, std::iter::once(same.clone())).await;
    let begun = cpu_ns(site);
    pipeline(site, fresh.into_iter()).await;
    let between = cpu_ns(site);
    pipeline(site, std::iter::repeat_n(same, TOKENS)).await;
    let (fresh, same) = (between - begun, cpu_ns(site) - between);
    // The numbers themselves differ from run to run.
    format!("cheaper: {}", same * 4 < fresh * 3)
}

/// CPU time of the gateway's worker so far.
fn cpu_ns(site: &Site) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", site.hub.pid())).expect("it runs");
    let data = tasks.filter_map(|task| {
        let task = task.ok()?.path();
        let name = std::fs::read_to_string(task.join("comm")).ok()?;
        let times = std::fs::read_to_string(task.join("schedstat")).ok()?;
        (name.trim() == "data").then(|| times.split(' ').next()?.parse::<u64>().ok())?
    });
    data.sum()
}
