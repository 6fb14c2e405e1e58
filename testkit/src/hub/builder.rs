//! How a gateway is described and started.

use super::{Hub, LOOK_AGAIN, StartFailure, read, tail};
use crate::ServiceManager;
use crate::service_manager::VARIABLES;
use rustix::process::Pid;
use serde::Deserialize;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// The token in `{dir}/admin.token`, and the one that [`Hub::admin`] sends.
pub const ADMIN_TOKEN: &str = "testkit-admin-token-0123456789";

pub(super) const CONFIG_FILE: &str = "gateway.toml";
pub(super) const ACCESS_LOG_FILE: &str = "access.log";
pub(super) const STDERR_FILE: &str = "stderr.log";
pub(super) const STDOUT_FILE: &str = "stdout.log";
const READY_FILE: &str = "ready.json";
const TOKEN_FILE: &str = "admin.token";

/// Longest wait for a gateway to serve, or to refuse its configuration.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// A gateway that is about to start in a temporary directory of its own. Nothing is in the
/// directory but the configuration, what [`HubBuilder::file`] adds, and `admin.token` with
/// [`ADMIN_TOKEN`].
#[derive(Debug)]
pub struct HubBuilder<'m> {
    manager: Option<&'m ServiceManager>,
    binary: PathBuf,
    config: String,
    files: Vec<(String, Vec<u8>)>,
    env: Vec<(OsString, OsString)>,
    directory: TempDir,
}

/// What the gateway writes once it serves.
#[derive(Debug, Deserialize)]
pub(super) struct Ready {
    pub(super) pid: u32,
    admin: String,
    listeners: HashMap<String, SocketAddr>,
}

/// How a start came out.
enum Started {
    Serves(Box<Hub>),
    Ended(StartFailure),
    /// Neither in time.
    Stuck {
        stderr: String,
    },
}

impl<'m> HubBuilder<'m> {
    pub(super) fn new(binary: &Path) -> Self {
        Self {
            manager: None,
            binary: binary.to_owned(),
            config: String::new(),
            files: vec![(TOKEN_FILE.into(), ADMIN_TOKEN.into())],
            env: Vec::new(),
            directory: tempfile::tempdir()
                .expect("the system's temporary directory can be written"),
        }
    }

    /// The configuration, as TOML. `{dir}` in it stands for the temporary directory.
    pub fn config(mut self, toml: &str) -> Self {
        toml.clone_into(&mut self.config);
        self
    }

    /// Adds a file, under this path in the directory, with these bytes exactly.
    pub fn file(mut self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        self.files.retain(|(known, _)| known != name);
        self.files
            .push((name.to_owned(), contents.as_ref().to_vec()));
        self
    }

    /// Sets an environment variable of the gateway, which inherits the rest from the test.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts the gateway as a service of this manager, with its sockets.
    pub fn managed_by(mut self, manager: &'m ServiceManager) -> Self {
        self.manager = Some(manager);
        self
    }

    /// The directory that `{dir}` will stand for: where a test puts certificates before the start.
    pub fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the gateway and returns once it serves.
    ///
    /// # Panics
    /// Where it ends instead, or does not serve within 20 seconds; both with what it wrote.
    pub async fn start(self) -> Hub {
        let config = self.config.clone();
        match self.launch().await {
            Started::Serves(hub) => *hub,
            Started::Ended(StartFailure { status, stderr }) => {
                panic!(
                    "the gateway ended instead of serving ({status})\n--- configuration:\n{config}\n--- stderr:\n{}",
                    tail(&stderr)
                )
            }
            Started::Stuck { stderr } => panic!(
                "the gateway does not serve after {START_PATIENCE:?}\n--- configuration:\n{config}\n--- stderr:\n{}",
                tail(&stderr)
            ),
        }
    }

    /// Starts the gateway, or says how it ended.
    ///
    /// # Errors
    /// Where it ends instead of serving.
    ///
    /// # Panics
    /// Where it does neither within 20 seconds.
    pub async fn try_start(self) -> Result<Hub, StartFailure> {
        match self.launch().await {
            Started::Serves(hub) => Ok(*hub),
            Started::Ended(failure) => Err(failure),
            Started::Stuck { stderr } => {
                panic!(
                    "the gateway neither serves nor ends after {START_PATIENCE:?}: {}",
                    tail(&stderr)
                )
            }
        }
    }

    /// Runs the gateway, which must refuse to start; its exit code and what it wrote to stderr.
    ///
    /// # Panics
    /// Where it serves, or is ended by a signal.
    pub async fn expect_failure(self) -> (i32, String) {
        match self.try_start().await {
            Ok(hub) => panic!("the gateway serves at {}", hub.admin_endpoint()),
            Err(StartFailure { status, stderr }) => match status.code() {
                Some(code) => (code, stderr),
                None => panic!(
                    "the gateway was ended by a signal ({status}): {}",
                    tail(&stderr)
                ),
            },
        }
    }

    async fn launch(self) -> Started {
        let directory = self.directory.path();
        for (name, contents) in &self.files {
            let path = directory.join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).expect("our own directory can be written");
            }
            crate::replace_file(&path, contents);
        }
        let config = directory.join(CONFIG_FILE);
        crate::replace_file(&config, place(&self.config, directory).as_bytes());
        let ready = ready_file(directory);
        let output = |name: &str| {
            Stdio::from(
                File::create(directory.join(name)).expect("our own directory can be written"),
            )
        };
        let mut command = match self.manager {
            Some(manager) => manager.command(&self.binary),
            None => {
                // Those of whoever runs the tests are not the gateway's.
                let mut command = Command::new(&self.binary);
                for name in VARIABLES {
                    command.env_remove(name);
                }
                command
            }
        };
        let mut child = command
            .arg("run")
            .arg(&config)
            .arg("--ready-file")
            .arg(&ready)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output(STDOUT_FILE))
            .stderr(output(STDERR_FILE))
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.binary.display()));
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .expect("a child that was not waited for has a process id");
        if let Some(manager) = self.manager {
            manager.started(pid);
        }
        let stderr = directory.join(STDERR_FILE);
        match wait_ready(&mut child, &ready).await {
            Ok(Some(ready)) => {
                // A start through a wrapper gives another id, and signals would miss the gateway.
                assert_eq!(
                    ready.pid,
                    pid.as_raw_nonzero().get().unsigned_abs(),
                    "pid in the ready file"
                );
                Started::Serves(Box::new(Hub {
                    child,
                    first: pid,
                    pid,
                    directory: self.directory,
                    admin: ready.admin,
                    listeners: ready.listeners,
                }))
            }
            Ok(None) => Started::Stuck {
                stderr: read(&stderr),
            },
            Err(status) => Started::Ended(StartFailure {
                status,
                stderr: read(&stderr),
            }),
        }
    }
}

/// Where a gateway of this directory writes that it serves.
pub(super) fn ready_file(directory: &Path) -> PathBuf {
    directory.join(READY_FILE)
}

/// The ready file's word, if there is one.
pub(super) fn ready(directory: &Path) -> Option<Ready> {
    let text = std::fs::read_to_string(ready_file(directory)).ok()?;
    serde_json::from_str(&text).ok()
}

/// The ready file's word, `None` where it does not come in time, or the status of an early end.
async fn wait_ready(child: &mut Child, ready: &Path) -> Result<Option<Ready>, ExitStatus> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        // In this order: a gateway that serves and then ends at once is one that served.
        if let Ok(text) = std::fs::read_to_string(ready) {
            return Ok(Some(serde_json::from_str(&text).unwrap_or_else(|error| {
                panic!("the ready file is not as agreed ({error}): {text:?}")
            })));
        }
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return Err(status);
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Puts the directory where `{dir}` stands.
pub(super) fn place(text: &str, directory: &Path) -> String {
    text.replace("{dir}", &directory.display().to_string())
}

/// A configuration to start from: one listener `public`, one cluster `app` with this blue endpoint
/// (`127.0.0.1:4711`, `unix:/path`), and one route `all` that catches everything. Files are in
/// `{dir}`; the log is flushed every 5 ms; a SIGTERM drains at once; nothing reloads by itself.
///
/// The route is the last table, so that text added at the end is, up to the next header, about the
/// route:
///
/// ```
/// let config = hub_testkit::demo_config("127.0.0.1:4711")
///     + "tenant = { sources = [{ header = \"x-location-id\" }] }\n"
///     + "[[tenant]]\nid = \"loc_1\"\n";
/// ```
pub fn demo_config(endpoint: impl Display) -> String {
    // In TOML the braces of `{dir}` are plain characters of a string.
    format!(
        r#"[gateway]
workers = 1
drain_notice_ms = 0
reload_on_change = false

[admin]
address = "127.0.0.1:0"
token_file = "{{dir}}/{TOKEN_FILE}"
requests_per_second = 10000

[access_log]
target = "{{dir}}/{ACCESS_LOG_FILE}"
flush_interval_ms = 5

[[listener]]
name = "public"
address = "127.0.0.1:0"

[[cluster]]
name = "app"
endpoints = {{ blue = ["{endpoint}"] }}

[[route]]
name = "all"
path = {{ prefix = "/" }}
cluster = "app"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_takes_the_place_of_its_mark() {
        let text = place(&demo_config("127.0.0.1:4711"), Path::new("/var/tmp/x"));
        assert!(
            text.contains(r#"target = "/var/tmp/x/access.log""#),
            "{text}"
        );
        assert!(text.contains(r#"blue = ["127.0.0.1:4711"]"#), "{text}");
        assert!(!text.contains("{dir}"), "{text}");
    }
}
