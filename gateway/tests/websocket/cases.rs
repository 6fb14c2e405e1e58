//! A list of cases after the plan of the Autobahn|Testsuite for servers, sections 1 to 7, 9 and 10, written
//! anew and numbered as there. It runs against a clean echo server by itself, which proves the list, and
//! against the gateway in front of it.
//!
//! What differs from Autobahn: messages of section 9 are smaller, so that all of it takes seconds; and where
//! Autobahn takes a mere drop of the connection for a failure, a Close with the right code is asked for. Where
//! Autobahn tells strict from non-strict (echoes that were due before the failure, bad text noticed before its
//! frame has ended), both pass, and the table says how many were strict.

mod case;
mod close;
mod data;
mod frames;
mod run;
mod utf8;

use super::gateway;
use case::Case;
use hub_testkit::websocket::EchoServer;
use run::Tally;
use std::net::SocketAddr;

/// Sections and their names.
const SECTIONS: &[(&str, &str)] = &[
    ("1", "framing"),
    ("2", "pings and pongs"),
    ("3", "reserved bits"),
    ("4", "opcodes"),
    ("5", "fragmentation"),
    ("6", "UTF-8"),
    ("7", "close"),
    ("9", "sizes"),
    ("10", "miscellaneous"),
];

#[tokio::test]
async fn an_echo_server_passes_every_case() {
    let echo = EchoServer::start().await;
    pass("the echo server by itself", echo.addr()).await;
}

#[tokio::test]
async fn the_gateway_before_an_echo_server_passes_every_case() {
    let echo = EchoServer::start().await;
    let sizes = "frame_bytes_max = 67108864, message_bytes_max = 67108864, fragments_max = 100000";
    let hub = gateway(echo.addr(), sizes).await;
    pass("the gateway before it", hub.addr("public")).await;
}

fn list() -> Vec<Case> {
    [
        frames::cases(),
        utf8::cases(),
        close::cases(),
        data::cases(),
    ]
    .concat()
}

/// Runs all cases and prints the table.
async fn pass(title: &str, address: SocketAddr) {
    let cases = list();
    let mut names: Vec<_> = cases.iter().map(|case| &case.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "names are given once");

    let mut failures = Vec::new();
    let mut total = Tally::default();
    println!("{title}");
    println!("section               cases  passed  strict   reset");
    for (number, name) in SECTIONS {
        let mut tally = Tally::default();
        for case in cases.iter().filter(|case| case.section() == *number) {
            let verdict = run::run(case, address).await;
            tally.count(&verdict);
            if let Err(why) = verdict {
                failures.push(format!("{} ({}): {why}", case.name, case.about));
            }
        }
        println!("{number:>3} {name:<16} {tally}");
        assert!(tally.cases > 0, "section {number} has cases");
        total += tally;
    }
    println!("{:<20} {total}", "all");
    assert_eq!(total.cases, cases.len(), "each case is of a section");
    assert!(
        failures.is_empty(),
        "{} cases failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
