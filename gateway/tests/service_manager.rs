//! The gateway under a service manager: what it tells, the sockets that it is handed, the watchdog.

use hub_testkit::{Gate, Hub, Origin, Reply, ServiceManager, Signal, Wire, demo_config};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hub-gateway"))
}

fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

async fn start(config: &str, manager: &ServiceManager) -> Hub {
    let builder = Hub::builder(binary()).config(config);
    builder.managed_by(manager).start().await
}

async fn status(address: SocketAddr) -> u16 {
    let mut wire = Wire::connect(address).await;
    wire.send(GET).await;
    wire.read_response().await.status
}

/// What came of the messages, in order, as the manager keeps its state: the keys that change it.
fn states(manager: &ServiceManager) -> Vec<&'static str> {
    let messages = manager.messages();
    let state = |message: &hub_testkit::service_manager::Message| {
        let keys = ["READY", "RELOADING", "STOPPING"];
        keys.into_iter().find(|key| message.get(key).is_some())
    };
    messages.iter().filter_map(state).collect()
}

// What is told.

#[tokio::test]
async fn ready_is_told_once_and_requests_are_then_answered() {
    let origin = Origin::start().await;
    let manager = ServiceManager::start();
    let hub = start(&demo_config(origin.endpoint()), &manager).await;
    let ready = manager.wait_for("READY=1").await;
    assert_eq!(status(hub.addr("public")).await, 200);
    assert_eq!(ready.get("MAINPID"), Some(hub.pid().to_string().as_str()));
    let told = ready.get("STATUS").expect("a status");
    assert!(told.starts_with("serving: listeners 1, routes 1"), "{told}");
    assert_eq!(states(&manager), ["READY"]);
    assert!(!hub.stderr().contains("WARN"), "{}", hub.stderr());
}

#[tokio::test]
async fn a_start_that_fails_is_never_ready() {
    let origin = Origin::start().await;
    let (_taken, address) = socket();
    let config = demo_config(origin.endpoint()).replace(
        "name = \"public\"\naddress = \"127.0.0.1:0\"",
        &format!("name = \"public\"\naddress = \"{address}\""),
    );
    let manager = ServiceManager::start();
    let builder = Hub::builder(binary()).config(&config);
    let (code, _) = builder.managed_by(&manager).expect_failure().await;
    assert_eq!((code, manager.messages().len()), (71, 0));
}

#[tokio::test]
async fn a_reload_is_told_from_its_beginning_to_its_end_however_it_ends() {
    let origin = Origin::start().await;
    let manager = ServiceManager::start();
    let config = demo_config(origin.endpoint());
    let hub = start(&config, &manager).await;
    manager.wait_for("READY=1").await;
    hub.write_config(&config.replace("name = \"all\"", "name = \"every\""));
    // By the time that the caller is answered, all was told.
    assert_eq!(hub.reload().await.0, 200);
    let ready = manager.wait_for_nth("READY=1", 2).await;
    let told = ready.get("STATUS").expect("a status");
    assert!(
        told.contains("epoch 2") && !told.contains("rejected"),
        "{told}"
    );
    hub.write_config(&config.replace("prefix", "prefiks"));
    assert_eq!(hub.reload().await.0, 422);
    let ready = manager.wait_for_nth("READY=1", 3).await;
    let told = ready.get("STATUS").expect("a status");
    assert!(told.contains("the last reload was rejected"), "{told}");
    // SIGHUP is the same thing; a dry run is none.
    let dry = hub.admin("POST", "/v1/reload?dry_run=true", "").await;
    assert_eq!(dry.0, 422);
    hub.write_config(&config);
    hub.signal(Signal::HUP);
    let ready = manager.wait_for_nth("READY=1", 4).await;
    let told = ready.get("STATUS").expect("a status");
    assert!(told.contains("epoch 3"), "{told}");
    let reload = ["RELOADING", "READY"];
    let all = [["READY"].as_slice(), &reload, &reload, &reload].concat();
    assert_eq!(states(&manager), all);
    let clock = |message: &hub_testkit::service_manager::Message| {
        message
            .get("MONOTONIC_USEC")
            .map(|at| at.parse::<u64>().expect("a number"))
    };
    let clocks: Vec<u64> = manager.messages().iter().filter_map(clock).collect();
    assert!(
        clocks.len() == 3 && clocks.is_sorted() && clocks[0] > 0,
        "{clocks:?}"
    );
}

#[tokio::test]
async fn a_drain_is_told_at_its_beginning_with_the_time_that_it_may_take() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .respond(Reply::ok("whole").after(&gate))
        .start()
        .await;
    let config = demo_config(origin.endpoint()).replace(
        "drain_notice_ms = 0",
        "drain_notice_ms = 1\ndrain_timeout_ms = 600000",
    );
    let manager = ServiceManager::start();
    let mut hub = start(&config, &manager).await;
    manager.wait_for("READY=1").await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send(GET).await;
    origin.wait_for_requests(1).await;
    hub.signal(Signal::TERM);
    let stopping = manager.wait_for("STOPPING=1").await;
    assert_eq!(stopping.get("EXTEND_TIMEOUT_USEC"), Some("610001000"));
    manager
        .wait_for("STATUS=draining: no new connections, requests in flight: 1")
        .await;
    assert!(hub.is_running());
    // Whatever is reloaded meanwhile, it is not ready again.
    assert_eq!(hub.reload().await.0, 200);
    gate.open();
    assert_eq!(wire.read_response().await.status, 200);
    assert_eq!(hub.wait_exit().await.code(), Some(0));
    assert_eq!(states(&manager), ["READY", "STOPPING"]);
}

// The watchdog.

#[tokio::test]
async fn the_watchdog_is_fed_while_the_process_lives_and_a_stopped_process_is_killed() {
    let origin = Origin::start().await;
    let longest = Duration::from_secs(2);
    let manager = ServiceManager::start().watchdog(longest);
    let mut hub = start(&demo_config(origin.endpoint()), &manager).await;
    let first = manager.wait_for("WATCHDOG=1").await;
    let third = manager.wait_for_nth("WATCHDOG=1", 3).await;
    assert!(
        third.at - first.at < 2 * longest,
        "{:?}",
        third.at - first.at
    );
    assert!(!manager.has_killed());
    assert_eq!(status(hub.addr("public")).await, 200);
    hub.signal(Signal::STOP);
    assert_eq!(hub.wait_exit().await.code(), None, "ended by a signal");
    assert!(manager.has_killed());
}

#[tokio::test]
async fn being_looked_at_leaves_no_trace() {
    let origin = Origin::start().await;
    let ca = hub_testkit::Ca::new("test");
    let leaf = ca.issue(&["a.test"]);
    let config = demo_config(origin.endpoint()).replace(
        "[[cluster]]",
        "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\n[[listener.tls.certificates]]\n\
         certificate_file = \"{dir}/cert.pem\"\nkey_file = \"{dir}/key.pem\"\n\
         [[listener]]\nname = \"proxied\"\naddress = \"127.0.0.1:0\"\nproxy_protocol = \"required\"\n\
         proxy_protocol_from = [\"192.0.2.0/24\"]\n[[cluster]]",
    );
    let manager = ServiceManager::start().watchdog(Duration::from_millis(500));
    let hub = Hub::builder(binary())
        .config(&config)
        .file("cert.pem", &leaf.certificate_pem)
        .file("key.pem", &leaf.key_pem)
        .managed_by(&manager)
        .start()
        .await;
    manager.wait_for_nth("WATCHDOG=1", 2).await;
    for metric in [
        "hub_connections_opened_total",
        "hub_tls_handshake_failures_total",
        "hub_refusals_total",
        "hub_requests_started_total",
    ] {
        assert_eq!(hub.metric(metric, &[]).await, 0.0, "{metric}");
    }
    assert_eq!(hub.access_log().len(), 0);
    assert!(!hub.stderr().contains("WARN"), "{}", hub.stderr());
}

#[tokio::test]
async fn ready_waits_for_a_listener_and_one_that_its_own_host_cannot_reach_is_told_and_not_fatal() {
    let interfaces = std::fs::read_dir("/sys/class/net").expect("Linux");
    let mut names = interfaces.map(|one| one.expect("an entry").file_name());
    let Some(other) = names.find(|name| name != "lo" && name != "bonding_masters") else {
        println!("skipped: this host has no interface besides lo");
        return;
    };
    let (socket, _) = socket();
    // The kernel takes nothing for it that comes over lo, and that is where we knock.
    let bound = socket2::SockRef::from(&socket).bind_device(Some(other.as_encoded_bytes()));
    bound.expect("an interface that is there");
    let origin = Origin::start().await;
    let manager = ServiceManager::start()
        .socket("public", socket)
        .watchdog(Duration::from_secs(2));
    let hub = start(&demo_config(origin.endpoint()), &manager).await;
    manager.wait_for("READY=1").await;
    // It was tried before ready was told.
    let log = hub.stderr();
    assert!(
        log.contains("takes no connection from its own host"),
        "{log}"
    );
    manager.wait_for_nth("WATCHDOG=1", 3).await;
    assert!(!manager.has_killed());
}

// Sockets.

#[tokio::test]
async fn a_socket_that_was_handed_over_is_served_from_its_first_connection_on() {
    let origin = Origin::start().await;
    let (public, address) = socket();
    let (admin, admin_address) = socket();
    let manager = ServiceManager::start()
        .socket("public", public)
        .socket("admin", admin);
    // It came before the gateway did.
    let mut early = Wire::connect(address).await;
    early.send(GET).await;
    let hub = start(&demo_config(origin.endpoint()), &manager).await;
    assert_eq!(early.read_response().await.status, 200);
    assert_eq!(hub.addr("public"), address);
    assert_eq!(hub.admin_addr(), admin_address);
    assert_eq!(status(address).await, 200);
    manager.wait_for("READY=1").await;
}

#[tokio::test]
async fn a_socket_without_a_name_goes_to_the_listener_with_its_address() {
    let origin = Origin::start().await;
    let (public, address) = socket();
    let manager = ServiceManager::start().socket("hub-gateway.socket", public);
    let config = demo_config(origin.endpoint()).replace(
        "name = \"public\"\naddress = \"127.0.0.1:0\"",
        &format!("name = \"public\"\naddress = \"{address}\""),
    );
    let _hub = start(&config, &manager).await;
    assert_eq!(status(address).await, 200);
}

#[tokio::test]
async fn connections_made_while_the_process_is_replaced_wait_and_are_answered() {
    const CLIENTS: usize = 50;
    let origin = Origin::start().await;
    let config = demo_config(origin.endpoint());
    let (public, address) = socket();
    let manager = ServiceManager::start().socket("public", public);
    let mut first = start(&config, &manager).await;
    assert_eq!(status(address).await, 200);
    first.signal(Signal::TERM);
    assert_eq!(first.wait_exit().await.code(), Some(0));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let wire = Wire::try_connect(address).await;
        let mut wire = wire.expect("nobody is refused: the socket is still there");
        wire.send(GET).await;
        clients.push(wire);
    }
    let second = start(&config, &manager).await;
    assert_ne!(first.pid(), second.pid());
    for wire in &mut clients {
        assert_eq!(wire.read_response().await.status, 200);
    }
    println!("{CLIENTS} connections made between two processes, 0 refused, all answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_while_the_process_is_replaced_again_and_again() {
    const RESTARTS: usize = 5;
    let origin = Origin::start().await;
    let config = demo_config(origin.endpoint());
    let (public, address) = socket();
    let manager = ServiceManager::start().socket("public", public);
    let over = Arc::new(AtomicBool::new(false));
    let clients = [(); 4].map(|()| tokio::spawn(call_until(address, Arc::clone(&over))));
    let mut calls = Calls::default();
    for _ in 0..RESTARTS {
        let mut hub = start(&config, &manager).await;
        let served = origin.request_count();
        origin.wait_for_requests(served + 100).await;
        hub.signal(Signal::TERM);
        assert_eq!(hub.wait_exit().await.code(), Some(0));
    }
    over.store(true, Ordering::Relaxed);
    let _last = start(&config, &manager).await;
    for client in clients {
        let one = client.await.expect("no panic");
        calls.answered += one.answered;
        calls.refused += one.refused;
        calls.closed += one.closed;
    }
    println!("{RESTARTS} restarts: {calls:?}");
    assert_eq!((calls.refused, calls.closed), (0, 0));
    assert!(calls.answered >= RESTARTS * 100);
}

/// What came of a client's calls, each on a connection of its own.
#[derive(Debug, Default)]
struct Calls {
    answered: usize,
    refused: usize,
    /// Taken, and closed without an answer.
    closed: usize,
}

async fn call_until(address: SocketAddr, over: Arc<AtomicBool>) -> Calls {
    let mut calls = Calls::default();
    while !over.load(Ordering::Relaxed) {
        let Ok(mut wire) = Wire::try_connect(address).await else {
            calls.refused += 1;
            continue;
        };
        let sent = wire.try_send(GET).await.is_ok();
        let answer = wire.read_to_close().await;
        match sent && answer.starts_with(b"HTTP/1.1 200") {
            true => calls.answered += 1,
            false => calls.closed += 1,
        }
    }
    calls
}

#[tokio::test]
async fn sockets_that_do_not_fit_end_the_start_and_say_what_to_do() {
    let origin = Origin::start().await;
    let config = demo_config(origin.endpoint());
    let folder = tempfile::tempdir().expect("a folder");
    let unix = || {
        let path = folder.path().join("socket");
        std::fs::remove_file(&path).ok();
        UnixListener::bind(path).expect("a socket")
    };
    let udp = || UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let silent = || {
        // Bound, and nobody listens.
        let kind = socket2::Type::STREAM;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, None).expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).expect("a free port");
        socket
    };
    let elsewhere = || TcpListener::bind("127.0.0.2:0").expect("a free port");
    let manager = ServiceManager::start;
    let file = std::fs::File::open("/dev/null").expect("a file");
    let cases = [
        (
            manager().socket("web", socket().0),
            ["`web`", "`public`, `admin`", "FileDescriptorName="],
        ),
        (
            manager()
                .socket("public", socket().0)
                .socket("public", socket().0),
            ["`public`", "belongs to no listener", "`admin`"],
        ),
        (
            manager().socket("public", udp()),
            ["`public`", "no listening", "ListenStream="],
        ),
        (
            manager().socket("public", silent()),
            ["`public`", "no listening", "descriptor 3"],
        ),
        (
            manager().socket("public", file),
            ["`public`", "no listening", "descriptor 3"],
        ),
        (
            manager().socket("public", unix()),
            ["unix:/", "127.0.0.1:0", "agree"],
        ),
        (
            manager().socket("public", elsewhere()),
            ["127.0.0.2:", "127.0.0.1:0", "agree"],
        ),
        (
            manager().socket("admin", unix()),
            ["unix:/", "127.0.0.1:0", "agree"],
        ),
    ];
    for (manager, parts) in cases {
        let builder = Hub::builder(binary()).config(&config);
        let (code, stderr) = builder.managed_by(&manager).expect_failure().await;
        assert_eq!(code, 71, "{stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{part} in {stderr}");
        }
        assert_eq!(manager.messages().len(), 0, "never ready");
    }
}

#[tokio::test]
async fn the_admin_api_on_a_unix_socket_may_be_handed_over_if_it_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admin.sock");
    let at = format!("unix:{}", path.display());
    let config = demo_config(origin.endpoint()).replacen("127.0.0.1:0", &at, 1);
    for mode in [0o666, 0o600] {
        let socket = UnixListener::bind(&path).expect("a socket");
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, permissions).expect("our own file");
        let manager = ServiceManager::start().socket("admin", socket);
        let builder = Hub::builder(binary()).config(&config);
        let builder = builder.managed_by(&manager);
        if mode == 0o666 {
            let (code, stderr) = builder.expect_failure().await;
            assert_eq!(code, 71, "{stderr}");
            assert!(stderr.contains("SocketMode=0600"), "{stderr}");
        } else {
            let hub = builder.start().await;
            assert_eq!(hub.admin_endpoint(), at);
            assert_eq!(hub.admin("GET", "/v1/snapshot", "").await.0, 200);
        }
        std::fs::remove_file(&path).expect("our own file");
    }
}

// Without one.

#[tokio::test]
async fn what_was_meant_for_another_process_is_left_alone() {
    let origin = Origin::start().await;
    let hub = Hub::builder(binary())
        .config(&demo_config(origin.endpoint()))
        .env("LISTEN_FDS", "2")
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDNAMES", "public:admin")
        .env("WATCHDOG_USEC", "1")
        .env("WATCHDOG_PID", "1")
        .start()
        .await;
    assert_eq!(status(hub.addr("public")).await, 200);
    let opened = hub.metric("hub_connections_opened_total", &[]).await;
    assert_eq!(opened, 1.0);
    assert_eq!(hub.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_manager_that_is_gone_does_not_keep_the_gateway_from_serving() {
    let origin = Origin::start().await;
    let hub = Hub::builder(binary())
        .config(&demo_config(origin.endpoint()))
        .env("NOTIFY_SOCKET", "/nonexistent/notify")
        .start()
        .await;
    assert_eq!(status(hub.addr("public")).await, 200);
    hub.wait_for_stderr("the service manager could not be told")
        .await;
    assert_eq!(hub.stop().await.code(), Some(0));
}
