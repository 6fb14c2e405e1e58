//! What well-behaved sessions notice of hostile ones beside them.

use super::client::{Client, Message};
use super::contestant::{Contestant, Ring, Serving, hub_route};
use super::origin::Origin;
use super::rude::{Deeds, Rude};
use super::steady::{Record, Steady};
use super::{Findings, frame};
use crate::client::percentile;
use crate::report::{Better, Figure, median, number, table};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Well-behaved sessions.
const SESSIONS: usize = 200;
/// Messages a second of all of them together.
const RATE: f64 = 2_000.0;
/// Bytes of each.
const MESSAGE_BYTES: usize = 64;
/// Hostile peers.
const PEERS: usize = 40;
/// Route and cluster of the hostile ones: what they do to their own application is no matter here.
const HOSTILE: &str = "hostile";
/// Before a slice, so that the queues of the one before are empty.
const SETTLE: Duration = Duration::from_secs(1);
/// How long the gateway may take to close what hostile peers have left, before the next slice.
const FORGET_MAX: Duration = Duration::from_secs(30);
/// Which share of the messages may be sent late: from there on the client makes their p99.
const LATE_MAX: f64 = 0.01;

/// Where the hostile peers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Peers {
    /// Nowhere.
    Away,
    /// At their own origin, past the gateway: what they take from the client's CPU is not the gateway's doing.
    Past,
    /// At the gateway.
    There,
}

/// One slice of time, as the well-behaved sessions saw it.
#[derive(Clone, Debug, Serialize)]
struct Slice {
    peers: Peers,
    messages: usize,
    p50_us: f64,
    p99_us: f64,
    late: u64,
    unsent: u64,
    /// CPU time of the gateway for each second.
    gateway_cpu_share: f64,
    /// Memory of the gateway's own, at the end.
    gateway_own_bytes: u64,
    /// Until the gateway had closed what the peers had left.
    forgotten_in_s: f64,
    deeds: Option<Deeds>,
}

pub(super) async fn run(ring: &Ring<'_>, rounds: u32, seconds: u64) -> Result<Findings> {
    let behind = Origin::start(ring.scratch, HOSTILE).await?;
    let route = hub_route(HOSTILE, behind.address);
    let serving = Contestant::HUB.start_with(ring, &route).await?;
    let mut clients = Vec::with_capacity(SESSIONS);
    for number in 0..SESSIONS {
        let stream = serving.connect(number).await?;
        clients.push(Client::open(stream, "/echo").await?);
    }
    let steady = Steady::start(clients, Message::new(frame::TEXT, MESSAGE_BYTES), RATE);
    tokio::time::sleep(SETTLE).await;
    let mut slices = Vec::new();
    for round in 0..rounds {
        for step in 0..Peers::ALL.len() {
            // The order rotates, so that nobody always comes after the same neighbour.
            let peers = Peers::ALL[(round as usize + step) % Peers::ALL.len()];
            let at_rest = serving.usage()?.fds;
            let rude = match peers {
                Peers::Away => None,
                Peers::Past => Some(Rude::start(behind.address, HOSTILE, PEERS)),
                Peers::There => Some(Rude::start(serving.address, HOSTILE, PEERS)),
            };
            let time = Duration::from_secs(seconds);
            let mut slice = measure(&serving, &steady, peers, rude, time).await?;
            let left = Instant::now();
            ensure!(
                serving.until_descriptors(at_rest, FORGET_MAX).await,
                "the gateway keeps sockets of hostile peers that have gone"
            );
            slice.forgotten_in_s = left.elapsed().as_secs_f64();
            println!(
                "neighbours {}/{rounds} peers {:<5} p50 {} us, p99 {} us, gateway at {:.0} % of its CPU",
                round + 1,
                peers.name(),
                number(slice.p50_us),
                number(slice.p99_us),
                100.0 * slice.gateway_cpu_share
            );
            slices.push(slice);
        }
    }
    drop(steady);
    serving.end().await?;
    behind.end().await?;
    check(&slices)?;
    Ok(Findings {
        figures: figures(&slices),
        heading: overview(&slices),
        raw: serde_json::to_value(&slices).context("slices are plain values")?,
    })
}

async fn measure(
    serving: &Serving,
    steady: &Steady,
    peers: Peers,
    rude: Option<Rude>,
    time: Duration,
) -> Result<Slice> {
    tokio::time::sleep(SETTLE).await;
    let (missed, cpu) = (steady.missed(), serving.usage()?.cpu_us);
    steady.take();
    let since = Instant::now();
    tokio::time::sleep(time).await;
    let record = steady.take();
    let took = since.elapsed();
    let cpu = serving.usage()?.cpu_us - cpu;
    let missed = steady.missed() - missed;
    let own_bytes = serving.weight()?.own_bytes;
    let deeds = rude.map(Rude::stop);
    ensure!(
        record.faults.is_empty(),
        "well-behaved sessions failed: {:?}",
        record.faults
    );
    Ok(Slice {
        gateway_cpu_share: cpu as f64 / took.as_micros() as f64,
        gateway_own_bytes: own_bytes,
        deeds,
        ..Slice::of(peers, record, missed)
    })
}

// === impl Peers ===

impl Peers {
    const ALL: [Self; 3] = [Self::Away, Self::Past, Self::There];

    fn name(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Past => "past",
            Self::There => "there",
        }
    }
}

// === impl Slice ===

impl Slice {
    fn of(peers: Peers, record: Record, missed: u64) -> Self {
        let messages = record.took_us.len();
        let p50_us = percentile(record.took_us.clone(), 50.0);
        Self {
            peers,
            messages,
            p50_us: p50_us.unwrap_or(f64::NAN),
            p99_us: percentile(record.took_us, 99.0).unwrap_or(f64::NAN),
            late: record.late,
            unsent: record.unsent + missed,
            gateway_cpu_share: f64::NAN,
            gateway_own_bytes: 0,
            forgotten_in_s: 0.0,
            deeds: None,
        }
    }
}

/// A run whose client was too slow says nothing about the gateway, and neither does one whose hostile peers
/// did nothing.
fn check(slices: &[Slice]) -> Result<()> {
    for slice in slices {
        let due = slice.messages as u64 + slice.unsent;
        ensure!(slice.messages > 0, "no message came back in a slice");
        let late = (slice.late + slice.unsent) as f64 / due as f64;
        ensure!(
            late <= LATE_MAX,
            "{:.1} % of the messages were sent late or not at all with hostile peers {}: the client was too slow",
            100.0 * late,
            slice.peers.name()
        );
        ensure!(
            slice.deeds.as_ref().is_none_or(Deeds::are_hostile),
            "the hostile peers were none: {:?}",
            slice.deeds
        );
    }
    Ok(())
}

/// The median over the slices of one kind.
fn median_of(slices: &[Slice], peers: Peers, value: fn(&Slice) -> f64) -> Option<f64> {
    median(slices.iter().filter(|one| one.peers == peers).map(value))
}

fn figures(slices: &[Slice]) -> Vec<Figure> {
    let p99 = |peers| median_of(slices, peers, |one| one.p99_us);
    let growth = |peers| Some(p99(peers)? / p99(Peers::Away)?);
    let lower = Better::Lower;
    let mut figures = vec![
        Figure::new("ws_hostile_p99_growth", growth(Peers::There), "ratio", lower)
            .floor(1.5)
            .note("p99 of well-behaved sessions with hostile ones beside them, by that without; medians of the slices"),
        Figure::new("ws_hostile_p99_growth_past", growth(Peers::Past), "ratio", lower)
            .note("the same with the hostile ones past the gateway: the client's part of it")
            .shown(),
    ];
    figures.extend(Peers::ALL.map(|peers| {
        let name = format!("ws_p99_peers_{}", peers.name());
        Figure::new(name, p99(peers), "us", lower).note("median of the slices")
    }));
    figures
}

/// One line for each kind of slice.
fn overview(slices: &[Slice]) -> String {
    let head = [
        "neighbours, median of slices",
        "p50 us",
        "p99 us",
        "CPU share",
        "MB",
        "s to forget",
    ];
    let row = |peers: Peers| {
        let show = |value: fn(&Slice) -> f64| {
            median_of(slices, peers, value).map_or("-".to_owned(), number)
        };
        vec![
            format!("hostile peers {}", peers.name()),
            show(|one| one.p50_us),
            show(|one| one.p99_us),
            show(|one| one.gateway_cpu_share),
            show(|one| one.gateway_own_bytes as f64 / 1e6),
            show(|one| one.forgotten_in_s),
        ]
    };
    let rows: Vec<_> = Peers::ALL.into_iter().map(row).collect();
    format!("{}\n", table(&head, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(peers: Peers, p99_us: f64) -> Slice {
        Slice {
            p99_us,
            messages: 1_000,
            ..Slice::of(peers, Record::default(), 0)
        }
    }

    #[test]
    fn growth_compares_the_medians_of_the_slices() {
        let slices = [
            slice(Peers::Away, 100.0),
            slice(Peers::There, 150.0),
            slice(Peers::Away, 100.0),
            slice(Peers::There, 150.0),
            slice(Peers::Away, 900.0),
            slice(Peers::There, 130.0),
        ];
        let figures = serde_json::to_value(figures(&slices)).unwrap();
        assert_eq!(figures[0]["value"], 1.5);
    }

    #[test]
    fn a_client_that_was_late_or_peers_that_did_nothing_make_the_run_invalid() {
        let late = |late, unsent| Slice {
            late,
            unsent,
            ..slice(Peers::Away, 1.0)
        };
        assert!(check(&[late(5, 5)]).is_ok());
        assert!(check(&[late(20, 0)]).is_err());
        assert!(check(&[late(0, 20)]).is_err());
        let idle = Slice {
            deeds: Some(Deeds::default()),
            ..slice(Peers::There, 1.0)
        };
        assert!(check(&[idle]).is_err());
    }
}
