//! Whether a colour may get requests: its release has to be able to run on the databases of its cluster.
//!
//! Asked at the gate of a rollout ([`admit`]), before a reload, and before the first snapshot of a process
//! ([`Wanted`]). What is in use already is not asked: to refuse it would help nobody.

use super::fence::range;
use super::schema::{self, Misfit};
use super::traffic::Switchboard;
use crate::hub::Hub;
use crate::snapshot::{Snapshot, colour_name};
use hub_config::runtime::{Colour, SchemaRange, SchemaRanges};
use hub_store::MigrationLedger;
use std::collections::{BTreeMap, BTreeSet};

/// When a colour's health document is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Documents {
    /// Not yet: nobody has looked whether the colour answers at all.
    Later,
    /// Now.
    Read,
}

/// Why a colour may not get requests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Inadmissible {
    /// A contract step has taken away what it needs, and no migration brings that back.
    #[error("{0}")]
    Contracted(String),
    /// A database is behind, or what the colour needs is not known.
    #[error("{0}")]
    Unready(String),
    /// Which steps a database has is not known.
    #[error("{0}")]
    Unknown(String),
}

/// Colours that somebody is on, by cluster.
pub(crate) type InUse = BTreeMap<String, BTreeSet<Colour>>;

/// The colours that a snapshot would bring into use, by position of their cluster, and what each can run on.
#[derive(Debug)]
pub(crate) struct Wanted(BTreeMap<(usize, Colour), Result<SchemaRange, String>>);

/// Whether a colour can run on the databases of its cluster as they are.
///
/// # Errors
/// Why not, and what to do.
pub(super) async fn admit(
    hub: &Hub,
    ledger: &dyn MigrationLedger,
    cluster: &str,
    colour: Colour,
    documents: Documents,
) -> Result<(), String> {
    let snapshot = hub.snapshot();
    let mut clusters = snapshot.config.clusters.iter();
    let Some(index) = clusters.position(|one| one.name == cluster) else {
        return Err(format!(
            "cluster {cluster:?} was removed from the configuration"
        ));
    };
    let Some(schema) = &snapshot.config.clusters[index].schema else {
        return Ok(());
    };
    if schema.ranges == SchemaRanges::Health && documents == Documents::Later {
        return Ok(());
    }
    let range = range(&snapshot, index, colour).await?;
    let fits = fits(&snapshot, ledger, index, colour, range).await;
    fits.map_err(|why| why.to_string())
}

async fn fits(
    snapshot: &Snapshot,
    ledger: &dyn MigrationLedger,
    cluster: usize,
    colour: Colour,
    range: SchemaRange,
) -> Result<(), Inadmissible> {
    let schema = snapshot.config.clusters[cluster].schema.as_ref();
    for scope in schema.map_or(&[][..], |schema| &schema.scopes) {
        let steps = ledger.list(scope).await.map_err(|error| {
            let why = format!("the ledger of migrations cannot be read: {error}");
            Inadmissible::Unknown(why)
        })?;
        schema::fits(scope, range, &steps).map_err(|misfit| {
            let (name, min, max) = (colour_name(colour), range.min, range.max);
            let why = format!(
                "{name} runs on schemas {min:04} to {max:04}, and cannot run on this one: {misfit}"
            );
            match misfit {
                Misfit::Contracted { .. } => Inadmissible::Contracted(why),
                Misfit::Behind { .. } => Inadmissible::Unready(why),
            }
        })?;
    }
    Ok(())
}

/// Colours that somebody is on by the snapshot in force, in clusters whose releases need a schema: those that
/// requests go to, and those that tenants are kept on.
pub(crate) fn in_use(snapshot: &Snapshot, board: &Switchboard) -> InUse {
    let mut used = InUse::new();
    let clusters = snapshot.config.clusters.iter().zip(&*snapshot.routing);
    for (cluster, taken) in clusters.filter(|(cluster, _)| cluster.schema.is_some()) {
        // A rollout may have decided since the snapshot was taken.
        let present = board.present(&cluster.name);
        let routing = &present.as_ref().unwrap_or(taken).routing;
        let colours = [Colour::Blue, Colour::Green];
        let reached = colours.into_iter().filter(|one| routing.reaches(*one));
        used.insert(cluster.name.clone(), reached.collect());
    }
    if used.is_empty() {
        // There may be very many tenants, and nobody asks.
        return used;
    }
    for (_, tenant) in snapshot.config.tenants.iter() {
        for (index, colour) in tenant.overlay.iter().flat_map(|overlay| &overlay.colours) {
            if let Some(used) = used.get_mut(&snapshot.config.clusters[*index].name) {
                used.insert(*colour);
            }
        }
    }
    used
}

/// Colours that `next` sends somebody to: the configured one of a cluster that no rollout has decided on,
/// and those that tenants are kept on. Without those that `in_use` says.
fn wanted(
    next: &Snapshot,
    board: &Switchboard,
    in_use: &dyn Fn(&str, Colour) -> bool,
) -> BTreeSet<(usize, Colour)> {
    let clusters = &next.config.clusters;
    let undecided = clusters.iter().enumerate();
    let undecided = undecided.filter(|(_, cluster)| !board.is_decided(&cluster.name));
    let mut wanted: BTreeSet<_> = undecided
        .map(|(index, cluster)| (index, cluster.active))
        .collect();
    for (_, tenant) in next.config.tenants.iter() {
        if let Some(overlay) = &tenant.overlay {
            wanted.extend(overlay.colours.iter().copied());
        }
    }
    wanted.retain(|(index, colour)| {
        let cluster = &clusters[*index];
        cluster.schema.is_some() && !in_use(&cluster.name, *colour)
    });
    wanted
}

// === impl Wanted ===

impl Wanted {
    /// Asks what the colours can run on that `next` brings into use. Reads health documents where they
    /// count, which may take as long as those checks may.
    pub(crate) async fn read(
        next: &Snapshot,
        board: &Switchboard,
        in_use: &dyn Fn(&str, Colour) -> bool,
    ) -> Self {
        let mut ranges = BTreeMap::new();
        for (index, colour) in wanted(next, board, in_use) {
            let range = range(next, index, colour).await;
            ranges.insert((index, colour), range);
        }
        Self(ranges)
    }

    /// Whether all of them can run on their databases now. `in_use` may say something else by now.
    ///
    /// # Errors
    /// Which colour cannot, and why; with each such colour, in order.
    pub(crate) async fn admit(
        &self,
        next: &Snapshot,
        board: &Switchboard,
        in_use: &dyn Fn(&str, Colour) -> bool,
        ledger: &dyn MigrationLedger,
    ) -> Result<(), Vec<Inadmissible>> {
        let mut problems = Vec::new();
        for (index, colour) in wanted(next, board, in_use) {
            let outcome = match self.0.get(&(index, colour)) {
                Some(Ok(range)) => fits(next, ledger, index, colour, *range).await,
                Some(Err(why)) => Err(Inadmissible::Unready(why.clone())),
                None => {
                    let why = "a rollout has left it just now; reload again".to_owned();
                    Err(Inadmissible::Unready(why))
                }
            };
            if let Err(why) = outcome {
                problems.push(why.of(&next.config.clusters[index].name, colour));
            }
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(problems),
        }
    }
}

// === impl Inadmissible ===

impl Inadmissible {
    fn of(self, cluster: &str, colour: Colour) -> Self {
        let name = colour_name(colour);
        let told = |why| format!("cluster {cluster:?}: {name} is to get requests, and {why}");
        match self {
            Self::Contracted(why) => Self::Contracted(told(why)),
            Self::Unready(why) => Self::Unready(told(why)),
            Self::Unknown(why) => Self::Unknown(told(why)),
        }
    }
}

/// Why a process may not begin to serve by its first snapshot.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// Colours that cannot run on their databases, and why.
    Colours(Vec<String>),
    /// The ledger of migrations says nothing.
    Ledger(String),
}

/// Whether a process may begin to serve by its first snapshot. `follows` is what the process that it takes
/// over from has in use; `None` for a start.
///
/// At a start nobody serves meanwhile. So only what the file itself says is held against it: no application
/// is asked, whose answer may be late, or another one by the time of the next try. And a database that is
/// behind is a warning, since the gateway has to serve for that to be mended.
///
/// # Errors
/// Why not.
pub(crate) async fn first(
    first: &Snapshot,
    board: &Switchboard,
    ledger: &dyn MigrationLedger,
    follows: Option<&InUse>,
) -> Result<(), Unfit> {
    let says_itself = |cluster: &str| {
        let mut clusters = first.config.clusters.iter();
        let schema = clusters.find_map(|one| (one.name == cluster).then_some(one.schema.as_ref()));
        schema
            .flatten()
            .is_some_and(|schema| schema.ranges == SchemaRanges::Health)
    };
    let in_use = |cluster: &str, colour: Colour| {
        let decided = board.is_decided(cluster).then(|| board.present(cluster));
        let reached = decided.flatten();
        reached.is_some_and(|present| present.routing.reaches(colour))
            || match follows {
                Some(used) => used.get(cluster).is_some_and(|used| used.contains(&colour)),
                None => says_itself(cluster),
            }
    };
    let wanted = Wanted::read(first, board, &in_use).await;
    let mut refused = Vec::new();
    let problems = wanted.admit(first, board, &in_use, ledger).await;
    for problem in problems.err().into_iter().flatten() {
        match problem {
            Inadmissible::Unknown(why) => return Err(Unfit::Ledger(why)),
            Inadmissible::Unready(why) if follows.is_none() => {
                tracing::warn!(why, "a colour may not be able to run on its databases");
            }
            Inadmissible::Contracted(why) | Inadmissible::Unready(why) => refused.push(why),
        }
    }
    match refused.is_empty() {
        true => Ok(()),
        false => Err(Unfit::Colours(refused)),
    }
}
