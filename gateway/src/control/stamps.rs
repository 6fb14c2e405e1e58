//! What is known of files without reading them, to see whether they changed since they were read.
//!
//! This is the floor under the watching of folders, which misses changes behind links, on network file
//! systems, of folders that were replaced, and everything where the system has no watches left.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How coarse the times of files are: the kernel's clock for them ticks a hundred times a second at
/// worst.
const COARSE: Duration = Duration::from_millis(10);

/// Files by absolute path, as they were at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamps(BTreeMap<PathBuf, Stamp>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    /// Not there, or not to be seen.
    Gone,
    /// There; links are followed.
    There {
        device: u64,
        inode: u64,
        length: u64,
        modified: (i64, i64),
        changed: (i64, i64),
    },
    /// It may have changed while it was read.
    Unsure,
}

impl Stamps {
    /// These files as they are now.
    pub(crate) fn now<'f>(files: impl IntoIterator<Item = &'f PathBuf>) -> Self {
        let files = files.into_iter().map(|file| {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            let stamp = Stamp::of(&file);
            (file, stamp)
        });
        Self(files.collect())
    }

    /// `files` as they were read by somebody who began at `began`, when `self` was taken. Of a file
    /// that is not part of `self` the state of now is known only, and is the one that was read unless
    /// the file is younger than that.
    pub(crate) fn read_since<'f>(
        self,
        began: SystemTime,
        files: impl IntoIterator<Item = &'f PathBuf>,
    ) -> Self {
        let mut all = Self::now(files);
        for (file, stamp) in &mut all.0 {
            match self.0.get(file) {
                Some(before) => *stamp = *before,
                None if stamp.is_younger_than(began) => *stamp = Stamp::Unsure,
                None => {}
            }
        }
        all
    }

    /// True where a file is not what it was.
    pub(crate) fn differ(&self) -> bool {
        self.0.iter().any(|(file, was)| Stamp::of(file) != *was)
    }

    /// True where a path leads to another file than it did, whatever became of contents.
    pub(crate) fn moved(&self) -> bool {
        self.0
            .iter()
            .any(|(file, was)| Stamp::of(file).identity() != was.identity())
    }

    /// The same files as they are now.
    pub(crate) fn again(&self) -> Self {
        Self::now(self.0.keys())
    }

    /// The files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.keys()
    }

    /// The folders that hold them.
    pub(crate) fn folders(&self) -> BTreeSet<PathBuf> {
        let parents = self.0.keys().filter_map(|file| file.parent());
        parents.map(Path::to_path_buf).collect()
    }
}

impl Stamp {
    fn of(file: &Path) -> Self {
        match std::fs::metadata(file) {
            Ok(metadata) => Self::There {
                device: metadata.dev(),
                inode: metadata.ino(),
                length: metadata.len(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            },
            Err(_) => Self::Gone,
        }
    }

    fn identity(&self) -> Option<(u64, u64)> {
        match self {
            Self::There { device, inode, .. } => Some((*device, *inode)),
            Self::Gone | Self::Unsure => None,
        }
    }

    fn is_younger_than(&self, time: SystemTime) -> bool {
        let Self::There { changed, .. } = self else {
            return false;
        };
        let since = (time - COARSE)
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let since = (
            since.as_secs().cast_signed(),
            i64::from(since.subsec_nanos()),
        );
        *changed > since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "one").expect("written");
        (folder, file)
    }

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_file_differs_once_it_is_written_replaced_or_gone() {
        let (folder, file) = folder();
        let stamps = Stamps::now([&file]);
        assert!(!stamps.differ());
        std::fs::write(&file, "longer").expect("written");
        assert!(stamps.differ());
        let stamps = Stamps::now([&file]);
        let other = folder.path().join("other");
        std::fs::write(&other, "other!").expect("written");
        std::fs::rename(&other, &file).expect("renamed");
        assert!(stamps.differ());
        let stamps = Stamps::now([&file]);
        std::fs::remove_file(&file).expect("removed");
        assert!(stamps.differ());
        assert!(!stamps.again().differ());
    }

    #[test]
    fn a_link_that_leads_elsewhere_makes_another_file() {
        let (folder, file) = folder();
        let (other, link) = (folder.path().join("other"), folder.path().join("link"));
        std::fs::write(&other, "one").expect("written");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        let stamps = Stamps::now([&link]);
        std::fs::remove_file(&link).expect("removed");
        std::os::unix::fs::symlink(&other, &link).expect("a link");
        assert!(stamps.differ());
    }

    #[test]
    fn a_file_that_is_younger_than_the_reading_of_it_is_read_once_more() {
        let (_folder, file) = folder();
        let began = SystemTime::UNIX_EPOCH;
        let unsure = Stamps::default().read_since(began, [&file]);
        assert!(unsure.differ());
        assert!(!Stamps::default().read_since(later(), [&file]).differ());
        // What was looked at before the reading is known for sure.
        let known = unsure.again().read_since(began, [&file]);
        assert!(!known.differ());
    }

    #[test]
    fn a_change_during_the_reading_shows_afterwards() {
        let (_folder, file) = folder();
        let before = Stamps::now([&file]);
        std::fs::write(&file, "while it is read").expect("written");
        assert!(before.read_since(SystemTime::UNIX_EPOCH, [&file]).differ());
    }
}
