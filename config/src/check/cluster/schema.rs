//! `schema` of a `[[cluster]]`.

use crate::check::place::{At, shorten};
use crate::check::scope::Scope;
use crate::file::{self, HealthKind};
use crate::runtime::{Schema, SchemaRange, SchemaRanges};

/// Most databases of a cluster.
const SCOPES_MAX: usize = 256;
/// Longest name of one, in bytes.
const NAME_BYTES_MAX: usize = 255;

pub(super) fn schema(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    file: &file::Schema,
    cluster: &file::Cluster,
) -> Option<Schema> {
    scopes(scope, &at.key("scopes"), &file.scopes);
    let blue_at = at.key("blue");
    let green_at = at.key("green");
    let blue = file.blue.and_then(|range| checked(scope, &blue_at, range));
    let green = file
        .green
        .and_then(|range| checked(scope, &green_at, range));
    let ranges = if file.from_health {
        let http = matches!(&cluster.health, Some(health) if health.kind == HealthKind::Http);
        let from_at = at.key("from_health");
        if !http {
            let message = "needs a document to read: set health.kind = \"http\", or declare blue and green here";
            scope.problem(&from_at, message);
        }
        if file.blue.is_some() || file.green.is_some() {
            let message = "and a declared range are two answers to one question; remove blue and green here, \
                           or set it to false";
            scope.problem(&from_at, message);
        }
        SchemaRanges::Health
    } else {
        let colours = [
            (&blue_at, &cluster.endpoints.blue, file.blue),
            (&green_at, &cluster.endpoints.green, file.green),
        ];
        for (at, endpoints, range) in colours {
            if !endpoints.is_empty() && range.is_none() {
                let message = "is missing, and the colour has endpoints; say which schema they can run on, \
                               such as { min = 3, max = 5 }, or set from_health = true";
                scope.problem(at, message);
            }
        }
        SchemaRanges::Declared { blue, green }
    };
    Some(Schema {
        scopes: file.scopes.clone(),
        ranges,
    })
}

fn scopes(scope: &mut Scope<'_>, at: &At<'_>, names: &[String]) {
    if names.is_empty() || names.len() > SCOPES_MAX {
        let message = format!("has {} names; give 1 to {SCOPES_MAX}", names.len());
        scope.problem(at, message);
    }
    for (i, name) in names.iter().enumerate().take(SCOPES_MAX) {
        let fine =
            (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
        if !fine {
            let message = format!(
                "{:?} is no name of a database; give 1 to {NAME_BYTES_MAX} bytes without control characters",
                shorten(name)
            );
            scope.problem(&at.index(i), message);
        }
        if names[..i].contains(name) {
            let message = format!("{:?} is there twice; remove one", shorten(name));
            scope.problem(&at.index(i), message);
        }
    }
}

fn checked(scope: &mut Scope<'_>, at: &At<'_>, range: file::SchemaRange) -> Option<SchemaRange> {
    let file::SchemaRange { min, max } = range;
    if min > max {
        let message = format!(
            "{max} is less than min ({min}); max is the newest step that the release knows"
        );
        scope.problem(&at.key("max"), message);
        return None;
    }
    Some(SchemaRange { min, max })
}
