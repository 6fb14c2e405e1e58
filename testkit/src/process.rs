//! What a process costs, from `/proc`, and where it may run. Linux only.
//!
//! ```
//! use hub_testkit::process;
//!
//! let usage = process::usage_of_tree(std::process::id()).unwrap();
//! assert!(usage.rss_bytes > 0 && usage.processes >= 1);
//! ```
//!
//! Invariant: a [`Guard`] never leaves its process behind.

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::CpuSet;
use std::collections::HashMap;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Microseconds in a tick of `/proc/PID/stat`: Linux shows 100 ticks a second to programs on every
/// architecture that Rust's tier 1 has.
const TICK_US: u64 = 10_000;
/// Bytes in a page of `/proc/PID/statm`, where the page size is that of x86-64 and common arm64.
const PAGE_BYTES: u64 = 4_096;

/// What one or several processes have used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all threads, ended ones included, in microseconds; a multiple of
    /// 10,000.
    pub cpu_us: u64,
    /// Resident memory, in bytes. Pages that processes share count once for each.
    pub rss_bytes: u64,
    /// Live threads.
    pub threads: u64,
    /// Processes.
    pub processes: u64,
    /// Times that live threads gave up their CPU to wait.
    pub switches_voluntary: u64,
    /// Times that live threads were made to give up their CPU.
    pub switches_involuntary: u64,
    /// Open file descriptors.
    pub fds: u64,
}

/// Usage of one process.
///
/// # Errors
/// `NotFound` if it has ended; `PermissionDenied` if it belongs to another user.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = Stat::read(pid)?;
    let mut usage = Usage {
        cpu_us: stat.cpu_ticks * TICK_US,
        rss_bytes: stat.rss_pages * PAGE_BYTES,
        processes: 1,
        fds: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
        ..Usage::default()
    };
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that ends while it is looked at is a thread that is gone.
        let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else {
            continue;
        };
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse::<u64>().ok()
        };
        usage.threads += 1;
        usage.switches_voluntary += value("voluntary_ctxt_switches:").unwrap_or(0);
        usage.switches_involuntary += value("nonvoluntary_ctxt_switches:").unwrap_or(0);
    }
    Ok(usage)
}

/// Usage of a process and everything that descends from it.
///
/// # Errors
/// As [`usage`], for `pid` itself; a descendant that ends meanwhile is left out.
pub fn usage_of_tree(pid: u32) -> io::Result<Usage> {
    let mut sum = usage(pid)?;
    for child in descendants(pid)? {
        let Ok(more) = usage(child) else { continue };
        sum.cpu_us += more.cpu_us;
        sum.rss_bytes += more.rss_bytes;
        sum.threads += more.threads;
        sum.processes += more.processes;
        sum.switches_voluntary += more.switches_voluntary;
        sum.switches_involuntary += more.switches_involuntary;
        sum.fds += more.fds;
    }
    Ok(sum)
}

/// Memory that a process and everything that descends from it have for themselves, in bytes: pages that no
/// file stands behind, in memory or swapped out; of shared ones a part. The kernel walks all pages for it,
/// so it is nothing for every millisecond.
///
/// # Errors
/// As [`usage`], for `pid` itself; a descendant that ends meanwhile is left out.
pub fn own_bytes_of_tree(pid: u32) -> io::Result<u64> {
    let own = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        own_bytes(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    };
    let children = descendants(pid)?;
    let more: u64 = children.into_iter().filter_map(|one| own(one).ok()).sum();
    Ok(own(pid)? + more)
}

/// [`own_bytes_of_tree`] of one `smaps_rollup`.
fn own_bytes(text: &str) -> Option<u64> {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let kib = line.split_ascii_whitespace().next()?;
        kib.parse::<u64>().ok()
    };
    let kib = value("Pss_Anon:")? + value("Pss_Shmem:")? + value("SwapPss:")?;
    Some(kib << 10)
}

/// Every process that descends from `pid`, in no order.
fn descendants(pid: u32) -> io::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Ok(stat) = Stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![pid];
    while let Some(parent) = open.pop() {
        // Each list is taken out, so a parent number that was reused cannot make this run in circles.
        let Some(list) = children.remove(&parent) else {
            continue;
        };
        open.extend(&list);
        found.extend(list);
    }
    Ok(found)
}

/// The fields of `/proc/PID/stat` that are used here.
struct Stat {
    parent: u32,
    cpu_ticks: u64,
    rss_pages: u64,
}

impl Stat {
    fn read(pid: u32) -> io::Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name of the program stands in parentheses and may hold anything, these included.
        let (_, rest) = text.rsplit_once(')')?;
        let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3);
        let ticks = |number| field(number)?.parse::<u64>().ok();
        Some(Self {
            parent: field(4)?.parse().ok()?,
            cpu_ticks: ticks(14)? + ticks(15)?,
            rss_pages: ticks(24)?,
        })
    }
}

/// Lets the calling thread, and what it starts from now on, run on these CPUs only.
///
/// # Errors
/// `InvalidInput` if none of them exists.
pub fn pin_this_thread(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU) {
        set.set(*cpu);
    }
    rustix::thread::sched_setaffinity(None, &set).map_err(io::Error::from)
}

/// The CPUs that the calling thread may run on, in order. Where it was pinned, those alone.
///
/// # Errors
/// None that Linux is known to give for the calling thread itself.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect())
}

/// Starts `command`, all of whose threads may run on these CPUs only; where the calling thread may, if
/// there are none.
///
/// # Errors
/// As [`Command::spawn`] and [`pin_this_thread`].
pub fn spawn_pinned(mut command: Command, cpus: &[usize]) -> io::Result<Guard> {
    // A child inherits the mask of the thread that starts it, so a thread of its own needs no
    // restoring afterwards, and no code between fork and exec.
    let cpus = cpus.to_vec();
    let spawner = std::thread::spawn(move || {
        if !cpus.is_empty() {
            pin_this_thread(&cpus)?;
        }
        command.spawn()
    });
    let child = spawner.join().unwrap_or_else(|_| {
        Err(io::Error::other(
            "the thread that starts processes panicked",
        ))
    })?;
    Ok(Guard { child })
}

/// Raises this process's limit of open files, which its children inherit, to `wanted` or to as much
/// as is allowed. Returns the limit in force.
pub fn raise_fd_limit(wanted: u64) -> u64 {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let current = now.current.unwrap_or(u64::MAX);
    let allowed = wanted.min(now.maximum.unwrap_or(u64::MAX));
    if current >= allowed {
        return current;
    }
    let raised = Rlimit {
        current: Some(allowed),
        maximum: now.maximum,
    };
    match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => allowed,
        Err(_) => current,
    }
}

/// A started process that is killed when this is dropped.
#[derive(Debug)]
pub struct Guard {
    child: Child,
}

impl Guard {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// As [`Child::try_wait`].
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Asks it to end (SIGTERM) and waits; kills it after `patience`. Blocks the calling thread.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn terminate(mut self, patience: Duration) -> io::Result<ExitStatus> {
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            // An error means that it has ended already, which the wait below finds out.
            if rustix::process::kill_process(pid, Signal::TERM).is_ok() {
                let deadline = Instant::now() + patience;
                while Instant::now() < deadline {
                    if let Some(status) = self.child.try_wait()? {
                        return Ok(status);
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
        // Killing can only fail if it has ended meanwhile.
        self.child.kill().ok();
        self.child.wait()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Both can only fail if it has ended meanwhile.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A process that somebody else has started and that is the caller's to end: killed when this is dropped.
/// Known by a handle, so that no other process is ever hit that got its number.
#[derive(Debug)]
pub struct Adopted {
    handle: OwnedFd,
}

impl Adopted {
    /// Takes charge of a process that lives.
    ///
    /// # Errors
    /// There is none with this id.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { handle })
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        // An error means that it has ended already.
        pidfd_send_signal(&self.handle, Signal::TERM).ok();
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        // An error means that it has ended already.
        pidfd_send_signal(&self.handle, Signal::KILL).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    #[test]
    fn the_name_of_a_program_cannot_shift_the_fields() {
        let tail = "S 7 1 1 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 100 1000 55 0";
        let stat = Stat::parse(&format!("42 (a) b (c) {tail}")).unwrap();
        assert_eq!((stat.parent, stat.cpu_ticks, stat.rss_pages), (7, 42, 55));
        assert!(Stat::parse("42 (a").is_none());
    }

    #[test]
    fn memory_of_a_process_s_own_grows_with_what_it_writes_to() {
        let text = "Pss_Anon:  8 kB\nPss_File: 99 kB\nPss_Shmem:  1 kB\nSwapPss:  2 kB\n";
        assert_eq!(own_bytes(text), Some(11 << 10));
        assert_eq!(own_bytes("Pss_Anon: 8 kB\n"), None);
        let before = own_bytes_of_tree(std::process::id()).unwrap();
        let held = std::hint::black_box(vec![1_u8; 32 << 20]);
        let after = own_bytes_of_tree(std::process::id()).unwrap();
        assert!(after >= before + (31 << 20), "{before} and {after}");
        drop(held);
    }

    #[test]
    fn work_shows_as_cpu_time() {
        let before = usage(std::process::id()).unwrap();
        let begun = Instant::now();
        let mut sum = 0_u64;
        while usage(std::process::id()).unwrap().cpu_us < before.cpu_us + 50_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "no CPU time seen"
            );
        }
        let after = usage(std::process::id()).unwrap();
        assert!(after.rss_bytes > 100_000 && after.threads >= 1 && after.fds >= 3);
    }

    #[test]
    fn a_tree_counts_children_and_a_dropped_guard_ends_its_process() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo ready; wait"]);
        command.stdout(Stdio::piped());
        let mut guard = spawn_pinned(command, &[0]).unwrap();
        let mut line = String::new();
        let stdout = guard.child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let pid = guard.pid();
        let tree = usage_of_tree(pid).unwrap();
        assert_eq!((line.trim(), tree.processes), ("ready", 2));
        let sleeper = descendants(pid).unwrap()[0];
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
        drop(guard);
        assert!(usage(pid).is_err());
        let sleeper = Pid::from_raw(i32::try_from(sleeper).unwrap()).unwrap();
        rustix::process::kill_process(sleeper, Signal::KILL).unwrap();
    }

    #[test]
    fn an_adopted_process_ends_with_its_handle() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        drop(Adopted::open(child.id()).unwrap());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_process_that_ignores_the_request_to_end_is_killed() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]);
        command.stdout(Stdio::piped());
        let mut guard = spawn_pinned(command, &[]).unwrap();
        let mut line = String::new();
        let stdout = guard.child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let status = guard.terminate(Duration::from_millis(20)).unwrap();
        assert!(!status.success());
    }

    #[test]
    fn a_pinned_thread_is_allowed_on_its_cpu_alone_and_others_are_not_touched() {
        let before = allowed_cpus().unwrap();
        let last = *before.last().unwrap();
        let pinned = std::thread::spawn(move || {
            pin_this_thread(&[last]).unwrap();
            allowed_cpus().unwrap()
        });
        assert_eq!(pinned.join().unwrap(), [last]);
        assert_eq!(allowed_cpus().unwrap(), before);
        assert!(pin_this_thread(&[]).is_err());
    }

    #[test]
    fn the_limit_of_open_files_never_falls() {
        let first = raise_fd_limit(64);
        assert!(raise_fd_limit(1) >= first);
    }
}
