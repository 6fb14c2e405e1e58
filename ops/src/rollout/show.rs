//! Rollouts as text.

use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One line about a rollout.
pub(super) fn line(rollout: &Value) -> String {
    let text = |key: &str| rollout[key].as_str().unwrap_or("-").to_owned();
    let mut line = format!(
        "{}: {} -> {}: {}",
        text("cluster"),
        text("from"),
        text("to"),
        text("phase").replace('_', " ")
    );
    if let Some(stage) = rollout["stage"].as_u64() {
        line += &format!(" {stage} of {}", rollout["stages"]);
    }
    if let Some(percent) = rollout["canary_percent"].as_f64() {
        line += &format!(", {percent} % of the tenants");
    }
    if rollout["paused"] == true {
        line += ", paused";
    }
    if rollout["contracted"] == true && rollout["over"] == false {
        line += ", no way back";
    }
    if let Some(why) = rollout["why"].as_str() {
        line += &format!(": {why}");
    }
    line
}

/// Who is still on the colour that everyone is to leave.
pub(super) fn staying(staying: &Value) -> Option<String> {
    let busiest: Vec<String> = staying["busiest"]
        .as_array()?
        .iter()
        .map(|one| {
            format!(
                "{} {}",
                one["tenant"].as_str().unwrap_or("-"),
                one["requests"]
            )
        })
        .collect();
    let colour = staying["colour"].as_str().unwrap_or("-");
    let all = staying["tenants"].as_u64().unwrap_or(0);
    let shown = busiest.len();
    let more = match all.saturating_sub(shown as u64) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let busiest = match shown {
        0 => "no tenant's".to_owned(),
        _ => format!("{}{more}", busiest.join(", ")),
    };
    Some(format!("still on {colour}, requests by tenant: {busiest}"))
}

/// What moves while a phase lasts.
pub(super) fn progress(rollout: &Value) -> String {
    let now_us = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as i64);
    let mut text = String::new();
    if let Some(until) = rollout["until_us"].as_i64() {
        let left = (until - now_us).max(0) as f64 / 1e6;
        text += &format!("{left:.0} s left; ");
    }
    let on = &rollout["requests_in_flight"];
    text += &format!("in flight: {} blue, {} green", on["blue"], on["green"]);
    let judges = rollout["judges"].as_array().into_iter().flatten();
    let undecided = judges.filter_map(Value::as_str).next();
    if let Some(judge) = undecided {
        text += &format!("; {judge}");
    }
    text.chars().take(110).collect()
}

pub(super) fn history(body: &Value) -> String {
    let mut text = String::new();
    for entry in body["history"].as_array().into_iter().flatten() {
        let at = Duration::from_micros(entry["at_us"].as_u64().unwrap_or(0));
        text += &format!(
            "{:>5}  {}  {:<12} {} -> {}  epoch {}",
            entry["version"],
            httpdate::fmt_http_date(UNIX_EPOCH + at),
            entry["state"].as_str().unwrap_or("-"),
            entry["from"].as_str().unwrap_or("-"),
            entry["to"].as_str().unwrap_or("-"),
            entry["epoch"],
        );
        if let Some(why) = entry["why"].as_str() {
            text += &format!("  {why}");
        }
        text.push('\n');
    }
    if text.is_empty() {
        text.push_str("nothing so far\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{line, staying};
    use serde_json::{Value, json};

    #[test]
    fn a_line_tells_the_stage_and_the_reason() {
        let canary = json!({
            "cluster": "app", "from": "blue", "to": "green", "phase": "canary", "stage": 2,
            "stages": 4, "canary_percent": 5.0, "paused": true, "why": null,
        });
        assert_eq!(
            line(&canary),
            "app: blue -> green: canary 2 of 4, 5 % of the tenants, paused"
        );
        let back = json!({
            "cluster": "app", "from": "blue", "to": "green", "phase": "rolled_back",
            "stage": null, "canary_percent": null, "paused": false, "why": "5xx",
        });
        assert_eq!(line(&back), "app: blue -> green: rolled back: 5xx");
    }

    #[test]
    fn the_tenants_who_stay_are_told_with_their_requests() {
        assert_eq!(staying(&Value::Null), None);
        let busiest = [("a", 3), ("b", 1)].map(|(id, n)| json!({"tenant": id, "requests": n}));
        let body = json!({"colour": "blue", "tenants": 12, "busiest": busiest});
        assert_eq!(
            staying(&body).as_deref(),
            Some("still on blue, requests by tenant: a 3, b 1 and 10 more")
        );
    }
}
