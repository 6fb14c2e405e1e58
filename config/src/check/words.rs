//! Rules for names, hosts, headers and addresses that several sections share.

use super::place::{At, shorten};
use super::scope::Scope;
use hub_core::{HeaderName, HeaderValue, Method};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Position of each section by its name; the first of two with the same name counts.
pub(crate) type Names<'f> = HashMap<&'f str, usize>;

/// Checks the names of all `[[section]]` tables: well formed and unique.
pub(crate) fn names<'f>(
    scope: &mut Scope<'_>,
    section: &'static str,
    all: impl Iterator<Item = &'f str>,
) -> Names<'f> {
    let mut names = Names::new();
    for (i, name) in all.enumerate() {
        let section_at = At::ROOT.key(section);
        let entry_at = section_at.index(i);
        let at = entry_at.key("name");
        if let Err(message) = name_is_well_formed(name) {
            scope.problem(&at, message);
        }
        if let Some(first) = names.get(name) {
            if !name.is_empty() {
                let first_at = section_at.index(*first);
                let line = scope.line(&first_at.key("name")).unwrap_or_default();
                scope.problem(
                    &at,
                    format!("{name:?} is taken by the {section} on line {line}; rename one"),
                );
            }
        } else {
            names.insert(name, i);
        }
    }
    names
}

/// The name of a section, or of a part of one.
pub(crate) fn name_is_well_formed(name: &str) -> Result<(), String> {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    if (1..=64).contains(&name.len()) && name.bytes().all(fine) {
        return Ok(());
    }
    let name = shorten(name);
    Err(format!("{name:?} is no name: write 1 to 64 of a-z 0-9 _ -"))
}

/// Finds what a key refers to.
pub(crate) fn refer(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    what: &str,
    names: &Names<'_>,
    name: &str,
) -> Option<usize> {
    let found = names.get(name).copied();
    if found.is_none() {
        scope.problem(at, unknown(what, names, name));
    }
    found
}

/// The message for a name that nothing has.
pub(crate) fn unknown(what: &str, names: &Names<'_>, name: &str) -> String {
    let advice = super::suggest::known(name, names.keys().copied());
    format!("no {what} is named {:?}{advice}", shorten(name))
}

/// Checks every item of a list; also that none is there twice.
pub(crate) fn each<T: PartialEq>(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    list: &[String],
    check: impl Fn(&String) -> Result<T, String>,
) -> Option<Vec<T>> {
    let mut items = Vec::with_capacity(list.len());
    let mut all = true;
    for (i, text) in list.iter().enumerate() {
        match check(text) {
            Ok(item) if items.contains(&item) => {
                let message = format!("{:?} is listed twice; remove one", shorten(text));
                scope.problem(&at.index(i), message);
            }
            Ok(item) => items.push(item),
            Err(message) => {
                scope.problem(&at.index(i), message);
                all = false;
            }
        }
    }
    all.then_some(items)
}

/// A host name or IP address, in lower case, as the front gives it to routes.
pub(crate) fn host(text: &str) -> Result<String, String> {
    let shown = shorten(text);
    if text.is_empty() {
        return Err("is empty; write a host name".into());
    }
    if !text.is_ascii() {
        return Err(format!("{shown:?} is not ASCII; write its xn-- form"));
    }
    let lower = text.to_ascii_lowercase();
    if let Some(inner) = lower
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let address: Result<Ipv6Addr, _> = inner.parse();
        return address
            .map(|address| format!("[{address}]"))
            .map_err(|_| format!("{shown:?} is not an IPv6 address in brackets"));
    }
    if lower.contains("://") || lower.contains('/') {
        return Err(format!("{shown:?} is a URL; write the host alone"));
    }
    if lower.contains(':') {
        return Err(format!("{shown:?} has a port; write the host alone"));
    }
    if lower.ends_with('.') {
        return Err(format!("{shown:?} ends with a dot; leave it out"));
    }
    if lower.contains('*') {
        return Err(format!(
            "{shown:?} has a wildcard in the wrong place; only a leading \"*.\" in front of a domain is one"
        ));
    }
    let label = |label: &str| {
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&label.len())
            && label.bytes().all(fine)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if lower.len() > 253 || !lower.split('.').all(label) {
        return Err(format!(
            "{shown:?} is no host name: labels of 1 to 63 of a-z 0-9 - _, joined by dots, 253 in all"
        ));
    }
    Ok(lower)
}

/// A domain name: a host that is not an address.
pub(crate) fn domain(text: &str) -> Result<String, String> {
    let name = host(text)?;
    let numeric = name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if name.starts_with('[') || numeric {
        return Err(format!(
            "{:?} is an address; write a domain name",
            shorten(text)
        ));
    }
    Ok(name)
}

/// A value of `Origin`, as browsers send it.
pub(crate) fn origin(text: &str) -> Result<HeaderValue, String> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let fine = rest.is_some_and(|rest| {
        let name = match rest.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => name,
            Some(_) | None => rest,
        };
        // Browsers send origins in lower case, and they are compared as a whole.
        host(name).is_ok_and(|lower| lower == name)
    });
    let value = HeaderValue::from_str(text).ok().filter(|_| fine);
    value.ok_or_else(|| {
        format!(
            "{:?} is no origin; write scheme and host in lower case, such as \
             \"https://app.example.com\", without a path",
            shorten(text)
        )
    })
}

/// A header's name.
pub(crate) fn header_name(text: &str) -> Result<HeaderName, String> {
    if text.len() > 256 {
        return Err("is longer than 256 characters; write a header's name".into());
    }
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        format!(
            "{:?} is no header name; write one such as \"x-tenant\"",
            shorten(text)
        )
    })
}

/// A header's value.
pub(crate) fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text)
        .ok()
        .filter(|_| text.trim() == text)
        .ok_or_else(|| {
            "can be no header's value: no line breaks, and no white space at its ends".into()
        })
}

/// A method that listeners take.
pub(crate) fn method(text: &str) -> Result<Method, String> {
    let shown = shorten(text);
    let upper = text.to_ascii_uppercase();
    let method = Method::from_bytes(text.as_bytes())
        .ok()
        .filter(|_| text.len() <= 32);
    let method =
        method.ok_or_else(|| format!("{shown:?} is no method; write one such as \"GET\""))?;
    if matches!(upper.as_str(), "CONNECT" | "TRACE") {
        return Err(format!("{shown:?} is refused by every listener; remove it"));
    }
    if upper != *text {
        return Err(format!(
            "{shown:?} is not upper case, and methods have a case; write {:?}",
            shorten(&upper)
        ));
    }
    Ok(method)
}

/// `host:port` with a literal address.
pub(crate) fn literal_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let shown = shorten(text);
        if text.parse::<IpAddr>().is_ok() {
            format!("{shown:?} has no port; write \"address:port\", IPv6 in brackets")
        } else {
            format!(
                "{shown:?} is no literal address with a port; write one such as \"0.0.0.0:8080\" or \"[::]:8080\""
            )
        }
    })
}

/// True where the second socket could not be bound beside the first.
pub(crate) fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let any = |one: SocketAddr| one.ip().is_unspecified();
    a.port() != 0
        && a.port() == b.port()
        && a.is_ipv4() == b.is_ipv4()
        && (a.ip() == b.ip() || any(a) || any(b))
}

/// A unix socket's path fits into `sockaddr_un`.
pub(crate) fn unix_path(scope: &Scope<'_>, written: &str) -> Result<std::path::PathBuf, String> {
    let path = scope.path(written);
    let bytes = path.as_os_str().as_encoded_bytes();
    if written.is_empty() || bytes.contains(&0) {
        return Err("needs a path after \"unix:\"".into());
    }
    if bytes.len() > 107 {
        return Err(format!(
            "the path of a unix socket has at most 107 bytes, this one has {}",
            bytes.len()
        ));
    }
    Ok(path)
}
