//! Whole files in, problems or a configuration out.

mod bad;
mod directory;
mod good;
mod reload;
mod websocket;

use crate::testing::{FakeCatalog, no_env};
use crate::{Loader, Problem, Problems, runtime};
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// The least that is accepted. Tests count its lines.
pub(crate) const BASE: &str = r#"
[[listener]]
name = "http"
address = "127.0.0.1:8080"
[[cluster]]
name = "app"
endpoints = { blue = ["127.0.0.1:9001"] }
[[route]]
name = "all"
path = { prefix = "/" }
cluster = "app"
"#;

/// Names that the tests' resolver knows.
fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let ips: &[[u8; 4]] = match host {
        "app.internal" => &[[10, 0, 0, 2], [10, 0, 0, 1]],
        "metadata.internal" => &[[10, 0, 0, 3], [169, 254, 169, 254]],
        "empty.internal" => &[],
        _ => return Err(io::Error::other("no such name")),
    };
    Ok(ips.iter().map(|ip| SocketAddr::from((*ip, port))).collect())
}

pub(crate) fn load_in(base: &Path, text: &str) -> Result<runtime::Config, Problems> {
    Loader::new(&FakeCatalog, &no_env)
        .resolver(resolve)
        .load_str(text, &base.join("gateway.toml"), base)
}

pub(crate) fn load(text: &str) -> Result<runtime::Config, Problems> {
    load_in(&examples(), text)
}

/// The folder of examples, whose files the tests refer to.
pub(super) fn examples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

pub(super) fn problems(text: &str) -> Vec<Problem> {
    match load(text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().cloned().collect(),
    }
}
