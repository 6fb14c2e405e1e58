//! What a case is.

use hub_testkit::websocket::{Event, Frame, Role};

/// One case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// As in Autobahn's plan.
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) expect: Expect,
}

/// What a client does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends bytes in one write.
    Send(Vec<u8>),
    /// Sends bytes in writes of so many.
    Pieces(Vec<u8>, usize),
    /// Waits until so many events have come in all.
    Await(usize),
    /// Here the server knows enough to fail. Where it does before more is sent, that is strict.
    Judge,
}

/// What has to come of it.
#[derive(Clone, Debug)]
pub(crate) enum Expect {
    /// All of these; then Close 1000 is answered with 1000.
    Events(Vec<Event>),
    /// A failure with this code. The events before it may be cut short, which is not strict.
    Failure(Vec<Event>, u16),
    /// Our own Close, which is among the steps, is answered with one of these codes. The events before it
    /// may be cut short, which is not strict.
    Close(Vec<Event>, Vec<Option<u16>>),
}

/// How frames are cut into writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// All in one.
    Once,
    /// Each in one.
    Frames,
    /// Each byte in one.
    Bytes,
}

// === impl Case ===

impl Case {
    pub(crate) fn new(name: &str, about: &str, steps: Vec<Step>, expect: Expect) -> Self {
        Self {
            name: name.to_owned(),
            about: about.to_owned(),
            steps,
            expect,
        }
    }

    /// The number of its section.
    pub(crate) fn section(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }
}

/// A case that sends frames.
pub(crate) fn case(name: &str, about: &str, cut: Cut, frames: &[Frame], expect: Expect) -> Case {
    Case::new(name, about, steps(cut, frames), expect)
}

/// Sends these frames.
pub(crate) fn steps(cut: Cut, frames: &[Frame]) -> Vec<Step> {
    let bytes = frames.iter().map(|frame| frame.bytes(Role::Client));
    match cut {
        Cut::Once => vec![Step::Send(bytes.collect::<Vec<_>>().concat())],
        Cut::Frames => bytes.map(Step::Send).collect(),
        Cut::Bytes => vec![Step::Pieces(bytes.collect::<Vec<_>>().concat(), 1)],
    }
}

// === what is expected ===

/// All of these events.
pub(crate) fn events<const N: usize>(events: [Event; N]) -> Expect {
    Expect::Events(events.to_vec())
}

/// A failure with this code.
pub(crate) fn fails(code: u16) -> Expect {
    Expect::Failure(Vec::new(), code)
}

/// This event or none, then a failure with 1002.
pub(crate) fn fails_after(event: Event) -> Expect {
    Expect::Failure(vec![event], 1002)
}

/// A Close with this code in answer to our own.
pub(crate) fn closes(code: u16) -> Expect {
    Expect::Close(Vec::new(), vec![Some(code)])
}

pub(crate) fn pong(payload: impl AsRef<[u8]>) -> Event {
    Event::Pong(payload.as_ref().to_vec())
}
