//! The audit trail: one line for each change that somebody asked for.

use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

/// Where audit lines go.
#[derive(Debug)]
pub(crate) struct Audit {
    file: Option<PathBuf>,
}

impl Audit {
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { file }
    }

    /// Writes one line: who asked for what, and how it ended. A line that cannot be written to its
    /// file goes to the process log, so that none is lost.
    pub(crate) fn write(&self, caller: &str, action: &str, detail: &Value) {
        let line = json!({
            "at_unix_seconds": super::reload::unix_seconds(SystemTime::now()),
            "caller": caller,
            "action": action,
            "detail": detail,
        });
        let Some(file) = &self.file else {
            tracing::info!(audit = %line, "an operator asked for a change");
            return;
        };
        let appended = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .and_then(|mut file| writeln!(file, "{line}"));
        if let Err(error) = appended {
            tracing::error!(%error, audit = %line, "the audit file cannot be written");
        }
    }
}
