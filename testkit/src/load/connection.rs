use super::Body;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// What a connection's buffer starts with; answers of the benches fit without growing it.
const BUFFER_BYTES: usize = 8 << 10;
/// Largest head that is read before an answer counts as malformed.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;

/// One keepalive connection that carries one request at a time.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that were read and not yet consumed.
    filled: usize,
}

/// An answer, as far as a load run needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Length of the body.
    pub body_bytes: u64,
    /// Whether the body was the expected one.
    pub body_matches: bool,
    /// Whether the connection may carry another request.
    pub keepalive: bool,
}

/// An answer with everything in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullAnswer {
    /// The status code.
    pub status: u16,
    /// Names and values in the order they came in, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the connection may carry another request.
    pub keepalive: bool,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Refused,
    /// The connection broke, or was closed before the head was complete.
    Reset,
    /// The body ended early.
    ShortBody,
    /// Not an HTTP/1.1 answer that this client reads, or more bytes than it announced.
    Malformed,
}

/// How an answer's end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Bytes(u64),
    UntilClose,
}

struct Head {
    status: u16,
    length: Length,
    keepalive: bool,
    bytes: usize,
}

impl Connection {
    /// Connects, from `source` if it is given (any address of 127.0.0.0/8, to look like another
    /// client).
    ///
    /// # Errors
    /// [`Failure::Refused`], whatever the reason was.
    pub async fn connect(address: SocketAddr, source: Option<IpAddr>) -> Result<Self, Failure> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        };
        let socket = socket.map_err(|_| Failure::Refused)?;
        if let Some(source) = source {
            socket
                .bind(SocketAddr::new(source, 0))
                .map_err(|_| Failure::Refused)?;
        }
        let stream = socket
            .connect(address)
            .await
            .map_err(|_| Failure::Refused)?;
        stream.set_nodelay(true).map_err(|_| Failure::Refused)?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER_BYTES],
            filled: 0,
        })
    }

    /// True where the server has closed the connection, or sent something nobody asked for. Costs no
    /// system call while neither has happened.
    pub fn is_stale(&self) -> bool {
        !matches!(
            self.stream.try_read(&mut [0]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock
        )
    }

    /// Gives up the memory of the read buffer until the next request: for connections that are held
    /// idle by the thousand.
    pub fn release_buffer(&mut self) {
        self.buffer = Vec::new();
    }

    /// Sends `request` (a complete one) and reads its answer.
    ///
    /// # Errors
    /// After any [`Failure`] the connection must be dropped.
    pub async fn exchange(&mut self, request: &[u8], expected: Body) -> Result<Answer, Failure> {
        let head = self.send_and_read_head(request).await?;
        let mut body_bytes = 0_u64;
        let mut same = true;
        self.read_body(&head, |piece| {
            if let Body::Exact(whole) = expected {
                let at = usize::try_from(body_bytes).unwrap_or(usize::MAX);
                let here = whole.get(at..at.saturating_add(piece.len()));
                same &= here == Some(piece);
            }
            body_bytes += piece.len() as u64;
            Ok(())
        })
        .await?;
        let body_matches = match expected {
            Body::Any => true,
            Body::Length(length) => body_bytes == length,
            Body::Exact(whole) => same && body_bytes == whole.len() as u64,
        };
        Ok(Answer {
            status: head.status,
            body_bytes,
            body_matches,
            keepalive: head.keepalive,
        })
    }

    /// Sends `request` and returns the whole answer, within `timeout` and with at most
    /// `body_bytes_max` bytes of body.
    ///
    /// # Errors
    /// As [`Self::exchange`]; a longer body is [`Failure::Malformed`], a late answer
    /// [`Failure::Reset`].
    pub async fn fetch(
        &mut self,
        request: &[u8],
        body_bytes_max: usize,
        timeout: Duration,
    ) -> Result<FullAnswer, Failure> {
        tokio::time::timeout(timeout, self.fetch_unbounded(request, body_bytes_max))
            .await
            .unwrap_or(Err(Failure::Reset))
    }

    async fn fetch_unbounded(&mut self, request: &[u8], max: usize) -> Result<FullAnswer, Failure> {
        let head = self.send_and_read_head(request).await?;
        let headers = header_list(&self.buffer[..head.bytes])?;
        let mut body = Vec::new();
        self.read_body(&head, |piece| {
            if body.len() + piece.len() > max {
                return Err(Failure::Malformed);
            }
            body.extend_from_slice(piece);
            Ok(())
        })
        .await?;
        Ok(FullAnswer {
            status: head.status,
            headers,
            body,
            keepalive: head.keepalive,
        })
    }

    async fn send_and_read_head(&mut self, request: &[u8]) -> Result<Head, Failure> {
        self.stream
            .write_all(request)
            .await
            .map_err(|_| Failure::Reset)?;
        let bodiless = request.starts_with(b"HEAD ");
        loop {
            if let Some(head) = parse_head(&self.buffer[..self.filled], bodiless)? {
                if !(100..200).contains(&head.status) || head.status == 101 {
                    return Ok(head);
                }
                // An interim answer: the real one follows.
                self.buffer.copy_within(head.bytes..self.filled, 0);
                self.filled -= head.bytes;
                continue;
            }
            if self.filled == self.buffer.len() {
                if self.filled >= HEAD_BYTES_MAX {
                    return Err(Failure::Malformed);
                }
                self.buffer.resize((self.filled * 2).max(BUFFER_BYTES), 0);
            }
            match self.stream.read(&mut self.buffer[self.filled..]).await {
                Ok(0) | Err(_) => return Err(Failure::Reset),
                Ok(count) => self.filled += count,
            }
        }
    }

    /// Gives the body to `take` piece by piece and leaves the buffer empty.
    async fn read_body(
        &mut self,
        head: &Head,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let first = &self.buffer[head.bytes..self.filled];
        let mut left = match head.length {
            Length::Bytes(length) => length,
            Length::UntilClose => u64::MAX,
        };
        if first.len() as u64 > left {
            return Err(Failure::Malformed);
        }
        left -= first.len() as u64;
        take(first)?;
        self.filled = 0;
        while left > 0 {
            match self.stream.read(&mut self.buffer).await {
                Ok(0) if head.length == Length::UntilClose => break,
                Ok(0) => return Err(Failure::ShortBody),
                Ok(count) if count as u64 > left => return Err(Failure::Malformed),
                Ok(count) => {
                    take(&self.buffer[..count])?;
                    left -= count as u64;
                }
                Err(_) => return Err(Failure::Reset),
            }
        }
        Ok(())
    }
}

/// Reads one head; `None` while it is incomplete.
fn parse_head(bytes: &[u8], bodiless: bool) -> Result<Option<Head>, Failure> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Failure::Malformed),
    };
    let status = response.code.ok_or(Failure::Malformed)?;
    let mut keepalive = response.version == Some(1);
    let mut length = None;
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let value = decimal(field.value)?;
            if length.is_some_and(|earlier| earlier != value) {
                return Err(Failure::Malformed);
            }
            length = Some(value);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Failure::Malformed);
        } else if field.name.eq_ignore_ascii_case("connection")
            && field.value.eq_ignore_ascii_case(b"close")
        {
            keepalive = false;
        }
    }
    let length = match length {
        _ if bodiless || matches!(status, 100..200 | 204 | 304) => Length::Bytes(0),
        Some(length) => Length::Bytes(length),
        None => Length::UntilClose,
    };
    keepalive &= length != Length::UntilClose;
    Ok(Some(Head {
        status,
        length,
        keepalive,
        bytes,
    }))
}

/// Reads `Content-Length` strictly: digits alone, at most 18 of them.
fn decimal(value: &[u8]) -> Result<u64, Failure> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Failure::Malformed);
    }
    Ok(value
        .iter()
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

fn header_list(head: &[u8]) -> Result<Vec<(String, String)>, Failure> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    response.parse(head).map_err(|_| Failure::Malformed)?;
    let text = |field: &httparse::Header<'_>| {
        (
            field.name.to_ascii_lowercase(),
            String::from_utf8_lossy(field.value).into_owned(),
        )
    };
    Ok(response.headers.iter().map(text).collect())
}

impl FullAnswer {
    /// Every value of the header `name` (lower case).
    pub fn header_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text, bytes that are not UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
