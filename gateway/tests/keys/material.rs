//! Certificates, keys, tokens and files that configurations name; made once.

use hub_testkit::{Ca, Leaf};
use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) const API_KEYS: [&str; 2] = ["hub_first", "hub_second"];
pub(crate) const OTHER_TOKEN: &str = "another-admin-token-0123456789";
pub(crate) const SECRETS: [&str; 2] = [
    "one-0123456789-0123456789-0123456789-0123456789-0123456789-012345",
    "two-0123456789-0123456789-0123456789-0123456789-0123456789-012345",
];

pub(crate) struct Material {
    pub(crate) ca: Ca,
    other_ca: Ca,
    /// For `x.test` both, for `a.test` and 127.0.0.1 the first, for `b.test` the second.
    pub(crate) leaves: [Leaf; 2],
    pub ed25519: [KeyPair; 2],
    pub p384: KeyPair,
}

pub(crate) static MATERIAL: LazyLock<Material> = LazyLock::new(|| {
    let ca = Ca::new("keys");
    let key = |algorithm| KeyPair::generate_for(algorithm).expect("ring makes such keys");
    Material {
        leaves: [
            ca.issue(&["x.test", "a.test", "127.0.0.1"]),
            ca.issue(&["x.test", "b.test"]),
        ],
        other_ca: Ca::new("nobody"),
        ca,
        ed25519: [key(&rcgen::PKCS_ED25519), key(&rcgen::PKCS_ED25519)],
        p384: key(&rcgen::PKCS_ECDSA_P384_SHA384),
    }
});

/// Name and contents of every file.
pub(crate) fn files() -> Vec<(&'static str, String)> {
    let all = &*MATERIAL;
    vec![
        ("other.token", OTHER_TOKEN.into()),
        ("ca.pem", all.ca.pem().into()),
        ("other-ca.pem", all.other_ca.pem().into()),
        ("a.pem", all.leaves[0].certificate_pem.clone()),
        ("a.key", all.leaves[0].key_pem.clone()),
        ("b.pem", all.leaves[1].certificate_pem.clone()),
        ("b.key", all.leaves[1].key_pem.clone()),
        ("loc_1.jsonl", "{\"id\": \"loc_1\"}\n".into()),
        ("loc_2.jsonl", "{\"id\": \"loc_2\"}\n".into()),
        ("keys1", format!("n:-:{}\n", sha256(API_KEYS[0]))),
        ("keys2", format!("n:-:{}\n", sha256(API_KEYS[1]))),
        ("secret1", SECRETS[0].into()),
        ("secret2", SECRETS[1].into()),
        ("ed1.pem", all.ed25519[0].public_key_pem()),
        ("ed2.pem", all.ed25519[1].public_key_pem()),
        ("p384.pem", all.p384.public_key_pem()),
        ("jwks1.json", jwks(0)),
        ("jwks2.json", jwks(1)),
    ]
}

/// A key set with one of the Ed25519 keys, under the id `ed`, and with the P-384 key.
pub(crate) fn jwks(which: usize) -> String {
    let all = &*MATERIAL;
    let ed25519 = base64url(all.ed25519[which].public_key_raw());
    let (x, y) = all.p384.public_key_raw()[1..].split_at(48);
    json!({ "keys": [
        { "kty": "OKP", "crv": "Ed25519", "x": ed25519, "kid": "ed" },
        { "kty": "EC", "crv": "P-384", "x": base64url(x), "y": base64url(y), "kid": "p384" },
    ] })
    .to_string()
}

pub(crate) fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Claims of a good token, with these on top.
pub(crate) fn claims(more: Value) -> Value {
    let mut claims = json!({
        "sub": "alice", "aud": "us", "iss": "them", "exp": now() + 3_600,
        "location_id": "loc_1", "other_id": "loc_2",
    });
    let more = more.as_object().expect("claims are a table").clone();
    claims.as_object_mut().expect("made above").extend(more);
    claims
}

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

/// A token signed with the first HMAC secret.
pub(crate) fn hs256(more: Value) -> String {
    sign("HS256", "k1", more, |text| {
        hmac(SECRETS[0].as_bytes(), text)
    })
}

/// A token signed with the first Ed25519 key, under this key id.
pub(crate) fn eddsa(kid: &str) -> String {
    sign("EdDSA", kid, json!({}), |text| {
        MATERIAL.ed25519[0].sign(text).expect("ring signs")
    })
}

/// A token signed with the P-384 key.
pub(crate) fn es384(more: Value) -> String {
    sign("ES384", "p384", more, |text| {
        // SEQUENCE of two INTEGERs, both of which tokens want in 48 bytes.
        let der = MATERIAL.p384.sign(text).expect("ring signs");
        let mut rest = &der[2..];
        let mut signature = Vec::new();
        for _ in 0..2 {
            let (number, after) = rest[2..].split_at(usize::from(rest[1]));
            let start = number.iter().position(|b| *b != 0).unwrap_or(number.len());
            let number = &number[start..];
            signature.extend(std::iter::repeat_n(0, 48 - number.len()));
            signature.extend(number);
            rest = after;
        }
        signature
    })
}

fn sign(algorithm: &str, kid: &str, more: Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let head = json!({ "alg": algorithm, "kid": kid }).to_string();
    let body = claims(more).to_string();
    let text = format!(
        "{}.{}",
        base64url(head.as_bytes()),
        base64url(body.as_bytes())
    );
    let signature = base64url(&sign(text.as_bytes()));
    format!("{text}.{signature}")
}

/// RFC 2104, for keys of up to a block.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let pad = |mask: u8| {
        let mut block = [mask; 64];
        // A longer key is replaced by its hash.
        let hashed = Sha256::digest(key);
        let key = if key.len() > 64 { &hashed[..] } else { key };
        for (byte, key) in block.iter_mut().zip(key) {
            *byte ^= key;
        }
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text);
    let outer = Sha256::new().chain_update(pad(0x5c));
    outer.chain_update(inner.finalize()).finalize().to_vec()
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let word = part
            .iter()
            .enumerate()
            .fold(0, |word, (i, byte)| word | u32::from(*byte) << (16 - 8 * i));
        for digit in 0..=part.len() {
            let index = word >> (18 - 6 * digit) & 63;
            text.push(char::from(DIGITS[index as usize]));
        }
    }
    text
}
