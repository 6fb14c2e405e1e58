//! tenant: whose request is it? Every place that may name the tenant is read, and all must agree.
//!
//! What each source is, and when it is malformed (400, whatever else the request says):
//!
//! | source | names | malformed |
//! |---|---|---|
//! | credential | the id that a verified credential carries; it counts even where the route does not list it | cannot be |
//! | header | an id | there twice; no id; a header whose name differs only by punctuation (`X_Location_Id`) is there |
//! | subdomain | a slug, as the one label before the domain; the bare domain and other hosts name nothing | more than one label; no slug |
//! | path | an id, in the template's segment | no id; path rewritten by normalisation up to the segment's end, an escape in it included |
//! | query | an id | there twice; no id, so nothing escaped; a name that servers could take for it (see [`query`]) |
//!
//! The answers, in this order; nothing depends on tenants that the caller did not name:
//!
//! 1. [`Reason::TenantMalformed`];
//! 2. [`Reason::TenantMismatch`] where two sources name different tenants, or where only a credential
//!    may name the tenant (`from_credential`) and it names none while another source does. A slug names
//!    the id of its tenant; one without an enabled tenant agrees with no id;
//! 3. [`Reason::TenantMissing`] where nothing names a tenant and the route requires one;
//! 4. [`Reason::TenantUnknown`] where there is no such tenant or it is disabled. On an authenticated
//!    route this is said of the tenant that the credential itself names only; of any other it would tell
//!    who exists, and [`Reason::TenantMismatch`] is answered, as for a tenant that exists but is foreign.
//!
//! Malformed comes first because a value that is no id names no tenant to disagree about, and whether it
//! is one depends on nothing but its bytes.
//!
//! Invariant: ids are compared byte for byte and never decoded, folded or trimmed, so one tenant has one
//! spelling.
//! Invariant: a tenant that is returned is enabled, and is the one that every source named.

use super::route::RouteMatch;
use hub_config::runtime::{TenantIndex, TenantRule, TenantSource, Tenants};
use hub_core::{
    HeaderName, Identity, LocationIdError, LocationIdRef, Reason, Refusal, RequestView, Slug, query,
};

/// A tenant as one source names it.
#[derive(Clone, Copy)]
struct Claim<'a> {
    source: &'static str,
    named: Named<'a>,
}

/// A name without its source. Equal names are the same tenant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named<'a> {
    Id(LocationIdRef<'a>),
    /// A slug that no enabled tenant has.
    Slug(&'a str),
}

/// Finds the tenant of a request on a route with `rule`. `Ok(None)`: none is named and none is required.
///
/// Allocates only to refuse. Cost: one pass over headers or query for each such source, one look-up of
/// the id, and one more of the slug.
///
/// # Errors
/// The four reasons above.
pub fn tenant(
    tenants: &Tenants,
    rule: &TenantRule,
    found: &RouteMatch<'_>,
    view: &RequestView<'_>,
    identity: Option<&Identity>,
    authenticated_route: bool,
) -> Result<Option<TenantIndex>, Refusal> {
    let credential = identity
        .and_then(|identity| identity.tenant.as_ref())
        .map(|id| Claim {
            source: "credential",
            named: Named::Id(id.as_ref()),
        });
    let mut first = credential;
    let mut conflict = None;
    for source in &rule.sources {
        let Some(claim) = read(tenants, source, found, view)? else {
            continue;
        };
        match first {
            None => first = Some(claim),
            // The loop goes on, because a malformed source is told before a conflict.
            Some(first) if first.named != claim.named => {
                conflict = conflict.or(Some((first, claim)))
            }
            Some(_) => {}
        }
    }
    if let Some((one, other)) = conflict {
        return Err(mismatch(one, other));
    }
    let Some(claim) = first else {
        return if rule.required {
            Err(Refusal::new(Reason::TenantMissing))
        } else {
            Ok(None)
        };
    };
    if rule.from_credential && credential.is_none() {
        return Err(not_from_credential(claim));
    }
    let known = match claim.named {
        Named::Id(id) => tenants.get_enabled(id),
        Named::Slug(_) => None,
    };
    match known {
        Some(index) => Ok(Some(index)),
        None => Err(unknown(claim, authenticated_route && credential.is_none())),
    }
}

fn read<'a>(
    tenants: &'a Tenants,
    source: &TenantSource,
    found: &RouteMatch<'_>,
    view: &RequestView<'a>,
) -> Result<Option<Claim<'a>>, Refusal> {
    let (source, named) = match source {
        // Read before all others, listed or not.
        TenantSource::Credential => return Ok(None),
        TenantSource::Header(name) => ("header", header(name, view)?),
        TenantSource::Subdomain(suffix) => ("subdomain", subdomain(tenants, suffix, view.host)?),
        TenantSource::Path(index) => ("path", path(*index, found, view)?),
        TenantSource::Query(name) => {
            let value = view
                .query
                .map_or(Ok(None), |text| query::parameter(text, name));
            let value = value.map_err(malformed)?;
            (
                "query",
                value.map(|value| id(value.as_bytes())).transpose()?,
            )
        }
    };
    Ok(named.map(|named| Claim { source, named }))
}

fn header<'a>(name: &HeaderName, view: &RequestView<'a>) -> Result<Option<Named<'a>>, Refusal> {
    let name = name.as_str().as_bytes();
    let mut value = None;
    for field in view
        .headers
        .iter()
        .filter(|field| field.name.len() == name.len())
    {
        if field.name.eq_ignore_ascii_case(name) {
            if value.replace(field.value).is_some() {
                return Err(malformed("the tenant's header is there twice"));
            }
        } else if looks_like(field.name, name) {
            return Err(malformed("a header looks like the tenant's header"));
        }
    }
    value.map(id).transpose()
}

/// True where both names become one when a server turns punctuation into underscores, as CGI and its
/// heirs do.
fn looks_like(field: &[u8], name: &[u8]) -> bool {
    field.iter().zip(name).all(|(a, b)| {
        a.eq_ignore_ascii_case(b) || !(a.is_ascii_alphanumeric() || b.is_ascii_alphanumeric())
    })
}

fn subdomain<'a>(
    tenants: &'a Tenants,
    suffix: &str,
    host: &'a str,
) -> Result<Option<Named<'a>>, Refusal> {
    let Some(label) = host.strip_suffix(suffix) else {
        return Ok(None);
    };
    let known = tenants
        .get_by_slug(label)
        .filter(|index| tenants[*index].enabled);
    match known {
        Some(index) => Ok(Some(Named::Id(tenants[index].id.as_ref()))),
        // Checked only now, since what is in the table is a slug.
        None => match Slug::parse(label) {
            Ok(_) => Ok(Some(Named::Slug(label))),
            Err(_) => Err(malformed(
                "what stands before the tenant's domain is no slug",
            )),
        },
    }
}

fn path<'a>(
    index: usize,
    found: &RouteMatch<'_>,
    view: &RequestView<'a>,
) -> Result<Option<Named<'a>>, Refusal> {
    let Some(range) = found.segment(index) else {
        return Ok(None);
    };
    let named = id(view.path[range.clone()].as_bytes())?;
    // The upstream gets the raw path and may read it in its own way. Where both begin with the same
    // bytes up to the segment's end, there is no other way to read the tenant.
    let raw = view.path_raw.as_bytes();
    let same = raw.get(..range.end) == Some(&view.path.as_bytes()[..range.end])
        && matches!(raw.get(range.end), None | Some(b'/'));
    if same {
        Ok(Some(named))
    } else {
        Err(malformed(
            "the path is not normal up to the tenant's segment",
        ))
    }
}

fn id(bytes: &[u8]) -> Result<Named<'_>, Refusal> {
    LocationIdRef::parse(bytes)
        .map(Named::Id)
        .map_err(|error| match error {
            LocationIdError::Empty => malformed("the location id is empty"),
            LocationIdError::TooLong => malformed("the location id is too long"),
            LocationIdError::BadByte => malformed("the location id holds a byte that no id has"),
        })
}

#[cold]
fn malformed(detail: &'static str) -> Refusal {
    Refusal::new(Reason::TenantMalformed).with_detail(detail)
}

// Details go to the log alone. The names in them are ids and slugs: short, and of safe characters.

#[cold]
fn mismatch(one: Claim<'_>, other: Claim<'_>) -> Refusal {
    let detail = format!(
        "{} names {:?}, {} names {:?}",
        one.source,
        one.named.text(),
        other.source,
        other.named.text()
    );
    Refusal::new(Reason::TenantMismatch).with_detail(detail)
}

#[cold]
fn not_from_credential(claim: Claim<'_>) -> Refusal {
    let detail = format!(
        "{} names {:?}, the credential names no tenant",
        claim.source,
        claim.named.text()
    );
    Refusal::new(Reason::TenantMismatch).with_detail(detail)
}

#[cold]
fn unknown(claim: Claim<'_>, hide: bool) -> Refusal {
    let detail = format!(
        "{} names {:?}, which does not exist or is disabled",
        claim.source,
        claim.named.text()
    );
    let reason = if hide {
        Reason::TenantMismatch
    } else {
        Reason::TenantUnknown
    };
    Refusal::new(reason).with_detail(detail)
}

impl<'a> Named<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Id(id) => id.as_str(),
            Self::Slug(slug) => slug,
        }
    }
}

#[cfg(test)]
mod tests;
