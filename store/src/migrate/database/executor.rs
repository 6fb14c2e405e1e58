//! Both kinds of database as refinery's runner wants them.
//!
//! Refinery has drivers of its own. Its driver of SQLite would hold rusqlite at 0.41, none of its
//! drivers can run a step outside of a transaction, and none says why a statement was refused.

use super::{HISTORY_TABLE, Link, Opened};
use refinery_core::Migration;
use refinery_core::traits::r#async::{AsyncMigrate, AsyncQuery, AsyncTransaction};
use std::fmt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_postgres::error::SqlState;

pub(super) struct Executor<'a> {
    link: &'a mut Link,
    /// Whether what is executed must not be in a transaction.
    alone: bool,
}

/// What a database said no with.
#[derive(Debug)]
pub(super) struct Refused {
    /// Whether it was a lock that was not to be had.
    pub(super) locked: bool,
    message: String,
}

/// Version, name, time and checksum, as the history table has them.
type Row = (i32, String, String, String);

// === impl Executor ===

impl<'a> Executor<'a> {
    pub(super) fn new(link: &'a mut Link, alone: bool) -> Self {
        Self { link, alone }
    }

    /// Whether any step was ever run here.
    pub(super) async fn has_history(&mut self) -> Result<bool, Refused> {
        match &mut self.link {
            Link::Embedded(slot) => {
                let query = "SELECT count(*) FROM sqlite_schema WHERE name = ?1";
                let count = on_a_thread(slot, move |connection| {
                    connection.query_row(query, [HISTORY_TABLE], |row| row.get::<_, i64>(0))
                })
                .await?;
                Ok(count > 0)
            }
            Link::Postgres(client, _) => {
                let query = "SELECT to_regclass($1::text) IS NOT NULL";
                Ok(client
                    .query_one(query, &[&HISTORY_TABLE])
                    .await?
                    .try_get(0)?)
            }
        }
    }
}

impl AsyncTransaction for Executor<'_> {
    type Error = Refused;

    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        queries: T,
    ) -> Result<usize, Refused> {
        let alone = self.alone;
        match &mut self.link {
            Link::Embedded(slot) => {
                let queries: Vec<String> = queries.map(str::to_owned).collect();
                on_a_thread(slot, move |connection| {
                    if alone {
                        for query in &queries {
                            connection.execute_batch(query)?;
                        }
                    } else {
                        let transaction = connection.transaction()?;
                        for query in &queries {
                            transaction.execute_batch(query)?;
                        }
                        transaction.commit()?;
                    }
                    Ok(queries.len())
                })
                .await
            }
            Link::Postgres(client, _) => {
                let mut count = 0;
                if alone {
                    for query in queries {
                        client.batch_execute(query).await?;
                        count += 1;
                    }
                } else {
                    let transaction = client.transaction().await?;
                    for query in queries {
                        transaction.batch_execute(query).await?;
                        count += 1;
                    }
                    transaction.commit().await?;
                }
                Ok(count)
            }
        }
    }
}

impl AsyncQuery<Vec<Migration>> for Executor<'_> {
    async fn query<'a>(&'a mut self, query: &'a str) -> Result<Vec<Migration>, Refused> {
        let rows: Vec<Row> = match &mut self.link {
            Link::Embedded(slot) => {
                let query = query.to_owned();
                on_a_thread(slot, move |connection| {
                    let mut query = connection.prepare(&query)?;
                    let rows = query.query_map([], |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                    })?;
                    rows.collect()
                })
                .await?
            }
            Link::Postgres(client, _) => client
                .query(query, &[])
                .await?
                .iter()
                .map(|row| {
                    Ok((
                        row.try_get(0)?,
                        row.try_get(1)?,
                        row.try_get(2)?,
                        row.try_get(3)?,
                    ))
                })
                .collect::<Result<_, tokio_postgres::Error>>()?,
        };
        rows.into_iter().map(applied).collect()
    }
}

impl AsyncMigrate for Executor<'_> {}

/// Refinery's own drivers panic where the history table was written by somebody else.
fn applied((version, name, applied_on, checksum): Row) -> Result<Migration, Refused> {
    let at = OffsetDateTime::parse(&applied_on, &Rfc3339);
    match (at, checksum.parse()) {
        (Ok(at), Ok(checksum)) => Ok(Migration::applied(version, name, at, checksum)),
        _ => Err(Refused {
            locked: false,
            message: format!(
                "{HISTORY_TABLE} has a row for step {version} that no migration wrote; its time is \
                 {applied_on:?}, its checksum {checksum:?}"
            ),
        }),
    }
}

/// Runs blocking work on a thread that may block. Where the caller goes away meanwhile, the work is
/// finished, and the connection goes with it.
async fn on_a_thread<T: Send + 'static>(
    slot: &mut Option<Opened>,
    work: impl FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, Refused> {
    let mut opened = slot.take().ok_or_else(gone)?;
    let joined = tokio::task::spawn_blocking(move || {
        let answer = work(&mut opened.connection);
        (opened, answer)
    })
    .await;
    let (opened, answer) = joined.map_err(|_| gone())?;
    *slot = Some(opened);
    Ok(answer?)
}

/// A call that was given up has taken the connection with it.
pub(super) fn gone() -> Refused {
    Refused {
        locked: false,
        message: "the connection is gone, with a call that was given up; connect again".to_owned(),
    }
}

// === impl Refused ===

impl From<tokio_postgres::Error> for Refused {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(refusal) = error.as_db_error() else {
            let mut message = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                message = format!("{message}: {cause}");
                source = cause.source();
            }
            return Self {
                locked: false,
                message,
            };
        };
        let code = refusal.code();
        let mut message = format!("{} (SQLSTATE {})", refusal.message(), code.code());
        for more in [refusal.detail(), refusal.hint()].into_iter().flatten() {
            message = format!("{message}; {more}");
        }
        Self {
            locked: *code == SqlState::LOCK_NOT_AVAILABLE
                || *code == SqlState::T_R_DEADLOCK_DETECTED,
            message,
        }
    }
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
        let locked = matches!(
            error.sqlite_error_code(),
            Some(DatabaseBusy | DatabaseLocked)
        );
        Self {
            locked,
            message: error.to_string(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}
