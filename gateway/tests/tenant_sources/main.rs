//! Tenant isolation: generated combinations of sources and spellings, each judged against an oracle that
//! shares no code with the gateway.
//!
//! `HUB_SEED=N` replays a run, `HUB_CASES=N` sets its length.

mod gateway;
mod generate;
mod oracle;

use gateway::Gateway;
use oracle::Verdict;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

const CASES: u64 = 200_000;

#[test]
fn no_combination_of_sources_reaches_another_tenant() {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse()
                .unwrap_or_else(|_| panic!("{name} is a number")),
        )
    };
    let seed: u64 = number("HUB_SEED").unwrap_or_else(|| rand::rng().random());
    let cases = number("HUB_CASES").unwrap_or(CASES);
    println!("HUB_SEED={seed}");

    let gateway = Gateway::new();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for case in 0..cases {
        let request = generate::request(&mut rng, gateway.rules());
        let rule = &gateway.rules()[request.rule];
        let wanted = oracle::judge(rule, &request);
        let got = gateway.ask(&request);
        let story = || format!("case {case}, seed {seed}: {rule:?}\n{request:#?}");
        if let Verdict::Tenant(id) = &got {
            assert_eq!(wanted, Verdict::Tenant(id.clone()), "LEAK in {}", story());
        }
        assert_eq!(got, wanted, "another answer in {}", story());
        let name = match got {
            Verdict::Tenant(_) => "resolved".to_owned(),
            Verdict::Nobody => "no tenant, none required".to_owned(),
            Verdict::Refused(code) => code.to_owned(),
        };
        *counts.entry(name).or_default() += 1;
    }
    println!(
        "{cases} combinations over {} rules, 0 leaks",
        gateway.rules().len()
    );
    for (verdict, count) in &counts {
        println!("{count:>8}  {verdict}");
    }
    if cases >= 10_000 {
        assert_eq!(counts.len(), 6, "the generator reaches every verdict");
        let rare = counts.iter().find(|(_, count)| **count < cases / 200);
        assert_eq!(rare, None, "the generator reaches every verdict often");
    }
}
