//! Reading a JSON Web Key Set (RFC 7517) into keys.

use super::keys::{Algorithm, Key, Material};
use super::token::object;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Largest document, in bytes.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 1 << 20;
/// Most keys in a document.
pub(super) const KEYS_MAX: usize = 100;
/// Longest `kid`, in bytes.
pub(super) const KID_BYTES_MAX: usize = 256;

/// The usable keys of a document, and why the others are not.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) keys: Vec<Key>,
    /// One line for each key that was left out.
    pub(super) refused: Vec<String>,
}

/// Reads a document. Keys for encryption and keys of unknown kinds are passed over, as RFC 7517 says;
/// keys that look usable and are not are named in `refused`, symmetric ones among them: what anybody
/// can fetch is no secret.
///
/// # Errors
/// Why the document as a whole is not taken.
pub(super) fn read(bytes: &[u8], allowed: &[Algorithm]) -> Result<Document, String> {
    let document = object(bytes).ok_or("is not a JSON object")?;
    let Some(Value::Array(list)) = document.get("keys") else {
        return Err("has no list `keys`".into());
    };
    if list.len() > KEYS_MAX {
        return Err(format!(
            "has {} keys; at most {KEYS_MAX} are taken",
            list.len()
        ));
    }
    let mut keys: Vec<Key> = Vec::new();
    let mut refused = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let key = match value {
            Value::Object(jwk) => read_key(jwk, allowed),
            _ => Err("is not an object".into()),
        };
        match key {
            Ok(Some(key)) if keys.iter().any(|other| key.clashes(other)) => {
                refused.push(format!("keys[{index}]: its kid is that of another key"));
            }
            Ok(Some(key)) => keys.push(key),
            Ok(None) => {}
            Err(why) => refused.push(format!("keys[{index}]: {why}")),
        }
    }
    if keys.is_empty() {
        refused.truncate(3);
        return Err(format!("has no usable key ({})", refused.join("; ")));
    }
    Ok(Document { keys, refused })
}

/// `None`: a key that is not meant for this.
fn read_key(jwk: &Map<String, Value>, allowed: &[Algorithm]) -> Result<Option<Key>, String> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if jwk.get("use").is_some_and(|purpose| purpose != "sig") {
        return Ok(None);
    }
    if let Some(operations) = jwk.get("key_ops") {
        let verifies = operations
            .as_array()
            .is_some_and(|list| list.iter().any(|op| op == "verify"));
        if !verifies {
            return Ok(None);
        }
    }
    let bytes = |name: &str| {
        let text = text(name).ok_or_else(|| format!("has no `{name}`"))?;
        URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| format!("its `{name}` is not base64url"))
    };
    let point = || Ok::<_, String>([vec![4], bytes("x")?, bytes("y")?].concat());
    let material = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => Material::rsa(&bytes("n")?, &bytes("e")?)?,
        (Some("EC"), Some("P-256")) => Material::p256(point()?)?,
        (Some("EC"), Some("P-384")) => Material::p384(point()?)?,
        (Some("OKP"), Some("Ed25519")) => Material::ed25519(&bytes("x")?)?,
        (Some("oct"), _) => {
            return Err("is a symmetric key, which has no place in a key set".into());
        }
        (Some(_), _) => return Ok(None),
        (None, _) => return Err("has no `kty`".into()),
    };
    let kid = match jwk.get("kid") {
        None => None,
        Some(Value::String(kid)) if (1..=KID_BYTES_MAX).contains(&kid.len()) => {
            Some(kid.as_str().into())
        }
        Some(_) => {
            return Err(format!(
                "its `kid` is not 1 to {KID_BYTES_MAX} bytes of text"
            ));
        }
    };
    let algorithms: Vec<_> = match jwk.get("alg") {
        None => allowed
            .iter()
            .copied()
            .filter(|algorithm| material.fits(*algorithm))
            .collect(),
        Some(name) => match name.as_str().and_then(Algorithm::named) {
            Some(algorithm) if allowed.contains(&algorithm) => vec![algorithm],
            Some(algorithm) => return Err(format!("{algorithm:?} is not in `algorithms`")),
            None => return Ok(None),
        },
    };
    if algorithms.is_empty() {
        return Err("none of `algorithms` fits its kind".into());
    }
    Key::new(kid, algorithms, material).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn ed25519(extra: Value) -> Value {
        let mut key = json!({ "kty": "OKP", "crv": "Ed25519", "x": X });
        for (name, value) in extra.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    }

    fn read_keys(keys: Value) -> Result<Document, String> {
        read(
            json!({ "keys": keys }).to_string().as_bytes(),
            &Algorithm::ASYMMETRIC,
        )
    }

    #[test]
    fn a_symmetric_key_is_refused_and_the_others_stay() {
        let oct = json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "hs", "alg": "HS256" });
        let document = read_keys(json!([oct, ed25519(json!({}))])).unwrap();
        assert_eq!(document.keys.len(), 1);
        assert!(
            document.refused[0].contains("symmetric"),
            "{:?}",
            document.refused
        );
        assert!(read_keys(json!([oct])).is_err());
    }

    #[test]
    fn keys_for_other_purposes_and_of_unknown_kinds_are_passed_over() {
        let document = read_keys(json!([
            ed25519(json!({ "use": "enc" })),
            ed25519(json!({ "key_ops": ["sign"] })),
            ed25519(json!({ "alg": "HPKE-0" })),
            { "kty": "AKP", "pub": "x" },
            ed25519(json!({ "use": "sig", "key_ops": ["verify"], "kid": "good" })),
        ]))
        .unwrap();
        assert_eq!(document.keys.len(), 1);
        assert!(document.refused.is_empty(), "{:?}", document.refused);
    }

    #[test]
    fn a_keys_own_algorithm_is_the_only_one_it_gets() {
        let allowed = [Algorithm::RS256, Algorithm::EdDSA];
        let read = |key: Value| read(json!({ "keys": [key] }).to_string().as_bytes(), &allowed);
        assert_eq!(
            read(ed25519(json!({}))).unwrap().keys[0].algorithms,
            [Algorithm::EdDSA]
        );
        assert!(read(ed25519(json!({ "alg": "RS256" }))).is_err());
        assert!(
            read(ed25519(json!({ "alg": "ES256" })))
                .unwrap_err()
                .contains("not in `algorithms`")
        );
    }

    #[test]
    fn broken_keys_are_named_and_broken_documents_refused() {
        let broken = json!([
            ed25519(json!({ "x": "AAAA" })),
            ed25519(json!({ "x": "a=" })),
            ed25519(json!({ "kid": 7 })),
            ed25519(json!({ "kid": "k".repeat(257) })),
            { "kty": "RSA", "n": "AQAB", "e": "AQAB" },
            { "kty": "EC", "crv": "P-256", "x": X },
            7,
            ed25519(json!({ "kid": "same" })),
            ed25519(json!({ "kid": "same" })),
        ]);
        let document = read_keys(broken).unwrap();
        assert_eq!(
            (document.keys.len(), document.refused.len()),
            (1, 8),
            "{:?}",
            document.refused
        );
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            r#"{"keys":[]}"#,
            r#"{"keys":[],"keys":[]}"#,
        ] {
            assert!(
                read(bad.as_bytes(), &Algorithm::ASYMMETRIC).is_err(),
                "{bad}"
            );
        }
        let many = vec![ed25519(json!({})); KEYS_MAX + 1];
        assert!(read_keys(json!(many)).unwrap_err().contains("101 keys"));
    }
}
