//! `[gateway]`, `[admin]`, `[access_log]`.

use super::files;
use super::place::At;
use super::scope::Scope;
use super::words;
use crate::runtime::{self, AdminAddress, LogTarget};
use crate::{Secret, file};
use std::path::PathBuf;
use std::time::Duration;

/// Shortest bearer token, in characters.
const TOKEN_LEN_MIN: usize = 16;

pub(crate) fn gateway(file: &file::Gateway) -> runtime::Gateway {
    runtime::Gateway {
        // As typed: how many processors there are may change while the process runs, and is no reason
        // to refuse a reload.
        workers: file.workers.into(),
        drain_notice: millis(file.drain_notice_ms),
        drain_timeout: millis(file.drain_timeout_ms),
        upgrade_timeout: millis(file.upgrade_timeout_ms),
        upgrade_grace: millis(file.upgrade_grace_ms),
        reload_on_change: file.reload_on_change,
        log_level: file.log_level,
    }
}

pub(crate) fn admin(scope: &mut Scope<'_>, file: &file::Admin) -> Option<runtime::Admin> {
    let section = At::ROOT.key("admin");
    let address = address(scope, &section.key("address"), &file.address);
    let token = token(scope, &section, file);
    let audit_file = file
        .audit_file
        .as_ref()
        .and_then(|written| log_file(scope, &section.key("audit_file"), written));
    Some(runtime::Admin {
        address: address?,
        token,
        audit_file,
        requests_per_second: file.requests_per_second,
        refusals_remembered: file.refusals_remembered as usize,
    })
}

fn address(scope: &mut Scope<'_>, at: &At<'_>, text: &str) -> Option<AdminAddress> {
    let result = match text.strip_prefix("unix:") {
        Some(path) => words::unix_path(scope, path).map(AdminAddress::Unix),
        None => words::literal_address(text).and_then(|address| {
            if address.ip().is_loopback() {
                Ok(AdminAddress::Tcp(address))
            } else {
                Err(format!(
                    "{address} is not loopback; the admin API listens on 127.0.0.0/8, [::1] or unix:/path only"
                ))
            }
        }),
    };
    result.map_err(|message| scope.problem(at, message)).ok()
}

fn token(scope: &mut Scope<'_>, section: &At<'_>, file: &file::Admin) -> Option<Secret> {
    let (at, bytes) = match (&file.token_file, &file.token_env) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            let message = "is set beside token_file; keep exactly one of the two";
            scope.problem(&section.key("token_env"), message);
            return None;
        }
        (Some(written), None) => {
            let at = section.key("token_file");
            let (path, bytes) = scope.read_secret(&at, written)?;
            scope.watch(path);
            (at, bytes)
        }
        (None, Some(name)) => {
            let at = section.key("token_env");
            let Some(value) = (scope.env)(name) else {
                // Unless it looks like a name it may be the token itself.
                let message = if is_variable(name) {
                    format!("the environment variable {name:?} is not set; set it before the start")
                } else {
                    "names an environment variable that is not set; the token itself does not belong here"
                        .into()
                };
                scope.problem(&at, message);
                return None;
            };
            (at, value.into_bytes())
        }
    };
    let end = bytes
        .iter()
        .rposition(|b| !matches!(b, b'\n' | b'\r'))
        .map_or(0, |last| last + 1);
    let token = &bytes[..end];
    if token.len() < TOKEN_LEN_MIN {
        let message = format!(
            "the token has {} characters; it needs at least {TOKEN_LEN_MIN}: openssl rand -hex 32 makes one",
            token.len()
        );
        scope.problem(&at, message);
        return None;
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        let message = "the token holds white space or characters outside ASCII, which no Authorization \
                       header can carry; make another";
        scope.problem(&at, message);
        return None;
    }
    Some(Secret::new(token))
}

pub(crate) fn access_log(
    scope: &mut Scope<'_>,
    file: &file::AccessLog,
) -> Option<runtime::AccessLog> {
    let section = At::ROOT.key("access_log");
    let target = match file.target.as_str() {
        "off" => LogTarget::Off,
        "stdout" => LogTarget::Stdout,
        written => LogTarget::File(log_file(scope, &section.key("target"), written)?),
    };
    Some(runtime::AccessLog {
        target,
        queue_lines: file.queue_lines as usize,
        flush_interval: millis(file.flush_interval_ms),
    })
}

/// A file that is written: it need not be there, but its folder must.
/// The folder of the embedded store.
pub(crate) fn store(scope: &mut Scope<'_>, file: &file::Store) -> Option<PathBuf> {
    let written = file.directory.as_ref()?;
    let section = At::ROOT.key("store");
    let at = section.key("directory");
    if written.is_empty() || written.contains('\0') {
        scope.problem(&at, "is empty; write the path of a folder");
        return None;
    }
    let path = scope.path(written);
    if path.exists() && !path.is_dir() {
        scope.problem(&at, format!("{} is no folder", path.display()));
        return None;
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        let message = format!(
            "the folder {} does not exist; make it first",
            parent.display()
        );
        scope.problem(&at, message);
        return None;
    }
    Some(path)
}

fn log_file(scope: &mut Scope<'_>, at: &At<'_>, written: &str) -> Option<PathBuf> {
    if written.is_empty() || written.contains('\0') {
        scope.problem(at, "is empty; write the path of a file");
        return None;
    }
    let path = scope.path(written);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if path.is_dir() {
        scope.problem(
            at,
            format!("{} is a folder; write the path of a file", path.display()),
        );
        return None;
    }
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        scope.problem(
            at,
            format!(
                "the folder {} does not exist; make it first",
                folder.display()
            ),
        );
        return None;
    }
    Some(path)
}

/// Checks a certificate and its key, and gives their paths.
pub(crate) fn certificate(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    file: &file::Certificate,
) -> Option<(PathBuf, PathBuf)> {
    let certificate_at = at.key("certificate_file");
    let certificate = scope.read(&certificate_at, &file.certificate_file);
    let certificate = certificate.and_then(|(path, pem)| match files::certificates(&pem) {
        Ok(_) => Some(path),
        Err(message) => {
            scope.problem(&certificate_at, format!("{}: {message}", path.display()));
            None
        }
    });
    let key_at = at.key("key_file");
    let key = scope.read_secret(&key_at, &file.key_file);
    let key = key.and_then(|(path, pem)| match files::private_key(&pem) {
        Ok(()) => Some(path),
        Err(message) => {
            scope.problem(&key_at, format!("{}: {message}", path.display()));
            None
        }
    });
    Some((certificate?, key?))
}

/// True for what variables of the environment are mostly called.
pub fn is_variable(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(fine)
}

pub(crate) fn millis(count: u32) -> Duration {
    Duration::from_millis(u64::from(count))
}

/// 0 stands for "no such bound".
pub(crate) fn millis_unless_zero(count: u32) -> Option<Duration> {
    (count > 0).then(|| millis(count))
}
