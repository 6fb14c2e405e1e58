//! The gateway's own answers through pingora's session.

use super::Admitted;
use crate::respond::{Answer, Circumstances};
use crate::stages::forward;
use bytes::Bytes;
use hub_core::{HeaderValue, Refusal};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::prelude::Session;

/// Writes a refusal through pingora's session.
pub(super) async fn answer(
    session: &mut Session,
    admitted: &mut Admitted,
    refusal: Refusal,
) -> Result<()> {
    let asked = &admitted.asked;
    let exchange = &mut *admitted.exchange;
    let answer = Answer::to(
        &refusal,
        Circumstances {
            request_id: exchange.request_id,
            origin: asked.origin.as_ref().map(HeaderValue::as_bytes),
            cors: exchange
                .route
                .map(|route| &exchange.snapshot.config.routes[route].cors),
            edits: &exchange.edits.response,
            head_only: asked.method == http::Method::HEAD,
        },
    );
    exchange.refuse(refusal);
    let mut response = ResponseHeader::build(answer.status, Some(answer.headers.len() + 4))?;
    for (name, value) in answer.headers {
        response.append_header(name, value)?;
    }
    for (name, value) in forward::rate_headers(exchange).into_iter().flatten() {
        response.insert_header(name, value)?;
    }
    let body = Bytes::from(answer.body);
    let empty = body.is_empty();
    session
        .write_response_header(Box::new(response), empty)
        .await?;
    if !empty {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// True where the final answer has begun: after an interim one it is still due.
pub(super) fn is_answered(session: &Session) -> bool {
    session.response_written().is_some_and(|response| {
        !response.status.is_informational() || response.status.as_u16() == 101
    })
}
