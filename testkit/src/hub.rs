//! The real gateway as a child process of a test.
//!
//! ```no_run
//! # async fn example() {
//! use hub_testkit::{Hub, Origin, Wire, demo_config};
//! use std::path::Path;
//!
//! let origin = Origin::start().await;
//! let hub = Hub::builder(Path::new("target/debug/hub-gateway"))
//!     .config(&demo_config(origin.endpoint()))
//!     .start()
//!     .await;
//! let mut client = Wire::connect(hub.addr("public")).await;
//! client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
//! assert_eq!(client.read_response().await.status, 200);
//! assert_eq!(hub.wait_for_access_log(1).await[0]["status"], 200);
//! # }
//! ```
//!
//! The gateway is started as `hub-gateway run CONFIG --ready-file PATH`. Once it serves, it writes
//! to `PATH`, in one step, `{"pid": N, "admin": ADDRESS, "listeners": {NAME: ADDRESS}}`.
//!
//! Invariant: everything the gateway writes goes to one temporary directory, which goes with it.
//! Polling, at 5 ms and with a deadline, is used here alone: what another process has done cannot be
//! awaited otherwise.

mod builder;
mod hubctl;
mod metrics;

pub use builder::{ADMIN_TOKEN, HubBuilder, demo_config};
pub use hubctl::{Hubctl, Said};
pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::{PATIENCE, Wire, WireResponse};
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::Child;

/// Pause between two looks at what another process does.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Longest wait of a drop between SIGTERM and SIGKILL.
const DROP_PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of the gateway's log that a failed test shows.
const TAIL_BYTES: usize = 16 * 1024;

/// A running gateway. Dropped, it gets SIGTERM, and SIGKILL where it is still there after half a
/// second, and so do processes that it has started to take over from it; where the test has failed, its
/// configuration and the end of its log are printed.
#[derive(Debug)]
pub struct Hub {
    child: Child,
    /// The child.
    first: Pid,
    /// The process that serves: the child, or one that has taken over.
    pid: Pid,
    directory: TempDir,
    admin: String,
    listeners: HashMap<String, SocketAddr>,
}

/// Where a gateway that did not start got to.
#[derive(Debug)]
pub struct StartFailure {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stderr.
    pub stderr: String,
}

// === impl Hub: where things are ===

impl Hub {
    /// Starts the description of a gateway that this binary will be:
    /// `Path::new(env!("CARGO_BIN_EXE_hub-gateway"))` in the gateway's own tests.
    pub fn builder<'m>(binary: &Path) -> HubBuilder<'m> {
        HubBuilder::new(binary)
    }

    /// Runs the gateway with a configuration that it must refuse, and returns its exit code and what
    /// it wrote to stderr. With more than a configuration: [`HubBuilder::expect_failure`].
    pub async fn expect_failure(binary: &Path, config: &str) -> (i32, String) {
        Self::builder(binary).config(config).expect_failure().await
    }

    /// Where the listener of this name is bound.
    ///
    /// # Panics
    /// Where there is no such listener.
    pub fn addr(&self, listener: &str) -> SocketAddr {
        *self
            .listeners
            .get(listener)
            .unwrap_or_else(|| panic!("no listener {listener:?}; there are {:?}", self.listeners))
    }

    /// Where the admin API is bound.
    ///
    /// # Panics
    /// Where it is a unix socket: see [`Hub::admin_endpoint`].
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
            .parse()
            .unwrap_or_else(|_| panic!("the admin API is at {}", self.admin))
    }

    /// Where the admin API is bound, as `127.0.0.1:4711` or `unix:/path`.
    pub fn admin_endpoint(&self) -> &str {
        &self.admin
    }

    /// The directory that `{dir}` stands for.
    pub fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir().join(builder::CONFIG_FILE)
    }

    /// Id of the process that serves: the one that was started, or the last one that
    /// [`Hub::wait_for_successor`] has seen.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }
}

// === impl Hub: files ===

impl Hub {
    /// Replaces the configuration file in one step; `{dir}` in it stands for [`Hub::dir`]. Where the
    /// configuration in force has `reload_on_change`, the gateway then reloads by itself.
    pub fn write_config(&self, text: &str) {
        self.write_file(builder::CONFIG_FILE, text);
    }

    /// Replaces a file of the directory in one step, with `{dir}` as in the configuration.
    pub fn write_file(&self, name: &str, text: &str) {
        let text = builder::place(text, self.dir());
        crate::replace_file(&self.dir().join(name), text.as_bytes());
    }

    /// What the gateway wrote to stderr so far.
    pub fn stderr(&self) -> String {
        read(&self.dir().join(builder::STDERR_FILE))
    }

    /// What the gateway wrote to stdout so far.
    pub fn stdout(&self) -> String {
        read(&self.dir().join(builder::STDOUT_FILE))
    }

    /// The whole lines of `{dir}/access.log` so far; empty where there is none.
    ///
    /// # Panics
    /// Where a line is no JSON.
    pub fn access_log(&self) -> Vec<Value> {
        let text = read(&self.dir().join(builder::ACCESS_LOG_FILE));
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| {
                panic!("this line of the access log is no JSON ({error}): {line:?}")
            })
        };
        whole.lines().map(parse).collect()
    }

    /// Waits until the access log has this many lines, and returns them all.
    ///
    /// # Panics
    /// After 10 seconds, with the lines that are there.
    pub async fn wait_for_access_log(&self, lines: usize) -> Vec<Value> {
        let log = || Some(self.access_log()).filter(|log| log.len() >= lines);
        match poll(log).await {
            Some(log) => log,
            None => panic!(
                "no {lines} lines in the access log: {:#?}",
                self.access_log()
            ),
        }
    }

    /// Waits for the first line of the access log that is as wanted.
    ///
    /// # Panics
    /// After 10 seconds, with the lines that are there.
    pub async fn wait_for_log_line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let line = || self.access_log().into_iter().find(&wanted);
        match poll(line).await {
            Some(line) => line,
            None => panic!("no such line in the access log: {:#?}", self.access_log()),
        }
    }

    /// Waits until the gateway's own log, on stderr, contains this text.
    ///
    /// # Panics
    /// After 10 seconds, with the end of the log.
    pub async fn wait_for_stderr(&self, text: &str) {
        let there = || self.stderr().contains(text).then_some(());
        if poll(there).await.is_none() {
            panic!("no {text:?} in the gateway's log: {}", tail(&self.stderr()));
        }
    }
}

// === impl Hub: the admin API ===

impl Hub {
    /// The metrics, as Prometheus reads them.
    ///
    /// # Panics
    /// Where they are not served.
    pub async fn metrics(&self) -> String {
        let response = self.admin_request("GET", "/metrics", "", None).await;
        assert_eq!(
            response.status,
            200,
            "GET /metrics: {}",
            response.raw_text()
        );
        response.text()
    }

    /// Sum of the metric's series that carry all these labels, whatever others they have; 0.0 where
    /// there is none. With no labels given: the whole metric.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metrics::sum(&self.metrics().await, name, labels)
    }

    /// Waits until [`Hub::metric`] is as wanted, and returns it. A metric is counted once a request
    /// has ended, which may be a little after its client has the answer.
    ///
    /// # Panics
    /// After 10 seconds, with the metric's series.
    pub async fn wait_for_metric(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        wanted: impl Fn(f64) -> bool,
    ) -> f64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.metrics().await;
            let value = metrics::sum(&text, name, labels);
            if wanted(value) {
                return value;
            }
            if Instant::now() > deadline {
                let series: Vec<_> = text.lines().filter(|line| line.starts_with(name)).collect();
                panic!(
                    "{name}{labels:?} is {value}, which is not what was waited for: {series:#?}"
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Sends a request to the admin API with the token [`ADMIN_TOKEN`]. An empty body sends none.
    /// The answer's JSON is `null` where it is empty, and a string where it is no JSON.
    pub async fn admin(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let response = self
            .admin_request(method, path, body, Some(ADMIN_TOKEN))
            .await;
        let json = match response.body.as_slice() {
            [] => Value::Null,
            bytes => serde_json::from_slice(bytes).unwrap_or_else(|_| response.text().into()),
        };
        (response.status, json)
    }

    /// Sends a request to the admin API on a connection of its own, with this token or none.
    pub async fn admin_request(
        &self,
        method: &str,
        path: &str,
        body: &str,
        token: Option<&str>,
    ) -> WireResponse {
        let mut wire = match self.admin.strip_prefix("unix:") {
            Some(path) => Wire::connect_unix(Path::new(path)).await,
            None => Wire::connect(self.admin_addr()).await,
        };
        let token = token.map_or(String::new(), |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let framing = match body {
            "" => String::new(),
            body => format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            ),
        };
        wire.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{token}{framing}\r\n{body}"
        ))
        .await;
        wire.read_response_to(method).await
    }

    /// Asks the admin API to reload; its status and its answer.
    pub async fn reload(&self) -> (u16, Value) {
        self.admin("POST", "/v1/reload", "").await
    }
}

// === impl Hub: the process ===

impl Hub {
    /// Sends a signal to the process of [`Hub::pid`].
    ///
    /// # Panics
    /// Where the process is gone and has been waited for.
    pub fn signal(&self, signal: Signal) {
        let has_successor = self.pid != self.first;
        assert!(
            has_successor || self.child.id().is_some(),
            "the gateway has ended already"
        );
        rustix::process::kill_process(self.pid, signal)
            .unwrap_or_else(|error| panic!("cannot send {signal:?} to the gateway: {error}"));
    }

    /// Waits until another process than that of [`Hub::pid`] says that it serves, and returns its id, which
    /// [`Hub::pid`] then is, too.
    ///
    /// # Panics
    /// After 10 seconds.
    pub async fn wait_for_successor(&mut self) -> u32 {
        let known = self.pid();
        let other = || Some(builder::ready(self.dir())?.pid).filter(|pid| *pid != known);
        let Some(pid) = poll(other).await else {
            panic!("process {known} still serves: {}", tail(&self.stderr()));
        };
        self.pid = pid_of(pid).expect("a process id");
        pid
    }

    /// Kills every process that was started with this gateway's ready file: those that took over, or were
    /// to, whoever is their parent by now.
    fn kill_successors(&self) {
        let file = builder::ready_file(self.dir());
        let mark = [
            b"--ready-file\0".as_slice(),
            file.as_os_str().as_encoded_bytes(),
        ]
        .concat();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for pid in pids.filter_map(pid_of) {
            // First a handle, so that what is looked at is what is killed.
            let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
                continue;
            };
            let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
            let line = std::fs::read(path).unwrap_or_default();
            if line.windows(mark.len()).any(|part| part == mark) {
                // An error means that it has ended by itself.
                pidfd_send_signal(&handle, Signal::KILL).ok();
            }
        }
    }

    /// True until the process that was started, and not a successor of it, has ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the process that was started, and not a successor of it, has ended, and says how.
    ///
    /// # Panics
    /// After 20 seconds.
    pub async fn wait_exit(&mut self) -> ExitStatus {
        match tokio::time::timeout(2 * PATIENCE, self.child.wait()).await {
            Ok(status) => status.expect("our own child can be waited for"),
            Err(_) => panic!(
                "the gateway did not end in {:?}: {}",
                2 * PATIENCE,
                tail(&self.stderr())
            ),
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_exit().await
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Errors below mean that it ended in the meantime, which is what is wanted.
            rustix::process::kill_process(self.first, Signal::TERM).ok();
            let deadline = Instant::now() + DROP_PATIENCE;
            while matches!(self.child.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    self.child.start_kill().ok();
                    break;
                }
                std::thread::sleep(LOOK_AGAIN);
            }
        }
        self.kill_successors();
        if std::thread::panicking() {
            eprintln!(
                "--- the gateway's configuration:\n{}",
                read(&self.config_path())
            );
            eprintln!(
                "--- the end of the gateway's log:\n{}",
                tail(&self.stderr())
            );
        }
    }
}

/// Waits until there is no process with this id, or only what its parent has not taken note of.
///
/// # Panics
/// After 10 seconds.
pub async fn wait_gone(pid: u32) {
    let gone = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest.starts_with('Z'));
        state.unwrap_or(true).then_some(())
    };
    assert!(poll(gone).await.is_some(), "process {pid} is still there");
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Looks again and again until there is something, at most [`PATIENCE`].
async fn poll<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A file as text; empty where it is not there yet.
fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(TAIL_BYTES);
    &text[text.ceil_char_boundary(start)..]
}
