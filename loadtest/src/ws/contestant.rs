//! Who relays the WebSockets of the benches, and how each is configured.

use super::client::{ANSWER_MAX, Client, Fault, Io, connect};
use super::origin::Origin;
use crate::bench::{self, Scratch};
use crate::client::HOST;
use crate::software::{Launch, Software, fill};
use anyhow::{Context, Result, bail};
use hub_testkit::Ca;
use hub_testkit::process::{Guard, Usage, own_bytes_of_tree, usage_of_tree};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use serde::Serialize;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How a route of the gateway says that it takes WebSockets.
const HUB_WEBSOCKET: &str = "websocket = {}";
/// Clients from one address, below the gateway's default limit of 1000 connections.
const PER_ADDRESS: usize = 500;
/// Descriptors of a process that are none of a session's.
const DESCRIPTORS_OWN: u64 = 350;

/// One line of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contestant {
    pub(crate) software: Software,
    /// TLS at the front.
    pub(crate) tls: bool,
}

/// A contestant that serves.
#[derive(Debug)]
pub(crate) struct Serving {
    guard: Guard,
    pub(crate) address: SocketAddr,
    /// Whom to trust, where it speaks TLS.
    tls: Option<Arc<ClientConfig>>,
}

/// What all contestants are started with.
#[derive(Debug)]
pub(crate) struct Ring<'a> {
    pub(crate) bin_dir: &'a Path,
    pub(crate) scratch: &'a Scratch,
    pub(crate) origin: &'a Origin,
    /// Sessions that each has to hold.
    pub(crate) sessions: usize,
}

/// Memory and descriptors of a contestant.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Weight {
    /// Memory of its own, see [`own_bytes_of_tree`].
    pub(crate) own_bytes: u64,
    pub(crate) rss_bytes: u64,
    pub(crate) descriptors: u64,
}

/// Sessions that one proxy can hold with this machine's limit of descriptors: two for each.
pub(crate) fn sessions_max() -> usize {
    let limit = hub_testkit::process::raise_fd_limit(65_536);
    usize::try_from(limit.saturating_sub(DESCRIPTORS_OWN) / 2).unwrap_or(usize::MAX)
}

/// The address that client number `number` comes from.
pub(crate) fn source(number: usize) -> IpAddr {
    let address = 0x7F00_0002 + u32::try_from(number / PER_ADDRESS).unwrap_or(0);
    IpAddr::V4(Ipv4Addr::from(address))
}

// === impl Contestant ===

impl Contestant {
    pub(crate) const HUB: Self = Self::plain(Software::Hub);
    pub(crate) const HAPROXY: Self = Self::plain(Software::Haproxy);
    pub(crate) const HUB_TLS: Self = Self::secure(Software::Hub);
    pub(crate) const HAPROXY_TLS: Self = Self::secure(Software::Haproxy);
    /// Those that idle sessions are opened to, in the order of the table.
    pub(crate) const ALL: [Self; 6] = [
        Self::HUB,
        Self::plain(Software::Nginx),
        Self::HAPROXY,
        Self::plain(Software::Bare),
        Self::HUB_TLS,
        Self::HAPROXY_TLS,
    ];

    const fn plain(software: Software) -> Self {
        Self {
            software,
            tls: false,
        }
    }

    const fn secure(software: Software) -> Self {
        Self {
            software,
            tls: true,
        }
    }

    /// As figures name it.
    pub(crate) fn name(self) -> &'static str {
        match (self.software, self.tls) {
            (Software::Hub, false) => "ws_hub",
            (Software::Hub, true) => "wss_hub",
            (Software::Nginx, false) => "ws_nginx",
            (Software::Nginx, true) => "wss_nginx",
            (Software::Haproxy, false) => "ws_haproxy",
            (Software::Haproxy, true) => "wss_haproxy",
            (Software::Bare, _) => "ws_bare_pingora",
        }
    }

    fn template(self) -> &'static str {
        match self.software {
            Software::Hub => include_str!("../../peers/hub/websocket.toml.in"),
            Software::Nginx => include_str!("../../peers/nginx/websocket.conf.in"),
            Software::Haproxy => include_str!("../../peers/haproxy/websocket.cfg.in"),
            // It takes its addresses from the command line.
            Software::Bare => "",
        }
    }

    fn config(
        self,
        scratch: &Scratch,
        origin: SocketAddr,
        listen: SocketAddr,
        sessions: usize,
    ) -> Result<String> {
        let file = |name: &str| scratch.text(name);
        let (certificate, key) = (file("listener.pem"), file("listener.key"));
        let tls = match (self.software, self.tls) {
            (_, false) => String::new(),
            (Software::Hub, true) => format!(
                "tls = {{ certificates = [{{ certificate_file = \"{certificate}\", key_file = \"{key}\" }}] }}"
            ),
            (Software::Haproxy, true) => format!(" ssl crt {}", file("both.pem")),
            (Software::Bare | Software::Nginx, true) => {
                bail!("{} is not compared with TLS", self.name())
            }
        };
        let values = [
            ("DIR", file("")),
            ("ORIGIN", origin.to_string()),
            ("LISTEN", listen.to_string()),
            ("TLS", tls),
            ("WEBSOCKET", HUB_WEBSOCKET.to_owned()),
            ("SESSIONS", (sessions + 100).to_string()),
            // nginx gives connections up once less than a sixteenth is left.
            (
                "CONNECTIONS",
                (2 * sessions + sessions / 6 + 300).to_string(),
            ),
        ];
        fill(self.template(), &values)
    }

    /// Starts it on the server's CPU and waits until it takes connections.
    pub(crate) async fn start(self, ring: &Ring<'_>) -> Result<Serving> {
        self.start_with(ring, "").await
    }

    /// The same with `more` at the end of its configuration.
    pub(crate) async fn start_with(self, ring: &Ring<'_>, more: &str) -> Result<Serving> {
        let tls = self.tls.then(|| certificate(ring.scratch)).transpose()?;
        let listen = bench::free_address()?;
        let origin = ring.origin.address;
        let mut text = self.config(ring.scratch, origin, listen, ring.sessions)?;
        text += more;
        let config = ring
            .scratch
            .write(&format!("{}.conf", self.name()), &text)?;
        let launch = Launch {
            bin_dir: ring.bin_dir,
            scratch: ring.scratch,
            name: self.name(),
            config: &config,
            listen,
            origin,
        };
        let (guard, address) = self.software.start(&launch).await?;
        Ok(Serving {
            guard,
            address,
            tls,
        })
    }
}

/// Says who has failed, and what it printed.
pub(crate) fn failed(one: Contestant, ring: &Ring<'_>, with: &str) -> String {
    let log = match one.software {
        Software::Hub => "hub.out".to_owned(),
        Software::Nginx => "nginx-error.log".to_owned(),
        Software::Bare | Software::Haproxy => format!("{}.out", one.name()),
    };
    let words = bench::last_lines(&ring.scratch.path(&log));
    format!("{} failed with {with} ({words})", one.name())
}

/// Writes the files of a fresh certificate, and says how to trust it.
fn certificate(scratch: &Scratch) -> Result<Arc<ClientConfig>> {
    let ca = Ca::new("bench");
    let leaf = ca.issue(&[HOST]);
    scratch.write("listener.pem", &leaf.certificate_pem)?;
    scratch.write("listener.key", &leaf.key_pem)?;
    let both = format!("{}{}", leaf.certificate_pem, leaf.key_pem);
    scratch.write("both.pem", &both)?;
    let mut config = ClientConfig::clone(&ca.client_config(&["http/1.1"]));
    // Clients that never met the server: resumed sessions may weigh less.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

// === impl Serving ===

impl Serving {
    /// A connection of client number `number`.
    pub(crate) async fn connect(&self, number: usize) -> Result<TcpStream, Fault> {
        connect(self.address, Some(source(number))).await
    }

    /// A session of client number `number`, over TLS where the contestant speaks it.
    pub(crate) async fn open(&self, number: usize, path: &str) -> Result<Client<Box<dyn Io>>> {
        let stream = self.connect(number).await?;
        let stream: Box<dyn Io> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from(HOST).context("a constant name is a name")?;
                let shaking = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
                let shaken = tokio::time::timeout(ANSWER_MAX, shaking).await;
                Box::new(shaken.context("no TLS in time")?.context("no TLS")?)
            }
        };
        Ok(Client::open(stream, path).await?)
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        usage_of_tree(self.guard.pid()).context("the contestant has no figures")
    }

    pub(crate) fn weight(&self) -> Result<Weight> {
        let usage = self.usage()?;
        let own = own_bytes_of_tree(self.guard.pid()).context("the contestant has no figures")?;
        Ok(Weight {
            own_bytes: own,
            rss_bytes: usage.rss_bytes,
            descriptors: usage.fds,
        })
    }

    /// Waits until at most `descriptors` are open.
    pub(crate) async fn until_descriptors(&self, descriptors: u64, patience: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + patience;
        while self.usage().is_ok_and(|usage| usage.fds > descriptors) {
            if tokio::time::Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    pub(crate) async fn end(self) -> Result<()> {
        bench::end(self.guard).await
    }
}

/// A cluster and a route of the gateway for everything below `/NAME`.
pub(crate) fn hub_route(name: &str, origin: SocketAddr) -> String {
    let mut text = String::new();
    write!(
        text,
        "\n[[cluster]]\nname = \"{name}\"\nendpoints = {{ blue = [\"{origin}\"] }}\n\
         \n[[route]]\nname = \"{name}\"\npath = {{ prefix = \"/{name}\" }}\n{HUB_WEBSOCKET}\n\
         cluster = \"{name}\"\n"
    )
    .expect("a String takes everything");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_filled_completely() {
        let scratch = Scratch::new().unwrap();
        let origin = "127.0.0.1:81".parse().unwrap();
        let listen = "127.0.0.1:82".parse().unwrap();
        for one in Contestant::ALL {
            let config = one.config(&scratch, origin, listen, 9_600).unwrap();
            if one.software == Software::Bare {
                assert_eq!(config, "");
                continue;
            }
            assert!(config.contains("127.0.0.1:81"), "{}", one.name());
            assert!(!config.contains('@'), "{}", one.name());
            let secure = config.contains(".pem");
            assert_eq!(secure, one.tls, "{}", one.name());
        }
    }

    #[test]
    fn clients_come_from_many_addresses_of_this_machine() {
        assert_eq!(source(0).to_string(), "127.0.0.2");
        assert_eq!(source(499), source(0));
        assert_eq!(source(500).to_string(), "127.0.0.3");
        assert_eq!(source(200_000).to_string(), "127.0.1.146");
    }
}
