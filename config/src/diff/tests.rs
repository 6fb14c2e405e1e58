use super::{Diff, What, diff};
use crate::check::tests::{BASE, load, load_in};
use proptest::prelude::*;

fn changes(old: &str, new: &str) -> Diff {
    let load = |text: &str| load(text).unwrap_or_else(|problems| panic!("{problems}"));
    diff(&load(old), &load(new))
}

/// Path and detail of the only change.
fn change(old: &str, new: &str) -> (What, String, String) {
    let diff = changes(old, new);
    let [one] = &diff.changes[..] else {
        panic!("{diff:#?}");
    };
    (one.what, one.path.clone(), one.detail.clone())
}

#[test]
fn a_comment_and_another_order_change_nothing() {
    let twice = |a: &str, b: &str| {
        format!(
            "{BASE}[[limit]]\nname = \"{a}\"\nby = \"route\"\nrequests = 1\n\
             [[limit]]\nname = \"{b}\"\nby = \"route\"\nrequests = 1\n"
        )
    };
    assert!(changes(BASE, &format!("# a comment\n{BASE}")).is_empty());
    assert!(changes(&twice("a", "b"), &twice("b", "a")).is_empty());
}

#[test]
fn a_changed_value_shows_old_and_new() {
    let old = BASE.replace("endpoints", "connect_timeout_ms = 100\nendpoints");
    let (what, path, detail) = change(BASE, &old);
    assert_eq!(what, What::Changed);
    assert_eq!(path, "cluster \"app\".connect_timeout_ms");
    assert_eq!(detail, "1s -> 100ms");
}

#[test]
fn a_new_section_and_one_that_is_gone_are_told() {
    let more = format!("{BASE}[[limit]]\nname = \"l\"\nby = \"route\"\nrequests = 1\n");
    assert_eq!(
        change(BASE, &more),
        (What::Added, "limit \"l\"".into(), String::new())
    );
    assert_eq!(
        change(&more, BASE),
        (What::Removed, "limit \"l\"".into(), String::new())
    );
}

#[test]
fn a_colour_switch_needs_no_upgrade() {
    let old = BASE.replace("] }", "], green = [\"127.0.0.1:9002\"] }");
    let new = old.replace("endpoints", "active = \"green\"\nendpoints");
    let diff = changes(&old, &new);
    assert_eq!(diff.changes[0].detail, "Blue -> Green");
    assert!(diff.needs_upgrade.is_empty());
}

#[test]
fn sockets_and_threads_need_an_upgrade() {
    let tls = "tls.certificates = [{ certificate_file = \"tls/certificate.pem\", key_file = \"tls/key.pem\" }]\n";
    let with_tls = BASE.replace("[[cluster]]", &format!("{tls}[[cluster]]"));
    let moved = BASE.replace("8080", "8081");
    let second = format!("{BASE}[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:0\"\n");
    let workers = |count: u32| format!("{BASE}[gateway]\nworkers = {count}\n");
    let admin = format!("{BASE}[admin]\naddress = \"127.0.0.1:9901\"\n");
    let cases = [
        (
            BASE,
            &*moved,
            "address changes from 127.0.0.1:8080 to 127.0.0.1:8081",
        ),
        (BASE, &with_tls, "TLS is turned on"),
        (&with_tls, BASE, "TLS is turned off"),
        (BASE, &second, "\"b\" is added"),
        (&second, BASE, "\"b\" is removed"),
        (
            &workers(1),
            &workers(2),
            "gateway.workers changes from 1 to 2",
        ),
        (BASE, &admin, "admin.address changes"),
    ];
    for (old, new, wanted) in cases {
        let diff = changes(old, new);
        assert!(
            diff.needs_upgrade.len() == 1 && diff.needs_upgrade[0].contains(wanted),
            "{diff:?}"
        );
    }
}

#[test]
fn timeouts_and_bounds_of_a_listener_change_while_running() {
    let new = BASE.replace(
        "[[cluster]]",
        "head_timeout_ms = 500\nrequests_per_connection_max = 1\n[[cluster]]",
    );
    let diff = changes(BASE, &new);
    assert_eq!(diff.changes.len(), 2);
    assert!(diff.needs_upgrade.is_empty());
}

#[test]
fn routes_are_compared_by_name_wherever_they_stand() {
    let route = |name: &str, path: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\npath = {{ prefix = \"{path}\" }}\ncluster = \"app\"\n"
        )
    };
    let old = [route("a", "/a"), route("b", "/b"), route("c", "/c")].concat();
    let new = [route("d", "/d"), route("c", "/c"), route("b", "/bb")].concat();
    let diff = changes(&format!("{BASE}{old}"), &format!("{BASE}{new}"));
    let told: Vec<_> = diff
        .changes
        .iter()
        .map(|c| (c.what, c.path.as_str(), c.detail.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (What::Removed, "route \"a\"", ""),
            (What::Changed, "route \"b\".path", "prefix /b -> prefix /bb"),
            (What::Added, "route \"d\"", ""),
        ]
    );
}

#[test]
fn every_part_of_a_route_counts() {
    let limit = "[[limit]]\nname = \"l\"\nby = \"route\"\nrequests = 1\n";
    let second = "[[cluster]]\nname = \"b\"\nendpoints = { blue = [\"127.0.0.1:9009\"] }\n";
    let plugin = "[[plugin]]\nname = \"who\"\nkind = \"jwt\"\n";
    let old = format!(
        "{BASE}{limit}{second}{plugin}[[route]]\nname = \"r\"\npath = {{ prefix = \"/r\" }}\ncluster = \"app\"\n"
    );
    let cases = [
        ("hosts = [\"a.test\"]\n", "hosts"),
        ("methods = [\"GET\"]\n", "methods"),
        ("headers = [{ name = \"x-a\" }]\n", "headers"),
        ("tenant = { sources = [{ header = \"x-b\" }] }\n", "tenant"),
        ("plugins = [\"who\"]\n", "plugins"),
        ("limits = [\"l\"]\n", "limits"),
        ("body_bytes_max = 7\n", "body_bytes_max"),
        ("websocket = {}\n", "websocket"),
        ("cors_origins = [\"*\"]\n", "cors_origins"),
    ];
    for (line, key) in cases {
        let path = change(&old, &format!("{old}{line}")).1;
        assert_eq!(path, format!("route \"r\".{key}"));
    }
    let moved = old.replace("/r\" }\ncluster = \"app\"", "/r\" }\ncluster = \"b\"");
    assert_eq!(change(&old, &moved).1, "route \"r\".cluster");
}

#[test]
fn a_table_for_websockets_that_comes_or_goes_is_one_change() {
    let with = format!("{BASE}websocket = {{ utf8 = false }}\n");
    let path = "route \"all\".websocket".to_owned();
    assert_eq!(
        change(BASE, &with),
        (What::Changed, path.clone(), "false -> true".into())
    );
    assert_eq!(
        change(&with, BASE),
        (What::Changed, path, "true -> false".into())
    );
}

#[test]
fn each_key_for_websockets_is_told_by_its_name() {
    let old = format!("{BASE}[route.websocket]\n");
    let lines = [
        "origins = [\"http://a.test\"]",
        "utf8 = false",
        "compression = \"pass\"",
        "frame_bytes_max = 7",
        "message_bytes_max = 7",
        "fragments_max = 7",
        "client_messages_per_second = 7",
        "client_kilobytes_per_second = 7",
        "upstream_messages_per_second = 7",
        "upstream_kilobytes_per_second = 7",
        "connections_max = 7",
        "idle_timeout_ms = 7",
        "lifetime_ms = 7",
        "ping_interval_ms = 7",
        "pong_timeout_ms = 7",
        "write_timeout_ms = 7",
        "close_timeout_ms = 7",
        "until_credential_expires = false",
        "on_switch = \"cut\"",
        "on_upgrade = \"drain\"",
        "jitter_ms = 7",
    ];
    for line in lines {
        let (key, _) = line.split_once(' ').unwrap();
        let (what, path, _) = change(&old, &format!("{old}{line}\n"));
        assert_eq!(what, What::Changed);
        assert_eq!(path, format!("route \"all\".websocket.{key}"));
    }
    let all = changes(&old, &format!("{old}{}\n", lines.join("\n")));
    assert_eq!(all.changes.len(), lines.len());
}

#[test]
fn a_secret_that_changes_is_named_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{BASE}[admin]\ntoken_file = \"token\"\n");
    let load = |token: &str| {
        std::fs::write(folder.path().join("token"), token).unwrap();
        load_in(folder.path(), &text).unwrap()
    };
    let (old, new) = (load("first-secret-token"), load("other-secret-token"));
    assert_eq!(
        old.hash, new.hash,
        "a shown hash says nothing about secrets"
    );
    let diff = diff(&old, &new);
    assert_eq!(diff.changes[0].path, "admin.token");
    let json = serde_json::to_string(&diff).unwrap();
    assert!(!json.contains("secret-token"), "{json}");
}

#[test]
fn a_plugins_key_file_that_changes_is_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let text = format!(
        "{BASE}[[plugin]]\nname = \"who\"\nkind = \"jwt\"\nconfig.files = [{:?}]\n",
        keys.to_str().unwrap()
    );
    let load = |content: &str| {
        std::fs::write(&keys, content).unwrap();
        load_in(folder.path(), &text).unwrap()
    };
    let (old, new) = (load("a"), load("b"));
    let diff = diff(&old, &new);
    assert_eq!(diff.changes[0].path, "plugin \"who\".config");
    assert_eq!(diff.changes[0].detail, "(not shown) -> (not shown)");
}

#[test]
fn few_tenants_are_listed_and_many_are_counted() {
    let tenants = |range: std::ops::Range<u32>, burst: u32| {
        range.fold(BASE.to_owned(), |text, i| {
            text + &format!("[[tenant]]\nid = \"t{i}\"\nrequests_per_second = 5\nburst = {burst}\n")
        })
    };
    let few = changes(&tenants(0..3, 1), &tenants(1..4, 2));
    let paths: Vec<_> = few
        .changes
        .iter()
        .map(|c| (c.what, c.path.as_str()))
        .collect();
    assert_eq!(
        paths,
        [
            (What::Changed, "tenant \"t1\""),
            (What::Changed, "tenant \"t2\""),
            (What::Added, "tenant \"t3\""),
            (What::Removed, "tenant \"t0\""),
        ]
    );
    assert_eq!(
        few.changes[0].detail,
        "quota 5 per 1s, burst 1 -> 5 per 1s, burst 2"
    );
    let most = |key: &str| format!("{BASE}[[tenant]]\nid = \"t\"\n{key} = 2\n");
    assert_eq!(
        change(&most("in_flight_max"), &most("websockets_max")).2,
        "in flight 2 -> unlimited; WebSockets unlimited -> 2"
    );
    let many = changes(BASE, &tenants(0..101, 1));
    assert_eq!(many.changes.len(), 1);
    assert_eq!(many.changes[0].detail, "101 tenants");
}

#[test]
fn an_overlay_is_compared_by_names_not_by_positions() {
    let second = "[[cluster]]\nname = \"b\"\nendpoints = { blue = [\"127.0.0.1:9009\"] }\n";
    let tenant = "[[tenant]]\nid = \"t\"\nroutes = { all = \"b\" }\n";
    let front = format!("{second}{BASE}{tenant}");
    let back = format!("{BASE}{second}{tenant}");
    assert!(changes(&front, &back).is_empty());
    let without = format!("{BASE}{second}[[tenant]]\nid = \"t\"\n");
    assert_eq!(change(&without, &back).2, "overlay none -> all to b");
}

#[test]
fn a_flood_of_changes_is_cut_and_counted() {
    let new = (0..1_200).fold(BASE.to_owned(), |text, i| {
        text + &format!("[[limit]]\nname = \"l{i}\"\nby = \"route\"\nrequests = 1\n")
    });
    let diff = changes(BASE, &new);
    assert_eq!(
        (diff.changes.len(), diff.left_out),
        (Diff::CHANGES_MAX, 200)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_configuration_does_not_differ_from_itself(
        tenants in prop::collection::btree_set("[a-z]{1,6}", 0..20),
        requests in 1_u32..1_000,
        websocket: bool,
        hops in 1_u8..=10,
    ) {
        let mut text = BASE.replace("[[cluster]]", &format!(
            "trusted_hops = {hops}\ntrusted_from = [\"10.0.0.0/8\"]\n[[cluster]]"
        ));
        if websocket {
            text += "websocket = {}\n";
        }
        text += "limits = [\"l\"]\n";
        text += &format!("[[limit]]\nname = \"l\"\nby = \"route\"\nrequests = {requests}\n");
        for id in &tenants {
            text += &format!("[[tenant]]\nid = \"{id}\"\ncolours = {{ app = \"blue\" }}\n");
        }
        prop_assert!(changes(&text, &text).is_empty());
        // And it does differ from one that lacks something.
        prop_assert!(!changes(&text, BASE).is_empty());
    }
}
