//! Upgrades that go well.

use crate::{Load, PATIENCE, ask, begin, binary, config, outcome, start, status, upgrade};
use bytes::Bytes;
use h2::client::SendRequest;
use hub_testkit::hub::wait_gone;
use hub_testkit::websocket::Client;
use hub_testkit::{Behaviour, Ca, End, Gate, Hub, Origin, Reply, Signal, Wire};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

const GET: &str = crate::GET;
const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// A WebSocket that is open.
pub(crate) async fn socket(hub: &Hub) -> Client {
    Client::connect(hub.addr("public"), "/socket").await
}

/// HTTP/2 to the listener `tls`.
async fn http2(hub: &Hub, ca: &Ca) -> SendRequest<Bytes> {
    let wire = tokio::net::TcpStream::connect(hub.addr("tls")).await;
    let name = "a.test".try_into().expect("a name");
    let tls = tokio_rustls::TlsConnector::from(ca.client_config(&["h2"]));
    let stream = tls.connect(name, wire.expect("a connection")).await;
    let (requests, connection) = h2::client::handshake(stream.expect("TLS"))
        .await
        .expect("HTTP/2");
    tokio::spawn(async move { connection.await.ok() });
    requests
}

/// Sends a request on HTTP/2, whose status is still to come.
async fn send(
    requests: &SendRequest<Bytes>,
    path: &str,
) -> Result<impl Future<Output = Result<u16, h2::Error>> + use<>, h2::Error> {
    let uri = format!("https://a.test{path}");
    let request = http::Request::get(uri).body(()).expect("a request");
    let mut requests = requests.clone().ready().await?;
    let (answer, _) = requests.send_request(request, true)?;
    Ok(async move { Ok(answer.await?.status().as_u16()) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_what_was_open_ends_on_the_old_process() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .on("/slow", Reply::ok("whole").after(&gate))
        .on("/socket", Behaviour::WebSocket)
        .start()
        .await;
    let ca = Ca::new("test");
    let leaf = ca.issue(&["a.test"]);
    let config = config(&origin, "upgrade_grace_ms = 60000\n").replace(
        "[[cluster]]",
        "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\n[[listener.tls.certificates]]\n\
         certificate_file = \"{dir}/cert.pem\"\nkey_file = \"{dir}/key.pem\"\n[[cluster]]",
    ) + "websocket = {}\n";
    let mut hub = Hub::builder(binary())
        .config(&config)
        .file("cert.pem", &leaf.certificate_pem)
        .file("key.pem", &leaf.key_pem)
        .start()
        .await;
    let old = hub.pid();
    let mut open = socket(&hub).await;
    let mut idle = Wire::connect(hub.addr("public")).await;
    assert_eq!(ask(&mut idle, GET).await.status, 200);
    let mut slow = Wire::connect(hub.addr("public")).await;
    slow.send(SLOW).await;
    let requests = http2(&hub, &ca).await;
    let slow_http2 = send(&requests, "/slow").await.expect("sent");
    let slow_http2 = tokio::spawn(slow_http2);
    let load = Load::start(hub.addr("public"));
    hub.wait_for_metric("hub_requests_started_total", &[], |n| n > 100.0)
        .await;

    let new = upgrade(&mut hub).await;
    assert_ne!(new, old);
    // The new process has the admin API, and counts from nought.
    assert_eq!(
        hub.admin_request("GET", "/readyz", "", None).await.status,
        200
    );
    let committed = [("outcome", "committed")];
    assert_eq!(hub.metric("hub_upgrades_total", &committed).await, 1.0);
    assert_eq!(hub.metric("hub_processes_draining", &[]).await, 1.0);
    hub.wait_for_metric("hub_requests_total", &[("route", "all")], |n| n > 100.0)
        .await;
    assert_eq!(status(hub.addr("public")).await, 200);
    let (requests_sent, connections) = load.finish().await;
    println!("{requests_sent} requests on {connections} connections, none lost");

    // The old one serves those who were there, and asks them to leave.
    assert!(hub.is_running());
    let last = ask(&mut idle, GET).await;
    assert_eq!(
        (last.status, last.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(idle.wait_closed().await, End::Closed);
    open.echo("still here").await;
    let refused = timeout(PATIENCE, async {
        while send(&requests, "/").await.is_ok() {}
    });
    refused.await.expect("HTTP/2 is told to go");
    gate.open();
    assert_eq!(slow.read_response().await.text(), "whole");
    let answered = slow_http2.await.expect("no panic");
    assert_eq!(answered.expect("an answer"), 200);
    assert!(hub.is_running(), "the WebSocket is open");
    open.echo("and still").await;
    drop(open);
    assert_eq!(hub.wait_exit().await.code(), Some(0));
    hub.wait_for_metric("hub_processes_draining", &[], |n| n == 0.0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_upgrade_after_another_loses_nothing() {
    const UPGRADES: usize = 6;
    let origin = Origin::start().await;
    let mut hub = start(&config(&origin, "")).await;
    let load = Load::start(hub.addr("public"));
    for number in 0..UPGRADES {
        let old = hub.pid();
        // By signal and by the admin API in turns.
        if number % 2 == 0 {
            upgrade(&mut hub).await;
        } else {
            hub.signal(Signal::USR2);
            hub.wait_for_successor().await;
        }
        wait_gone(old).await;
        // The new one notices a moment later.
        hub.wait_for_metric("hub_processes_draining", &[], |n| n == 0.0)
            .await;
    }
    let (requests, connections) = load.finish().await;
    println!("{UPGRADES} upgrades, {requests} requests on {connections} connections, none lost");
}

#[tokio::test]
async fn the_grace_ends_what_would_stay_for_ever() {
    let origin = Origin::builder()
        .on("/socket", Behaviour::WebSocket)
        .start()
        .await;
    let config = config(&origin, "upgrade_grace_ms = 600000\n") + "websocket = {}\n";
    let mut hub = start(&config).await;
    let mut open = socket(&hub).await;
    // For this upgrade another grace than the configured one.
    let id = begin(&hub, json!({"grace_ms": 200})).await;
    assert_eq!(outcome(&hub, &id).await["state"], "committed");
    assert_eq!(hub.wait_exit().await.code(), Some(0));
    assert_eq!(open.next_but_pings().await.close_code(), Some(1012));
    assert!(hub.stderr().contains("what is left is cut"));
    hub.wait_for_successor().await;
    assert_eq!(status(hub.addr("public")).await, 200);
}

#[tokio::test]
async fn who_stops_the_new_process_stops_the_old_one_too() {
    let gate = Gate::closed();
    let origin = Origin::builder()
        .on("/slow", Reply::ok("whole").after(&gate))
        .start()
        .await;
    let mut hub = start(&config(&origin, "drain_timeout_ms = 60000\n")).await;
    let mut slow = Wire::connect(hub.addr("public")).await;
    slow.send(SLOW).await;
    let mut idle = Wire::connect(hub.addr("public")).await;
    assert_eq!(ask(&mut idle, GET).await.status, 200);
    let new = upgrade(&mut hub).await;
    hub.signal(Signal::TERM);
    // The old one drains as after any SIGTERM: who is idle is closed, who waits for an answer gets it.
    assert_eq!(idle.wait_closed().await, End::Closed);
    assert!(hub.is_running());
    gate.open();
    assert_eq!(slow.read_response().await.text(), "whole");
    assert_eq!(hub.wait_exit().await.code(), Some(0));
    wait_gone(new).await;
}

#[tokio::test]
async fn listeners_may_be_added_renamed_and_removed() {
    let origin = Origin::start().await;
    let free = || {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        socket.local_addr().expect("an address")
    };
    let [kept, gone, added] = [free(), free(), free()];
    let with = |listeners: &[(&str, std::net::SocketAddr)]| {
        let tables: String = listeners
            .iter()
            .map(|(name, at)| format!("[[listener]]\nname = \"{name}\"\naddress = \"{at}\"\n\n"))
            .collect();
        config(&origin, "").replace(
            "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n\n",
            &tables,
        )
    };
    let mut hub = start(&with(&[("kept", kept), ("gone", gone)])).await;
    let load = Load::start(kept);
    hub.write_config(&with(&[("added", added), ("renamed", kept)]));
    // A reload cannot do it.
    assert_eq!(hub.reload().await.0, 409);
    upgrade(&mut hub).await;
    assert_eq!(status(added).await, 200);
    load.finish().await;
    let opened = [("listener", "renamed")];
    let count = hub.metric("hub_connections_opened_total", &opened).await;
    assert!(count > 0.0);
    assert_eq!(hub.wait_exit().await.code(), Some(0));
    assert!(Wire::try_connect(gone).await.is_err());
    assert!(hub.stderr().contains("this socket is not taken over"));
}

#[tokio::test]
async fn hundreds_of_listeners_that_nobody_asks_are_handed_over_in_time() {
    let origin = Origin::start().await;
    let tables: String = (0..300)
        .map(|number| {
            format!("[[listener]]\nname = \"quiet{number}\"\naddress = \"127.0.0.1:0\"\n\n")
        })
        .collect();
    let config = config(&origin, "").replace("[[cluster]]", &(tables + "[[cluster]]"));
    let mut hub = start(&config).await;
    for _ in 0..2 {
        upgrade(&mut hub).await;
    }
}

#[tokio::test]
async fn the_admin_api_on_a_unix_socket_is_handed_over_in_its_place() {
    let origin = Origin::start().await;
    let config = config(&origin, "").replacen("127.0.0.1:0", "unix:{dir}/admin.sock", 1);
    let mut hub = start(&config).await;
    for _ in 0..2 {
        upgrade(&mut hub).await;
        assert_eq!(hub.admin("GET", "/v1/snapshot", "").await.0, 200);
    }
}

#[tokio::test]
async fn a_link_leads_to_the_version_that_it_leads_to_by_then() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("hub-gateway");
    std::os::unix::fs::symlink(binary(), &link).expect("a link");
    let mut hub = Hub::builder(&link)
        .config(&config(&origin, ""))
        .start()
        .await;
    let copy = folder.path().join("other");
    std::fs::copy(binary(), &copy).expect("a copy");
    let draft = folder.path().join("draft");
    std::os::unix::fs::symlink(&copy, &draft).expect("a link");
    std::fs::rename(&draft, &link).expect("replaced");
    let new = upgrade(&mut hub).await;
    let runs = std::fs::read_link(format!("/proc/{new}/exe")).expect("it runs");
    assert_eq!(runs, copy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollouts_go_on_in_the_new_process() {
    let (blue, green) = (Origin::start().await, Origin::start().await);
    let config = config(&blue, "").replace(
        &format!("blue = [\"{}\"]", blue.endpoint()),
        &format!(
            "blue = [\"{}\"], green = [\"{}\"]",
            blue.endpoint(),
            green.endpoint()
        ),
    ) + "\n[store]\ndirectory = \"{dir}/store\"\n";
    let mut hub = start(&config).await;
    let plan = json!({"stages": [], "bake_seconds": 0}).to_string();
    for (round, colour) in ["green", "blue"].into_iter().enumerate() {
        let (status, body) = hub.admin("POST", "/v1/rollouts/app/start", &plan).await;
        assert_eq!(status, 200, "{body}");
        let committed = async {
            loop {
                let (_, body) = hub.admin("GET", "/v1/rollouts", "").await;
                if body["rollouts"][0]["phase"] == "committed" {
                    return body["rollouts"][0].clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let done = timeout(PATIENCE, committed).await.expect("it commits");
        assert_eq!(done["active"], colour, "round {round}");
        upgrade(&mut hub).await;
        let (_, body) = hub.admin("GET", "/v1/clusters", "").await;
        assert_eq!(body["clusters"][0]["active"], colour, "the ledger counts");
        // Nobody starts a rollout while the one before has clients.
        hub.wait_for_metric("hub_processes_draining", &[], |n| n == 0.0)
            .await;
    }
}
