//! TLS on public listeners: our own `ServerConfig`, certificates picked by SNI, all of it replaced
//! while running.

use arc_swap::ArcSwap;
use hub_config::runtime::{Tls, TlsVersion};
use pingora::listeners::tls::Acceptor;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

/// TLS of one listener, as it stands now. New connections take what is current; those that have
/// shaken hands keep what they have.
pub(crate) struct ListenerTls {
    current: ArcSwap<Current>,
    /// Survives reloads, so that clients resume their sessions across them.
    tickets: Arc<dyn ProducesTickets>,
}

struct Current {
    acceptor: Acceptor,
    certificates: Vec<LoadedCertificate>,
}

/// Certificates that were read and checked, ready to be put in force.
pub(crate) struct Prepared(Current);

/// What operators want to know of a certificate in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoadedCertificate {
    /// The file it came from.
    pub(crate) file: PathBuf,
    /// Names it is served for, in lower case.
    pub(crate) names: Vec<String>,
    /// End of its validity, in seconds since 1970.
    pub(crate) not_after_unix_seconds: i64,
    /// With its intermediates, by which a renewed one is told from its predecessor.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
}

/// Why certificates could not be put in force; the old ones stay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(
        "cannot read the certificates in {file}: {message}; it must be PEM, the certificate first, then its intermediates"
    )]
    Certificate { file: PathBuf, message: String },
    #[error("cannot read the key in {file}: {message}; it must be PEM (PKCS#8, PKCS#1 or SEC1)")]
    Key { file: PathBuf, message: String },
    #[error("the key in {key} does not belong to the certificate in {certificate}")]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

/// Picks a certificate by SNI. Host names match exactly first, then by one wildcard label, then the
/// first certificate of the list serves.
#[derive(Debug)]
struct BySni {
    exact: HashMap<String, Arc<CertifiedKey>>,
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    fallback: Arc<CertifiedKey>,
}

impl ListenerTls {
    /// Loads everything, or says what is wrong with which file.
    pub(crate) fn load(settings: &Tls) -> Result<Self, TlsError> {
        let tickets = ring::Ticketer::new()?;
        let current = Current::load(settings, &tickets)?;
        Ok(Self {
            current: ArcSwap::from_pointee(current),
            tickets,
        })
    }

    /// Reads new settings and files without putting them in force.
    pub(crate) fn prepare(&self, settings: &Tls) -> Result<Prepared, TlsError> {
        Current::load(settings, &self.tickets).map(Prepared)
    }

    /// Puts what was prepared in force for connections to come.
    pub(crate) fn commit(&self, prepared: Prepared) {
        self.current.store(Arc::new(prepared.0));
    }

    /// Shakes hands with a client.
    pub(crate) async fn accept(
        &self,
        raw: super::raw::Raw,
    ) -> pingora::Result<pingora::protocols::tls::TlsStream<super::raw::Raw>> {
        let current = self.current.load_full();
        current.acceptor.tls_handshake(raw).await
    }

    /// The certificates in force.
    pub(crate) fn certificates(&self) -> Vec<LoadedCertificate> {
        self.current.load().certificates.clone()
    }
}

impl Prepared {
    /// What would be in force.
    pub(crate) fn certificates(&self) -> &[LoadedCertificate] {
        &self.0.certificates
    }
}

impl std::fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerTls")
            .field("certificates", &self.current.load().certificates)
            .finish_non_exhaustive()
    }
}

impl Current {
    fn load(settings: &Tls, tickets: &Arc<dyn ProducesTickets>) -> Result<Self, TlsError> {
        let mut certificates = Vec::new();
        let mut keys = Vec::new();
        for (certificate_file, key_file) in &settings.certificates {
            let (loaded, key) = load_pair(certificate_file, key_file)?;
            certificates.push(loaded);
            keys.push(key);
        }
        let resolver = BySni::new(&certificates, &keys);
        let versions: &[&rustls::SupportedProtocolVersion] = match settings.version_min {
            TlsVersion::V12 => &[&version::TLS12, &version::TLS13],
            TlsVersion::V13 => &[&version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.ticketer = Arc::clone(tickets);
        // Early data could be replayed against upstreams; it stays off.
        config.max_early_data_size = 0;
        config.alpn_protocols = if settings.http2 {
            vec![b"h2".to_vec(), b"http/1.1".to_vec()]
        } else {
            vec![b"http/1.1".to_vec()]
        };
        Ok(Self {
            acceptor: Acceptor::from_server_config(Arc::new(config)),
            certificates,
        })
    }
}

fn load_pair(
    certificate_file: &Path,
    key_file: &Path,
) -> Result<(LoadedCertificate, Arc<CertifiedKey>), TlsError> {
    let bad_certificate = |message: String| TlsError::Certificate {
        file: certificate_file.to_owned(),
        message,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate_file)
        .map_err(|e| bad_certificate(e.to_string()))?
        .collect::<Result<_, _>>()
        .map_err(|e| bad_certificate(e.to_string()))?;
    let leaf = chain
        .first()
        .ok_or_else(|| bad_certificate("there is no certificate in it".into()))?;
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|e| bad_certificate(e.to_string()))?;
    let loaded = LoadedCertificate {
        file: certificate_file.to_owned(),
        names: names(&parsed),
        not_after_unix_seconds: parsed.validity().not_after.timestamp(),
        chain: chain.as_slice().into(),
    };
    let bad_key = |message: String| TlsError::Key {
        file: key_file.to_owned(),
        message,
    };
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|e| bad_key(e.to_string()))?;
    let key = ring::sign::any_supported_type(&key).map_err(|e| bad_key(e.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|_| TlsError::Mismatch {
        certificate: certificate_file.to_owned(),
        key: key_file.to_owned(),
    })?;
    Ok((loaded, Arc::new(certified)))
}

/// DNS names of the certificate's subject alternative names, in lower case. The common name is not
/// looked at: clients do not either.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => Some(&san.general_names),
            _ => None,
        })
        .flatten()
        .filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some(dns.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

impl BySni {
    fn new(certificates: &[LoadedCertificate], keys: &[Arc<CertifiedKey>]) -> Self {
        let mut exact = HashMap::new();
        let mut wildcard = HashMap::new();
        for (certificate, key) in certificates.iter().zip(keys) {
            for name in &certificate.names {
                let (table, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut wildcard, suffix),
                    None => (&mut exact, name.as_str()),
                };
                // The first certificate that carries a name serves it.
                table
                    .entry(name.to_owned())
                    .or_insert_with(|| Arc::clone(key));
            }
        }
        Self {
            exact,
            wildcard,
            fallback: Arc::clone(&keys[0]),
        }
    }

    fn pick(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else {
            return &self.fallback;
        };
        let by_wildcard = || {
            let (_, suffix) = name.split_once('.')?;
            self.wildcard.get(suffix)
        };
        self.exact
            .get(&name)
            .or_else(by_wildcard)
            .unwrap_or(&self.fallback)
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.pick(hello.server_name())))
    }
}
