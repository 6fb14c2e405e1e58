//! What the gateway must answer, read off the specification: slow, plain, and without any of the
//! gateway's code.

use crate::gateway::Rule;
use crate::generate::Request;

pub(crate) struct Tenant {
    pub(crate) id: &'static str,
    pub(crate) slug: Option<&'static str>,
    pub(crate) enabled: bool,
}

const fn tenant(id: &'static str, slug: Option<&'static str>, enabled: bool) -> Tenant {
    Tenant { id, slug, enabled }
}

/// Chosen to be confused: ids that differ by case or punctuation, ids that are others' slugs.
pub(crate) const TENANTS: &[Tenant] = &[
    tenant("loc_A", Some("acme"), true),
    tenant("LOC_A", Some("loc-a"), true),
    tenant("loc_a", None, true),
    tenant("loc-a", Some("bolt"), true),
    tenant("acme", Some("zeta"), true),
    tenant("zeta", Some("x1"), true),
    tenant("1", Some("1"), true),
    tenant("ve9EPM428h8vShlRW1KT", Some("ve9epm428h8vshlrw1kt"), true),
    tenant(
        "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd",
        None,
        true,
    ),
    tenant("dead_1", Some("dead"), false),
    tenant("dead", Some("dead-2"), false),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Tenant(String),
    Nobody,
    Refused(&'static str),
}

/// What one place says.
enum Says {
    Nothing,
    Nonsense,
    Id(String),
    Slug(String),
}

pub(crate) fn judge(rule: &Rule, request: &Request) -> Verdict {
    let credential: Option<String> = request.identity.clone().flatten();
    let mut says: Vec<Says> = Vec::new();
    if let Some(id) = &credential {
        says.push(Says::Id(id.clone()));
    }
    if rule.header {
        says.push(header(request, "x-location-id"));
    }
    if rule.second_header {
        says.push(header(request, "x-tenant"));
    }
    if rule.subdomain {
        says.push(subdomain(&request.host));
    }
    if rule.path {
        says.push(path(request));
    }
    if rule.query {
        says.push(query(request));
    }

    if says.iter().any(|one| matches!(one, Says::Nonsense)) {
        return Verdict::Refused("tenant_malformed");
    }
    // Who is named, as ids. A slug without an enabled tenant gets an id that nobody can have.
    let mut ids: Vec<String> = Vec::new();
    for one in &says {
        match one {
            Says::Nothing | Says::Nonsense => {}
            Says::Id(id) => ids.push(id.clone()),
            Says::Slug(slug) => {
                let owner = TENANTS
                    .iter()
                    .find(|t| t.enabled && t.slug == Some(slug.as_str()));
                ids.push(owner.map_or(format!("slug:{slug}"), |t| t.id.to_string()));
            }
        }
    }
    let id = match ids.first() {
        None if rule.required => return Verdict::Refused("tenant_missing"),
        None => return Verdict::Nobody,
        Some(first) if ids.iter().any(|other| other != first) => {
            return Verdict::Refused("tenant_mismatch");
        }
        Some(_) if rule.from_credential && credential.is_none() => {
            return Verdict::Refused("tenant_mismatch");
        }
        Some(first) => first.clone(),
    };
    if TENANTS.iter().any(|t| t.enabled && t.id == id) {
        Verdict::Tenant(id)
    } else if rule.authenticated && credential.is_none() {
        Verdict::Refused("tenant_mismatch")
    } else {
        Verdict::Refused("tenant_unknown")
    }
}

fn id(bytes: &[u8]) -> Says {
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    let fine = !bytes.is_empty() && bytes.len() < 65;
    match String::from_utf8(bytes.to_vec()) {
        Ok(text) if fine && text.chars().all(|c| letters.contains(c)) => Says::Id(text),
        _ => Says::Nonsense,
    }
}

fn header(request: &Request, name: &str) -> Says {
    let mut values = Vec::new();
    for (other, value) in &request.headers {
        if other.to_lowercase() == name {
            values.push(value);
        } else if folded(other.as_bytes()) == folded(name.as_bytes()) {
            return Says::Nonsense;
        }
    }
    match values.len() {
        0 => Says::Nothing,
        1 => id(values[0]),
        _ => Says::Nonsense,
    }
}

fn subdomain(host: &str) -> Says {
    let labels: Vec<&str> = host.split('.').collect();
    let n = labels.len();
    if n < 3 || labels[n - 2..] != ["hub", "test"] {
        return Says::Nothing;
    }
    let letters = "abcdefghijklmnopqrstuvwxyz0123456789-";
    let label = labels[0];
    let fine = n == 3
        && !label.is_empty()
        && label.len() < 64
        && label.chars().all(|c| letters.contains(c))
        && !label.starts_with('-')
        && !label.ends_with('-');
    if fine {
        Says::Slug(label.to_string())
    } else {
        Says::Nonsense
    }
}

/// The template is `/rN/l/{location_id}/x`; what the client wrote must begin the same way.
fn path(request: &Request) -> Says {
    let parts: Vec<&str> = request.path.split('/').collect();
    let raw_parts: Vec<&str> = request.path_raw.split('/').collect();
    if raw_parts.len() < 4 || raw_parts[..4] != parts[..4] {
        return Says::Nonsense;
    }
    id(parts[3].as_bytes())
}

fn query(request: &Request) -> Says {
    let Some(query) = &request.query else {
        return Says::Nothing;
    };
    let wanted = folded(b"location_id");
    let key = |part: &str| part.split('=').next().unwrap_or("").to_string();
    // Read by a server that splits at both, and by one that splits at `&` only.
    let lax: Vec<&str> = query.split(['&', ';']).collect();
    let strict: Vec<&str> = query.split('&').collect();
    let like: Vec<&&str> = lax
        .iter()
        .filter(|part| folded(&form_name(&key(part))) == wanted)
        .collect();
    match like.len() {
        0 => Says::Nothing,
        1 if strict.contains(like[0]) && key(like[0]) == "location_id" => {
            let value = like[0].strip_prefix("location_id=").unwrap_or("");
            id(value.as_bytes())
        }
        _ => Says::Nonsense,
    }
}

/// The name that the laxest server makes of a query's key.
fn form_name(key: &str) -> Vec<u8> {
    let bytes = key.as_bytes();
    let mut decoded = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes
            .get(i + 1..i + 3)
            .filter(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        match (bytes[i], hex) {
            (b'%', Some(pair)) => {
                let pair = std::str::from_utf8(pair).expect("digits are ASCII");
                decoded.push(u8::from_str_radix(pair, 16).expect("two digits are a byte"));
                i += 3;
            }
            (b'+', _) => {
                decoded.push(b' ');
                i += 1;
            }
            (other, _) => {
                decoded.push(other);
                i += 1;
            }
        }
    }
    let end = decoded
        .iter()
        .position(|b| matches!(b, b'[' | 0))
        .unwrap_or(decoded.len());
    decoded[..end].trim_ascii().to_vec()
}

/// Lower case, with everything but letters and digits as underscores.
fn folded(name: &[u8]) -> Vec<u8> {
    name.iter()
        .map(|b| {
            if b.is_ascii_alphanumeric() {
                b.to_ascii_lowercase()
            } else {
                b'_'
            }
        })
        .collect()
}
