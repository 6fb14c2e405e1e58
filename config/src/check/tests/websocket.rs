use super::{BASE, load, problems};
use crate::runtime::{Compression, OnSwitch, OnUpgrade, WebSocket};
use std::time::Duration;

/// What becomes of a table with these lines.
fn table(lines: &str) -> WebSocket {
    let text = format!("{BASE}[route.websocket]\n{lines}");
    let config = load(&text).unwrap_or_else(|problems| panic!("{problems}"));
    let table = config.routes[0].websocket.as_deref();
    table.expect("there is a table").clone()
}

#[test]
fn a_route_takes_websockets_only_where_it_has_the_table() {
    let taken = |text: &str| load(text).unwrap().routes[0].websocket.is_some();
    assert!(!taken(BASE));
    assert!(taken(&format!("{BASE}[route.websocket]\n")));
    assert!(taken(&format!("{BASE}websocket = {{}}\n")));
}

#[test]
fn an_empty_table_means_every_default() {
    let seconds = Duration::from_secs;
    let defaults = WebSocket {
        origins: Vec::new(),
        utf8: true,
        compression: Compression::Refuse,
        frame_bytes_max: 1 << 20,
        message_bytes_max: 1 << 20,
        fragments_max: 1_024,
        client_messages_per_second: None,
        client_kilobytes_per_second: None,
        upstream_messages_per_second: None,
        upstream_kilobytes_per_second: None,
        connections_max: None,
        idle_timeout: Duration::ZERO,
        lifetime: seconds(86_400),
        ping_interval: seconds(30),
        pong_timeout: seconds(10),
        write_timeout: seconds(30),
        close_timeout: seconds(5),
        until_credential_expires: true,
        on_switch: OnSwitch::Pin,
        on_upgrade: OnUpgrade::Keep,
        jitter: seconds(10),
    };
    assert_eq!(table(""), defaults);
}

#[test]
fn each_key_of_the_table_means_what_it_says() {
    let written = table(
        r#"
origins = ["https://a.test", "http://localhost:3000"]
utf8 = false
compression = "pass"
frame_bytes_max = 2_097_152
message_bytes_max = 3
fragments_max = 4
client_messages_per_second = 5
client_kilobytes_per_second = 6
upstream_messages_per_second = 7
upstream_kilobytes_per_second = 8
connections_max = 9
idle_timeout_ms = 10
lifetime_ms = 11
ping_interval_ms = 12
pong_timeout_ms = 13
write_timeout_ms = 14
close_timeout_ms = 15
until_credential_expires = false
on_switch = "cut"
on_upgrade = "drain"
jitter_ms = 16
"#,
    );
    let millis = Duration::from_millis;
    let meant = WebSocket {
        origins: ["https://a.test", "http://localhost:3000"]
            .map(|origin| origin.parse().unwrap())
            .into(),
        utf8: false,
        compression: Compression::Pass,
        // More than a message may have: it is merely never reached.
        frame_bytes_max: 2 << 20,
        message_bytes_max: 3,
        fragments_max: 4,
        client_messages_per_second: Some(5),
        client_kilobytes_per_second: Some(6),
        upstream_messages_per_second: Some(7),
        upstream_kilobytes_per_second: Some(8),
        connections_max: Some(9),
        idle_timeout: millis(10),
        lifetime: millis(11),
        ping_interval: millis(12),
        pong_timeout: millis(13),
        write_timeout: millis(14),
        close_timeout: millis(15),
        until_credential_expires: false,
        on_switch: OnSwitch::Cut,
        on_upgrade: OnUpgrade::Drain,
        jitter: millis(16),
    };
    assert_eq!(written, meant);
    assert_eq!(table("on_switch = \"drain\"\n").on_switch, OnSwitch::Drain);
}

#[test]
fn zero_turns_off_the_times_that_may_be_off() {
    let off = table("idle_timeout_ms = 0\nlifetime_ms = 0\nping_interval_ms = 0\njitter_ms = 0\n");
    let times = [
        off.idle_timeout,
        off.lifetime,
        off.ping_interval,
        off.jitter,
    ];
    assert_eq!(times, [Duration::ZERO; 4]);
}

#[test]
fn methods_with_get_among_them_are_fine() {
    let text = |methods: &str| format!("{BASE}methods = {methods}\nwebsocket = {{}}\n");
    assert!(problems(&text("[\"POST\", \"GET\"]")).is_empty());
    // What is wrong with the methods themselves is the only problem told.
    assert_eq!(problems(&text("[\"post\"]")).len(), 1);
}
