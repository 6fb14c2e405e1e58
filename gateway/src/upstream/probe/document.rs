//! What an endpoint says of itself in the body of its answer to a health check.

use super::{Trust, cannot_connect, status};
use crate::upstream::checks::Settings;
use crate::upstream::endpoint::Endpoint;
use hub_config::runtime::{EndpointAddress, HealthProbe};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Most bytes of an answer that are read, head and body.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Asks for the document once.
///
/// # Errors
/// Where the endpoint does not answer in the check's time with the check's status and a whole body of at
/// most [`ANSWER_BYTES_MAX`], or its check is not HTTP.
pub(in crate::upstream) async fn document(
    endpoint: &Endpoint,
    settings: &Settings,
) -> Result<Vec<u8>, String> {
    match tokio::time::timeout(settings.timeout, ask(endpoint, settings)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!(
            "no document within {} ms",
            settings.timeout.as_millis()
        )),
    }
}

async fn ask(endpoint: &Endpoint, settings: &Settings) -> Result<Vec<u8>, String> {
    let HealthProbe::Http {
        path,
        host,
        status: wanted,
        ..
    } = &settings.probe
    else {
        return Err("its health check is not HTTP, so there is no document".into());
    };
    let mut stream = connect(endpoint, settings).await?;
    let host = match (host, endpoint.address()) {
        (Some(host), _) => host,
        (None, EndpointAddress::Tcp(_)) => endpoint.name(),
        (None, EndpointAddress::Unix(_)) => "localhost",
    };
    // HTTP/1.0, which has neither chunks nor informational answers.
    let request = format!(
        "GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: hub-gateway-schema\r\nAccept: \
         application/json\r\nConnection: close\r\n\r\n"
    );
    let broke = |error: std::io::Error| format!("the connection broke: {error}");
    stream.write_all(request.as_bytes()).await.map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let mut answer = Vec::new();
    loop {
        if let Some(head) = Head::read(&answer)? {
            if head.status != *wanted {
                return Err(format!("answered {}, not {wanted}", head.status));
            }
            if let Some(end) = head.end.filter(|end| *end <= answer.len()) {
                return Ok(answer[head.body..end].to_vec());
            }
        }
        let room = ANSWER_BYTES_MAX - answer.len();
        if room == 0 {
            return Err(format!(
                "the document has more than {ANSWER_BYTES_MAX} bytes"
            ));
        }
        let mut part = (&mut stream).take(room as u64);
        if part.read_buf(&mut answer).await.map_err(broke)? == 0 {
            return match Head::read(&answer)? {
                Some(Head {
                    body, end: None, ..
                }) => Ok(answer.split_off(body)),
                Some(_) | None => Err("the answer was cut off".into()),
            };
        }
    }
}

async fn connect(endpoint: &Endpoint, settings: &Settings) -> Result<Box<dyn Stream>, String> {
    let stream: Box<dyn Stream> = match endpoint.address() {
        EndpointAddress::Tcp(address) => {
            Box::new(TcpStream::connect(address).await.map_err(cannot_connect)?)
        }
        EndpointAddress::Unix(path) => {
            Box::new(UnixStream::connect(path).await.map_err(cannot_connect)?)
        }
    };
    let Some(tls) = settings.tls.clone() else {
        return Ok(stream);
    };
    // May read the system's certificate store.
    let tls = tokio::task::spawn_blocking(move || Trust::default().tls(&tls));
    let tls = tls.await.map_err(|error| error.to_string())??;
    let secured = tls.connector.connect(tls.name, stream).await;
    let secured = secured.map_err(|error| format!("TLS handshake failed: {error}"))?;
    Ok(Box::new(secured))
}

/// What of a head says where the body is.
struct Head {
    status: u16,
    /// Where the body begins.
    body: usize,
    /// Where it ends; `None` where the connection's end says so.
    end: Option<usize>,
}

impl Head {
    /// `None` while more is needed.
    fn read(answer: &[u8]) -> Result<Option<Self>, String> {
        let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            return Ok(None);
        };
        let body = head + 4;
        let text = String::from_utf8_lossy(&answer[..head]);
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| status(line.as_bytes()));
        let mut end = None;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err("the answer has a transfer encoding, which HTTP/1.0 has not".into());
            }
            if name.eq_ignore_ascii_case("content-length") {
                let length: usize = value
                    .trim()
                    .parse()
                    .map_err(|_| "its Content-Length is no number".to_owned())?;
                end = Some(body.saturating_add(length));
            }
        }
        Ok(Some(Self {
            status: status.ok_or("the answer is not HTTP/1")?,
            body,
            end,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::Head;

    #[test]
    fn the_body_ends_where_its_length_or_the_connection_says() {
        let read = |text: &str| Head::read(text.as_bytes());
        let head = read("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").expect("a head");
        let head = head.expect("all of it");
        assert_eq!((head.status, head.body, head.end), (200, 38, Some(40)));
        let head = read("HTTP/1.0 503 No\r\n\r\n").expect("a head");
        assert_eq!(head.map(|head| (head.status, head.end)), Some((503, None)));
        assert!(
            read("HTTP/1.1 200 OK\r\nX: y\r\n")
                .expect("so far")
                .is_none()
        );
        assert!(read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(read("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").is_err());
        assert!(read("SSH-2.0\r\n\r\n").is_err());
    }
}
