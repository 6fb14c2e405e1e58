//! What a client says about itself reaches no origin.

use crate::edge::edge;

const TWO_HOPS: &str = "trusted_hops = 2\ntrusted_from = [\"127.0.0.0/8\"]";

fn values<'a>(request: &'a hub_testkit::RecordedRequest, name: &str) -> Vec<&'a str> {
    request.header_all(name).collect()
}

#[tokio::test]
async fn headers_that_speak_for_the_client_are_removed_and_written_anew() {
    let edge = edge("", "").await;
    edge.served(
        "GET / HTTP/1.1\r\nHost: a.example:8080\r\n\
         X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
         X-Forwarded-Anything: evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
         True-Client-IP: 6.6.6.6\r\nX-Original-URL: /evil\r\nX-Rewrite-URL: /evil\r\n\
         X-Location-Id: loc_evil\r\nX-Hub-Subject: evil\r\nX-HUB-Whatever: evil\r\n\
         Proxy: http://evil\r\nX-Kept: yes\r\n\r\n",
    )
    .await;
    let request = &edge.origin.requests()[0];
    assert_eq!(values(request, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(request, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(request, "x-forwarded-host"), ["a.example:8080"]);
    assert_eq!(values(request, "x-kept"), ["yes"]);
    let head = request.head_text();
    assert!(!head.contains("evil"), "{head}");
    assert!(!head.contains("6.6.6.6"), "{head}");
    for name in [
        "x-forwarded-port",
        "forwarded",
        "x-real-ip",
        "x-location-id",
        "x-hub-subject",
    ] {
        assert_eq!(values(request, name), [""; 0], "{head}");
    }
    assert_eq!(
        edge.hub.wait_for_access_log(1).await[0]["client"],
        "127.0.0.1"
    );
    edge.assert_nothing_refused().await;
}

#[tokio::test]
async fn connection_cannot_name_the_tenant_header_away() {
    let tenant =
        "tenant = { sources = [{ header = \"x-location-id\" }] }\n[[tenant]]\nid = \"loc_1\"\n";
    let edge = edge("", tenant).await;
    edge.served(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Location-Id\r\n\
         X-Location-Id: loc_1\r\n\r\n",
    )
    .await;
    let request = &edge.origin.requests()[0];
    assert_eq!(values(request, "x-location-id"), ["loc_1"]);
    assert_eq!(values(request, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(edge.hub.wait_for_access_log(1).await[0]["tenant"], "loc_1");
}

#[tokio::test]
async fn connection_that_names_the_forwarding_header_is_refused() {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For\r\n\r\n")
        .await;
    edge.assert_refused(&mut client, hub_core::Reason::BadHeader)
        .await;
    edge.assert_origin_untouched();
}

#[tokio::test]
async fn a_tenant_header_does_not_outvote_the_route_s_own_source() {
    let tenant = "tenant = { sources = [{ query = \"location\" }] }\n[[tenant]]\nid = \"loc_1\"\n[[tenant]]\nid = \"loc_2\"\n";
    let edge = edge("", tenant).await;
    edge.served("GET /?location=loc_1 HTTP/1.1\r\nHost: a\r\nX-Location-Id: loc_2\r\n\r\n")
        .await;
    assert_eq!(
        values(&edge.origin.requests()[0], "x-location-id"),
        ["loc_1"]
    );
    assert_eq!(edge.hub.wait_for_access_log(1).await[0]["tenant"], "loc_1");
}

#[tokio::test]
async fn trusted_hops_are_believed_and_what_stands_before_them_is_not() {
    let edge = edge(TWO_HOPS, "").await;
    edge.served(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6, 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n\
         X-Forwarded-Proto: https\r\nX-Real-IP: 6.6.6.6\r\n\r\n",
    )
    .await;
    let request = &edge.origin.requests()[0];
    assert_eq!(
        values(request, "x-forwarded-for"),
        ["1.1.1.1, 2.2.2.2, 127.0.0.1"]
    );
    assert_eq!(values(request, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(request, "x-real-ip"), [""; 0]);
    assert_eq!(
        edge.hub.wait_for_access_log(1).await[0]["client"],
        "1.1.1.1"
    );
}

#[tokio::test]
async fn a_stranger_who_comes_past_the_proxies_is_not_believed() {
    let edge = edge("trusted_hops = 1\ntrusted_from = [\"10.0.0.0/8\"]", "").await;
    edge.served(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n",
    )
    .await;
    let request = &edge.origin.requests()[0];
    assert_eq!(values(request, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(request, "x-forwarded-proto"), ["http"]);
    let line = &edge.hub.wait_for_access_log(1).await[0];
    assert_eq!(line["client"], "127.0.0.1");
}

#[tokio::test]
async fn the_state_of_a_trace_goes_up_only_with_its_trace() {
    let edge = edge("", "").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (parent, states) in [(trace, &["a=1"] as &[&str]), ("broken", &[])] {
        edge.served(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nTraceparent: {parent}\r\nTracestate: a=1\r\n\r\n"
        ))
        .await;
        let requests = edge.origin.requests();
        let last = requests.last().expect("it was served");
        assert_eq!(values(last, "tracestate"), states);
    }
}

#[tokio::test]
async fn fewer_members_than_trusted_hops_are_not_believed() {
    let edge = edge(TWO_HOPS, "").await;
    edge.served("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
        .await;
    let request = &edge.origin.requests()[0];
    assert_eq!(values(request, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(
        edge.hub.wait_for_access_log(1).await[0]["client"],
        "127.0.0.1"
    );
}
