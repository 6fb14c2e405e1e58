//! Taking a token apart, strictly: JWS compact serialisation (RFC 7515) with JWT claims (RFC 7519) and
//! the advice of RFC 8725.

use super::keys::Algorithm;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Missing,
    TwoHeaders,
    Contradiction,
    TooLong,
    NotThreeParts,
    BadHeader,
    ForbiddenParameter,
    WrongType,
    UnknownAlgorithm,
    NoKey,
    BadSignature,
    BadClaims,
    NoExpiry,
    Expired,
    BadTime,
    NotYet,
    IssuedAfterExpiry,
    WrongIssuer,
    WrongAudience,
    BadSubject,
    BadTenant,
}

impl Fault {
    /// For the log; static, because refusals are where floods arrive. Never repeats a part of the token.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Missing => "no token",
            Self::TwoHeaders => "two Authorization headers",
            Self::Contradiction => "different tokens in different places",
            Self::TooLong => "the token is longer than allowed",
            Self::NotThreeParts => "the token is not three base64url parts",
            Self::BadHeader => "the token's header is not a JSON object with unique names",
            Self::ForbiddenParameter => {
                "the token's header has a parameter that is never accepted (crit, jku, jwk, x5u, x5c, b64, enc, zip)"
            }
            Self::WrongType => "the token's type is not JWT",
            Self::UnknownAlgorithm => "the token's algorithm is none or unknown",
            Self::NoKey => "no key for the token's kid and algorithm",
            Self::BadSignature => "the signature is wrong",
            Self::BadClaims => "the token's claims are not a JSON object with unique names",
            Self::NoExpiry => "exp is missing or not a time",
            Self::Expired => "the token has expired",
            Self::BadTime => "nbf or iat is not a time",
            Self::NotYet => "the token is not valid yet (nbf or iat in the future)",
            Self::IssuedAfterExpiry => "iat is after exp",
            Self::WrongIssuer => "iss is missing or not one that is accepted",
            Self::WrongAudience => "aud is missing or not one that is accepted",
            Self::BadSubject => "sub is missing, empty, longer than 256 bytes or not printable",
            Self::BadTenant => "the tenant claim is not a location id",
        }
    }
}

/// A token's three parts, decoded, with its header checked; nothing in it is to be believed yet.
#[derive(Debug)]
pub(super) struct Unverified<'t> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    /// What the signature is over.
    pub(super) message: &'t [u8],
    pub(super) signature: Vec<u8>,
    payload: &'t str,
}

/// Parameters that say where to find or how to read a key, or that change what the token is. Each has
/// been an attack on somebody; none is needed.
const FORBIDDEN: &[&str] = &["crit", "jku", "jwk", "x5u", "x5c", "b64", "enc", "zip"];
const TYPES: &[&str] = &["jwt", "at+jwt", "application/jwt", "application/at+jwt"];
/// The year 9999, in seconds since 1970.
const TIME_MAX: u64 = 253_402_300_799;

impl<'t> Unverified<'t> {
    pub(super) fn parse(token: &'t [u8]) -> Result<Self, Fault> {
        let token = std::str::from_utf8(token).map_err(|_| Fault::NotThreeParts)?;
        let (message, signature) = token.rsplit_once('.').ok_or(Fault::NotThreeParts)?;
        let (header, payload) = message.split_once('.').ok_or(Fault::NotThreeParts)?;
        if payload.contains('.') {
            return Err(Fault::NotThreeParts);
        }
        let header = object(&decode(header)?).ok_or(Fault::BadHeader)?;
        if FORBIDDEN.iter().any(|name| header.contains_key(*name)) {
            return Err(Fault::ForbiddenParameter);
        }
        match header.get("typ") {
            None => {}
            // An id token's sibling (logout, DPoP proof, security event) must not pass for a login.
            Some(Value::String(typ))
                if TYPES.iter().any(|known| typ.eq_ignore_ascii_case(known)) => {}
            Some(_) => return Err(Fault::WrongType),
        }
        let algorithm = match header.get("alg") {
            Some(Value::String(name)) => Algorithm::named(name).ok_or(Fault::UnknownAlgorithm)?,
            _ => return Err(Fault::UnknownAlgorithm),
        };
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(Fault::BadHeader),
        };
        let signature = decode(signature)?;
        Ok(Self {
            algorithm,
            kid,
            message: message.as_bytes(),
            signature,
            payload,
        })
    }

    /// The claims; call it once the signature is found good, so that no more than a header is ever
    /// parsed for a stranger.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, Fault> {
        #[cfg(test)]
        CLAIMS_READ.set(CLAIMS_READ.get() + 1);
        object(&decode(self.payload)?).ok_or(Fault::BadClaims)
    }
}

/// Unpadded, and only in the one spelling that encodes these bytes.
fn decode(part: &str) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Fault::NotThreeParts)
}

/// A JSON object in which no name stands twice: of two, readers disagree on which one counts.
pub(super) fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice::<UniqueNames>(bytes)
        .ok()
        .map(|object| object.0)
}

struct UniqueNames(Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = UniqueNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<UniqueNames, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if map.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name stands twice"));
                    }
                }
                Ok(UniqueNames(map))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// A NumericDate: seconds since 1970, fractions allowed and dropped.
pub(super) fn seconds(value: &Value) -> Option<u64> {
    if let Some(whole) = value.as_u64() {
        return (whole <= TIME_MAX).then_some(whole);
    }
    let number = value.as_f64()?;
    // The bound makes the conversion exact but for the fraction.
    (0.0..=TIME_MAX as f64)
        .contains(&number)
        .then_some(number as u64)
}

#[cfg(test)]
thread_local! {
    /// How often this thread got as far as a token's claims: once for each signature found good.
    static CLAIMS_READ: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
pub(super) fn claims_read() -> u64 {
    CLAIMS_READ.get()
}
