//! Certificates for tests: an authority of the test's own, and leaves of any name, age and key type.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Type of a leaf's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    #[default]
    P256,
    /// ECDSA on P-384.
    P384,
    /// Ed25519.
    Ed25519,
}

/// A certificate authority that exists in this test alone.
#[derive(Debug)]
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

/// A leaf certificate with its key.
#[derive(Debug)]
pub struct Leaf {
    /// The certificate alone, as PEM.
    pub certificate_pem: String,
    /// The private key, PKCS#8, as PEM.
    pub key_pem: String,
    /// The certificate, as DER.
    pub certificate_der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

/// Settings of a leaf that is about to be issued. By default: P-256, valid from yesterday for 90
/// days.
#[derive(Debug)]
pub struct LeafBuilder<'a> {
    ca: &'a Ca,
    names: Vec<String>,
    key: KeyKind,
    not_before: SystemTime,
    not_after: SystemTime,
}

// === impl Ca ===

impl Ca {
    /// An authority with this common name, valid from 1975 to 4096.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("ring makes P-256 keys");
        let certificate = params
            .self_signed(&key)
            .expect("the parameters above make a certificate");
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A leaf with these names (DNS names, wildcards, or IP addresses) and the default settings.
    pub fn issue(&self, names: &[&str]) -> Leaf {
        self.leaf(names).issue()
    }

    /// Starts a leaf with settings of its own.
    pub fn leaf(&self, names: &[&str]) -> LeafBuilder<'_> {
        let now = SystemTime::now();
        LeafBuilder {
            ca: self,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            key: KeyKind::default(),
            not_before: now - DAY,
            not_after: now + 90 * DAY,
        }
    }

    /// The authority's certificate, as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes the authority's certificate to `ca.pem` in `directory` and returns its path.
    pub fn write(&self, directory: &Path) -> PathBuf {
        let path = directory.join("ca.pem");
        write(&path, &self.pem);
        path
    }

    /// A store that trusts this authority and no other.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.der.clone())
            .expect("a certificate that was just made can be trusted");
        roots
    }

    /// A TLS client that trusts this authority alone and offers these protocols by ALPN, in this
    /// order; none offers no ALPN.
    pub fn client_config(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut config = client_config(self.roots());
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

// === impl LeafBuilder ===

impl LeafBuilder<'_> {
    /// Takes a key of this type.
    pub fn key(mut self, key: KeyKind) -> Self {
        self.key = key;
        self
    }

    /// Valid between these two moments, both after 1970; whole seconds count. An `until` in the past
    /// makes an expired certificate.
    pub fn valid(mut self, from: SystemTime, until: SystemTime) -> Self {
        (self.not_before, self.not_after) = (from, until);
        self
    }

    /// Signs it.
    ///
    /// # Panics
    /// Where a name is neither a DNS name nor an IP address.
    pub fn issue(self) -> Leaf {
        let algorithm = match self.key {
            KeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
        };
        let key = KeyPair::generate_for(algorithm).expect("ring makes keys of these types");
        let since_1970 = |moment: SystemTime| {
            let seconds = moment
                .duration_since(UNIX_EPOCH)
                .expect("certificates here are valid after 1970");
            date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.as_secs())
        };
        let mut params = CertificateParams::new(self.names.clone())
            .unwrap_or_else(|error| panic!("no certificate for {:?}: {error}", self.names));
        if let Some(first) = self.names.first() {
            params
                .distinguished_name
                .push(DnType::CommonName, first.as_str());
        }
        params.not_before = since_1970(self.not_before);
        params.not_after = since_1970(self.not_after);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&key, &self.ca.issuer)
            .expect("the parameters above make a certificate");
        Leaf {
            certificate_pem: certificate.pem(),
            certificate_der: certificate.der().clone(),
            key_pem: key.serialize_pem(),
            key_der: key.serialize_der(),
        }
    }
}

// === impl Leaf ===

impl Leaf {
    /// Writes `NAME.pem` and `NAME.key` into `directory` and returns both paths. Each is replaced in
    /// one step, so a watcher never reads half a file; the pair is two steps, key first.
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let certificate = directory.join(format!("{name}.pem"));
        let key = directory.join(format!("{name}.key"));
        write(&key, &self.key_pem);
        write(&certificate, &self.certificate_pem);
        (certificate, key)
    }

    /// A TLS server with this certificate, which picks among these protocols by ALPN; none takes no
    /// ALPN.
    pub fn server_config(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate_der.clone()], key)
            .expect("the key was made for this certificate");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// A TLS client that trusts these roots. The provider is named, so that tests need not install one
/// for the whole process.
pub(crate) fn client_config(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn write(path: &Path, text: &str) {
    crate::replace_file(path, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_type_serves_tls() {
        let ca = Ca::new("test authority");
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519] {
            let leaf = ca.leaf(&["a.example", "127.0.0.1"]).key(kind).issue();
            assert_eq!(leaf.server_config(&["h2"]).alpn_protocols, [b"h2".to_vec()]);
        }
    }

    #[test]
    fn files_hold_what_was_issued() {
        let directory = tempfile::tempdir().unwrap();
        let leaf = Ca::new("test authority").issue(&["a.example"]);
        let (certificate, key) = leaf.write(directory.path(), "a");
        assert_eq!(
            std::fs::read_to_string(certificate).unwrap(),
            leaf.certificate_pem
        );
        assert_eq!(std::fs::read_to_string(key).unwrap(), leaf.key_pem);
    }
}
