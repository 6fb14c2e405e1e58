//! Which tenant an origin is told, over the wire: every source, disagreements, look-alikes, and
//! thousands of generated requests against an oracle that knows nothing of the gateway's parser.

use hub_testkit::{Hub, Origin, Wire, WireResponse, demo_config, samples};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use sha2::{Digest, Sha256};

const ROUTES: &str = r#"
[[route]]
name = "header"
path = { prefix = "/header" }
cluster = "app"
tenant = { sources = [{ header = "x-location-id" }] }
[[route]]
name = "subdomain"
path = { prefix = "/subdomain" }
cluster = "app"
tenant = { sources = [{ subdomain = "hub.test" }] }
[[route]]
name = "query"
path = { prefix = "/query" }
cluster = "app"
tenant = { sources = [{ query = "location_id" }] }
[[route]]
name = "path"
path = { template = "/path/{location_id}/{*rest}" }
cluster = "app"
tenant = { sources = [{ path = "location_id" }] }
[[route]]
name = "every"
path = { template = "/every/{location_id}/x" }
cluster = "app"
tenant = { sources = [{ header = "x-location-id" }, { subdomain = "hub.test" }, { query = "location_id" }, { path = "location_id" }] }
[[route]]
name = "optional"
path = { prefix = "/optional" }
cluster = "app"
tenant = { sources = [{ header = "x-location-id" }], required = false }
[[route]]
name = "login"
path = { prefix = "/login" }
cluster = "app"
plugins = ["key"]
tenant = { sources = ["credential", { header = "x-location-id" }] }

[[tenant]]
id = "loc_A"
slug = "acme"
[[tenant]]
id = "loc_B"
slug = "oak"
[[tenant]]
id = "LOC_a"
slug = "acme-2"
[[tenant]]
id = "loc_off"
slug = "off"
enabled = false

[[plugin]]
name = "key"
kind = "api_key"
"#;

const KEYS: &[(&str, Option<&str>)] = &[
    ("key-of-a", Some("loc_A")),
    ("key-of-b", Some("loc_B")),
    ("key-of-off", Some("loc_off")),
    ("key-of-nobody", None),
];

async fn start(origin: &Origin) -> Hub {
    let mut config = demo_config(origin.endpoint()) + ROUTES;
    for (key, tenant) in KEYS {
        let hash = Sha256::digest(key)
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let tenant = tenant.map_or(String::new(), |id| format!("tenant = \"{id}\"\n"));
        config +=
            &format!("[[plugin.config.keys]]\nname = \"{key}\"\nsha256 = \"{hash}\"\n{tenant}");
    }
    Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .config(&config)
        .start()
        .await
}

/// What became of a request: the tenant that the origin was told (`-` for none), or the code of the
/// refusal with its status.
fn outcome(answer: &WireResponse) -> String {
    let json = answer.json();
    if answer.status == 200 {
        let told: Vec<&str> = json["headers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pair| {
                pair[0]
                    .as_str()
                    .is_some_and(|name| name.eq_ignore_ascii_case("x-location-id"))
            })
            .filter_map(|pair| pair[1].as_str())
            .collect();
        return match told[..] {
            [] => "-".into(),
            [one] => one.into(),
            _ => format!("more than one tenant: {told:?}"),
        };
    }
    format!(
        "{} {}",
        answer.status,
        json["error"]["code"].as_str().unwrap_or("?")
    )
}

async fn ask(hub: &Hub, target: &str, host: &str, headers: &str) -> String {
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send(format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n"
    ))
    .await;
    outcome(&wire.read_response().await)
}

async fn assert_outcomes(cases: &[(&str, &str, &str, &str)]) {
    let origin = Origin::start().await;
    let hub = start(&origin).await;
    let mut forwarded = 0;
    for (target, host, headers, expected) in cases {
        let got = ask(&hub, target, host, headers).await;
        assert_eq!(got, *expected, "{target} {host} {headers:?}");
        forwarded += usize::from(!got.contains(' '));
    }
    assert_eq!(
        origin.request_count(),
        forwarded,
        "what is refused reaches no origin"
    );
}

const MALFORMED: &str = "400 tenant_malformed";
const MISSING: &str = "400 tenant_missing";
const MISMATCH: &str = "403 tenant_mismatch";
const UNKNOWN: &str = "404 tenant_unknown";

#[tokio::test]
async fn the_header_names_the_tenant() {
    assert_outcomes(&[
        ("/header", "a.test", "X-Location-Id: loc_A\r\n", "loc_A"),
        ("/header", "a.test", "x-lOCATION-iD:loc_B\r\n", "loc_B"),
        (
            "/header",
            "a.test",
            "X-Location-Id:  \t loc_A \t\r\n",
            "loc_A",
        ),
        // Ids are case-sensitive: these are two tenants, and a third that does not exist.
        ("/header", "a.test", "X-Location-Id: LOC_a\r\n", "LOC_a"),
        ("/header", "a.test", "X-Location-Id: loc_a\r\n", UNKNOWN),
        ("/header", "a.test", "X-Location-Id: loc_C\r\n", UNKNOWN),
        ("/header", "a.test", "X-Location-Id: loc_off\r\n", UNKNOWN),
        ("/header", "a.test", "", MISSING),
        ("/header", "a.test", "X-Location-Id:\r\n", MALFORMED),
        ("/header", "a.test", "X-Location-Id: loc A\r\n", MALFORMED),
        ("/header", "a.test", "X-Location-Id: *\r\n", MALFORMED),
        ("/header", "a.test", "X-Location-Id: loc_%41\r\n", MALFORMED),
        (
            "/header",
            "a.test",
            "X-Location-Id: loc_A,loc_B\r\n",
            MALFORMED,
        ),
        (
            "/header",
            "a.test",
            "X-Location-Id: \"loc_A\"\r\n",
            MALFORMED,
        ),
        (
            "/header",
            "a.test",
            "X-Location-Id: loc_\u{410}\r\n",
            MALFORMED,
        ),
        (
            "/header",
            "a.test",
            "X-Location-Id: loc_A' OR '1'='1\r\n",
            MALFORMED,
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_header_that_is_doubled_or_looks_like_the_tenants_is_refused() {
    let origin = Origin::start().await;
    let hub = start(&origin).await;
    for headers in [
        "X-Location-Id: loc_A\r\nX-Location-Id: loc_A\r\n",
        "X-Location-Id: loc_A\r\nx-location-id: loc_B\r\n",
        "X-Location-Id: loc_A\r\nX_Location_Id: loc_B\r\n",
        "X_Location_Id: loc_A\r\n",
        "X-Location_Id: loc_A\r\n",
        "X.Location.Id: loc_A\r\n",
    ] {
        let got = ask(&hub, "/header", "a.test", headers).await;
        assert!(got.starts_with("400 "), "{headers:?}: {got}");
    }
    let long = format!("X-Location-Id: {}\r\n", "a".repeat(10_000));
    let got = ask(&hub, "/header", "a.test", &long).await;
    assert_eq!(got, MALFORMED);
    assert_eq!(origin.request_count(), 0);
}

#[tokio::test]
async fn the_subdomain_names_the_tenant_by_its_slug() {
    assert_outcomes(&[
        ("/subdomain", "acme.hub.test", "", "loc_A"),
        ("/subdomain", "ACME.Hub.TEST", "", "loc_A"),
        ("/subdomain", "oak.hub.test:8080", "", "loc_B"),
        ("/subdomain", "acme-2.hub.test", "", "LOC_a"),
        ("/subdomain", "off.hub.test", "", UNKNOWN),
        ("/subdomain", "nobody.hub.test", "", UNKNOWN),
        ("/subdomain", "hub.test", "", MISSING),
        ("/subdomain", "acme.other.test", "", MISSING),
        ("/subdomain", "acmehub.test", "", MISSING),
        ("/subdomain", "acme.hub.test.evil.test", "", MISSING),
        ("/subdomain", "oak.acme.hub.test", "", MALFORMED),
        // An id is no slug, and what is not a source of the route is not passed on.
        (
            "/subdomain",
            "acme.hub.test",
            "X-Location-Id: loc_B\r\n",
            "loc_A",
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_query_names_the_tenant_in_exactly_one_spelling() {
    assert_outcomes(&[
        ("/query?location_id=loc_A", "a.test", "", "loc_A"),
        ("/query?x=1&location_id=loc_B&y=2", "a.test", "", "loc_B"),
        ("/query", "a.test", "", MISSING),
        ("/query?x=location_id", "a.test", "", MISSING),
        ("/query?location_id=loc_C", "a.test", "", UNKNOWN),
        ("/query?location_id=loc_off", "a.test", "", UNKNOWN),
        ("/query?location_id=", "a.test", "", MALFORMED),
        ("/query?location_id", "a.test", "", MALFORMED),
        ("/query?location_id=loc_%41", "a.test", "", MALFORMED),
        (
            "/query?location_id=loc_A&location_id=loc_A",
            "a.test",
            "",
            MALFORMED,
        ),
        (
            "/query?location_id=loc_A&Location_Id=loc_B",
            "a.test",
            "",
            MALFORMED,
        ),
        (
            "/query?location_id=loc_A;location_id=loc_B",
            "a.test",
            "",
            MALFORMED,
        ),
        ("/query?location%5fid=loc_A", "a.test", "", MALFORMED),
        ("/query?location_id%5B%5D=loc_A", "a.test", "", MALFORMED),
        ("/query?location-id=loc_A", "a.test", "", MALFORMED),
    ])
    .await;
}

#[tokio::test]
async fn the_path_names_the_tenant_only_where_everybody_reads_it_alike() {
    assert_outcomes(&[
        ("/path/loc_A/contacts", "a.test", "", "loc_A"),
        ("/path/loc_B/contacts/1?x=1", "a.test", "", "loc_B"),
        ("/path/loc_off/contacts", "a.test", "", UNKNOWN),
        ("/path/loc_C/contacts", "a.test", "", UNKNOWN),
        ("/path/loc_%41/contacts", "a.test", "", MALFORMED),
        ("/path/./loc_A/contacts", "a.test", "", MALFORMED),
        (
            "/path/loc_B/../loc_A/contacts",
            "a.test",
            "",
            "400 bad_path",
        ),
        ("/x/../path/loc_A/contacts", "a.test", "", "400 bad_path"),
        ("/path/loc_A;b/contacts", "a.test", "", MALFORMED),
        (
            "/path/loc_A/contacts/../../loc_B/x",
            "a.test",
            "",
            "400 bad_path",
        ),
        ("/path/loc_A%2fcontacts/x", "a.test", "", "400 bad_path"),
    ])
    .await;
}

#[tokio::test]
async fn sources_that_disagree_are_refused_and_those_that_agree_are_one() {
    assert_outcomes(&[
        (
            "/every/loc_A/x?location_id=loc_A",
            "acme.hub.test",
            "X-Location-Id: loc_A\r\n",
            "loc_A",
        ),
        (
            "/every/loc_A/x",
            "a.test",
            "X-Location-Id: loc_B\r\n",
            MISMATCH,
        ),
        ("/every/loc_A/x", "oak.hub.test", "", MISMATCH),
        ("/every/loc_A/x?location_id=loc_B", "a.test", "", MISMATCH),
        (
            "/every/loc_A/x",
            "a.test",
            "X-Location-Id: LOC_a\r\n",
            MISMATCH,
        ),
        // One that exists and one that does not, or is disabled: not told apart.
        ("/every/loc_A/x", "nobody.hub.test", "", MISMATCH),
        ("/every/loc_A/x", "off.hub.test", "", MISMATCH),
        // Malformed comes before disagreement.
        (
            "/every/loc_A/x?location_id=*",
            "oak.hub.test",
            "",
            MALFORMED,
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_route_without_a_tenant_tells_the_origin_none() {
    assert_outcomes(&[
        ("/", "a.test", "X-Location-Id: loc_A\r\n", "-"),
        (
            "/",
            "a.test",
            "Connection: close, X-Location-Id\r\nX-Location-Id: loc_A\r\n",
            "-",
        ),
        ("/optional", "a.test", "", "-"),
        ("/optional", "a.test", "X-Location-Id: loc_B\r\n", "loc_B"),
        (
            "/optional",
            "a.test",
            "Connection: keep-alive, X-Location-Id\r\nX-Location-Id: loc_B\r\n",
            "loc_B",
        ),
        ("/optional", "a.test", "X-Location-Id: loc_C\r\n", UNKNOWN),
    ])
    .await;
}

#[tokio::test]
async fn a_credential_speaks_for_its_own_tenant_and_no_other() {
    assert_outcomes(&[
        ("/login", "a.test", "X-Api-Key: key-of-a\r\n", "loc_A"),
        (
            "/login",
            "a.test",
            "X-Api-Key: key-of-a\r\nX-Location-Id: loc_A\r\n",
            "loc_A",
        ),
        // Foreign, unknown and disabled look alike to whoever has a key.
        (
            "/login",
            "a.test",
            "X-Api-Key: key-of-a\r\nX-Location-Id: loc_B\r\n",
            MISMATCH,
        ),
        (
            "/login",
            "a.test",
            "X-Api-Key: key-of-a\r\nX-Location-Id: loc_C\r\n",
            MISMATCH,
        ),
        (
            "/login",
            "a.test",
            "X-Api-Key: key-of-a\r\nX-Location-Id: loc_off\r\n",
            MISMATCH,
        ),
        (
            "/login",
            "a.test",
            "X-Api-Key: key-of-nobody\r\nX-Location-Id: loc_A\r\n",
            MISMATCH,
        ),
        (
            "/login",
            "a.test",
            "X-Api-Key: key-of-nobody\r\nX-Location-Id: loc_C\r\n",
            MISMATCH,
        ),
        ("/login", "a.test", "X-Api-Key: key-of-nobody\r\n", MISSING),
        ("/login", "a.test", "X-Api-Key: key-of-off\r\n", UNKNOWN),
        // Without a valid credential nothing is said of any tenant.
        (
            "/login",
            "a.test",
            "X-Location-Id: loc_A\r\n",
            "401 unauthenticated",
        ),
        (
            "/login",
            "a.test",
            "X-Api-Key: guess\r\nX-Location-Id: loc_C\r\n",
            "401 unauthenticated",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_disabled_tenant_is_answered_like_one_that_does_not_exist() {
    let origin = Origin::start().await;
    let hub = start(&origin).await;
    let mut answers = Vec::new();
    for id in ["loc_off", "loc_no_such"] {
        let mut wire = Wire::connect(hub.addr("public")).await;
        wire.send(format!(
            "GET /header HTTP/1.1\r\nHost: a.test\r\nX-Location-Id: {id}\r\n\r\n"
        ))
        .await;
        let mut answer = wire.read_response().await;
        // All but what differs between any two requests.
        answer
            .headers
            .retain(|(name, _)| !["date", "x-request-id"].contains(&&*name.to_lowercase()));
        let mut json = answer.json();
        json["error"]["request_id"] = "".into();
        answers.push((answer.status, answer.headers, json));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn a_disagreement_is_told_to_the_log_and_not_to_the_client() {
    let origin = Origin::start().await;
    let hub = start(&origin).await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send("GET /every/loc_A/x HTTP/1.1\r\nHost: a.test\r\nX-Location-Id: loc_B\r\n\r\n")
        .await;
    let answer = wire.read_response().await;
    assert!(!answer.text().contains("loc_"), "{}", answer.text());
    let line = hub.wait_for_access_log(1).await.remove(0);
    assert_eq!(line["reason"], "tenant_mismatch");
    assert_eq!(line["tenant"], serde_json::Value::Null);
    let detail = line["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("loc_A") && detail.contains("loc_B"),
        "{detail}"
    );
    hub.wait_for_metric(
        "hub_refusals_total",
        &[("reason", "tenant_mismatch")],
        |count| count == 1.0,
    )
    .await;
}

// Generated requests. The generator knows what each spelling means; the oracle judges meanings and
// never looks at bytes.

/// What one place of a request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Nothing,
    /// This tenant, in a spelling that every reader reads alike.
    Tenant(&'static str),
    /// Something that a reader might take for a tenant, and none should.
    Doubtful,
}

const IDS: &[&str] = &[
    "loc_A", "loc_B", "LOC_a", "loc_off", "loc_none", "acme", "loc_A-",
];
/// A slug and whom it names. The slug of a disabled tenant agrees with no id, its own included: an
/// agreement would tell whose slug it is.
const SLUGS: &[(&str, &str)] = &[
    ("acme", "loc_A"),
    ("oak", "loc_B"),
    ("acme-2", "LOC_a"),
    ("off", "slug:off"),
    ("nobody", "slug:nobody"),
];
const SERVED: &[&str] = &["loc_A", "loc_B", "LOC_a"];

fn id(rng: &mut StdRng) -> &'static str {
    // Mostly few, so that sources agree often enough.
    match rng.random_bool(0.8) {
        true => IDS[rng.random_range(0..2)],
        false => IDS.choose(rng).expect("there are ids"),
    }
}

fn any_case(rng: &mut StdRng, text: &str) -> String {
    text.chars()
        .map(|c| match rng.random_bool(0.5) {
            true => c.to_ascii_uppercase(),
            false => c.to_ascii_lowercase(),
        })
        .collect()
}

/// An id spelt so that it is none.
fn spoilt(rng: &mut StdRng, id: &str) -> String {
    match rng.random_range(0..7) {
        0 => String::new(),
        1 => format!("{id}%20"),
        2 => format!("%{:02x}{}", id.as_bytes()[0], &id[1..]),
        3 => format!("{id},loc_B"),
        4 => format!("{id}.{id}"),
        5 => format!("{id}~"),
        _ => id.repeat(65),
    }
}

fn header(rng: &mut StdRng) -> (String, Says) {
    let name = any_case(rng, "X-Location-Id");
    let id = id(rng);
    match rng.random_range(0..12) {
        0..=3 => (String::new(), Says::Nothing),
        4..=7 => {
            let space = ["", " ", "  ", "\t"].choose(rng).expect("not empty");
            (format!("{name}:{space}{id}{space}\r\n"), Says::Tenant(id))
        }
        8 => (format!("{name}: {}\r\n", spoilt(rng, id)), Says::Doubtful),
        9 => (
            format!("{name}: {id}\r\nx-location-id: {id}\r\n"),
            Says::Doubtful,
        ),
        10 => (
            format!("{name}: {id}\r\nX_Location_Id: loc_B\r\n"),
            Says::Doubtful,
        ),
        // Names that are not the header's, and do not look like it.
        _ => (
            format!("X-Location: {id}\r\nLocation-Id: {id}\r\nX-Location-Id-2: {id}\r\n"),
            Says::Nothing,
        ),
    }
}

fn query(rng: &mut StdRng) -> (String, Says) {
    let id = id(rng);
    match rng.random_range(0..12) {
        0..=3 => (String::new(), Says::Nothing),
        4..=6 => (format!("?location_id={id}"), Says::Tenant(id)),
        7 => (format!("?a=1&location_id={id}&b=2"), Says::Tenant(id)),
        8 => (format!("?location_id={}", spoilt(rng, id)), Says::Doubtful),
        9 => (
            format!("?location_id={id}&location_id={id}"),
            Says::Doubtful,
        ),
        10 => {
            let key = [
                "LOCATION_ID",
                "location%5Fid",
                "location_id[]",
                "location-id",
                "+location_id",
            ];
            (
                // Square brackets are escaped, since they may not stand in a query as they are.
                format!("?{}={id}", key.choose(rng).expect("not empty")).replace("[]", "%5B%5D"),
                Says::Doubtful,
            )
        }
        _ => (
            format!("?location={id}&id={id}&xlocation_id={id}"),
            Says::Nothing,
        ),
    }
}

fn host(rng: &mut StdRng) -> (String, Says) {
    let (slug, means) = *SLUGS.choose(rng).expect("there are slugs");
    match rng.random_range(0..10) {
        0..=4 => ("a.test".into(), Says::Nothing),
        5..=7 => (
            any_case(rng, &format!("{slug}.hub.test")),
            Says::Tenant(means),
        ),
        8 => (format!("x.{slug}.hub.test"), Says::Doubtful),
        _ => (format!("{slug}.hub.test.evil.test"), Says::Nothing),
    }
}

fn segment(rng: &mut StdRng) -> (String, Says) {
    let id = id(rng);
    match rng.random_range(0..10) {
        0 => (
            format!("%{:02x}{}", id.as_bytes()[0], &id[1..]),
            Says::Doubtful,
        ),
        1 => (format!("loc_x/../{id}"), Says::Doubtful),
        2 => (format!("{id}~"), Says::Doubtful),
        _ => (id.into(), Says::Tenant(id)),
    }
}

/// The tenant that a request of these places is for, or the status of its refusal.
fn oracle(says: &[Says], required: bool) -> Result<Option<&'static str>, u16> {
    if says.contains(&Says::Doubtful) {
        return Err(400);
    }
    let mut named: Vec<&'static str> = says
        .iter()
        .filter_map(|says| match says {
            Says::Tenant(id) => Some(*id),
            Says::Nothing | Says::Doubtful => None,
        })
        .collect();
    named.sort_unstable();
    named.dedup();
    match named[..] {
        [] if required => Err(400),
        [] => Ok(None),
        [one] if SERVED.contains(&one) => Ok(Some(one)),
        [_] => Err(404),
        _ => Err(403),
    }
}

#[tokio::test]
async fn generated_requests_reach_the_origin_as_their_own_tenant_or_not_at_all() {
    const REQUESTS: usize = 3_000;
    let (mut rng, seed) = samples::rng();
    let origin = Origin::start().await;
    let hub = start(&origin).await;
    let mut wire = Wire::connect(hub.addr("public")).await;
    let (mut served, mut nobody, mut refused, mut leaks) = (0, 0, [0_usize; 4], Vec::new());
    for number in 0..REQUESTS {
        let (host, in_host) = host(&mut rng);
        let (headers, in_header) = header(&mut rng);
        let (query, in_query) = query(&mut rng);
        let (segment, in_path) = segment(&mut rng);
        let key = KEYS.choose(&mut rng).expect("there are keys");
        let (path, places, required, key) = match rng.random_range(0..9) {
            0 => ("/header".into(), vec![in_header], true, None),
            1 => ("/subdomain".into(), vec![in_host], true, None),
            2 => ("/query".into(), vec![in_query], true, None),
            3 => (format!("/path/{segment}/x"), vec![in_path], true, None),
            4 => ("/optional".into(), vec![in_header], false, None),
            5 => ("/".into(), vec![], false, None),
            6 => {
                let of_key = key.1.map_or(Says::Nothing, Says::Tenant);
                ("/login".into(), vec![of_key, in_header], true, Some(key))
            }
            _ => (
                format!("/every/{segment}/x"),
                vec![in_host, in_header, in_query, in_path],
                true,
                None,
            ),
        };
        let expected = match (oracle(&places, required), key) {
            // What a key without a tenant is told, whoever it names.
            (Ok(Some(_)) | Err(404), Some((_, None))) => Err(403),
            // A look-alike of the header is refused on every route.
            (_, _) if headers.contains('_') && headers.contains("X_Location") => Err(400),
            (expected, _) => expected,
        };
        let credential = key.map_or(String::new(), |(key, _)| format!("X-Api-Key: {key}\r\n"));
        let text = format!(
            "GET {path}{query} HTTP/1.1\r\nHost: {host}\r\nX-Case: {number}\r\n{credential}{headers}\r\n"
        );
        wire.send(&text).await;
        let answer = wire.read_response().await;
        let got = outcome(&answer);
        let wanted = match expected {
            Ok(tenant) => tenant.unwrap_or("-").to_owned(),
            Err(status) => status.to_string(),
        };
        let same = match expected {
            Ok(_) => got == wanted && answer.text().contains(&format!("\"{number}\"")),
            Err(status) => answer.status == status,
        };
        if answer.status == 200 && !same {
            leaks.push(format!("{text:?}: {got} instead of {wanted}"));
        }
        assert!(
            same || answer.status == 200,
            "seed {seed}: {text:?} from {places:?}: {got} instead of {wanted}"
        );
        match expected {
            Ok(Some(_)) => served += 1,
            Ok(None) => nobody += 1,
            Err(status) => {
                refused[match status {
                    400 => 0,
                    403 => 1,
                    404 => 2,
                    _ => 3,
                }] += 1
            }
        }
        if answer.header("connection") == Some("close") {
            wire = Wire::connect(hub.addr("public")).await;
        }
    }
    println!(
        "{REQUESTS} requests: {served} for a tenant, {nobody} for none, refused {} (400), {} (403), {} (404); {} leaks",
        refused[0],
        refused[1],
        refused[2],
        leaks.len()
    );
    assert!(leaks.is_empty(), "seed {seed}: {leaks:#?}");
    assert_eq!(origin.request_count(), served + nobody);
    assert!(served > REQUESTS / 10 && refused[..3].iter().all(|count| *count > 20));
}
