//! New binaries that fail, at each step and in each way: the old process serves on, and no request is lost.

use crate::{
    Load, begin, binary, config, crowded, fake, is_aborted, outcome, start, status, stopped,
};
use hub_testkit::hub::wait_gone;
use hub_testkit::{Hub, Origin, Signal};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file that may be run.
fn program(hub: &Hub, name: &str, contents: impl AsRef<[u8]>, mode: u32) -> PathBuf {
    let path = hub.dir().join(name);
    std::fs::write(&path, contents).expect("written");
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&path, permissions).expect("our own file");
    path
}

/// Upgrades to `binary`, which must come to nothing for this reason, and to no harm.
async fn aborted(hub: &mut Hub, binary: Option<&Path>, parts: &[&str]) {
    let pid = hub.pid();
    let before = [("outcome", "aborted")];
    let aborted = hub.metric("hub_upgrades_total", &before).await;
    let order = binary.map_or(json!({}), |binary| json!({"binary": binary}));
    let id = begin(hub, order).await;
    let last = outcome(hub, &id).await;
    assert_eq!(last["state"], "aborted", "{last}");
    let why = last["why"].as_str().expect("a reason");
    for part in parts {
        assert!(why.contains(part), "{part:?} in {why:?}");
    }
    assert_eq!(
        hub.metric("hub_upgrades_total", &before).await,
        aborted + 1.0
    );
    assert!(hub.is_running());
    if let Some(pid) = last["to"]["pid"].as_u64() {
        wait_gone(u32::try_from(pid).expect("a process id")).await;
        hub.wait_for_metric("hub_processes_draining", &[], |n| n == 0.0)
            .await;
    }
    // The process is the same, serves, and nothing is left behind.
    let (_, shown) = hub.admin("GET", "/v1/upgrade", "").await;
    assert_eq!(
        (&shown["pid"], &shown["draining"]),
        (&json!(pid), &json!([]))
    );
    assert_eq!(status(hub.addr("public")).await, 200);
    println!("{why}");
}

/// Scripts of [`fake`], and what the reason says.
const SCRIPTS: &[(&str, &[&str])] = &[
    ("exit=0", &["ended (exit status: 0)", "say hello"]),
    ("exit=3", &["ended (exit status: 3)", "say hello"]),
    ("panic", &["exit status: 101"]),
    ("die", &["signal: 9", "say hello"]),
    ("hang", &["did not say hello within"]),
    ("connect hang", &["did not say hello within"]),
    (
        "connect close hang",
        &["closed the control socket", "say hello"],
    ),
    ("connect noise hang", &["cannot be talked to"]),
    (
        "hello=99 hang",
        &["version 99 of the hand-over", "restart the service"],
    ),
    ("hello die", &["signal: 9", "prepare"]),
    ("hello hang", &["did not prepare within"]),
    ("hello taken hang", &["said taken where it should prepare"]),
    ("hello offer give_up=no_room exit=71", &["gave up: no_room"]),
    ("hello offer die", &["signal: 9", "prepare"]),
    ("hello offer panic", &["exit status: 101", "prepare"]),
    (
        "hello offer ready=wrong hang",
        &["claims what was not offered"],
    ),
    (
        "hello offer ready=all exit=3",
        &["exit status: 3", "take over"],
    ),
    ("hello offer ready=all die", &["signal: 9", "take over"]),
    (
        "hello offer ready=all hello hang",
        &["said hello where it should take over"],
    ),
    (
        "hello offer ready=all sockets give_up=no_room exit=71",
        &["gave up: no_room"],
    ),
    (
        "hello offer ready=all sockets panic",
        &["exit status: 101", "take over"],
    ),
    (
        "hello offer ready=all sockets die",
        &["signal: 9", "take over"],
    ),
    (
        "hello offer ready=all sockets hang",
        &["did not take over within"],
    ),
    (
        "hello offer ready=all sockets close hang",
        &["closed the control socket"],
    ),
    (
        "hello offer ready=all sockets noise hang",
        &["cannot be talked to"],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_fails_at_any_step_changes_nothing() {
    let origin = Origin::start().await;
    let mut hub = start(&config(&origin, "upgrade_timeout_ms = 3000\n")).await;
    let load = Load::start(hub.addr("public"));
    let fake = fake();
    for (script, parts) in SCRIPTS {
        hub.write_file("successor.script", script);
        aborted(&mut hub, Some(&fake), parts).await;
    }
    let (requests, connections) = load.finish().await;
    println!(
        "{} failing processes, {requests} requests on {connections} connections, none lost",
        SCRIPTS.len()
    );
    // And then a good one goes well.
    crate::upgrade(&mut hub).await;
    assert_eq!(status(hub.addr("public")).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_run_changes_nothing() {
    let origin = Origin::start().await;
    let mut hub = start(&config(&origin, "upgrade_timeout_ms = 2000\n")).await;
    let load = Load::start(hub.addr("public"));
    let elf = |machine: u8| {
        let mut bytes = std::fs::read(binary()).expect("our own binary");
        bytes.truncate(4096);
        bytes[18] = machine;
        bytes
    };
    let cases: &[(PathBuf, &[&str])] = &[
        (
            hub.dir().join("missing"),
            &["cannot be started", "No such file"],
        ),
        (
            program(&hub, "plain", "#!/bin/sh\n", 0o644),
            &["cannot be started", "ermission denied"],
        ),
        (program(&hub, "empty", "", 0o755), &[]),
        (program(&hub, "garbage", [0x7f, b'x', 0, 1, 2], 0o755), &[]),
        // EM_RISCV, 64 bit: nothing that runs here.
        (program(&hub, "foreign", elf(243), 0o755), &[]),
        (program(&hub, "cut", elf(62), 0o755), &[]),
        (
            program(&hub, "open", "#!/bin/sh\n", 0o757),
            &["everybody may write to it"],
        ),
        (hub.dir().to_owned(), &["it is no file"]),
        // Another program, which says nothing, and one that ends.
        (
            program(&hub, "silent", "#!/bin/sh\nexec sleep 600\n", 0o755),
            &["did not say hello within"],
        ),
        (PathBuf::from("/bin/true"), &["exit status: 0"]),
    ];
    for (path, parts) in cases {
        aborted(&mut hub, Some(path), parts).await;
    }
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_the_new_process_cannot_use_changes_nothing() {
    let origin = Origin::start().await;
    let config = config(&origin, "");
    let mut hub = start(&config).await;
    let load = Load::start(hub.addr("public"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("an address");
    let more = format!("[[listener]]\nname = \"more\"\naddress = \"{taken}\"\n\n[[cluster]]");
    let cases: &[(String, &[&str])] = &[
        (config.replace("prefix", "prefiks"), &["gave up", "prefiks"]),
        ("no toml [".to_owned(), &["gave up", "gateway.toml"]),
        (
            config.replace("[[cluster]]", &more),
            &["gave up", "listener `more`", "in use"],
        ),
        (
            config.replace("{dir}/access.log", "{dir}/nowhere/access.log"),
            &["gave up"],
        ),
        (
            config.replace("admin.token", "gone.token"),
            &["gave up", "token_file"],
        ),
    ];
    for (text, parts) in cases {
        hub.write_config(text);
        aborted(&mut hub, None, parts).await;
    }
    load.finish().await;
    hub.write_config(&config);
    crate::upgrade(&mut hub).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_wait_for_the_end_of_an_upgrade() {
    let origin = Origin::start().await;
    let config = config(&origin, "upgrade_timeout_ms = 2000\n");
    let mut hub = start(&config).await;
    hub.write_file("successor.script", "hello offer ready=all sockets hang");
    let id = begin(&hub, json!({"binary": fake()})).await;
    hub.wait_for_stderr("\"step\":\"handing_over\"").await;
    hub.write_config(&config.replace("requests_per_second = 10000", "requests_per_second = 9999"));
    let (code, body) = hub.reload().await;
    assert_eq!(
        (code, &body["error"]["code"]),
        (409, &json!("upgrade_under_way"))
    );
    // Nobody waits for the outcome of this one.
    hub.signal(Signal::HUP);
    let last = outcome(&hub, &id).await;
    assert!(
        last["why"].to_string().contains("did not take over"),
        "{last}"
    );
    hub.wait_for_stderr("\"trigger\":\"signal\"").await;
    let log = hub.stderr();
    let (aborted, reloaded) = (
        log.find("the upgrade was aborted"),
        log.find("a new configuration is in force"),
    );
    assert!(reloaded.is_some() && aborted.is_some(), "{log}");
    // And one that is asked for now is done at once.
    assert_eq!(hub.reload().await.0, 200);
    crate::upgrade(&mut hub).await;
}

#[tokio::test]
async fn a_control_socket_that_cannot_be_made_changes_nothing() {
    let origin = Origin::start().await;
    let mut hub = Hub::builder(binary())
        .config(&config(&origin, ""))
        .env("RUNTIME_DIRECTORY", "/proc/nowhere")
        .start()
        .await;
    let load = Load::start(hub.addr("public"));
    aborted(&mut hub, None, &["control socket", "/proc/nowhere"]).await;
    load.finish().await;
}

#[tokio::test]
async fn the_control_socket_is_the_child_s_alone_and_a_stranger_changes_nothing() {
    let origin = Origin::start().await;
    let runtime = tempfile::tempdir().expect("a folder");
    let mut hub = Hub::builder(binary())
        .config(&config(&origin, "upgrade_timeout_ms = 5000\n"))
        .env("RUNTIME_DIRECTORY", runtime.path())
        .start()
        .await;
    let load = Load::start(hub.addr("public"));
    hub.write_file("successor.script", "hang");
    let id = begin(&hub, json!({"binary": fake()})).await;
    let folder = loop {
        let mut entries = std::fs::read_dir(runtime.path()).expect("a folder");
        if let Some(entry) = entries.next() {
            let folder = entry.expect("an entry").path();
            if folder.join("control").exists() {
                break folder;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let control = folder.join("control");
    let mode = |path: &Path| {
        std::fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
    };
    assert_eq!(mode(&folder) & 0o777, 0o700);
    hub.wait_for_stderr("\"step\":\"starting\"").await;
    assert_eq!(mode(&control) & 0o777, 0o600);
    // This test is of the same user and still no child of the gateway's.
    let mut stranger = hub_testkit::Wire::connect_unix(&control).await;
    let hello = json!({"say": "hello", "protocol": 3, "version": "9"});
    stranger.try_send(format!("{hello}\n")).await.ok();
    stranger.wait_closed().await;
    hub.wait_for_stderr("a stranger has connected").await;
    let last = outcome(&hub, &id).await;
    assert!(
        last["why"]
            .as_str()
            .expect("a reason")
            .contains("say hello"),
        "{last}"
    );
    assert!(!folder.exists(), "it goes with its upgrade");
    load.finish().await;
    crate::upgrade(&mut hub).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_one_may_be_killed_while_it_prepares_and_while_it_gets_the_sockets() {
    let origin = Origin::start().await;
    let config = config(&origin, "");
    for step in ["preparing", "handing_over"] {
        let mut tries = 0;
        while !killed_at(&config, step).await {
            tries += 1;
            assert!(tries < 20, "it is never seen at {step}");
        }
    }
}

/// Kills the new process when the old one has said that it is at this step, under load: nothing may be lost.
/// False where it had gone further by then.
async fn killed_at(config: &str, step: &str) -> bool {
    let mut hub = start(&crowded(config)).await;
    let old = hub.pid();
    let load = Load::start(hub.addr("public"));
    hub.wait_for_metric("hub_requests_started_total", &[], |n| n > 100.0)
        .await;
    let id = begin(&hub, json!({})).await;
    hub.wait_for_stderr(&format!("\"step\":\"{step}\"")).await;
    // While the old process stands still, nothing goes on.
    hub.signal(Signal::STOP);
    stopped(old).await;
    let log = hub.stderr();
    let line = log
        .lines()
        .find(|line| line.contains("\"step\":\"preparing\""));
    let line: Value = serde_json::from_str(line.expect("a line")).expect("JSON");
    let new = line["pid"].as_u64().and_then(|pid| i32::try_from(pid).ok());
    let new = rustix::process::Pid::from_raw(new.expect("a process id")).expect("one");
    rustix::process::kill_process(new, Signal::KILL).expect("it lives");
    hub.signal(Signal::CONT);
    if !is_aborted(&hub).await {
        load.give_up().await;
        return false;
    }
    let last = outcome(&hub, &id).await;
    let why = last["why"].as_str().expect("a reason");
    assert!(why.contains("signal: 9"), "{why}");
    assert_eq!((hub.pid(), status(hub.addr("public")).await), (old, 200));
    let (requests, connections) = load.finish().await;
    println!("{step}: {why}; {requests} requests on {connections} connections, none lost");
    crate::upgrade(&mut hub).await;
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_while_a_new_process_has_the_sockets_is_a_drain_like_any_other() {
    let origin = Origin::start().await;
    let config = config(&origin, "");
    let config = config.replacen("drain_notice_ms = 0\n", "drain_notice_ms = 600000\n", 1);
    let mut hub = start(&config).await;
    let load = Load::start(hub.addr("public"));
    hub.write_file("successor.script", "hello offer ready=all sockets hang");
    let id = begin(&hub, json!({"binary": fake()})).await;
    hub.wait_for_stderr("\"step\":\"handing_over\"").await;
    hub.signal(Signal::TERM);
    let last = outcome(&hub, &id).await;
    assert_eq!(last["state"], "aborted", "{last}");
    assert!(last["why"].to_string().contains("told to end"), "{last}");
    hub.wait_for_stderr("readiness is off").await;
    // In its notice it serves as ever.
    load.finish().await;
    hub.signal(Signal::TERM);
    assert_eq!(hub.wait_exit().await.code(), Some(0));
}
