//! Where the new process is waited for: a unix socket that nobody else can use.

use super::channel::Channel;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;
use uuid::Uuid;

/// What systemd calls the service's `RuntimeDirectory=`.
const RUNTIME_DIRECTORY: &str = "RUNTIME_DIRECTORY";

/// A socket in a folder of its own; both go when this is dropped.
#[derive(Debug)]
pub(super) struct ControlSocket {
    listener: UnixListener,
    folder: PathBuf,
    path: PathBuf,
}

/// The folder that is for such things: the service's own, or the system's temporary one.
pub(super) fn parent() -> PathBuf {
    let folders = std::env::var_os(RUNTIME_DIRECTORY).unwrap_or_default();
    let first = std::env::split_paths(&folders).next();
    first
        .filter(|folder| folder.is_absolute())
        .unwrap_or_else(std::env::temp_dir)
}

impl ControlSocket {
    /// Makes a folder in `parent`, mode 0700, and the socket in it, mode 0600.
    pub(super) fn bind(parent: &Path) -> io::Result<Self> {
        let folder = parent.join(format!("hub-upgrade-{}", Uuid::now_v7().simple()));
        // Of a name that was not there, and its owner's alone before there is anything in it.
        DirBuilder::new().mode(0o700).create(&folder)?;
        let path = folder.join("control");
        let listener = UnixListener::bind(&path).and_then(|listener| {
            std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            Ok(listener)
        });
        match listener {
            Ok(listener) => Ok(Self {
                listener,
                folder,
                path,
            }),
            Err(error) => {
                remove(&folder, &path);
                Err(error)
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the process `child` of this user. Whoever else connects is closed without a word.
    pub(super) async fn accept(&self, child: u32) -> io::Result<Channel> {
        let mut told = false;
        loop {
            let (stream, _) = self.listener.accept().await?;
            let peer = stream.peer_cred()?;
            let own = rustix::process::geteuid().as_raw();
            let is_child = peer.pid().and_then(|pid| u32::try_from(pid).ok()) == Some(child);
            if peer.uid() == own && is_child {
                return Ok(Channel::new(stream));
            }
            if !told {
                told = true;
                tracing::warn!(
                    pid = peer.pid(),
                    uid = peer.uid(),
                    "a stranger has connected to the control socket of an upgrade and was closed"
                );
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        remove(&self.folder, &self.path);
    }
}

fn remove(folder: &Path, path: &Path) {
    // What is not there needs no removing, and what cannot be removed does no harm.
    std::fs::remove_file(path).ok();
    std::fs::remove_dir(folder).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn it_is_its_owner_s_alone_and_leaves_nothing_behind() {
        let parent = tempfile::tempdir().expect("a folder");
        let socket = ControlSocket::bind(parent.path()).expect("a socket");
        let mode = |path: &Path| {
            let metadata = std::fs::metadata(path).expect("it is there");
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode(socket.path()), 0o600);
        assert_eq!(mode(&socket.folder), 0o700);
        drop(socket);
        assert_eq!(std::fs::read_dir(parent.path()).expect("it").count(), 0);
        let gone = parent.path().join("gone");
        assert!(ControlSocket::bind(&gone).is_err());
    }

    #[tokio::test]
    async fn a_stranger_is_closed_and_the_child_is_still_waited_for() {
        let parent = tempfile::tempdir().expect("a folder");
        let socket = ControlSocket::bind(parent.path()).expect("a socket");
        let this = std::process::id();
        let mut stranger = UnixStream::connect(socket.path()).await.expect("open");
        // For the socket of another child, this process is a stranger.
        let waits = tokio::time::timeout(Duration::from_millis(50), socket.accept(this + 1));
        assert!(waits.await.is_err());
        assert_eq!(stranger.read(&mut [0]).await.expect("closed"), 0);
        let _child = UnixStream::connect(socket.path()).await.expect("open");
        assert!(socket.accept(this).await.is_ok());
    }
}
