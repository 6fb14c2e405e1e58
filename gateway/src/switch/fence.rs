//! Rollouts and migrations, each held back by the other.
//!
//! A rollout asks [`admission`](super::admission) whether its new colour can run on the databases. A
//! contract step asks the [`GuardedLedger`], which hands the question to the driver: so no rollout starts while it is
//! answered, and none that starts later overlooks the step, which is in the ledger by then.

use super::admission::{self, Wanted};
use super::driver::Failure;
use super::schema;
use crate::hub::Hub;
use crate::snapshot::{Snapshot, colour_name};
use async_trait::async_trait;
use hub_config::runtime::{Cluster, Colour, SchemaRange, SchemaRanges};
use hub_store::migration::NUMBER_MAX;
use hub_store::{Finish, Kind, MigrationLedger, NewStep, Step, StoreError, WhenRunning};
use serde::Deserialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot};

/// The ledger of migrations, in which contract steps begin only while one colour alone is of use on
/// their database.
#[derive(Clone)]
pub struct GuardedLedger {
    hub: Arc<Hub>,
    inner: Arc<dyn MigrationLedger>,
    contracts: mpsc::Sender<Contract>,
    held: Arc<AtomicBool>,
    /// The driver's, held for each of its decisions.
    turn: Arc<Mutex<()>>,
}

/// A contract step that waits for the driver's word.
pub(super) struct Contract {
    pub(super) step: NewStep,
    pub(super) when_running: WhenRunning,
    /// What the active colours can run on, as asked just before.
    pub(super) ranges: Vec<ActiveRange>,
    pub(super) reply: oneshot::Sender<Result<Step, StoreError>>,
}

/// What the active colour of a cluster can run on.
pub(super) struct ActiveRange {
    pub(super) cluster: String,
    pub(super) colour: Colour,
    pub(super) range: Result<SchemaRange, String>,
}

/// How a colour of a cluster stands to one database.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The cluster.
    pub cluster: String,
    /// The colour.
    pub colour: Colour,
    /// Whether it takes the cluster's traffic.
    pub active: bool,
    /// What it can run on, or why that is not known.
    pub range: Result<SchemaRange, String>,
    /// Why it cannot run on the database as it is.
    pub misfit: Option<String>,
}

/// What a release says of itself. Anything else in the document is its own business.
#[derive(Deserialize)]
struct Document {
    schema: DocumentRange,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
struct DocumentRange {
    min: u32,
    max: u32,
}

/// What a colour can run on: as declared, or as every endpoint of it says.
pub(super) async fn range(
    snapshot: &Snapshot,
    index: usize,
    colour: Colour,
) -> Result<SchemaRange, String> {
    let cluster = &snapshot.config.clusters[index];
    let declared = cluster.schema.as_ref().map(|schema| &schema.ranges);
    let name = colour_name(colour);
    match declared {
        Some(SchemaRanges::Declared { blue, green }) => {
            let declared = match colour {
                Colour::Blue => blue,
                Colour::Green => green,
            };
            declared.ok_or_else(|| {
                format!(
                    "cluster {:?} does not say which schema {name} can run on; add schema.{name} and reload",
                    cluster.name
                )
            })
        }
        Some(SchemaRanges::Health) => {
            let documents = snapshot.clusters.documents(cluster, index, colour).await;
            documents
                .and_then(|documents| agreed(&documents))
                .map_err(|why| {
                    format!("it cannot be read from {name} which schema it can run on: {why}")
                })
        }
        None => Err(format!("cluster {:?} names no database", cluster.name)),
    }
}

/// The range that all documents hold.
fn agreed(documents: &[(String, Vec<u8>)]) -> Result<SchemaRange, String> {
    let mut agreed: Option<(&str, DocumentRange)> = None;
    for (endpoint, document) in documents {
        let Document { schema } = serde_json::from_slice(document).map_err(|error| {
            format!(
                "endpoint {endpoint}: {error}; its health check has to answer {{\"schema\": {{\"min\": 3, \"max\": 5}}}}"
            )
        })?;
        let DocumentRange { min, max } = schema;
        if !(1..=max).contains(&min) || max > NUMBER_MAX {
            return Err(format!(
                "endpoint {endpoint}: min {min} and max {max} are no range from 1 to {NUMBER_MAX}"
            ));
        }
        match agreed {
            Some((other, before)) if before != schema => {
                return Err(format!(
                    "endpoints {other} and {endpoint} say {} to {} and {min} to {max}; are two releases behind one colour?",
                    before.min, before.max
                ));
            }
            _ => agreed = Some((endpoint, schema)),
        }
    }
    let Some((_, DocumentRange { min, max })) = agreed else {
        return Err("it has no endpoint".to_owned());
    };
    Ok(SchemaRange { min, max })
}

/// The clusters on a database, with their positions.
pub(super) fn on<'s>(
    snapshot: &'s Snapshot,
    scope: &'s str,
) -> impl Iterator<Item = (usize, &'s Cluster)> {
    let clusters = snapshot.config.clusters.iter().enumerate();
    clusters.filter(move |(_, cluster)| {
        let schema = cluster.schema.as_ref();
        schema.is_some_and(|schema| schema.scopes.iter().any(|one| one == scope))
    })
}

// === impl GuardedLedger ===

impl GuardedLedger {
    /// `contracts` leads to the driver, which holds `turn` for each decision; `held` says that it decides
    /// nothing at present.
    pub(super) fn new(
        hub: Arc<Hub>,
        inner: Arc<dyn MigrationLedger>,
        contracts: mpsc::Sender<Contract>,
        held: Arc<AtomicBool>,
        turn: Arc<Mutex<()>>,
    ) -> Self {
        Self {
            hub,
            inner,
            contracts,
            held,
            turn,
        }
    }

    /// How the colours of the clusters on a database stand to it. Reads health documents where they
    /// count.
    pub async fn standings(&self, scope: &str, steps: &[Step]) -> Vec<Standing> {
        let snapshot = self.hub.snapshot();
        let mut standings = Vec::new();
        for (index, cluster) in on(&snapshot, scope) {
            for colour in [Colour::Blue, Colour::Green] {
                if snapshot.clusters.endpoints(index, colour).is_empty() {
                    continue;
                }
                let range = range(&snapshot, index, colour).await;
                let misfit = match &range {
                    Ok(range) => schema::fits(scope, *range, steps).err(),
                    Err(_) => None,
                };
                standings.push(Standing {
                    cluster: cluster.name.clone(),
                    colour,
                    active: snapshot.routing[index].routing.active == colour,
                    range,
                    misfit: misfit.map(|misfit| misfit.to_string()),
                });
            }
        }
        standings
    }

    /// What the colours can run on that a reload to `next` would bring into use.
    pub(crate) async fn wanted(&self, next: &Snapshot) -> Wanted {
        let in_use = self.in_use();
        Wanted::read(next, &self.hub.switchboard, &in_use).await
    }

    /// Whether a reload may put this snapshot in force: it must not bring a colour into use that cannot run
    /// on its databases. While the result is held no rollout decides anything and no contract step begins.
    ///
    /// # Errors
    /// Which colour cannot, and why.
    pub(crate) async fn admits(
        &self,
        next: &Snapshot,
        wanted: &Wanted,
    ) -> Result<OwnedMutexGuard<()>, Vec<String>> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let in_use = self.in_use();
        let board = &self.hub.switchboard;
        match wanted.admit(next, board, &in_use, &*self.inner).await {
            Ok(()) => Ok(turn),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    /// Whether somebody is on a colour of a cluster now.
    fn in_use(&self) -> impl Fn(&str, Colour) -> bool + use<> {
        let used = admission::in_use(&self.hub.snapshot(), &self.hub.switchboard);
        move |cluster, colour| used.get(cluster).is_some_and(|used| used.contains(&colour))
    }

    /// The databases that some cluster names, and those that have a step, by name.
    ///
    /// # Errors
    /// As [`MigrationLedger::scopes`].
    pub async fn known(&self) -> Result<Vec<String>, StoreError> {
        let mut known = self.inner.scopes().await?;
        let snapshot = self.hub.snapshot();
        let schemas = snapshot.config.clusters.iter();
        let schemas = schemas.filter_map(|cluster| cluster.schema.as_ref());
        known.extend(schemas.flat_map(|schema| schema.scopes.iter().cloned()));
        known.sort();
        known.dedup();
        Ok(known)
    }

    async fn ranges(&self, scope: &str) -> Vec<ActiveRange> {
        let snapshot = self.hub.snapshot();
        let mut ranges = Vec::new();
        for (index, cluster) in on(&snapshot, scope) {
            let colour = snapshot.routing[index].routing.active;
            ranges.push(ActiveRange {
                cluster: cluster.name.clone(),
                colour,
                range: range(&snapshot, index, colour).await,
            });
        }
        ranges
    }
}

#[async_trait]
impl MigrationLedger for GuardedLedger {
    async fn begin(&self, step: NewStep, when_running: WhenRunning) -> Result<Step, StoreError> {
        if step.kind == Kind::Expand {
            return self.inner.begin(step, when_running).await;
        }
        // In the queue it would outlive whoever asks.
        if self.held.load(Ordering::Acquire) {
            return Err(StoreError::Refused(Failure::Upgrading.to_string()));
        }
        let ranges = self.ranges(&step.scope).await;
        let (reply, answer) = oneshot::channel();
        let contract = Contract {
            step,
            when_running,
            ranges,
            reply,
        };
        let ending =
            || StoreError::Refused("the gateway is ending; try again when it is back".into());
        let sent = self.contracts.send(contract).await;
        sent.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }

    async fn finish(&self, scope: &str, number: u32, finish: Finish) -> Result<Step, StoreError> {
        self.inner.finish(scope, number, finish).await
    }

    async fn list(&self, scope: &str) -> Result<Vec<Step>, StoreError> {
        self.inner.list(scope).await
    }

    async fn scopes(&self) -> Result<Vec<String>, StoreError> {
        self.inner.scopes().await
    }
}

impl fmt::Debug for GuardedLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuardedLedger")
    }
}

#[cfg(test)]
mod tests {
    use super::agreed;

    fn said(documents: &[&str]) -> Result<(u32, u32), String> {
        let documents: Vec<_> = (1..)
            .zip(documents)
            .map(|(number, text)| (format!("e{number}"), text.as_bytes().to_vec()))
            .collect();
        agreed(&documents).map(|range| (range.min, range.max))
    }

    #[test]
    fn all_endpoints_have_to_say_the_same_range() {
        let one = r#"{"status": "ok", "schema": {"min": 3, "max": 5}}"#;
        assert_eq!(said(&[one, one]), Ok((3, 5)));
        let other = r#"{"schema": {"min": 4, "max": 5}}"#;
        let why = said(&[one, other]).expect_err("they differ");
        assert!(why.contains("e1 and e2 say 3 to 5 and 4 to 5"), "{why}");
    }

    #[test]
    fn documents_without_a_range_are_told_with_their_endpoint() {
        for bad in [
            "ok",
            "{}",
            r#"{"schema": {"min": 0, "max": 5}}"#,
            r#"{"schema": {"min": 6, "max": 5}}"#,
            r#"{"schema": {"min": 1, "max": 10000}}"#,
            r#"{"schema": {"min": 1}}"#,
        ] {
            let why = said(&[bad]).expect_err(bad);
            assert!(why.starts_with("endpoint e1: "), "{why}");
        }
        assert!(said(&[]).is_err());
    }
}
