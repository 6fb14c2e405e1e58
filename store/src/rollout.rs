//! The history of rollouts: per cluster, one entry after the other, each appended only by somebody
//! who has seen the one before.

use crate::write::Write;
use crate::{StoreError, check};
use async_trait::async_trait;
use std::time::Instant;
use uuid::Uuid;

/// Longest body, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// Most entries that one read answers.
pub const HISTORY_MAX: u32 = 1_000;
/// Entries that a cluster's history keeps, unless the engine was told otherwise: an append drops what
/// is older.
pub const HISTORY_KEPT: u32 = 10_000;

/// An entry to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// A UUIDv7, made once per entry and kept when the append is repeated.
    pub id: Uuid,
    /// The rollout that it belongs to.
    pub rollout: Uuid,
    /// Name of the state, for listings; 1 to 255 bytes.
    pub state: String,
    /// JSON text of the caller's; at most [`BODY_BYTES_MAX`].
    pub body: String,
    /// When it was decided, in microseconds since 1970 UTC.
    pub at_us: i64,
}

/// An entry that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The cluster whose history this is.
    pub cluster: String,
    /// 1 for the cluster's first entry, then one more each.
    pub version: u64,
    /// As in [`NewEntry::id`].
    pub id: Uuid,
    /// As in [`NewEntry::rollout`].
    pub rollout: Uuid,
    /// As in [`NewEntry::state`].
    pub state: String,
    /// As in [`NewEntry::body`], byte for byte.
    pub body: String,
    /// As in [`NewEntry::at_us`].
    pub at_us: i64,
}

/// Where intent is written down before it is acted on.
///
/// Every method fails with [`StoreError::Unavailable`] where the engine cannot answer, and with
/// [`StoreError::Invalid`] where a name, an id or a number is out of bounds.
#[async_trait]
pub trait RolloutLedger: Send + Sync {
    /// Appends version `expected + 1` of a cluster, 1 to 255 bytes. Once it returns, the entry
    /// survives a loss of power. The same entry (same `id`) at the same version again answers what
    /// was kept the first time, also when the history has gone on since. Costs one fsync.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where the cluster is not at `expected`; [`StoreError::Invalid`] where
    /// the id already names another entry of this cluster, the body is too long, or it is no JSON.
    async fn append(
        &self,
        cluster: &str,
        expected: u64,
        entry: NewEntry,
    ) -> Result<Entry, StoreError>;

    /// [`Self::append`], and when the entry was safe, before whoever waits for it was woken. Where it was
    /// kept by an earlier call, no later than when this one was made, so that nothing that is measured from
    /// then comes out too short; an engine that does not tell the two apart answers the present.
    ///
    /// # Errors
    /// As [`Self::append`].
    async fn append_timed(
        &self,
        cluster: &str,
        expected: u64,
        entry: NewEntry,
    ) -> Result<(Entry, Instant), StoreError> {
        let kept = self.append(cluster, expected, entry).await?;
        Ok((kept, Instant::now()))
    }

    /// The newest entry of a cluster.
    ///
    /// # Errors
    /// As for the trait.
    async fn latest(&self, cluster: &str) -> Result<Option<Entry>, StoreError>;

    /// The newest entry of every cluster that has one, by name of the cluster.
    ///
    /// # Errors
    /// As for the trait.
    async fn latest_all(&self) -> Result<Vec<Entry>, StoreError>;

    /// Entries of a cluster, newest first: those below version `before`, or all; `limit` of them, 1
    /// to [`HISTORY_MAX`].
    ///
    /// # Errors
    /// As for the trait.
    async fn history(
        &self,
        cluster: &str,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Forgets all but the newest `keep` entries of a cluster, at least 1, and answers how many went.
    ///
    /// # Errors
    /// As for the trait.
    async fn prune(&self, cluster: &str, keep: u32) -> Result<u64, StoreError>;
}

// === What an append may do, decided in one place for every engine ===

/// What an engine has to find out, in one transaction, before it appends.
#[derive(Debug)]
pub(crate) struct Found {
    /// Newest version of the cluster; 0 where it has none.
    pub(crate) newest: u64,
    /// The entry with this id, if the cluster has it.
    pub(crate) same_id: Option<Entry>,
}

/// Bounds of an append; the engine asks before it reads.
pub(crate) fn check_append(
    cluster: &str,
    expected: u64,
    entry: &NewEntry,
) -> Result<(), StoreError> {
    check::name("cluster's name", cluster)?;
    check::name("state's name", &entry.state)?;
    check::time_ordered("entry's id", entry.id)?;
    check::signed("expected version", expected.saturating_add(1))?;
    if entry.body.len() > BODY_BYTES_MAX {
        return Err(StoreError::Invalid(format!(
            "the body has {} bytes, more than {BODY_BYTES_MAX}; keep large evidence elsewhere and \
             name it",
            entry.body.len()
        )));
    }
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&entry.body) {
        return Err(StoreError::Invalid(format!(
            "the body is no JSON text: {error}"
        )));
    }
    Ok(())
}

/// Whether an entry may be appended to what was found.
pub(crate) fn decide_append(
    cluster: &str,
    expected: u64,
    entry: NewEntry,
    found: Found,
) -> Result<Write<Entry>, StoreError> {
    let entry = Entry {
        cluster: cluster.to_owned(),
        version: expected + 1,
        id: entry.id,
        rollout: entry.rollout,
        state: entry.state,
        body: entry.body,
        at_us: entry.at_us,
    };
    if let Some(kept) = found.same_id {
        return if kept == entry {
            Ok(Write::Kept(kept))
        } else {
            Err(StoreError::Invalid(format!(
                "entry {} is version {} of `{cluster}` already, with what it held then; make a new \
                 id for a new entry",
                kept.id, kept.version
            )))
        };
    }
    if found.newest == expected {
        Ok(Write::New(entry))
    } else {
        Err(StoreError::Conflict {
            current: found.newest,
        })
    }
}

/// Bounds of a read of history, and the version to read below.
pub(crate) fn check_history(
    cluster: &str,
    before: Option<u64>,
    limit: u32,
) -> Result<i64, StoreError> {
    check::name("cluster's name", cluster)?;
    if limit == 0 || limit > HISTORY_MAX {
        return Err(StoreError::Invalid(format!(
            "a limit of {limit} entries; give 1 to {HISTORY_MAX}, and read on with `before`"
        )));
    }
    // Versions end below the largest signed number, so clamping leaves none out.
    Ok(before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX)))
}

/// Bounds of a prune.
pub(crate) fn check_prune(cluster: &str, keep: u32) -> Result<(), StoreError> {
    check::name("cluster's name", cluster)?;
    if keep == 0 {
        return Err(StoreError::Invalid(
            "the newest entry says where the cluster stands; keep at least 1".to_owned(),
        ));
    }
    Ok(())
}
