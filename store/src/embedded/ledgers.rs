//! The ledgers as transactions on SQLite.

use super::{Embedded, unavailable};
use crate::migration::{self, Finish, MigrationLedger, NewStep, Step, WhenRunning};
use crate::rollout::{self, Entry, Found, NewEntry, RolloutLedger};
use crate::sql::{self, EntryRow, StepRow};
use crate::write::Write;
use crate::{StoreError, check};
use async_trait::async_trait;
use rusqlite::{Connection, Params, Row, Transaction, TransactionBehavior, params};
use std::time::Instant;

#[async_trait]
impl RolloutLedger for Embedded {
    async fn append(
        &self,
        cluster: &str,
        expected: u64,
        entry: NewEntry,
    ) -> Result<Entry, StoreError> {
        let (kept, _) = self.append_timed(cluster, expected, entry).await?;
        Ok(kept)
    }

    async fn append_timed(
        &self,
        cluster: &str,
        expected: u64,
        entry: NewEntry,
    ) -> Result<(Entry, Instant), StoreError> {
        let called = Instant::now();
        rollout::check_append(cluster, expected, &entry)?;
        let cluster = cluster.to_owned();
        let keep = self.history_max;
        self.call(move |connection| {
            let transaction = write(connection)?;
            let found = Found {
                newest: newest(&transaction, &cluster)?,
                same_id: entries(
                    &transaction,
                    sql::ROLLOUT_BY_ID,
                    params![cluster, entry.id.to_string()],
                )?
                .pop(),
            };
            let decided = rollout::decide_append(&cluster, expected, entry, found)?;
            let is_new = matches!(decided, Write::New(_));
            let entry = settle(transaction, decided, |transaction, entry| {
                insert(transaction, entry)?;
                execute(transaction, sql::ROLLOUT_PRUNE, params![cluster, keep])
            })?;
            Ok((entry, if is_new { Instant::now() } else { called }))
        })
        .await
    }

    async fn latest(&self, cluster: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.history(cluster, None, 1).await?.pop())
    }

    async fn latest_all(&self) -> Result<Vec<Entry>, StoreError> {
        self.call(|connection| newest_entries(connection)).await
    }

    async fn history(
        &self,
        cluster: &str,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        let before = rollout::check_history(cluster, before, limit)?;
        let cluster = cluster.to_owned();
        self.call(move |connection| {
            entries(
                connection,
                sql::ROLLOUT_HISTORY,
                params![cluster, before, limit],
            )
        })
        .await
    }

    async fn prune(&self, cluster: &str, keep: u32) -> Result<u64, StoreError> {
        rollout::check_prune(cluster, keep)?;
        let cluster = cluster.to_owned();
        self.call(move |connection| execute(connection, sql::ROLLOUT_PRUNE, params![cluster, keep]))
            .await
            .map(|gone| gone as u64)
    }
}

#[async_trait]
impl MigrationLedger for Embedded {
    async fn begin(&self, step: NewStep, when_running: WhenRunning) -> Result<Step, StoreError> {
        migration::check_begin(&step)?;
        self.call(move |connection| {
            let transaction = write(connection)?;
            let steps = steps(&transaction, &step.scope)?;
            let decided = migration::decide_begin(step, when_running, &steps)?;
            settle(transaction, decided, put)
        })
        .await
    }

    async fn finish(&self, scope: &str, number: u32, finish: Finish) -> Result<Step, StoreError> {
        check::name("scope's name", scope)?;
        let scope = scope.to_owned();
        self.call(move |connection| {
            let transaction = write(connection)?;
            let step = steps(&transaction, &scope)?
                .into_iter()
                .find(|step| step.number == number);
            let decided = migration::decide_finish(&scope, number, finish, step)?;
            settle(transaction, decided, put)
        })
        .await
    }

    async fn list(&self, scope: &str) -> Result<Vec<Step>, StoreError> {
        check::name("scope's name", scope)?;
        let scope = scope.to_owned();
        self.call(move |connection| steps(connection, &scope)).await
    }

    async fn scopes(&self) -> Result<Vec<String>, StoreError> {
        self.call(|connection| read(connection, sql::STEP_SCOPES, [], |row| row.get(0)))
            .await
    }
}

// === Queries ===

/// A transaction that holds the write lock from its start, so that what it reads stays true until it
/// writes. Dropped, it changes nothing.
fn write(connection: &mut Connection) -> Result<Transaction<'_>, StoreError> {
    connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(unavailable)
}

/// Does what was decided, and answers what is kept then.
fn settle<T>(
    transaction: Transaction<'_>,
    decided: Write<T>,
    put: impl FnOnce(&Transaction<'_>, &T) -> Result<usize, StoreError>,
) -> Result<T, StoreError> {
    match decided {
        Write::Kept(kept) => Ok(kept),
        Write::New(new) => {
            put(&transaction, &new)?;
            transaction.commit().map_err(unavailable)?;
            Ok(new)
        }
    }
}

fn execute(
    connection: &Connection,
    statement: &str,
    parameters: impl Params,
) -> Result<usize, StoreError> {
    connection
        .prepare_cached(statement)
        .and_then(|mut statement| statement.execute(parameters))
        .map_err(unavailable)
}

fn read<T>(
    connection: &Connection,
    query: &str,
    parameters: impl Params,
    row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    connection
        .prepare_cached(query)
        .and_then(|mut query| query.query_map(parameters, row)?.collect())
        .map_err(unavailable)
}

fn newest(connection: &Connection, cluster: &str) -> Result<u64, StoreError> {
    let newest: Vec<i64> = read(connection, sql::ROLLOUT_NEWEST, [cluster], |row| row.get(0))?;
    let newest = newest.first().copied().unwrap_or(0);
    u64::try_from(newest).map_err(StoreError::unavailable)
}

pub(super) fn newest_entries(connection: &Connection) -> Result<Vec<Entry>, StoreError> {
    entries(connection, sql::ROLLOUT_LATEST_ALL, [])
}

fn entries(
    connection: &Connection,
    query: &str,
    parameters: impl Params,
) -> Result<Vec<Entry>, StoreError> {
    let rows = read(connection, query, parameters, |row| {
        Ok(EntryRow {
            cluster: row.get(0)?,
            version: row.get(1)?,
            id: row.get(2)?,
            rollout: row.get(3)?,
            state: row.get(4)?,
            body: row.get(5)?,
            at_us: row.get(6)?,
        })
    })?;
    rows.into_iter().map(Entry::try_from).collect()
}

fn insert(connection: &Connection, entry: &Entry) -> Result<(), StoreError> {
    let version = check::signed("version", entry.version)?;
    execute(
        connection,
        sql::ROLLOUT_INSERT,
        params![
            entry.cluster,
            version,
            entry.id.to_string(),
            entry.rollout.to_string(),
            entry.state,
            entry.body,
            entry.at_us
        ],
    )?;
    Ok(())
}

fn steps(connection: &Connection, scope: &str) -> Result<Vec<Step>, StoreError> {
    let rows = read(connection, sql::STEP_LIST, [scope], |row| {
        Ok(StepRow {
            scope: row.get(0)?,
            number: row.get(1)?,
            name: row.get(2)?,
            kind: row.get(3)?,
            checksum: row.get(4)?,
            state: row.get(5)?,
            run: row.get(6)?,
            started_us: row.get(7)?,
            finished_us: row.get(8)?,
            detail: row.get(9)?,
        })
    })?;
    rows.into_iter().map(Step::try_from).collect()
}

fn put(transaction: &Transaction<'_>, step: &Step) -> Result<usize, StoreError> {
    execute(
        transaction,
        sql::STEP_PUT,
        params![
            step.scope,
            step.number,
            step.name,
            step.kind.as_str(),
            step.checksum,
            step.state.as_str(),
            step.run.to_string(),
            step.started_us,
            step.finished_us,
            step.detail
        ],
    )
}
