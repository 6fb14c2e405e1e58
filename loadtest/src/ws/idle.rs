//! How many idle sessions a proxy holds, and what each weighs.

use super::client::{Client, Fault, Io, Message};
use super::contestant::{Contestant, Ring, Serving, Weight, failed};
use super::{Findings, frame};
use crate::report::{Better, Figure, median, number, table};
use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// After the last message, before memory is read: allocators give pages back with a delay.
const SETTLE: Duration = Duration::from_secs(5);
/// Sessions that are opened, or asked, at once.
const AT_ONCE: usize = 64;
/// Sessions that come and go first: what is made once is not the price of a session.
const WARM_UP: usize = 100;
/// How long the proxy may take to forget those.
const FORGET_MAX: Duration = Duration::from_secs(10);
/// Sessions that the gateway has to hold where the limit of descriptors is 20,000.
const HELD_MIN: f64 = 9_500.0;
const FLOOR_BYTES: f64 = 6.0 * 1024.0;
const GOAL_BYTES: f64 = 2.5 * 1024.0;

/// One contestant in one round.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    name: &'static str,
    round: u32,
    /// Sessions that answered when they were opened, and at the end.
    held: usize,
    before: Weight,
    with: Weight,
    opened_in_s: f64,
}

pub(super) async fn run(ring: &Ring<'_>, rounds: u32) -> Result<Findings> {
    let mut samples = Vec::new();
    for round in 0..rounds {
        // The order rotates, so that nobody always comes after the same neighbour.
        let first = round as usize % Contestant::ALL.len();
        for step in 0..Contestant::ALL.len() {
            let one = Contestant::ALL[(first + step) % Contestant::ALL.len()];
            let sample = measure(ring, round, one)
                .await
                .with_context(|| failed(one, ring, "idle sessions"))?;
            println!(
                "idle {}/{rounds} {:<16} {} sessions held, {} bytes each",
                round + 1,
                sample.name,
                sample.held,
                number(sample.own_each())
            );
            samples.push(sample);
        }
    }
    Ok(Findings {
        figures: figures(&samples),
        heading: overview(&samples),
        raw: serde_json::to_value(&samples).context("samples are plain values")?,
    })
}

async fn measure(ring: &Ring<'_>, round: u32, one: Contestant) -> Result<Sample> {
    let serving = one.start(ring).await?;
    let message = Arc::new(Message::new(frame::TEXT, 64));
    // With one session, because a worker that has not served may not be there yet.
    let first = open(&serving, 1, &message).await?;
    let at_rest = serving.usage()?.fds;
    drop(first);
    drop(open(&serving, WARM_UP, &message).await?);
    ensure!(
        serving.until_descriptors(at_rest, FORGET_MAX).await,
        "it keeps the sockets of sessions whose clients have gone"
    );
    tokio::time::sleep(SETTLE).await;
    let before = serving.weight()?;
    let behind_before = ring.origin.descriptors()?;
    let begun = std::time::Instant::now();
    let held = open(&serving, ring.sessions, &message).await?;
    let opened_in_s = begun.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let with = serving.weight()?;
    let behind = ring.origin.descriptors()?;
    let all = ring.sessions as u64;
    ensure!(
        with.descriptors >= before.descriptors + 2 * all && behind >= behind_before + all,
        "{all} sessions have {} sockets in the proxy and {} in the origin: they are not relayed one by one",
        with.descriptors - before.descriptors,
        behind.saturating_sub(behind_before)
    );
    let held = held.ask_all().await?;
    serving.end().await?;
    Ok(Sample {
        name: one.name(),
        round,
        held,
        before,
        with,
        opened_in_s,
    })
}

/// Sessions that are held: they answer Pings, as browsers do, and nothing else.
struct Held {
    ask: watch::Sender<()>,
    sessions: JoinSet<Result<(), Fault>>,
}

/// Opens sessions, each of which has exchanged a message.
async fn open(serving: &Serving, count: usize, message: &Arc<Message>) -> Result<Held> {
    let (ask, asked) = watch::channel(());
    let opening = stream::iter(0..count).map(async |number| {
        let mut client = serving.open(number, "/echo").await?;
        client.echo(message).await?;
        anyhow::Ok(client)
    });
    let mut opening = opening.buffer_unordered(AT_ONCE);
    let mut sessions = JoinSet::new();
    while let Some(client) = opening.try_next().await? {
        sessions.spawn(hold(client, asked.clone(), Arc::clone(message)));
    }
    Ok(Held { ask, sessions })
}

async fn hold(
    mut client: Client<Box<dyn Io>>,
    mut asked: watch::Receiver<()>,
    message: Arc<Message>,
) -> Result<(), Fault> {
    tokio::select! {
        // Where nobody can ask any more, the task is about to end.
        _ = asked.changed() => client.echo(&message).await,
        fault = client.ignore() => Err(fault),
    }
}

// === impl Held ===

impl Held {
    /// Lets each session exchange another message. How many there were.
    async fn ask_all(mut self) -> Result<usize> {
        // An error would be that all have failed, which is seen below.
        self.ask.send(()).ok();
        let mut held = 0;
        let mut faults: BTreeMap<String, usize> = BTreeMap::new();
        while let Some(ended) = self.sessions.join_next().await {
            match ended.context("a session panicked")? {
                Ok(()) => held += 1,
                Err(fault) => *faults.entry(fault.to_string()).or_default() += 1,
            }
        }
        ensure!(
            faults.is_empty(),
            "not all were alive at the end: {faults:?}"
        );
        Ok(held)
    }
}

// === impl Sample ===

impl Sample {
    fn own_each(&self) -> f64 {
        (self.with.own_bytes as f64 - self.before.own_bytes as f64) / self.held as f64
    }

    fn rss_each(&self) -> f64 {
        (self.with.rss_bytes as f64 - self.before.rss_bytes as f64) / self.held as f64
    }
}

fn of(samples: &[Sample], one: Contestant) -> impl Iterator<Item = &Sample> {
    samples
        .iter()
        .filter(move |sample| sample.name == one.name())
}

/// The median over the rounds of one contestant's bytes for each session by another's in the same round.
fn ratio(samples: &[Sample], upper: Contestant, lower: Contestant) -> Option<f64> {
    median(of(samples, upper).filter_map(|sample| {
        let other = of(samples, lower).find(|other| other.round == sample.round)?;
        Some(sample.own_each() / other.own_each())
    }))
}

fn figures(samples: &[Sample]) -> Vec<Figure> {
    let lower = Better::Lower;
    let held = of(samples, Contestant::HUB).map(|one| one.held).min();
    let mut figures = vec![
        Figure::new(
            "ws_sessions_held",
            held.map(|held| held as f64),
            "sessions",
            Better::Higher,
        )
        .floor(HELD_MIN)
        .note("relayed by one gateway, each with a socket on either side, all alive at the end"),
    ];
    for one in Contestant::ALL {
        let each = median(of(samples, one).map(Sample::own_each));
        let figure = Figure::new(
            format!("{}_bytes_per_idle_session", one.name()),
            each,
            "bytes",
            lower,
        )
        .note("growth of memory that no file stands behind, median of the rounds")
        .shown();
        figures.push(if one == Contestant::HUB {
            figure.floor(FLOOR_BYTES).goal(GOAL_BYTES)
        } else {
            figure
        });
    }
    let beside = [
        (Contestant::HUB, Contestant::HAPROXY),
        (Contestant::HUB_TLS, Contestant::HAPROXY_TLS),
    ];
    for (upper, lower_one) in beside {
        let name = format!("{}_bytes_over_{}", upper.name(), lower_one.name());
        let figure = Figure::new(name, ratio(samples, upper, lower_one), "ratio", lower)
            .note("median of the ratios within each round")
            .shown();
        figures.push(if upper.tls { figure.floor(1.0) } else { figure });
    }
    figures
}

/// One line for each contestant.
fn overview(samples: &[Sample]) -> String {
    let head = [
        "idle sessions, median",
        "held",
        "bytes each",
        "by RSS",
        "MB before",
        "MB with",
        "s to open",
    ];
    let row = |one: Contestant| {
        let show = |value: fn(&Sample) -> f64| {
            median(of(samples, one).map(value)).map_or("-".to_owned(), number)
        };
        vec![
            one.name().to_owned(),
            show(|one| one.held as f64),
            show(Sample::own_each),
            show(Sample::rss_each),
            show(|one| one.before.own_bytes as f64 / 1e6),
            show(|one| one.with.own_bytes as f64 / 1e6),
            show(|one| one.opened_in_s),
        ]
    };
    let rows: Vec<Vec<String>> = Contestant::ALL.into_iter().map(row).collect();
    format!("{}\n", table(&head, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(one: Contestant, round: u32, each: u64) -> Sample {
        let weight = |own_bytes| Weight {
            own_bytes,
            rss_bytes: 2 * own_bytes,
            descriptors: 0,
        };
        Sample {
            name: one.name(),
            round,
            held: 10,
            before: weight(1_000),
            with: weight(1_000 + 10 * each),
            opened_in_s: 1.0,
        }
    }

    #[test]
    fn what_a_session_weighs_is_growth_alone() {
        let one = sample(Contestant::HUB, 0, 700);
        assert_eq!((one.own_each(), one.rss_each()), (700.0, 1_400.0));
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_absent_contestants_have_none() {
        let samples = [
            sample(Contestant::HUB_TLS, 0, 100),
            sample(Contestant::HAPROXY_TLS, 0, 200),
            sample(Contestant::HUB_TLS, 1, 400),
            sample(Contestant::HAPROXY_TLS, 1, 800),
            sample(Contestant::HUB, 1, 800),
        ];
        let tls = ratio(&samples, Contestant::HUB_TLS, Contestant::HAPROXY_TLS);
        assert_eq!(tls, Some(0.5));
        assert_eq!(ratio(&samples, Contestant::HUB, Contestant::HAPROXY), None);
    }
}
