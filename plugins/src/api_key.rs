//! Identifies callers by a pre-shared key in a header. Keys are stored as hashes only.
//!
//! [`generate`] makes keys, of 256 random bits. That is why one SHA-256 without salt is enough: what
//! makes password hashes slow is there to make guessing dear, and nobody guesses 256 bits.

use crate::settings::{Scope, Settings};
use crate::{Plugin, PluginContext, Step, Verdict};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::WWW_AUTHENTICATE;
use hub_config::Secret;
use hub_core::{
    Edit, HeaderName, HeaderValue, Identity, IdentityMethod, LocationId, Reason, Refusal,
    RequestView,
};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt::Write;
use subtle::ConstantTimeEq;

/// Settings of the kind `api_key`. Keys come from `file`, from `keys`, or both; at least one.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// File of lines `name:tenant:sha256`, the tenant `-` where the key speaks for none; blank lines
    /// and lines that start with `#` are skipped. At most 16 MiB and 100000 keys. Its change causes a
    /// reload.
    pub file: Option<String>,
    /// Keys.
    pub keys: Vec<Key>,
    /// Header that carries the key. Default `X-Api-Key`.
    pub header: String,
    /// Refuse requests without a key. Default true. A wrong key is refused either way.
    pub required: bool,
}

/// One key.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Who uses it, 1 to 64 of `[A-Za-z0-9_.-]`: the request's subject. Two keys may share a name, so
    /// that one can replace the other.
    pub name: String,
    /// The tenant that it speaks for. Absent: none.
    #[serde(default)]
    pub tenant: Option<String>,
    /// SHA-256 of the key's text, 64 hexadecimal digits.
    pub sha256: String,
}

/// The plugin.
#[derive(Debug)]
pub struct ApiKeys {
    header: HeaderName,
    challenge: HeaderValue,
    required: bool,
    /// By the first 8 bytes of the hash, which say nothing about the rest.
    by_prefix: HashMap<u64, Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    hash: Hash,
    name: Box<str>,
    tenant: Option<LocationId>,
}

type Hash = [u8; 32];

const FILE_BYTES_MAX: u64 = 16 << 20;
const KEYS_MAX: usize = 100_000;
/// Longest key that is hashed, in bytes; those of [`generate`] have 47.
const KEY_BYTES_MAX: usize = 256;
const NAME_MAX: usize = 64;

/// A new key: what its user gets, and the line that the gateway keeps.
#[derive(Debug)]
pub struct GeneratedKey {
    /// `hub_` and 32 random bytes in base64url. Shown once, stored nowhere.
    pub key: Secret,
    /// The line for the file of keys. No secret.
    pub line: String,
}

/// Why no key was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// The name would not be accepted in the file.
    #[error("a key's name is 1 to 64 characters of A-Z a-z 0-9 _ . -")]
    BadName,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    NoRandom,
}

/// Makes a key for the user `name`, which speaks for `tenant` if there is one.
///
/// # Errors
/// [`GenerateError::BadName`], and [`GenerateError::NoRandom`] where the system's generator fails.
///
/// ```
/// let made = hub_plugins::api_key::generate("billing", None).unwrap();
/// assert!(made.key.expose().starts_with(b"hub_"));
/// assert!(made.line.starts_with("billing:-:"));
/// ```
pub fn generate(name: &str, tenant: Option<&LocationId>) -> Result<GeneratedKey, GenerateError> {
    if !is_name(name) {
        return Err(GenerateError::BadName);
    }
    let mut random = [0; 32];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| GenerateError::NoRandom)?;
    let key = format!("hub_{}", URL_SAFE_NO_PAD.encode(random));
    let mut line = format!("{name}:{}:", tenant.map_or("-", LocationId::as_str));
    for byte in hash(key.as_bytes()) {
        write!(line, "{byte:02x}").expect("writing to a String cannot fail");
    }
    Ok(GeneratedKey {
        key: Secret::new(key.into_bytes()),
        line,
    })
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: None,
            keys: Vec::new(),
            header: "X-Api-Key".into(),
            required: true,
        }
    }
}

impl Settings for Config {
    type Plugin = ApiKeys;

    fn build(self, _name: &str, scope: &mut Scope) -> Option<ApiKeys> {
        let before = scope.len();
        let mut keys = Keys::default();
        for (index, key) in self.keys.iter().enumerate() {
            // Absent and `-` are two spellings of one thing only in the file.
            keys.add(
                &format!("keys[{index}]"),
                "",
                &key.name,
                key.tenant.as_deref(),
                &key.sha256,
                scope,
            );
        }
        if let Some(written) = &self.file
            && let Some(bytes) = scope.file("file", written, FILE_BYTES_MAX)
        {
            keys.add_lines(&bytes, scope);
        }
        if self.keys.is_empty() && self.file.is_none() {
            scope.add(
                "",
                "there are no keys; name a `file` of keys, or list some as `keys`",
            );
        }
        let header = scope.header_name("header", &self.header);
        // Those carry credentials of other kinds, with a syntax of their own.
        if let Some(name) = header
            .as_ref()
            .filter(|name| ["authorization", "cookie"].contains(&name.as_str()))
        {
            scope.add(
                "header",
                format!("`{name}` cannot carry an API key; use a header of its own"),
            );
        }
        let header = header.filter(|_| scope.len() == before)?;
        Some(ApiKeys {
            challenge: HeaderValue::try_from(format!("ApiKey header=\"{header}\""))
                .expect("a header name is visible ASCII without quotes"),
            header,
            required: self.required,
            by_prefix: keys.by_prefix,
        })
    }
}

#[derive(Default)]
struct Keys {
    by_prefix: HashMap<u64, Vec<Entry>>,
    count: usize,
}

// === impl Keys ===

impl Keys {
    fn add_lines(&mut self, bytes: &[u8], scope: &mut Scope) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            scope.add("file", "is not UTF-8 text");
            return;
        };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if self.count == KEYS_MAX {
                scope.add("file", format!("line {number}: more than {KEYS_MAX} keys"));
                return;
            }
            let mut parts = line.split(':');
            let place = format!("line {number}: ");
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(name), Some(tenant), Some(sha256), None) => {
                    let tenant = Some(tenant).filter(|tenant| *tenant != "-");
                    self.add("file", &place, name, tenant, sha256, scope);
                }
                // The line itself is not repeated: it may be a key that was pasted by mistake.
                _ => scope.add(
                    "file",
                    format!("{place}is not `name:tenant:sha256` (tenant `-` for none)"),
                ),
            }
        }
    }

    fn add(
        &mut self,
        at: &str,
        place: &str,
        name: &str,
        tenant: Option<&str>,
        sha256: &str,
        scope: &mut Scope,
    ) {
        let before = scope.len();
        self.count += 1;
        if !is_name(name) {
            scope.add(at, format!("{place}{}", GenerateError::BadName));
        }
        let tenant = tenant
            .map(|tenant| LocationId::parse(tenant.as_bytes()))
            .transpose();
        if let Err(error) = &tenant {
            scope.add(at, format!("{place}the tenant is malformed: {error}"));
        }
        let hash = parse_hash(sha256);
        if hash.is_none() {
            scope.add(
                at,
                format!("{place}the hash is not 64 hexadecimal digits; `hub-gateway api-key` makes key and hash"),
            );
        }
        let (Some(hash), Ok(tenant)) = (hash, tenant) else {
            return;
        };
        let bucket = self.by_prefix.entry(prefix(&hash)).or_default();
        if bucket.iter().any(|entry| entry.hash == hash) {
            scope.add(
                at,
                format!("{place}the same key twice; it could mean either"),
            );
        }
        if scope.len() == before {
            bucket.push(Entry {
                hash,
                name: name.into(),
                tenant,
            });
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn hash(key: &[u8]) -> Hash {
    digest::digest(&digest::SHA256, key)
        .as_ref()
        .try_into()
        .expect("SHA-256 gives 32 bytes")
}

fn prefix(hash: &Hash) -> u64 {
    let (first, _) = hash
        .split_first_chunk()
        .expect("a hash has more than 8 bytes");
    u64::from_be_bytes(*first)
}

fn parse_hash(text: &str) -> Option<Hash> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(hash)
}

// === impl ApiKeys ===

impl ApiKeys {
    fn find(&self, key: &[u8]) -> Option<&Entry> {
        let hash = hash(key);
        // Which bucket is looked into tells 8 bytes of the hash of what the caller sent, which the
        // caller knows. The rest is compared in constant time all the same: it costs nothing.
        self.by_prefix
            .get(&prefix(&hash))?
            .iter()
            .find(|entry| bool::from(entry.hash.ct_eq(&hash)))
    }

    fn challenge(&self, context: &mut PluginContext<'_>) {
        let challenge = Edit::Append(WWW_AUTHENTICATE, self.challenge.clone());
        context.edits.response.push(challenge);
    }

    fn refuse(&self, context: &mut PluginContext<'_>, why: &'static str) -> Verdict {
        self.challenge(context);
        Verdict::Refuse(Refusal::new(Reason::Unauthenticated).with_detail(why))
    }
}

impl Plugin for ApiKeys {
    fn step(&self) -> Step {
        Step::Identify
    }

    fn on_request(&self, request: &RequestView<'_>, context: &mut PluginContext<'_>) -> Verdict {
        let mut values = request.headers.get_all(self.header.as_str());
        let found = match (values.next(), values.next()) {
            (None, _) if self.required => {
                self.challenge(context);
                let refusal = Refusal::new(Reason::Unauthenticated).with_detail("no API key");
                return Verdict::Missing(refusal);
            }
            (None, _) => return Verdict::Continue,
            (Some(_), Some(_)) => {
                return self.refuse(context, "the API key's header is there twice");
            }
            (Some(key), None) if key.len() > KEY_BYTES_MAX => {
                return self.refuse(context, "the API key is too long");
            }
            (Some(key), None) => self.find(key),
        };
        match found {
            Some(entry) => Verdict::Identified(Identity {
                subject: entry.name.clone(),
                tenant: entry.tenant.clone(),
                method: IdentityMethod::ApiKey,
                expires: None,
            }),
            None => self.refuse(context, "the API key is unknown"),
        }
    }
}

#[cfg(test)]
mod tests;
