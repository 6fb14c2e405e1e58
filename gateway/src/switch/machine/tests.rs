use super::*;

const NOW: Micros = 1_700_000_000_000_000;

fn plan(shares: &[u16]) -> Plan {
    Plan {
        stages: shares.iter().copied().map(Stage::of).collect(),
        ..Plan::default()
    }
}

/// The record after these events, each at its second.
fn after(plan: &Plan, events: &[(i64, Event)]) -> Record {
    let start = step(
        &Record::idle(Colour::Blue),
        &Event::Start(plan.clone()),
        NOW,
    );
    let first = start.expect("there was none").record;
    events.iter().fold(first, |record, (second, event)| {
        let at = NOW + second * 1_000_000;
        step(&record, event, at)
            .unwrap_or_else(|refused| panic!("{event:?}: {refused}"))
            .record
    })
}

fn pass(epoch: u64) -> Event {
    Event::Pass { epoch }
}

#[test]
fn a_good_rollout_goes_stage_by_stage_and_keeps_the_old_colour_until_the_bake_is_over() {
    let plan = plan(&[100, 5_000]);
    let all = [
        (1, Event::Prepared),
        (2, Event::GatePassed),
        (70, pass(1)),
        (140, pass(2)),
        (
            141,
            Event::Drained {
                epoch: 3,
                colour: Colour::Blue,
            },
        ),
        (741, Event::Tick),
    ];
    let names: Vec<Name> = (0..=all.len())
        .map(|n| after(&plan, &all[..n]).phase.name())
        .collect();
    use Name::{Bake, Canary, Committed, Gate, Preparing, Switched};
    assert_eq!(
        names,
        [Preparing, Gate, Canary, Canary, Switched, Bake, Committed]
    );
    let baking = after(&plan, &all[..5]);
    let end = step(&baking, &Event::Tick, NOW + 741_000_000).expect("it is over");
    let receipt = Durable::version(end.record.version);
    assert_eq!(
        end.actions(&receipt),
        [Action::StopWatching, Action::Release(Colour::Blue)]
    );
}

#[test]
fn the_gate_has_time_for_the_baseline_where_there_are_stages() {
    // Behind a baseline it is asked a second time.
    for (shares, gates, baseline_us) in [(&[100][..], 2, 60_000_000), (&[], 1, 0)] {
        let at_gate = after(&plan(shares), &[(1, Event::Prepared)]);
        let Phase::Gate { deadline } = at_gate.phase else {
            panic!("{:?}", at_gate.phase);
        };
        let gate_us = at_gate.plan.gate_timeout_us;
        assert_eq!(deadline, NOW + 1_000_000 + gates * gate_us + baseline_us);
    }
}

#[test]
fn a_colour_that_fails_its_gate_gets_no_request() {
    let record = after(
        &plan(&[]),
        &[
            (1, Event::Prepared),
            (2, Event::GateFailed("probe: 500".into())),
        ],
    );
    assert_eq!(
        record.phase,
        Phase::RolledBack {
            why: "probe: 500".into()
        }
    );
    assert_eq!(
        (record.epoch, record.routing),
        (0, Routing::all(Colour::Blue))
    );
}

#[test]
fn a_verdict_about_an_older_routing_is_not_heard() {
    let record = after(
        &plan(&[100, 500]),
        &[(1, Event::Prepared), (2, Event::GatePassed), (70, pass(1))],
    );
    let old = Event::Fail {
        epoch: 1,
        why: "5xx".into(),
    };
    assert_eq!(step(&record, &old, NOW), Err(Refused::Stale));
}

#[test]
fn a_stage_is_observed_for_its_whole_time() {
    let record = after(
        &plan(&[100]),
        &[(1, Event::Prepared), (2, Event::GatePassed)],
    );
    assert_eq!(
        step(&record, &pass(1), NOW + 61_000_000),
        Err(Refused::Stale)
    );
    assert!(step(&record, &pass(1), NOW + 62_000_000).is_ok());
}

#[test]
fn judges_that_say_nothing_end_it() {
    let record = after(
        &plan(&[100]),
        &[
            (1, Event::Prepared),
            (2, Event::GatePassed),
            (400, Event::Tick),
        ],
    );
    assert_eq!(record.phase.name(), Name::RollingBack);
    assert_eq!(record.routing, Routing::all(Colour::Blue));
}

#[test]
fn a_pause_holds_steps_forward_and_no_step_back() {
    let begun = [
        (1, Event::Prepared),
        (2, Event::GatePassed),
        (3, Event::Pause),
    ];
    let record = after(&plan(&[100]), &begun);
    assert_eq!(
        step(&record, &pass(1), NOW + 90_000_000),
        Err(Refused::Stale)
    );
    assert_eq!(
        step(&record, &Event::Tick, NOW + 9_000_000_000),
        Err(Refused::Stale)
    );
    let bad = Event::Fail {
        epoch: 1,
        why: "5xx".into(),
    };
    let back = step(&record, &bad, NOW).expect("heard");
    assert_eq!(back.record.phase.name(), Name::RollingBack);
}

#[test]
fn who_says_a_thing_twice_hears_that_it_is_known() {
    let begun = [(1, Event::Prepared), (2, Event::GatePassed)];
    let record = after(&plan(&[100]), &begun);
    let told = step(&record, &Event::Contracted, NOW)
        .expect("heard")
        .record;
    let again = step(&told, &Event::Contracted, NOW);
    assert_eq!(again, Err(Refused::ContractedAlready));
    let back = step(&record, &Event::Abort, NOW).expect("heard").record;
    assert_eq!(back.phase.name(), Name::RollingBack);
    assert_eq!(step(&back, &Event::Abort, NOW), Err(Refused::GoingBack));
}

#[test]
fn behind_a_contract_step_there_is_no_way_back() {
    let begun = [
        (1, Event::Prepared),
        (2, Event::GatePassed),
        (3, Event::Contracted),
    ];
    let record = after(&plan(&[]), &begun);
    let frozen = step(&record, &Event::Abort, NOW).expect("heard").record;
    assert_eq!(frozen.phase.name(), Name::Frozen);
    assert_eq!(frozen.routing, Routing::all(Colour::Green));
    assert_eq!(step(&frozen, &Event::Abort, NOW), Err(Refused::Contracted));
    let accepted = step(&frozen, &Event::Accept, NOW).expect("heard").record;
    assert_eq!(accepted.phase, Phase::Committed);
}

#[test]
fn a_canary_that_is_frozen_behind_a_contract_step_can_only_go_on() {
    let begun = [
        (1, Event::Prepared),
        (2, Event::GatePassed),
        (3, Event::Contracted),
        (4, Event::Abort),
    ];
    let frozen = after(&plan(&[100]), &begun);
    assert_eq!(frozen.routing.majority(), Colour::Blue);
    let accepted = step(&frozen, &Event::Accept, NOW).expect("heard").record;
    assert_eq!(accepted.phase, Phase::Committed);
    assert_eq!(accepted.routing, Routing::all(Colour::Green));
}

#[test]
fn a_contract_step_waits_until_nobody_could_have_to_go_back() {
    assert_eq!(Record::idle(Colour::Blue).may_contract(), Ok(()));
    assert_eq!(
        after(&plan(&[]), &[]).may_contract(),
        Err(Refused::UnderWay)
    );
    let baking = after(
        &plan(&[]),
        &[
            (1, Event::Prepared),
            (2, Event::GatePassed),
            (
                3,
                Event::Drained {
                    epoch: 1,
                    colour: Colour::Blue,
                },
            ),
        ],
    );
    assert_eq!(baking.phase.name(), Name::Bake);
    assert_eq!(baking.may_contract(), Err(Refused::UnderWay));
    let done = step(&baking, &Event::Promote, NOW).expect("heard").record;
    assert_eq!(done.may_contract(), Ok(()));
}

#[test]
fn a_rollout_that_keeps_taking_the_gateway_down_is_ended() {
    let mut record = after(
        &plan(&[100]),
        &[(1, Event::Prepared), (2, Event::GatePassed)],
    );
    for _ in 0..RECOVERIES_MAX {
        record = recover(&record, NOW).expect("it goes on").record;
        assert_eq!(record.phase.name(), Name::Canary);
    }
    let ended = recover(&record, NOW).expect("it ends").record;
    assert_eq!(ended.phase.name(), Name::RollingBack);
}

#[test]
#[should_panic(expected = "without their record on disk")]
fn actions_are_not_given_out_for_another_record() {
    let start = step(&Record::idle(Colour::Blue), &Event::Start(plan(&[])), NOW);
    let _actions = start.expect("there was none").actions(&Durable::version(7));
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    let record = after(
        &plan(&[100, 500]),
        &[(1, Event::Prepared), (2, Event::GatePassed)],
    );
    let text = serde_json::to_string(&record).expect("plain values");
    assert_eq!(
        serde_json::from_str::<Record>(&text).expect("its own text"),
        record
    );
}
