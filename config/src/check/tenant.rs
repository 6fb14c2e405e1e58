//! `[[tenant]]`, and what a line of the directory has in common with it.

use super::place::{At, shorten};
use super::words::{Names, unknown};
use crate::file::{self, Colour};
use crate::runtime::{self, Overlay, Quota};
use hub_core::{LocationId, Slug};
use std::collections::BTreeMap;
use std::time::Duration;

/// What tenants refer to.
pub(crate) struct Known<'k> {
    pub(crate) routes: &'k Names<'k>,
    pub(crate) cluster_names: &'k Names<'k>,
    pub(crate) clusters: &'k [file::Cluster],
    pub(crate) defaults: &'k file::Tenants,
}

/// Takes problems; the message is made only where it will be kept, since a directory can have a
/// million of them.
pub(crate) type Sink<'s> = dyn FnMut(&At<'_>, &dyn Fn() -> String) + 's;

/// Checks one tenant. `at` is where it stands.
pub(crate) fn tenant(
    at: &At<'_>,
    file: &file::Tenant,
    known: &Known<'_>,
    sink: &mut Sink<'_>,
) -> Option<runtime::Tenant> {
    let id = LocationId::parse(file.id.as_bytes());
    let id = id.map_err(|error| {
        sink(&at.key("id"), &|| {
            format!("{:?} is no location id: {error}", shorten(&file.id))
        });
    });
    let slug = file
        .slug
        .as_deref()
        .map(Slug::parse)
        .transpose()
        .map_err(|error| {
            let text = file.slug.as_deref().unwrap_or_default();
            sink(&at.key("slug"), &|| format!("{:?}: {error}", shorten(text)));
        });
    in_range(
        &at.key("requests_per_second"),
        file.requests_per_second,
        1_000_000_000,
        sink,
    );
    in_range(&at.key("burst"), file.burst, 1_000_000_000, sink);
    in_range(
        &at.key("in_flight_max"),
        file.in_flight_max,
        1_000_000,
        sink,
    );
    in_range(
        &at.key("websockets_max"),
        file.websockets_max,
        1_000_000,
        sink,
    );
    let quota = quota(at, file, known.defaults, sink);
    let overlay = overlay(at, file, known, sink);
    Some(runtime::Tenant {
        id: id.ok()?,
        slug: slug.ok()?,
        enabled: file.enabled,
        quota,
        in_flight_max: file.in_flight_max.or(known.defaults.default_in_flight_max),
        websockets_max: file
            .websockets_max
            .or(known.defaults.default_websockets_max),
        overlay: overlay?,
    })
}

fn in_range(at: &At<'_>, value: Option<u32>, max: u32, sink: &mut Sink<'_>) {
    if let Some(value) = value.filter(|value| !(1..=max).contains(value)) {
        let message = || format!("{value} is out of range: write a whole number from 1 to {max}");
        sink(at, &message);
    }
}

fn quota(
    at: &At<'_>,
    file: &file::Tenant,
    defaults: &file::Tenants,
    sink: &mut Sink<'_>,
) -> Option<Quota> {
    let requests = file
        .requests_per_second
        .or(defaults.default_requests_per_second);
    if requests.is_none() && file.burst.is_some() {
        sink(&at.key("burst"), &|| {
            "has no effect without a quota; add requests_per_second, or remove it".into()
        });
    }
    requests.map(|requests| Quota {
        requests,
        period: Duration::from_secs(1),
        burst: file.burst.or(defaults.default_burst).unwrap_or(requests),
    })
}

/// `None` where something does not exist; `Some(None)` for nearly all tenants.
fn overlay(
    at: &At<'_>,
    file: &file::Tenant,
    known: &Known<'_>,
    sink: &mut Sink<'_>,
) -> Option<Option<Box<Overlay>>> {
    if file.colours.is_empty() && file.routes.is_empty() {
        return Some(None);
    }
    let colours = colours(&at.key("colours"), &file.colours, known, sink);
    let clusters = clusters(&at.key("routes"), &file.routes, known, sink);
    Some(Some(Box::new(Overlay {
        colours: colours?,
        clusters: clusters?,
    })))
}

fn colours(
    at: &At<'_>,
    file: &BTreeMap<String, Colour>,
    known: &Known<'_>,
    sink: &mut Sink<'_>,
) -> Option<Vec<(usize, Colour)>> {
    let mut colours = Vec::new();
    let mut all = true;
    for (name, colour) in file {
        let at = at.key(name);
        let Some(index) = known.cluster_names.get(name.as_str()).copied() else {
            sink(&at, &|| unknown("cluster", known.cluster_names, name));
            all = false;
            continue;
        };
        let endpoints = known.clusters.get(index).map(|cluster| match colour {
            Colour::Blue => &cluster.endpoints.blue,
            Colour::Green => &cluster.endpoints.green,
        });
        if endpoints.is_some_and(Vec::is_empty) {
            sink(&at, &|| {
                format!(
                    "cluster {name:?} has no endpoint of this colour; add one, or choose the other"
                )
            });
        }
        colours.push((index, *colour));
    }
    all.then_some(colours)
}

fn clusters(
    at: &At<'_>,
    file: &BTreeMap<String, String>,
    known: &Known<'_>,
    sink: &mut Sink<'_>,
) -> Option<Vec<(usize, usize)>> {
    let mut clusters = Vec::new();
    let mut all = true;
    for (route, cluster) in file {
        let at = at.key(route);
        let route_index = known.routes.get(route.as_str()).copied();
        let cluster_index = known.cluster_names.get(cluster.as_str()).copied();
        if route_index.is_none() {
            sink(&at, &|| unknown("route", known.routes, route));
        }
        if cluster_index.is_none() {
            sink(&at, &|| unknown("cluster", known.cluster_names, cluster));
        }
        match (route_index, cluster_index) {
            (Some(route), Some(cluster)) => clusters.push((route, cluster)),
            (None, _) | (_, None) => all = false,
        }
    }
    all.then_some(clusters)
}
