//! What changes between two configurations, for the dry run, the log and the decision to reload.

mod fields;

use crate::runtime::{Config, Overlay, Tenant};
use fields::Fields;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};

/// What a reload would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diff {
    /// Changes, in the order of the configuration's sections; at most [`Diff::CHANGES_MAX`].
    pub changes: Vec<Change>,
    /// Changes beyond those.
    pub left_out: usize,
    /// What a running process cannot change, as sentences; if there is one, the reload is refused
    /// whole and a restart or upgrade is needed.
    pub needs_upgrade: Vec<String>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// Whether it is new, gone or different.
    pub what: What,
    /// Key path, as `cluster "web".active`.
    pub path: String,
    /// Old and new value, as far as they may be shown; empty for what is new or gone.
    pub detail: String,
}

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Only in the new configuration.
    Added,
    /// Only in the old configuration.
    Removed,
    /// In both, and different.
    Changed,
}

/// Compares two configurations by name, whatever their order. Linear in their size, and what did not
/// change costs a comparison only. No secret is part of the result: where one changed, only that is
/// said.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let mut diff = Diff::default();
    diff.compare("", &fields::process(old), &fields::process(new));
    let configs = (old, new);
    diff.section(configs, &fields::LISTENERS);
    diff.section(configs, &fields::LIMITS);
    diff.section(configs, &fields::PLUGINS);
    diff.section(configs, &fields::CLUSTERS);
    diff.section(configs, &fields::ROUTES);
    diff.tenants(old, new);
    diff.find_upgrades(old, new);
    diff
}

// === impl Diff ===

impl Diff {
    /// Most changes that are listed.
    pub const CHANGES_MAX: usize = 1_000;

    /// Most tenants that are listed one by one; more are summed up.
    pub const TENANTS_MAX: usize = 100;

    /// True where the two configurations mean the same.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.needs_upgrade.is_empty()
    }

    /// Adds a change of something that no configuration holds itself, such as the content of a file
    /// that it names.
    pub fn note_changed(&mut self, path: String, detail: String) {
        self.add(What::Changed, path, detail);
    }

    /// Adds to what is told of the change of a key, if it has one.
    pub fn remark(&mut self, path: &str, remark: &str) {
        for change in self.changes.iter_mut().filter(|one| one.path == path) {
            change.detail = format!("{}; {remark}", change.detail);
        }
    }

    fn add(&mut self, what: What, path: String, detail: String) {
        if self.changes.len() < Self::CHANGES_MAX {
            self.changes.push(Change { what, path, detail });
        } else {
            self.left_out += 1;
        }
    }

    fn section<T>(&mut self, (old, new): (&Config, &Config), section: &fields::Section<T>) {
        let (before, after) = ((section.all)(old), (section.all)(new));
        let mut by_name = None;
        let mut changed = Vec::new();
        let mut kept = 0;
        for (at, one) in after.iter().enumerate() {
            let name = (section.name)(one);
            // Most sections stand where they stood; only where one does not are all looked up.
            let same_place = before.get(at).filter(|other| (section.name)(other) == name);
            let known = same_place.or_else(|| {
                by_name
                    .get_or_insert_with(|| -> HashMap<&str, &T> {
                        before
                            .iter()
                            .map(|one| ((section.name)(one), one))
                            .collect()
                    })
                    .get(name)
                    .copied()
            });
            kept += usize::from(known.is_some());
            if known.is_none_or(|known| !(section.same)((old, known), (new, one))) {
                changed.push((name, known, Some(one)));
            }
        }
        if kept < before.len() {
            let names: HashSet<&str> = after.iter().map(section.name).collect();
            let gone = before
                .iter()
                .filter(|one| !names.contains((section.name)(one)));
            changed.extend(gone.map(|one| ((section.name)(one), Some(one), None)));
        }
        changed.sort_unstable_by_key(|(name, ..)| *name);
        for (name, before, after) in changed {
            let path = format!("{} {name:?}", section.title);
            match (before, after) {
                (Some(before), Some(after)) => self.compare(
                    &path,
                    &(section.fields)(old, before),
                    &(section.fields)(new, after),
                ),
                (Some(_), None) => self.add(What::Removed, path, String::new()),
                (None, _) => self.add(What::Added, path, String::new()),
            }
        }
    }

    /// Both sides list the same fields in the same order; one may list more behind them.
    fn compare(&mut self, path: &str, old: &Fields, new: &Fields) {
        let dot = if path.is_empty() { "" } else { "." };
        for ((key, old), (_, new)) in old.iter().zip(new) {
            if old != new {
                let detail = format!("{} -> {}", old.shown(), new.shown());
                self.add(What::Changed, format!("{path}{dot}{key}"), detail);
            }
        }
    }

    fn tenants(&mut self, old: &Config, new: &Config) {
        let mut counts = [0_usize; 3];
        let mut listed = Vec::new();
        // The text is made for those alone that are listed.
        let mut note = |what: What, tenant: &Tenant, detail: &dyn Fn() -> String| {
            counts[what as usize] += 1;
            if listed.len() < Self::TENANTS_MAX {
                listed.push((what, tenant.id.as_str().to_owned(), detail()));
            }
        };
        let same_indexes = has_same_indexes(old, new);
        let mut kept = 0;
        let mut same_place = old.tenants.iter();
        for (_, tenant) in new.tenants.iter() {
            let known = match same_place.next() {
                Some((_, known)) if known.id == tenant.id => Some(known),
                _ => {
                    let found = old.tenants.get(tenant.id.as_ref());
                    found.map(|index| &old.tenants[index])
                }
            };
            let Some(known) = known else {
                note(What::Added, tenant, &String::new);
                continue;
            };
            kept += 1;
            let same = if same_indexes || (known.overlay.is_none() && tenant.overlay.is_none()) {
                known == tenant
            } else {
                tenant_changes(old, known, new, tenant).is_empty()
            };
            if !same {
                note(What::Changed, tenant, &|| {
                    tenant_changes(old, known, new, tenant)
                });
            }
        }
        let gone = old.tenants.iter().filter(|_| kept < old.tenants.len());
        for (_, tenant) in gone {
            if new.tenants.get(tenant.id.as_ref()).is_none() {
                note(What::Removed, tenant, &String::new);
            }
        }
        if counts.iter().sum::<usize>() <= Self::TENANTS_MAX {
            for (what, id, detail) in listed {
                self.add(what, format!("tenant {id:?}"), detail);
            }
            return;
        }
        for what in [What::Added, What::Removed, What::Changed] {
            let count = counts[what as usize];
            if count > 0 {
                self.add(what, "tenant".into(), format!("{count} tenants"));
            }
        }
    }

    /// Sockets and threads are made once, before anything is served.
    fn find_upgrades(&mut self, old: &Config, new: &Config) {
        if old.gateway.workers != new.gateway.workers {
            let (old, new) = (old.gateway.workers, new.gateway.workers);
            self.needs_upgrade
                .push(format!("gateway.workers changes from {old} to {new}"));
        }
        if old.store_directory != new.store_directory {
            self.needs_upgrade
                .push("directory in the section [store] changes".into());
        }
        if old.admin.address != new.admin.address {
            self.needs_upgrade.push("admin.address changes".into());
        }
        for listener in &old.listeners {
            let name = &listener.name;
            let Some(other) = new.listeners.iter().find(|other| other.name == *name) else {
                self.needs_upgrade
                    .push(format!("listener {name:?} is removed"));
                continue;
            };
            if listener.address != other.address {
                let (old, new) = (listener.address, other.address);
                self.needs_upgrade.push(format!(
                    "listener {name:?}: address changes from {old} to {new}"
                ));
            }
            match (&listener.tls, &other.tls) {
                (Some(_), None) => self
                    .needs_upgrade
                    .push(format!("listener {name:?}: TLS is turned off")),
                (None, Some(_)) => self
                    .needs_upgrade
                    .push(format!("listener {name:?}: TLS is turned on")),
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        for listener in &new.listeners {
            let name = &listener.name;
            if !old.listeners.iter().any(|other| other.name == *name) {
                self.needs_upgrade
                    .push(format!("listener {name:?} is added"));
            }
        }
    }
}

/// True where an overlay's indexes mean the same in both.
fn has_same_indexes(old: &Config, new: &Config) -> bool {
    let clusters = old.clusters.iter().map(|one| &one.name);
    let routes = old.routes.iter().map(|one| &one.name);
    clusters.eq(new.clusters.iter().map(|one| &one.name))
        && routes.eq(new.routes.iter().map(|one| &one.name))
}

/// What is different, in words; empty where nothing is.
fn tenant_changes(old_config: &Config, old: &Tenant, new_config: &Config, new: &Tenant) -> String {
    let mut changes = Vec::new();
    if old.slug != new.slug {
        let slug = |tenant: &Tenant| match &tenant.slug {
            Some(slug) => slug.as_str().to_owned(),
            None => "none".into(),
        };
        changes.push(format!("slug {} -> {}", slug(old), slug(new)));
    }
    if old.enabled != new.enabled {
        changes.push(format!("enabled {} -> {}", old.enabled, new.enabled));
    }
    if old.quota != new.quota {
        let (old, new) = (
            fields::quota(old.quota.as_ref()),
            fields::quota(new.quota.as_ref()),
        );
        changes.push(format!("quota {old} -> {new}"));
    }
    for (what, old, new) in [
        ("in flight", old.in_flight_max, new.in_flight_max),
        ("WebSockets", old.websockets_max, new.websockets_max),
    ] {
        if old != new {
            let text = |max: Option<u32>| max.map_or("unlimited".to_owned(), |max| max.to_string());
            changes.push(format!("{what} {} -> {}", text(old), text(new)));
        }
    }
    if old.overlay.is_some() || new.overlay.is_some() {
        let old = overlay(old_config, old.overlay.as_deref());
        let new = overlay(new_config, new.overlay.as_deref());
        if old != new {
            let text = |all: &BTreeSet<String>| match all.len() {
                0 => "none".to_owned(),
                _ => fields::cut(&all.iter().cloned().collect::<Vec<_>>().join(", ")),
            };
            changes.push(format!("overlay {} -> {}", text(&old), text(&new)));
        }
    }
    changes.join("; ")
}

/// An overlay by names, since the indexes of two configurations do not compare.
fn overlay(config: &Config, overlay: Option<&Overlay>) -> BTreeSet<String> {
    let Some(overlay) = overlay else {
        return BTreeSet::new();
    };
    let cluster = |index: usize| config.clusters[index].name.as_str();
    let colours = overlay
        .colours
        .iter()
        .map(|(index, colour)| format!("{}: {colour:?}", cluster(*index)));
    let clusters = overlay
        .clusters
        .iter()
        .map(|(route, index)| format!("{} to {}", config.routes[*route].name, cluster(*index)));
    colours.chain(clusters).collect()
}

#[cfg(test)]
mod tests;
