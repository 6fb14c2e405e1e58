//! Processes that drain behind this one: those that served before it.
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

/// Tells a process to end, as SIGTERM does.
pub(super) fn terminate(handle: &OwnedFd) {
    // One that has ended meanwhile is what is wanted.
    pidfd_send_signal(handle, Signal::TERM).ok();
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
        self.change(|list| list.push(one));
        let predecessors = self.clone();
        tokio::spawn(async move {
            // Readable when it has ended. An error would be the runtime's end, and ours.
            if handle.readable().await.is_ok() {
                predecessors.change(|list| list.retain(|one| one.pid != pid));
                tracing::info!(pid, "a process that drained behind this one has ended");
            }
        });
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Predecessor>)) {
        let mut list = self.list.lock();
        change(&mut list);
        // Within the lock, so that the last count is the right one.
        self.left.send_replace(list.len());
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
            terminate(one.handle.get_ref());
        }
    }

    /// Who still drains, and what to do about it, as operators read it; `None` where nobody does.
    pub(crate) fn told(&self) -> Option<String> {
        let pids: Vec<String> = self.pids().iter().map(ToString::to_string).collect();
        let (who, names) = match pids.as_slice() {
            [] => return None,
            [one] => (
                format!("process {one} of an upgrade still serves"),
                one.clone(),
            ),
            more => {
                let names = more.join(" ");
                (format!("processes {names} of upgrades still serve"), names)
            }
        };
        Some(format!(
            "{who} clients; wait until hub_processes_draining is 0, or end them now with `kill -TERM {names}`"
        ))
    }

    /// Waits until all have ended, however long that takes.
    pub(crate) async fn all_ended(&self) {
        let mut left = self.left.subscribe();
        // Its sender is `self`'s.
        let _closed = left.wait_for(|left| *left == 0).await.map(drop);
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
