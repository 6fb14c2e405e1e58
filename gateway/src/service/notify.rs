//! What the gateway tells its service manager: datagrams of `KEY=VALUE` lines to `$NOTIFY_SOCKET`, as
//! sd_notify(3) describes them.
//!
//! Our own, because the standard library has all of it, abstract sockets too; the crates for this bring
//! either unsafe changes of the environment or the protocol's other half, which is in
//! [`activation`](super::activation).

use rustix::time::{ClockId, clock_gettime};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Names the manager's socket.
const SOCKET: &str = "NOTIFY_SOCKET";
/// Longest wait for a manager whose queue is full. What it does not take by then is lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// One thing to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// Started, or done with a reload.
    Ready,
    /// A reload began at this time of [`monotonic`].
    Reloading(Duration),
    /// The process is on its way out.
    Stopping,
    /// A sentence for whoever asks how it is.
    Status(&'a str),
    /// Alive.
    Watchdog,
    /// The service's main process from now on.
    MainPid(u32),
    /// What is under way, start or stop, may take so long from now.
    ExtendTimeout(Duration),
}

/// Tells the service manager how the process is. Without one it tells nobody.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<Manager>,
    /// Another process speaks for the service.
    silent: AtomicBool,
}

#[derive(Debug)]
struct Manager {
    from: UnixDatagram,
    to: SocketAddr,
}

impl Notifier {
    /// Speaks to the manager that the environment names, or to nobody.
    ///
    /// # Errors
    /// The address is none, or there are no sockets left.
    pub fn from_env() -> io::Result<Self> {
        match std::env::var_os(SOCKET) {
            Some(address) if !address.is_empty() => Self::to(address.as_encoded_bytes()),
            Some(_) | None => Ok(Self::default()),
        }
    }

    /// Speaks to the socket at this path, or of this abstract name where it begins with `@`.
    ///
    /// # Errors
    /// The address is none, or there are no sockets left.
    pub fn to(address: &[u8]) -> io::Result<Self> {
        let to = match address {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(OsStr::from_bytes(address))?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "neither an absolute path nor an abstract name, which begins with @",
                ));
            }
        };
        let from = UnixDatagram::unbound()?;
        from.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            manager: Some(Manager { from, to }),
            silent: AtomicBool::new(false),
        })
    }

    /// True where somebody is told.
    pub fn is_heard(&self) -> bool {
        self.manager.is_some()
    }

    /// Tells all of it in one message. A manager that does not take it is a line in the log: the gateway
    /// serves all the same.
    pub fn tell(&self, words: &[Word<'_>]) {
        let Some(manager) = &self.manager else {
            return;
        };
        if self.is_silent() {
            return;
        }
        let text = message(words);
        if let Err(error) = manager.from.send_to_addr(text.as_bytes(), &manager.to) {
            tracing::warn!(%error, message = text.trim_end(), "the service manager could not be told");
        }
    }

    /// True once [`Notifier::hand_over`] or [`Notifier::silence`] was called.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Acquire)
    }

    /// Tells that `pid` is the main process from now on, and then nothing any more: a manager that hears
    /// every process of a service would take what this one has to say for the other's.
    pub fn hand_over(&self, pid: u32) {
        self.tell(&[Word::MainPid(pid)]);
        self.silence();
    }

    /// Tells nothing any more.
    pub fn silence(&self) {
        self.silent.store(true, Ordering::Release);
    }
}

/// The clock that [`Word::Reloading`] is told on.
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

fn message(words: &[Word<'_>]) -> String {
    let mut text = String::new();
    for word in words {
        // Writing to a string cannot fail.
        let _never = match word {
            Word::Ready => writeln!(text, "READY=1"),
            Word::Reloading(at) => {
                writeln!(text, "RELOADING=1\nMONOTONIC_USEC={}", at.as_micros())
            }
            Word::Stopping => writeln!(text, "STOPPING=1"),
            // A line break in it would begin another assignment.
            Word::Status(status) => writeln!(text, "STATUS={}", status.replace(['\n', '\r'], " ")),
            Word::Watchdog => writeln!(text, "WATCHDOG=1"),
            Word::MainPid(pid) => writeln!(text, "MAINPID={pid}"),
            Word::ExtendTimeout(longest) => {
                writeln!(text, "EXTEND_TIMEOUT_USEC={}", longest.as_micros())
            }
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 1024];
        let count = socket.recv(&mut bytes).expect("a message");
        String::from_utf8(bytes[..count].to_vec()).expect("text")
    }

    #[test]
    fn words_are_lines_of_one_message() {
        let words = [
            Word::Reloading(Duration::from_millis(1_500)),
            Word::Status("two\nlines"),
            Word::MainPid(42),
            Word::ExtendTimeout(Duration::from_secs(2)),
        ];
        assert_eq!(
            message(&words),
            "RELOADING=1\nMONOTONIC_USEC=1500000\nSTATUS=two lines\nMAINPID=42\nEXTEND_TIMEOUT_USEC=2000000\n"
        );
    }

    #[test]
    fn a_path_and_an_abstract_name_are_both_heard() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("a socket");
        let name = format!("hub-gateway-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixDatagram::bind_addr(&address).expect("a socket");
        let path = path.as_os_str().as_encoded_bytes().to_vec();
        let name = format!("@{name}").into_bytes();
        for (address, socket) in [(path, by_path), (name, by_name)] {
            let notifier = Notifier::to(&address).expect("an address");
            notifier.tell(&[Word::Ready]);
            assert_eq!(hear(&socket), "READY=1\n");
        }
    }

    #[test]
    fn nobody_is_told_without_a_manager_and_one_that_is_gone_does_no_harm() {
        Notifier::default().tell(&[Word::Ready]);
        let gone = Notifier::to(b"/nonexistent/notify").expect("an address");
        gone.tell(&[Word::Watchdog]);
        assert!(Notifier::to(b"relative/path").is_err());
    }

    #[test]
    fn who_has_handed_over_is_silent() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        manager.set_nonblocking(true).expect("our own socket");
        let address = path.as_os_str().as_encoded_bytes();
        let notifier = Notifier::to(address).expect("an address");
        notifier.hand_over(42);
        notifier.tell(&[Word::Stopping]);
        assert!(notifier.is_silent());
        assert_eq!(hear(&manager), "MAINPID=42\n");
        assert!(manager.recv(&mut [0; 64]).is_err());
    }

    #[test]
    fn the_clock_of_reloads_goes_forward() {
        let first = monotonic();
        assert!(first > Duration::ZERO && monotonic() >= first);
    }
}
