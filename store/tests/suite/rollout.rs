//! What every [`RolloutLedger`] promises.

use super::entry;
use hub_store::rollout::{BODY_BYTES_MAX, HISTORY_MAX};
use hub_store::{Entry, NewEntry, RolloutLedger, StoreError};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

fn assert_invalid<T: std::fmt::Debug>(result: Result<T, StoreError>, says: &str) {
    match result {
        Err(StoreError::Invalid(what)) => assert!(what.contains(says), "{what}"),
        other => panic!("expected `{says}`, got {other:?}"),
    }
}

fn assert_conflict<T: std::fmt::Debug>(result: Result<T, StoreError>, at: u64) {
    match result {
        Err(StoreError::Conflict { current }) => assert_eq!(current, at),
        other => panic!("expected a conflict at {at}, got {other:?}"),
    }
}

pub(crate) async fn an_entry_is_appended_only_by_who_has_seen_the_one_before(
    ledger: &dyn RolloutLedger,
) {
    let first = ledger.append("app", 0, entry("idle")).await.unwrap();
    assert_eq!((first.cluster.as_str(), first.version), ("app", 1));
    assert_conflict(ledger.append("app", 0, entry("gate")).await, 1);
    assert_conflict(ledger.append("app", 2, entry("gate")).await, 1);
    assert_conflict(ledger.append("web", 1, entry("gate")).await, 0);
    let second = ledger.append("app", 1, entry("gate")).await.unwrap();
    assert_eq!(second.version, 2);
    assert_eq!(ledger.latest("app").await.unwrap(), Some(second));
}

pub(crate) async fn what_was_appended_is_read_back_byte_for_byte(ledger: &dyn RolloutLedger) {
    let new = NewEntry {
        at_us: i64::MIN,
        ..entry("prêt")
    };
    let kept = ledger.append("my cluster/é", 0, new.clone()).await.unwrap();
    let expected = Entry {
        cluster: "my cluster/é".to_owned(),
        version: 1,
        id: new.id,
        rollout: new.rollout,
        state: new.state,
        body: new.body,
        at_us: i64::MIN,
    };
    assert_eq!(kept, expected);
    assert_eq!(ledger.latest("my cluster/é").await.unwrap(), Some(expected));
}

pub(crate) async fn a_repeated_append_answers_what_was_kept(ledger: &dyn RolloutLedger) {
    let first = entry("idle");
    let kept = ledger.append("app", 0, first.clone()).await.unwrap();
    assert_eq!(ledger.append("app", 0, first.clone()).await.unwrap(), kept);
    ledger.append("app", 1, entry("gate")).await.unwrap();
    // Also when the history has gone on.
    assert_eq!(ledger.append("app", 0, first.clone()).await.unwrap(), kept);
    assert_eq!(ledger.history("app", None, 10).await.unwrap().len(), 2);
    // As another version, or with another content, it is another entry and needs another id.
    assert_invalid(
        ledger.append("app", 2, first.clone()).await,
        "version 1 of `app`",
    );
    let changed = NewEntry {
        state: "bake".to_owned(),
        ..first.clone()
    };
    assert_invalid(ledger.append("app", 0, changed).await, "make a new id");
    // Histories of clusters know nothing of each other.
    ledger.append("web", 0, first).await.unwrap();
}

pub(crate) async fn history_is_read_in_pages_newest_first(ledger: &dyn RolloutLedger) {
    assert_eq!(ledger.history("app", None, 10).await.unwrap(), []);
    assert_eq!(ledger.latest("app").await.unwrap(), None);
    for expected in 0..7 {
        ledger
            .append("app", expected, entry("canary"))
            .await
            .unwrap();
        ledger
            .append("web", expected, entry("canary"))
            .await
            .unwrap();
    }
    let versions = async |before, limit| {
        let page = ledger.history("app", before, limit).await.unwrap();
        assert!(page.iter().all(|entry| entry.cluster == "app"));
        page.iter().map(|entry| entry.version).collect::<Vec<_>>()
    };
    assert_eq!(versions(None, 3).await, [7, 6, 5]);
    assert_eq!(versions(Some(5), 3).await, [4, 3, 2]);
    assert_eq!(versions(Some(2), HISTORY_MAX).await, [1]);
    assert_eq!(versions(Some(1), 3).await, [0_u64; 0]);
    assert_eq!(versions(Some(0), 3).await, [0_u64; 0]);
    assert_eq!(versions(Some(u64::MAX), 1).await, [7]);
}

pub(crate) async fn the_newest_of_every_cluster_is_listed_by_name(ledger: &dyn RolloutLedger) {
    assert_eq!(ledger.latest_all().await.unwrap(), []);
    ledger.append("web", 0, entry("idle")).await.unwrap();
    ledger.append("app", 0, entry("idle")).await.unwrap();
    ledger.append("app", 1, entry("gate")).await.unwrap();
    let listed = ledger.latest_all().await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|entry| (entry.cluster.as_str(), entry.version, entry.state.as_str()))
        .collect();
    assert_eq!(listed, [("app", 2, "gate"), ("web", 1, "idle")]);
}

pub(crate) async fn pruning_leaves_the_newest(ledger: &dyn RolloutLedger) {
    assert_eq!(ledger.prune("app", 1).await.unwrap(), 0);
    for expected in 0..5 {
        ledger
            .append("app", expected, entry("canary"))
            .await
            .unwrap();
        ledger
            .append("web", expected, entry("canary"))
            .await
            .unwrap();
    }
    assert_eq!(ledger.prune("app", 9).await.unwrap(), 0);
    assert_eq!(ledger.prune("app", 2).await.unwrap(), 3);
    assert_eq!(ledger.prune("app", 2).await.unwrap(), 0);
    let left = ledger.history("app", None, 10).await.unwrap();
    let left: Vec<_> = left.iter().map(|entry| entry.version).collect();
    assert_eq!(left, [5, 4]);
    assert_eq!(ledger.history("web", None, 10).await.unwrap().len(), 5);
    // Versions go on from where they were.
    assert_eq!(
        ledger
            .append("app", 5, entry("bake"))
            .await
            .unwrap()
            .version,
        6
    );
    assert_invalid(ledger.prune("app", 0).await, "at least 1");
}

pub(crate) async fn what_is_out_of_bounds_is_refused_and_not_kept(ledger: &dyn RolloutLedger) {
    let good = || entry("idle");
    let body = |body: String| NewEntry { body, ..good() };
    let id = |id: Uuid| NewEntry { id, ..good() };
    assert_invalid(ledger.append("", 0, good()).await, "cluster's name has 0");
    assert_invalid(
        ledger.append(&"a".repeat(256), 0, good()).await,
        "256 bytes",
    );
    assert_invalid(ledger.append("a\0b", 0, good()).await, "control character");
    assert_invalid(ledger.append("app", 0, entry("")).await, "state's name");
    assert_invalid(ledger.append("app", 0, id(Uuid::nil())).await, "UUIDv7");
    assert_invalid(ledger.append("app", u64::MAX, good()).await, "too large");
    assert_invalid(
        ledger.append("app", i64::MAX as u64, good()).await,
        "too large",
    );
    assert_invalid(
        ledger.append("app", 0, body("{".to_owned())).await,
        "no JSON",
    );
    let long = format!("\"{}\"", "x".repeat(BODY_BYTES_MAX - 1));
    assert_invalid(ledger.append("app", 0, body(long)).await, "262145 bytes");
    assert_invalid(ledger.history("app", None, 0).await, "limit of 0");
    assert_invalid(
        ledger.history("app", None, HISTORY_MAX + 1).await,
        "limit of 1001",
    );
    assert_invalid(ledger.latest("").await, "cluster's name");
    assert_eq!(ledger.latest_all().await.unwrap(), []);

    let longest = format!("\"{}\"", "x".repeat(BODY_BYTES_MAX - 2));
    let kept = ledger.append("app", 0, body(longest)).await.unwrap();
    assert_eq!(kept.body.len(), BODY_BYTES_MAX);
}

/// Given handles on one ledger, which may be one and the same.
pub(crate) async fn of_concurrent_appenders_exactly_one_wins_each_version(
    handles: Vec<Arc<dyn RolloutLedger>>,
) {
    const VERSIONS: u64 = 25;
    let mut appenders = tokio::task::JoinSet::new();
    for ledger in &handles {
        let ledger = Arc::clone(ledger);
        appenders.spawn(async move {
            let mut won = Vec::new();
            let mut expected = 0;
            while expected < VERSIONS {
                match ledger.append("app", expected, entry("canary")).await {
                    Ok(kept) => {
                        assert_eq!(kept.version, expected + 1);
                        won.push((kept.version, kept.id));
                        expected = kept.version;
                    }
                    Err(StoreError::Conflict { current }) => {
                        assert!(current > expected, "a conflict shows progress");
                        expected = current;
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            won
        });
    }
    let mut winners: Vec<_> = appenders.join_all().await.concat();
    winners.sort_unstable();
    let kept = handles[0].history("app", None, HISTORY_MAX).await.unwrap();
    let kept: Vec<_> = kept
        .iter()
        .rev()
        .map(|kept| (kept.version, kept.id))
        .collect();
    assert_eq!(winners, kept, "every winner is kept, and nobody else is");
    let versions: Vec<_> = kept.iter().map(|(version, _)| *version).collect();
    assert_eq!(versions, (1..=VERSIONS).collect::<Vec<_>>());
}

// === Any sequence of calls, beside a model ===

#[derive(Clone, Debug)]
pub(crate) enum Call {
    Append {
        cluster: usize,
        expected: u64,
        id: usize,
    },
    Latest {
        cluster: usize,
    },
    LatestAll,
    History {
        cluster: usize,
        before: Option<u64>,
        limit: u32,
    },
    Prune {
        cluster: usize,
        keep: u32,
    },
}

pub(crate) fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        6 => (0..2_usize, 0..8_u64, 0..12_usize)
            .prop_map(|(cluster, expected, id)| Call::Append { cluster, expected, id }),
        1 => (0..2_usize).prop_map(|cluster| Call::Latest { cluster }),
        1 => Just(Call::LatestAll),
        2 => (0..2_usize, proptest::option::of(0..9_u64), 1..5_u32)
            .prop_map(|(cluster, before, limit)| Call::History { cluster, before, limit }),
        1 => (0..2_usize, 1..4_u32).prop_map(|(cluster, keep)| Call::Prune { cluster, keep }),
    ];
    proptest::collection::vec(call, 1..60)
}

/// The promises as plain code: versions and which of the prepared entries each holds.
type Model = BTreeMap<&'static str, BTreeMap<u64, usize>>;

pub(crate) async fn any_sequence_of_calls_does_what_the_model_does(
    ledger: &dyn RolloutLedger,
    calls: &[Call],
) {
    const CLUSTERS: [&str; 2] = ["app", "web"];
    let prepared: Vec<NewEntry> = (0..12).map(|_| entry("canary")).collect();
    let kept = |cluster: &str, (version, id): (&u64, &usize)| Entry {
        cluster: cluster.to_owned(),
        version: *version,
        id: prepared[*id].id,
        rollout: prepared[*id].rollout,
        state: prepared[*id].state.clone(),
        body: prepared[*id].body.clone(),
        at_us: prepared[*id].at_us,
    };
    let mut model = Model::new();
    for call in calls {
        match *call {
            Call::Append {
                cluster,
                expected,
                id,
            } => {
                let cluster = CLUSTERS[cluster];
                let answer = ledger.append(cluster, expected, prepared[id].clone()).await;
                let history = model.get(cluster);
                let newest = history
                    .and_then(|history| history.keys().next_back())
                    .map_or(0, |version| *version);
                let known = history.and_then(|history| {
                    history
                        .iter()
                        .find(|(_, known)| **known == id)
                        .map(|(version, _)| *version)
                });
                match known {
                    Some(version) if version == expected + 1 => {
                        assert_eq!(answer.unwrap(), kept(cluster, (&version, &id)));
                    }
                    Some(_) => assert_invalid(answer, "make a new id"),
                    None if newest == expected => {
                        assert_eq!(answer.unwrap(), kept(cluster, (&(newest + 1), &id)));
                        model.entry(cluster).or_default().insert(newest + 1, id);
                    }
                    None => assert_conflict(answer, newest),
                }
            }
            Call::Latest { cluster } => {
                let cluster = CLUSTERS[cluster];
                let newest = model.get(cluster).and_then(BTreeMap::last_key_value);
                let newest = newest.map(|newest| kept(cluster, newest));
                assert_eq!(ledger.latest(cluster).await.unwrap(), newest);
            }
            Call::LatestAll => {
                let all: Vec<_> = model
                    .iter()
                    .filter_map(|(cluster, history)| Some(kept(cluster, history.last_key_value()?)))
                    .collect();
                assert_eq!(ledger.latest_all().await.unwrap(), all);
            }
            Call::History {
                cluster,
                before,
                limit,
            } => {
                let cluster = CLUSTERS[cluster];
                let page: Vec<_> = model
                    .get(cluster)
                    .into_iter()
                    .flat_map(|history| history.range(..before.unwrap_or(u64::MAX)).rev())
                    .take(limit as usize)
                    .map(|entry| kept(cluster, entry))
                    .collect();
                assert_eq!(ledger.history(cluster, before, limit).await.unwrap(), page);
            }
            Call::Prune { cluster, keep } => {
                let cluster = CLUSTERS[cluster];
                let history = model.entry(cluster).or_default();
                let mut gone = 0;
                while history.len() > keep as usize {
                    history.pop_first();
                    gone += 1;
                }
                assert_eq!(ledger.prune(cluster, keep).await.unwrap(), gone);
            }
        }
    }
}
