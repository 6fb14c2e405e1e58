//! `[[limit]]` and `[limits]`.

use super::place::{At, shorten};
use super::process::millis;
use super::scope::Scope;
use super::suggest;
use super::words::{self, Names};
use crate::file;
use crate::runtime::{self, LimitBy, Quota};

/// What a limit can be by, as the file says it.
const KNOWN: [&str; 5] = ["address", "tenant", "route", "identity", "header:NAME"];

pub(crate) fn limits(scope: &mut Scope<'_>, files: &[file::Limit]) -> Vec<Option<runtime::Limit>> {
    let section = At::ROOT.key("limit");
    let mut limits = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let at = section.index(i);
        let by = by(&file.by).map_err(|message| scope.problem(&at.key("by"), message));
        limits.push(by.ok().map(|by| runtime::Limit {
            name: file.name.clone(),
            by,
            quota: Quota {
                requests: file.requests,
                period: millis(file.per_ms),
                burst: file.burst.unwrap_or(file.requests),
            },
        }));
    }
    limits
}

fn by(text: &str) -> Result<LimitBy, String> {
    if let Some(name) = text.strip_prefix("header:") {
        return words::header_name(name).map(LimitBy::Header);
    }
    Ok(match text {
        "address" => LimitBy::Address,
        "tenant" => LimitBy::Tenant,
        "route" => LimitBy::Route,
        "identity" => LimitBy::Identity,
        other => {
            let advice = suggest::known(other, KNOWN);
            return Err(format!("unknown value {:?}{advice}", shorten(other)));
        }
    })
}

/// The limits that every request is held to.
pub(crate) fn address_limits(
    scope: &mut Scope<'_>,
    file: &file::Limits,
    names: &Names<'_>,
    limits: &[Option<runtime::Limit>],
) -> Vec<usize> {
    let section = At::ROOT.key("limits");
    let list_at = section.key("address");
    let mut indexes = Vec::new();
    for (i, name) in file.address.iter().enumerate() {
        let at = list_at.index(i);
        let Some(index) = words::refer(scope, &at, "limit", names, name) else {
            continue;
        };
        if let Some(limit) = limits.get(index).and_then(Option::as_ref)
            && limit.by != LimitBy::Address
        {
            let message = format!(
                "limit {name:?} must have by = \"address\": nothing else is known of a request this early"
            );
            scope.problem(&at, message);
        }
        if indexes.contains(&index) {
            scope.problem(&at, format!("{name:?} is listed twice; remove one"));
        }
        indexes.push(index);
    }
    indexes
}
