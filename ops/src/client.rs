//! One HTTP/1.1 request over loopback TCP or a unix socket. The admin API is never anywhere else, so
//! an HTTP library with TLS, pools and proxies would be all weight.

use anyhow::{Context, bail};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longest wait for the gateway; a reload of 100,000 tenants takes about a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

pub(crate) struct Client {
    admin: String,
    token: Option<String>,
}

/// What the admin API said.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Reply {
    /// Itself, where the gateway did not refuse.
    pub(crate) fn good(self) -> anyhow::Result<Self> {
        if let Some(error) = self.body.get("error") {
            bail!(
                "{} ({})",
                error["message"].as_str().unwrap_or("the gateway refused"),
                error["code"].as_str().unwrap_or("unknown"),
            );
        }
        Ok(self)
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Client {
    pub(crate) fn new(admin: &str, token: Option<String>) -> Self {
        Self {
            admin: admin.to_owned(),
            token,
        }
    }

    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.send("GET", path, None)
    }

    pub(crate) fn post(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Reply> {
        self.send("POST", path, body)
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Reply> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n",
            body.len()
        );
        if let Some(token) = &self.token {
            if token.bytes().any(|b| b.is_ascii_control()) {
                bail!("the token holds a control character; is it one line?");
            }
            request.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(&body);
        let answer = self.exchange(request.as_bytes()).with_context(|| {
            format!(
                "no answer from the admin API at {}; is the gateway running, and is --admin right?",
                self.admin
            )
        })?;
        parse(&answer)
    }

    fn exchange(&self, request: &[u8]) -> std::io::Result<Vec<u8>> {
        if let Some(path) = self.admin.strip_prefix("unix:") {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            talk(stream, request)
        } else {
            let stream = TcpStream::connect(&self.admin)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            talk(stream, request)
        }
    }
}

fn talk(mut stream: impl Read + Write, request: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> anyhow::Result<Reply> {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("the answer is not HTTP; is --admin the admin API's address?")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("the answer has no status")?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = &answer[end + 4..];
    let body = if chunked {
        unchunk(body)?
    } else {
        body.to_vec()
    };
    let body = serde_json::from_slice(&body).with_context(|| {
        format!("the answer (status {status}) is not JSON; is --admin the admin API's address?")
    })?;
    Ok(Reply { status, body })
}

fn unchunk(mut rest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest
            .windows(2)
            .position(|window| window == b"\r\n")
            .context("the answer was cut off")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line])?.trim(), 16)?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Ok(body);
        }
        if rest.len() < size + 2 {
            bail!("the answer was cut off");
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_and_without_chunks() {
        let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}";
        assert_eq!(parse(plain).expect("plain").body["a"], 1);
        let chunked =
            b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
        let reply = parse(chunked).expect("chunked");
        assert_eq!(reply.body["a"], 1);
        assert!(!reply.is_success());
    }

    #[test]
    fn what_is_no_answer_says_what_to_check() {
        let error = parse(b"SSH-2.0-OpenSSH\r\n").expect_err("not HTTP");
        assert!(error.to_string().contains("--admin"));
    }
}
