//! The simulated world's database: what it really has, what the ledger says of it, which schema each
//! colour's release can run on, and an operator who migrates it at any time that the fence lets him.
//!
//! The world judges by what the database really has; the fence knows the ledger alone.

use super::{Broken, Coverage, World};
use crate::switch::machine::{Event, Name, Record};
use crate::switch::schema::{Barred, Misfit};
use hub_config::runtime::{Colour, SchemaRange};
use hub_store::{Kind, Step, StepState};
use rand::Rng;
use std::collections::BTreeMap;
use uuid::Uuid;

pub(super) type Fits = fn(&str, SchemaRange, &[Step]) -> Result<(), Misfit>;
pub(super) type MayContract =
    fn(u32, &Record, SchemaRange, usize, Option<&str>) -> Result<(), Barred>;

/// Longest time that a request hangs on a colour that was left.
const HANG_US: i64 = 60_000_000;

pub(super) struct Databases {
    /// As the ledger has them; all but the last are applied.
    steps: Vec<Step>,
    /// What is really in force.
    truth: Vec<Kind>,
    ranges: BTreeMap<Colour, SchemaRange>,
    /// Until when requests are on a colour that the routing has left.
    hanging: BTreeMap<Colour, i64>,
}

impl Databases {
    pub(super) fn new() -> Self {
        let range = SchemaRange { min: 1, max: 2 };
        let mut this = Self {
            steps: Vec::new(),
            truth: Vec::new(),
            ranges: [(Colour::Blue, range), (Colour::Green, range)].into(),
            hanging: BTreeMap::new(),
        };
        for _ in 0..2 {
            this.put(Kind::Expand, StepState::Applied);
            this.truth.push(Kind::Expand);
        }
        this
    }

    fn put(&mut self, kind: Kind, state: StepState) {
        let number = self.next();
        self.steps.retain(|step| step.number != number);
        self.steps.push(Step {
            scope: "app".into(),
            number,
            name: "step".into(),
            kind,
            checksum: "checksum".into(),
            state,
            run: Uuid::nil(),
            started_us: 0,
            finished_us: None,
            detail: String::new(),
        });
    }

    fn applied(&self) -> u32 {
        crate::switch::schema::applied(&self.steps)
    }

    fn next(&self) -> u32 {
        self.applied() + 1
    }

    fn running(&mut self) -> Option<&mut Step> {
        let last = self.steps.last_mut();
        last.filter(|step| step.state == StepState::Running)
    }

    /// Whether a colour's release really can run on what is there.
    pub(super) fn carries(&self, colour: Colour) -> bool {
        let SchemaRange { min, max } = self.ranges[&colour];
        let behind = self.truth.get(max as usize..).unwrap_or_default();
        self.truth.len() >= min as usize && !behind.contains(&Kind::Contract)
    }

    /// Requests that were on a colour are gone with the process that they went through.
    pub(super) fn cut(&mut self) {
        self.hanging.clear();
    }
}

impl World {
    /// The ledger's view of whether a colour may be rolled out.
    pub(super) fn fence_admits(&self, colour: Colour) -> Result<(), String> {
        let range = self.databases.ranges[&colour];
        (self.subject.fits)("app", range, &self.databases.steps)
            .map_err(|misfit| misfit.to_string())
    }

    /// A release comes to the colour that is not active: the next one, or the one that was there stays.
    pub(super) fn deploy(&mut self, colour: Colour) {
        self.databases.hanging.remove(&colour);
        if self.rng.random_bool(0.25) {
            return;
        }
        let applied = self.databases.applied();
        let min = applied + u32::from(self.rng.random_bool(0.2));
        let max = min + self.rng.random_range(0..3);
        self.databases
            .ranges
            .insert(colour, SchemaRange { min, max });
    }

    /// A colour gets requests that had none: what it needs must be there.
    pub(super) fn activates(&mut self, reached: impl Fn(Colour) -> bool) -> Result<(), Broken> {
        for colour in [Colour::Blue, Colour::Green] {
            let before = self.routing.reaches(colour);
            match (before, reached(colour)) {
                (false, true) => {
                    must!(
                        self.databases.carries(colour),
                        "{colour:?} gets requests in {}, and cannot run on the schema",
                        self.disk.phase.name()
                    );
                    self.databases.hanging.remove(&colour);
                }
                (true, false) => {
                    let until = self.now + self.rng.random_range(0..HANG_US);
                    self.databases.hanging.insert(colour, until);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Somebody migrates, or a run that was begun comes to its end.
    pub(super) fn migrate(&mut self, coverage: &mut Coverage) -> Result<(), Broken> {
        if self.databases.running().is_some() {
            self.end_run();
            return Ok(());
        }
        match self.rng.random_range(0..4) {
            0 | 1 => {
                self.begin_run(Kind::Expand);
                Ok(())
            }
            2 => self.contract(coverage),
            _ => self.contract_by_hand(coverage),
        }
    }

    fn begin_run(&mut self, kind: Kind) {
        self.databases.put(kind, StepState::Running);
        // The database may have it before the ledger hears of it.
        if self.rng.random() {
            self.databases.truth.push(kind);
        }
    }

    fn end_run(&mut self) {
        let (there, number) = (self.databases.truth.len(), self.databases.next() as usize);
        let fails = there < number && self.rng.random_bool(0.3);
        let Some(step) = self.databases.running() else {
            return;
        };
        let kind = step.kind;
        step.state = if fails {
            StepState::Failed
        } else {
            StepState::Applied
        };
        if !fails && there < number {
            self.databases.truth.push(kind);
        }
    }

    /// As the driver lets a contract step begin: asks, writes down, begins.
    fn contract(&mut self, coverage: &mut Coverage) -> Result<(), Broken> {
        let Some(record) = self.process.clone() else {
            return Ok(());
        };
        let number = self.databases.next();
        let active = self.routing.active;
        let hangs = |colour| {
            let until = self.databases.hanging.get(&colour);
            until.is_some_and(|until| *until > self.now)
        };
        let busy = usize::from(hangs(active.other()));
        let range = self.databases.ranges[&active];
        if (self.subject.may_contract)(number, &record, range, busy, None).is_err() {
            return Ok(());
        }
        for colour in [Colour::Blue, Colour::Green] {
            must!(
                number <= self.databases.ranges[&colour].max
                    || !(self.routing.reaches(colour) || hangs(colour)),
                "contract step {number} begins in {}, and {colour:?} is in use and needs what goes",
                record.phase.name()
            );
        }
        self.tell(&Event::Contracted, coverage)?;
        if self.process.as_ref().is_some_and(|one| one.contracted) {
            coverage.contracts += 1;
            self.begin_run(Kind::Contract);
        }
        Ok(())
    }

    /// An operator who knows better: says so first, and takes away what the new colour does not need.
    fn contract_by_hand(&mut self, coverage: &mut Coverage) -> Result<(), Broken> {
        let number = self.databases.next();
        let sane = matches!(
            self.disk.phase.name(),
            Name::Canary | Name::Switched | Name::Bake | Name::Frozen
        ) && number <= self.databases.ranges[&self.disk.to].max;
        if !sane || !self.rng.random_bool(0.3) {
            return Ok(());
        }
        self.tell(&Event::Contracted, coverage)?;
        if self.process.as_ref().is_some_and(|one| one.contracted) {
            coverage.contracts_by_hand += 1;
            self.databases.put(Kind::Contract, StepState::Applied);
            self.databases.truth.push(Kind::Contract);
        }
        Ok(())
    }
}
