//! Runs one case.

use super::case::{Case, Expect, Step};
use hub_testkit::websocket::{Client, Event, Frame, PATIENCE};
use std::fmt;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a server that could fail now is given to do so before more is sent; as in Autobahn.
const JUDGEMENT: Duration = Duration::from_secs(1);

/// How a case was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// All that was due came, and a failure as early as it could.
    strict: bool,
    /// The connection was reset where it could have been ended.
    reset: bool,
}

pub(crate) type Verdict = Result<Passed, String>;

/// How many cases there were.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) cases: usize,
    passed: usize,
    strict: usize,
    reset: usize,
}

/// How far the reading has got.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    events: usize,
    over: bool,
}

/// Runs a case against a server on a connection of its own.
pub(crate) async fn run(case: &Case, address: SocketAddr) -> Verdict {
    let (mut sender, mut receiver) = Client::connect(address, "/").await.split();
    let (progress, seen) = watch::channel(Progress::default());
    // At once, so that neither waits for the other with full buffers.
    let write = write(case, &mut sender, seen);
    let read = async {
        let mut events = Vec::new();
        let over = loop {
            let event = receiver.try_next().await;
            match event {
                Ok(event) if !event.is_last() => events.push(event),
                last => break last,
            }
            progress.send_modify(|progress| progress.events += 1);
        };
        progress.send_modify(|progress| progress.over = true);
        (events, over)
    };
    let (wrote, (events, last)) = tokio::join!(write, read);
    let last = last.map_err(|why| format!("{why}, after {events:?}"))?;
    let Event::Close(code, _) = last else {
        return Err(format!("{last:?} instead of a Close, after {events:?}"));
    };
    let all = compare(&case.expect, &events, code)?;
    // A client that has failed, or was told so, leaves; else the server is the first to (RFC 6455, 7.1.1).
    if !wrote.closed {
        sender.try_send(&Frame::close(1000, "")).await.ok();
        sender.finish().await;
    }
    let end = receiver.try_next().await?;
    match end {
        Event::End | Event::Reset => Ok(Passed {
            strict: all && !wrote.late,
            reset: end == Event::Reset,
        }),
        more => Err(format!("{more:?} after Close")),
    }
}

/// What came of the writing.
struct Wrote {
    /// The server had not failed where it could have.
    late: bool,
    /// We have closed.
    closed: bool,
}

async fn write<W: tokio::io::AsyncWrite + Unpin>(
    case: &Case,
    sender: &mut hub_testkit::websocket::Sender<W>,
    mut seen: watch::Receiver<Progress>,
) -> Wrote {
    let mut wrote = Wrote {
        late: false,
        closed: false,
    };
    for step in &case.steps {
        // A server that fails may stop to read: that is for the reading half to judge.
        let sent = match step {
            Step::Send(bytes) => sender.try_send_raw(bytes).await.is_ok(),
            Step::Pieces(bytes, size) => sender.try_send_in_pieces(bytes, *size).await.is_ok(),
            Step::Await(count) => came(&mut seen, *count, PATIENCE).await,
            Step::Judge => {
                let failed = came(&mut seen, usize::MAX, JUDGEMENT).await;
                wrote.late |= !failed;
                !failed
            }
        };
        if !sent || seen.borrow().over {
            return wrote;
        }
    }
    match &case.expect {
        Expect::Events(expected) => {
            came(&mut seen, expected.len(), PATIENCE).await;
            wrote.closed = sender.try_send(&Frame::close(1000, "")).await.is_ok();
        }
        Expect::Close(..) => wrote.closed = true,
        Expect::Failure(..) => {}
    }
    wrote
}

/// True once so many events have come, or the last one has.
async fn came(seen: &mut watch::Receiver<Progress>, count: usize, patience: Duration) -> bool {
    let enough = seen.wait_for(|progress| progress.events >= count || progress.over);
    matches!(timeout(patience, enough).await, Ok(Ok(_)))
}

/// Whether everything came that was due.
fn compare(expect: &Expect, events: &[Event], code: Option<u16>) -> Result<bool, String> {
    match expect {
        Expect::Events(expected) if events == expected && code == Some(1000) => Ok(true),
        Expect::Failure(due, wanted) if code == Some(*wanted) && due.starts_with(events) => {
            Ok(due.len() == events.len())
        }
        Expect::Close(due, codes) if codes.contains(&code) && due.starts_with(events) => {
            Ok(due.len() == events.len())
        }
        expected => Err(format!(
            "{events:?} and Close {code:?} instead of {expected:?}"
        )),
    }
}

// === impl Tally ===

impl Tally {
    pub(crate) fn count(&mut self, verdict: &Verdict) {
        self.cases += 1;
        if let Ok(passed) = verdict {
            self.passed += 1;
            self.strict += usize::from(passed.strict);
            self.reset += usize::from(passed.reset);
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.cases += more.cases;
        self.passed += more.passed;
        self.strict += more.strict;
        self.reset += more.reset;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cases,
            passed,
            strict,
            reset,
        } = self;
        write!(f, "{cases:>6} {passed:>7} {strict:>7} {reset:>7}")
    }
}
