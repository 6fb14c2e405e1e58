//! Which colour can run on which schema, and when a contract step may run: the rules, without I/O.
//!
//! A release says two numbers: the step that it needs (`min`) and the newest that it knows (`max`). It can
//! run where everything up to `min` is in force and no contract step behind `max` is. Expand steps behind
//! `max` do not matter to it; that is what expand means.
//!
//! A step that is running counts as not there for who needs it, and as there for whom it would hurt: a
//! run that has died may have left either. A step that has failed is not in force.

use super::machine::{Name, Record};
use crate::snapshot::colour_name;
use hub_config::runtime::{Colour, SchemaRange};
use hub_store::{Kind, Step, StepState};
use thiserror::Error;

/// Why a release cannot run on a database as it is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Misfit {
    /// A step that it needs is not in force.
    #[error(
        "`{scope}` is at step {applied:04}{}, and step {min:04} is needed; run `hubctl migrate {} --scope {scope}` first",
        unfinished.as_ref().map_or_else(String::new, Unfinished::told),
        unfinished.as_ref().map_or(Kind::Expand, |step| step.kind).as_str()
    )]
    Behind {
        /// The database.
        scope: String,
        /// Its newest step; 0 where none is known.
        applied: u32,
        /// The step that is needed.
        min: u32,
        /// What has become of the next one, where it was begun.
        unfinished: Option<Unfinished>,
    },
    /// A contract step has taken away what it needs.
    #[error(
        "contract step {number:04} of `{scope}` {}, and no step behind {max:04} is known to it; there is no way back to that schema, so stay (frozen, if it has to be) and repair forward with a release that knows step {number:04}",
        if *running { "is running" } else { "was run" }
    )]
    Contracted {
        /// The database.
        scope: String,
        /// The first such step.
        number: u32,
        /// The newest step that the release knows.
        max: u32,
        /// It has begun and not ended.
        running: bool,
    },
}

/// A step that was begun and is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    number: u32,
    kind: Kind,
    state: StepState,
}

/// Why a contract step may not run now, for one of the clusters on its database.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Barred {
    /// The rollout could still have to go back.
    #[error("a rollout is under way ({phase}); {}", advice(*phase))]
    UnderWay {
        /// Where it stands.
        phase: Name,
    },
    /// Some tenants are kept on the colour that is not active.
    #[error("tenant {tenant} is kept on {}, the colour that is not active; take that from the tenant's `colours` and reload", colour_name(*colour))]
    Kept {
        /// The colour that is not active.
        colour: Colour,
        /// One of the tenants.
        tenant: String,
    },
    /// The colour that is not active still works.
    #[error("{requests} requests are still on {}, the colour that is not active; wait for their end", colour_name(*colour))]
    InUse {
        /// The colour that is not active.
        colour: Colour,
        /// How many there are.
        requests: usize,
    },
    /// The release that works would lose what it needs.
    #[error("{}, the active colour, knows no step behind {max:04}, and this is {number:04}; roll a release out that knows it", colour_name(*colour))]
    Unfit {
        /// The active colour.
        colour: Colour,
        /// The newest step that it knows.
        max: u32,
        /// The contract step.
        number: u32,
    },
}

/// Number of a database's newest step that is in force; 0 where there is none.
pub fn applied(steps: &[Step]) -> u32 {
    let applied = steps.iter().filter(|one| one.state == StepState::Applied);
    applied.map(|one| one.number).max().unwrap_or(0)
}

/// Whether a release can run on a database.
///
/// # Errors
/// Why not, and what to do.
pub fn fits(scope: &str, range: SchemaRange, steps: &[Step]) -> Result<(), Misfit> {
    let applied = applied(steps);
    if applied < range.min {
        let next = steps.iter().find(|step| step.number == applied + 1);
        return Err(Misfit::Behind {
            scope: scope.to_owned(),
            applied,
            min: range.min,
            unfinished: next.map(|step| Unfinished {
                number: step.number,
                kind: step.kind,
                state: step.state,
            }),
        });
    }
    let taken_away = steps.iter().find(|step| {
        step.number > range.max && step.kind == Kind::Contract && step.state != StepState::Failed
    });
    match taken_away {
        None => Ok(()),
        Some(step) => Err(Misfit::Contracted {
            scope: scope.to_owned(),
            number: step.number,
            max: range.max,
            running: step.state == StepState::Running,
        }),
    }
}

/// Whether a contract step of this number may run, as far as one cluster on its database goes: one colour
/// alone is of use, and its release (`range`) knows the step. `busy` counts requests on the other colour,
/// and `kept` is a tenant that is kept there.
///
/// # Errors
/// Why not, and what to do.
pub fn may_contract(
    number: u32,
    record: &Record,
    range: SchemaRange,
    busy: usize,
    kept: Option<&str>,
) -> Result<(), Barred> {
    if record.may_contract().is_err() {
        return Err(Barred::UnderWay {
            phase: record.phase.name(),
        });
    }
    let active = record.routing.active;
    let colour = active.other();
    if let Some(tenant) = kept {
        return Err(Barred::Kept {
            colour,
            tenant: tenant.to_owned(),
        });
    }
    if busy > 0 {
        return Err(Barred::InUse {
            colour,
            requests: busy,
        });
    }
    if number > range.max {
        return Err(Barred::Unfit {
            colour: active,
            max: range.max,
            number,
        });
    }
    Ok(())
}

fn advice(phase: Name) -> &'static str {
    match phase {
        Name::Bake => "wait for the end of the bake, or `hubctl rollout promote` ends it now",
        Name::Frozen => "`hubctl rollout accept` or `abort` ends it",
        _ => "wait for its end, or `hubctl rollout abort` it",
    }
}

impl Unfinished {
    fn told(&self) -> String {
        let state = match self.state {
            StepState::Running => "is running, or its run has died",
            StepState::Failed => "has failed",
            StepState::Applied => "is in force",
        };
        format!(" (step {:04} {state})", self.number)
    }
}

#[cfg(test)]
mod tests;
