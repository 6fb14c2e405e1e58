//! `[route.tenant]`: where a route's tenant comes from.

use super::place::{At, shorten};
use super::scope::Scope;
use super::{suggest, words};
use crate::file;
use crate::runtime::{self, PathPattern, Segment, TenantSource};
use hub_core::HeaderName;

/// `identifies`: whether the route has a plugin that establishes an identity, where that is known.
pub(crate) fn rule(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    file: &file::TenantRule,
    path: Option<&PathPattern>,
    identifies: Option<bool>,
) -> Option<runtime::TenantRule> {
    let list_at = at.key("sources");
    if file.sources.is_empty() {
        let message = "is empty; list at least one of \"credential\", { header = ... }, { subdomain = ... }, \
                       { path = ... }, { query = ... }";
        scope.problem(&list_at, message);
    }
    let mut sources = Vec::new();
    let mut all = true;
    for (i, file) in file.sources.iter().enumerate() {
        let at = list_at.index(i);
        let source = match file {
            file::TenantSource::Credential if identifies == Some(false) => {
                Err(no_plugin("\"credential\""))
            }
            file::TenantSource::Credential => Ok(TenantSource::Credential),
            file::TenantSource::Header(name) => header(name).map(TenantSource::Header),
            file::TenantSource::Subdomain(name) => {
                words::domain(name).map(|domain| TenantSource::Subdomain(format!(".{domain}")))
            }
            file::TenantSource::Path(name) => match path {
                Some(path) => segment(path, name).map(TenantSource::Path),
                // The path's own problem is reported.
                None => {
                    all = false;
                    continue;
                }
            },
            file::TenantSource::Query(name) => query(name).map(TenantSource::Query),
        };
        match source {
            Ok(source) if sources.contains(&source) => {
                scope.problem(&at, "is listed twice; remove one")
            }
            Ok(source) => sources.push(source),
            Err(message) => {
                scope.problem(&at, message);
                all = false;
            }
        }
    }
    if file.from_credential == Some(true) && identifies == Some(false) {
        scope.problem(&at.key("from_credential"), no_plugin("true"));
        all = false;
    }
    // Stable, so that two headers keep the order of the file.
    sources.sort_by_key(rank);
    all.then(|| runtime::TenantRule {
        sources,
        required: file.required,
        from_credential: file.from_credential.or(identifies).unwrap_or(false),
    })
}

fn no_plugin(what: &str) -> String {
    format!("{what} needs a plugin that identifies (jwt, api_key) in this route's plugins")
}

/// Canonical order: what is harder to forge speaks first.
fn rank(source: &TenantSource) -> u8 {
    match source {
        TenantSource::Credential => 0,
        TenantSource::Header(_) => 1,
        TenantSource::Subdomain(_) => 2,
        TenantSource::Path(_) => 3,
        TenantSource::Query(_) => 4,
    }
}

fn header(text: &str) -> Result<HeaderName, String> {
    let name = words::header_name(text)?;
    // Hop-by-hop headers never leave a connection, and the rest of these the gateway writes itself.
    const RESERVED: [&str; 11] = [
        "host",
        "connection",
        "transfer-encoding",
        "content-length",
        "forwarded",
        "te",
        "upgrade",
        "keep-alive",
        "trailer",
        "traceparent",
        "x-request-id",
    ];
    let text = name.as_str();
    if RESERVED.contains(&text) || text.starts_with("x-forwarded-") || text.starts_with("proxy-") {
        return Err(format!(
            "{text:?} is hop-by-hop or set by the gateway itself; choose another header, such as \"x-location-id\""
        ));
    }
    Ok(name)
}

fn segment(path: &PathPattern, name: &str) -> Result<usize, String> {
    let PathPattern::Template(segments) = path else {
        return Err(format!(
            "the route's path has no segment {{{}}}; write path = {{ template = ... }}",
            shorten(name)
        ));
    };
    let names = segments.iter().filter_map(|segment| match segment {
        Segment::One(name) => Some(name.as_str()),
        Segment::Literal(_) | Segment::Rest(_) => None,
    });
    let found = |segment: &Segment| matches!(segment, Segment::One(one) if one == name);
    segments.iter().position(found).ok_or_else(|| {
        let advice = suggest::known(name, names);
        format!(
            "the template has no single segment {{{}}}{advice}",
            shorten(name)
        )
    })
}

fn query(name: &str) -> Result<String, String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if (1..=64).contains(&name.len()) && name.bytes().all(fine) {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "{:?} is no parameter name: write 1 to 64 of A-Z a-z 0-9 _ - .",
            shorten(name)
        ))
    }
}
