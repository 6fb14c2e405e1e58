//! Reload when files change.

use super::reload::{Reloader, Trigger};
use crate::hub::Hub;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;

/// Editors and deploy tools write in several steps; a reload waits this long after the last one.
const SETTLE: Duration = Duration::from_millis(100);
/// Watches are renewed this often, since a reload may bring new files.
const RENEW: Duration = Duration::from_secs(5);
/// Longest time between the reading of a file and the snapshot's own time, and how coarse the times of
/// files are.
const READ_BEFORE: Duration = Duration::from_secs(2);

/// Watches the configuration, and all files that it names, until the process ends. The folders are
/// watched rather than the files: replacing a file by renaming another over it is the good way to
/// write one, and it leaves a watch on the file behind. What changed since `began`, when the process
/// began to read them, and before the watch stood is seen by the files' own times.
pub async fn watch_files(hub: Arc<Hub>, config: PathBuf, reloader: Reloader, began: SystemTime) {
    let changed = Arc::new(Notify::new());
    let mut watched = BTreeSet::new();
    let mut watcher: Option<RecommendedWatcher> = None;
    loop {
        let files = files(&hub, &config);
        if files != watched {
            watcher = start(&files, Arc::clone(&changed));
            let read_at = match watched.is_empty() {
                true => began,
                false => hub.peek().taken_at - READ_BEFORE,
            };
            if files
                .difference(&watched)
                .any(|file| is_newer(file, read_at))
            {
                changed.notify_one();
            }
            watched = files;
        }
        if watcher.is_none() {
            watched.clear();
        }
        if tokio::time::timeout(RENEW, changed.notified())
            .await
            .is_err()
        {
            continue;
        }
        // Take changes that follow closely into the same reload.
        while tokio::time::timeout(SETTLE, changed.notified())
            .await
            .is_ok()
        {}
        if hub.peek().config.gateway.reload_on_change {
            reloader.nudge(Trigger::FileChange);
        }
    }
}

fn files(hub: &Hub, config: &Path) -> BTreeSet<PathBuf> {
    let snapshot = hub.peek();
    let certificates = snapshot
        .listeners
        .iter()
        .filter_map(|listener| listener.tls.as_ref())
        .flat_map(|tls| tls.certificates.iter())
        .flat_map(|(certificate, key)| [certificate.clone(), key.clone()]);
    snapshot
        .config
        .files
        .iter()
        .cloned()
        .chain(certificates)
        .chain(std::iter::once(config.to_path_buf()))
        .map(|file| std::path::absolute(&file).unwrap_or(file))
        .collect()
}

/// True where the file was written after this time. One that is gone is the next reload's affair.
fn is_newer(file: &Path, time: SystemTime) -> bool {
    std::fs::metadata(file)
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|modified| modified > time)
}

fn start(files: &BTreeSet<PathBuf>, changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let wanted = files.clone();
    let folders: BTreeSet<PathBuf> = files
        .iter()
        .filter_map(|file| file.parent())
        .map(PathBuf::from)
        .collect();
    let on_event = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else {
            changed.notify_one();
            return;
        };
        let touches = event.paths.iter().any(|path| {
            wanted.contains(path)
                // Kubernetes and systemd swap a link named `..data` beside the files.
                || path.file_name().is_some_and(|name| name == "..data")
        });
        if touches && !event.kind.is_access() {
            changed.notify_one();
        }
    };
    let mut watcher = match notify::recommended_watcher(on_event) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "files cannot be watched; reload by SIGHUP or over the admin API");
            return None;
        }
    };
    for folder in folders {
        if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
            tracing::warn!(%error, folder = %folder.display(), "this folder cannot be watched");
        }
    }
    Some(watcher)
}
