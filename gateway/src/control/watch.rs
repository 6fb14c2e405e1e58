//! Reload when files change.
//!
//! Folders are watched rather than files: replacing a file by renaming another over it is the good way
//! to write one, and it leaves a watch on the file behind. What a watch says is a hint only. What
//! decides is whether a file differs from what the last load read, good or not, and that is looked at
//! every few seconds whatever the watches say.

use super::reload::{Reloader, Trigger};
use super::stamps::Stamps;
use crate::hub::Hub;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Editors and deploy tools write in several steps; a reload waits this long after the last one ...
const SETTLE: Duration = Duration::from_millis(100);
/// ... but not longer than this, or a file that changes all the time would be waited for without end.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// How often files are looked at, and watches that could not be had are tried again.
const LOOK: Duration = Duration::from_secs(2);

/// Watches the configuration, and all files that it names, until the process ends.
pub async fn watch_files(hub: Arc<Hub>, reloader: Reloader) {
    let changed = Arc::new(Notify::new());
    let mut watches = Watches::default();
    let mut looked = Stamps::default();
    loop {
        let read = reloader.files_read();
        if watches.renew(&read, &changed) && read.differ() {
            // What happened before the watches stood.
            changed.notify_one();
        }
        let told = tokio::time::timeout(LOOK, changed.notified()).await.is_ok();
        if told {
            settle(&changed).await;
        }
        // A load may have ended meanwhile.
        let read = reloader.files_read();
        let differs = read.differ();
        // Nobody said that whoever writes is done, so the file must have come to rest.
        let rests = told || !looked.differ();
        looked = read.again();
        if differs && rests && hub.peek().config.gateway.reload_on_change {
            reloader.nudge(Trigger::FileChange);
        }
    }
}

/// Waits until changes have stopped, so that those that follow closely are one.
async fn settle(changed: &Notify) {
    let end = Instant::now() + SETTLE_MAX;
    while Instant::now() < end
        && tokio::time::timeout(SETTLE, changed.notified())
            .await
            .is_ok()
    {}
}

/// The watched folders.
#[derive(Default)]
struct Watches {
    watcher: Option<RecommendedWatcher>,
    files: BTreeSet<PathBuf>,
    /// With their identity: a folder that was replaced takes its watch along.
    folders: Stamps,
    /// Some folder could not be watched.
    incomplete: bool,
}

impl Watches {
    /// Makes the watches those of `read`'s files, where they are not; true where that was done.
    fn renew(&mut self, read: &Stamps, changed: &Arc<Notify>) -> bool {
        let files: BTreeSet<PathBuf> = read.files().cloned().collect();
        if !self.incomplete && files == self.files && !self.folders.moved() {
            return false;
        }
        let again = std::mem::replace(&mut self.incomplete, false) && files == self.files;
        let folders = read.folders();
        self.folders = Stamps::now(&folders);
        self.watcher = None;
        match watcher(files.clone(), Arc::clone(changed)) {
            Ok(mut watcher) => {
                for folder in &folders {
                    if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                        self.cannot(&error, again);
                    }
                }
                self.watcher = Some(watcher);
            }
            Err(error) => self.cannot(&error, again),
        }
        self.files = files;
        true
    }

    fn cannot(&mut self, error: &notify::Error, again: bool) {
        self.incomplete = true;
        if !again {
            tracing::warn!(
                %error,
                "a folder cannot be watched; changes of its files are seen some seconds later"
            );
        }
    }
}

fn watcher(wanted: BTreeSet<PathBuf>, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else {
            changed.notify_one();
            return;
        };
        let touches = event.need_rescan()
            || event.paths.iter().any(|path| {
                wanted.contains(path)
                    // Kubernetes swaps a link named `..data` beside the files.
                    || path.file_name().is_some_and(|name| name == "..data")
            });
        if touches && ends_a_change(event.kind) {
            changed.notify_one();
        }
    })
}

/// False for reading, and for writing before the file is closed: half a file is nobody's configuration.
fn ends_a_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Modify(kind) => matches!(kind, ModifyKind::Name(_) | ModifyKind::Any),
        EventKind::Any | EventKind::Create(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_missing_or_replaced_is_watched_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (sub, other) = (folder.path().join("sub"), folder.path().join("other"));
        let read = Stamps::now(&[sub.join("file")]);
        let (mut watches, changed) = (Watches::default(), Arc::new(Notify::new()));
        assert!(watches.renew(&read, &changed) && watches.incomplete);
        std::fs::create_dir(&sub).expect("a folder");
        assert!(watches.renew(&read, &changed) && !watches.incomplete);
        assert!(!watches.renew(&read, &changed), "nothing is different");
        std::fs::create_dir(&other).expect("a folder");
        std::fs::rename(&other, &sub).expect("replaced");
        assert!(watches.renew(&read, &changed) && !watches.incomplete);
    }

    #[test]
    fn half_a_file_is_no_change_and_a_closed_one_is() {
        use notify::event::{DataChange, RenameMode};
        let writing = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        assert!(!ends_a_change(writing));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(ends_a_change(closed));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        assert!(ends_a_change(renamed));
    }
}
