//! `make bench-greens`: twelve ways for a new colour to be bad, each rolled out to 5 % of the tenants
//! first. Each has to be taken back by itself, before clients notice much of it.

use crate::app::{App, Fault};
use crate::bench::{self, Common};
use crate::client::{Load, Mix, Record, Settings};
use crate::report::{Better, Figure, Report, number, table};
use crate::site::{Site, Step, Wishes, plan};
use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Under load before the rollout begins.
const WARM_UP: Duration = Duration::from_secs(5);
/// How often a rollout is looked at; what is measured by looking is late by so much at most.
const LOOK: Duration = Duration::from_millis(25);
/// Longest rollout of a bad colour.
const LONGEST: Duration = Duration::from_secs(150);
/// Stages: percent, and seconds of observation. The second one is for who turns bad late.
const STAGES: [(f64, f64); 2] = [(5.0, 45.0), (25.0, 30.0)];
/// The same for who is to turn bad after the first one, which should not take so long.
const STAGES_SHORT: [(f64, f64); 2] = [(5.0, 8.0), (25.0, 30.0)];
/// The judges learn what the old colour is like before anybody is on the new one.
const BASELINE_S: f64 = 30.0;
const VERDICT_S: f64 = 30.0;
/// What is called hanging: the defaults would have clients wait for half a minute.
const TIMEOUTS: [&str; 2] = ["connect_timeout_ms = 250", "first_byte_timeout_ms = 1000"];
const BAKE_S: f64 = 30.0;

/// Arguments of `hub-loadtest greens`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// These bad colours only, by name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Requests a second.
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Seconds from the first bad answer over which failures are counted.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    window: u64,
    /// A line for the route, such as 'retry_other_colour = true'.
    #[arg(long)]
    route_option: Vec<String>,
    /// A line for the cluster.
    #[arg(long)]
    cluster_option: Vec<String>,
}

/// How soon a bad colour has to be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Class {
    /// By its gate, before any client.
    Gate,
    /// Within 2 s.
    Hard,
    /// By counting; within 30 s.
    Statistical,
}

/// When a colour turns bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    BeforeTheGate,
    AtTheFirstStage,
    /// So long after its first stage began.
    Later(Duration),
    AtTheSecondStage,
    InTheBake,
}

/// What turns bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bad {
    Answers(Fault),
    Dies,
    RestartsAgainAndAgain,
    Certificate,
}

/// A bad colour.
#[derive(Clone, Copy, Debug)]
struct Green {
    name: &'static str,
    bad: Bad,
    turn: Turn,
    class: Class,
}

/// The twelve of the list, and two more that turn bad where it hurts most.
const GREENS: [Green; 14] = [
    green("dead", Bad::Dies, Turn::BeforeTheGate, Class::Gate),
    green("dies", Bad::Dies, Turn::AtTheFirstStage, Class::Hard),
    green(
        "errors",
        Bad::Answers(Fault::Errors),
        Turn::BeforeTheGate,
        Class::Hard,
    ),
    green(
        "slow_p99",
        Bad::Answers(Fault::SlowTail),
        Turn::BeforeTheGate,
        Class::Statistical,
    ),
    green(
        "growing_latency",
        Bad::Answers(Fault::Growing),
        Turn::BeforeTheGate,
        Class::Statistical,
    ),
    green(
        "wrong_body",
        Bad::Answers(Fault::WrongBody),
        Turn::BeforeTheGate,
        Class::Gate,
    ),
    green(
        "hangs",
        Bad::Answers(Fault::Hangs),
        Turn::Later(Duration::from_secs(10)),
        Class::Hard,
    ),
    green(
        "refuses_websocket",
        Bad::Answers(Fault::RefusesWebSocket),
        Turn::BeforeTheGate,
        Class::Statistical,
    ),
    green(
        "bad_tls",
        Bad::Certificate,
        Turn::BeforeTheGate,
        Class::Gate,
    ),
    green(
        "flapping",
        Bad::Answers(Fault::Flapping),
        Turn::AtTheFirstStage,
        Class::Hard,
    ),
    green(
        "one_tenant",
        Bad::Answers(Fault::OneTenant),
        Turn::BeforeTheGate,
        Class::Statistical,
    ),
    green(
        "good_then_bad",
        Bad::Answers(Fault::Errors),
        Turn::AtTheSecondStage,
        Class::Hard,
    ),
    green(
        "bad_in_bake",
        Bad::Answers(Fault::Errors),
        Turn::InTheBake,
        Class::Hard,
    ),
    green(
        "startup_loop",
        Bad::RestartsAgainAndAgain,
        Turn::BeforeTheGate,
        Class::Hard,
    ),
];

const fn green(name: &'static str, bad: Bad, turn: Turn, class: Class) -> Green {
    Green {
        name,
        bad,
        turn,
        class,
    }
}

/// What came of a bad colour.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    class: Class,
    /// How the rollout ended, where traffic was when it turned, and the judges' reason.
    phase: String,
    left_in: Option<String>,
    why: String,
    /// From the first bad answer until the routing was back.
    back_s: Option<f64>,
    /// In the window from the first bad answer.
    requests: usize,
    failed: usize,
    failed_idempotent: usize,
    failed_post: usize,
    failures: Vec<String>,
    unsent: u64,
    /// Requests that the bad colour answered though they were due when the routing was back.
    stray: usize,
    steps: Vec<Step>,
    judges: Vec<String>,
}

impl Args {
    pub(crate) fn time_max(&self) -> Duration {
        (LONGEST + Duration::from_secs(self.window + 60)) * GREENS.len() as u32
    }
}

pub(crate) async fn run(args: Args) -> Result<()> {
    bench::prepare()?;
    let wanted =
        |one: &&Green| args.only.is_empty() || args.only.iter().any(|name| name == one.name);
    let greens: Vec<&Green> = GREENS.iter().filter(wanted).collect();
    let names: Vec<&str> = GREENS.iter().map(|green| green.name).collect();
    ensure!(
        !greens.is_empty(),
        "--only names none of {}",
        names.join(", ")
    );
    let mut outcomes = Vec::new();
    for (number, green) in (1..).zip(&greens) {
        let outcome = measure(&args, green).await?;
        println!(
            "{number}/{} {:<18} {} in {} s, {} of {} failed: {}",
            greens.len(),
            outcome.name,
            outcome.phase,
            outcome.back_s.map_or_else(|| "-".to_owned(), number_text),
            outcome.failed,
            outcome.requests,
            outcome.why
        );
        outcomes.push(outcome);
    }
    let report = Report::new("greens", figures(&outcomes), json!({ "greens": outcomes }));
    report.finish(&args.common.reports_dir, &overview(&outcomes))?;
    let missed = report.missed();
    ensure!(missed.is_empty(), "floors missed: {}", missed.join(", "));
    Ok(())
}

fn number_text(value: f64) -> String {
    number(value)
}

async fn measure(args: &Args, green: &Green) -> Result<Outcome> {
    let wishes = Wishes {
        tls: (green.bad == Bad::Certificate).then_some(false),
        route: args.route_option.clone(),
        cluster: TIMEOUTS
            .iter()
            .map(ToString::to_string)
            .chain(args.cluster_option.iter().cloned())
            .collect(),
    };
    let site = Site::start(&args.common.bin_dir, &wishes).await?;
    let load = Load::start(Settings {
        rate: args.rate,
        mix: Mix::greens(),
        ..Settings::new(site.target.clone(), site.tenants.clone())
    });
    tokio::time::sleep(WARM_UP).await;
    if green.turn == Turn::BeforeTheGate {
        green.bad.begin(&site.green);
    }
    let late = matches!(green.turn, Turn::AtTheSecondStage | Turn::InTheBake);
    let stages = match late {
        true => &STAGES_SHORT[..],
        false => &STAGES[..],
    };
    let stages = match green.turn {
        Turn::InTheBake => &stages[..1],
        _ => stages,
    };
    site.start_rollout(&plan(stages, BASELINE_S, VERDICT_S, BAKE_S, 100))
        .await?;
    let seen = watch(&site, green).await?;
    let first_bad = site.green.first_bad();
    let until = first_bad.unwrap_or_else(Instant::now) + Duration::from_secs(args.window);
    if first_bad.is_some() {
        tokio::time::sleep_until(until.into()).await;
    }
    let steps = site.steps(&seen.last).await?;
    let began = load.began();
    let record = load.stop().await;
    let since = |at: Instant| at.saturating_duration_since(began);
    // A colour that cannot be reached does not know whom it failed.
    let failures = record.done.iter().filter(|one| one.has_failed());
    let first_failure = failures.map(|one| began + one.ended()).min();
    let first_bad = first_bad.into_iter().chain(first_failure).min();
    let stray = seen.back.map_or(0, |back| stray(&record, since(back)));
    site.end().await?;
    let mut outcome = Outcome {
        name: green.name,
        class: green.class,
        phase: seen.last["phase"].as_str().unwrap_or("?").to_owned(),
        left_in: seen.left_in,
        why: seen.last["why"].as_str().unwrap_or("-").to_owned(),
        back_s: first_bad
            .zip(seen.back)
            .map(|(bad, back)| back.saturating_duration_since(bad).as_secs_f64()),
        requests: 0,
        failed: 0,
        failed_idempotent: 0,
        failed_post: 0,
        failures: record
            .why
            .iter()
            .map(|(why, n)| format!("{why} ({n})"))
            .collect(),
        unsent: record.unsent,
        stray,
        steps,
        judges: seen.judges,
    };
    let from = first_bad.map_or(Duration::ZERO, since);
    outcome.count(&record, from, Duration::from_secs(args.window));
    Ok(outcome)
}

/// What a rollout showed while it was followed.
#[derive(Debug)]
struct Seen {
    last: Value,
    /// First look at which all clients were on the old colour again.
    back: Option<Instant>,
    /// The phase that it went back from.
    left_in: Option<String>,
    judges: Vec<String>,
}

/// Follows a rollout to its end, and turns its colour bad when its time comes.
async fn watch(site: &Site, green: &Green) -> Result<Seen> {
    let mut turned = green.turn == Turn::BeforeTheGate;
    let mut canary_since: Option<Instant> = None;
    let mut moved = false;
    let mut seen = Seen {
        last: Value::Null,
        back: None,
        left_in: None,
        judges: Vec::new(),
    };
    let last = site
        .follow(LOOK, LONGEST, |rollout| {
            let (phase, stage) = (rollout["phase"].as_str().unwrap_or("?"), &rollout["stage"]);
            if phase == "canary" {
                canary_since.get_or_insert_with(Instant::now);
            }
            let due = match green.turn {
                Turn::BeforeTheGate => false,
                Turn::AtTheFirstStage => phase == "canary",
                Turn::Later(time) => canary_since.is_some_and(|since| since.elapsed() >= time),
                Turn::AtTheSecondStage => stage == 2,
                Turn::InTheBake => phase == "bake",
            };
            if due && !turned {
                turned = true;
                green.bad.begin(&site.green);
            }
            let on_green = rollout["active"] == "green" || !rollout["canary_percent"].is_null();
            moved |= on_green;
            if moved && !on_green && seen.back.is_none() {
                seen.back = Some(Instant::now());
            }
            if on_green {
                seen.left_in = Some(match stage.as_u64() {
                    Some(stage) => format!("{phase} {stage}"),
                    None => phase.to_owned(),
                });
            }
            if let Some(judges) = rollout["judges"].as_array().filter(|one| !one.is_empty()) {
                seen.judges = judges.iter().map(ToString::to_string).collect();
            }
        })
        .await?;
    seen.last = last;
    Ok(seen)
}

/// Requests that were due when the routing was back, and had their answer from the colour that was left.
fn stray(record: &Record, back: Duration) -> usize {
    let all = record.done.iter();
    all.filter(|one| one.green && one.due() >= back).count()
}

// === impl Bad ===

impl Bad {
    fn begin(self, green: &App) {
        match self {
            Self::Answers(fault) => green.be(fault),
            Self::Dies => green.die(),
            Self::RestartsAgainAndAgain => green.restart_again_and_again(),
            // From the start.
            Self::Certificate => {}
        }
    }
}

// === impl Class ===

impl Class {
    /// Longest time, in seconds, until traffic is back.
    fn back_s_max(self) -> f64 {
        match self {
            // One that its gate should have caught has no time at all, but to be measured.
            Self::Gate | Self::Hard => 2.0,
            Self::Statistical => 30.0,
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Counts the requests that ended within the window.
    fn count(&mut self, record: &Record, from: Duration, window: Duration) {
        let until = from + window;
        let within = record.done.iter();
        let within = within.filter(|one| (from..until).contains(&one.ended()));
        for one in within {
            self.requests += 1;
            if one.has_failed() {
                self.failed += 1;
                self.failed_idempotent += usize::from(one.kind.is_idempotent());
                self.failed_post += usize::from(one.kind.is_post());
            }
        }
    }

    fn failed_percent(&self) -> f64 {
        self.failed as f64 / self.requests.max(1) as f64 * 100.0
    }

    /// It never got a client, and the rollout says so.
    fn failed_its_gate(&self) -> bool {
        self.phase == "rolled_back" && self.left_in.is_none()
    }
}

fn figures(outcomes: &[Outcome]) -> Vec<Figure> {
    let lower = Better::Lower;
    let mut figures = Vec::new();
    for one in outcomes {
        let name = |what: &str| format!("{}.{what}", one.name);
        let rolled_back = f64::from(u8::from(one.phase == "rolled_back"));
        figures.push(
            Figure::new(name("rolled_back"), Some(rolled_back), "", Better::Higher)
                .floor(1.0)
                .note(one.why.clone()),
        );
        if one.failed_its_gate() {
            figures.push(
                Figure::new(name("failed"), Some(one.failed as f64), "requests", lower)
                    .floor(0.0)
                    .note("its gate did not open, so no client may notice anything"),
            );
            continue;
        }
        figures.extend([
            Figure::new(name("back_time"), one.back_s, "s", lower)
                .floor(one.class.back_s_max())
                .note("from the first bad answer to the routing being back"),
            Figure::new(name("failed_share"), Some(one.failed_percent()), "%", lower)
                .floor(0.5)
                .note(format!(
                    "of {} in the window; {}",
                    one.requests,
                    one.failures.join(", ")
                )),
            Figure::new(
                name("failed_idempotent"),
                Some(one.failed_idempotent as f64),
                "requests",
                lower,
            )
            .floor(0.0),
            Figure::new(name("unsent"), Some(one.unsent as f64), "requests", lower).floor(0.0),
            Figure::new(name("stray"), Some(one.stray as f64), "requests", lower)
                .floor(0.0)
                .note("answered by the bad colour though they were due when the routing was back"),
        ]);
    }
    figures
}

fn overview(outcomes: &[Outcome]) -> String {
    let head = [
        "bad green",
        "ended",
        "left in",
        "back s",
        "floor",
        "failed",
        "of",
        "%",
        "idempotent",
        "POST",
    ];
    let row = |one: &Outcome| {
        let at_gate = one.failed_its_gate();
        vec![
            one.name.to_owned(),
            one.phase.clone(),
            one.left_in.clone().unwrap_or_else(|| "gate".to_owned()),
            one.back_s.map_or_else(|| "-".to_owned(), number),
            match at_gate {
                true => "-".to_owned(),
                false => number(one.class.back_s_max()),
            },
            one.failed.to_string(),
            one.requests.to_string(),
            number(one.failed_percent()),
            one.failed_idempotent.to_string(),
            one.failed_post.to_string(),
        ]
    };
    let mut text = table(&head, &outcomes.iter().map(row).collect::<Vec<_>>());
    text.push('\n');
    for one in outcomes {
        text += &format!("{}: {}\n", one.name, one.why);
    }
    text + "\n"
}
