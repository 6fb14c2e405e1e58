//! Processes that served before this one and still drain.
//!
//! Known by process descriptors, never by numbers, which may belong to somebody else by then.

use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// See the module. Clones are the same list.
#[derive(Clone, Debug)]
pub(crate) struct Predecessors {
    list: Arc<Mutex<Vec<Predecessor>>>,
    left: watch::Sender<usize>,
}

#[derive(Clone, Debug)]
struct Predecessor {
    pid: u32,
    handle: Arc<AsyncFd<OwnedFd>>,
}

/// A descriptor of a process that lives.
pub(super) fn open(pid: u32) -> io::Result<OwnedFd> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = raw.ok_or_else(|| io::Error::other("no process has this number"))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// A process descriptor that is readable when its process has ended. Within a runtime.
#[expect(
    deprecated,
    reason = "sound for a descriptor that the value owns; the constructor instead of it is unsafe for all"
)]
pub(super) fn watched(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(handle, Interest::READABLE)
}

impl Default for Predecessors {
    fn default() -> Self {
        Self {
            list: Arc::default(),
            left: watch::Sender::new(0),
        }
    }
}

impl Predecessors {
    /// Adds one, until it ends. Within a runtime.
    pub(super) fn add(&self, pid: u32, handle: OwnedFd) -> io::Result<()> {
        let handle = Arc::new(watched(handle)?);
        let one = Predecessor {
            pid,
            handle: Arc::clone(&handle),
        };
        self.list.lock().push(one);
        self.count();
        let predecessors = self.clone();
        tokio::spawn(async move {
            // Readable when it has ended. An error would be the runtime's end, and ours.
            if handle.readable().await.is_ok() {
                predecessors.list.lock().retain(|one| one.pid != pid);
                predecessors.count();
                tracing::info!(pid, "the process that served before has ended");
            }
        });
        Ok(())
    }

    fn count(&self) {
        let count = self.list.lock().len();
        self.left.send_replace(count);
    }

    /// Process ids of those that still drain.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.list.lock().iter().map(|one| one.pid).collect()
    }

    /// Those that still drain, for the next process.
    pub(super) fn descriptors(&self) -> Vec<(u32, Arc<AsyncFd<OwnedFd>>)> {
        let list = self.list.lock();
        list.iter()
            .map(|one| (one.pid, Arc::clone(&one.handle)))
            .collect()
    }

    /// Tells them to end, as SIGTERM does.
    pub(crate) fn terminate(&self) {
        for one in self.list.lock().iter() {
            // One that has ended meanwhile is what is wanted.
            pidfd_send_signal(one.handle.get_ref(), Signal::TERM).ok();
        }
    }

    /// Waits until all have ended, `longest` at most.
    pub(crate) async fn ended(&self, longest: Duration) {
        self.fewer_than(1, longest).await;
    }

    /// Waits until fewer than `count` are left, `longest` at most.
    pub(super) async fn fewer_than(&self, count: usize, longest: Duration) {
        let mut left = self.left.subscribe();
        let fewer = left.wait_for(|left| *left < count);
        // Running out of time is one of the two ordinary ends.
        let _in_time = tokio::time::timeout(longest, fewer).await.map(drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn one_is_known_until_it_ends_and_may_be_told_to() {
        let mut child = Command::new("sleep").arg("600").spawn().expect("a child");
        let predecessors = Predecessors::default();
        let handle = open(child.id()).expect("it lives");
        predecessors.add(child.id(), handle).expect("a runtime");
        assert_eq!(predecessors.pids(), [child.id()]);
        predecessors.terminate();
        predecessors.ended(Duration::from_secs(10)).await;
        assert_eq!(predecessors.pids(), [0; 0]);
        assert!(!child.wait().expect("our own child").success());
    }
}
