//! Steps and databases as text.

use crate::client::Client;
use crate::ledger;
use anyhow::bail;
use hub_store::Kind;
use hub_store::migrate::{Progress, Standing, StepStatus};
use serde_json::{Value, json};
use std::fmt::Write;

/// Prints every step of a database. Without the gateway's ledger nothing is known of runs.
pub(super) fn steps(scope: &str, statuses: &[StepStatus], with_ledger: bool, as_json: bool) {
    if as_json {
        let steps: Vec<Value> = statuses.iter().map(as_value).collect();
        println!("{:#}", json!({"scope": scope, "steps": steps}));
    } else {
        print!("{}", text(scope, statuses, with_ledger));
    }
}

fn text(scope: &str, statuses: &[StepStatus], with_ledger: bool) -> String {
    let mut text = format!("{scope}: {} steps\n", statuses.len());
    for status in statuses {
        let step = &status.step;
        let standing = match status.standing {
            Standing::Unrecorded if !with_ledger => "applied",
            standing => word(standing),
        };
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            text,
            "  {:04}  {:<8}  {standing:<12}  {}",
            step.number,
            step.kind.as_str(),
            step.name
        );
        if let Some(recorded) = status.recorded.as_ref()
            && !recorded.detail.is_empty()
            && status.standing == Standing::Failed
        {
            let _infallible = writeln!(text, "        {}", recorded.detail);
        }
        if let Some(advice) = advice(status.standing).filter(|_| with_ledger) {
            let _infallible = writeln!(text, "        {advice}");
        }
        let file = step.path.file_name().unwrap_or_default().to_string_lossy();
        for finding in &status.findings {
            let _infallible = writeln!(
                text,
                "        {file}:{}: {}: {}\n            instead: {}",
                finding.line, finding.rule, finding.why, finding.instead
            );
        }
    }
    if let Some(next) = next(statuses) {
        text.push_str(&next);
        text.push('\n');
    }
    text
}

fn as_value(status: &StepStatus) -> Value {
    json!({
        "number": status.step.number,
        "name": status.step.name,
        "kind": status.step.kind.as_str(),
        "standing": word(status.standing),
        "findings": status.findings.iter().map(|finding| json!({
            "rule": finding.rule,
            "line": finding.line,
            "why": finding.why,
            "instead": finding.instead,
        })).collect::<Vec<_>>(),
    })
}

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Applied => "applied",
        Standing::Unrecorded => "unrecorded",
        Standing::Running => "running",
        Standing::Failed => "failed",
        Standing::Pending => "to come",
        Standing::Lost => "lost",
        Standing::Changed => "changed",
    }
}

fn advice(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Applied | Standing::Pending | Standing::Failed => None,
        Standing::Unrecorded => {
            Some("the database has it and the ledger does not say so; the next run writes it down")
        }
        Standing::Running => {
            Some("a run holds it; if that run is gone, run it again with --take-over")
        }
        Standing::Lost => Some(
            "the ledger says it was applied, and the database does not have it: another database, or an older backup?",
        ),
        Standing::Changed => Some(
            "its file is not what was run: put the file back, and write a new step for the change",
        ),
    }
}

/// What comes next.
fn next(statuses: &[StepStatus]) -> Option<String> {
    let mut to_come = statuses.iter().filter(|status| {
        matches!(
            status.standing,
            Standing::Pending | Standing::Failed | Standing::Running
        )
    });
    let first = to_come.next()?;
    let same = to_come.take_while(|status| status.step.kind == first.step.kind);
    let last = same.last().unwrap_or(first).step.number;
    let first_number = first.step.number;
    let numbers = if last == first_number {
        format!("{first_number:04}")
    } else {
        format!("{first_number:04} to {last:04}")
    };
    Some(match first.step.kind {
        Kind::Expand => format!("next: `hubctl migrate expand` runs {numbers}, before the rollout"),
        Kind::Contract => {
            format!(
                "next: `hubctl migrate contract` runs {numbers}, after the rollout is committed"
            )
        }
    })
}

pub(super) fn progress(progress: &Progress) -> String {
    match progress {
        Progress::Begun { number, name } => format!("{number:04}  {name}: begins"),
        Progress::Retrying {
            number,
            attempt,
            pause,
            why,
        } => format!(
            "{number:04}  attempt {attempt} did not get its locks ({why}); again in {:.1} s",
            pause.as_secs_f64()
        ),
        Progress::Applied { number, took } => {
            format!("{number:04}  applied in {:.1} s", took.as_secs_f64())
        }
        Progress::Adopted { number } => {
            format!("{number:04}  was in the database already, and is written down now")
        }
    }
}

/// Prints what the gateway knows of all databases, or of one.
pub(super) fn scopes(client: &Client, only: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let path = only.map_or_else(|| "/v1/migrations".to_owned(), ledger::path);
    let body = client.get(&path)?.body;
    if let Some(message) = body["error"]["message"].as_str() {
        bail!("{message}");
    }
    if as_json {
        println!("{body:#}");
        return Ok(());
    }
    let all = match &body["scopes"] {
        Value::Array(scopes) => scopes.clone(),
        _ => vec![body],
    };
    if all.is_empty() {
        println!(
            "no database so far: no cluster names one in schema.scopes, and none was migrated"
        );
    }
    for known in &all {
        let name = known["scope"].as_str().unwrap_or("-");
        let step = known["step"].as_u64().unwrap_or(0);
        print!("{name}: step {step:04}\n{}", scope(known));
    }
    Ok(())
}

/// Colours of a database's clusters, and steps that were begun and have not come to a good end.
pub(super) fn scope(known: &Value) -> String {
    let mut text = String::new();
    for step in known["steps"].as_array().into_iter().flatten() {
        if step["state"] == "applied" {
            continue;
        }
        let word = |key: &str| step[key].as_str().unwrap_or("-").to_owned();
        let _infallible = writeln!(
            text,
            "  {} step {:04} {}: {} {}",
            word("kind"),
            step["number"].as_u64().unwrap_or(0),
            word("name"),
            word("state"),
            word("detail")
        );
    }
    for colour in known["colours"].as_array().into_iter().flatten() {
        let word = |key: &str| colour[key].as_str().unwrap_or("-").to_owned();
        let number = |key: &str| {
            let number = colour[key].as_u64();
            number.map_or_else(|| "?".to_owned(), |number| format!("{number:04}"))
        };
        let active = if colour["active"] == true {
            " (active)"
        } else {
            ""
        };
        let fits = if colour["fits"] == true {
            "fits".to_owned()
        } else {
            format!("does not fit: {}", word("why"))
        };
        let _infallible = writeln!(
            text,
            "  {} {}{active}: {} to {}: {fits}",
            word("cluster"),
            word("colour"),
            number("min"),
            number("max")
        );
    }
    text
}
