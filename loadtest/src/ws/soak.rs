//! `make soak-ws`: whether sessions that come and go for long leave something behind.

use super::Findings;
use super::churn::{Churn, Record};
use super::contestant::{Contestant, Ring, Serving};
use crate::report::{Better, Figure, median, number, table};
use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::json;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// Until the level is taken that the end is compared with; a quarter of shorter runs.
const SETTLED: Duration = Duration::from_secs(120);
/// Looks that make a level.
const LOOKS: usize = 6;
/// How far the end may be from the level.
const DRIFT_MAX: f64 = 0.1;
/// How long the gateway may take to forget the last sessions.
const FORGET_MAX: Duration = Duration::from_secs(30);

/// One look at the gateway.
#[derive(Clone, Copy, Debug, Serialize)]
struct Look {
    at_s: f64,
    /// Sessions that the client has open.
    live: usize,
    descriptors: u64,
    threads: u64,
    rss_bytes: u64,
    own_bytes: u64,
}

/// Everything that was seen.
#[derive(Debug, Serialize)]
struct Seen {
    /// Before the first session.
    start: Look,
    looks: Vec<Look>,
    /// Which of them the level was taken at.
    settled: usize,
    /// After the last session.
    end: Look,
    record: Record,
}

pub(super) async fn run(ring: &Ring<'_>, time: Duration, rate: f64) -> Result<Findings> {
    let serving = Contestant::HUB.start(ring).await?;
    let begun = Instant::now();
    let start = look(&serving, begun, 0)?;
    println!(
        "{rate} sessions a second come and go for {:.0} s",
        time.as_secs_f64()
    );
    let churn = Churn::start(serving.address, rate);
    let pause = LOOK.min(time / 20);
    let mut looks = Vec::new();
    let mut due = tokio::time::interval_at(tokio::time::Instant::now() + pause, pause);
    while begun.elapsed() < time {
        due.tick().await;
        let seen = look(&serving, begun, churn.live())?;
        let (left, failed) = churn.so_far();
        if looks.len() % 6 == 0 {
            println!(
                "{:>5.0} s: {left} sessions over, {failed} failed, {} live; {} descriptors, {} MB resident",
                seen.at_s,
                seen.live,
                seen.descriptors,
                number(seen.rss_bytes as f64 / 1e6)
            );
        }
        looks.push(seen);
    }
    let record = churn.stop().await;
    let forgotten = serving
        .until_descriptors(start.descriptors, FORGET_MAX)
        .await;
    if !forgotten {
        println!("warning: descriptors are open whose sessions have ended");
    }
    let end = look(&serving, begun, 0)?;
    serving.end().await?;
    ensure!(record.left() > 0, "no session came and went: {record:?}");
    let settled_s = SETTLED.min(time / 4).as_secs_f64();
    let seen = Seen {
        start,
        settled: looks
            .iter()
            .take_while(|look| look.at_s < settled_s)
            .count(),
        looks,
        end,
        record,
    };
    Ok(Findings {
        figures: figures(&seen),
        heading: overview(&seen),
        raw: json!(seen),
    })
}

fn look(serving: &Serving, begun: Instant, live: usize) -> Result<Look> {
    let (usage, weight) = (serving.usage()?, serving.weight()?);
    Ok(Look {
        at_s: begun.elapsed().as_secs_f64(),
        live,
        descriptors: usage.fds,
        threads: usage.threads,
        rss_bytes: usage.rss_bytes,
        own_bytes: weight.own_bytes,
    })
}

// === impl Seen ===

impl Seen {
    /// After the first minutes, while sessions come and go.
    fn level(&self, value: fn(&Look) -> f64) -> Option<f64> {
        let from = self.settled.min(self.looks.len());
        median(self.looks[from..].iter().take(LOOKS).map(value))
    }

    /// In the last minute of it.
    fn last(&self, value: fn(&Look) -> f64) -> Option<f64> {
        median(self.looks.iter().rev().take(LOOKS).map(value))
    }

    /// How far the last minute is from the level, as a part of it.
    fn drift(&self, value: fn(&Look) -> f64) -> Option<f64> {
        Some((self.last(value)? / self.level(value)? - 1.0).abs())
    }
}

/// Name, unit for the eye, and value of what is looked at.
type Quantity = (&'static str, fn(&Look) -> f64);

const QUANTITIES: [Quantity; 4] = [
    ("descriptors", |look| look.descriptors as f64),
    ("threads", |look| look.threads as f64),
    ("rss", |look| look.rss_bytes as f64),
    ("own_memory", |look| look.own_bytes as f64),
];

fn figures(seen: &Seen) -> Vec<Figure> {
    let lower = Better::Lower;
    let mut figures = Vec::new();
    for (name, value) in QUANTITIES {
        figures.push(
            Figure::new(
                format!("soak_{name}_drift"),
                seen.drift(value),
                "ratio",
                lower,
            )
            .floor(DRIFT_MAX)
            .note("of the last minute from the level after the first two"),
        );
    }
    let left_open = seen.end.descriptors as f64 / seen.start.descriptors as f64;
    let grown = QUANTITIES[2];
    let grown = seen
        .level(grown.1)
        .map(|level| seen.end.rss_bytes as f64 / level);
    figures.extend([
        Figure::new("soak_descriptors_after", Some(left_open), "ratio", lower)
            .floor(1.0 + DRIFT_MAX)
            .note("after the last session, by those before the first"),
        Figure::new("soak_rss_after", grown, "ratio", lower)
            .floor(1.0 + DRIFT_MAX)
            .note("after the last session, by the level"),
        Figure::new(
            "soak_failed",
            Some(seen.record.failed() as f64),
            "sessions",
            lower,
        )
        .floor(0.0)
        .note("refused, cut off, or with a wrong echo"),
        Figure::new(
            "soak_sessions",
            Some(seen.record.left() as f64),
            "sessions",
            Better::Higher,
        )
        .note("that came and left as they wanted")
        .shown(),
        Figure::new(
            "soak_unsent",
            Some(seen.record.unsent as f64),
            "sessions",
            lower,
        )
        .note("did not come: too many lived, or the client was too slow")
        .shown(),
    ]);
    figures
}

/// One line for each quantity.
fn overview(seen: &Seen) -> String {
    let head = ["soak", "before", "level", "last minute", "after"];
    let row = |(name, value): Quantity| {
        let show = |value: Option<f64>| value.map_or("-".to_owned(), number);
        vec![
            name.to_owned(),
            number(value(&seen.start)),
            show(seen.level(value)),
            show(seen.last(value)),
            number(value(&seen.end)),
        ]
    };
    let rows: Vec<Vec<String>> = QUANTITIES.into_iter().map(row).collect();
    format!("{}\n", table(&head, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: usize, rss_bytes: u64) -> Look {
        Look {
            at_s: at as f64 * 10.0,
            live: 10,
            descriptors: 20,
            threads: 3,
            rss_bytes,
            own_bytes: rss_bytes,
        }
    }

    #[test]
    fn drift_is_the_last_minute_by_the_level_after_the_first_two() {
        // Rises at first, as every process does, stays, and leaks in the end.
        let rss = |at| match at {
            0..12 => at as u64,
            12..30 => 100,
            _ => 125,
        };
        let seen = Seen {
            start: look(0, 1),
            looks: (0..36).map(|at| look(at, rss(at))).collect(),
            settled: 12,
            end: look(40, 90),
            record: Record::default(),
        };
        assert_eq!(seen.level(|look| look.rss_bytes as f64), Some(100.0));
        assert_eq!(seen.drift(|look| look.rss_bytes as f64), Some(0.25));
        assert_eq!(seen.drift(|look| look.descriptors as f64), Some(0.0));
        let figures = serde_json::to_value(figures(&seen)).unwrap();
        let after = figures.as_array().unwrap().iter();
        let after = after.clone().find(|one| one["name"] == "soak_rss_after");
        assert_eq!(after.unwrap()["value"], 0.9);
    }
}
