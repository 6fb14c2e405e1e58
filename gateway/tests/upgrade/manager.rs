//! Upgrades under a service manager.

use crate::{Load, begin, binary, config, outcome, status, upgrade};
use hub_testkit::hub::wait_gone;
use hub_testkit::{Hub, Origin, ServiceManager, Wire};
use serde_json::json;
use std::net::TcpListener;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_process_is_the_main_one_and_the_watchdog_is_fed_on() {
    let origin = Origin::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("an address");
    let manager = ServiceManager::start()
        .socket("public", socket)
        .watchdog(Duration::from_secs(3));
    let builder = Hub::builder(binary()).config(&config(&origin, ""));
    let mut hub = builder.managed_by(&manager).start().await;
    manager.wait_for("READY=1").await;
    let load = Load::start(address);
    for round in 1..=2 {
        let old = hub.pid();
        let new = upgrade(&mut hub).await;
        // Ready is told by the new process, and is heard since the old one has named it.
        let ready = manager.wait_for_nth("READY=1", 1 + round).await;
        assert_eq!(ready.get("MAINPID"), Some(new.to_string().as_str()));
        assert_eq!(manager.main_pid(), Some(new));
        let fed = manager
            .messages()
            .iter()
            .filter(|one| one.says("WATCHDOG=1"))
            .count();
        manager.wait_for_nth("WATCHDOG=1", fed + 3).await;
        wait_gone(old).await;
        assert_eq!((hub.addr("public"), status(address).await), (address, 200));
    }
    load.finish().await;
    assert!(!manager.has_killed());
    let told = manager.messages();
    assert!(told.iter().all(|one| one.get("STOPPING").is_none()));
    let reloading = told.iter().filter(|one| one.get("RELOADING").is_some());
    assert_eq!(reloading.count(), 2);
    let log = hub.stderr();
    assert!(
        !log.contains("takes no connection from its own host"),
        "{log}"
    );
    assert!(!log.contains("not alive"), "{log}");
    // The socket is the manager's: connections wait in it while nobody serves.
    hub.signal(hub_testkit::Signal::TERM);
    wait_gone(hub.pid()).await;
    assert!(Wire::try_connect(address).await.is_ok());
}

#[tokio::test]
async fn an_upgrade_that_was_aborted_is_told_and_the_process_is_ready_again() {
    let origin = Origin::start().await;
    let manager = ServiceManager::start();
    let builder = Hub::builder(binary()).config(&config(&origin, ""));
    let hub = builder.managed_by(&manager).start().await;
    manager.wait_for("READY=1").await;
    let id = begin(&hub, json!({"binary": "/bin/true"})).await;
    assert_eq!(outcome(&hub, &id).await["state"], "aborted");
    let ready = manager.wait_for_nth("READY=1", 2).await;
    let told = ready.get("STATUS").expect("a status");
    assert!(told.contains("the last upgrade was aborted"), "{told}");
    assert_eq!(manager.main_pid(), Some(hub.pid()));
    assert_eq!(manager.ignored(), 0);
}

#[tokio::test]
async fn a_socket_of_the_manager_s_that_nobody_would_serve_aborts_the_upgrade() {
    let origin = Origin::start().await;
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [one, other] = sockets;
    let at = one.local_addr().expect("an address");
    let manager = ServiceManager::start()
        .socket("public", one)
        .socket("more", other);
    let alone = config(&origin, "");
    let both = alone.replace(
        "[[cluster]]",
        "[[listener]]\nname = \"more\"\naddress = \"127.0.0.1:0\"\n\n[[cluster]]",
    );
    let hub = Hub::builder(binary()).config(&both).managed_by(&manager);
    let hub = hub.start().await;
    manager.wait_for("READY=1").await;
    hub.write_config(&alone);
    let id = begin(&hub, json!({})).await;
    let last = outcome(&hub, &id).await;
    let why = last["why"].as_str().expect("a reason");
    assert!(
        why.contains("belongs to a socket unit") && why.contains("`more`"),
        "{why}"
    );
    assert_eq!(status(at).await, 200);
}
