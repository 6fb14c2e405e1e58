//! What an origin remembers of its clients.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::watch;

/// Requests that one origin remembers in full; later ones are counted only.
pub(super) const REQUESTS_MAX: usize = 65_536;

/// One request as it arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedRequest {
    /// Which connection it came on: 0 is the first that the origin accepted.
    pub connection: usize,
    /// The exact bytes of the head, the empty line at its end included.
    pub head: Vec<u8>,
    /// First word of the request line; empty where the line is malformed.
    pub method: String,
    /// Second word of the request line.
    pub target: String,
    /// Third word of the request line.
    pub version: String,
    /// Fields in their order, names in the case in which they arrived. Bytes above 0x7F become the
    /// Latin-1 character of the same number, so nothing is lost.
    pub headers: Vec<(String, String)>,
    /// The body without its chunk framing, up to the recording bound. After an upgrade: what came
    /// over the upgraded connection.
    pub body: Vec<u8>,
    /// Length of the whole body so far, in bytes; may exceed `body.len()`.
    pub body_bytes: u64,
    /// SHA-256 of the whole body in hex, once it has ended; else empty.
    pub body_sha256: String,
    /// Fields after the last chunk.
    pub trailers: Vec<(String, String)>,
    /// The body has ended as its framing says.
    pub complete: bool,
}

impl RecordedRequest {
    /// The first field of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_all(name).next()
    }

    /// Every field of this name, in any case, in their order.
    pub fn header_all(&self, name: &str) -> impl Iterator<Item = &str> {
        crate::fields::values(&self.headers, name)
    }

    /// The head as text; bytes above 0x7F become their Latin-1 characters.
    pub fn head_text(&self) -> String {
        crate::fields::latin1(&self.head)
    }

    /// The body as text, lossily.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// Names one request for those who add to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry(Option<usize>);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) connections: usize,
    pub(super) open: usize,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) heads: usize,
    pub(super) completed: usize,
    pub(super) requests: Vec<RecordedRequest>,
    raw: HashMap<usize, Vec<u8>>,
}

/// The origin's memory. Every change wakes those who wait for one.
#[derive(Debug)]
pub(super) struct Ledger {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    record_bytes_max: usize,
}

impl Ledger {
    pub(super) fn new(record_bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            record_bytes_max,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nobody panics while they hold the origin's memory")
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.state());
        self.changed.send_replace(());
        value
    }

    pub(super) fn opened(&self) -> usize {
        self.change(|state| {
            state.open += 1;
            state.connections += 1;
            state.connections - 1
        })
    }

    pub(super) fn closed(&self) {
        self.change(|state| state.open -= 1);
    }

    pub(super) fn received(&self, connection: usize, bytes: &[u8]) {
        self.change(|state| {
            state.received += bytes.len() as u64;
            let raw = state.raw.entry(connection).or_default();
            append_bounded(raw, bytes, self.record_bytes_max);
        });
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.change(|state| state.sent += bytes as u64);
    }

    pub(super) fn head(&self, request: RecordedRequest) -> Entry {
        self.change(|state| {
            state.heads += 1;
            if state.requests.len() == REQUESTS_MAX {
                return Entry(None);
            }
            state.requests.push(request);
            Entry(Some(state.requests.len() - 1))
        })
    }

    pub(super) fn body(&self, entry: Entry, bytes: &[u8]) {
        let Entry(Some(index)) = entry else { return };
        self.change(|state| {
            let request = &mut state.requests[index];
            request.body_bytes += bytes.len() as u64;
            append_bounded(&mut request.body, bytes, self.record_bytes_max);
        });
    }

    pub(super) fn complete(&self, entry: Entry, sha256: String, trailers: Vec<(String, String)>) {
        self.change(|state| {
            state.completed += 1;
            if let Entry(Some(index)) = entry {
                let request = &mut state.requests[index];
                request.complete = true;
                request.body_sha256 = sha256;
                request.trailers = trailers;
            }
        });
    }

    pub(super) fn raw(&self, connection: usize) -> Vec<u8> {
        self.state()
            .raw
            .get(&connection)
            .cloned()
            .unwrap_or_default()
    }

    /// A copy of the request, as far as it has come; an empty one where it was too many to remember.
    pub(super) fn request(&self, entry: Entry) -> RecordedRequest {
        match entry {
            Entry(Some(index)) => self.state().requests[index].clone(),
            Entry(None) => RecordedRequest::default(),
        }
    }

    /// Waits until the state is as wanted, at most [`crate::PATIENCE`].
    ///
    /// # Panics
    /// When the time is over, with `what` and the state's counts.
    pub(super) async fn wait(&self, what: &str, wanted: impl Fn(&State) -> bool) {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            while !wanted(&self.state()) {
                changes
                    .changed()
                    .await
                    .expect("the sender lives as long as the ledger");
            }
        };
        if tokio::time::timeout(crate::PATIENCE, waiting)
            .await
            .is_err()
        {
            let state = self.state();
            panic!(
                "the origin waited {:?} for {what}; it has {} heads ({} complete), {} connections ({} open), {} bytes; requests: {:?}",
                crate::PATIENCE,
                state.heads,
                state.completed,
                state.connections,
                state.open,
                state.received,
                state
                    .requests
                    .iter()
                    .map(|r| format!("{} {}", r.method, r.target))
                    .collect::<Vec<_>>(),
            );
        }
    }
}

fn append_bounded(to: &mut Vec<u8>, bytes: &[u8], max: usize) {
    let room = max.saturating_sub(to.len());
    to.extend_from_slice(&bytes[..bytes.len().min(room)]);
}
