//! Settings of the kind `jwt`, and how they become a plugin.

use super::Jwt;
use super::cache::Cache;
use super::jwks::{self, DOCUMENT_BYTES_MAX, KEYS_MAX, KID_BYTES_MAX};
use super::keys::{self, Algorithm, CANDIDATES_MAX, KeySet, Material};
use super::source::{Origin, Source, Timing};
use crate::settings::{Scope, Settings};
use hub_config::runtime::is_link_local_or_unspecified;
use hub_config::{Secret, certificates};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// Settings of the kind `jwt`. Keys come from `keys`, from `jwks`, or both; at least one.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Keys from files and the environment, at most 100.
    pub keys: Vec<Key>,
    /// A key set from a file or a URL.
    pub jwks: Option<Jwks>,
    /// Accepted issuers (`iss`), letter for letter. Empty: any. Default empty.
    pub issuers: Vec<String>,
    /// Accepted audiences (`aud`), letter for letter; the token must name one of them. At least one,
    /// unless `any_audience`.
    pub audiences: Vec<String>,
    /// Accept tokens meant for anybody. Default false.
    pub any_audience: bool,
    /// Claim that holds the tenant's location id. A token without it names no tenant. Default
    /// `location_id`.
    pub tenant_claim: String,
    /// Difference of clocks that `exp`, `nbf` and `iat` are forgiven, in seconds; 0 to 300. Default 30.
    #[schemars(range(min = 0, max = 300))]
    pub leeway_seconds: u32,
    /// Longest token, in bytes; 256 to 65536. Default 8192.
    #[schemars(range(min = 256, max = 65536))]
    pub token_bytes_max: u32,
    /// Cookie that may hold the token beside `Authorization: Bearer`. Absent: none.
    pub cookie: Option<String>,
    /// Query parameter that may hold the token. It ends up in logs and histories: meant for clients
    /// that can set no header, such as a browser's WebSocket. Absent: none.
    pub query_parameter: Option<String>,
    /// Refuse requests without a token. Default true. A bad token is refused either way.
    pub required: bool,
    /// Good tokens that are remembered until they expire, so that one that comes again costs no
    /// signature check; 0 to 1000000, 0 for none. About 300 bytes each. Default 10000.
    #[schemars(range(min = 0, max = 1000000))]
    pub cache_entries: u32,
}

/// A key. Exactly one of `public_key_file`, `secret_file` and `secret_env`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The `kid` of its tokens, 1 to 256 bytes. Absent: it may check tokens of any `kid`.
    #[serde(default)]
    pub kid: Option<String>,
    /// The algorithms that it may be used with. At least one, and all must fit the key.
    pub algorithms: Vec<Algorithm>,
    /// PEM file of a public key (`-----BEGIN PUBLIC KEY-----`): RSA of 2048 to 8192 bits, P-256, P-384
    /// or Ed25519.
    #[serde(default)]
    pub public_key_file: Option<String>,
    /// File of an HMAC secret, a trailing newline ignored: at least 32 bytes for HS256, 48 for HS384,
    /// 64 for HS512.
    #[serde(default)]
    pub secret_file: Option<String>,
    /// Environment variable of an HMAC secret of the same lengths.
    #[serde(default)]
    pub secret_env: Option<String>,
}

/// A key set. Exactly one of `url` and `file`. Symmetric keys in it are refused.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwks {
    /// Where to fetch it: `https`, or `http` to a loopback address. At most 1 MiB and 100 keys; a fetch
    /// takes 5 seconds at most and follows no redirect. When a fetch fails the last good set stays.
    #[serde(default)]
    pub url: Option<String>,
    /// File to read it from. Its change causes a reload.
    #[serde(default)]
    pub file: Option<String>,
    /// Algorithms that its keys may be used with. A key that names one of its own is used with that one
    /// only; others with those of the list that fit them. Default: all asymmetric ones.
    #[serde(default = "Jwks::algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// PEM file of the authorities to trust for `url`. Absent: the system's.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// From one fetch to the next, in seconds, up to a tenth less by chance; 1 to 86400. Default 300.
    #[serde(default = "Jwks::refresh_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    pub refresh_seconds: u32,
    /// Least time to an early fetch, which a token with an unknown `kid` causes, in seconds; 1 to 86400.
    /// Default 30.
    #[serde(default = "Jwks::early_refresh_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    pub early_refresh_seconds: u32,
}

const FILE_BYTES_MAX: u64 = 64 << 10;
const AUTHORITIES_BYTES_MAX: u64 = 1 << 20;
const NAMES_MAX: usize = 100;

impl Default for Config {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            jwks: None,
            issuers: Vec::new(),
            audiences: Vec::new(),
            any_audience: false,
            tenant_claim: "location_id".into(),
            leeway_seconds: 30,
            token_bytes_max: 8_192,
            cookie: None,
            query_parameter: None,
            required: true,
            cache_entries: 10_000,
        }
    }
}

impl Jwks {
    fn algorithms() -> Vec<Algorithm> {
        Algorithm::ASYMMETRIC.into()
    }
    fn refresh_seconds() -> u32 {
        300
    }
    fn early_refresh_seconds() -> u32 {
        30
    }
}

impl Settings for Config {
    type Plugin = Jwt;

    fn build(self, _name: &str, scope: &mut Scope) -> Option<Jwt> {
        let before = scope.len();
        let mut keys = self.read_keys(scope);
        if self.keys.is_empty() && self.jwks.is_none() {
            scope.add(
                "",
                "there are no keys; list some as `keys`, or name a key set as `jwks`",
            );
        }
        let origin = self
            .jwks
            .as_ref()
            .and_then(|jwks| jwks.read(&mut keys, scope));
        if let Some(algorithm) = keys::crowded(&keys) {
            scope.add(
                "",
                format!(
                    "more than {CANDIDATES_MAX} keys for {algorithm:?} have no `kid`, and a token is tried with \
                     {CANDIDATES_MAX} of them; give them a `kid`"
                ),
            );
        }
        self.check_names(scope);
        scope.in_range("leeway_seconds", self.leeway_seconds, 0..=300);
        scope.in_range("token_bytes_max", self.token_bytes_max, 256..=65_536);
        scope.in_range("cache_entries", self.cache_entries, 0..=1_000_000);
        // Threads and fetches only for settings that are right.
        if scope.len() > before {
            return None;
        }
        let source = match origin.map(Source::of).transpose() {
            Ok(source) => source,
            Err(error) => {
                scope.add(
                    "jwks.url",
                    format!("the thread that fetches it cannot be started: {error}"),
                );
                return None;
            }
        };
        Some(Jwt {
            keys: KeySet::new(keys),
            source,
            issuers: self.issuers,
            audiences: self.audiences,
            tenant_claim: self.tenant_claim,
            leeway_seconds: self.leeway_seconds.into(),
            token_bytes_max: self.token_bytes_max as usize,
            cookie: self.cookie,
            query_parameter: self.query_parameter,
            required: self.required,
            cache: Cache::new(self.cache_entries as usize),
        })
    }
}

impl Config {
    fn read_keys(&self, scope: &mut Scope) -> Vec<keys::Key> {
        if self.keys.len() > KEYS_MAX {
            scope.add(
                "keys",
                format!("{} keys; use at most {KEYS_MAX}", self.keys.len()),
            );
            return Vec::new();
        }
        let mut keys: Vec<keys::Key> = Vec::new();
        for (index, key) in self.keys.iter().enumerate() {
            let at = format!("keys[{index}]");
            match key.read(&at, scope) {
                Some(key) if keys.iter().any(|other| key.clashes(other)) => {
                    scope.add(
                        format!("{at}.kid"),
                        "is that of another key with the same algorithm; rename one",
                    );
                }
                Some(key) => keys.push(key),
                None => {}
            }
        }
        keys
    }

    fn check_names(&self, scope: &mut Scope) {
        match (self.audiences.is_empty(), self.any_audience) {
            (true, false) => scope.add(
                "audiences",
                "is empty, so tokens meant for others would do; list yours, or set `any_audience = true`",
            ),
            (false, true) => scope.add("any_audience", "contradicts `audiences`; remove one of the two"),
            (true, true) | (false, false) => {}
        }
        for (at, list) in [("issuers", &self.issuers), ("audiences", &self.audiences)] {
            if list.len() > NAMES_MAX {
                scope.add(
                    at,
                    format!("{} entries; use at most {NAMES_MAX}", list.len()),
                );
            }
            for (index, _) in list
                .iter()
                .enumerate()
                .filter(|(_, entry)| entry.is_empty())
            {
                scope.add(format!("{at}[{index}]"), "is empty; remove it");
            }
        }
        if !(1..=256).contains(&self.tenant_claim.len()) {
            scope.add(
                "tenant_claim",
                "is not 1 to 256 bytes; name the claim, as `location_id`",
            );
        }
        let is_name = |name: &String| {
            (1..=64).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        for (at, name) in [
            ("cookie", &self.cookie),
            ("query_parameter", &self.query_parameter),
        ] {
            if name.as_ref().is_some_and(|name| !is_name(name)) {
                scope.add(at, "is not 1 to 64 characters of A-Z a-z 0-9 _ - .");
            }
        }
    }
}

// === impl Key ===

impl Key {
    fn read(&self, at: &str, scope: &mut Scope) -> Option<keys::Key> {
        let before = scope.len();
        if self
            .kid
            .as_ref()
            .is_some_and(|kid| !(1..=KID_BYTES_MAX).contains(&kid.len()))
        {
            scope.add(
                format!("{at}.kid"),
                format!("is not 1 to {KID_BYTES_MAX} bytes"),
            );
        }
        let (at_source, material) =
            match (&self.public_key_file, &self.secret_file, &self.secret_env) {
                (Some(file), None, None) => {
                    let at = format!("{at}.public_key_file");
                    if self
                        .algorithms
                        .iter()
                        .any(|algorithm| algorithm.is_symmetric())
                    {
                        scope.add(
                        &at,
                        "cannot be an HMAC secret; use `secret_file` for HS256, HS384 and HS512",
                    );
                        return None;
                    }
                    let pem = scope.file(&at, file, FILE_BYTES_MAX)?;
                    (at, Material::pem(&pem))
                }
                (None, Some(file), None) => {
                    let at = format!("{at}.secret_file");
                    let secret = Secret::new(scope.secret_file(&at, file, FILE_BYTES_MAX)?);
                    (at, self.secret(&secret))
                }
                (None, None, Some(variable)) => {
                    let at = format!("{at}.secret_env");
                    let secret = Secret::new(scope.env(&at, variable)?);
                    (at, self.secret(&secret))
                }
                _ => {
                    scope.add(
                        at,
                        "needs exactly one of `public_key_file`, `secret_file` and `secret_env`",
                    );
                    return None;
                }
            };
        let kid = self.kid.as_deref().map(Box::from);
        let key =
            material.and_then(|material| keys::Key::new(kid, self.algorithms.clone(), material));
        match key {
            Ok(key) => (scope.len() == before).then_some(key),
            Err(why) => {
                scope.add(at_source, why);
                None
            }
        }
    }

    fn secret(&self, secret: &Secret) -> Result<Material, String> {
        let bytes = secret.expose();
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        // A public key used as an HMAC secret lets everybody sign.
        if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
            return Err(
                "is a PEM file, not an HMAC secret; a public key goes into `public_key_file`"
                    .into(),
            );
        }
        Material::secret(bytes, &self.algorithms)
    }
}

// === impl Jwks ===

impl Jwks {
    /// Adds the keys of a file to `keys`, or gives the origin of a URL.
    fn read(&self, keys: &mut Vec<keys::Key>, scope: &mut Scope) -> Option<Origin> {
        if self.algorithms.is_empty()
            || self
                .algorithms
                .iter()
                .any(|algorithm| algorithm.is_symmetric())
        {
            scope.add(
                "jwks.algorithms",
                "must list one or more algorithms, none of them HS256, HS384 or HS512",
            );
        }
        let refresh = scope.in_range("jwks.refresh_seconds", self.refresh_seconds, 1..=86_400);
        let early = scope.in_range(
            "jwks.early_refresh_seconds",
            self.early_refresh_seconds,
            1..=86_400,
        );
        match (&self.url, &self.file) {
            (Some(url), None) => {
                if let Err(why) = check_url(url) {
                    scope.add("jwks.url", why);
                }
                let authorities = self
                    .ca_file
                    .as_ref()
                    .and_then(|file| read_authorities(file, scope));
                let seconds = |seconds: u32| Duration::from_secs(seconds.into());
                Some(Origin {
                    url: url.clone(),
                    authorities,
                    algorithms: self.algorithms.clone(),
                    timing: Timing {
                        interval: seconds(refresh?),
                        early_min: seconds(early?),
                        backoff_min: Duration::from_secs(1),
                    },
                })
            }
            (None, Some(file)) => {
                if self.ca_file.is_some() {
                    scope.add("jwks.ca_file", "is for `url` only; remove it");
                }
                let bytes = scope.file("jwks.file", file, DOCUMENT_BYTES_MAX)?;
                match jwks::read(&bytes, &self.algorithms) {
                    Ok(document) => {
                        keys.extend(document.keys);
                        for why in document.refused {
                            scope.add("jwks.file", why);
                        }
                    }
                    Err(why) => scope.add("jwks.file", why),
                }
                None
            }
            _ => {
                scope.add("jwks", "needs exactly one of `url` and `file`");
                None
            }
        }
    }
}

fn read_authorities(file: &str, scope: &mut Scope) -> Option<Vec<Vec<u8>>> {
    let pem = scope.file("jwks.ca_file", file, AUTHORITIES_BYTES_MAX)?;
    certificates(&pem)
        .map_err(|message| scope.add("jwks.ca_file", message))
        .ok()
}

/// Whether keys may be fetched from there.
fn check_url(text: &str) -> Result<(), String> {
    let url: http::Uri = text
        .parse()
        .map_err(|error| format!("is not a URL: {error}"))?;
    let authority = url
        .authority()
        .ok_or("names no host; write it as `https://host/path`")?;
    if authority.as_str().contains('@') || text.contains('#') {
        return Err("may hold neither a user nor a fragment (`@`, `#`)".into());
    }
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let literal: Option<IpAddr> = host.parse().ok();
    match (url.scheme_str(), literal) {
        (_, Some(address)) if is_link_local_or_unspecified(address) => {
            Err("is a link-local or unspecified address, where a cloud keeps its credentials; use the host's name".into())
        }
        (Some("https"), _) => Ok(()),
        (Some("http"), Some(address)) if address.is_loopback() => Ok(()),
        (Some("http"), _) => {
            Err("is not encrypted, so anybody on the way could put in keys; use https, or a loopback address such as 127.0.0.1".into())
        }
        _ => Err("is neither https nor http".into()),
    }
}
