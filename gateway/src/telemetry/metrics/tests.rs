use super::*;

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.encode()).expect("the text format is UTF-8")
}

#[test]
fn a_route_is_shown_after_its_first_request_with_every_class() {
    let metrics = Metrics::new();
    let route = metrics.route("api", "crm", "blue");
    assert!(!text(&metrics).contains("route=\"api\""));
    route.finished(StatusClass::of(204), Duration::from_millis(3));
    route.finished(StatusClass::of(503), Duration::from_secs(61));
    let text = text(&metrics);
    for line in [
        r#"hub_requests_total{route="api",cluster="crm",colour="blue",status="2xx"} 1"#,
        r#"hub_requests_total{route="api",cluster="crm",colour="blue",status="5xx"} 1"#,
        r#"hub_requests_total{route="api",cluster="crm",colour="blue",status="none"} 0"#,
        r#"hub_request_duration_seconds_bucket{route="api",cluster="crm",colour="blue",le="0.0025"} 0"#,
        r#"hub_request_duration_seconds_bucket{route="api",cluster="crm",colour="blue",le="0.005"} 1"#,
        r#"hub_request_duration_seconds_bucket{route="api",cluster="crm",colour="blue",le="60"} 1"#,
        r#"hub_request_duration_seconds_bucket{route="api",cluster="crm",colour="blue",le="+Inf"} 2"#,
        r#"hub_request_duration_seconds_count{route="api",cluster="crm",colour="blue"} 2"#,
        r#"hub_request_duration_seconds_sum{route="api",cluster="crm",colour="blue"} 61.003"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

#[test]
fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
    for (position, bound) in DURATION_BOUNDS_NS.into_iter().enumerate() {
        let seconds = Duration::from_nanos(bound).as_secs_f64();
        assert!((seconds - DURATION_BOUNDS[position]).abs() < 1e-12);
        for (ns, bucket) in [(bound, position), (bound + 1, position + 1)] {
            let route = Metrics::new().route("r", "c", "green");
            route.finished(StatusClass::Success, Duration::from_nanos(ns));
            assert_eq!(route.counters.sums()[FIRST_BUCKET + bucket], 1, "{ns} ns");
        }
    }
}

#[test]
fn a_reload_keeps_handles_and_drops_the_series_of_removed_routes() {
    let metrics = Metrics::new();
    let kept = metrics.route("kept", "crm", "blue");
    let removed = metrics.route("removed", "crm", "blue");
    kept.finished(StatusClass::Success, Duration::ZERO);
    removed.finished(StatusClass::Success, Duration::ZERO);
    assert!(text(&metrics).contains("removed"));
    metrics.remove_routes(&[RouteKey::new("removed", "crm", "blue")]);
    let again = metrics.route("kept", "crm", "blue");
    assert!(Arc::ptr_eq(&kept, &again));
    assert_eq!(again.requests()[StatusClass::Success as usize], 1);
    assert!(!text(&metrics).contains("removed"));
}

#[test]
fn every_reason_has_a_series_from_the_start_and_counts_alone() {
    let metrics = Metrics::new();
    metrics.refused(Reason::TenantLimited);
    let text = text(&metrics);
    for reason in Reason::ALL {
        let count = u8::from(*reason == Reason::TenantLimited);
        let line = format!("hub_refusals_total{{reason=\"{}\"}} {count}", reason.code());
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        assert_eq!(metrics.refusals(*reason), u64::from(count));
    }
}

#[test]
fn each_reason_and_class_has_its_own_place() {
    for (place, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, place);
    }
    for (place, class) in StatusClass::ALL.iter().enumerate() {
        assert_eq!(*class as usize, place);
    }
    assert_eq!(StatusClass::of(0), StatusClass::None);
    assert_eq!(StatusClass::of(999), StatusClass::None);
}

#[test]
fn rare_events_are_counted_by_their_label() {
    let metrics = Metrics::new();
    let listener = metrics.listener("public");
    listener.opened();
    listener.opened();
    listener.closed();
    metrics.started();
    metrics.handshake_failed("timeout");
    metrics.certificates_read(CERTIFICATES_APPLIED);
    metrics.reloaded(ReloadOutcome::Rejected);
    metrics.snapshot_taken(UNIX_EPOCH + Duration::from_millis(1_500), 3);
    let text = text(&metrics);
    for line in [
        r#"hub_connections_opened_total{listener="public"} 2"#,
        r#"hub_connections_closed_total{listener="public"} 1"#,
        "hub_requests_started_total 1",
        r#"hub_tls_handshake_failures_total{reason="timeout"} 1"#,
        r#"hub_tls_certificate_reloads_total{outcome="applied"} 1"#,
        r#"hub_tls_certificate_reloads_total{outcome="rejected"} 0"#,
        r#"hub_config_reloads_total{outcome="rejected"} 1"#,
        r#"hub_config_reloads_total{outcome="applied"} 0"#,
        "hub_config_snapshot_timestamp_seconds 1.5",
        "hub_tenants 3",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

#[test]
fn registered_scrapes_are_shown_and_cannot_break_the_format() {
    let metrics = Metrics::new();
    metrics.register_scrape(|scrape| {
        let labels = [(label::ENDPOINT, "a\"b\\c\nd")];
        scrape.gauge(names::ENDPOINT_HEALTHY, "Takes traffic.", &labels, 1.0);
    });
    metrics.register_scrape(|scrape| {
        scrape.gauge(
            names::ENDPOINT_HEALTHY,
            "Takes traffic.",
            &[(label::ENDPOINT, "z")],
            0.0,
        );
    });
    let text = text(&metrics);
    let shown: Vec<_> = text
        .lines()
        .filter(|l| l.contains("hub_endpoint_healthy"))
        .collect();
    let expected = [
        "# HELP hub_endpoint_healthy Takes traffic.",
        "# TYPE hub_endpoint_healthy gauge",
        r#"hub_endpoint_healthy{endpoint="a\"b\\c\nd"} 1"#,
        r#"hub_endpoint_healthy{endpoint="z"} 0"#,
    ];
    assert_eq!(shown, expected);
}

#[test]
fn each_family_is_announced_once() {
    let metrics = Metrics::new();
    metrics
        .route("api", "crm", "blue")
        .finished(StatusClass::Success, Duration::ZERO);
    let text = text(&metrics);
    let types: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .collect();
    let unique: std::collections::HashSet<_> = types.iter().collect();
    assert_eq!(types.len(), unique.len());
    assert!(types.len() >= 12, "{types:?}");
}
