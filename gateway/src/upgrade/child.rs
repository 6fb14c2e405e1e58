//! The new process: which program, with what, and its end.

use super::SOCKET;
use super::error::Error;
use crate::service::watchdog;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};

/// How this process was started, which is how the next one is.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Of this process. To be asked for early: once the file is replaced, the system has no good name for
    /// what runs.
    pub(crate) fn of_this_process() -> std::io::Result<Self> {
        let mut arguments = std::env::args_os();
        let name = arguments.next().map(PathBuf::from);
        // As it was called, so that a link leads to the version that it leads to by then.
        let called = name.filter(|name| name.is_absolute() && name.exists());
        Ok(Self {
            path: called.map_or_else(std::env::current_exe, Ok)?,
            arguments: arguments.collect(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts `path` as this process was started, with the name of the control socket.
    pub(super) fn start(&self, path: &Path, control: &Path) -> Result<Child, Error> {
        check(path)?;
        let mut command = Command::new(path);
        command.args(&self.arguments).stdin(Stdio::null());
        command.env(SOCKET, control);
        // Meant for this process alone.
        for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        if watchdog::from_env().is_none() {
            command.env_remove("WATCHDOG_USEC");
        }
        command.spawn().map_err(|source| Error::Spawn {
            program: path.to_owned(),
            source,
        })
    }
}

/// Looks whether a program may be run with this process's rights: whoever may ask for an upgrade must not
/// be able to run what anybody could have put there.
fn check(path: &Path) -> Result<(), Error> {
    let refused = |why| {
        Err(Error::Program {
            program: path.to_owned(),
            why,
        })
    };
    let metadata = std::fs::metadata(path).map_err(|source| Error::Spawn {
        program: path.to_owned(),
        source,
    })?;
    let own = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    if !metadata.is_file() {
        return refused("it is no file");
    }
    if metadata.uid() != own && metadata.uid() != 0 {
        return refused("it belongs neither to root nor to the gateway's user");
    }
    if metadata.mode() & 0o002 != 0 {
        return refused("everybody may write to it");
    }
    if is_open_to_a_group(metadata.mode(), metadata.gid(), group) {
        return refused("a group may write to it that is neither root's nor the gateway's own");
    }
    Ok(())
}

/// Whether members of a group may write that is neither root's nor `own`.
fn is_open_to_a_group(mode: u32, group: u32, own: u32) -> bool {
    mode & 0o020 != 0 && group != own && group != 0
}

/// Kills it, if it lives, and says how it ended.
pub(super) async fn end(child: &mut Child) -> String {
    // An error means that it has ended already.
    child.start_kill().ok();
    match child.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_anybody_may_write_is_not_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("program");
        std::fs::write(&path, "").expect("written");
        for (mode, good) in [(0o755, true), (0o775, true), (0o757, false)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("our own file");
            assert_eq!(check(&path).is_ok(), good, "{mode:o}");
        }
        assert!(is_open_to_a_group(0o775, 7, 8));
        for (mode, group) in [(0o755, 7), (0o775, 8), (0o775, 0)] {
            assert!(!is_open_to_a_group(mode, group, 8), "{mode:o} {group}");
        }
        assert!(check(folder.path()).is_err());
        assert!(check(&folder.path().join("gone")).is_err());
    }
}
