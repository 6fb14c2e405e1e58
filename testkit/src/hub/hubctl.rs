//! hubctl, as an operator runs it against a gateway.

use super::Hub;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// hubctl beside a gateway's binary; a build of the workspace puts it there.
#[derive(Debug)]
pub struct Hubctl(PathBuf);

/// What a command said, and its exit code.
#[derive(Debug)]
pub struct Said {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Hubctl {
    /// The one beside `gateway`; `None`, and a word on standard error, where there is none.
    ///
    /// # Panics
    /// Where there is none and `HUB_REQUIRE_HUBCTL` is set.
    pub fn beside(gateway: &Path) -> Option<Self> {
        let path = gateway.with_file_name("hubctl");
        if path.exists() {
            return Some(Self(path));
        }
        assert!(
            std::env::var_os("HUB_REQUIRE_HUBCTL").is_none(),
            "HUB_REQUIRE_HUBCTL is set and {} is missing",
            path.display()
        );
        eprintln!(
            "not run: {} is missing; build the workspace first",
            path.display()
        );
        None
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs a command against `hub`, with its admin token. Blocks.
    pub fn run(&self, hub: &Hub, arguments: &[&str]) -> Said {
        self.run_with(hub, &hub.dir().join("admin.token"), arguments)
    }

    /// The same with another token's file.
    ///
    /// # Panics
    /// Where it cannot be started, or says what is no text.
    pub fn run_with(&self, hub: &Hub, token_file: &Path, arguments: &[&str]) -> Said {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(&self.0)
            .args(arguments)
            .env_remove("HUB_ADMIN_TOKEN")
            .env("HUB_ADMIN", hub.admin_endpoint())
            .env("HUB_ADMIN_TOKEN_FILE", token_file)
            .output()
            .expect("hubctl runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Said {
            code: status.code(),
            stdout: text(stdout),
            stderr: text(stderr),
        }
    }
}
