//! What steps leave behind that run outside of a transaction: there is nothing that rolls them back.

use super::executor::Refused;
use super::{Database, Link, StepFile, lint};

/// An index of Postgres.
pub(super) struct Index {
    pub(super) name: String,
    pub(super) valid: bool,
}

impl Database {
    /// What a step that failed outside of a transaction has left behind, with what to do about it. `why`
    /// is what the database said.
    pub(in crate::migrate) async fn leftovers(&self, step: &StepFile, why: &str) -> String {
        let known = match self.indexes(step).await {
            Err(unknown) => return format!("what it has left behind cannot be seen ({unknown})"),
            Ok(indexes) => indexes,
        };
        if let Some(Index { name, .. }) = known.iter().find(|index| !index.valid) {
            return format!(
                "it has left the invalid index {name} behind, which slows writes down and serves no query; \
                 DROP INDEX CONCURRENTLY it, then run this step again"
            );
        }
        // Every word of the statement was looked for; what the database speaks of is the index.
        if let Some(Index { name, .. }) = known.iter().find(|index| why.contains(&index.name)) {
            return format!(
                "the index {name} is there and whole; where an earlier attempt at this step has made it, DROP \
                 INDEX CONCURRENTLY it and run this step again, else give this one another name"
            );
        }
        if lint::concurrent_indexes(&step.sql).is_empty() {
            return "look how far it came before it is run again".to_owned();
        }
        "it has left no index behind".to_owned()
    }

    /// The indexes there are of those that a step may make concurrently; every word of it is looked for.
    pub(super) async fn indexes(&self, step: &StepFile) -> Result<Vec<Index>, String> {
        let names = lint::concurrent_indexes(&step.sql);
        let Link::Postgres(client, _) = &self.link else {
            return Ok(Vec::new());
        };
        let found = async {
            let rows = client.query(include_str!("indexes.sql"), &[&names]).await?;
            rows.iter()
                .map(|row| {
                    Ok(Index {
                        name: row.try_get(0)?,
                        valid: row.try_get(1)?,
                    })
                })
                .collect()
        };
        let found: Result<Vec<Index>, tokio_postgres::Error> = found.await;
        found.map_err(|error| Refused::from(error).to_string())
    }
}
