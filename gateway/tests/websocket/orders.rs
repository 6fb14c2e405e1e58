//! What ends a session though both sides would go on: a switch of colours, an operator, the end of the
//! process.

use crate::BINARY;
use hub_testkit::websocket::{Client, Event};
use hub_testkit::{Behaviour, Hub, Hubctl, Origin, Signal, demo_config};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Routes that differ in what a switch means to their sessions. An hour is longer than any test.
const ROUTES: [(&str, &str); 4] = [
    ("pin", r#"{ on_switch = "pin" }"#),
    ("cut", r#"{ on_switch = "cut" }"#),
    ("drain", r#"{ on_switch = "drain", jitter_ms = 100 }"#),
    ("late", r#"{ on_switch = "drain", jitter_ms = 3600000 }"#),
];

/// Two colours of which `active` is in force, and a route at `/NAME` for each of [`ROUTES`].
fn config(origins: &[Origin; 2], active: &str) -> String {
    let [blue, green] = origins;
    let demo = demo_config(blue.endpoint());
    let (head, _) = demo.split_once("[[route]]").expect("a route");
    let head = head.replace(
        &format!("blue = [\"{}\"] }}", blue.endpoint()),
        &format!(
            "blue = [\"{}\"], green = [\"{}\"] }}\nactive = \"{active}\"",
            blue.endpoint(),
            green.endpoint()
        ),
    );
    let routes = ROUTES.map(|(name, keys)| {
        format!(
            "[[route]]\nname = \"{name}\"\npath = {{ prefix = \"/{name}\" }}\ncluster = \"app\"\nwebsocket = {keys}\n"
        )
    });
    head + &routes.concat()
}

async fn site() -> (Hub, [Origin; 2]) {
    let origin = || Origin::builder().respond(Behaviour::WebSocket).start();
    let origins = [origin().await, origin().await];
    let hub = Hub::builder(BINARY.as_ref())
        .config(&config(&origins, "blue"))
        .start()
        .await;
    (hub, origins)
}

async fn open(hub: &Hub, route: &str) -> Client {
    Client::connect(hub.addr("public"), &format!("/{route}")).await
}

async fn switch(hub: &Hub, origins: &[Origin; 2], active: &str) {
    hub.write_config(&config(origins, active));
    let (status, body) = hub.reload().await;
    assert_eq!(status, 200, "{body}");
}

/// What the admin API says of the open session of a route.
async fn shown(hub: &Hub, route: &str) -> Value {
    let path = format!("/v1/websockets?route={route}");
    let (status, body) = hub.admin("GET", &path, "").await;
    assert_eq!(status, 200, "{body}");
    body["sessions"][0].clone()
}

async fn closed(client: &mut Client) -> Option<u16> {
    let last = client.next_but_pings().await;
    assert!(matches!(last, Event::Close(..)), "{last:?}");
    last.close_code()
}

#[tokio::test]
async fn a_switch_does_to_a_session_what_its_route_says() {
    let (hub, origins) = site().await;
    let mut pinned = open(&hub, "pin").await;
    let mut cut = open(&hub, "cut").await;
    let mut drained = open(&hub, "drain").await;
    let mut late = open(&hub, "late").await;
    switch(&hub, &origins, "green").await;
    for client in [&mut cut, &mut drained] {
        assert_eq!(closed(client).await, Some(1012));
        client.answer_close(Some(1012)).await;
    }
    // Those who come are on the new colour, and stay.
    let mut new = open(&hub, "cut").await;
    new.echo("on green").await;
    assert_eq!(shown(&hub, "cut").await["colour"], "green");
    pinned.echo("on blue").await;
    assert_eq!(shown(&hub, "pin").await["colour"], "blue");
    late.echo("still on blue").await;
    assert_eq!(shown(&hub, "late").await["closes_for"], "switch");
    // Back again: who has not been closed stays.
    switch(&hub, &origins, "blue").await;
    assert_eq!(closed(&mut new).await, Some(1012));
    late.echo("on blue for good").await;
    assert_eq!(shown(&hub, "late").await["closes_for"], Value::Null);
    pinned.echo("as ever").await;
}

#[tokio::test]
async fn sigterm_closes_sessions_in_good_order() {
    let (mut hub, _origins) = site().await;
    let mut clients = Vec::new();
    for (route, _) in ROUTES {
        clients.push(open(&hub, route).await);
    }
    hub.signal(Signal::TERM);
    for client in &mut clients {
        assert_eq!(closed(client).await, Some(1012));
    }
    for mut client in clients {
        client.answer_close(Some(1012)).await;
    }
    assert_eq!(hub.wait_exit().await.code(), Some(0));
    let ends = hub.access_log().into_iter();
    let ends: Vec<_> = ends.filter(|line| line["event"].is_string()).collect();
    assert_eq!(ends.len(), ROUTES.len());
    for end in ends {
        assert_eq!(
            (&end["code"], &end["by"], &end["why"]),
            (&json!(1012), &json!("gateway"), &json!("ordered")),
            "{end}"
        );
    }
}

#[tokio::test]
async fn an_operator_sees_sessions_and_closes_those_that_are_meant() {
    let Some(hubctl) = Hubctl::beside(BINARY.as_ref()) else {
        return;
    };
    let (hub, _origins) = site().await;
    let mut one = open(&hub, "pin").await;
    let mut other = open(&hub, "cut").await;
    one.echo("hello").await;
    let run = |arguments: &[&str]| {
        let said = hubctl.run(&hub, arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.stderr);
        said.stdout
    };
    // Counted once the message has gone on.
    let deadline = Instant::now() + Duration::from_secs(20);
    while shown(&hub, "pin").await["messages_out"] != 1 {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let listed = run(&["ws", "list", "--route", "pin"]);
    for part in ["SESSION", "pin", "blue", "127.0.0.1", "1 of 1"] {
        assert!(listed.contains(part), "{part} in {listed}");
    }
    assert!(!listed.contains("cut"), "{listed}");
    assert!(run(&["ws", "list"]).contains("2 of 2"));
    let nobody = hubctl.run(&hub, &["ws", "close"]);
    assert_eq!(nobody.code, Some(2));
    assert!(nobody.stderr.contains("say which"), "{}", nobody.stderr);
    let told = run(&["ws", "close", "--route", "cut", "--code", "4000"]);
    assert!(told.ends_with("closed: 1\n"), "{told}");
    assert_eq!(closed(&mut other).await, Some(4000));
    other.answer_close(Some(4000)).await;
    one.echo("not meant").await;
    hub.wait_for_metric("hub_websockets_open", &[("route", "cut")], |n| n == 0.0)
        .await;
    let routes = run(&["ws", "routes"]);
    for part in ["ROUTE", "OPENED", "other: 1"] {
        assert!(routes.contains(part), "{part} in {routes}");
    }
    let number = shown(&hub, "pin").await["session"].to_string();
    run(&["ws", "close", "--session", &number]);
    assert_eq!(closed(&mut one).await, Some(1001));
}
