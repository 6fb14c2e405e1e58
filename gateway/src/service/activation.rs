//! Sockets that the process was started with, as sd_listen_fds(3) describes them: `LISTEN_FDS` of them from
//! descriptor 3 on, named by `LISTEN_FDNAMES`, meant for `LISTEN_PID`.
//!
//! A socket belongs to the listener of its name (`FileDescriptorName=` of the socket unit). The admin API
//! is `admin`, unless a listener is called so. A socket without a name of its own, which systemd names after its
//! unit, belongs to the listener with its address.
//!
//! Invariant: every socket is claimed, or the process does not start: one that nobody serves takes
//! connections which nobody answers.
//!
//! `LISTEN_FDS` and `LISTEN_PID` are removed from the environment, and the sockets are closed on exec. The one
//! process that the gateway starts is its successor, which gets sockets in another way
//! (`upgrade`).

use crate::control::admin::AdminSocket;
use hub_config::runtime::AdminAddress;
use listenfd::ListenFd;
use rustix::fd::{AsFd as _, BorrowedFd};
use rustix::net::sockopt::socket_acceptconn;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The first descriptor that is handed over.
const FIRST: usize = 3;
/// The admin API's name.
const ADMIN: &str = "admin";
/// Names of sockets, with colons between them.
const NAMES: &str = "LISTEN_FDNAMES";

/// Why inherited sockets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no listening stream socket.
    #[error(
        "inherited descriptor {number} (`{name}`) is no listening TCP or unix stream socket; its socket unit must say ListenStream= and Accept=no"
    )]
    Kind {
        /// The descriptor.
        number: usize,
        /// Its name.
        name: String,
        /// What the system says of it.
        #[source]
        source: Option<io::Error>,
    },
    /// It is bound elsewhere.
    #[error(
        "inherited socket `{name}` is bound to {bound}, and the configuration wants {wanted}; make ListenStream= of its socket unit and `address` agree"
    )]
    Address {
        /// Its name, which is a listener's.
        name: String,
        /// Where it is bound.
        bound: String,
        /// Where the listener is to be.
        wanted: String,
    },
    /// Everybody may connect to the admin API.
    #[error(
        "inherited socket `{name}` at {} may be used by every user; set SocketMode=0600 in its socket unit", path.display()
    )]
    Mode {
        /// Its name.
        name: String,
        /// Its path.
        path: PathBuf,
    },
    /// Nobody serves it.
    #[error(
        "inherited socket `{name}` ({bound}) belongs to no listener; set FileDescriptorName= in its socket unit to the name of a listener that has no socket yet ({free}), add a listener of that name to the configuration, or disable the socket unit"
    )]
    Unclaimed {
        /// Its name.
        name: String,
        /// Where it is bound.
        bound: String,
        /// Names of what this process would bind itself.
        free: String,
    },
}

/// Inherited sockets that nobody has claimed yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Inherit>,
    /// Names of what was asked for and not found.
    free: Vec<String>,
}

#[derive(Debug)]
struct Inherit {
    name: Name,
    socket: Bound,
}

/// What a socket is called.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// By somebody who meant it.
    Given(String),
    /// By the service manager, for want of a name.
    Default(String),
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl Inherited {
    /// Takes what the environment says was handed over to this process. To be called while there is one
    /// thread, since it changes the environment.
    ///
    /// # Errors
    /// One of them is no listening stream socket.
    pub fn from_env() -> Result<Self, Error> {
        let names = std::env::var(NAMES).unwrap_or_default();
        let mut names = names.split(':');
        let mut handed_over = ListenFd::from_env();
        let mut sockets = Vec::with_capacity(handed_over.len());
        for index in 0..handed_over.len() {
            let name = Name::new(names.next().unwrap_or_default());
            let socket = take(&mut handed_over, index, &name)?;
            sockets.push(Inherit { name, socket });
        }
        Ok(Self {
            sockets,
            free: Vec::new(),
        })
    }

    /// The socket of the listener `name`, if there is one.
    ///
    /// # Errors
    /// It is bound to another address. Port 0 of the configuration is any port.
    pub fn listener(
        &mut self,
        name: &str,
        wanted: SocketAddr,
    ) -> Result<Option<TcpListener>, Error> {
        let is_there = |bound: SocketAddr| {
            bound == wanted || (wanted.port() == 0 && bound.ip() == wanted.ip())
        };
        let fits = |bound: &Bound| matches!(bound, Bound::Tcp(_, at) if is_there(*at));
        let Some(found) = self.claim(name, fits) else {
            return Ok(None);
        };
        match found.socket {
            Bound::Tcp(socket, at) if is_there(at) => Ok(Some(socket)),
            socket @ (Bound::Tcp(..) | Bound::Unix(..)) => Err(Error::Address {
                name: name.to_owned(),
                bound: socket.to_string(),
                wanted: wanted.to_string(),
            }),
        }
    }

    /// The admin API's socket, if there is one. To be asked for after all listeners.
    ///
    /// # Errors
    /// It is bound to another address, or open to every user.
    pub fn admin(&mut self, wanted: &AdminAddress) -> Result<Option<AdminSocket>, Error> {
        let is_there = |bound: &Bound| match (bound, wanted) {
            (Bound::Tcp(_, at), AdminAddress::Tcp(wanted)) => {
                at == wanted || (wanted.port() == 0 && at.ip() == wanted.ip())
            }
            (Bound::Unix(_, at), AdminAddress::Unix(wanted)) => at == wanted,
            (Bound::Tcp(..), AdminAddress::Unix(_)) | (Bound::Unix(..), AdminAddress::Tcp(_)) => {
                false
            }
        };
        let Some(Inherit { name, socket }) = self.claim(ADMIN, is_there) else {
            return Ok(None);
        };
        let name = name.to_string();
        if !is_there(&socket) {
            return Err(Error::Address {
                name,
                bound: socket.to_string(),
                wanted: match wanted {
                    AdminAddress::Tcp(address) => address.to_string(),
                    AdminAddress::Unix(path) => format!("unix:{}", path.display()),
                },
            });
        }
        match socket {
            Bound::Tcp(socket, _) => Ok(Some(AdminSocket::Tcp(socket))),
            Bound::Unix(_, path) if is_open_to_all(&path) => Err(Error::Mode { name, path }),
            Bound::Unix(socket, _) => Ok(Some(AdminSocket::Unix(socket))),
        }
    }

    /// Ends the claiming.
    ///
    /// # Errors
    /// A socket is left.
    pub fn finish(self) -> Result<(), Error> {
        match self.sockets.into_iter().next() {
            None => Ok(()),
            Some(left) => Err(Error::Unclaimed {
                name: left.name.to_string(),
                bound: left.socket.to_string(),
                free: match self.free.as_slice() {
                    [] => "there is none".to_owned(),
                    free => format!("`{}`", free.join("`, `")),
                },
            }),
        }
    }

    /// The socket of this name, or else one without a name that fits.
    fn claim(&mut self, name: &str, fits: impl Fn(&Bound) -> bool) -> Option<Inherit> {
        let by_name = |one: &Inherit| one.name == Name::Given(name.to_owned());
        let by_place = |one: &Inherit| matches!(one.name, Name::Default(_)) && fits(&one.socket);
        let found = self.sockets.iter().position(by_name);
        let found = found.or_else(|| self.sockets.iter().position(by_place));
        if found.is_none() {
            self.free.push(name.to_owned());
        }
        found.map(|index| self.sockets.remove(index))
    }
}

impl Name {
    fn new(name: &str) -> Self {
        // What systemd, and systemd-socket-activate, call a socket that nobody has named.
        let is_default = matches!(name, "" | "unknown") || name.ends_with(".socket");
        match is_default {
            true => Self::Default(name.to_owned()),
            false => Self::Given(name.to_owned()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(name) | Self::Default(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => write!(f, "{address}"),
            Self::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Takes one descriptor, which must be a listening stream socket.
fn take(handed_over: &mut ListenFd, index: usize, name: &Name) -> Result<Bound, Error> {
    let kind = |source| Error::Kind {
        number: FIRST + index,
        name: name.to_string(),
        source,
    };
    let refused = |error: io::Error| kind(Some(error));
    let listens = |socket: BorrowedFd<'_>| match socket_acceptconn(socket) {
        Ok(true) => Ok(()),
        Ok(false) => Err(kind(None)),
        Err(error) => Err(refused(error.into())),
    };
    if let Ok(Some(socket)) = handed_over.take_tcp_listener(index) {
        listens(socket.as_fd())?;
        socket.set_nonblocking(true).map_err(refused)?;
        let at = socket.local_addr().map_err(refused)?;
        return Ok(Bound::Tcp(socket, at));
    }
    let taken = handed_over.take_unix_listener(index).map_err(refused)?;
    let socket = taken.ok_or_else(|| kind(None))?;
    listens(socket.as_fd())?;
    socket.set_nonblocking(true).map_err(refused)?;
    let at = socket.local_addr().map_err(refused)?;
    let path = at.as_pathname().unwrap_or(Path::new("")).to_owned();
    Ok(Bound::Unix(socket, path))
}

fn is_open_to_all(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp() -> (TcpListener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("an address");
        (socket, address)
    }

    fn inherited(names: &[&str]) -> (Inherited, Vec<SocketAddr>) {
        let mut inherited = Inherited::default();
        let mut addresses = Vec::new();
        for name in names {
            let (socket, address) = tcp();
            addresses.push(address);
            inherited.sockets.push(Inherit {
                name: Name::new(name),
                socket: Bound::Tcp(socket, address),
            });
        }
        (inherited, addresses)
    }

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn a_socket_goes_to_the_listener_of_its_name_and_nobody_else() {
        let (mut sockets, at) = inherited(&["https", "http"]);
        let other = sockets.listener("other", at[0]).expect("no fault");
        assert!(other.is_none(), "a name that was given is meant");
        for (name, at) in [("http", at[1]), ("https", at[0])] {
            let socket = sockets.listener(name, at).expect("no fault");
            let socket = socket.expect("there is one");
            assert_eq!(socket.local_addr().expect("an address"), at);
        }
        assert!(sockets.finish().is_ok());
    }

    #[test]
    fn a_socket_without_a_name_goes_to_the_listener_with_its_address() {
        let (mut sockets, at) = inherited(&["hub-gateway.socket", "unknown", ""]);
        assert!(sockets.listener("http", at[1]).expect("no fault").is_some());
        assert!(sockets.listener("more", at[2]).expect("no fault").is_some());
        let admin = sockets.admin(&AdminAddress::Tcp(at[0])).expect("no fault");
        assert!(admin.is_some());
        assert!(sockets.finish().is_ok());
    }

    #[test]
    fn a_socket_that_is_bound_elsewhere_is_an_error_and_port_zero_is_any_port() {
        let (mut sockets, at) = inherited(&["http", "admin"]);
        let admin = sockets.admin(&AdminAddress::Tcp(any())).expect("no fault");
        assert!(admin.is_some());
        let wanted = SocketAddr::from(([127, 0, 0, 2], 0));
        let error = sockets.listener("http", wanted).expect_err("elsewhere");
        let text = error.to_string();
        assert!(text.contains(&at[0].to_string()) && text.contains("127.0.0.2:0"));
    }

    #[test]
    fn a_socket_that_nobody_claims_is_an_error_that_says_what_to_do() {
        let (mut sockets, at) = inherited(&["web"]);
        assert!(sockets.listener("http", any()).expect("no fault").is_none());
        let text = sockets.finish().expect_err("one is left").to_string();
        for part in ["`web`", &at[0].to_string(), "`http`", "FileDescriptorName="] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_listener_called_admin_comes_before_the_admin_api() {
        let (mut sockets, _) = inherited(&["admin"]);
        assert!(
            sockets
                .listener("admin", any())
                .expect("no fault")
                .is_some()
        );
        let admin = sockets.admin(&AdminAddress::Tcp(any())).expect("no fault");
        assert!(admin.is_none());
    }

    #[test]
    fn an_admin_socket_that_every_user_may_use_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin");
        for (mode, good) in [(0o666, false), (0o600, true)] {
            let socket = UnixListener::bind(&path).expect("a socket");
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("our own file");
            let mut sockets = Inherited::default();
            sockets.sockets.push(Inherit {
                name: Name::new("admin"),
                socket: Bound::Unix(socket, path.clone()),
            });
            let admin = sockets.admin(&AdminAddress::Unix(path.clone()));
            assert_eq!(admin.is_ok(), good, "{mode:o}");
            std::fs::remove_file(&path).expect("our own file");
        }
    }
}
