//! Identifies callers by a signed JSON Web Token.
//!
//! A token says who it is from and for how long; which key and which algorithm may check it is decided
//! by settings alone. The way of a token: where it stands ([`Jwt::find`]), whether it was good before
//! (`cache`), its parts (`token`), its signature (`keys`), its claims ([`Jwt::verify_anew`]).

mod cache;
mod config;
mod jwks;
mod keys;
mod source;
mod token;

pub use config::{Config, Jwks, Key};
pub use keys::Algorithm;

use crate::{Plugin, PluginContext, Step, Verdict};
use cache::{Cache, Verified};
use http::header::WWW_AUTHENTICATE;
use hub_config::PluginProblem;
use hub_core::{
    Edit, HeaderValue, Identity, IdentityMethod, LocationId, Reason, Refusal, RequestView, query,
};
use keys::{Checked, KeySet};
use serde_json::{Map, Value};
use source::Source;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use token::{Fault, Unverified, seconds};

/// The plugin.
#[derive(Debug)]
pub struct Jwt {
    /// From files and the environment.
    keys: KeySet,
    /// From a URL.
    source: Option<Arc<Source>>,
    /// Empty: any.
    issuers: Vec<String>,
    /// Empty: any.
    audiences: Vec<String>,
    tenant_claim: String,
    leeway_seconds: u64,
    token_bytes_max: usize,
    cookie: Option<String>,
    query_parameter: Option<String>,
    required: bool,
    cache: Cache,
}

/// RFC 6750: without a token no error is named.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer");
const CHALLENGE_INVALID: HeaderValue = HeaderValue::from_static("Bearer error=\"invalid_token\"");
const SUBJECT_BYTES_MAX: usize = 256;

// === impl Jwt ===

impl Jwt {
    /// The token of a request, from wherever it may stand. The same one in two places is fine; two
    /// different ones are not, since the upstream could act on the one that was not checked.
    fn find<'a>(&self, request: &RequestView<'a>) -> Result<Option<&'a [u8]>, Fault> {
        let mut found = None;
        let mut take = |token: &'a [u8]| match found.replace(token) {
            Some(other) if other != token => Err(Fault::Contradiction),
            _ => Ok(()),
        };
        let mut headers = request.headers.get_all("authorization");
        if let Some(value) = headers.next() {
            if headers.next().is_some() {
                return Err(Fault::TwoHeaders);
            }
            // Another scheme is another plugin's, or the upstream's.
            if let Some(token) = bearer(value) {
                take(token)?;
            }
        }
        if let Some(name) = &self.cookie {
            for value in request.headers.get_all("cookie") {
                for pair in value.split(|byte| *byte == b';') {
                    if let Some(token) = named(pair.trim_ascii(), name) {
                        take(token)?;
                    }
                }
            }
        }
        if let (Some(name), Some(query)) = (&self.query_parameter, request.query) {
            // The upstream may read a parameter that is only spelt like it.
            let token = query::parameter(query, name).map_err(|_| Fault::Contradiction)?;
            if let Some(token) = token {
                take(token.as_bytes())?;
            }
        }
        Ok(found)
    }

    fn verify(&self, token: &[u8], now: u64) -> Result<Identity, Fault> {
        if token.len() > self.token_bytes_max {
            return Err(Fault::TooLong);
        }
        let fetched = self.source.as_ref().map(|source| source.keys());
        let version = fetched.as_ref().map_or(0, |keys| keys.version());
        let digest = cache::digest(token);
        if let Some(known) = self.cache.get(&digest, version) {
            return known.at(now);
        }
        let fetched = fetched.as_ref().map(|keys| &***keys);
        let verified = Arc::new(self.verify_anew(token, fetched)?);
        let identity = verified.at(now)?;
        self.cache.put(digest, verified);
        Ok(identity)
    }

    fn verify_anew(&self, token: &[u8], fetched: Option<&KeySet>) -> Result<Verified, Fault> {
        let token = Unverified::parse(token)?;
        self.check_signature(&token, fetched)?;
        let claims = token.claims()?;
        let Times { from, expiry } = Times::of(&claims)?;
        if !self.issuers.is_empty() && !is_one_of(claims.get("iss"), &self.issuers) {
            return Err(Fault::WrongIssuer);
        }
        if !self.audiences.is_empty() {
            let meant = match claims.get("aud") {
                Some(Value::Array(list)) => {
                    list.iter().any(|aud| is_one_of(Some(aud), &self.audiences))
                }
                one => is_one_of(one, &self.audiences),
            };
            if !meant {
                return Err(Fault::WrongAudience);
            }
        }
        let subject = claims.get("sub").and_then(Value::as_str).filter(|subject| {
            (1..=SUBJECT_BYTES_MAX).contains(&subject.len()) && !subject.contains(char::is_control)
        });
        let tenant = match claims.get(&self.tenant_claim) {
            None => None,
            Some(Value::String(id)) => {
                Some(LocationId::parse(id.as_bytes()).map_err(|_| Fault::BadTenant)?)
            }
            Some(_) => return Err(Fault::BadTenant),
        };
        Ok(Verified {
            identity: Identity {
                subject: subject.ok_or(Fault::BadSubject)?.into(),
                tenant,
                method: IdentityMethod::Jwt,
                // No overflow: `token::seconds` takes no time beyond the year 9999.
                expires: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(expiry)),
            },
            valid_from: from.saturating_sub(self.leeway_seconds),
            valid_until: expiry + self.leeway_seconds,
            keys: fetched.map_or(0, KeySet::version),
        })
    }

    fn check_signature(
        &self,
        token: &Unverified<'_>,
        fetched: Option<&KeySet>,
    ) -> Result<(), Fault> {
        let check = |keys: &KeySet| {
            keys.check(
                token.kid.as_deref(),
                token.algorithm,
                token.message,
                &token.signature,
            )
        };
        let ours = check(&self.keys);
        if ours == Checked::Good {
            return Ok(());
        }
        let theirs = fetched.map_or(Checked::NoKey, check);
        if theirs == Checked::NoKey
            && token.kid.is_some()
            && let Some(source) = &self.source
        {
            // Perhaps a key that was added since. The kid itself goes nowhere.
            source.ask_early();
        }
        match (ours, theirs) {
            (_, Checked::Good) => Ok(()),
            (Checked::NoKey, Checked::NoKey) => Err(Fault::NoKey),
            _ => Err(Fault::BadSignature),
        }
    }
}

/// What a token says of when it is good, in seconds since 1970.
struct Times {
    /// First second of validity.
    from: u64,
    /// First second after it.
    expiry: u64,
}

impl Times {
    fn of(claims: &Map<String, Value>) -> Result<Self, Fault> {
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => seconds(value).map(Some).ok_or(Fault::BadTime),
        };
        let expiry = claims.get("exp").and_then(seconds).ok_or(Fault::NoExpiry)?;
        let (not_before, issued) = (time("nbf")?, time("iat")?);
        if issued.is_some_and(|issued| issued > expiry) {
            return Err(Fault::IssuedAfterExpiry);
        }
        let from = not_before.max(issued).unwrap_or(0);
        Ok(Self { from, expiry })
    }
}

impl Verified {
    fn at(&self, now: u64) -> Result<Identity, Fault> {
        if now < self.valid_from {
            Err(Fault::NotYet)
        } else if now >= self.valid_until {
            Err(Fault::Expired)
        } else {
            Ok(self.identity.clone())
        }
    }
}

impl Plugin for Jwt {
    fn step(&self) -> Step {
        Step::Identify
    }

    fn on_request(&self, request: &RequestView<'_>, context: &mut PluginContext<'_>) -> Verdict {
        // A clock before 1970 finds every token to be of the future.
        let now = context
            .now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let fault = match self.find(request) {
            Ok(Some(token)) => match self.verify(token, now) {
                Ok(identity) => return Verdict::Identified(identity),
                Err(fault) => fault,
            },
            Ok(None) if !self.required => return Verdict::Continue,
            Ok(None) => Fault::Missing,
            Err(fault) => fault,
        };
        let refusal = Refusal::new(Reason::Unauthenticated).with_detail(fault.detail());
        let (challenge, verdict) = if fault == Fault::Missing {
            (CHALLENGE, Verdict::Missing(refusal))
        } else {
            (CHALLENGE_INVALID, Verdict::Refuse(refusal))
        };
        context
            .edits
            .response
            .push(Edit::Append(WWW_AUTHENTICATE, challenge));
        verdict
    }

    fn is_in_force(&self) {
        if let Some(source) = &self.source {
            source.is_in_force();
        }
    }

    fn settle(&self, deadline: Instant) -> Result<(), PluginProblem> {
        let Some(source) = &self.source else {
            return Ok(());
        };
        source.wait_for_keys(deadline).map_err(|why| PluginProblem {
            at: "jwks.url".into(),
            message: format!("{why}; until it is, tokens that need its keys are refused"),
        })
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.source
            .as_ref()
            .map(|source| source.counters())
            .unwrap_or_default()
    }
}

/// What follows the scheme `Bearer`, in any case. Never `None` for that scheme, so that an empty token
/// is a bad one and not a missing one.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return None;
    }
    match rest.first() {
        None | Some(b' ' | b'\t') => Some(rest.trim_ascii()),
        Some(_) => None,
    }
}

/// The value of `name=value`.
fn named<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

fn is_one_of(value: Option<&Value>, accepted: &[String]) -> bool {
    value
        .and_then(Value::as_str)
        .is_some_and(|value| accepted.iter().any(|known| known == value))
}

#[cfg(test)]
mod tests;
