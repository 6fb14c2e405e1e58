//! A small service manager: what systemd does for a `Type=notify` service with sockets and a watchdog, for
//! tests on machines where systemd is not process 1.
//!
//! ```no_run
//! # async fn example() {
//! use hub_testkit::{Hub, ServiceManager, demo_config};
//!
//! let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
//! let manager = ServiceManager::start().socket("public", socket);
//! let hub = Hub::builder("target/debug/hub-gateway".as_ref())
//!     .config(&demo_config("127.0.0.1:9"))
//!     .managed_by(&manager)
//!     .start()
//!     .await;
//! manager.wait_for("READY=1").await;
//! assert_eq!(manager.main_pid(), Some(hub.pid()));
//! # }
//! ```
//!
//! What is as with systemd: the datagram socket of `NOTIFY_SOCKET`; `NotifyAccess=main`, by the credentials that
//! the kernel adds to each message; `MAINPID`; sockets at descriptors 3 and up, which stay open here while
//! no process serves them; a watchdog that counts from READY and kills. What is not: it kills with SIGKILL and not
//! first with SIGABRT, it restarts nothing, and it stores no descriptors.
//!
//! Invariant: only a process that was started under this manager, or that its main process named, is ever
//! killed: by a handle of the process, never by a number that may have been given anew.

use crate::PATIENCE;
use command_fds::{CommandFdExt as _, FdMapping};
use rustix::cmsg_space;
use rustix::fd::OwnedFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// The first descriptor that is handed over.
const FIRST: i32 = 3;
/// Longest message.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Starts a program under its own process id, which nobody knows before.
const START: &str = r#"export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$0" "$@""#;
/// What a service manager puts into the environment.
pub(crate) const VARIABLES: [&str; 6] = [
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];

/// Starts services, hears them, and kills those that fall silent. Stops hearing when dropped.
#[derive(Debug)]
pub struct ServiceManager {
    directory: TempDir,
    sockets: Vec<(String, OwnedFd)>,
    watchdog: Option<Duration>,
    state: watch::Sender<State>,
    hears: JoinHandle<()>,
}

/// What a service told: `KEY=VALUE` lines, in order.
#[derive(Clone, Debug)]
pub struct Message {
    /// When it came.
    pub at: Instant,
    text: String,
}

#[derive(Debug, Default)]
struct State {
    main: Option<Main>,
    messages: Vec<Message>,
    /// Messages of processes that may not speak for the service.
    ignored: usize,
    watchdog: Option<Duration>,
    /// When the watchdog bites.
    due: Option<Instant>,
    killed: bool,
}

#[derive(Clone, Debug)]
struct Main {
    pid: Pid,
    handle: Arc<OwnedFd>,
}

// === impl Message ===

impl Message {
    /// The value of this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let value = |line: &'_ str| line.strip_prefix(key).is_some_and(|v| v.starts_with('='));
        let line = self.text.lines().find(|line| value(line))?;
        Some(&line[key.len() + 1..])
    }

    /// True where it has this line: `READY=1`.
    pub fn says(&self, line: &str) -> bool {
        self.text.lines().any(|one| one == line)
    }
}

// === impl ServiceManager ===

impl ServiceManager {
    /// Starts to listen. To be called within a runtime.
    ///
    /// # Panics
    /// Where there are no sockets left.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("the temporary directory can be written");
        let socket = UnixDatagram::bind(notify_path(directory.path())).expect("a new socket");
        // The kernel then adds to each message who sent it.
        sockopt::set_socket_passcred(&socket, true).expect("our own socket");
        let state = watch::Sender::new(State::default());
        let hears = tokio::spawn(hear(socket, state.clone()));
        Self {
            directory,
            sockets: Vec::new(),
            watchdog: None,
            state,
            hears,
        }
    }

    /// Hands this socket to services, under this name. It stays open here.
    pub fn socket(mut self, name: &str, socket: impl Into<OwnedFd>) -> Self {
        self.sockets.push((name.to_owned(), socket.into()));
        self
    }

    /// Kills services which are ready and then silent for so long.
    pub fn watchdog(mut self, longest: Duration) -> Self {
        self.watchdog = Some(longest);
        self
    }

    /// A command that will run `program` as the service: environment and descriptors are set, arguments
    /// are the caller's. [`ServiceManager::started`] is to follow.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", START]).arg(program);
        command.env("NOTIFY_SOCKET", notify_path(self.directory.path()));
        if !self.sockets.is_empty() {
            let names: Vec<&str> = self.sockets.iter().map(|(name, _)| name.as_str()).collect();
            command.env("LISTEN_FDS", self.sockets.len().to_string());
            command.env("LISTEN_FDNAMES", names.join(":"));
        }
        if let Some(longest) = self.watchdog {
            command.env("WATCHDOG_USEC", longest.as_micros().to_string());
        }
        let mappings = (FIRST..).zip(&self.sockets).map(|(child_fd, (_, socket))| {
            let parent_fd = socket.try_clone().expect("a descriptor is left");
            FdMapping {
                parent_fd,
                child_fd,
            }
        });
        let mappings = mappings.collect();
        let mapped = command.as_std_mut().fd_mappings(mappings);
        mapped.expect("each descriptor is there once");
        // Until it is known who runs, nobody's word counts.
        self.state.send_modify(|state| {
            state.main = None;
            state.due = None;
            state.watchdog = self.watchdog;
        });
        command
    }

    /// This process is the service's main one.
    pub(crate) fn started(&self, pid: Pid) {
        let main = Main::open(pid).expect("a child that was not waited for");
        self.state.send_modify(|state| state.main = Some(main));
    }

    /// What the service told so far.
    pub fn messages(&self) -> Vec<Message> {
        self.state.borrow().messages.clone()
    }

    /// Messages of others than the main process, which were not heard.
    pub fn ignored(&self) -> usize {
        self.state.borrow().ignored
    }

    /// The service's main process.
    pub fn main_pid(&self) -> Option<u32> {
        let state = self.state.borrow();
        let pid = state.main.as_ref()?.pid;
        Some(pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// True once the watchdog has bitten.
    pub fn has_killed(&self) -> bool {
        self.state.borrow().killed
    }

    /// Waits for a message with this line, from the beginning on, and returns it.
    ///
    /// # Panics
    /// After 10 seconds, with the messages that came.
    pub async fn wait_for(&self, line: &str) -> Message {
        self.wait_for_nth(line, 1).await
    }

    /// Waits until messages with this line came so many times, and returns the last of them.
    ///
    /// # Panics
    /// After 10 seconds, with the messages that came.
    pub async fn wait_for_nth(&self, line: &str, times: usize) -> Message {
        let nth = |state: &State| {
            let mut with_line = state.messages.iter().filter(|message| message.says(line));
            with_line.nth(times - 1).cloned()
        };
        let mut changes = self.state.subscribe();
        let there = changes.wait_for(|state| nth(state).is_some());
        match timeout(PATIENCE, there).await {
            Ok(Ok(state)) => nth(&state).expect("it was just there"),
            Ok(Err(_)) | Err(_) => {
                panic!("no {line:?} ({times}) among {:#?}", self.messages())
            }
        }
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.hears.abort();
    }
}

impl Main {
    fn open(pid: Pid) -> rustix::io::Result<Self> {
        let handle = Arc::new(pidfd_open(pid, PidfdFlags::empty())?);
        Ok(Self { pid, handle })
    }
}

fn notify_path(directory: &Path) -> std::path::PathBuf {
    directory.join("notify")
}

// === hearing ===

/// Takes messages, and kills who is silent for too long.
async fn hear(socket: UnixDatagram, state: watch::Sender<State>) {
    let mut changes = state.subscribe();
    loop {
        let due = state.borrow().due;
        let late = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = late => state.send_modify(State::bite),
            received = receive(&socket) => {
                let (sender, text) = received;
                // A service may be faster than the one who started it can say so.
                let known = changes.wait_for(|state| state.main.is_some()).await;
                drop(known);
                state.send_modify(|state| state.take(sender, text));
            }
        }
    }
}

/// The next message, and who sent it.
async fn receive(socket: &UnixDatagram) -> (Option<Pid>, String) {
    let receive = || {
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let count = recvmsg(socket, &mut parts, &mut control, flags)?.bytes;
        let sender = control.drain().find_map(|extra| match extra {
            RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid),
            _ => None,
        });
        let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
        Ok((sender, text))
    };
    let received = socket.async_io(Interest::READABLE, receive).await;
    received.expect("our own socket can be read")
}

// === impl State ===

impl State {
    fn take(&mut self, sender: Option<Pid>, text: String) {
        if sender.is_none() || sender != self.main.as_ref().map(|main| main.pid) {
            self.ignored += 1;
            return;
        }
        let at = Instant::now();
        let message = Message { at, text };
        let starts = message.says("READY=1") && self.due.is_none();
        if starts || message.says("WATCHDOG=1") {
            self.due = self.watchdog.map(|longest| at + longest);
        }
        let named = message.get("MAINPID").and_then(|pid| pid.parse().ok());
        if let Some(main) = named.and_then(Pid::from_raw).map(Main::open) {
            // One that has ended already is none.
            self.main = main.ok().or(self.main.take());
        }
        self.messages.push(message);
    }

    fn bite(&mut self) {
        self.due = None;
        let Some(main) = &self.main else { return };
        // An error means that it has ended by itself, as after a drain.
        self.killed |= pidfd_send_signal(&main.handle, Signal::KILL).is_ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;
    use tokio::process::Child;

    /// Runs lines of a shell as the service.
    fn run(manager: &ServiceManager, lines: &str) -> Child {
        let mut command = manager.command("/bin/sh".as_ref());
        command.arg("-c").arg(lines).stdin(Stdio::null());
        let child = command.kill_on_drop(true).spawn().expect("a shell");
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        manager.started(pid.and_then(Pid::from_raw).expect("it runs"));
        child
    }

    fn told(manager: &ServiceManager, text: &str) {
        let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        let path = notify_path(manager.directory.path());
        socket.send_to(text.as_bytes(), path).expect("it is there");
    }

    #[tokio::test]
    async fn only_the_main_process_is_heard_and_it_may_name_another() {
        let manager = ServiceManager::start();
        let mut service = run(&manager, "exec sleep 600");
        told(&manager, "READY=1");
        let mut changes = manager.state.subscribe();
        let ignored = changes.wait_for(|state| state.ignored == 1).await;
        drop(ignored.expect("the manager lives"));
        assert_eq!(manager.messages().len(), 0);
        // From here on the test is the service.
        let this = i32::try_from(std::process::id()).expect("a process id");
        manager.started(Pid::from_raw(this).expect("a process id"));
        told(
            &manager,
            &format!("READY=1\nMAINPID={}", service.id().expect("it runs")),
        );
        assert_eq!(
            manager.wait_for("READY=1").await.get("MAINPID"),
            service.id().map(|id| id.to_string()).as_deref()
        );
        assert_eq!(manager.main_pid(), service.id());
        service.kill().await.expect("our own child");
    }

    #[tokio::test]
    async fn sockets_and_variables_reach_the_service_under_its_own_number() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let manager = ServiceManager::start()
            .socket("one", socket)
            .watchdog(Duration::from_secs(3));
        let mut command = manager.command("/bin/sh".as_ref());
        let lines = r#"test -S /proc/self/fd/3 && test $LISTEN_PID = $$ && test $WATCHDOG_PID = $$ && echo $LISTEN_FDS $LISTEN_FDNAMES $WATCHDOG_USEC"#;
        let output = command
            .arg("-c")
            .arg(lines)
            .output()
            .await
            .expect("a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1 one 3000000\n");
    }

    #[tokio::test]
    async fn silence_after_ready_is_death_and_silence_before_is_not() {
        let manager = ServiceManager::start().watchdog(Duration::from_millis(50));
        let mut service = run(&manager, "exec sleep 600");
        let this = i32::try_from(std::process::id()).expect("a process id");
        let service_pid = service.id().expect("it runs");
        manager.started(Pid::from_raw(this).expect("a process id"));
        assert_eq!(manager.state.borrow().due, None);
        told(&manager, &format!("READY=1\nMAINPID={service_pid}"));
        let ended = timeout(PATIENCE, service.wait())
            .await
            .expect("it is killed");
        assert!(!ended.expect("our own child").success());
        assert!(manager.has_killed());
    }
}
