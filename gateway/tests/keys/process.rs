//! `gateway`, `admin`, `access_log`, `metrics`, `limits` and `limit`.

use crate::material::OTHER_TOKEN;
use crate::site::{Site, answer, probe, request, soon, whether};
use crate::{Row, row};
use hub_testkit::{ADMIN_TOKEN, Signal};
use serde_json::{Value, json};
use std::time::Duration;

const HOUR_MS: u32 = 3_600_000;

pub(crate) fn rows() -> Vec<Row> {
    let narrow = ("limit[]", narrow("address"));
    let on_route = ("route[].limits", json!(["narrow"]));
    vec![
        row("gateway.workers", 1, 3, &[], probe!(site => threads(site))),
        row(
            "gateway.drain_notice_ms",
            0,
            10_000,
            &[],
            probe!(site => {
                site.hub.signal(Signal::TERM);
                whether(site.hub.wait_exit()).await
            }),
        ),
        row(
            "gateway.drain_timeout_ms",
            0,
            10_000,
            &[],
            probe!(site => {
                let _waiting = site.send(request("/hang", "")).await;
                site.blue.wait_for_requests(1).await;
                site.hub.signal(Signal::TERM);
                whether(site.hub.wait_exit()).await
            }),
        ),
        row(
            "gateway.upgrade_timeout_ms",
            100,
            600_000,
            &[],
            probe!(site => {
                let silent = script(site, "#!/bin/sh\nexec sleep 600\n");
                upgrade(site, &json!({ "binary": silent })).await;
                let aborted = [("outcome", "aborted")];
                whether(site.hub.wait_for_metric("hub_upgrades_total", &aborted, |n| n > 0.0)).await
            }),
        ),
        row(
            "gateway.upgrade_grace_ms",
            0,
            600_000,
            &[],
            probe!(site => {
                let _waiting = site.send(request("/hang", "")).await;
                site.blue.wait_for_requests(1).await;
                upgrade(site, &json!({})).await;
                site.hub.wait_for_successor().await;
                whether(site.hub.wait_exit()).await
            }),
        ),
        row(
            "gateway.reload_on_change",
            true,
            false,
            &[],
            probe!(site => reloads(site).await),
        ),
        row(
            "gateway.log_level",
            "info",
            "error",
            &[],
            probe!(site =>
            site.hub.stderr().contains("serving").to_string()),
        ),
        row(
            "admin.address",
            "127.0.0.1:0",
            "unix:{dir}/admin.sock",
            &[],
            probe!(site => {
                let status = site.hub.admin_request("GET", "/metrics", "", None).await.status;
                format!("{status} {}", site.hub.admin_endpoint().starts_with("unix:"))
            }),
        ),
        row(
            "admin.token_file",
            "{dir}/admin.token",
            "{dir}/other.token",
            &[],
            probe!(site => tokens(site).await),
        ),
        row(
            "admin.token_env",
            "HUB_TEST_TOKEN_A",
            "HUB_TEST_TOKEN_B",
            &[("admin.token_file", Value::Null)],
            probe!(site => tokens(site).await),
        ),
        row(
            "admin.audit_file",
            Value::Null,
            "{dir}/audit.log",
            &[],
            probe!(site => {
                site.hub.reload().await;
                let text = std::fs::read_to_string(site.hub.dir().join("audit.log"));
                format!("{:?} lines", text.ok().map(|text| text.lines().count()))
            }),
        ),
        row(
            "store.directory",
            Value::Null,
            "{dir}/store",
            &[],
            probe!(site => {
                let (status, _) = site.hub.admin("GET", "/v1/rollouts", "").await;
                format!("{status}")
            }),
        ),
        row(
            "admin.requests_per_second",
            1,
            10_000,
            &[],
            probe!(site => {
                let mut statuses = Vec::new();
                for _ in 0..5 {
                    let answer = site.hub.admin_request("GET", "/metrics", "", None).await;
                    statuses.push(answer.status);
                }
                format!("limited: {}", statuses.contains(&429))
            }),
        ),
        row(
            "admin.refusals_remembered",
            0,
            10,
            &[("route[].path", json!({ "exact": "/here" }))],
            probe!(site => {
                let id = site.get("/gone", "").await.json()["error"]["request_id"].clone();
                let path = format!("/v1/explain/{}", id.as_str().expect("an id"));
                site.hub.admin("GET", &path, "").await.0.to_string()
            }),
        ),
        row(
            "access_log.target",
            "{dir}/access.log",
            "{dir}/second.log",
            &[],
            probe!(site => {
                site.get("/", "").await;
                site.until("a line", async |site| log_files(site).contains(&true)).await;
                format!("{:?}", log_files(site))
            }),
        ),
        row(
            "access_log.flush_interval_ms",
            5,
            10_000,
            &[],
            probe!(site => {
                site.get("/", "").await;
                whether(site.hub.wait_for_access_log(1)).await
            }),
        ),
        // A pipe that nobody reads holds 64 KiB of lines, then the queue fills.
        row(
            "access_log.queue_lines",
            64,
            1_048_576,
            &[
                ("access_log.target", json!("{dir}/pipe")),
                ("route[].path", json!({ "exact": "/here" })),
            ],
            probe!(site => {
                pipeline(site, (0..2_000).map(|_| request("/gone", ""))).await;
                let drops = site.hub.metric("hub_access_log_dropped_total", &[]).await;
                format!("drops: {}", drops > 0.0)
            }),
        ),
        row(
            "metrics.tenant_labels_max",
            0,
            10,
            &[
                ("tenant[]", json!({ "id": "loc_1" })),
                (
                    "route[].tenant",
                    json!({ "sources": [{ "header": "x-location-id" }] }),
                ),
            ],
            probe!(site => {
                site.get("/", "X-Location-Id: loc_1\r\n").await;
                let name = "hub_tenant_requests_total";
                site.hub.wait_for_metric(name, &[], |count| count > 0.0).await;
                site.hub.metric(name, &[("tenant", "loc_1")]).await.to_string()
            }),
        ),
        row(
            "limits.address",
            json!([]),
            json!(["narrow"]),
            std::slice::from_ref(&narrow),
            probe!(site => site.nth(2, "").await),
        ),
        row(
            "limits.headers",
            true,
            false,
            &[narrow.clone(), on_route.clone()],
            probe!(site => site.header("/", "", "ratelimit-limit").await),
        ),
        row(
            "limits.keys_max",
            1_024,
            262_144,
            &[("limit[]", self::narrow("header:x-key")), on_route.clone()],
            probe!(site => {
                let of = |key| request("/", &format!("X-Key: {key}\r\n"));
                pipeline(site, (0..1_200).map(of)).await;
                let evictions = site.hub.metric("hub_limiter_evictions_total", &[]).await;
                format!("evictions: {}", evictions > 0.0)
            }),
        ),
        row(
            "limit[].name",
            "narrow",
            "wide",
            &[
                ("limit[]", self::narrow("route")),
                (
                    "limit[1]",
                    json!({
                        "name": { "by_value": { "narrow": "wide", "wide": "narrow" } },
                        "by": "route", "requests": 100,
                    }),
                ),
                on_route.clone(),
            ],
            probe!(site => site.header("/", "", "ratelimit-limit").await),
        ),
        row(
            "limit[].by",
            "route",
            "header:x-key",
            &[narrow.clone(), on_route.clone()],
            probe!(site => {
                site.get("/", "X-Key: a\r\n").await;
                site.status("/", "X-Key: b\r\n").await
            }),
        ),
        row(
            "limit[].requests",
            1,
            100,
            &[narrow.clone(), on_route.clone()],
            probe!(site => site.nth(2, "").await),
        ),
        row(
            "limit[].burst",
            1,
            5,
            &[narrow.clone(), on_route.clone()],
            probe!(site => site.nth(2, "").await),
        ),
        row(
            "limit[].per_ms",
            HOUR_MS,
            1,
            &[narrow, on_route],
            probe!(site => site.header("/", "", "ratelimit-reset").await),
        ),
    ]
}

fn narrow(by: &str) -> Value {
    json!({ "name": "narrow", "by": by, "requests": 1, "per_ms": HOUR_MS })
}

/// A program in the gateway's folder.
fn script(site: &Site, text: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = site.hub.dir().join("program");
    std::fs::write(&path, text).expect("written");
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, permissions).expect("our own file");
    path
}

pub(crate) async fn upgrade(site: &Site, order: &Value) {
    let (status, body) = site
        .hub
        .admin("POST", "/v1/upgrade", &order.to_string())
        .await;
    assert_eq!(status, 202, "{body}");
}

/// Which of the two logs has a line.
fn log_files(site: &Site) -> [bool; 2] {
    let size = |name| std::fs::metadata(site.hub.dir().join(name)).map_or(0, |file| file.len());
    ["access.log", "second.log"].map(|name| size(name) > 0)
}

fn threads(site: &Site) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", site.hub.pid())).expect("it runs");
    let names = tasks.filter_map(|task| {
        let comm = task.ok()?.path().join("comm");
        std::fs::read_to_string(comm).ok()
    });
    format!(
        "{} threads",
        names.filter(|name| name.trim() == "data").count()
    )
}

/// Whether a changed file is taken up by itself. It is changed again and again, since nothing tells
/// when the gateway has begun to watch.
async fn reloads(site: &Site) -> String {
    let text = std::fs::read_to_string(site.hub.config_path()).expect("the configuration");
    for change in 0..6 {
        site.hub.write_config(&format!(
            "{text}# {change}\nmetrics = {{ tenant_labels_max = {change} }}\n"
        ));
        let reloaded = async {
            let name = "hub_config_reloads_total";
            while site.hub.metric(name, &[("outcome", "applied")]).await == 0.0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(Duration::from_millis(500), reloaded)
            .await
            .is_ok()
        {
            return "reloaded".into();
        }
    }
    "as it was".into()
}

/// Which token the admin API takes.
async fn tokens(site: &Site) -> String {
    let mut statuses = Vec::new();
    for token in [ADMIN_TOKEN, OTHER_TOKEN] {
        let answer = site
            .hub
            .admin_request("GET", "/v1/snapshot", "", Some(token))
            .await;
        statuses.push(answer.status);
    }
    format!("{statuses:?}")
}

/// Sends all on one connection, some at a time, and reads all answers.
pub(crate) async fn pipeline(site: &Site, requests: impl Iterator<Item = String>) {
    let requests: Vec<_> = requests.collect();
    let mut wire = site.connect().await;
    for some in requests.chunks(50) {
        wire.send(some.concat()).await;
        for _ in some {
            answer(&mut wire).await;
        }
    }
    // What was asked last is recorded by the time that the next answer is there.
    soon(site.hub.metrics()).await;
}
