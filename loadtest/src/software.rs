//! What the gateway is compared with, and how each is started.

use crate::bench::{self, Scratch, spawn, wait_for};
use crate::hub::Hub;
use anyhow::{Context, Result, bail};
use hub_testkit::process::Guard;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a contestant runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Software {
    Hub,
    /// Bare pingora, `gateway/examples/bare.rs`.
    Bare,
    Nginx,
    Haproxy,
}

/// How a piece of software is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) bin_dir: &'a Path,
    pub(crate) scratch: &'a Scratch,
    /// As errors and files name it.
    pub(crate) name: &'static str,
    /// Its configuration; bare pingora has none.
    pub(crate) config: &'a Path,
    /// What the configuration says; the gateway takes a free port itself.
    pub(crate) listen: SocketAddr,
    pub(crate) origin: SocketAddr,
}

// === impl Launch ===

impl Launch<'_> {
    /// The file that gets what it prints.
    pub(crate) fn output(&self) -> PathBuf {
        self.scratch.path(&format!("{}.out", self.name))
    }
}

// === impl Software ===

impl Software {
    /// Starts it on the server's CPU and waits until it takes connections; it and where they go.
    pub(crate) async fn start(self, launch: &Launch<'_>) -> Result<(Guard, SocketAddr)> {
        let cpus = bench::server_cpus();
        let scratch = launch.scratch;
        let mut command = match self {
            Self::Hub => {
                let hub = Hub::start(launch.bin_dir, scratch, launch.config, &cpus).await?;
                return Ok((hub.guard, hub.public));
            }
            Self::Bare => {
                let mut command = Command::new(launch.bin_dir.join("examples").join("bare"));
                // The gateway sets these for itself.
                command.envs([("MIMALLOC_PURGE_DELAY", "-1"), ("MIMALLOC_ALLOW_THP", "0")]);
                command.arg(launch.listen.to_string());
                command.arg(launch.origin.to_string());
                command
            }
            Self::Nginx => {
                let mut command = Command::new("nginx");
                command.arg("-c").arg(launch.config);
                command.arg("-p").arg(scratch.path(""));
                command.arg("-e").arg(scratch.path("nginx-error.log"));
                command
            }
            Self::Haproxy => {
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(launch.config);
                command
            }
        };
        // Debian keeps both in /usr/sbin, which is not on everyone's path.
        if let Some(path) = std::env::var_os("PATH") {
            let mut path = path;
            path.push(":/usr/sbin:/sbin");
            command.env("PATH", path);
        }
        let output = launch.output();
        let mut guard = spawn(command, &cpus, &output)?;
        wait_for(&mut guard, &output, launch.name, async || {
            tokio::net::TcpStream::connect(launch.listen).await.ok()
        })
        .await?;
        Ok((guard, launch.listen))
    }
}

/// Replaces each `@NAME@`.
///
/// # Errors
/// A placeholder without a value.
pub(crate) fn fill(template: &str, values: &[(&str, String)]) -> Result<String> {
    let mut text = String::with_capacity(template.len() + 256);
    let mut rest = template;
    while let Some(start) = rest.find('@') {
        let (before, after) = rest.split_at(start);
        text.push_str(before);
        let Some((name, behind)) = after[1..].split_once('@') else {
            bail!("a placeholder has no end: {after}");
        };
        let value = values.iter().find(|(known, _)| *known == name);
        let (_, value) = value.with_context(|| format!("no value for the placeholder @{name}@"))?;
        text.push_str(value);
        rest = behind;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_without_a_value_is_an_error() {
        assert!(fill("a @B@ c", &[]).is_err());
        assert!(fill("a @B c", &[("B", String::new())]).is_err());
        assert_eq!(fill("a @B@ c", &[("B", "b".into())]).unwrap(), "a b c");
    }
}
