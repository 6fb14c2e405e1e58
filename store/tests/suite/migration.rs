//! What every [`MigrationLedger`] promises.

use super::step;
use hub_store::migration::DETAIL_BYTES_MAX;
use hub_store::{
    Finish, Kind, MigrationLedger, NewStep, Outcome, Step, StepState, StoreError, WhenRunning,
};
use std::sync::Arc;
use uuid::Uuid;

fn finish(run: Uuid, outcome: Outcome) -> Finish {
    Finish {
        run,
        outcome,
        finished_us: 2_000,
        detail: "two statements".to_owned(),
    }
}

async fn begin(ledger: &dyn MigrationLedger, step: &NewStep) -> Result<Step, StoreError> {
    ledger.begin(step.clone(), WhenRunning::Refuse).await
}

async fn apply(ledger: &dyn MigrationLedger, step: &NewStep) -> Step {
    begin(ledger, step).await.unwrap();
    let finish = finish(step.run, Outcome::Applied);
    ledger
        .finish(&step.scope, step.number, finish)
        .await
        .unwrap()
}

fn assert_conflict(result: Result<Step, StoreError>, at: u64) {
    match result {
        Err(StoreError::Conflict { current }) => assert_eq!(current, at),
        other => panic!("expected a conflict at {at}, got {other:?}"),
    }
}

fn assert_held(result: Result<Step, StoreError>, by: &NewStep) {
    match result {
        Err(StoreError::Held {
            scope,
            number,
            run,
            since_us,
        }) => {
            assert_eq!(
                (scope, number, run, since_us),
                (by.scope.clone(), by.number, by.run, by.started_us)
            );
        }
        other => panic!("expected step {} to be held, got {other:?}", by.number),
    }
}

fn assert_invalid(result: Result<Step, StoreError>, says: &str) {
    match result {
        Err(StoreError::Invalid(what)) => assert!(what.contains(says), "{what}"),
        other => panic!("expected `{says}`, got {other:?}"),
    }
}

pub(crate) async fn steps_run_one_after_the_other(ledger: &dyn MigrationLedger) {
    assert_eq!(ledger.list("shard_1").await.unwrap(), []);
    let first = NewStep {
        kind: Kind::Contract,
        ..step("shard_1", 1)
    };
    let running = begin(ledger, &first).await.unwrap();
    let expected = Step {
        scope: "shard_1".to_owned(),
        number: 1,
        name: "step_1".to_owned(),
        kind: Kind::Contract,
        checksum: "checksum-1".to_owned(),
        state: StepState::Running,
        run: first.run,
        started_us: 1_001,
        finished_us: None,
        detail: String::new(),
    };
    assert_eq!(running, expected);
    let listed = ledger.list("shard_1").await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&expected));

    let done = finish(first.run, Outcome::Applied);
    let applied = ledger.finish("shard_1", 1, done).await.unwrap();
    let expected = Step {
        state: StepState::Applied,
        finished_us: Some(2_000),
        detail: "two statements".to_owned(),
        ..expected
    };
    assert_eq!(applied, expected);
    let second = apply(ledger, &step("shard_1", 2)).await;
    assert_eq!(ledger.list("shard_1").await.unwrap(), [expected, second]);
}

pub(crate) async fn a_step_out_of_order_is_refused(ledger: &dyn MigrationLedger) {
    assert_conflict(begin(ledger, &step("db", 2)).await, 0);
    assert_eq!(ledger.scopes().await.unwrap(), [""; 0]);
    apply(ledger, &step("db", 1)).await;
    assert_conflict(begin(ledger, &step("db", 3)).await, 1);
    assert_eq!(ledger.list("db").await.unwrap().len(), 1);
}

pub(crate) async fn only_one_step_of_a_scope_runs_at_a_time(ledger: &dyn MigrationLedger) {
    let first = step("db", 1);
    let running = begin(ledger, &first).await.unwrap();
    assert_held(begin(ledger, &step("db", 1)).await, &first);
    assert_held(begin(ledger, &step("db", 2)).await, &first);
    // The same run may ask again, and other scopes are free.
    assert_eq!(begin(ledger, &first).await.unwrap(), running);
    begin(ledger, &step("other", 1)).await.unwrap();
}

pub(crate) async fn a_step_that_was_taken_over_is_not_finished_by_its_old_run(
    ledger: &dyn MigrationLedger,
) {
    let dead = step("db", 1);
    begin(ledger, &dead).await.unwrap();
    let heir = step("db", 1);
    let taken = ledger
        .begin(heir.clone(), WhenRunning::TakeOver)
        .await
        .unwrap();
    assert_eq!((taken.state, taken.run), (StepState::Running, heir.run));
    let late = finish(dead.run, Outcome::Applied);
    assert_held(ledger.finish("db", 1, late.clone()).await, &heir);
    ledger
        .finish("db", 1, finish(heir.run, Outcome::Failed))
        .await
        .unwrap();
    assert_invalid(
        ledger.finish("db", 1, late).await,
        "has ended already, as failed",
    );
    assert_conflict(ledger.begin(step("db", 2), WhenRunning::TakeOver).await, 0);
}

pub(crate) async fn a_step_is_taken_over_as_what_it_was_begun_as(ledger: &dyn MigrationLedger) {
    let dead = NewStep {
        kind: Kind::Contract,
        ..step("db", 1)
    };
    begin(ledger, &dead).await.unwrap();
    for when in [WhenRunning::TakeOver, WhenRunning::InForce] {
        let turned = ledger.begin(step("db", 1), when).await;
        assert_invalid(turned, "was begun as contract");
    }
    let heir = NewStep {
        run: Uuid::now_v7(),
        ..dead
    };
    let taken = ledger.begin(heir.clone(), WhenRunning::InForce).await;
    assert_eq!(taken.unwrap().run, heir.run);
}

pub(crate) async fn an_applied_step_is_not_run_again(ledger: &dyn MigrationLedger) {
    let first = step("db", 1);
    let applied = apply(ledger, &first).await;
    assert_eq!(begin(ledger, &step("db", 1)).await.unwrap(), applied);
    assert_eq!(begin(ledger, &first).await.unwrap(), applied);
    // Also when others came after it.
    apply(ledger, &step("db", 2)).await;
    assert_eq!(begin(ledger, &step("db", 1)).await.unwrap(), applied);
}

pub(crate) async fn an_applied_step_that_has_changed_is_refused(ledger: &dyn MigrationLedger) {
    apply(ledger, &step("db", 1)).await;
    let edited = NewStep {
        checksum: "other".to_owned(),
        ..step("db", 1)
    };
    assert_invalid(begin(ledger, &edited).await, "applied as expand checksum-1");
    let turned = NewStep {
        kind: Kind::Contract,
        ..step("db", 1)
    };
    assert_invalid(begin(ledger, &turned).await, "is contract checksum-1 now");
}

pub(crate) async fn a_failed_step_may_begin_again_changed(ledger: &dyn MigrationLedger) {
    let first = step("db", 1);
    begin(ledger, &first).await.unwrap();
    let failed = finish(first.run, Outcome::Failed);
    let failed = ledger.finish("db", 1, failed).await.unwrap();
    assert_eq!(failed.state, StepState::Failed);
    assert_conflict(begin(ledger, &step("db", 2)).await, 0);
    let repaired = NewStep {
        checksum: "repaired".to_owned(),
        ..step("db", 1)
    };
    let running = begin(ledger, &repaired).await.unwrap();
    assert_eq!(
        (running.state, running.finished_us),
        (StepState::Running, None)
    );
    assert_eq!(running.checksum, "repaired");
}

pub(crate) async fn a_repeated_finish_answers_what_was_kept(ledger: &dyn MigrationLedger) {
    let first = step("db", 1);
    let done = finish(first.run, Outcome::Applied);
    assert_invalid(ledger.finish("db", 1, done.clone()).await, "never begun");
    let applied = apply(ledger, &first).await;
    assert_eq!(ledger.finish("db", 1, done).await.unwrap(), applied);
    let failed = finish(first.run, Outcome::Failed);
    assert_invalid(ledger.finish("db", 1, failed).await, "as applied");
    assert_eq!(ledger.list("db").await.unwrap(), [applied]);
}

pub(crate) async fn a_long_detail_is_cut_and_kept(ledger: &dyn MigrationLedger) {
    let first = step("db", 1);
    begin(ledger, &first).await.unwrap();
    let long = Finish {
        detail: format!("\0{}", "é".repeat(DETAIL_BYTES_MAX)),
        ..finish(first.run, Outcome::Failed)
    };
    let kept = ledger.finish("db", 1, long).await.unwrap();
    assert!(kept.detail.len() <= DETAIL_BYTES_MAX && kept.detail.len() > DETAIL_BYTES_MAX - 4);
    assert!(kept.detail.starts_with("\u{fffd}é"));
    assert_eq!(ledger.list("db").await.unwrap(), [kept]);
}

pub(crate) async fn scopes_are_listed_by_name(ledger: &dyn MigrationLedger) {
    assert_eq!(ledger.scopes().await.unwrap(), [""; 0]);
    apply(ledger, &step("shard_2", 1)).await;
    apply(ledger, &step("shard_2", 2)).await;
    begin(ledger, &step("control", 1)).await.unwrap();
    assert_eq!(ledger.scopes().await.unwrap(), ["control", "shard_2"]);
}

pub(crate) async fn a_step_out_of_bounds_is_refused(ledger: &dyn MigrationLedger) {
    let good = || step("db", 1);
    assert_invalid(begin(ledger, &step("", 1)).await, "scope's name");
    assert_invalid(begin(ledger, &step("db", 0)).await, "count from 1 to 9999");
    assert_invalid(
        begin(ledger, &step("db", 10_000)).await,
        "count from 1 to 9999",
    );
    let run = NewStep {
        run: Uuid::nil(),
        ..good()
    };
    assert_invalid(begin(ledger, &run).await, "UUIDv7");
    let checksum = NewStep {
        checksum: String::new(),
        ..good()
    };
    assert_invalid(begin(ledger, &checksum).await, "checksum");
    assert_eq!(ledger.scopes().await.unwrap(), [""; 0]);
}

/// Given handles on one ledger, which may be one and the same.
pub(crate) async fn of_concurrent_runs_exactly_one_begins(handles: Vec<Arc<dyn MigrationLedger>>) {
    let mut runs = tokio::task::JoinSet::new();
    for ledger in &handles {
        let ledger = Arc::clone(ledger);
        runs.spawn(async move {
            let step = step("db", 1);
            match begin(&*ledger, &step).await {
                Ok(_) => vec![step.run],
                Err(StoreError::Held { .. }) => Vec::new(),
                Err(error) => panic!("{error:?}"),
            }
        });
    }
    let winners = runs.join_all().await.concat();
    let kept = handles[0].list("db").await.unwrap();
    assert_eq!(winners, [kept[0].run]);
}
