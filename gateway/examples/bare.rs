//! Pingora with nothing of ours in it: the yardstick of `make bench-proxy`.
//!
//! A pass-through `ProxyHttp` that forwards every request to one upstream. It has the gateway's
//! allocator (and from the bench its options), profile and number of workers, so the difference between the two is the price of the
//! gateway's own work and of nothing else.
//!
//! ```text
//! cargo run --profile dist -p hub-gateway --example bare -- LISTEN UPSTREAM [WORKERS]
//! ```
//!
//! `LISTEN` and `UPSTREAM` are `host:port`; `WORKERS` is 1 to 256, 1 if absent. It serves until it is
//! killed.

use async_trait::async_trait;
use pingora::prelude::{HttpPeer, Result, Server, http_proxy_service};
use pingora::proxy::{ProxyHttp, Session};
use pingora::server::configuration::ServerConf;
use std::net::SocketAddr;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Forwards everything to one address.
struct PassThrough {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for PassThrough {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut Self::CTX) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}

/// What the command line says, or how it should have been.
fn arguments() -> Option<(String, SocketAddr, usize)> {
    let mut arguments = std::env::args().skip(1);
    let listen: SocketAddr = arguments.next()?.parse().ok()?;
    let upstream = arguments.next()?.parse().ok()?;
    let workers = match arguments.next() {
        Some(text) => text
            .parse()
            .ok()
            .filter(|workers| (1..=256).contains(workers))?,
        None => 1,
    };
    arguments
        .next()
        .is_none()
        .then_some((listen.to_string(), upstream, workers))
}

fn main() -> ExitCode {
    let Some((listen, upstream, workers)) = arguments() else {
        eprintln!(
            "usage: bare LISTEN UPSTREAM [WORKERS], both as address:port, WORKERS from 1 to 256"
        );
        return ExitCode::from(64);
    };
    let conf = ServerConf {
        threads: workers,
        // The default of 128 is shared by all peers; it must not be what limits reuse here.
        upstream_keepalive_pool_size: 4_096,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, PassThrough { upstream });
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever();
}
