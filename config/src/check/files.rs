//! Reading files that a configuration names: bounded, regular files only.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Largest key, certificate, authority or token file.
pub(crate) const SMALL_FILE_BYTES_MAX: u64 = 4 << 20;

/// Largest configuration file.
pub(crate) const CONFIG_BYTES_MAX: u64 = 64 << 20;

/// Opens a regular file. A pipe or device in its place would let the load hang.
pub(crate) fn open(path: &Path) -> Result<(File, u64), String> {
    let metadata = std::fs::metadata(path).map_err(|error| advice(&error))?;
    if !metadata.is_file() {
        return Err("is not a regular file; give the path of one".into());
    }
    let file = File::open(path).map_err(|error| advice(&error))?;
    Ok((file, metadata.len()))
}

/// Reads a whole file of at most `bytes_max`.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let (file, len) = open(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(len.min(bytes_max)).unwrap_or(0));
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| advice(&error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("is larger than {bytes_max} bytes"));
    }
    Ok(bytes)
}

/// Every certificate of a PEM file, as DER.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem)
        .map(|one| one.map(|der| der.as_ref().to_vec()))
        .collect();
    // The decoder's own message repeats bytes of the file, which may be a key by mistake.
    let all = all.map_err(|_| "is not well-formed PEM; copy the file again".to_owned())?;
    if all.is_empty() {
        return Err(
            "holds no certificate; it needs a PEM block -----BEGIN CERTIFICATE-----".into(),
        );
    }
    Ok(all)
}

/// Makes sure that a PEM file holds a private key.
pub(crate) fn private_key(pem: &[u8]) -> Result<(), String> {
    PrivateKeyDer::from_pem_slice(pem).map(drop).map_err(|_| {
        "holds no private key; it needs a PEM block of PKCS#8, PKCS#1 or SEC1 \
         (-----BEGIN PRIVATE KEY-----), not encrypted"
            .into()
    })
}

fn advice(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => {
            "does not exist; relative paths start at the configuration's folder".into()
        }
        ErrorKind::PermissionDenied => "may not be read by this user; check owner and mode".into(),
        _ => format!("cannot be read: {error}"),
    }
}
