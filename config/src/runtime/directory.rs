//! The table of tenants: built once per snapshot, read once per request.

use super::{Colour, Quota};
use hub_core::{LocationId, LocationIdRef, Slug};
use keys::Keys;

mod keys;

/// One tenant, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tenant {
    /// Its key.
    pub id: LocationId,
    /// Its alias in subdomains.
    pub slug: Option<Slug>,
    /// A disabled tenant is answered as if it did not exist.
    pub enabled: bool,
    /// Its quota; `None`: unlimited.
    pub quota: Option<Quota>,
    /// Requests in flight; `None`: unlimited.
    pub in_flight_max: Option<u32>,
    /// WebSockets open at a time, over all routes, in this process; `None`: unlimited.
    pub websockets_max: Option<u32>,
    /// What it has of its own; `None` for nearly all tenants, which keeps the table small.
    pub overlay: Option<Box<Overlay>>,
}

/// What one tenant has different from the routes and clusters that all share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overlay {
    /// Colour by index of the cluster.
    pub colours: Vec<(usize, Colour)>,
    /// Cluster by index of the route.
    pub clusters: Vec<(usize, usize)>,
}

/// Position of a tenant in its [`Tenants`]; meaningless in any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantIndex(u32);

/// All tenants, found by id or by slug in constant time and without allocation.
#[derive(Debug, Default)]
pub struct Tenants {
    entries: Vec<Tenant>,
    by_id: Keys,
    by_slug: Keys,
}

/// Which key of a new tenant is taken already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The id, by the tenant at this index.
    Id(TenantIndex),
    /// The slug.
    Slug(TenantIndex),
}

impl Tenants {
    /// Makes room for `count` tenants.
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self {
            entries: Vec::with_capacity(count),
            by_id: Keys::default(),
            by_slug: Keys::default(),
        }
    }

    /// Adds a tenant, unless its id or slug is taken.
    pub(crate) fn insert(&mut self, tenant: Tenant) -> Result<TenantIndex, Taken> {
        let index =
            u32::try_from(self.entries.len()).expect("the check bounds the tenants' number");
        self.entries.push(tenant);
        let taken = self.index_last(index);
        if taken.is_err() {
            self.entries.pop();
        }
        taken.map(|()| TenantIndex(index))
    }

    /// Makes the last tenant known by its keys, or changes nothing.
    fn index_last(&mut self, index: u32) -> Result<(), Taken> {
        let entries = &self.entries;
        let tenant = &entries[index as usize];
        let (id, enabled) = (tenant.id.as_str(), tenant.enabled);
        self.by_id
            .insert(id, index, enabled, |i| id_of(entries, i))
            .map_err(|taken| Taken::Id(TenantIndex(taken)))?;
        let Some(slug) = tenant.slug.as_ref().map(Slug::as_str) else {
            return Ok(());
        };
        self.by_slug
            .insert(slug, index, enabled, |i| slug_of(entries, i))
            .map_err(|taken| {
                self.by_id.remove(id, |i| id_of(entries, i));
                Taken::Slug(TenantIndex(taken))
            })
    }

    /// Finds a tenant by its id.
    pub fn get(&self, id: LocationIdRef<'_>) -> Option<TenantIndex> {
        let found = self.by_id.find(id.as_str(), |i| id_of(&self.entries, i))?;
        Some(TenantIndex(found.index))
    }

    /// Finds a tenant by its id, unless it is disabled. As fast as [`Tenants::get`], where looking at
    /// the [`Tenant`] would cost a cache miss more.
    pub fn get_enabled(&self, id: LocationIdRef<'_>) -> Option<TenantIndex> {
        let found = self.by_id.find(id.as_str(), |i| id_of(&self.entries, i))?;
        found.enabled.then_some(TenantIndex(found.index))
    }

    /// Finds a tenant by its slug, which must be in lower case.
    pub fn get_by_slug(&self, slug: &str) -> Option<TenantIndex> {
        let found = self.by_slug.find(slug, |i| slug_of(&self.entries, i))?;
        Some(TenantIndex(found.index))
    }

    /// Every tenant with its index, in the order of their files.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (TenantIndex, &Tenant)> {
        self.entries
            .iter()
            .enumerate()
            .map(|(i, tenant)| (TenantIndex(i as u32), tenant))
    }

    /// Number of tenants.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl std::ops::Index<TenantIndex> for Tenants {
    type Output = Tenant;

    fn index(&self, index: TenantIndex) -> &Tenant {
        &self.entries[index.0 as usize]
    }
}

impl TenantIndex {
    /// As an index into a vector that runs beside [`Tenants`].
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

fn id_of(entries: &[Tenant], index: u32) -> &str {
    entries[index as usize].id.as_str()
}

fn slug_of(entries: &[Tenant], index: u32) -> &str {
    let slug = entries[index as usize].slug.as_ref();
    slug.map_or("", Slug::as_str)
}

impl Overlay {
    /// The tenant's own colour in the cluster with this index.
    pub fn colour(&self, cluster: usize) -> Option<Colour> {
        self.colours
            .iter()
            .find(|(c, _)| *c == cluster)
            .map(|(_, colour)| *colour)
    }

    /// The tenant's own cluster on the route with this index.
    pub fn cluster(&self, route: usize) -> Option<usize> {
        self.clusters
            .iter()
            .find(|(r, _)| *r == route)
            .map(|(_, cluster)| *cluster)
    }
}

#[cfg(test)]
mod tests;
