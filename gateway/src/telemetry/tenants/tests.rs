use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

struct Fake {
    id: String,
    totals: TenantTotals,
}

impl TenantCounters for Fake {
    fn id(&self) -> &str {
        &self.id
    }

    fn read(&self) -> TenantTotals {
        self.totals
    }
}

fn fake(id: &str, requests: u64) -> Fake {
    let mut totals = TenantTotals::default();
    totals.requests[1] = requests;
    totals.bytes_out = requests * 100;
    Fake {
        id: id.into(),
        totals,
    }
}

fn shown(gate: &TenantGate) -> BTreeMap<String, TenantTotals> {
    let own = gate
        .places
        .iter()
        .map(|place| (place.id.to_string(), place.shown));
    own.chain([(OTHER.to_owned(), gate.other)]).collect()
}

fn shown_requests(gate: &TenantGate) -> Vec<(String, u64)> {
    let shown = shown(gate).into_iter();
    shown
        .map(|(id, totals)| (id, totals.requests_sum()))
        .collect()
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected
        .iter()
        .map(|(id, count)| ((*id).to_owned(), *count))
        .collect()
}

#[test]
fn every_tenant_with_traffic_has_its_own_series_while_there_are_places() {
    let mut gate = TenantGate::new(2);
    gate.update(
        Instant::now(),
        &[fake("a", 5), fake("quiet", 0), fake("b", 7)],
    );
    assert_eq!(
        shown_requests(&gate),
        pairs(&[("a", 5), ("b", 7), ("other", 0)])
    );
}

#[test]
fn the_busiest_newcomers_get_the_free_places_and_the_rest_is_other() {
    let mut gate = TenantGate::new(2);
    gate.update(
        Instant::now(),
        &[fake("a", 5), fake("b", 7), fake("c", 9), fake("d", 1)],
    );
    assert_eq!(
        shown_requests(&gate),
        pairs(&[("b", 7), ("c", 9), ("other", 6)])
    );
}

#[test]
fn a_clearly_busier_tenant_takes_a_place_after_a_term_and_starts_from_nought() {
    let start = Instant::now();
    let mut gate = TenantGate::new(1);
    gate.update(start, &[fake("a", 5), fake("b", 1)]);
    gate.update(start + TERM / 2, &[fake("a", 6), fake("b", 1_000)]);
    assert_eq!(shown_requests(&gate), pairs(&[("a", 6), ("other", 1_000)]));
    gate.update(start + TERM, &[fake("a", 7), fake("b", 1_001)]);
    assert_eq!(shown_requests(&gate), pairs(&[("b", 0), ("other", 1_001)]));
    assert_eq!(gate.retired().requests_sum(), 7);
    gate.update(start + TERM, &[fake("a", 9), fake("b", 1_004)]);
    assert_eq!(shown_requests(&gate), pairs(&[("b", 3), ("other", 1_003)]));
}

#[test]
fn a_slightly_busier_tenant_does_not_take_a_place() {
    let start = Instant::now();
    let mut gate = TenantGate::new(1);
    gate.update(start, &[fake("a", 100), fake("b", 1)]);
    // 200 since the last election against twice 95 and ten more.
    gate.update(start + TERM, &[fake("a", 195), fake("b", 201)]);
    gate.update(start + TERM * 2, &[fake("a", 290), fake("b", 401)]);
    assert_eq!(shown_requests(&gate), pairs(&[("a", 290), ("other", 401)]));
    gate.update(start + TERM * 3, &[fake("a", 385), fake("b", 602)]);
    assert_eq!(shown_requests(&gate), pairs(&[("b", 0), ("other", 602)]));
}

#[test]
fn a_removed_tenant_leaves_its_place_and_other_does_not_shrink() {
    let now = Instant::now();
    let mut gate = TenantGate::new(2);
    gate.update(now, &[fake("a", 5), fake("b", 7), fake("c", 3)]);
    gate.update(now, &[fake("b", 8)]);
    assert_eq!(shown_requests(&gate), pairs(&[("b", 8), ("other", 3)]));
    // `c` comes back from nought and finds a free place.
    gate.update(now, &[fake("b", 8), fake("c", 2)]);
    assert_eq!(
        shown_requests(&gate),
        pairs(&[("b", 8), ("c", 2), ("other", 3)])
    );
    assert_eq!(gate.retired().requests_sum(), 5);
}

#[test]
fn a_tenant_that_starts_again_from_nought_between_two_scrapes_goes_on_growing() {
    let now = Instant::now();
    let mut gate = TenantGate::new(1);
    gate.update(now, &[fake("a", 9), fake("b", 4)]);
    gate.update(now, &[fake("a", 2), fake("b", 3)]);
    assert_eq!(shown_requests(&gate), pairs(&[("a", 11), ("other", 7)]));
}

#[test]
fn a_tenant_that_is_named_other_never_doubles_that_series() {
    let start = Instant::now();
    let mut gate = TenantGate::new(2);
    gate.update(start, &[fake(OTHER, 5), fake("a", 1)]);
    gate.update(start + TERM, &[fake(OTHER, 5_000), fake("a", 2)]);
    assert_eq!(shown_requests(&gate), pairs(&[("a", 2), ("other", 5_000)]));
}

#[test]
fn without_places_all_are_other_and_fewer_places_end_the_quietest_series() {
    let now = Instant::now();
    let mut gate = TenantGate::new(2);
    gate.update(now, &[fake("a", 5), fake("b", 7)]);
    gate.set_places_max(1);
    gate.update(now, &[fake("a", 6), fake("b", 8)]);
    assert_eq!(shown_requests(&gate), pairs(&[("b", 8), ("other", 0)]));
    gate.set_places_max(0);
    gate.update(now, &[fake("a", 7), fake("b", 9)]);
    gate.update(now + TERM, &[fake("a", 100), fake("b", 109)]);
    assert_eq!(shown_requests(&gate), pairs(&[("other", 194)]));
    assert_eq!(gate.retired().requests_sum(), 15);
}

#[test]
fn series_carry_every_counter() {
    let mut tenant = fake("a", 5);
    tenant.totals.limited = 3;
    tenant.totals.bytes_in = 11;
    let metrics = super::super::Metrics::new();
    let gate = parking_lot::Mutex::new(TenantGate::new(1));
    metrics.register_scrape(move |scrape| {
        gate.lock().scrape(Instant::now(), [&tenant], scrape);
    });
    let text = String::from_utf8(metrics.encode()).expect("text");
    for line in [
        r#"hub_tenant_requests_total{tenant="a",status="2xx"} 5"#,
        r#"hub_tenant_limited_total{tenant="a"} 3"#,
        r#"hub_tenant_bytes_total{tenant="a",direction="in"} 11"#,
        r#"hub_tenant_bytes_total{tenant="a",direction="out"} 500"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

/// What happens to the counters between two scrapes, and then the scrape.
#[derive(Clone, Debug)]
enum Step {
    Count {
        tenant: usize,
        class: usize,
        by: u64,
    },
    Remove(usize),
    Places(usize),
    Scrape {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..12_usize, 0..6_usize, 1..60_u64)
            .prop_map(|(tenant, class, by)| Step::Count { tenant, class, by }),
        1 => (0..12_usize).prop_map(Step::Remove),
        1 => (0..6_usize).prop_map(Step::Places),
        6 => (0..90_u64).prop_map(|seconds| Step::Scrape { seconds }),
    ]
}

fn sum<'a>(totals: impl IntoIterator<Item = &'a TenantTotals>) -> TenantTotals {
    let mut sum = TenantTotals::default();
    for one in totals {
        sum.add(one);
    }
    sum
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn series_only_grow_and_nothing_counted_is_lost_or_doubled(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut now = Instant::now();
        let mut gate = TenantGate::new(4);
        let mut places = 4;
        let mut tenants: BTreeMap<usize, Fake> = BTreeMap::new();
        // Everything counted by tenants that are gone, as far as a scrape could see it.
        let mut counted_by_gone = TenantTotals::default();
        let mut scraped: BTreeMap<usize, TenantTotals> = BTreeMap::new();
        let mut before = shown(&gate);
        for step in steps {
            match step {
                Step::Count { tenant, class, by } => {
                    let id = if tenant == 11 { OTHER.into() } else { format!("t{tenant}") };
                    let totals = &mut tenants.entry(tenant).or_insert_with(|| fake(&id, 0)).totals;
                    totals.requests[class] += by;
                    totals.bytes_in += by * 3;
                }
                Step::Remove(tenant) => {
                    // Gone between scrapes and back before the next would look like a restart; the
                    // gate sees it if the counters went down, so scrape without it once.
                    if tenants.remove(&tenant).is_some() {
                        counted_by_gone.add(&scraped.remove(&tenant).unwrap_or_default());
                        gate.update(now, tenants.values());
                        scraped = tenants.iter().map(|(k, t)| (*k, t.totals)).collect();
                        before = shown(&gate);
                    }
                }
                Step::Places(max) => {
                    places = max;
                    gate.set_places_max(max);
                }
                Step::Scrape { seconds } => {
                    now += Duration::from_secs(seconds);
                    gate.update(now, tenants.values());
                    scraped = tenants.iter().map(|(k, t)| (*k, t.totals)).collect();
                    let after = shown(&gate);
                    prop_assert!(after.len() <= places + 1);
                    for (id, then) in &before {
                        let Some(now) = after.get(id) else { continue };
                        for (now, then) in now.fields().into_iter().zip(then.fields()) {
                            prop_assert!(now >= then, "{} went down", id);
                        }
                    }
                    let mut total = sum(after.values());
                    total.add(&gate.retired());
                    let mut counted = sum(scraped.values());
                    counted.add(&counted_by_gone);
                    prop_assert_eq!(total, counted);
                    before = after;
                }
            }
        }
    }
}
