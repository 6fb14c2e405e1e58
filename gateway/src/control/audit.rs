//! The audit trail: one line for each change that somebody asked for.

use hub_config::runtime::Admin;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::SystemTime;

/// Writes one line: who asked for what, and how it ended. It goes where `admin`, which is in force,
/// says. A line that cannot be written to its file goes to the process log, so that none is lost.
/// Blocks.
pub(crate) fn write(admin: &Admin, caller: &str, action: &str, detail: &Value) {
    let line = json!({
        "at_unix_seconds": super::reload::unix_seconds(SystemTime::now()),
        "caller": caller,
        "action": action,
        "detail": detail,
    });
    let Some(file) = &admin.audit_file else {
        tracing::info!(audit = %line, "an operator asked for a change");
        return;
    };
    let appended = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(file)
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(error) = appended {
        tracing::error!(%error, audit = %line, "the audit file cannot be written");
    }
}
