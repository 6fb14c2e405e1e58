//! From pingora's errors to the table of refusals.

use crate::stages::record;
use crate::switch::watch::Ending;
use hub_core::{Reason, Refusal};
use pingora::prelude::Session;
use pingora::{Error, ErrorSource, ErrorType};

/// What a request was waiting for when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// The rest of the client's body.
    Body,
    /// The upstream's answer, or the rest of it.
    Answer,
}

/// The refusal for a failed request; `None` where nobody is left to answer: the client is gone.
///
/// `fault` is what the downstream's own stream found, which pingora reports as a read error only.
pub(super) fn refusal_of(
    error: &Error,
    fault: Option<Reason>,
    waits_for: WaitsFor,
) -> Option<Refusal> {
    if let Some(reason) = fault {
        return Some(Refusal::new(reason));
    }
    let detail = error.to_string();
    let reason = match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Reason::BodyTimeout,
        (ErrorSource::Downstream, ErrorType::HTTPStatus(413)) => Reason::BodyTooLarge,
        (ErrorSource::Downstream, ErrorType::InvalidHTTPHeader) => Reason::BadSyntax,
        (
            ErrorSource::Downstream,
            ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::WriteTimedout
            | ErrorType::ConnectionClosed
            | ErrorType::H2Error,
        ) => return None,
        (ErrorSource::Downstream, _) => Reason::BadChunk,
        (_, ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout) => Reason::ConnectTimeout,
        (
            _,
            ErrorType::ConnectError
            | ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectProxyFailure
            | ErrorType::SocketError
            | ErrorType::BindError
            | ErrorType::TLSHandshakeFailure
            | ErrorType::InvalidCert
            | ErrorType::HandshakeError,
        ) => Reason::ConnectFailed,
        // An upstream that has not got the whole request owes no answer.
        (ErrorSource::Upstream, ErrorType::ReadTimedout) if waits_for == WaitsFor::Body => {
            Reason::BodyTimeout
        }
        (ErrorSource::Upstream, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => {
            Reason::UpstreamTimeout
        }
        (ErrorSource::Upstream, _) => Reason::UpstreamFailed,
        _ => Reason::Internal,
    };
    Some(Refusal::new(reason).with_detail(detail))
}

/// What a request waits for now.
pub(super) fn waits_for(session: &mut Session) -> WaitsFor {
    if session.as_downstream_mut().is_body_done() {
        WaitsFor::Answer
    } else {
        WaitsFor::Body
    }
}

/// What an error says of the colour that was asked, where there is time for another one.
pub(super) fn ending_of(
    error: &Error,
    fault: Option<Reason>,
    session: &mut Session,
) -> Option<Ending> {
    let reason = refusal_of(error, fault, waits_for(session))?.reason;
    record::ending_of(reason).filter(|_| reason != Reason::TotalTimeout)
}
