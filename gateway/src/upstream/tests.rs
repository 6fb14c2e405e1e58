use super::health::Thresholds;
use super::*;
use hub_config::runtime::HealthProbe;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SEED: u64 = 0x5eed_0001;

fn rng() -> StdRng {
    println!("seed {SEED:#x}");
    StdRng::seed_from_u64(SEED)
}

fn address(port: u16) -> EndpointAddress {
    EndpointAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn endpoints(ports: &[u16]) -> Vec<(String, EndpointAddress)> {
    ports
        .iter()
        .map(|port| (format!("127.0.0.1:{port}"), address(*port)))
        .collect()
}

fn plan(balance: Balance, blue: &[u16]) -> Plan {
    Plan {
        name: "app".into(),
        balance,
        blue: endpoints(blue),
        green: Vec::new(),
        check: None,
    }
}

fn clusters(plan: Plan, previous: Option<&Clusters>) -> Clusters {
    Clusters::assemble([plan].into_iter(), previous)
}

fn blue(clusters: &Clusters) -> &[Arc<Endpoint>] {
    clusters.endpoints(0, Colour::Blue)
}

/// Has the endpoint's check, which has number 0, report until it is healthy or not.
fn set_healthy(endpoint: &Endpoint, healthy: bool) {
    let outcome = if healthy { Ok(()) } else { Err("down".into()) };
    let at_once = Thresholds {
        healthy_after: 1,
        unhealthy_after: 1,
    };
    endpoint.report(0, outcome, at_once, SystemTime::UNIX_EPOCH);
}

/// How many of `count` picks each endpoint gets, each pick being over before the next.
fn shares(clusters: &Clusters, count: usize, tried: Option<&Pick>) -> Vec<usize> {
    let mut rng = rng();
    let mut shares = vec![0; blue(clusters).len()];
    for _ in 0..count {
        let pick = clusters.pick(0, Colour::Blue, tried, Instant::now(), &mut rng);
        shares[pick.expect("there are endpoints").index()] += 1;
    }
    shares
}

const BOTH: [Balance; 2] = [Balance::RoundRobin, Balance::PeakEwma];

#[test]
fn a_colour_without_endpoints_gives_none() {
    for balance in BOTH {
        let clusters = clusters(plan(balance, &[1]), None);
        let pick = clusters.pick(0, Colour::Green, None, Instant::now(), &mut rng());
        assert!(pick.is_none());
        assert!(!clusters.fails_open(0, Colour::Green));
    }
}

#[test]
fn round_robin_takes_turns() {
    let clusters = clusters(plan(Balance::RoundRobin, &[1, 2, 3]), None);
    assert_eq!(shares(&clusters, 300, None), [100, 100, 100]);
}

#[test]
fn the_turn_of_an_unhealthy_endpoint_is_spread_over_the_others() {
    let clusters = clusters(plan(Balance::RoundRobin, &[1, 2, 3]), None);
    set_healthy(&blue(&clusters)[1], false);
    assert_eq!(shares(&clusters, 300, None), [150, 0, 150]);
}

#[test]
fn unhealthy_endpoints_get_nothing_while_others_are_there() {
    for balance in BOTH {
        let clusters = clusters(plan(balance, &[1, 2, 3, 4, 5, 6, 7, 8]), None);
        for endpoint in &blue(&clusters)[..6] {
            set_healthy(endpoint, false);
        }
        let shares = shares(&clusters, 1_000, None);
        assert_eq!(shares[..6], [0; 6], "{balance:?}");
        assert!(shares[6] > 300 && shares[7] > 300, "{balance:?} {shares:?}");
    }
}

#[test]
fn with_every_endpoint_unhealthy_all_get_traffic_and_it_shows() {
    for balance in BOTH {
        let clusters = clusters(plan(balance, &[1, 2, 3]), None);
        for endpoint in blue(&clusters) {
            assert!(!clusters.fails_open(0, Colour::Blue));
            set_healthy(endpoint, false);
        }
        assert!(clusters.fails_open(0, Colour::Blue));
        assert!(shares(&clusters, 300, None).iter().all(|share| *share > 50));
        set_healthy(&blue(&clusters)[2], true);
        assert!(!clusters.fails_open(0, Colour::Blue));
        assert_eq!(shares(&clusters, 300, None), [0, 0, 300]);
    }
}

#[test]
fn a_second_try_goes_elsewhere_unless_there_is_no_other() {
    for balance in BOTH {
        let clusters = clusters(plan(balance, &[1, 2, 3]), None);
        let now = Instant::now();
        let tried = clusters.pick(0, Colour::Blue, None, now, &mut rng());
        let tried = tried.expect("there are endpoints");
        let others = shares(&clusters, 300, Some(&tried));
        assert_eq!(others[tried.index()], 0, "{balance:?}");
        for (index, endpoint) in blue(&clusters).iter().enumerate() {
            set_healthy(endpoint, index == tried.index());
        }
        let only = shares(&clusters, 10, Some(&tried));
        assert_eq!(
            only[tried.index()],
            10,
            "a usable one beats an unhealthy one"
        );
        set_healthy(tried.endpoint(), false);
        let open = shares(&clusters, 300, Some(&tried));
        assert_eq!(
            open[tried.index()],
            0,
            "with all unhealthy, another one is tried"
        );
    }
    for balance in BOTH {
        let clusters = clusters(plan(balance, &[1]), None);
        let tried = clusters.pick(0, Colour::Blue, None, Instant::now(), &mut rng());
        assert_eq!(shares(&clusters, 3, tried.as_ref()), [3]);
    }
}

#[test]
fn requests_in_flight_are_counted_until_the_pick_is_dropped() {
    let clusters = clusters(plan(Balance::RoundRobin, &[1]), None);
    let now = Instant::now();
    let mut pick = clusters
        .pick(0, Colour::Blue, None, now, &mut rng())
        .expect("one");
    assert_eq!(blue(&clusters)[0].in_flight(), 1);
    pick.succeed(Duration::from_millis(3), now);
    pick.fail(now);
    let latency = blue(&clusters)[0].view().latency.expect("one was measured");
    assert!(
        latency <= Duration::from_millis(3),
        "only the first verdict counts: {latency:?}"
    );
    drop(pick);
    assert_eq!(blue(&clusters)[0].in_flight(), 0);
}

#[test]
fn a_slow_endpoint_gets_less_and_is_tried_again_later() {
    let clusters = clusters(plan(Balance::PeakEwma, &[1, 2]), None);
    let mut rng = rng();
    let start = Instant::now();
    let run = |from: Duration, rng: &mut StdRng| {
        let mut shares = [0; 2];
        for i in 0..2_000 {
            let now = start + from + Duration::from_millis(i);
            let mut pick = clusters.pick(0, Colour::Blue, None, now, rng).expect("two");
            let slow = pick.index() == 0 && from.is_zero();
            let latency = Duration::from_millis(if slow { 400 } else { 4 });
            shares[pick.index()] += 1;
            pick.succeed(latency, now);
        }
        shares
    };
    let while_slow = run(Duration::ZERO, &mut rng);
    assert!(while_slow[0] <= 5, "{while_slow:?}");
    let after = run(Duration::from_secs(120), &mut rng);
    // Not half: without concurrency a difference of one in a thousand decides for some turns.
    assert!(after[0] > 200, "{after:?}");
}

#[test]
fn an_endpoint_that_fails_at_once_does_not_draw_the_traffic() {
    let clusters = clusters(plan(Balance::PeakEwma, &[1, 2]), None);
    let mut rng = rng();
    let start = Instant::now();
    let mut shares = [0; 2];
    for i in 0..20_000 {
        let now = start + Duration::from_millis(i);
        let mut pick = clusters
            .pick(0, Colour::Blue, None, now, &mut rng)
            .expect("two");
        shares[pick.index()] += 1;
        if pick.index() == 0 {
            pick.fail(now);
        } else {
            pick.succeed(Duration::from_millis(20), now);
        }
    }
    assert!(shares[0] < 20, "{shares:?}");
}

#[test]
fn requests_in_flight_weigh_as_much_as_latency() {
    let clusters = clusters(plan(Balance::PeakEwma, &[1, 2]), None);
    let mut rng = rng();
    let now = Instant::now();
    let held: Vec<_> = (0..100)
        .filter_map(|_| clusters.pick(0, Colour::Blue, None, now, &mut rng))
        .collect();
    assert_eq!(held.len(), 100);
    assert_eq!(blue(&clusters)[0].in_flight(), 50);
}

#[test]
fn a_reload_keeps_what_is_known_of_an_endpoint() {
    let old = clusters(plan(Balance::PeakEwma, &[1, 2]), None);
    set_healthy(&blue(&old)[1], false);
    let held = old.pick(0, Colour::Blue, None, Instant::now(), &mut rng());
    let new = clusters(plan(Balance::RoundRobin, &[2, 3, 1]), Some(&old));
    assert!(Arc::ptr_eq(&blue(&old)[0], &blue(&new)[2]));
    assert_eq!(blue(&new)[0].health(), Health::Unhealthy);
    assert_eq!(blue(&new)[1].health(), Health::Unknown);
    assert_eq!(blue(&new)[2].in_flight(), 1);
    drop(old);
    drop(held);
    assert_eq!(blue(&new)[2].in_flight(), 0);
    let mut moved = plan(Balance::RoundRobin, &[]);
    moved.green = endpoints(&[1, 2]);
    let moved = clusters(moved, Some(&new));
    let green = moved.endpoints(0, Colour::Green);
    assert!(
        !Arc::ptr_eq(&green[0], &blue(&new)[2]),
        "another colour is another version"
    );
}

#[test]
fn a_configuration_becomes_clusters_in_its_order() {
    let text = r#"
        [[listener]]
        name = "http"
        address = "127.0.0.1:8080"
        [[cluster]]
        name = "one"
        balance = "round_robin"
        endpoints = { blue = ["127.0.0.1:9001", "[::1]:9002"], green = ["unix:/run/app.sock"] }
        [[cluster]]
        name = "two"
        endpoints = { blue = ["127.0.0.1:9003"] }
        health = { kind = "http", path = "/up", interval_ms = 50, timeout_ms = 40 }
        [[route]]
        name = "all"
        path = { prefix = "/" }
        cluster = "one"
    "#;
    let (path, base) = (std::path::Path::new("test.toml"), std::path::Path::new(""));
    let catalog = hub_plugins::Catalog::new("");
    let config = match hub_config::load_str(text, path, base, &catalog, &|_| None) {
        Ok(config) => config,
        Err(problems) => panic!("{problems:?}"),
    };
    let clusters = Clusters::build(&config, None);
    let names = |cluster, colour| -> Vec<_> {
        let endpoints = clusters.endpoints(cluster, colour).iter();
        endpoints
            .map(|endpoint| endpoint.name().to_owned())
            .collect()
    };
    assert_eq!(names(0, Colour::Blue), ["127.0.0.1:9001", "[::1]:9002"]);
    assert_eq!(names(0, Colour::Green), ["unix:/run/app.sock"]);
    let pick = clusters.pick(1, Colour::Blue, None, Instant::now(), &mut rng());
    let pick = pick.expect("there is one");
    assert_eq!(
        (pick.cluster(), pick.colour(), pick.index()),
        (1, Colour::Blue, 0)
    );
    assert_eq!(pick.name(), "127.0.0.1:9003");
    assert!(clusters.clusters[0].check.is_none());
    let settings = clusters.clusters[1].check.as_ref().expect("configured");
    assert_eq!(settings.interval, Duration::from_millis(50));
}

proptest! {
    #[test]
    fn a_pick_is_always_from_the_best_scope_that_there_is(
        health in prop::collection::vec(any::<bool>(), 1..12),
        tried in prop::option::of(0_usize..12),
        round_robin: bool,
        seed: u64,
    ) {
        let ports: Vec<u16> = (1..=health.len() as u16).collect();
        let balance = if round_robin { Balance::RoundRobin } else { Balance::PeakEwma };
        let clusters = clusters(plan(balance, &ports), None);
        for (endpoint, healthy) in blue(&clusters).iter().zip(&health) {
            set_healthy(endpoint, *healthy);
        }
        let tried = tried.filter(|index| *index < health.len()).map(|index| {
            Pick::new(&blue(&clusters)[index], 0, Colour::Blue, index)
        });
        let tried_index = tried.as_ref().map(Pick::index);
        let rank = |index: usize| match (health[index], Some(index) == tried_index) {
            (true, false) => 0,
            (true, true) => 1,
            (false, false) => 2,
            (false, true) => 3,
        };
        let best = (0..health.len()).map(rank).min();
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..20 {
            let now = Instant::now();
            let pick = clusters.pick(0, Colour::Blue, tried.as_ref(), now, &mut rng);
            prop_assert_eq!(pick.map(|pick| rank(pick.index())), best);
        }
    }
}

// === checks on real sockets ===

/// An origin on a port of its own whose answer can be changed.
struct Origin {
    address: SocketAddr,
    status: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

impl Origin {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (status, asked) = (
            Arc::new(AtomicUsize::new(200)),
            Arc::<AtomicUsize>::default(),
        );
        let (answer, count) = (Arc::clone(&status), Arc::clone(&asked));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("listening");
                serve(stream, answer.load(Ordering::SeqCst)).await;
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self {
            address,
            status,
            asked,
        }
    }

    fn plan(&self, unhealthy_after: u8) -> Plan {
        let name = self.address.to_string();
        let check = Settings {
            probe: HealthProbe::Http {
                path: "/up".into(),
                host: None,
                status: 200,
                body_contains: None,
            },
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(5),
            thresholds: Thresholds {
                healthy_after: 2,
                unhealthy_after,
            },
            tls: None,
        };
        Plan {
            blue: vec![(name, EndpointAddress::Tcp(self.address))],
            check: Some(check),
            ..plan(Balance::RoundRobin, &[])
        }
    }
}

async fn serve(mut stream: TcpStream, status: usize) {
    let mut request = [0; 1_024];
    let read = stream.read(&mut request).await.expect("a request");
    assert!(request[..read].starts_with(b"GET /up HTTP/1.1\r\n"));
    let answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.expect("a reader");
}

/// Waits for something that other tasks bring about, for 20 s at most.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < until, "still waiting until {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_take_an_endpoint_out_and_bring_it_back() {
    let origin = Origin::start().await;
    let clusters = clusters(origin.plan(3), None);
    let endpoint = Arc::clone(&blue(&clusters)[0]);
    assert!(endpoint.view().healthy && !endpoint.view().checked);
    clusters.start_health_checks(&tokio::runtime::Handle::current());
    eventually("it is known to be healthy", || {
        endpoint.health() == Health::Healthy
    })
    .await;
    origin.status.store(503, Ordering::SeqCst);
    eventually("it is unhealthy", || !endpoint.is_usable()).await;
    let view = endpoint.view();
    assert!(!view.healthy && view.checked && view.last_change.is_some());
    assert_eq!(view.last_error.as_deref(), Some("answered 503, not 200"));
    origin.status.store(200, Ordering::SeqCst);
    eventually("it is healthy again", || {
        endpoint.health() == Health::Healthy
    })
    .await;
    assert_eq!(endpoint.view().last_error, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_leaves_stops_and_restarts_checks_as_needed() {
    let runtime = tokio::runtime::Handle::current();
    let origin = Origin::start().await;
    origin.status.store(500, Ordering::SeqCst);
    let first = clusters(origin.plan(1), None);
    let endpoint = Arc::clone(&blue(&first)[0]);
    first.start_health_checks(&runtime);
    eventually("it is unhealthy", || !endpoint.is_usable()).await;

    // The same again, and the old snapshot gone: the same check goes on.
    let same = clusters(origin.plan(1), Some(&first));
    same.start_health_checks(&runtime);
    drop(first);
    assert_eq!(same.checks.running(), 1);
    assert!(!endpoint.is_usable());
    let asked = origin.asked.load(Ordering::SeqCst);
    eventually("it is asked again", || {
        origin.asked.load(Ordering::SeqCst) > asked
    })
    .await;

    // Other settings, same endpoint: what is known stays until the new check, for which 500 is fine,
    // has a result.
    let mut other = origin.plan(1);
    if let Some(check) = other.check.as_mut()
        && let HealthProbe::Http { status, .. } = &mut check.probe
    {
        *status = 500;
    }
    let changed = clusters(other, Some(&same));
    assert!(!endpoint.is_usable());
    changed.start_health_checks(&runtime);
    assert_eq!(changed.checks.running(), 1);
    eventually("the new check reports", || endpoint.is_usable()).await;
    origin.status.store(200, Ordering::SeqCst);
    eventually("it is unhealthy once more", || !endpoint.is_usable()).await;

    // No check any more: nobody can say that it is down.
    let mut unchecked = origin.plan(1);
    unchecked.check = None;
    let unchecked = clusters(unchecked, Some(&changed));
    unchecked.start_health_checks(&runtime);
    assert_eq!(unchecked.checks.running(), 0);
    assert_eq!(endpoint.health(), Health::Unknown);
    assert!(Arc::ptr_eq(&endpoint, &blue(&unchecked)[0]));
}

#[test]
fn a_late_result_of_a_check_that_was_stopped_is_ignored() {
    let clusters = clusters(plan(Balance::RoundRobin, &[1]), None);
    let endpoint = &blue(&clusters)[0];
    endpoint.begin_checks(1);
    endpoint.begin_checks(2);
    let at_once = Thresholds {
        healthy_after: 1,
        unhealthy_after: 1,
    };
    let failed = || Err("refused".to_owned());
    let now = SystemTime::UNIX_EPOCH;
    assert_eq!(endpoint.report(1, failed(), at_once, now), None);
    assert!(endpoint.report(2, failed(), at_once, now).is_some());
    endpoint.end_checks();
    assert_eq!(endpoint.report(2, failed(), at_once, now), None);
    assert!(endpoint.is_usable());
}
