//! The gateway's ledger of migrations, over its admin API. The gateway decides whether a step may run;
//! it never hears how to reach the database.

use crate::client::{Client, Reply};
use crate::encode;
use async_trait::async_trait;
use hub_store::{Finish, MigrationLedger, NewStep, Step, StoreError, WhenRunning};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a gateway that does not answer is asked again: one that starts anew is back by then.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) struct AdminLedger<'c> {
    client: &'c Client,
}

#[derive(Deserialize)]
struct Held {
    scope: String,
    number: u32,
    run: Uuid,
    since_us: i64,
}

// === impl AdminLedger ===

impl<'c> AdminLedger<'c> {
    pub(crate) fn new(client: &'c Client) -> Self {
        Self { client }
    }

    /// Tells the gateway, and while it does not answer, again: that a step has run must get there.
    async fn tell(&self, path: &str, body: &Value) -> Result<Step, StoreError> {
        let began = Instant::now();
        loop {
            match read(self.client.post(path, Some(body))) {
                Err(StoreError::Unavailable(why)) if began.elapsed() < PATIENCE => {
                    eprintln!("the gateway does not answer, and is asked again: {why}");
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }
}

#[async_trait]
impl MigrationLedger for AdminLedger<'_> {
    async fn begin(&self, step: NewStep, when_running: WhenRunning) -> Result<Step, StoreError> {
        let path = format!("{}/begin", path(&step.scope));
        let body = json!({"step": step, "when_running": when_running});
        self.tell(&path, &body).await
    }

    async fn finish(&self, scope: &str, number: u32, finish: Finish) -> Result<Step, StoreError> {
        let mut finish = finish;
        let end = finish
            .detail
            .floor_char_boundary(hub_store::migration::DETAIL_BYTES_MAX);
        finish.detail.truncate(end);
        let path = format!("{}/finish", path(scope));
        let body = json!({"number": number, "finish": finish});
        self.tell(&path, &body).await
    }

    async fn list(&self, scope: &str) -> Result<Vec<Step>, StoreError> {
        let body: Value = read(self.client.get(&path(scope)))?;
        Vec::deserialize(&body["steps"]).map_err(strange)
    }

    async fn scopes(&self) -> Result<Vec<String>, StoreError> {
        let body: Value = read(self.client.get("/v1/migrations"))?;
        let scopes = body["scopes"].as_array().into_iter().flatten();
        let known = scopes.filter(|scope| scope["steps"].as_array().is_some_and(|s| !s.is_empty()));
        Ok(known
            .filter_map(|scope| scope["scope"].as_str().map(str::to_owned))
            .collect())
    }
}

/// Where the admin API has what it knows of a database.
pub(crate) fn path(scope: &str) -> String {
    format!("/v1/migrations/{}", encode(scope))
}

/// The answer, or the error that the gateway's ledger had.
fn read<T: DeserializeOwned>(reply: anyhow::Result<Reply>) -> Result<T, StoreError> {
    let Reply { status, body } = reply.map_err(|error| StoreError::Unavailable(error.into()))?;
    let error = &body["error"];
    if error.is_null() {
        return serde_json::from_value(body).map_err(strange);
    }
    let message = error["message"].as_str().unwrap_or("the gateway refused");
    let message = message.to_owned();
    Err(match error["code"].as_str().unwrap_or_default() {
        "conflict" => StoreError::Conflict {
            current: error["of"]["current"].as_u64().unwrap_or_default(),
        },
        "held" => match Held::deserialize(&error["of"]) {
            Ok(held) => StoreError::Held {
                scope: held.scope,
                number: held.number,
                run: held.run,
                since_us: held.since_us,
            },
            Err(error) => strange(error),
        },
        "invalid" => StoreError::Invalid(message),
        "unavailable" | "admin_limited" => StoreError::Unavailable(message.into()),
        // Its own words: no store, no token, or what has to happen first.
        _ if (400..500).contains(&status) => StoreError::Refused(message),
        _ => StoreError::Unavailable(message.into()),
    })
}

fn strange(error: serde_json::Error) -> StoreError {
    StoreError::Refused(format!(
        "the gateway's answer cannot be read ({error}); is it of another version?"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, error: Value) -> StoreError {
        let body = json!({ "error": error });
        read::<Step>(Ok(Reply { status, body })).expect_err("an error")
    }

    #[test]
    fn errors_of_the_ledger_come_through_as_they_are() {
        let run = Uuid::now_v7();
        let of = json!({"scope": "app", "number": 4, "run": run, "since_us": 7});
        assert!(matches!(
            said(409, json!({"code": "held", "message": "m", "of": of})),
            StoreError::Held { number: 4, since_us: 7, run: by, .. } if by == run
        ));
        assert!(matches!(
            said(
                409,
                json!({"code": "conflict", "message": "m", "of": {"current": 3}})
            ),
            StoreError::Conflict { current: 3 }
        ));
        let refused = said(
            409,
            json!({"code": "refused", "message": "a rollout is under way"}),
        );
        assert_eq!(refused.to_string(), "a rollout is under way");
        assert!(matches!(refused, StoreError::Refused(_)));
        let limited = said(429, json!({"code": "admin_limited", "message": "m"}));
        assert!(limited.retryable());
        let stranger = said(401, json!({"code": "unauthenticated", "message": "m"}));
        assert!(matches!(stranger, StoreError::Refused(_)));
    }
}
