//! `[cluster.gate]`.

use super::place::{At, shorten};
use super::process::millis;
use super::scope::Scope;
use super::{path, words};
use crate::file;
use crate::runtime;
use hub_core::{HeaderName, HeaderValue, LocationId};

/// Most requests of a gate, and most headers of one of them.
const REQUESTS_MAX: usize = 64;
const HEADERS_MAX: usize = 32;
/// Longest text that is looked for in a body, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Headers of a message's framing and of its connection, and the host, which has a key of its own.
const NOT_HERE: [&str; 10] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "proxy-connection",
    "expect",
];

pub(super) fn gate(scope: &mut Scope<'_>, at: &At<'_>, file: &file::Gate) -> Option<runtime::Gate> {
    let list_at = at.key("requests");
    if file.requests.len() > REQUESTS_MAX {
        scope.problem(
            &list_at,
            format!("has more than {REQUESTS_MAX} requests; remove some"),
        );
        return None;
    }
    let mut requests: Vec<runtime::GateRequest> = Vec::new();
    let mut all = true;
    for (i, file) in file.requests.iter().enumerate() {
        let at = list_at.index(i);
        if requests.iter().any(|other| other.name == file.name) {
            let name = shorten(&file.name);
            let message = format!("{name:?} is taken by another request of this gate; rename one");
            scope.problem(&at.key("name"), message);
        }
        match request(scope, &at, file) {
            Some(request) => requests.push(request),
            None => all = false,
        }
    }
    all.then_some(runtime::Gate {
        warm_connections: file.warm_connections,
        requests,
    })
}

fn request(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    file: &file::GateRequest,
) -> Option<runtime::GateRequest> {
    let mut told = |key: &str, message: String| scope.problem(&at.key(key), message);
    let name = words::name_is_well_formed(&file.name)
        .map_err(|message| told("name", message))
        .ok();
    let tenant = match &file.tenant {
        None => Some(None),
        Some(id) => LocationId::parse(id.as_bytes())
            .map_err(|error| told("tenant", format!("{:?}: {error}", shorten(id))))
            .ok()
            .map(Some),
    };
    let method = words::method(&file.method)
        .map_err(|message| told("method", message))
        .ok();
    let path = path::target(&file.path)
        .map_err(|message| told("path", message))
        .ok();
    let host = match &file.host {
        None => Some(None),
        Some(host) => super::cluster::host_and_port(host)
            .map_err(|message| told("host", message))
            .ok()
            .map(Some),
    };
    let text = match &file.body_contains {
        None => Some(None),
        Some(text) => body_text(text)
            .map_err(|message| told("body_contains", message))
            .ok()
            .map(Some),
    };
    let digest = match &file.body_sha256 {
        None => Some(None),
        Some(text) => digest(text)
            .map_err(|message| told("body_sha256", message))
            .ok()
            .map(Some),
    };
    let headers = headers(scope, &at.key("headers"), &file.headers);
    name?;
    path?;
    Some(runtime::GateRequest {
        name: file.name.clone(),
        tenant: tenant?,
        method: method?,
        path: file.path.clone(),
        host: host?,
        headers: headers?,
        status: file.status,
        body_contains: text?,
        body_sha256: digest?,
        latency_max: millis(file.latency_ms_max),
    })
}

fn headers(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    list: &[file::HeaderMatch],
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    if list.len() > HEADERS_MAX {
        scope.problem(
            at,
            format!("has more than {HEADERS_MAX} headers; remove some"),
        );
        return None;
    }
    let mut headers = Vec::new();
    for (i, file) in list.iter().enumerate() {
        let at = at.index(i);
        let name = words::header_name(&file.name).and_then(|name| {
            if NOT_HERE.contains(&name.as_str()) {
                return Err(format!(
                    "{:?} is not for a gate to set; remove it",
                    name.as_str()
                ));
            }
            Ok(name)
        });
        let name = name.map_err(|message| scope.problem(&at.key("name"), message));
        let value = words::header_value(file.value.as_deref().unwrap_or_default())
            .map_err(|message| scope.problem(&at.key("value"), message));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.push((name, value));
        }
    }
    (headers.len() == list.len()).then_some(headers)
}

fn digest(text: &str) -> Result<[u8; 32], String> {
    let wrong =
        || "is no SHA-256; write 64 hexadecimal digits, as `sha256sum` prints them".to_owned();
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok(digest)
}

/// A text to look for in a body.
pub(super) fn body_text(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("is empty, which every body contains; remove it".into()),
        1..=TEXT_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(format!(
            "has more than {TEXT_BYTES_MAX} bytes; a part of it will do"
        )),
    }
}
