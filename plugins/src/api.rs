//! What a plugin is.

use hub_config::PluginProblem;
use hub_core::{Edits, Identity, Refusal, RequestView};
use std::fmt::Debug;
use std::time::{Instant, SystemTime};

/// When a plugin runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Before the tenant is known: credentials.
    Identify,
    /// After tenant, limits and detection, before an endpoint is picked.
    Request,
}

/// What a plugin decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// [`Step::Identify`] only: the credential is good, and this is whose it is.
    Identified(Identity),
    /// There is no credential of this kind, and one is demanded. Another identify plugin may still
    /// find one of its own; if none does, this answers the client.
    Missing(Refusal),
    /// Answer the client with this and go no further: a bad credential, or a request that is not
    /// wanted.
    Refuse(Refusal),
}

/// What a plugin may know beside the request, and what it may change.
#[derive(Debug)]
pub struct PluginContext<'a> {
    /// Wall-clock time at which the head was complete. An argument, so that tests own it.
    pub now: SystemTime,
    /// Who the request proved to be so far.
    pub identity: Option<&'a Identity>,
    /// Header changes for the way up and down.
    pub edits: &'a mut Edits,
}

/// A request filter.
///
/// Invariant: a plugin never waits. What needs I/O (a JWKS by URL) keeps a copy that a thread of its
/// own refreshes, so the stages stay one synchronous function without a suspension point.
/// Invariant: each plugin sees the request as the client sent it, not the edits of those before it.
pub trait Plugin: Debug + Send + Sync + 'static {
    /// When it runs.
    fn step(&self) -> Step;

    /// Looks at one request. On the hot path: no allocation that could be done at load.
    fn on_request(&self, request: &RequestView<'_>, context: &mut PluginContext<'_>) -> Verdict;

    /// Learns that it is part of the configuration in force: what it lacks now, a reload takes from nobody.
    fn is_in_force(&self) {}

    /// Waits, until `deadline` at most, for what it needs from elsewhere and has never had. Called by a
    /// load of the configuration, after all its plugins are built; never by a request.
    ///
    /// # Errors
    /// What is missing then.
    fn settle(&self, _deadline: Instant) -> Result<(), PluginProblem> {
        Ok(())
    }

    /// Counters to show in metrics, by name of the metric's outcome label.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
