//! A process asks itself before it asks for anybody's clients.
//!
//! One request for each listener, by its settings, through a socket on loopback: pingora's accept loop, the
//! front, the strict parser, the stages and the answer. It announces more body than any route may have, so
//! that the gateway itself refuses it at the latest after the tenant was found, and no upstream hears of it.
//! What it leaves: a line of the access log and a counted refusal. What it leaves out: TLS handshakes
//! (certificates are loaded and checked before), PROXY headers, and the general lane.

use super::serve::Server;
use crate::front::listener::BoundListener;
use crate::hub::Hub;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Most that is read of an answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// A byte more than any route may be configured to take.
const REQUEST: &str = "POST /.well-known/hub-gateway/self-probe HTTP/1.1\r\nHost: hub-gateway.invalid\r\n\
                       User-Agent: hub-gateway-self-probe\r\nContent-Length: 1099511627777\r\n\
                       Connection: close\r\n\r\n";

/// Asks by the settings of each listener. `Err` names the listener and what was wrong.
pub(super) async fn ask_ourselves(hub: &Hub, server: &Server, data: &Handle) -> Result<(), String> {
    for (index, listener) in hub.listeners.iter().enumerate() {
        let name = &listener.name;
        let wrong = |what: String| format!("the probe of listener `{name}`: {what}");
        let bound = BoundListener::probe(name).map_err(|error| wrong(error.to_string()))?;
        let bound = Arc::new(bound);
        let (stop, stopped) = watch::channel(false);
        let serve = server.listen(index, &bound, stopped);
        data.spawn(serve.map_err(|error| wrong(error.to_string()))?);
        let answered = timeout(ANSWER_MAX, ask(&bound)).await;
        stop.send_replace(true);
        let answer = answered.map_err(|_| wrong(format!("no answer in {ANSWER_MAX:?}")))?;
        let answer = answer.map_err(|error| wrong(error.to_string()))?;
        judge(&answer).map_err(wrong)?;
    }
    Ok(())
}

async fn ask(bound: &BoundListener) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(bound.address).await?;
    stream.write_all(REQUEST.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut head = stream.take(ANSWER_BYTES_MAX);
    // To the end of the head; the body says the same for people.
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    Ok(answer)
}

/// An answer of the gateway's own, whatever it refuses the request for: which stage comes first to do so
/// is the configuration's business.
fn judge(answer: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().next().unwrap_or_default();
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let status = status.and_then(|status| status.parse::<u16>().ok());
    let is_refusal = status.is_some_and(|status| (400..600).contains(&status) && status != 500);
    let is_ours = text.to_ascii_lowercase().contains("\r\nx-request-id:");
    match is_refusal && is_ours {
        true => Ok(()),
        false => Err(format!("this is no refusal of the gateway's: {line:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_the_gateway_s_own_is_good() {
        let answer = |status: &str, fields: &str| format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n");
        let own = "X-Request-Id: 1";
        for good in [
            "413 Content Too Large",
            "404 Not Found",
            "503 Service Unavailable",
        ] {
            assert!(judge(answer(good, own).as_bytes()).is_ok(), "{good}");
        }
        for bad in ["200 OK", "500 Internal Server Error", "x"] {
            assert!(judge(answer(bad, own).as_bytes()).is_err(), "{bad}");
        }
        assert!(judge(answer("404 Not Found", "Server: other").as_bytes()).is_err());
        assert!(judge(b"").is_err());
    }
}
