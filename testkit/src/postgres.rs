//! A Postgres server of a test's own: a temporary directory, a Unix socket in it, no TCP port.
//!
//! ```no_run
//! use hub_testkit::Postgres;
//!
//! if let Some(postgres) = Postgres::start() {
//!     println!("psql '{}'", postgres.connection_string());
//! }
//! ```
//!
//! Postgres refuses to run as root, so root starts it as the user `postgres`, whom Debian's package
//! makes. The cluster that the package makes too is neither needed nor touched.
//!
//! The server ends with the thread that started it, at the latest: that is how Linux counts parents.

mod session;

pub use session::Session;

use crate::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where Debian's package postgresql-15 puts its programs; `HUB_POSTGRES_BIN` names another place.
const BIN: &str = "/usr/lib/postgresql/15/bin";
/// Set to 1, a missing server fails the test. `make test` sets it.
const REQUIRE: &str = "HUB_REQUIRE_POSTGRES";
/// Pause between two looks at whether the server is ready.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running server. Dropped, it is ended at once, and its directory goes with it.
#[derive(Debug)]
pub struct Postgres {
    server: Child,
    directory: TempDir,
}

/// The user that runs the server, where it cannot be this process's own.
struct Other {
    uid: u32,
    gid: u32,
}

// === impl Postgres ===

impl Postgres {
    /// Makes an empty cluster and starts a server on it. `None`, with a line that says what is
    /// missing, where there is no Postgres and `HUB_REQUIRE_POSTGRES` is not 1.
    ///
    /// # Panics
    /// Where it is required and missing, or does not start.
    pub fn start() -> Option<Self> {
        let bin = std::env::var_os("HUB_POSTGRES_BIN").map_or_else(|| BIN.into(), PathBuf::from);
        let missing = if !bin.join("postgres").exists() {
            Some(format!(
                "no Postgres in {}: install postgresql-15, or name its folder in HUB_POSTGRES_BIN",
                bin.display()
            ))
        } else if rustix::process::getuid().is_root() && Other::postgres().is_none() {
            Some("root cannot run Postgres, and there is no user `postgres`".to_owned())
        } else {
            None
        };
        if let Some(missing) = missing {
            let required = std::env::var_os(REQUIRE).is_some_and(|value| value == "1");
            assert!(!required, "{missing}");
            println!("left out: {missing}");
            return None;
        }
        Some(Self::launch(&bin))
    }

    fn launch(bin: &Path) -> Self {
        let other = rustix::process::getuid()
            .is_root()
            .then(Other::postgres)
            .flatten();
        // Short, because the path of a Unix socket has 107 bytes at most.
        let directory = tempfile::Builder::new()
            .prefix("hub-pg-")
            .tempdir_in("/tmp")
            .expect("a temporary directory");
        let data = directory.path().join("data");
        if let Some(Other { uid, gid }) = other {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid))
                .expect("root may give its directory away");
        }
        let log = directory.path().join("log");
        let run = |program: &str, arguments: &[&OsStr]| {
            let log = File::options()
                .create(true)
                .append(true)
                .open(&log)
                .expect("a log in the temporary directory");
            // Where a test is killed, its server goes with it.
            let mut command = Command::new("setpriv");
            command.arg("--pdeathsig=QUIT");
            if let Some(Other { uid, gid }) = other {
                command
                    .args([format!("--reuid={uid}"), format!("--regid={gid}")])
                    .arg("--clear-groups");
            }
            command.arg("--").arg(bin.join(program));
            command
                .args(arguments)
                .current_dir(directory.path())
                .env("LC_ALL", "C.UTF-8")
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a second handle on the log"))
                .stderr(log);
            command
                .spawn()
                .unwrap_or_else(|error| panic!("cannot run {program}: {error}"))
        };
        let words = |words: &'static [&'static str]| words.iter().map(OsStr::new);
        let mut initdb: Vec<&OsStr> =
            words(&["--auth=trust", "--username=hub", "--no-sync", "-D"]).collect();
        initdb.push(data.as_os_str());
        let made = run("initdb", &initdb).wait().expect("initdb ends");
        assert!(made.success(), "initdb failed:\n{}", tail(&log));
        let mut postgres: Vec<&OsStr> = words(&[
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "full_page_writes=off",
            "-c",
            "shared_buffers=16MB",
            "-c",
            "max_connections=40",
            "-D",
        ])
        .collect();
        postgres.extend([
            data.as_os_str(),
            OsStr::new("-k"),
            directory.path().as_os_str(),
        ]);
        let mut server = Self {
            server: run("postgres", &postgres),
            directory,
        };
        server.wait_until_ready(&log);
        server
    }

    /// How a client finds it: the database `postgres` on the Unix socket, as a superuser without a
    /// password.
    pub fn connection_string(&self) -> String {
        format!(
            "host={} user=hub dbname=postgres",
            self.directory.path().display()
        )
    }

    /// The last line of its pid file says when it takes connections.
    fn wait_until_ready(&mut self, log: &Path) {
        let file = self.directory.path().join("data/postmaster.pid");
        let deadline = Instant::now() + PATIENCE;
        let ready = || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            text.lines()
                .last()
                .is_some_and(|line| line.trim() == "ready")
        };
        while !ready() {
            let ended = self.server.try_wait().expect("the server is our child");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "Postgres is not ready, {ended:?}:\n{}",
                tail(log)
            );
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let pid = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Immediate shutdown: nothing here is worth a checkpoint.
            kill_process(pid, Signal::QUIT).ok();
        }
        self.server.wait().ok();
    }
}

// === impl Other ===

impl Other {
    /// From `/etc/passwd`.
    fn postgres() -> Option<Self> {
        let users = fs::read_to_string("/etc/passwd").ok()?;
        let line = users.lines().find(|line| line.starts_with("postgres:"))?;
        let mut fields = line.split(':').skip(2);
        Some(Self {
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        })
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
