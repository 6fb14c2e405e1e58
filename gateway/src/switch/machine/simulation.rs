//! Rollouts in a world that crashes, forgets, answers late and has operators: seeds by the thousand.
//!
//! The world keeps its own books of what is true (which colour passed, which is gone, what requests see)
//! and compares them with what the machine makes of it. `HUB_SIMULATE_SEEDS` says how many seeds.

macro_rules! must {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(Broken(format!($($text)*)));
        }
    };
}

mod databases;

use super::super::plan::WHOLE as WHOLE_SHARE;
use super::super::schema::{fits, may_contract};
use super::*;
use databases::{Databases, Fits, MayContract};
use hub_store::{Step as MigrationStep, StepState};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Step = fn(&Record, &Event, Micros) -> Result<Decision, Refused>;
type Recover = fn(&Record, Micros) -> Option<Decision>;

const SECOND: Micros = 1_000_000;
const TENANTS: u16 = 40;

/// What is simulated: the machine as it is, or with a bug.
#[derive(Clone, Copy)]
struct Subject {
    step: Step,
    recover: Recover,
    /// The driver acts before the record is on disk.
    acts_first: bool,
    /// The driver serves by the configured colour after a restart, whatever the record says.
    forgets_routing: bool,
    /// The driver hears answers of rollouts that are over.
    hears_the_past: bool,
    /// What the fence asks before a colour is rolled out.
    fits: Fits,
    /// What it asks before a contract step runs.
    may_contract: MayContract,
}

const REAL: Subject = Subject {
    step,
    recover,
    acts_first: false,
    forgets_routing: false,
    hears_the_past: false,
    fits,
    may_contract,
};

/// What seeds went through together.
#[derive(Default)]
struct Coverage {
    edges: BTreeMap<(Name, Name), u64>,
    crashes: u64,
    requests: u64,
    contracts: u64,
    contracts_by_hand: u64,
}

/// Every way from one phase to another, or to itself with something changed.
const EDGES: &[(Name, Name)] = {
    use Name::{
        Bake, Canary, Committed, Frozen, Gate, Idle, Preparing, RolledBack, RollingBack, Switched,
    };
    &[
        (Idle, Preparing),
        (Committed, Preparing),
        (RolledBack, Preparing),
        (Preparing, Gate),
        (Preparing, RolledBack),
        (Gate, Canary),
        (Gate, Switched),
        (Gate, RolledBack),
        // After a restart.
        (Gate, Preparing),
        (Canary, Canary),
        (Canary, Switched),
        (Canary, RollingBack),
        (Canary, Frozen),
        (Switched, Bake),
        (Switched, RollingBack),
        (Switched, Frozen),
        (Bake, Committed),
        (Bake, RollingBack),
        (Bake, Frozen),
        (RollingBack, RolledBack),
        (RollingBack, Frozen),
        (Frozen, Committed),
        (Frozen, RollingBack),
    ]
};

struct World {
    rng: SmallRng,
    subject: Subject,
    now: Micros,
    /// What is on disk.
    disk: Record,
    /// What the process believes; `None` while it is down.
    process: Option<Record>,
    /// What requests go by.
    routing: Routing,
    epoch: u64,
    /// Answers that are on their way to the process, each of a rollout.
    answers: Vec<(Micros, u64, Event)>,
    /// Counts rollouts.
    rollout: u64,
    watching: bool,
    /// Nothing crashes: what ends only because of a restart does not end.
    calm: bool,
    /// Books of the world.
    gate_passed: BTreeSet<Colour>,
    gone: BTreeSet<Colour>,
    good: Colour,
    bad: bool,
    failed: Option<Colour>,
    tenants: BTreeMap<u16, Colour>,
    epochs: Vec<u64>,
    databases: Databases,
}

#[derive(Debug)]
struct Broken(String);

impl World {
    fn new(seed: u64, subject: Subject) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let active = if rng.random() {
            Colour::Blue
        } else {
            Colour::Green
        };
        let disk = Record::idle(active);
        Self {
            subject,
            now: 1_700_000_000 * SECOND,
            process: Some(disk.clone()),
            routing: disk.routing.clone(),
            epoch: 0,
            disk,
            answers: Vec::new(),
            rollout: 0,
            watching: false,
            calm: false,
            gate_passed: [active].into(),
            gone: BTreeSet::new(),
            good: active,
            bad: false,
            failed: None,
            tenants: BTreeMap::new(),
            epochs: vec![0],
            databases: Databases::new(),
            rng,
        }
    }

    fn run(&mut self, coverage: &mut Coverage) -> Result<(), Broken> {
        for _ in 0..3 {
            self.bad = self.rng.random_bool(0.4);
            self.failed = None;
            self.tenants.clear();
            let plan = self.plan();
            self.deploy(self.disk.routing.active.other());
            self.tell(&Event::Start(plan), coverage)?;
            let busy = self.rng.random_range(0..60);
            for _ in 0..busy {
                self.happen(coverage, true)?;
            }
            // Left alone, it ends. Each phase lasts at most its deadlines, so this is plenty.
            self.calm = true;
            let patience = self.now + 40_000 * SECOND;
            while !self.disk.phase.is_over() {
                must!(
                    self.now < patience,
                    "it never ends in {}",
                    self.disk.phase.name()
                );
                self.happen(coverage, false)?;
            }
            self.calm = false;
            self.settle(coverage)?;
            for _ in 0..self.rng.random_range(0..6) {
                self.now += self.rng.random_range(1..20 * SECOND);
                self.migrate(coverage)?;
            }
        }
        Ok(())
    }

    fn plan(&mut self) -> Plan {
        let mut shares: Vec<u16> = (0..self.rng.random_range(0..4))
            .map(|_| self.rng.random_range(1..WHOLE_SHARE))
            .collect();
        shares.sort_unstable();
        shares.dedup();
        let ring: Arc<BTreeSet<String>> = Arc::new(["t1".to_owned()].into());
        let stages = shares
            .into_iter()
            .map(|share| Stage {
                share,
                ring: Arc::clone(&ring),
                observe_us: self.rng.random_range(0..30) * SECOND,
            })
            .collect();
        Plan {
            stages,
            bake_us: self.rng.random_range(0..100) * SECOND,
            ..Plan::default()
        }
    }

    /// After the end of a rollout the books agree with the record.
    fn settle(&mut self, coverage: &mut Coverage) -> Result<(), Broken> {
        if self.process.is_none() {
            self.restart(coverage)?;
        }
        self.requests(coverage)?;
        let phase = self.disk.phase.name();
        if let Some(colour) = self.failed {
            must!(
                phase == Name::Frozen || !self.routing.reaches(colour),
                "{colour:?} failed and still gets requests in {phase}"
            );
        }
        if phase == Name::Frozen {
            let event = if self.rng.random() {
                Event::Accept
            } else {
                Event::Abort
            };
            if self.tell(&event, coverage)? && event == Event::Accept {
                self.failed = None;
            }
            let patience = self.now + 40_000 * SECOND;
            while !self.disk.phase.is_over() && self.now < patience {
                self.happen(coverage, false)?;
            }
            // A crash may take the operator's word with it.
            for _ in 0..20 {
                if self.process.is_none() {
                    self.restart(coverage)?;
                }
                if self.disk.phase.name() == Name::Frozen {
                    self.tell(&Event::Accept, coverage)?;
                }
            }
            must!(self.disk.phase.name() != Name::Frozen, "nobody can thaw it");
        }
        Ok(())
    }

    /// One thing happens.
    fn happen(&mut self, coverage: &mut Coverage, busy: bool) -> Result<(), Broken> {
        self.now += self.rng.random_range(1..5_000_000);
        if self.process.is_none() {
            return self.restart(coverage);
        }
        match self.rng.random_range(0..100) {
            0..=1 if !self.calm => {
                self.crash(coverage);
                Ok(())
            }
            2..=9 if busy => {
                let event = [
                    Event::Pause,
                    Event::Resume,
                    Event::Promote,
                    Event::Abort,
                    Event::Contracted,
                    Event::Accept,
                    // From a routing of long ago.
                    Event::Pass {
                        epoch: self.epoch.saturating_sub(1),
                    },
                    Event::Fail {
                        epoch: self.epoch.saturating_sub(1),
                        why: "long ago".into(),
                    },
                ][self.rng.random_range(0..8)]
                .clone();
                self.tell(&event, coverage)?;
                Ok(())
            }
            10..=17 => self.requests(coverage),
            18..=24 => self.migrate(coverage),
            25..=34 if !busy && self.disk.paused => {
                self.tell(&Event::Resume, coverage)?;
                Ok(())
            }
            35..=54 if self.watching => {
                // A bad colour is found out, now or later; a good one is only rarely taken for bad.
                let epoch = self.epoch;
                let fails = if self.bad { 0.5 } else { 0.02 };
                let event = if self.rng.random_bool(fails) {
                    Event::Fail {
                        epoch,
                        why: "5xx: 9 of 10".into(),
                    }
                } else {
                    Event::Pass { epoch }
                };
                self.tell(&event, coverage)?;
                Ok(())
            }
            55..=84 => {
                let due = self.answers.iter().position(|(at, ..)| *at <= self.now);
                if let Some(at) = due {
                    let (_, rollout, event) = self.answers.swap_remove(at);
                    if rollout == self.rollout || self.subject.hears_the_past {
                        self.tell(&event, coverage)?;
                    }
                }
                Ok(())
            }
            _ => {
                self.tell(&Event::Tick, coverage)?;
                Ok(())
            }
        }
    }

    /// Tells the process of an event. True where it changed something.
    fn tell(&mut self, event: &Event, coverage: &mut Coverage) -> Result<bool, Broken> {
        let Some(record) = self.process.clone() else {
            return Ok(false);
        };
        let Ok(decision) = (self.subject.step)(&record, event, self.now) else {
            return Ok(false);
        };
        let version = decision.record.version;
        if matches!(event, Event::Start(_)) {
            self.rollout += 1;
        }
        if *event == Event::Prepared {
            self.gone.remove(&record.to);
        }
        self.carry_out(&record, decision, coverage)?;
        if self.disk.version < version {
            // The crash came before it was on disk: it never happened.
            return Ok(false);
        }
        match event {
            Event::Fail { epoch, .. } if *epoch == record.epoch && !record.contracted => {
                self.failed = Some(record.to);
            }
            Event::Accept => {
                self.failed = None;
                // The operator's word moves tenants as it likes.
                self.tenants.clear();
            }
            _ => {}
        }
        Ok(true)
    }

    /// Persists a decision and acts on it, or crashes on the way.
    fn carry_out(
        &mut self,
        before: &Record,
        decision: Decision,
        coverage: &mut Coverage,
    ) -> Result<(), Broken> {
        let edge = (before.phase.name(), decision.record.phase.name());
        if edge.0 != edge.1 || edge.0 == Name::Canary {
            must!(
                EDGES.contains(&edge),
                "no way leads from {} to {}",
                edge.0,
                edge.1
            );
        }
        must!(
            decision.record.version == before.version + 1,
            "version {} follows {}",
            decision.record.version,
            before.version
        );
        must!(
            (decision.record.routing != before.routing)
                <= (decision.record.epoch == before.epoch + 1),
            "the routing changed and the epoch did not"
        );
        must!(
            !before.contracted || edge.0 == Name::RollingBack || edge.1 != Name::RollingBack,
            "traffic goes back behind a contract step"
        );
        if self.subject.acts_first {
            for action in decision.actions.clone() {
                self.act(&decision.record, &action)?;
            }
        }
        if !self.calm && self.rng.random_bool(0.01) {
            self.crash(coverage);
            return Ok(());
        }
        // On disk: from here on it counts.
        *coverage.edges.entry(edge).or_default() += 1;
        self.disk = decision.record.clone();
        if decision.record.phase.name() == Name::Committed {
            self.good = decision.record.routing.active;
            must!(
                self.databases.carries(self.good),
                "{:?} is the colour, and cannot run on the schema",
                self.good
            );
        }
        if !self.calm && self.rng.random_bool(0.01) {
            self.crash(coverage);
            return Ok(());
        }
        self.process = Some(decision.record.clone());
        let record = decision.record.clone();
        let receipt = Durable::version(record.version);
        for action in decision.actions(&receipt) {
            self.act(&record, &action)?;
            if !self.calm && self.rng.random_bool(0.005) {
                self.crash(coverage);
                return Ok(());
            }
        }
        Ok(())
    }

    fn act(&mut self, record: &Record, action: &Action) -> Result<(), Broken> {
        let later = self.now + self.rng.random_range(0..8 * SECOND);
        match action {
            Action::Prepare(colour) => {
                let event = match self.fence_admits(*colour) {
                    Ok(()) if self.rng.random_bool(0.9) => Event::Prepared,
                    Ok(()) => Event::PrepareFailed("no endpoint".into()),
                    Err(why) => Event::PrepareFailed(why),
                };
                self.answer(later, event);
            }
            Action::Gate(colour) => {
                if self.rng.random_bool(0.85) {
                    self.gate_passed.insert(*colour);
                    self.answer(later, Event::GatePassed);
                } else {
                    self.gate_passed.remove(colour);
                    self.answer(later, Event::GateFailed("probe answered 500".into()));
                }
            }
            Action::Apply => {
                must!(
                    self.disk.version >= record.version,
                    "routing came into force before it was on disk"
                );
                self.put_in_force(record)?;
                let epoch = record.epoch;
                self.answer(later, Event::Applied { epoch });
            }
            Action::Watch => self.watching = true,
            Action::StopWatching => self.watching = false,
            Action::AwaitDrain(colour) => {
                if self.rng.random_bool(0.9) {
                    let event = Event::Drained {
                        epoch: record.epoch,
                        colour: *colour,
                    };
                    self.answer(later, event);
                }
            }
            Action::Release(colour) => {
                must!(*colour != self.good, "the last good colour was let go");
                must!(
                    !self.routing.reaches(*colour) || record.phase.name() == Name::Committed,
                    "a colour was let go while it gets requests in {}",
                    record.phase.name()
                );
                self.gone.insert(*colour);
                self.gate_passed.remove(colour);
            }
        }
        Ok(())
    }

    fn put_in_force(&mut self, record: &Record) -> Result<(), Broken> {
        let last = self.epochs.last().copied().unwrap_or(0);
        must!(record.epoch >= last, "epoch {} after {last}", record.epoch);
        self.epochs.push(record.epoch);
        self.activates(|colour| record.routing.reaches(colour))?;
        self.epoch = record.epoch;
        self.routing = record.routing.clone();
        Ok(())
    }

    fn answer(&mut self, at: Micros, event: Event) {
        // Some answers get lost.
        if self.rng.random_bool(0.95) {
            self.answers.push((at, self.rollout, event));
        }
    }

    /// A few requests come.
    fn requests(&mut self, coverage: &mut Coverage) -> Result<(), Broken> {
        let forward = matches!(
            self.disk.phase.name(),
            Name::Gate | Name::Canary | Name::Switched | Name::Bake | Name::Committed
        );
        let judged = matches!(
            self.disk.phase.name(),
            Name::Canary | Name::Switched | Name::Bake
        );
        must!(
            self.process.is_none() || self.watching || !judged,
            "no judge watches in {}",
            self.disk.phase.name()
        );
        for _ in 0..5 {
            coverage.requests += 1;
            let tenant = self.rng.random_range(0..TENANTS);
            let place = tenant * (WHOLE_SHARE / TENANTS);
            let colour = self.routing.colour(Some(&format!("t{tenant}")), place);
            must!(
                !self.gone.contains(&colour),
                "a request went to {colour:?}, which is gone"
            );
            must!(
                self.gate_passed.contains(&colour),
                "a request went to {colour:?}, which passed no gate"
            );
            let before = self.tenants.insert(tenant, colour);
            must!(
                !forward || before.is_none_or(|before| before == colour || colour == self.disk.to),
                "a tenant went back in {}",
                self.disk.phase.name()
            );
        }
        Ok(())
    }

    fn crash(&mut self, coverage: &mut Coverage) {
        coverage.crashes += 1;
        self.process = None;
        self.watching = false;
        self.answers.clear();
        self.databases.cut();
    }

    fn restart(&mut self, coverage: &mut Coverage) -> Result<(), Broken> {
        let record = self.disk.clone();
        if !self.subject.forgets_routing {
            self.put_in_force(&record)?;
        } else {
            self.routing = Routing::all(Colour::Blue);
        }
        self.process = Some(record.clone());
        if let Some(decision) = (self.subject.recover)(&record, self.now) {
            self.carry_out(&record, decision, coverage)?;
        }
        Ok(())
    }
}

/// Seeds until one breaks an invariant.
fn first_broken(subject: Subject, seeds: u64, coverage: &mut Coverage) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| {
        let broken = World::new(seed, subject).run(coverage).err()?;
        Some((seed, broken.0))
    })
}

#[test]
fn thousands_of_rollouts_keep_every_invariant() {
    let seeds = std::env::var("HUB_SIMULATE_SEEDS").ok();
    let seeds = seeds.map_or(10_000, |text| text.parse().expect("a number of seeds"));
    let mut coverage = Coverage::default();
    let broken = first_broken(REAL, seeds, &mut coverage);
    assert_eq!(broken, None, "seed and invariant");
    let seen: BTreeSet<_> = coverage
        .edges
        .keys()
        .copied()
        .filter(|(a, b)| a != b || *a == Name::Canary)
        .collect();
    let known: BTreeSet<_> = EDGES.iter().copied().collect();
    let states: BTreeSet<Name> = seen.iter().flat_map(|(a, b)| [*a, *b]).collect();
    println!(
        "{seeds} seeds, {} crashes, {} requests, {} contract steps and {} by hand; states {} of {}, transitions {} of {}",
        coverage.crashes,
        coverage.requests,
        coverage.contracts,
        coverage.contracts_by_hand,
        states.len(),
        Name::ALL.len(),
        seen.len(),
        known.len(),
    );
    for ((from, to), count) in &coverage.edges {
        println!("  {from} -> {to}: {count}");
    }
    assert_eq!(
        seen, known,
        "transitions that no seed took, or that nobody knows"
    );
}

#[test]
fn every_planted_bug_is_caught() {
    for (name, subject) in PLANTED {
        let mut coverage = Coverage::default();
        let found = first_broken(*subject, 10_000, &mut coverage);
        let (seed, broken) = found.unwrap_or_else(|| panic!("{name}: no seed of 10000 catches it"));
        println!("{name}: seed {seed}, {broken}");
    }
}

/// The real machine's decision with its record changed.
fn with_record(
    decision: Result<Decision, Refused>,
    change: impl FnOnce(&mut Record),
) -> Result<Decision, Refused> {
    decision.map(|mut decision| {
        change(&mut decision.record);
        decision
    })
}

fn with_actions(
    decision: Result<Decision, Refused>,
    change: impl FnOnce(&Record, &mut Vec<Action>),
) -> Result<Decision, Refused> {
    decision.map(|mut decision| {
        change(&decision.record, &mut decision.actions);
        decision
    })
}

const PLANTED: &[(&str, Subject)] = &[
    (
        "the driver acts before the record is on disk",
        Subject {
            acts_first: true,
            ..REAL
        },
    ),
    (
        "a restart goes by the configured colour",
        Subject {
            forgets_routing: true,
            ..REAL
        },
    ),
    (
        "the driver hears answers of rollouts that are over",
        Subject {
            hears_the_past: true,
            ..REAL
        },
    ),
    (
        "a failed gate is taken for a passed one",
        Subject {
            step: |record, event, now| match event {
                Event::GateFailed(_) => step(record, &Event::GatePassed, now),
                _ => step(record, event, now),
            },
            ..REAL
        },
    ),
    (
        "the gate is left out",
        Subject {
            step: |record, event, now| match event {
                Event::Prepared if record.phase.name() == Name::Preparing => {
                    Ok(forward(record, 0, now))
                }
                _ => step(record, event, now),
            },
            ..REAL
        },
    ),
    (
        "a commit lets the new colour go",
        Subject {
            step: |record, event, now| {
                with_actions(step(record, event, now), |record, actions| {
                    if record.phase.name() == Name::Committed {
                        actions.iter_mut().for_each(|action| {
                            if let Action::Release(colour) = action {
                                *colour = colour.other();
                            }
                        });
                    }
                })
            },
            ..REAL
        },
    ),
    (
        "the old colour is let go before the bake is over",
        Subject {
            step: |record, event, now| {
                with_actions(step(record, event, now), |record, actions| {
                    if record.phase.name() == Name::Bake {
                        actions.push(Action::Release(record.from));
                    }
                })
            },
            ..REAL
        },
    ),
    (
        "routing changes without a new epoch",
        Subject {
            step: |record, event, now| {
                with_record(step(record, event, now), |next| next.epoch = record.epoch)
            },
            ..REAL
        },
    ),
    (
        "a failure during the bake is not heard",
        Subject {
            step: |record, event, now| match event {
                Event::Fail { .. } if record.phase.name() == Name::Bake => {
                    Ok(decide(record.next(record.phase.clone()), []))
                }
                _ => step(record, event, now),
            },
            ..REAL
        },
    ),
    (
        "a pause holds back a rollback",
        Subject {
            step: |record, event, now| match event {
                Event::Fail { .. } if record.paused => {
                    Ok(decide(record.next(record.phase.clone()), []))
                }
                _ => step(record, event, now),
            },
            ..REAL
        },
    ),
    (
        "traffic goes back behind a contract step",
        Subject {
            step: |record, event, now| {
                let blind = Record {
                    contracted: false,
                    ..record.clone()
                };
                match event {
                    Event::Fail { .. } | Event::Abort => step(&blind, event, now),
                    _ => step(record, event, now),
                }
            },
            ..REAL
        },
    ),
    (
        "the gate has no deadline",
        Subject {
            step: |record, event, now| match event {
                Event::Tick if record.phase.name() == Name::Gate => Err(Refused::Stale),
                _ => step(record, event, now),
            },
            ..REAL
        },
    ),
    (
        "going back has no deadline",
        Subject {
            step: |record, event, now| match event {
                Event::Tick if record.phase.name() == Name::RollingBack => Err(Refused::Stale),
                _ => step(record, event, now),
            },
            ..REAL
        },
    ),
    (
        "a restart forgets what was under way",
        Subject {
            recover: |_, _| None,
            ..REAL
        },
    ),
    (
        "a stage takes tenants back",
        Subject {
            step: |record, event, now| {
                with_record(step(record, event, now), |next| {
                    if let (Phase::Canary { stage: 1.., .. }, Some(canary)) =
                        (&next.phase, &mut next.routing.canary)
                    {
                        canary.share /= 16;
                    }
                })
            },
            ..REAL
        },
    ),
    (
        "a failure moves everyone to the new colour",
        Subject {
            step: |record, event, now| {
                with_record(step(record, event, now), |next| {
                    if next.phase.name() == Name::RollingBack {
                        next.routing = Routing::all(next.to);
                    }
                })
            },
            ..REAL
        },
    ),
    (
        "the fence asks nothing of a colour",
        Subject {
            fits: |_, _, _| Ok(()),
            ..REAL
        },
    ),
    (
        "the fence overlooks steps that are running",
        Subject {
            fits: |scope, range, steps| {
                let ended = steps.iter().filter(|step| step.state != StepState::Running);
                let ended: Vec<MigrationStep> = ended.cloned().collect();
                fits(scope, range, &ended)
            },
            ..REAL
        },
    ),
    (
        "a contract step runs while a rollout is under way",
        Subject {
            may_contract: |number, record, range, busy, kept| {
                let over = record.next(Phase::Committed);
                may_contract(number, &over, range, busy, kept)
            },
            ..REAL
        },
    ),
    (
        "a contract step runs while requests hang on the old colour",
        Subject {
            may_contract: |number, record, range, _, kept| {
                may_contract(number, record, range, 0, kept)
            },
            ..REAL
        },
    ),
    (
        "a contract step takes away what the active colour needs",
        Subject {
            may_contract: |_, record, range, busy, kept| {
                may_contract(range.max, record, range, busy, kept)
            },
            ..REAL
        },
    ),
    (
        "a frozen rollout behind a contract step goes to the colour of most tenants",
        Subject {
            step: |record, event, now| match event {
                Event::Accept => {
                    let blind = Record {
                        contracted: false,
                        ..record.clone()
                    };
                    step(&blind, event, now)
                }
                _ => step(record, event, now),
            },
            ..REAL
        },
    ),
    (
        "a frozen rollout cannot be accepted",
        Subject {
            step: |record, event, now| match event {
                Event::Accept => Err(Refused::NotFrozen),
                _ => step(record, event, now),
            },
            ..REAL
        },
    ),
];
