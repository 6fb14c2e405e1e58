//! Makes tokens, with a key of its own for each signer.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use ring::{digest, hmac};
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

pub(crate) struct Signer {
    algorithm: &'static str,
    kid: String,
    secret: SigningKey,
    /// Where the key lies that the settings name.
    file: PathBuf,
    _directory: Option<TempDir>,
}

enum SigningKey {
    Hmac(hmac::Key),
    Rsa(RsaKeyPair, &'static dyn signature::RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

const ALGORITHMS: [&str; 12] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "EdDSA",
];

pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn in_directory(name: &str, bytes: &[u8]) -> (PathBuf, Option<TempDir>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (path, Some(directory))
}

impl Signer {
    pub(crate) fn one_of_each() -> impl Iterator<Item = Self> {
        ALGORITHMS.into_iter().map(|name| match &name[..2] {
            "HS" => Self::hmac(name),
            "ES" => Self::ecdsa(name),
            "Ed" => Self::ed25519(),
            _ => Self::rsa(name),
        })
    }

    pub(crate) fn hmac(algorithm: &'static str) -> Self {
        Self::hmac_with(algorithm, crate::testing::SECRET.as_bytes())
    }

    pub(crate) fn hmac_with(algorithm: &'static str, secret: &[u8]) -> Self {
        let scheme = match algorithm {
            "HS256" => hmac::HMAC_SHA256,
            "HS384" => hmac::HMAC_SHA384,
            _ => hmac::HMAC_SHA512,
        };
        // A trailing newline, as editors write one, is not part of the secret.
        let (file, directory) = in_directory("secret", &[secret, b"\n"].concat());
        Self::new(
            algorithm,
            SigningKey::Hmac(hmac::Key::new(scheme, secret)),
            secret,
            file,
            directory,
        )
    }

    pub(crate) fn rsa(algorithm: &'static str) -> Self {
        use rustls_pki_types::pem::PemObject;
        let keys = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys"));
        let private =
            rustls_pki_types::PrivatePkcs8KeyDer::from_pem_file(keys.join("rsa-test-only.pem"))
                .unwrap();
        let pair = RsaKeyPair::from_pkcs8(private.secret_pkcs8_der()).unwrap();
        let padding: &'static dyn signature::RsaEncoding = match algorithm {
            "RS256" => &signature::RSA_PKCS1_SHA256,
            "RS384" => &signature::RSA_PKCS1_SHA384,
            "RS512" => &signature::RSA_PKCS1_SHA512,
            "PS256" => &signature::RSA_PSS_SHA256,
            "PS384" => &signature::RSA_PSS_SHA384,
            _ => &signature::RSA_PSS_SHA512,
        };
        let public = pair.public_key().as_ref().to_vec();
        let key = SigningKey::Rsa(pair, padding);
        Self::new(
            algorithm,
            key,
            &public,
            keys.join("rsa-test-only.pub.pem"),
            None,
        )
    }

    pub(crate) fn ecdsa(algorithm: &'static str) -> Self {
        let (kind, scheme) = match algorithm {
            "ES256" => (
                &rcgen::PKCS_ECDSA_P256_SHA256,
                &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            ),
            _ => (
                &rcgen::PKCS_ECDSA_P384_SHA384,
                &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            ),
        };
        let made = rcgen::KeyPair::generate_for(kind).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(scheme, &made.serialize_der(), &SystemRandom::new()).unwrap();
        let (file, directory) = in_directory("key.pem", made.public_key_pem().as_bytes());
        let public = pair.public_key().as_ref().to_vec();
        Self::new(algorithm, SigningKey::Ecdsa(pair), &public, file, directory)
    }

    pub(crate) fn ed25519() -> Self {
        let made = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&made.serialize_der()).unwrap();
        let (file, directory) = in_directory("key.pem", made.public_key_pem().as_bytes());
        let public = pair.public_key().as_ref().to_vec();
        Self::new("EdDSA", SigningKey::Ed25519(pair), &public, file, directory)
    }

    fn new(
        algorithm: &'static str,
        secret: SigningKey,
        public: &[u8],
        file: PathBuf,
        directory: Option<TempDir>,
    ) -> Self {
        let kid = base64url(&digest::digest(&digest::SHA256, public).as_ref()[..8]);
        Self {
            algorithm,
            kid,
            secret,
            file,
            _directory: directory,
        }
    }

    pub(crate) fn with_kid(mut self, kid: &str) -> Self {
        self.kid = kid.into();
        self
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    pub(crate) fn header(&self) -> Value {
        json!({ "alg": self.algorithm, "kid": self.kid, "typ": "JWT" })
    }

    /// One of the settings' `keys`.
    pub(crate) fn key(&self) -> Value {
        let at = match self.secret {
            SigningKey::Hmac(_) => "secret_file",
            SigningKey::Rsa(..) | SigningKey::Ecdsa(_) | SigningKey::Ed25519(_) => {
                "public_key_file"
            }
        };
        let mut key = json!({ "kid": self.kid, "algorithms": [self.algorithm] });
        key[at] = json!(self.file);
        key
    }

    /// The public key as a member of a key set.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.secret {
            SigningKey::Hmac(_) => panic!("a secret has no public key"),
            SigningKey::Rsa(pair, _) => {
                let parts: signature::RsaPublicKeyComponents<Vec<u8>> = pair.public_key().into();
                json!({ "kty": "RSA", "n": base64url(&parts.n), "e": base64url(&parts.e) })
            }
            SigningKey::Ecdsa(pair) => {
                let (x, y) =
                    pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                let curve = if self.algorithm == "ES256" {
                    "P-256"
                } else {
                    "P-384"
                };
                json!({ "kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y) })
            }
            SigningKey::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key().as_ref()) })
            }
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_raw(&self.header().to_string(), &claims.to_string())
    }

    pub(crate) fn sign_raw(&self, header: &str, payload: &str) -> String {
        let message = format!(
            "{}.{}",
            base64url(header.as_bytes()),
            base64url(payload.as_bytes())
        );
        let random = SystemRandom::new();
        let signature = match &self.secret {
            SigningKey::Hmac(key) => hmac::sign(key, message.as_bytes()).as_ref().to_vec(),
            SigningKey::Rsa(pair, padding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*padding, &random, message.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
            SigningKey::Ecdsa(pair) => pair
                .sign(&random, message.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
            SigningKey::Ed25519(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", base64url(&signature))
    }
}
