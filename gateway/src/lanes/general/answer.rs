//! The gateway's own answers through pingora's session.

use crate::respond::{Answer, Circumstances};
use crate::stages::{Exchange, forward};
use bytes::Bytes;
use hub_core::{HeaderValue, Refusal};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::prelude::Session;

/// Writes a refusal through pingora's session.
pub(super) async fn answer(
    session: &mut Session,
    exchange: &mut Exchange,
    refusal: Refusal,
) -> Result<()> {
    let request = session.req_header();
    let answer = Answer::to(
        &refusal,
        Circumstances {
            request_id: exchange.request_id,
            origin: request
                .headers
                .get(http::header::ORIGIN)
                .map(HeaderValue::as_bytes),
            cors: exchange
                .route
                .map(|route| &exchange.snapshot.config.routes[route].cors),
            edits: &exchange.edits.response,
            head_only: request.method == http::Method::HEAD,
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
