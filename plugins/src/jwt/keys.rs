//! Keys, each bound to the algorithms that it may be used with.
//!
//! Verification is ring's. It is in the tree for TLS anyway, and it has every algorithm that is
//! wanted; the alternatives are `rsa`, which has an open advisory (RUSTSEC-2023-0071), or a second
//! large C library.

use ring::{hmac, signature};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A signature algorithm of JSON Web Tokens, by its name in RFC 7518 and RFC 8037. `none` is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSA PKCS#1 v1.5 with SHA-256.
    RS256,
    /// RSA PKCS#1 v1.5 with SHA-384.
    RS384,
    /// RSA PKCS#1 v1.5 with SHA-512.
    RS512,
    /// RSA PSS with SHA-256.
    PS256,
    /// RSA PSS with SHA-384.
    PS384,
    /// RSA PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

use Algorithm::{
    ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
};

/// One key for verifying.
///
/// Invariant: every algorithm in `algorithms` fits the material, so that a public key is never taken
/// for an HMAC secret, whatever a token says.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) kid: Option<Box<str>>,
    pub(super) algorithms: Vec<Algorithm>,
    material: Material,
}

/// What a key consists of.
pub(super) enum Material {
    /// One prepared key for each algorithm that is allowed.
    Hmac(Vec<(Algorithm, hmac::Key)>),
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa(signature::RsaPublicKeyComponents<Vec<u8>>),
    /// An uncompressed point on P-256.
    P256(Vec<u8>),
    /// An uncompressed point on P-384.
    P384(Vec<u8>),
    Ed25519([u8; 32]),
}

/// Keys that are in force together.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// Differs between any two sets that were ever in force in this process.
    version: u64,
}

/// A token is tried with so many at most of the keys that it does not name: an unsigned byte costs its
/// sender nothing and each try costs us a signature check.
pub(super) const CANDIDATES_MAX: usize = 4;

// === impl Algorithm ===

impl Algorithm {
    pub(super) const ASYMMETRIC: [Self; 9] = [
        RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA,
    ];

    /// The algorithm of that name, letter for letter.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => HS256,
            "HS384" => HS384,
            "HS512" => HS512,
            "RS256" => RS256,
            "RS384" => RS384,
            "RS512" => RS512,
            "PS256" => PS256,
            "PS384" => PS384,
            "PS512" => PS512,
            "ES256" => ES256,
            "ES384" => ES384,
            "EdDSA" => EdDSA,
            _ => return None,
        })
    }

    /// ring's HMAC, and the least length of a secret in bytes (RFC 7518, section 3.2).
    fn hmac(self) -> Option<(hmac::Algorithm, usize)> {
        match self {
            HS256 => Some((hmac::HMAC_SHA256, 32)),
            HS384 => Some((hmac::HMAC_SHA384, 48)),
            HS512 => Some((hmac::HMAC_SHA512, 64)),
            RS256 | RS384 | RS512 | PS256 | PS384 | PS512 | ES256 | ES384 | EdDSA => None,
        }
    }

    fn rsa(self) -> Option<&'static signature::RsaParameters> {
        match self {
            RS256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            RS384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            RS512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
            PS256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
            PS384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
            PS512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
            HS256 | HS384 | HS512 | ES256 | ES384 | EdDSA => None,
        }
    }

    /// True for HMAC, whose key is a secret.
    pub(super) fn is_symmetric(self) -> bool {
        self.hmac().is_some()
    }
}

// === impl Material ===

impl Material {
    /// An HMAC secret for `algorithms`, which are the symmetric ones.
    ///
    /// # Errors
    /// What to do, where the secret is too short or an algorithm is not symmetric.
    pub(super) fn secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, String> {
        let mut keys = Vec::with_capacity(algorithms.len());
        for algorithm in algorithms {
            let Some((hmac, length_min)) = algorithm.hmac() else {
                return Err(format!(
                    "{algorithm:?} needs a public key: use `public_key_file`"
                ));
            };
            if secret.len() < length_min {
                return Err(format!(
                    "the secret has {} bytes; {algorithm:?} needs at least {length_min}, at random",
                    secret.len()
                ));
            }
            keys.push((*algorithm, hmac::Key::new(hmac, secret)));
        }
        Ok(Self::Hmac(keys))
    }

    /// A public key in PEM (`-----BEGIN PUBLIC KEY-----`).
    ///
    /// # Errors
    /// What to do. Never repeats a byte of the file, which may be a private key by mistake.
    pub(super) fn pem(pem: &[u8]) -> Result<Self, String> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| {
            "holds no PEM block `-----BEGIN PUBLIC KEY-----`; make one of a private key with \
             `openssl pkey -in KEY -pubout`, of a certificate with `openssl x509 -in CERT -pubkey -noout`"
        })?;
        let (rest, info) = SubjectPublicKeyInfo::from_der(&der)
            .map_err(|_| "its PEM block is no public key; export the key again")?;
        if !rest.is_empty() {
            return Err(
                "has bytes after the key inside its PEM block; export the key again".into(),
            );
        }
        let bits: &[u8] = &info.subject_public_key.data;
        let curve = |oid| {
            let parameters = info.algorithm.parameters.as_ref();
            parameters
                .and_then(|parameters| parameters.as_oid().ok())
                .is_some_and(|found| found == oid)
        };
        use x509_parser::oid_registry as oid;
        let kind = &info.algorithm.algorithm;
        if *kind == oid::OID_SIG_ED25519 {
            Self::ed25519(bits)
        } else if *kind == oid::OID_KEY_TYPE_EC_PUBLIC_KEY && curve(oid::OID_EC_P256) {
            Self::p256(bits.to_vec())
        } else if *kind == oid::OID_KEY_TYPE_EC_PUBLIC_KEY && curve(oid::OID_NIST_EC_P384) {
            Self::p384(bits.to_vec())
        } else if *kind == oid::OID_PKCS1_RSAENCRYPTION {
            match info.parsed() {
                Ok(PublicKey::RSA(key)) => Self::rsa(key.modulus, key.exponent),
                _ => Err("its RSA key is malformed; export the key again".into()),
            }
        } else {
            Err("is a kind of key that is not supported; use RSA, P-256, P-384 or Ed25519".into())
        }
    }

    /// An RSA key by modulus and exponent, big-endian.
    pub(super) fn rsa(n: &[u8], e: &[u8]) -> Result<Self, String> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = n
            .first()
            .map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if !(2_048..=8_192).contains(&bits) {
            return Err(format!("the RSA key has {bits} bits; use 2048 to 8192"));
        }
        // 3 and the odd numbers above, of 33 bits at most: what ring takes.
        let odd = e.last().is_some_and(|last| last % 2 == 1);
        if !odd || e == [1] || e.len() > 5 || (e.len() == 5 && e[0] > 1) {
            return Err("the RSA key's exponent is not one in use; 65537 is".into());
        }
        Ok(Self::Rsa(signature::RsaPublicKeyComponents {
            n: n.to_vec(),
            e: e.to_vec(),
        }))
    }

    /// An uncompressed point on P-256.
    pub(super) fn p256(point: Vec<u8>) -> Result<Self, String> {
        if !is_point(&point, 32) {
            return Err(NOT_A_POINT.into());
        }
        Ok(Self::P256(point))
    }

    /// An uncompressed point on P-384.
    pub(super) fn p384(point: Vec<u8>) -> Result<Self, String> {
        if !is_point(&point, 48) {
            return Err(NOT_A_POINT.into());
        }
        Ok(Self::P384(point))
    }

    /// An Ed25519 key.
    pub(super) fn ed25519(key: &[u8]) -> Result<Self, String> {
        key.try_into()
            .map(Self::Ed25519)
            .map_err(|_| "an Ed25519 key has 32 bytes".into())
    }

    /// Whether the key can be used with `algorithm` at all.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Hmac(keys) => keys.iter().any(|(known, _)| *known == algorithm),
            Self::Rsa(_) => algorithm.rsa().is_some(),
            Self::P256(_) => algorithm == ES256,
            Self::P384(_) => algorithm == ES384,
            Self::Ed25519(_) => algorithm == EdDSA,
        }
    }

    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let check = |scheme: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(scheme, key)
                .verify(message, signature)
                .is_ok()
        };
        match self {
            Self::Hmac(keys) => keys
                .iter()
                .find(|(known, _)| *known == algorithm)
                .is_some_and(|(_, key)| hmac::verify(key, message, signature).is_ok()),
            Self::Rsa(key) => algorithm
                .rsa()
                .is_some_and(|scheme| key.verify(scheme, message, signature).is_ok()),
            Self::P256(point) => {
                algorithm == ES256 && check(&signature::ECDSA_P256_SHA256_FIXED, point)
            }
            Self::P384(point) => {
                algorithm == ES384 && check(&signature::ECDSA_P384_SHA384_FIXED, point)
            }
            Self::Ed25519(key) => algorithm == EdDSA && check(&signature::ED25519, key),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Hmac(_) => "an HMAC secret",
            Self::Rsa(_) => "an RSA key",
            Self::P256(_) => "a P-256 key",
            Self::P384(_) => "a P-384 key",
            Self::Ed25519(_) => "an Ed25519 key",
        }
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

const NOT_A_POINT: &str = "the key is no uncompressed point of its curve; export the key again";

fn is_point(point: &[u8], coordinate: usize) -> bool {
    point.len() == 1 + 2 * coordinate && point[0] == 4
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

// === impl Key ===

impl Key {
    /// Binds a key to its algorithms.
    ///
    /// # Errors
    /// What to do, where the list is empty or an algorithm does not fit the key.
    pub(super) fn new(
        kid: Option<Box<str>>,
        algorithms: Vec<Algorithm>,
        material: Material,
    ) -> Result<Self, String> {
        if algorithms.is_empty() {
            return Err("allows no algorithm; list at least one".into());
        }
        match algorithms
            .iter()
            .find(|algorithm| !material.fits(**algorithm))
        {
            Some(misfit) => Err(format!(
                "is {}, which {misfit:?} cannot use",
                material.name()
            )),
            None => Ok(Self {
                kid,
                algorithms,
                material,
            }),
        }
    }

    /// Whether some token could be checked with both.
    pub(super) fn clashes(&self, other: &Self) -> bool {
        self.kid.is_some()
            && self.kid == other.kid
            && self
                .algorithms
                .iter()
                .any(|algorithm| other.algorithms.contains(algorithm))
    }
}

/// The algorithm for which more keys have no `kid` than a token is tried with, if there is one.
pub(super) fn crowded(keys: &[Key]) -> Option<Algorithm> {
    let unnamed = || keys.iter().filter(|key| key.kid.is_none());
    let count = |algorithm: &Algorithm| {
        let fitting = unnamed().filter(|key| key.algorithms.contains(algorithm));
        fitting.count()
    };
    unnamed()
        .flat_map(|key| key.algorithms.iter().copied())
        .find(|algorithm| count(algorithm) > CANDIDATES_MAX)
}

/// What came of looking for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// A key made this signature.
    Good,
    /// There are keys for this token, and none made this signature.
    Bad,
    /// There is no key for this token.
    NoKey,
}

// === impl KeySet ===

impl KeySet {
    pub(super) fn new(keys: Vec<Key>) -> Self {
        static VERSION: AtomicU64 = AtomicU64::new(1);
        Self {
            keys,
            version: VERSION.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Checks a signature with the keys that the token's header allows.
    pub(super) fn check(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Checked {
        let fitting = || {
            self.keys
                .iter()
                .filter(move |key| key.algorithms.contains(&algorithm))
        };
        // The key that the token names comes first, and does not count. There may be two: one among the
        // settings and one in the file of a key set.
        let named = fitting().filter(|key| kid.is_some() && key.kid.as_deref() == kid);
        // A key without a name serves tokens of any name, and a token without a name any key.
        let others = fitting().filter(|key| key.kid.is_none() || kid.is_none());
        let mut candidates = named.chain(others.take(CANDIDATES_MAX)).peekable();
        if candidates.peek().is_none() {
            Checked::NoKey
        } else if candidates.any(|key| key.material.verifies(algorithm, message, signature)) {
            Checked::Good
        } else {
            Checked::Bad
        }
    }
}
