use super::*;
use crate::switch::machine::Phase;
use proptest::prelude::*;
use uuid::Uuid;

pub(crate) fn step(number: u32, kind: Kind, state: StepState) -> Step {
    Step {
        scope: "app".into(),
        number,
        name: "s".into(),
        kind,
        checksum: "c".into(),
        state,
        run: Uuid::nil(),
        started_us: 0,
        finished_us: None,
        detail: String::new(),
    }
}

fn range(min: u32, max: u32) -> SchemaRange {
    SchemaRange { min, max }
}

use Kind::{Contract, Expand};
use StepState::{Applied, Failed, Running};

/// Steps from 1, all of them applied but the last.
fn steps(kinds: &[Kind], last: StepState) -> Vec<Step> {
    let mut steps: Vec<Step> = (1..)
        .zip(kinds)
        .map(|(number, kind)| step(number, *kind, Applied))
        .collect();
    if let Some(step) = steps.last_mut() {
        step.state = last;
    }
    steps
}

#[test]
fn a_release_runs_where_what_it_needs_is_there_and_nothing_was_taken_away() {
    let kinds = [Expand, Expand, Expand, Contract];
    assert_eq!(fits("app", range(3, 4), &steps(&kinds, Applied)), Ok(()));
    // Before the contract step: expand steps behind its newest are no matter to an older release.
    assert_eq!(
        fits("app", range(1, 1), &steps(&kinds[..3], Applied)),
        Ok(())
    );
    let gone = fits("app", range(1, 3), &steps(&kinds, Applied)).expect_err("contracted");
    assert!(
        gone.to_string()
            .contains("contract step 0004 of `app` was run"),
        "{gone}"
    );
    let behind = fits("app", range(3, 4), &steps(&kinds[..2], Applied)).expect_err("behind");
    assert_eq!(
        behind.to_string(),
        "`app` is at step 0002, and step 0003 is needed; run `hubctl migrate expand --scope app` first"
    );
}

#[test]
fn a_scope_that_nobody_knows_is_behind() {
    let behind = fits("app", range(1, 1), &[]).expect_err("unknown");
    assert!(behind.to_string().contains("at step 0000"), "{behind}");
}

#[test]
fn a_running_step_counts_as_there_for_whom_it_hurts_and_as_missing_for_who_needs_it() {
    let running = steps(&[Expand, Contract], Running);
    assert!(matches!(
        fits("app", range(1, 1), &running),
        Err(Misfit::Contracted {
            number: 2,
            running: true,
            ..
        })
    ));
    let needs = fits("app", range(2, 2), &running).expect_err("not there yet");
    assert!(
        needs
            .to_string()
            .contains("(step 0002 is running, or its run has died)")
            && needs.to_string().contains("hubctl migrate contract"),
        "{needs}"
    );
    assert_eq!(fits("app", range(1, 2), &running), Ok(()));
}

#[test]
fn a_failed_step_is_not_in_force() {
    let failed = steps(&[Expand, Contract], Failed);
    assert_eq!(fits("app", range(1, 1), &failed), Ok(()));
    assert!(fits("app", range(2, 2), &failed).is_err());
}

#[test]
fn a_contract_step_runs_while_one_colour_alone_is_of_use_and_knows_it() {
    let mut record = Record::idle(Colour::Green);
    let ask = |record: &Record, busy, kept| may_contract(4, record, range(3, 4), busy, kept);
    assert_eq!(ask(&record, 0, None), Ok(()));
    assert!(matches!(
        ask(&record, 2, None),
        Err(Barred::InUse { requests: 2, .. })
    ));
    let kept = ask(&record, 0, Some("t1")).expect_err("kept");
    assert!(
        kept.to_string().contains("tenant t1 is kept on blue"),
        "{kept}"
    );
    assert!(matches!(
        may_contract(5, &record, range(3, 4), 0, None),
        Err(Barred::Unfit {
            max: 4,
            number: 5,
            ..
        })
    ));
    record.phase = Phase::Bake { until: 0 };
    let baking = ask(&record, 0, None).expect_err("under way");
    assert!(
        baking.to_string().contains("hubctl rollout promote"),
        "{baking}"
    );
}

proptest! {
    /// A release fits exactly where a walk over the schema says that it does.
    #[test]
    fn fitting_is_what_a_walk_over_the_steps_says(
        kinds in prop::collection::vec(prop::bool::ANY, 0..8),
        last in 0_u8..3,
        min in 1_u32..9,
        over in 0_u32..4,
    ) {
        let kinds: Vec<Kind> = kinds.iter().map(|one| if *one { Expand } else { Contract }).collect();
        let last = [Running, Applied, Failed][usize::from(last)];
        let steps = steps(&kinds, last);
        let range = range(min, min + over);
        // Everything that the database may hold, by whether an open step is taken as done.
        let worlds: &[bool] = match last {
            Applied => &[true],
            Failed => &[false],
            Running => &[true, false],
        };
        let good = worlds.iter().all(|done| {
            let there = if *done { kinds.len() } else { kinds.len().saturating_sub(1) };
            let there = &kinds[..there];
            let needs = there.len() >= min as usize;
            let behind = there.get(range.max as usize..).unwrap_or_default();
            needs && behind.iter().all(|kind| *kind == Expand)
        });
        prop_assert_eq!(fits("app", range, &steps).is_ok(), good);
    }
}
