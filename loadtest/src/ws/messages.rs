//! What a relayed message costs, beside HAProxy.

use super::client::{Client, Message};
use super::contestant::{Contestant, Ring, Serving, failed};
use super::{Findings, frame};
use crate::report::{Better, Figure, median, number, table};
use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpStream;

/// Sessions of the client, each with one message under way.
const SESSIONS: usize = 50;
/// Both, in turn.
const BESIDE: [Contestant; 2] = [Contestant::HUB, Contestant::HAPROXY];

/// What is sent.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    opcode: u8,
    bytes: usize,
    /// Messages that are measured, and come back.
    echoes: usize,
    /// Whether the bounds are for it.
    bounded: bool,
}

const CASES: [Case; 4] = [
    Case {
        name: "64b",
        opcode: frame::BINARY,
        bytes: 64,
        echoes: 150_000,
        bounded: true,
    },
    Case {
        name: "1kb",
        opcode: frame::BINARY,
        bytes: 1 << 10,
        echoes: 150_000,
        bounded: true,
    },
    Case {
        name: "64kb",
        opcode: frame::BINARY,
        bytes: 64 << 10,
        echoes: 15_000,
        bounded: true,
    },
    // The gateway looks at each byte of text, which a pipe does not.
    Case {
        name: "1kb_text",
        opcode: frame::TEXT,
        bytes: 1 << 10,
        echoes: 150_000,
        bounded: false,
    },
];

/// One contestant with one kind of message in one round.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    name: &'static str,
    case: &'static str,
    round: u32,
    /// Relayed by the proxy: each message and its echo are two.
    messages: u64,
    /// User and system time of all its threads and processes, for each.
    cpu_us_per_message: f64,
    /// Share of its CPU that it used, 0 to 1.
    cpu_share: f64,
    messages_per_second: f64,
}

pub(super) async fn run(ring: &Ring<'_>, rounds: u32, shrink: usize) -> Result<Findings> {
    let mut samples = Vec::new();
    for round in 0..rounds {
        for step in 0..BESIDE.len() {
            let one = BESIDE[(round as usize + step) % BESIDE.len()];
            let serving = one.start(ring).await?;
            let mut clients = Vec::new();
            for number in 0..SESSIONS {
                let stream = serving.connect(number).await?;
                clients.push(Client::open(stream, "/echo").await?);
            }
            for case in CASES {
                let sample;
                (sample, clients) = measure(&serving, one, round, case, clients, shrink)
                    .await
                    .with_context(|| failed(one, ring, case.name))?;
                println!(
                    "messages {}/{rounds} {:<11} {:<8} {:>7} us CPU each, {:>6.0} a second",
                    round + 1,
                    sample.name,
                    sample.case,
                    number(sample.cpu_us_per_message),
                    sample.messages_per_second
                );
                samples.push(sample);
            }
            serving.end().await?;
        }
    }
    Ok(Findings {
        figures: figures(&samples),
        heading: overview(&samples),
        raw: serde_json::to_value(&samples).context("samples are plain values")?,
    })
}

type Clients = Vec<Client<TcpStream>>;

async fn measure(
    serving: &Serving,
    one: Contestant,
    round: u32,
    case: Case,
    clients: Clients,
    shrink: usize,
) -> Result<(Sample, Clients)> {
    let message = Arc::new(Message::new(case.opcode, case.bytes));
    let each = (case.echoes / SESSIONS / shrink).max(1);
    let clients = echo(clients, &message, each.div_ceil(10)).await?;
    let (before, begun) = (serving.usage()?, Instant::now());
    let clients = echo(clients, &message, each).await?;
    let took = begun.elapsed();
    let cpu_us = (serving.usage()?.cpu_us - before.cpu_us) as f64;
    let messages = 2 * each * SESSIONS;
    let sample = Sample {
        name: one.name(),
        case: case.name,
        round,
        messages: messages as u64,
        cpu_us_per_message: cpu_us / messages as f64,
        cpu_share: cpu_us / took.as_micros() as f64,
        messages_per_second: messages as f64 / took.as_secs_f64(),
    };
    Ok((sample, clients))
}

/// Each client exchanges so many messages, one after the other.
async fn echo(clients: Clients, message: &Arc<Message>, each: usize) -> Result<Clients> {
    let tasks = clients.into_iter().map(|mut client| {
        let message = Arc::clone(message);
        tokio::spawn(async move {
            for _ in 0..each {
                client.say(&message).await?;
                client.hear(&message).await?;
            }
            anyhow::Ok(client)
        })
    });
    let ended = try_join_all(tasks).await.context("a client panicked")?;
    ended.into_iter().collect()
}

fn of<'s>(
    samples: &'s [Sample],
    one: Contestant,
    case: &'s str,
) -> impl Iterator<Item = &'s Sample> {
    let wanted = move |sample: &&Sample| sample.name == one.name() && sample.case == case;
    samples.iter().filter(wanted)
}

/// The median over the rounds of the gateway's CPU by HAProxy's in the same round: what drifts from
/// round to round drops out.
fn ratio(samples: &[Sample], case: &str) -> Option<f64> {
    median(of(samples, Contestant::HUB, case).filter_map(|sample| {
        let mut other = of(samples, Contestant::HAPROXY, case);
        let other = other.find(|other| other.round == sample.round)?;
        Some(sample.cpu_us_per_message / other.cpu_us_per_message)
    }))
}

fn figures(samples: &[Sample]) -> Vec<Figure> {
    let ratios = CASES.map(|case| {
        let name = format!("ws_cpu_{}_hub_over_haproxy", case.name);
        let figure = Figure::new(name, ratio(samples, case.name), "ratio", Better::Lower)
            .note("CPU per relayed message, median of the ratios within each round")
            .shown();
        if case.bounded {
            figure.floor(1.5).goal(1.0)
        } else {
            figure
        }
    });
    let mut figures = Vec::from(ratios);
    for one in BESIDE {
        for case in CASES {
            let cpu = of(samples, one, case.name).map(|sample| sample.cpu_us_per_message);
            let name = format!("{}_cpu_{}", one.name(), case.name);
            let figure = Figure::new(name, median(cpu), "us", Better::Lower);
            figures.push(figure.note("for each relayed message, median of the rounds"));
        }
    }
    figures
}

/// One line for each contestant and kind of message.
fn overview(samples: &[Sample]) -> String {
    let head = [
        "messages, median of rounds",
        "CPU us each",
        "CPU share",
        "messages/s",
    ];
    let mut rows = Vec::new();
    for case in CASES {
        for one in BESIDE {
            let show = |value: fn(&Sample) -> f64| {
                let values = of(samples, one, case.name).map(value);
                median(values).map_or("-".to_owned(), number)
            };
            rows.push(vec![
                format!("{} {}", one.name(), case.name),
                show(|one| one.cpu_us_per_message),
                show(|one| one.cpu_share),
                show(|one| one.messages_per_second),
            ]);
        }
    }
    format!("{}\n", table(&head, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(one: Contestant, round: u32, cpu: f64) -> Sample {
        Sample {
            name: one.name(),
            case: "1kb",
            round,
            messages: 1,
            cpu_us_per_message: cpu,
            cpu_share: 0.9,
            messages_per_second: 1.0,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round_for_each_kind_of_message() {
        // The machine was twice as slow in the second round; the ratio must not see it.
        let samples = [
            sample(Contestant::HUB, 0, 4.0),
            sample(Contestant::HAPROXY, 0, 5.0),
            sample(Contestant::HAPROXY, 1, 10.0),
            sample(Contestant::HUB, 1, 8.0),
        ];
        assert_eq!(ratio(&samples, "1kb"), Some(0.8));
        assert_eq!(ratio(&samples, "64b"), None);
        let figures = serde_json::to_value(figures(&samples)).unwrap();
        let bounds = figures.as_array().unwrap().iter();
        let bounds: Vec<_> = bounds.take(4).map(|one| one["floor"].as_f64()).collect();
        assert_eq!(bounds, [Some(1.5), Some(1.5), Some(1.5), None]);
    }
}
