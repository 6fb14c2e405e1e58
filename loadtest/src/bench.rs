//! What all benches share: where things are, which CPU runs what, and how a process is started.

use anyhow::{Context, Result, bail};
use hub_testkit::load::{Connection, FullAnswer};
use hub_testkit::process::{self, Guard};
use serde::Deserialize;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest wait for a process to serve.
const START_MAX: Duration = Duration::from_secs(30);
/// Longest wait for one request of a bench's own.
const FETCH_MAX: Duration = Duration::from_secs(10);
/// Longest body of such a request.
const FETCH_BYTES_MAX: usize = 16 << 20;

/// Arguments of every bench.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    /// Directory with `hub-gateway`, `hub-loadtest` and `examples/bare`, all built with one profile.
    #[arg(long, default_value = "target/dist")]
    pub(crate) bin_dir: PathBuf,
    /// Directory that gets NAME.json.
    #[arg(long, default_value = "target/reports")]
    pub(crate) reports_dir: PathBuf,
}

/// The CPUs that this program was started with. Asked for once, because it pins itself afterwards.
pub(crate) fn all_cpus() -> &'static [usize] {
    static ALL: OnceLock<Vec<usize>> = OnceLock::new();
    ALL.get_or_init(|| process::allowed_cpus().unwrap_or_else(|_| vec![0]))
}

/// CPUs of the process that is measured: the first one.
pub(crate) fn server_cpus() -> Vec<usize> {
    all_cpus().first().copied().into_iter().collect()
}

/// CPUs of client and origin: the last one, so that what is measured has the first to itself.
pub(crate) fn client_cpus() -> Vec<usize> {
    all_cpus().last().copied().into_iter().collect()
}

/// Load average of the last minute when this was first asked for: before the bench made its own.
pub(crate) fn load_before() -> f64 {
    static LOAD: OnceLock<f64> = OnceLock::new();
    *LOAD.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let first = text.split_ascii_whitespace().next();
        first.and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
    })
}

/// Puts this process on [`client_cpus`] and lets it open as many files as the benches need.
pub(crate) fn prepare() -> Result<()> {
    if all_cpus().len() < 2 {
        println!("warning: one CPU alone; client, origin and proxy share it");
    }
    if load_before() > 0.7 {
        println!(
            "warning: this machine is busy already (load {}); figures will be worse than they could be",
            load_before()
        );
    }
    process::pin_this_thread(&client_cpus()).context("this process cannot be pinned to a CPU")?;
    process::raise_fd_limit(65_536);
    Ok(())
}

/// A bench's own directory of configuration files and logs.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("hub-loadtest-")
            .tempdir()
            .context("no temporary directory can be made")?;
        Ok(Self { dir })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path as configuration files write it.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, text)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path)
    }
}

/// Starts `command` on `cpus`, with its output in the file `log`.
pub(crate) fn spawn(mut command: Command, cpus: &[usize], log: &Path) -> Result<Guard> {
    let what = command.get_program().display().to_string();
    let file = File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
    let copy = file.try_clone().context("a file cannot be opened twice")?;
    command
        .stdin(std::process::Stdio::null())
        .stdout(file)
        .stderr(copy);
    process::spawn_pinned(command, cpus).with_context(|| format!("{what} cannot be started"))
}

/// Writes a ready file in one step, so that a reader sees all of it or nothing.
pub(crate) fn write_ready(path: &Path, value: &serde_json::Value) -> Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, value.to_string())
        .and_then(|()| std::fs::rename(&draft, path))
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// Removes what an earlier process of this bench left there: its address would be taken for the new
/// one's.
pub(crate) fn forget_ready(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("the old {} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

/// Waits until `probe` finds what it looks for, or the process has ended.
pub(crate) async fn wait_for<T>(
    guard: &mut Guard,
    log: &Path,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let deadline = Instant::now() + START_MAX;
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        if let Some(status) = guard.ended().context("a child cannot be waited for")? {
            bail!("{what} ended with {status}: {}", last_lines(log));
        }
        if Instant::now() > deadline {
            bail!(
                "{what} does not serve after {} s: {}",
                START_MAX.as_secs(),
                last_lines(log)
            );
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The end of what a process has printed, on one line.
pub(crate) fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(8).collect();
    if lines.is_empty() {
        return "it printed nothing".to_owned();
    }
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

/// Ends a process and waits for it, without holding up this one's other work.
pub(crate) async fn end(guard: Guard) -> Result<()> {
    tokio::task::spawn_blocking(move || guard.terminate(Duration::from_secs(5)))
        .await
        .context("the waiting thread does not panic")?
        .context("a child cannot be waited for")?;
    Ok(())
}

/// A port that was free a moment ago, for programs that cannot choose one themselves.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    socket.local_addr().context("the socket has no address")
}

/// One request on a connection of its own.
pub(crate) async fn fetch(address: SocketAddr, request: &str) -> Result<FullAnswer> {
    let answer = async {
        let mut connection = Connection::connect(address, None).await?;
        connection
            .fetch(request.as_bytes(), FETCH_BYTES_MAX, FETCH_MAX)
            .await
    };
    answer.await.map_err(|failure| {
        let line = request.lines().next().unwrap_or_default();
        anyhow::anyhow!("{line} to {address} failed: {failure:?}")
    })
}

/// The origin, in a process of its own.
#[derive(Debug)]
pub(crate) struct Origin {
    guard: Guard,
    pub(crate) address: SocketAddr,
}

/// What the origin has counted.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct OriginStats {
    pub(crate) connections: u64,
    pub(crate) requests: u64,
}

impl Origin {
    /// Starts one beside the client.
    pub(crate) async fn start(scratch: &Scratch) -> Result<Self> {
        #[derive(Deserialize)]
        struct Ready {
            address: SocketAddr,
        }
        let program = std::env::current_exe().context("this program cannot find itself")?;
        let ready_file = scratch.path("origin.ready");
        forget_ready(&ready_file)?;
        let log = scratch.path("origin.out");
        let mut command = Command::new(program);
        command.arg("origin").arg("--ready-file").arg(&ready_file);
        let mut guard = spawn(command, &client_cpus(), &log)?;
        let ready = wait_for(&mut guard, &log, "the origin", async || {
            let text = std::fs::read(&ready_file).ok()?;
            serde_json::from_slice::<Ready>(&text).ok()
        });
        let address = ready.await?.address;
        Ok(Self { guard, address })
    }

    pub(crate) async fn stats(&self) -> Result<OriginStats> {
        let request = "GET /__stats HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n";
        let answer = fetch(self.address, request).await?;
        serde_json::from_slice(&answer.body).context("the origin's statistics are not JSON")
    }

    pub(crate) async fn end(self) -> Result<()> {
        end(self.guard).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_ready_file_is_forgotten_and_a_missing_one_is_no_error() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path("ready");
        forget_ready(&path).unwrap();
        write_ready(&path, &serde_json::json!({ "address": "127.0.0.1:1" })).unwrap();
        forget_ready(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn client_and_server_share_a_cpu_only_where_there_is_one() {
        let shared = server_cpus() == client_cpus();
        assert_eq!(shared, all_cpus().len() == 1);
    }
}
