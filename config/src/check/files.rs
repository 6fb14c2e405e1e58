//! Reading files that a configuration names: bounded, regular files only.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use x509_parser::parse_x509_certificate;

/// Largest key, certificate, authority or token file.
pub(crate) const SMALL_FILE_BYTES_MAX: u64 = 4 << 20;

/// Largest configuration file.
pub(crate) const CONFIG_BYTES_MAX: u64 = 64 << 20;

/// Opens a regular file. A pipe or device in its place would let the load hang, so opening never waits,
/// and what was opened is looked at rather than what the path leads to at another moment.
pub(crate) fn open(path: &Path) -> Result<(File, u64), String> {
    let without_waiting = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(without_waiting)
        .open(path)
        .map_err(|error| advice(&error))?;
    let metadata = file.metadata().map_err(|error| advice(&error))?;
    if !metadata.is_file() {
        return Err("is not a regular file; give the path of one".into());
    }
    Ok((file, metadata.len()))
}

/// Reads a whole regular file of at most `bytes_max` bytes. Never waits for a pipe or a device.
///
/// # Errors
/// What is wrong with it and what to do, to stand after its path.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
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

/// Every certificate of a PEM file, as DER, each of them well-formed X.509.
///
/// # Errors
/// What is wrong with it and what to do, without a byte of the file.
pub fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
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
    // What uses them later takes it for granted that they are X.509.
    for (number, der) in (1..).zip(&all) {
        if !parse_x509_certificate(der).is_ok_and(|(rest, _)| rest.is_empty()) {
            return Err(format!(
                "its PEM block {number} is no X.509 certificate; copy the file again"
            ));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_without_a_writer_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(read(&pipe, 10).unwrap_err().contains("not a regular file"));
        assert!(read(Path::new("/dev/zero"), 10).is_err());
        assert!(read(folder.path(), 10).is_err());
    }

    #[test]
    fn a_pem_block_that_is_no_certificate_is_refused() {
        let pem = "-----BEGIN CERTIFICATE-----\nAAECAwQFBgc=\n-----END CERTIFICATE-----\n";
        let message = certificates(pem.as_bytes()).unwrap_err();
        assert!(message.contains("PEM block 1 is no X.509"), "{message}");
        let good = include_bytes!("../../examples/tls/certificate.pem");
        assert_eq!(certificates(good).unwrap().len(), 1);
        let both = [&good[..], pem.as_bytes()].concat();
        assert!(certificates(&both).unwrap_err().contains("PEM block 2"));
    }
}
