//! A session on the server, for the part of an application.

use super::Postgres;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A connected session. It ends when it is dropped.
#[derive(Debug)]
pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
}

impl Postgres {
    /// Connects as an application of this name, as `pg_stat_activity` shows it.
    ///
    /// # Panics
    /// Where the server does not take the connection.
    pub async fn session(&self, application_name: &str) -> Session {
        let text = format!(
            "{} application_name={application_name}",
            self.connection_string()
        );
        let (client, connection) = tokio_postgres::connect(&text, NoTls)
            .await
            .unwrap_or_else(|error| panic!("no session on the test's own server: {error}"));
        let connection = tokio::spawn(async move {
            connection.await.ok();
        });
        Session { client, connection }
    }
}

impl Session {
    /// Runs statements, all of them in one transaction unless they say otherwise, and answers the first
    /// column of every row.
    ///
    /// # Errors
    /// What the server said.
    pub async fn run(&self, sql: &str) -> Result<Vec<Option<String>>, String> {
        let messages = self.client.simple_query(sql).await.map_err(|error| {
            let told = error.as_db_error().map(ToString::to_string);
            told.unwrap_or_else(|| error.to_string())
        })?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        });
        Ok(rows.collect())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // With the task goes the socket.
        self.connection.abort();
    }
}
