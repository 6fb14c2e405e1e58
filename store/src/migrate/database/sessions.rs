//! Who is connected to a Postgres database.

use tokio_postgres::Client;

/// A session on the database. What another role may not see of it is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Process id of its backend.
    pub pid: i32,
    /// What the application calls itself.
    pub application_name: String,
    /// Its role.
    pub user: Option<String>,
    /// Address of the client; `None` also on a Unix socket.
    pub client: Option<String>,
    /// What it does: `active`, `idle`, `idle in transaction` and so on.
    pub state: Option<String>,
    /// Since when it is connected, in microseconds since 1970 UTC.
    pub since_us: Option<i64>,
}

pub(super) async fn of_colour(
    client: &Client,
    colour: &str,
) -> Result<Vec<Session>, tokio_postgres::Error> {
    let rows = client.query(include_str!("sessions.sql"), &[]).await?;
    rows.into_iter()
        .map(|row| {
            Ok(Session {
                pid: row.try_get(0)?,
                application_name: row.try_get(1)?,
                user: row.try_get(2)?,
                client: row.try_get(3)?,
                state: row.try_get(4)?,
                since_us: row.try_get(5)?,
            })
        })
        .filter(|session| {
            session
                .as_ref()
                .map_or(true, |session| names(&session.application_name, colour))
        })
        .collect()
}

/// Whether a name has a word, between characters that are no letters or digits.
fn names(name: &str, word: &str) -> bool {
    name.split(|character: char| !character.is_alphanumeric())
        .any(|part| part.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_colour_is_a_word_of_the_name() {
        for name in ["green", "app-green", "hub/Green/3", "green_1"] {
            assert!(names(name, "green"), "{name}");
        }
        for name in ["", "evergreen", "greens", "blue", "hub-migrate"] {
            assert!(!names(name, "green"), "{name}");
        }
    }
}
