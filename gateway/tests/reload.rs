//! Reloading a running gateway: what starts one, what refuses one, and what lives through it.

use hub_testkit::{ADMIN_TOKEN, Gate, Hub, Origin, Reply, Signal, Wire, WireResponse, demo_config};
use serde_json::Value;

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
/// Takes the tenant from a header; tenants are in a directory.
const TENANTS: &str = r#"tenant = { sources = [{ header = "x-location-id" }] }
[tenants]
directory = "{dir}/tenants.jsonl"
"#;

async fn start(config: &str) -> Hub {
    Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(config)
        .start()
        .await
}

/// The configuration in front of this origin, reloaded when its file changes.
fn watched(origin: &Origin) -> String {
    demo_config(origin.endpoint()).replace("reload_on_change = false", "reload_on_change = true")
}

async fn coloured(colour: &str) -> Origin {
    Origin::builder().colour(colour).start().await
}

async fn ask(hub: &Hub, request: &str) -> WireResponse {
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send(request).await;
    wire.read_response().await
}

/// Which origin answers now.
async fn colour(hub: &Hub) -> String {
    let answer = ask(hub, GET).await;
    assert_eq!(answer.status, 200, "{}", answer.raw_text());
    answer.json()["colour"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

async fn ask_as(hub: &Hub, tenant: &str) -> WireResponse {
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Location-Id: {tenant}\r\n\r\n");
    ask(hub, &request).await
}

async fn reloads(hub: &Hub, outcome: &str) -> f64 {
    hub.metric("hub_config_reloads_total", &[("outcome", outcome)])
        .await
}

async fn snapshot(hub: &Hub) -> Value {
    let (status, body) = hub.admin("GET", "/v1/snapshot", "").await;
    assert_eq!(status, 200);
    body
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(|item| item.as_str().expect("a text").to_owned())
        .collect()
}

/// The gateway runs on the same snapshot as before, and serves.
async fn assert_untouched(hub: &Hub, before: &Value) {
    let now = snapshot(hub).await;
    for key in [
        "epoch",
        "hash",
        "taken_at_unix_seconds",
        "routes",
        "tenants",
    ] {
        assert_eq!(now[key], before[key], "{key}");
    }
    assert_eq!(ask(hub, GET).await.status, 200);
}

// What starts a reload.

#[tokio::test]
async fn a_changed_file_is_in_force_by_itself() {
    let (old, new) = (coloured("old").await, coloured("new").await);
    let hub = start(&watched(&old)).await;
    assert_eq!(colour(&hub).await, "old");
    hub.write_config(&watched(&new));
    hub.wait_for_metric("hub_config_reloads_total", &[("outcome", "applied")], |n| {
        n == 1.0
    })
    .await;
    assert_eq!(colour(&hub).await, "new");
    hub.wait_for_stderr("file_change").await;
}

#[tokio::test]
async fn a_file_that_is_written_in_place_is_read_once_it_is_whole() {
    let (old, new) = (coloured("old").await, coloured("new").await);
    let hub = start(&watched(&old)).await;
    // As an editor does it that truncates and writes.
    let path = hub.config_path();
    let text = watched(&new).replace("{dir}", &hub.dir().display().to_string());
    std::fs::write(&path, &text[..text.len() / 2]).expect("write");
    std::fs::write(&path, &text).expect("write");
    hub.wait_for_metric("hub_config_reloads_total", &[("outcome", "applied")], |n| {
        n == 1.0
    })
    .await;
    assert_eq!(colour(&hub).await, "new");
}

#[tokio::test]
async fn a_hang_up_signal_reloads() {
    let (old, new) = (coloured("old").await, coloured("new").await);
    let hub = start(&demo_config(old.endpoint())).await;
    hub.write_config(&demo_config(new.endpoint()));
    assert_eq!(colour(&hub).await, "old", "nothing asked for a reload yet");
    hub.signal(Signal::HUP);
    hub.wait_for_metric("hub_config_reloads_total", &[("outcome", "applied")], |n| {
        n == 1.0
    })
    .await;
    assert_eq!(colour(&hub).await, "new");
    hub.wait_for_stderr("a new configuration is in force").await;
}

#[tokio::test]
async fn the_admin_api_reloads_and_says_what_changed() {
    let (old, new) = (coloured("old").await, coloured("new").await);
    let hub = start(&demo_config(old.endpoint())).await;
    let before = snapshot(&hub).await;
    hub.write_config(&demo_config(new.endpoint()));
    let (status, body) = hub.reload().await;
    assert_eq!((status, &body["outcome"]), (200, &Value::from("applied")));
    let changes = body["diff"]["changes"].as_array().expect("changes");
    assert_eq!(changes.len(), 1, "{body:#}");
    assert_eq!(changes[0]["what"], "changed");
    let told = changes[0].to_string();
    for part in ["app", &old.endpoint(), &new.endpoint()] {
        assert!(told.contains(part), "{part} in {told}");
    }
    // In force when the answer comes, not some time later.
    assert_eq!(colour(&hub).await, "new");
    let now = snapshot(&hub).await;
    assert_eq!(
        now["epoch"].as_u64(),
        before["epoch"].as_u64().map(|n| n + 1)
    );
    assert_eq!(now["epoch"], body["epoch"]);
    assert_eq!(now["hash"], body["hash"]);
    assert_ne!(now["hash"], before["hash"]);
}

#[tokio::test]
async fn a_reload_of_the_same_files_changes_nothing() {
    let origin = Origin::start().await;
    let hub = start(&demo_config(origin.endpoint())).await;
    let before = snapshot(&hub).await;
    let (status, body) = hub.reload().await;
    assert_eq!((status, &body["outcome"]), (200, &Value::from("unchanged")));
    assert_eq!(body["hash"], before["hash"]);
    assert_eq!(reloads(&hub, "unchanged").await, 1.0);
    assert_untouched(&hub, &before).await;
    // The hash is the file's own: a comment makes another file of the same meaning.
    hub.write_config(&format!(
        "# Written anew.\n{}",
        demo_config(origin.endpoint())
    ));
    let (status, body) = hub.reload().await;
    assert_eq!(
        (status, &body["diff"]["changes"]),
        (200, &serde_json::json!([]))
    );
}

#[tokio::test]
async fn a_file_that_is_reached_over_a_link_is_seen_to_change() {
    let origin = Origin::start().await;
    let config = watched(&origin) + &TENANTS.replace("{dir}/", "{dir}/current/");
    let hub = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&config.replace("/current/", "/"))
        .file("tenants.jsonl", "{\"id\":\"loc_a\"}\n")
        .start()
        .await;
    let release = |name: &str, tenants: &str| {
        let folder = hub.dir().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("tenants.jsonl"), tenants).expect("written");
        let link = hub.dir().join("next");
        std::os::unix::fs::symlink(&folder, &link).expect("a link");
        std::fs::rename(&link, hub.dir().join("current")).expect("switched");
    };
    let tenants = |wanted: f64| {
        let hub = &hub;
        async move {
            hub.wait_for_metric("hub_tenants", &[], |tenants| tenants == wanted)
                .await;
        }
    };
    release("one", "{\"id\":\"loc_a\"}\n{\"id\":\"loc_b\"}\n");
    hub.write_config(&config);
    tenants(2.0).await;
    release(
        "two",
        "{\"id\":\"loc_a\"}\n{\"id\":\"loc_b\"}\n{\"id\":\"loc_c\"}\n",
    );
    tenants(3.0).await;
    assert_eq!(reloads(&hub, "applied").await, 2.0);
}

#[tokio::test]
async fn a_mistake_is_corrected_in_the_file_that_holds_it() {
    let origin = Origin::start().await;
    let hub = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&watched(&origin))
        .file("tenants.jsonl", "{\"idd\":1}\n")
        .start()
        .await;
    hub.write_config(&(watched(&origin) + TENANTS));
    hub.wait_for_metric(
        "hub_config_reloads_total",
        &[("outcome", "rejected")],
        |n| n == 1.0,
    )
    .await;
    hub.write_file("tenants.jsonl", "{\"id\":\"loc_a\"}\n");
    hub.wait_for_metric("hub_tenants", &[], |tenants| tenants == 1.0)
        .await;
}

#[tokio::test]
async fn what_a_caller_had_reloaded_is_not_reloaded_again_by_the_watch() {
    let (old, new) = (coloured("old").await, coloured("new").await);
    let hub = start(&watched(&old)).await;
    hub.write_config(&watched(&new));
    hub.reload().await;
    // The next change is seen, and the one before it was no change any more.
    hub.write_config(&watched(&old));
    hub.wait_for_metric("hub_config_reloads_total", &[("outcome", "applied")], |n| {
        n == 2.0
    })
    .await;
    assert_eq!(reloads(&hub, "unchanged").await, 0.0);
}

// What refuses one.

#[tokio::test]
async fn an_access_log_that_cannot_be_opened_refuses_the_whole_reload() {
    let origin = Origin::start().await;
    let config = demo_config(origin.endpoint());
    let hub = start(&config).await;
    let before = snapshot(&hub).await;
    // A pipe that nobody reads from.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        hub.dir().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a pipe");
    let target = config
        .lines()
        .find(|line| line.starts_with("target ="))
        .expect("the access log");
    let moved = config.replace(target, "target = \"{dir}/pipe\"");
    hub.write_config(&moved.replace("name = \"all\"", "name = \"renamed\""));
    let (status, body) = hub.reload().await;
    assert_eq!((status, &body["outcome"]), (422, &Value::from("rejected")));
    assert!(body["problems"].to_string().contains("pipe"), "{body}");
    assert_untouched(&hub, &before).await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_every_problem_is_told() {
    let origin = Origin::start().await;
    let good = demo_config(origin.endpoint());
    let hub = start(&good).await;
    let before = snapshot(&hub).await;
    let bad = good
        .replace("cluster = \"app\"", "cluster = \"ap\"\nbody_bytes = 1")
        .replace("drain_notice_ms = 0", "drain_notice_ms = 999999999");
    hub.write_config(&bad);
    let (status, body) = hub.reload().await;
    assert_eq!((status, &body["outcome"]), (422, &Value::from("rejected")));
    let problems = texts(&body["problems"]);
    for part in ["\"app\"", "body_bytes", "drain_notice_ms", "gateway.toml:"] {
        assert!(
            problems.iter().any(|problem| problem.contains(part)),
            "{part} in {problems:#?}"
        );
    }
    assert!(problems.len() >= 3, "{problems:#?}");
    assert_eq!(reloads(&hub, "rejected").await, 1.0);
    hub.wait_for_stderr("the old one stays in force").await;
    assert!(
        hub.stderr().contains("body_bytes"),
        "the log names the problems"
    );
    assert_untouched(&hub, &before).await;

    hub.signal(Signal::HUP);
    hub.wait_for_metric(
        "hub_config_reloads_total",
        &[("outcome", "rejected")],
        |n| n == 2.0,
    )
    .await;
    assert_untouched(&hub, &before).await;

    hub.write_config("this is not = = TOML");
    let (status, body) = hub.reload().await;
    assert_eq!(status, 422);
    assert_eq!(texts(&body["problems"]).len(), 1);
    assert_untouched(&hub, &before).await;

    // And the way back is open.
    hub.write_config(&good);
    assert_eq!(hub.reload().await.1["outcome"], "unchanged");
}

#[tokio::test]
async fn a_deleted_file_leaves_the_last_good_one_in_force() {
    let (old, new) = (coloured("old").await, coloured("new").await);
    let hub = start(&watched(&old)).await;
    let before = snapshot(&hub).await;
    std::fs::remove_file(hub.config_path()).expect("remove");
    hub.wait_for_metric(
        "hub_config_reloads_total",
        &[("outcome", "rejected")],
        |n| n >= 1.0,
    )
    .await;
    let (status, body) = hub.reload().await;
    assert_eq!(status, 422);
    assert!(
        texts(&body["problems"])[0].contains("gateway.toml"),
        "{body}"
    );
    assert_untouched(&hub, &before).await;
    // It is seen again when it comes back.
    hub.write_config(&watched(&new));
    hub.wait_for_metric("hub_config_reloads_total", &[("outcome", "applied")], |n| {
        n == 1.0
    })
    .await;
    assert_eq!(colour(&hub).await, "new");
}

#[tokio::test]
async fn a_changed_listener_needs_an_upgrade_and_refuses_the_whole_reload() {
    let (old, new) = (coloured("old").await, coloured("new").await);
    let hub = start(&demo_config(old.endpoint())).await;
    let before = snapshot(&hub).await;
    hub.write_config(&demo_config(new.endpoint()).replace(
        "name = \"public\"\naddress = \"127.0.0.1:0\"",
        "name = \"public\"\naddress = \"127.0.0.2:0\"",
    ));
    for (path, counted) in [("/v1/reload?dry_run=true", 0.0), ("/v1/reload", 1.0)] {
        let (status, body) = hub.admin("POST", path, "").await;
        assert_eq!(
            (status, &body["outcome"]),
            (409, &Value::from("needs_upgrade")),
            "{path}"
        );
        let settings = texts(&body["settings"]);
        assert_eq!(settings.len(), 1, "{settings:?}");
        assert!(settings[0].contains("\"public\"") && settings[0].contains("127.0.0.2:0"));
        // The rest of the difference is shown as well.
        assert!(
            body["diff"]["changes"]
                .to_string()
                .contains(&new.endpoint()),
            "{body:#}"
        );
        assert_eq!(reloads(&hub, "needs_upgrade").await, counted, "{path}");
    }
    hub.wait_for_stderr("needs_upgrade").await;
    assert_untouched(&hub, &before).await;
    assert_eq!(colour(&hub).await, "old");
}

#[tokio::test]
async fn listeners_workers_and_the_admin_address_each_need_an_upgrade() {
    let origin = Origin::start().await;
    let config = demo_config(origin.endpoint());
    let hub = start(&config).await;
    let before = snapshot(&hub).await;
    let second = "[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"\n[[cluster]]";
    for (changed, named) in [
        (
            config.replacen("workers = 1", "workers = 2", 1),
            "gateway.workers",
        ),
        (
            config.replacen("address = \"127.0.0.1:0\"", "address = \"127.0.0.1:9\"", 1),
            "admin.address",
        ),
        (config.replacen("[[cluster]]", second, 1), "\"second\""),
        (
            config.replacen("\"public\"", "\"renamed\"", 1),
            "\"public\"",
        ),
    ] {
        hub.write_config(&changed);
        let (status, body) = hub.reload().await;
        assert_eq!(status, 409, "{named}: {body}");
        assert!(
            body["settings"]
                .to_string()
                .replace('\\', "")
                .contains(named),
            "{body}"
        );
    }
    assert_untouched(&hub, &before).await;
}

#[tokio::test]
async fn a_dry_run_shows_the_difference_and_changes_nothing() {
    let (old, new) = (coloured("old").await, coloured("new").await);
    let hub = start(&demo_config(old.endpoint())).await;
    let before = snapshot(&hub).await;
    hub.write_config(
        &(demo_config(new.endpoint())
            + "[[route]]\nname = \"more\"\npath = { exact = \"/more\" }\ncluster = \"app\"\n"),
    );
    let (status, body) = hub.admin("POST", "/v1/reload?dry_run=true", "").await;
    assert_eq!(
        (status, &body["outcome"]),
        (200, &Value::from("would_apply"))
    );
    let changes = body["diff"]["changes"].as_array().expect("changes");
    assert_eq!(changes.len(), 2, "{body:#}");
    assert_eq!(changes[1]["what"], "added");
    assert!(changes[1]["path"].to_string().contains("more"), "{body:#}");
    assert_untouched(&hub, &before).await;
    assert_eq!(colour(&hub).await, "old");
    for outcome in ["applied", "unchanged", "rejected", "needs_upgrade"] {
        assert_eq!(reloads(&hub, outcome).await, 0.0, "{outcome}");
    }
    // The reload then does just that.
    let (_, applied) = hub.reload().await;
    assert_eq!(applied["diff"], body["diff"]);
    assert_eq!(colour(&hub).await, "new");
    // Of a bad file a dry run tells the problems, as a reload would.
    hub.write_config("[nonsense]\n");
    let (status, body) = hub.admin("POST", "/v1/reload?dry_run=true", "").await;
    assert_eq!((status, &body["outcome"]), (422, &Value::from("rejected")));
    assert_eq!(reloads(&hub, "rejected").await, 0.0);
}

// What lives through it.

#[tokio::test]
async fn a_request_in_flight_finishes_on_what_it_began_with() {
    let gate = Gate::closed();
    let old = Origin::builder()
        .colour("old")
        .on("/slow", Reply::ok("from the old").after(&gate))
        .start()
        .await;
    let new = coloured("new").await;
    let hub = start(&demo_config(old.endpoint())).await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await;
    old.wait_for_requests(1).await;
    hub.write_config(&demo_config(new.endpoint()).replace("name = \"all\"", "name = \"renamed\""));
    assert_eq!(hub.reload().await.1["outcome"], "applied");
    assert_eq!(colour(&hub).await, "new");
    hub.wait_for_metric("hub_config_snapshots_retired", &[], |held| held == 1.0)
        .await;
    gate.open();
    let answer = wire.read_response().await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "from the old")
    );
    let line = hub.wait_for_log_line(|line| line["path"] == "/slow").await;
    assert_eq!(line["route"], "all");
    // The connection goes on, and its next request sees the new snapshot.
    wire.send(GET).await;
    assert_eq!(wire.read_response().await.json()["colour"], "new");
    hub.wait_for_log_line(|line| line["route"] == "renamed")
        .await;
    hub.wait_for_metric("hub_config_snapshots_retired", &[], |held| held == 0.0)
        .await;
}

#[tokio::test]
async fn the_directory_adds_and_removes_tenants() {
    let origin = Origin::start().await;
    let hub = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&(demo_config(origin.endpoint()) + TENANTS))
        .file("tenants.jsonl", "{\"id\":\"loc_a\"}\n{\"id\":\"loc_b\"}\n")
        .start()
        .await;
    assert_eq!(ask_as(&hub, "loc_a").await.status, 200);
    assert_eq!(
        ask_as(&hub, "loc_c").await.json()["error"]["code"],
        "tenant_unknown"
    );
    hub.write_file("tenants.jsonl", "{\"id\":\"loc_b\"}\n{\"id\":\"loc_c\"}\n");
    let (status, body) = hub.reload().await;
    assert_eq!(status, 200, "{body}");
    let changes = body["diff"]["changes"].to_string();
    assert!(
        changes.contains("loc_a") && changes.contains("loc_c"),
        "{changes}"
    );
    assert_eq!(
        ask_as(&hub, "loc_a").await.json()["error"]["code"],
        "tenant_unknown"
    );
    for tenant in ["loc_b", "loc_c"] {
        assert_eq!(ask_as(&hub, tenant).await.status, 200, "{tenant}");
    }
    // A bad line refuses the whole directory, and is named.
    hub.write_file(
        "tenants.jsonl",
        "{\"id\":\"loc_d\"}\n{\"id\":\"loc_d\"}\n{\"idd\":1}\n",
    );
    let (status, body) = hub.reload().await;
    assert_eq!(status, 422);
    let problems = texts(&body["problems"]).join("\n");
    for place in ["tenants.jsonl:2", "tenants.jsonl:3"] {
        assert!(problems.contains(place), "{place} in {problems}");
    }
    assert_eq!(
        ask_as(&hub, "loc_d").await.json()["error"]["code"],
        "tenant_unknown"
    );
    assert_eq!(ask_as(&hub, "loc_c").await.status, 200);
    assert_eq!(hub.metric("hub_tenants", &[]).await, 2.0);
}

#[tokio::test]
async fn a_directory_that_is_cut_off_is_refused_until_the_operator_asks_for_it() {
    let origin = Origin::start().await;
    let hub = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&(watched(&origin) + TENANTS))
        .file("tenants.jsonl", "{\"id\":\"loc_a\"}\n{\"id\":\"loc_b\"}\n")
        .start()
        .await;
    // As `export > tenants.jsonl` leaves it before its first line.
    std::fs::write(hub.dir().join("tenants.jsonl"), "").expect("write");
    hub.wait_for_metric(
        "hub_config_reloads_total",
        &[("outcome", "rejected")],
        |n| n >= 1.0,
    )
    .await;
    let (status, body) = hub.reload().await;
    assert_eq!(status, 422, "{body}");
    let problem = texts(&body["problems"]).join("\n");
    assert!(problem.contains("--allow-removals"), "{problem}");
    assert_eq!(ask_as(&hub, "loc_a").await.status, 200);
    let (status, body) = hub
        .admin("POST", "/v1/reload?allow_removals=true", "")
        .await;
    assert_eq!((status, &body["outcome"]), (200, &Value::from("applied")));
    assert_eq!(hub.metric("hub_tenants", &[]).await, 0.0);
}

#[tokio::test]
async fn a_key_that_is_taken_out_of_a_large_file_of_keys_is_refused() {
    let origin = Origin::start().await;
    let config = demo_config(origin.endpoint())
        + "plugins = [\"who\"]\n[[plugin]]\nname = \"who\"\nkind = \"api_key\"\n\
           config = { file = \"{dir}/keys\" }\n";
    let keys =
        ["one", "two"].map(|name| hub_plugins::api_key::generate(name, None).expect("a key"));
    // More than 4 MiB, as a hundred thousand keys have.
    let comment = format!("# {}\n", "x".repeat(1_000)).repeat(5_000);
    let file = |keys: &[&str]| format!("{comment}{}\n", keys.join("\n"));
    let hub = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&config)
        .file("keys", file(&[&keys[0].line, &keys[1].line]))
        .start()
        .await;
    let ask_with = async |key: &hub_plugins::api_key::GeneratedKey| {
        let key = std::str::from_utf8(key.key.expose()).expect("text");
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Api-Key: {key}\r\n\r\n");
        ask(&hub, &request).await.status
    };
    assert_eq!(ask_with(&keys[1]).await, 200);
    hub.write_file("keys", &file(&[&keys[0].line]));
    let (_, body) = hub.reload().await;
    assert_eq!(body["outcome"], "applied", "{body}");
    assert_eq!(ask_with(&keys[1]).await, 401);
    assert_eq!(ask_with(&keys[0]).await, 200);
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_a_warning_at_a_start_and_refuse_a_reload() {
    let origin = Origin::start().await;
    // Its answers hold no keys.
    let keyless = origin.endpoint();
    let config = |path: &str| {
        demo_config(origin.endpoint())
            + "[[plugin]]\nname = \"login\"\nkind = \"jwt\"\n[plugin.config]\nany_audience = true\n"
            + &format!("jwks = {{ url = \"http://{keyless}/{path}\" }}\n")
    };
    let hub = start(&config("one")).await;
    hub.wait_for_stderr("cannot be fetched").await;
    let before = snapshot(&hub).await;
    // What has had no keys takes none from anybody: other changes go on.
    hub.write_config(&(config("one") + "leeway_seconds = 1\n"));
    let (status, body) = hub.reload().await;
    assert_eq!(status, 200, "{body}");
    assert_ne!(snapshot(&hub).await["epoch"], before["epoch"]);
    hub.write_config(&config("two"));
    let (status, body) = hub.reload().await;
    assert_eq!(status, 422, "{body}");
    let problem = texts(&body["problems"]).join("\n");
    assert!(problem.contains("jwks.url"), "{problem}");
}

#[tokio::test]
async fn a_changed_directory_file_is_in_force_by_itself() {
    let origin = Origin::start().await;
    let hub = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&(watched(&origin) + TENANTS))
        .file("tenants.jsonl", "{\"id\":\"loc_a\"}\n")
        .start()
        .await;
    hub.write_file("tenants.jsonl", "{\"id\":\"loc_a\"}\n{\"id\":\"loc_b\"}\n");
    hub.wait_for_metric("hub_tenants", &[], |tenants| tenants == 2.0)
        .await;
    assert_eq!(ask_as(&hub, "loc_b").await.status, 200);
}

#[tokio::test]
async fn counters_and_used_up_limits_live_through_a_reload() {
    let origin = Origin::start().await;
    let config = |more: &str| {
        demo_config(origin.endpoint())
            + "limits = [\"few\"]\ntenant = { sources = [{ header = \"x-location-id\" }] }\n"
            + "[[limit]]\nname = \"few\"\nby = \"tenant\"\nrequests = 3\nper_ms = 3600000\n"
            + "[[tenant]]\nid = \"loc_a\"\n"
            + more
    };
    let hub = start(&config("")).await;
    for _ in 0..2 {
        assert_eq!(ask_as(&hub, "loc_a").await.status, 200);
    }
    hub.write_config(&config("[[tenant]]\nid = \"loc_0_comes_first\"\n"));
    assert_eq!(hub.reload().await.1["outcome"], "applied");
    assert_eq!(ask_as(&hub, "loc_a").await.status, 200);
    let refused = ask_as(&hub, "loc_a").await;
    assert_eq!(refused.json()["error"]["code"], "route_limited");
    assert_eq!(ask_as(&hub, "loc_0_comes_first").await.status, 200);
    hub.wait_for_metric(
        "hub_requests_total",
        &[("route", "all"), ("status", "2xx")],
        |n| n == 4.0,
    )
    .await;
    let (_, tenant) = hub.admin("GET", "/v1/tenants/loc_a", "").await;
    assert_eq!(
        (&tenant["requests"], &tenant["limited"]),
        (&4.into(), &1.into()),
        "{tenant}"
    );
    let seen = hub
        .metric(
            "hub_tenant_requests_total",
            &[("tenant", "loc_a"), ("status", "2xx")],
        )
        .await;
    assert_eq!(seen, 3.0);
}

#[tokio::test]
async fn places_taken_in_flight_live_through_a_reload() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .respond(Reply::ok("done").after(&gate))
        .start()
        .await;
    let config = |more: &str| {
        demo_config(origin.endpoint())
            + "tenant = { sources = [{ header = \"x-location-id\" }] }\n"
            + "[[tenant]]\nid = \"loc_a\"\nin_flight_max = 1\n"
            + more
    };
    let hub = start(&config("")).await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a.test\r\nX-Location-Id: loc_a\r\n\r\n")
        .await;
    origin.wait_for_requests(1).await;
    hub.write_config(&config("[[tenant]]\nid = \"loc_b\"\n"));
    assert_eq!(hub.reload().await.1["outcome"], "applied");
    assert_eq!(
        ask_as(&hub, "loc_a").await.json()["error"]["code"],
        "tenant_busy"
    );
    gate.open();
    assert_eq!(wire.read_response().await.status, 200);
    hub.wait_for_access_log(2).await;
    assert_eq!(
        ask_as(&hub, "loc_a").await.status,
        200,
        "the place was given back"
    );
}

#[tokio::test]
async fn a_rotated_admin_token_works_and_the_old_one_does_not() {
    let origin = Origin::start().await;
    let hub = start(&demo_config(origin.endpoint())).await;
    let next = "the-next-admin-token-0123456789";
    hub.write_file("admin.token", next);
    let refused = hub
        .admin_request("GET", "/v1/snapshot", "", Some(next))
        .await;
    assert_eq!(refused.status, 401, "not before the reload");
    let (status, body) = hub.reload().await;
    assert_eq!(
        (status, &body["outcome"]),
        (200, &Value::from("applied")),
        "{body}"
    );
    assert!(!body.to_string().contains(next) && !body.to_string().contains(ADMIN_TOKEN));
    for (token, wanted) in [(ADMIN_TOKEN, 401), (next, 200)] {
        let answer = hub
            .admin_request("GET", "/v1/snapshot", "", Some(token))
            .await;
        assert_eq!(answer.status, wanted, "{token}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_reloads_fails_no_request() {
    const RELOADS: usize = 50;
    let (blue, green) = (coloured("blue").await, coloured("green").await);
    let configs = [demo_config(blue.endpoint()), demo_config(green.endpoint())];
    let hub = start(&configs[0]).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (address, stopped) = (hub.addr("public"), stopped.clone());
            tokio::spawn(async move {
                let mut wire = Wire::connect(address).await;
                let mut answers = 0_u32;
                while !*stopped.borrow() {
                    wire.send(GET).await;
                    let answer = wire.read_response().await;
                    assert_eq!(answer.status, 200, "{}", answer.raw_text());
                    assert_ne!(
                        answer.header("connection"),
                        Some("close"),
                        "it was asked to leave"
                    );
                    answers += 1;
                }
                answers
            })
        })
        .collect();
    // Ten at a time, more than may wait.
    let (mut applied, mut busy) = (0, 0);
    for round in 0..RELOADS / 10 {
        let together = (0..10).map(|turn| {
            hub.write_config(&configs[(round + turn) % 2]);
            hub.reload()
        });
        for (status, body) in join_all(together).await {
            match status {
                200 => applied += usize::from(body["outcome"] == "applied"),
                429 => {
                    assert_eq!(body["error"]["code"], "busy", "{body}");
                    busy += 1;
                }
                other => panic!("{other}: {body}"),
            }
        }
    }
    hub.write_config(&configs[1]);
    let (status, _) = hub.reload().await;
    assert_eq!((status, colour(&hub).await.as_str()), (200, "green"));
    stop.send_replace(true);
    let mut answers = 0;
    for client in clients {
        answers += client.await.expect("no request failed");
    }
    println!("{answers} requests during {RELOADS} reloads; {applied} applied, {busy} told busy");
    assert!(answers > 0);
    assert_eq!(hub.metric("hub_refusals_total", &[]).await, 0.0);
}

/// Runs these at the same time, and returns what they gave in their order.
async fn join_all<T>(work: impl IntoIterator<Item: Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = work.into_iter().map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        for (one, done) in &mut pending {
            if done.is_none()
                && let std::task::Poll::Ready(value) = one.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        match pending.iter().all(|(_, done)| done.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, done)| done).collect()
}
