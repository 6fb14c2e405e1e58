//! The queries, one file each, in the dialect that SQLite and Postgres share, and the rows they read.
//!
//! Parameters are written `$1`, as Postgres wants them. To SQLite these are names, numbered as they
//! first appear, so each file names `$1` before `$2`, and so on. Numbers are `bigint`, ids and JSON are text,
//! times are microseconds. What only one engine understands is in that engine's own folder.

use crate::{Entry, Kind, Step, StepState, StoreError};
use uuid::Uuid;

macro_rules! queries {
    ($($name:ident = $file:literal;)*) => {
        $(pub(crate) const $name: &str = include_str!(concat!("sql/", $file));)*
        #[cfg(test)]
        pub(crate) const QUERIES: &[(&str, &str)] = &[$(($file, $name)),*];
    };
}

queries! {
    ROLLOUT_BY_ID = "rollout_by_id.sql";
    ROLLOUT_HISTORY = "rollout_history.sql";
    ROLLOUT_INSERT = "rollout_insert.sql";
    ROLLOUT_LATEST_ALL = "rollout_latest_all.sql";
    ROLLOUT_NEWEST = "rollout_newest.sql";
    ROLLOUT_PRUNE = "rollout_prune.sql";
    SCHEMA_INSERT = "schema_insert.sql";
    SCHEMA_LIST = "schema_list.sql";
    SCHEMA_TABLE = "schema_table.sql";
    STEP_LIST = "step_list.sql";
    STEP_PUT = "step_put.sql";
    STEP_SCOPES = "step_scopes.sql";
}

/// The store's own schema, in order; number 1 is the first.
pub(crate) const SCHEMA: &[(Kind, &str)] = &[(
    Kind::Expand,
    include_str!("sql/schema/0001_ledgers.expand.sql"),
)];

/// A row of `rollout_entry`, as the databases hold it.
pub(crate) struct EntryRow {
    pub(crate) cluster: String,
    pub(crate) version: i64,
    pub(crate) id: String,
    pub(crate) rollout: String,
    pub(crate) state: String,
    pub(crate) body: String,
    pub(crate) at_us: i64,
}

/// A row of `migration_step`, as the databases hold it.
pub(crate) struct StepRow {
    pub(crate) scope: String,
    pub(crate) number: i64,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) checksum: String,
    pub(crate) state: String,
    pub(crate) run: String,
    pub(crate) started_us: i64,
    pub(crate) finished_us: Option<i64>,
    pub(crate) detail: String,
}

// === From rows to values. Only a hand on the database makes these fail ===

impl TryFrom<EntryRow> for Entry {
    type Error = StoreError;

    fn try_from(row: EntryRow) -> Result<Self, StoreError> {
        Ok(Self {
            version: u64::try_from(row.version).map_err(StoreError::unavailable)?,
            id: uuid(&row.id)?,
            rollout: uuid(&row.rollout)?,
            cluster: row.cluster,
            state: row.state,
            body: row.body,
            at_us: row.at_us,
        })
    }
}

impl TryFrom<StepRow> for Step {
    type Error = StoreError;

    fn try_from(row: StepRow) -> Result<Self, StoreError> {
        Ok(Self {
            number: u32::try_from(row.number).map_err(StoreError::unavailable)?,
            kind: Kind::parse(&row.kind).ok_or_else(|| unknown("kind", &row.kind))?,
            state: StepState::parse(&row.state).ok_or_else(|| unknown("state", &row.state))?,
            run: uuid(&row.run)?,
            scope: row.scope,
            name: row.name,
            checksum: row.checksum,
            started_us: row.started_us,
            finished_us: row.finished_us,
            detail: row.detail,
        })
    }
}

fn uuid(text: &str) -> Result<Uuid, StoreError> {
    Uuid::parse_str(text).map_err(StoreError::unavailable)
}

fn unknown(what: &str, text: &str) -> StoreError {
    StoreError::unavailable(format!(
        "a row of the store has the unknown {what} {text:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::{QUERIES, SCHEMA, SCHEMA_TABLE};

    #[test]
    fn every_query_means_the_same_parameters_to_both_databases() {
        for (file, query) in QUERIES {
            let mut known = 0;
            for part in query.split('$').skip(1) {
                let digits = part.split(|c: char| !c.is_ascii_digit()).next();
                let number: u32 = digits.and_then(|digits| digits.parse().ok()).unwrap();
                assert!(
                    number <= known + 1,
                    "{file} names ${number} before ${}",
                    known + 1
                );
                known = known.max(number);
            }
        }
    }

    #[test]
    fn every_query_fits_the_schema() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA_TABLE).unwrap();
        for (_, statements) in SCHEMA {
            connection.execute_batch(statements).unwrap();
        }
        for (file, query) in QUERIES {
            if let Err(error) = connection.prepare(query) {
                panic!("{file}: {error}");
            }
        }
    }
}
