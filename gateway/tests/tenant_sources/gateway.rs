//! The gateway's route and tenant stages, with a route for every combination of sources.

use crate::generate::Request;
use crate::oracle::{TENANTS, Verdict};
use hub_config::runtime;
use hub_core::{
    Client, Edits, HeaderField, Headers, Identity, IdentityMethod, LocationId, Method, Refusal,
    RequestId, RequestView, Scheme, Version,
};
use hub_gateway::router::Router;
use hub_gateway::stages::{route, tenant};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

/// What an operator writes of a tenant rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    pub(crate) credential: bool,
    pub(crate) header: bool,
    pub(crate) second_header: bool,
    pub(crate) subdomain: bool,
    pub(crate) path: bool,
    pub(crate) query: bool,
    pub(crate) required: bool,
    /// The route has a plugin that identifies.
    pub(crate) authenticated: bool,
    pub(crate) from_credential: bool,
}

pub(crate) struct Gateway {
    rules: Vec<Rule>,
    config: runtime::Config,
    router: Router,
}

impl Gateway {
    pub(crate) fn new() -> Self {
        let rules = all_rules();
        let nowhere = Path::new("");
        let catalog = hub_plugins::Catalog::new("");
        let config = hub_config::load_str(&toml(&rules), nowhere, nowhere, &catalog, &|_| None)
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        let router = Router::build(&config.routes);
        Self {
            rules,
            config,
            router,
        }
    }

    /// Route `/r0/...` has the first rule, and so on.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub(crate) fn ask(&self, request: &Request) -> Verdict {
        let fields: Vec<HeaderField<'_>> = request
            .headers
            .iter()
            .map(|(name, value)| HeaderField {
                name: name.as_bytes(),
                value,
            })
            .collect();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let view = RequestView {
            method: &Method::GET,
            version: Version::Http11,
            scheme: Scheme::Http,
            host: &request.host,
            path: &request.path,
            path_raw: &request.path_raw,
            query: request.query.as_deref(),
            headers: Headers::new(&fields),
            client: &Client {
                address: peer.ip(),
                peer,
            },
            request_id: &RequestId::new(0, [0; 10]),
        };
        let identity = request.identity.as_ref().map(|tenant| Identity {
            subject: "somebody".into(),
            tenant: tenant
                .as_ref()
                .map(|id| LocationId::parse(id.as_bytes()).expect("credentials carry ids")),
            method: IdentityMethod::Jwt,
            expires: None,
        });
        match self.stages(&view, identity.as_ref()) {
            Ok(Some(id)) => Verdict::Tenant(id),
            Ok(None) => Verdict::Nobody,
            Err(refusal) => Verdict::Refused(refusal.reason.code()),
        }
    }

    fn stages(
        &self,
        view: &RequestView<'_>,
        identity: Option<&Identity>,
    ) -> Result<Option<String>, Refusal> {
        let found = route::route(&self.router, view, &mut Edits::default())?;
        let route = &self.config.routes[found.route];
        let tenant = tenant::tenant(
            &self.config.tenants,
            route.tenant.as_ref().expect("every route has a rule"),
            &found,
            view,
            identity,
            !route.plugins.is_empty(),
        )?;
        Ok(tenant.map(|index| self.config.tenants[index].id.to_string()))
    }
}

/// Every set of sources, required or not, on open routes, on authenticated ones, and on those where the
/// credential alone names the tenant.
fn all_rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for bits in 0..256_u32 {
        let bit = |at: u32| bits >> at & 1 == 1;
        for from_credential in [false, true] {
            let rule = Rule {
                credential: bit(0),
                header: bit(1),
                second_header: bit(2),
                subdomain: bit(3),
                path: bit(4),
                query: bit(5),
                required: bit(6),
                authenticated: bit(7),
                from_credential,
            };
            // The configuration's check refuses the rest.
            let no_source = bits & 0b11_1111 == 0;
            let needs_plugin = rule.credential || rule.from_credential;
            if !no_source && (rule.authenticated || !needs_plugin) {
                rules.push(rule);
            }
        }
    }
    rules
}

fn toml(rules: &[Rule]) -> String {
    let mut text = String::from(
        r#"
[[listener]]
name = "http"
address = "127.0.0.1:0"
[[cluster]]
name = "app"
endpoints = { blue = ["127.0.0.1:1"] }
[[plugin]]
name = "login"
kind = "api_key"
config = { keys = [{ name = "somebody", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }] }
"#,
    );
    for (i, rule) in rules.iter().enumerate() {
        let sources = [
            (rule.query, r#"{ query = "location_id" }"#),
            (rule.path, r#"{ path = "location_id" }"#),
            (rule.subdomain, r#"{ subdomain = "hub.test" }"#),
            (rule.header, r#"{ header = "x-location-id" }"#),
            (rule.second_header, r#"{ header = "x-tenant" }"#),
            (rule.credential, r#""credential""#),
        ];
        let sources: Vec<&str> = sources
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, text)| *text)
            .collect();
        let plugins = if rule.authenticated {
            r#"["login"]"#
        } else {
            "[]"
        };
        write!(
            text,
            r#"
[[route]]
name = "r{i}"
path = {{ template = "/r{i}/l/{{location_id}}/x" }}
cluster = "app"
plugins = {plugins}
[route.tenant]
sources = [{}]
required = {}
from_credential = {}
"#,
            sources.join(", "),
            rule.required,
            rule.from_credential
        )
        .expect("a string takes all that is written");
    }
    for tenant in TENANTS {
        writeln!(
            text,
            "[[tenant]]\nid = {:?}\nenabled = {}",
            tenant.id, tenant.enabled
        )
        .expect("a string takes all that is written");
        if let Some(slug) = tenant.slug {
            writeln!(text, "slug = {slug:?}").expect("a string takes all that is written");
        }
    }
    text
}
