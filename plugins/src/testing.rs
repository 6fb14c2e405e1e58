//! What the tests of every plugin need: a request, and a way to build an instance from settings.

use crate::{Catalog, Plugin, PluginContext, Scope, Settings, Verdict};
use hub_config::PluginCatalog;
use hub_core::{
    Client, Edits, HeaderField, Headers, Method, RequestId, RequestView, Scheme, Version,
};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The time at which the requests of tests arrive, in seconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000;

/// 64 bytes, enough for every HMAC. It must turn up in no output at all.
pub(crate) const SECRET: &str = "canary-secret-0123456789-0123456789-0123456789-0123456789-abcdef";

#[derive(Clone, Debug)]
pub(crate) struct Request {
    headers: Vec<(String, Vec<u8>)>,
    query: Option<String>,
    host: String,
    now: u64,
}

impl Request {
    pub(crate) fn new() -> Self {
        Self {
            headers: Vec::new(),
            query: None,
            host: "api.example.com".into(),
            now: NOW,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().into()));
        self
    }

    pub(crate) fn query(mut self, query: &str) -> Self {
        self.query = Some(query.into());
        self
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    pub(crate) fn at(mut self, now: u64) -> Self {
        self.now = now;
        self
    }

    pub(crate) fn run(&self, plugin: &dyn Plugin) -> (Verdict, Edits) {
        let fields: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| HeaderField {
                name: name.as_bytes(),
                value,
            })
            .collect();
        let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
        let client = Client {
            address,
            peer: SocketAddr::new(address, 4711),
        };
        let view = RequestView {
            method: &Method::GET,
            version: Version::Http11,
            scheme: Scheme::Https,
            host: &self.host,
            path: "/",
            path_raw: "/",
            query: self.query.as_deref(),
            headers: Headers::new(&fields),
            client: &client,
            request_id: &RequestId::new(0, [0; 10]),
        };
        let mut edits = Edits::default();
        let mut context = PluginContext {
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(self.now),
            identity: None,
            edits: &mut edits,
        };
        let verdict = plugin.on_request(&view, &mut context);
        (verdict, edits)
    }

    pub(crate) fn verdict(&self, plugin: &dyn Plugin) -> Verdict {
        self.run(plugin).0
    }
}

/// Relative paths start at the crate; the environment has one variable, `TEST_SECRET`.
pub(crate) fn catalog() -> Catalog {
    Catalog::new(env!("CARGO_MANIFEST_DIR"))
        .with_env(|name| (name == "TEST_SECRET").then(|| SECRET.into()))
}

pub(crate) fn build(kind: &str, config: Value) -> Arc<dyn Plugin> {
    let config = config.as_object().expect("settings are a table");
    match catalog().build(kind, "test", config, None) {
        Ok(built) => {
            catalog().settle(&[&built], &[], Duration::from_secs(2));
            Catalog::instance(&built)
        }
        Err(problems) => panic!("{kind}: {problems:?}"),
    }
}

/// The same for a kind by its settings, registered or not.
pub(crate) fn make<S: Settings>(config: Value) -> Arc<dyn Plugin> {
    let scope = Scope::new(Path::new(env!("CARGO_MANIFEST_DIR")), |_| None);
    let config = config.as_object().expect("settings are a table");
    match crate::registry::build::<S>("test", config, scope) {
        Ok((plugin, _)) => plugin,
        Err(problems) => panic!("{problems:?}"),
    }
}

/// The key paths of what is wrong with these settings.
pub(crate) fn problems_of(kind: &str, config: Value) -> Vec<String> {
    let config = config.as_object().expect("settings are a table");
    match catalog().build(kind, "test", config, None) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(|problem| problem.at).collect(),
    }
}
