use super::*;
use crate::router::Router;
use crate::router::testing::Request;
use crate::stages::route;
use hub_config::runtime;
use hub_core::{Edits, IdentityMethod, LocationId};
use std::path::Path;

const TENANTS: &str = r#"
[[tenant]]
id = "loc_A"
slug = "acme"
[[tenant]]
id = "LOC_A"
[[tenant]]
id = "loc_B"
slug = "bolt"
[[tenant]]
id = "acme"
slug = "zeta"
[[tenant]]
id = "loc_D"
slug = "dead"
enabled = false
"#;

/// A gateway with one route.
struct Gateway {
    config: runtime::Config,
    router: Router,
}

/// Whose the request proved to be: nobody's, somebody's, or a tenant's.
type Proof<'p> = Option<Option<&'p str>>;

impl Gateway {
    /// A route without a credential.
    fn open(rule: &str) -> Self {
        Self::new(rule, "")
    }

    /// A route with one.
    fn authenticated(rule: &str) -> Self {
        Self::new(rule, "plugins = [\"login\"]")
    }

    fn new(rule: &str, plugins: &str) -> Self {
        let text = format!(
            r#"
[[listener]]
name = "http"
address = "127.0.0.1:0"
[[cluster]]
name = "app"
endpoints = {{ blue = ["127.0.0.1:1"] }}
[[plugin]]
name = "login"
kind = "api_key"
config = {{ keys = [{{ name = "somebody", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }}] }}
[[route]]
name = "r"
path = {{ template = "/l/{{location_id}}/x" }}
cluster = "app"
{plugins}
[route.tenant]
{rule}
{TENANTS}"#
        );
        let nowhere = Path::new("");
        let catalog = hub_plugins::Catalog::new("");
        let config = hub_config::load_str(&text, nowhere, nowhere, &catalog, &|_| None)
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        let router = Router::build(&config.routes);
        Self { config, router }
    }

    fn refusal(&self, request: &Request, proof: Proof<'_>) -> Result<Option<&str>, Refusal> {
        let identity = proof.map(|tenant| Identity {
            subject: "somebody".into(),
            tenant: tenant.map(|id| LocationId::parse(id.as_bytes()).expect("an id")),
            method: IdentityMethod::Jwt,
            expires: None,
        });
        request.with(|view| {
            let found = route::route(&self.router, view, &mut Edits::default())?;
            let route = &self.config.routes[found.route];
            let tenant = tenant(
                &self.config.tenants,
                route.tenant.as_ref().expect("the route has a rule"),
                &found,
                view,
                identity.as_ref(),
                !route.plugins.is_empty(),
            )?;
            Ok(tenant.map(|index| self.config.tenants[index].id.as_str()))
        })
    }

    fn ask(&self, request: &Request, proof: Proof<'_>) -> Result<Option<&str>, Reason> {
        self.refusal(request, proof)
            .map_err(|refusal| refusal.reason)
    }
}

const HEADER: &str = r#"sources = [{ header = "x-location-id" }]"#;
const ALL: &str = r#"sources = [{ header = "x-location-id" }, { subdomain = "hub.test" },
    { path = "location_id" }, { query = "location_id" }]"#;

/// A request that names no tenant to a route whose path is not a source.
fn plain() -> Request {
    Request::new("other.test", "/l/-/x")
}

fn with_header(value: &str) -> Request {
    plain().header("X-Location-Id", value)
}

#[test]
fn a_tenant_is_found_by_each_source() {
    let ask = |rule: &str, request: Request| {
        let gateway = Gateway::open(&format!("sources = [{rule}]"));
        assert_eq!(gateway.ask(&request, None), Ok(Some("loc_A")), "{rule}");
    };
    ask(r#"{ header = "x-location-id" }"#, with_header("loc_A"));
    ask(
        r#"{ subdomain = "hub.test" }"#,
        Request::new("acme.hub.test", "/l/-/x"),
    );
    ask(
        r#"{ path = "location_id" }"#,
        Request::new("h", "/l/loc_A/x"),
    );
    ask(
        r#"{ query = "location_id" }"#,
        plain().query("a=b&location_id=loc_A"),
    );
}

#[test]
fn sources_that_agree_are_one_tenant_and_others_are_refused() {
    let gateway = Gateway::open(ALL);
    let agree = |host: &str, path: &str, query: &str| {
        let request = Request::new(host, path)
            .query(query)
            .header("x-location-id", "loc_A");
        gateway.ask(&request, None)
    };
    assert_eq!(
        agree("acme.hub.test", "/l/loc_A/x", "location_id=loc_A"),
        Ok(Some("loc_A"))
    );
    for (host, path, query) in [
        ("bolt.hub.test", "/l/loc_A/x", "location_id=loc_A"),
        ("none.hub.test", "/l/loc_A/x", "location_id=loc_A"),
        ("dead.hub.test", "/l/loc_A/x", "location_id=loc_A"),
        // A slug that is another tenant's id stays a slug.
        ("zeta.hub.test", "/l/loc_A/x", "location_id=loc_A"),
        ("acme.hub.test", "/l/LOC_A/x", "location_id=loc_A"),
        ("acme.hub.test", "/l/loc_A/x", "location_id=acme"),
        ("acme.hub.test", "/l/loc_A/x", "location_id=unknown"),
    ] {
        let verdict = agree(host, path, query);
        assert_eq!(
            verdict,
            Err(Reason::TenantMismatch),
            "{host} {path} {query}"
        );
    }
}

#[test]
fn a_source_that_the_route_does_not_list_names_nothing() {
    let gateway = Gateway::open(HEADER);
    let request = Request::new("bolt.hub.test", "/l/loc_B/x").query("location_id=loc_B");
    assert_eq!(gateway.ask(&request, None), Err(Reason::TenantMissing));
    let request = request.header("x-location-id", "loc_A");
    assert_eq!(gateway.ask(&request, None), Ok(Some("loc_A")));
}

#[test]
fn a_malformed_id_is_refused_in_every_spelling() {
    let gateway = Gateway::open(HEADER);
    let long = "a".repeat(10 << 10);
    for value in [
        "",
        "loc%5FA",
        "loc_A,loc_B",
        "loc_A loc_B",
        "loc_Α",
        "ｌoc_A",
        "*",
        "loc_A\0",
        "\"loc_A\"",
        &long,
        "../loc_A",
        "loc_A;",
        "loc.A",
    ] {
        let verdict = gateway.ask(&with_header(value), None);
        assert_eq!(verdict, Err(Reason::TenantMalformed), "{value:?}");
    }
}

#[test]
fn ids_keep_their_case() {
    let gateway = Gateway::open(HEADER);
    assert_eq!(gateway.ask(&with_header("LOC_A"), None), Ok(Some("LOC_A")));
    assert_eq!(
        gateway.ask(&with_header("Loc_A"), None),
        Err(Reason::TenantUnknown)
    );
}

#[test]
fn a_second_or_look_alike_header_is_malformed_even_where_it_agrees() {
    let gateway = Gateway::open(HEADER);
    for name in [
        "x-location-id",
        "X-LOCATION-ID",
        "X_Location_Id",
        "x.location.id",
        "x-location_id",
    ] {
        let request = with_header("loc_A").header(name, "loc_A");
        assert_eq!(
            gateway.ask(&request, None),
            Err(Reason::TenantMalformed),
            "{name}"
        );
    }
    let alone = plain().header("X_Location_Id", "loc_A");
    assert_eq!(gateway.ask(&alone, None), Err(Reason::TenantMalformed));
    let other = with_header("loc_A").header("x-location-ie", "loc_B");
    assert_eq!(gateway.ask(&other, None), Ok(Some("loc_A")));
}

#[test]
fn a_subdomain_is_one_label_that_is_a_slug() {
    let gateway = Gateway::open(r#"sources = [{ subdomain = "hub.test" }]"#);
    for (host, verdict) in [
        ("acme.hub.test", Ok(Some("loc_A"))),
        ("hub.test", Err(Reason::TenantMissing)),
        ("acmehub.test", Err(Reason::TenantMissing)),
        ("acme.hub.test.evil.test", Err(Reason::TenantMissing)),
        ("a.acme.hub.test", Err(Reason::TenantMalformed)),
        ("acme.a.hub.test", Err(Reason::TenantMalformed)),
        ("my_app.hub.test", Err(Reason::TenantMalformed)),
        (".hub.test", Err(Reason::TenantMalformed)),
        ("-.hub.test", Err(Reason::TenantMalformed)),
        ("none.hub.test", Err(Reason::TenantUnknown)),
        ("dead.hub.test", Err(Reason::TenantUnknown)),
    ] {
        assert_eq!(
            gateway.ask(&Request::new(host, "/l/-/x"), None),
            verdict,
            "{host}"
        );
    }
}

#[test]
fn a_path_that_was_rewritten_up_to_the_tenant_is_malformed() {
    let gateway = Gateway::open(r#"sources = [{ path = "location_id" }]"#);
    let ask = |raw: &str| gateway.ask(&Request::new("h", "/l/loc_A/x").raw(raw), None);
    for raw in [
        "/l/loc%5FA/x",
        "/%6c/loc_A/x",
        "/l/./loc_A/x",
        "/l//loc_A/x",
        "/l/loc_B/../loc_A/x",
        "//l/loc_A/x",
        "/l/loc_A%2e/../loc_A/x",
    ] {
        assert_eq!(ask(raw), Err(Reason::TenantMalformed), "{raw}");
    }
    for raw in ["/l/loc_A/x", "/l/loc_A/%78", "/l/loc_A/./x", "/l/loc_A//x"] {
        assert_eq!(ask(raw), Ok(Some("loc_A")), "{raw}");
    }
}

#[test]
fn a_query_value_is_taken_raw_once_and_under_its_exact_name() {
    let gateway = Gateway::open(r#"sources = [{ query = "location_id" }]"#);
    for query in [
        "location_id=loc%5FA",
        "location_id=",
        "location_id",
        "location_id=loc_A&location_id=loc_A",
        "location_id=loc_A&Location_Id=loc_B",
        "location%5Fid=loc_A",
        "location_id[]=loc_A",
        "a=b;location_id=loc_A",
        "location_id=loc_A+",
    ] {
        let verdict = gateway.ask(&plain().query(query), None);
        assert_eq!(verdict, Err(Reason::TenantMalformed), "{query}");
    }
    assert_eq!(
        gateway.ask(&plain().query("a=loc_A"), None),
        Err(Reason::TenantMissing)
    );
}

#[test]
fn malformed_is_told_before_a_disagreement() {
    let gateway = Gateway::authenticated(&format!("{ALL}\nfrom_credential = false"));
    let request = Request::new("other.test", "/l/loc_B/x").query("location_id=%");
    assert_eq!(
        gateway.ask(&request, Some(Some("loc_A"))),
        Err(Reason::TenantMalformed)
    );
}

#[test]
fn a_credential_meets_one_answer_for_every_tenant_but_its_own() {
    for rule in [
        HEADER.to_owned(),
        format!("{HEADER}\nfrom_credential = false"),
    ] {
        let gateway = Gateway::authenticated(&rule);
        let ask = |value: &str| gateway.ask(&with_header(value), Some(Some("loc_A")));
        assert_eq!(ask("loc_A"), Ok(Some("loc_A")));
        // Foreign, unknown, disabled, and another spelling.
        for value in ["loc_B", "loc_C", "loc_D", "LOC_A", "Loc_A"] {
            assert_eq!(ask(value), Err(Reason::TenantMismatch), "{value}");
        }
    }
}

#[test]
fn the_credentials_tenant_counts_where_the_route_does_not_list_it() {
    let gateway = Gateway::authenticated(&format!("{HEADER}\nfrom_credential = false"));
    assert_eq!(
        gateway.ask(&plain(), Some(Some("loc_A"))),
        Ok(Some("loc_A"))
    );
    assert_eq!(
        gateway.ask(&plain(), Some(Some("loc_D"))),
        Err(Reason::TenantUnknown)
    );
    assert_eq!(
        gateway.ask(&plain(), Some(Some("loc_C"))),
        Err(Reason::TenantUnknown)
    );
}

#[test]
fn where_only_the_credential_counts_nothing_else_names_a_tenant() {
    let gateway = Gateway::authenticated(HEADER);
    for proof in [None, Some(None)] {
        for value in ["loc_A", "loc_C", "loc_D"] {
            let verdict = gateway.ask(&with_header(value), proof);
            assert_eq!(verdict, Err(Reason::TenantMismatch), "{value}");
        }
        assert_eq!(gateway.ask(&plain(), proof), Err(Reason::TenantMissing));
    }
}

#[test]
fn a_credential_without_a_tenant_may_name_one_but_not_probe_for_them() {
    let gateway = Gateway::authenticated(&format!("{HEADER}\nfrom_credential = false"));
    assert_eq!(
        gateway.ask(&with_header("loc_B"), Some(None)),
        Ok(Some("loc_B"))
    );
    for value in ["loc_C", "loc_D"] {
        assert_eq!(
            gateway.ask(&with_header(value), Some(None)),
            Err(Reason::TenantMismatch)
        );
    }
}

#[test]
fn a_disabled_tenant_answers_as_an_unknown_one() {
    let gateway = Gateway::open(ALL);
    let ask = |id: &str, slug: &str| {
        let request = Request::new(&format!("{slug}.hub.test"), &format!("/l/{id}/x"));
        gateway.ask(&request, None)
    };
    // Even one who knows the pair of id and slug learns nothing.
    assert_eq!(ask("loc_D", "dead"), ask("loc_C", "none"));
    assert_eq!(ask("loc_D", "acme"), ask("loc_C", "acme"));
    let header = Gateway::open(HEADER);
    assert_eq!(
        header.ask(&with_header("loc_D"), None),
        Err(Reason::TenantUnknown)
    );
    assert_eq!(
        header.ask(&with_header("loc_C"), None),
        Err(Reason::TenantUnknown)
    );
}

#[test]
fn a_tenant_that_is_not_required_may_be_left_out_but_not_be_wrong() {
    let gateway = Gateway::open(&format!("{HEADER}\nrequired = false"));
    assert_eq!(gateway.ask(&plain(), None), Ok(None));
    assert_eq!(gateway.ask(&with_header("loc_A"), None), Ok(Some("loc_A")));
    assert_eq!(
        gateway.ask(&with_header("loc_C"), None),
        Err(Reason::TenantUnknown)
    );
    assert_eq!(
        gateway.ask(&with_header(""), None),
        Err(Reason::TenantMalformed)
    );
}

#[test]
fn the_log_learns_who_named_whom() {
    let gateway = Gateway::authenticated(HEADER);
    let refusal = gateway.refusal(&with_header("loc_B"), Some(Some("loc_A")));
    let detail = refusal.expect_err("a foreign tenant").detail;
    assert_eq!(
        detail.as_deref(),
        Some("credential names \"loc_A\", header names \"loc_B\"")
    );
}
