//! The ledgers in the memory of the process, for tests and simulations.

use crate::migration::{self, Finish, MigrationLedger, NewStep, Step, WhenRunning};
use crate::rollout::{self, Entry, Found, NewEntry, RolloutLedger};
use crate::write::Write;
use crate::{StoreError, check};
use async_trait::async_trait;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An engine that keeps nothing beyond the process. Clones share what it holds, so a simulation can
/// end a driver and hand the same ledger to the next.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    tables: Arc<Mutex<Tables>>,
}

/// What a coming append meets; the caller sees [`StoreError::Unavailable`] for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing is written.
    BeforeWrite,
    /// The entry is written, and the answer is lost.
    AfterWrite,
}

#[derive(Debug, Default)]
struct Tables {
    /// Entries by cluster, oldest first.
    rollouts: BTreeMap<String, VecDeque<Entry>>,
    /// Steps by scope, by number.
    steps: BTreeMap<String, Vec<Step>>,
    /// What coming appends meet, in order.
    faults: VecDeque<Fault>,
}

// === impl Memory ===

impl Memory {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a coming append fail: the next one, or the one after those that are to fail already.
    pub fn fail_next_append(&self, fault: Fault) {
        self.tables().faults.push_back(fault);
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Nothing that panics leaves a table half changed.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RolloutLedger for Memory {
    async fn append(
        &self,
        cluster: &str,
        expected: u64,
        entry: NewEntry,
    ) -> Result<Entry, StoreError> {
        rollout::check_append(cluster, expected, &entry)?;
        let mut tables = self.tables();
        let fault = tables.faults.pop_front();
        if fault == Some(Fault::BeforeWrite) {
            return Err(StoreError::unavailable("a planted fault, before the write"));
        }
        let kept = tables.rollouts.get(cluster);
        let found = Found {
            newest: kept
                .and_then(VecDeque::back)
                .map_or(0, |newest| newest.version),
            same_id: kept
                .and_then(|kept| kept.iter().rev().find(|kept| kept.id == entry.id))
                .cloned(),
        };
        let entry = match rollout::decide_append(cluster, expected, entry, found)? {
            Write::Kept(entry) => entry,
            Write::New(entry) => {
                let entries = tables.rollouts.entry(cluster.to_owned()).or_default();
                entries.push_back(entry.clone());
                while entries.len() > rollout::HISTORY_KEPT as usize {
                    entries.pop_front();
                }
                entry
            }
        };
        if fault == Some(Fault::AfterWrite) {
            return Err(StoreError::unavailable("a planted fault, after the write"));
        }
        Ok(entry)
    }

    async fn latest(&self, cluster: &str) -> Result<Option<Entry>, StoreError> {
        check::name("cluster's name", cluster)?;
        let tables = self.tables();
        Ok(tables
            .rollouts
            .get(cluster)
            .and_then(VecDeque::back)
            .cloned())
    }

    async fn latest_all(&self) -> Result<Vec<Entry>, StoreError> {
        let tables = self.tables();
        let newest = tables.rollouts.values().filter_map(VecDeque::back);
        Ok(newest.cloned().collect())
    }

    async fn history(
        &self,
        cluster: &str,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        rollout::check_history(cluster, before, limit)?;
        let tables = self.tables();
        let entries = tables.rollouts.get(cluster).into_iter().flatten().rev();
        Ok(entries
            .filter(|entry| before.is_none_or(|before| entry.version < before))
            .take(limit as usize)
            .cloned()
            .collect())
    }

    async fn prune(&self, cluster: &str, keep: u32) -> Result<u64, StoreError> {
        rollout::check_prune(cluster, keep)?;
        let mut tables = self.tables();
        let Some(entries) = tables.rollouts.get_mut(cluster) else {
            return Ok(0);
        };
        let gone = entries.len().saturating_sub(keep as usize);
        entries.drain(..gone);
        Ok(gone as u64)
    }
}

#[async_trait]
impl MigrationLedger for Memory {
    async fn begin(&self, step: NewStep, when_running: WhenRunning) -> Result<Step, StoreError> {
        migration::check_begin(&step)?;
        let mut tables = self.tables();
        let steps = tables.steps.entry(step.scope.clone()).or_default();
        let write = migration::decide_begin(step, when_running, steps);
        let step = write.map(|write| put(steps, write));
        // A step that was refused leaves no scope behind.
        tables.steps.retain(|_, steps| !steps.is_empty());
        step
    }

    async fn finish(&self, scope: &str, number: u32, finish: Finish) -> Result<Step, StoreError> {
        check::name("scope's name", scope)?;
        let mut tables = self.tables();
        let steps = tables.steps.get_mut(scope);
        let step = steps
            .as_ref()
            .and_then(|steps| steps.iter().find(|step| step.number == number))
            .cloned();
        let write = migration::decide_finish(scope, number, finish, step)?;
        Ok(put(
            steps.expect("a step that may be finished is in its scope"),
            write,
        ))
    }

    async fn list(&self, scope: &str) -> Result<Vec<Step>, StoreError> {
        check::name("scope's name", scope)?;
        Ok(self.tables().steps.get(scope).cloned().unwrap_or_default())
    }

    async fn scopes(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.tables().steps.keys().cloned().collect())
    }
}

fn put(steps: &mut Vec<Step>, write: Write<Step>) -> Step {
    match write {
        Write::Kept(step) => step,
        Write::New(step) => {
            steps.retain(|kept| kept.number != step.number);
            steps.push(step.clone());
            step
        }
    }
}
