//! The WebSocket server behind every proxy: one thread, every frame comes back as it was sent.
//!
//! Below `/flood` large messages come as fast as they are taken. An idle session holds no buffer here, so that
//! tens of thousands are no matter.

use super::frame::{self, Head, apply_mask};
use crate::bench::{self, Scratch, forget_ready, spawn, wait_for};
use anyhow::{Context as _, Result};
use hub_testkit::process::{Guard, usage};
use hub_testkit::websocket::accept_key;
use serde::Deserialize;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Most sessions at a time.
const SESSIONS_MAX: usize = 20_000;
/// Largest head of a handshake.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes that are read at once.
const READ_BYTES: usize = 128 << 10;
/// Payload of a message below `/flood`.
const FLOOD_BYTES: usize = 1 << 20;

/// Arguments of `hub-loadtest ws-origin`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File that gets `{"address":"IP:PORT"}` once it is listening.
    #[arg(long)]
    ready_file: PathBuf,
}

thread_local! {
    /// What was read, and what is to be sent.
    static SCRATCH: RefCell<(Vec<u8>, Vec<u8>)> =
        RefCell::new((vec![0; READ_BYTES], Vec::with_capacity(READ_BYTES)));
}

pub(crate) async fn run(args: Args) -> Result<()> {
    hub_testkit::process::raise_fd_limit(65_536);
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .context("no port is free")?;
    let address = listener.local_addr().context("the socket has no address")?;
    let ready = serde_json::json!({ "address": address.to_string() });
    bench::write_ready(&args.ready_file, &ready)?;
    serve(listener).await
}

async fn serve(listener: TcpListener) -> Result<()> {
    let places = Arc::new(Semaphore::new(SESSIONS_MAX));
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .context("the semaphore is never closed")?;
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: what is there goes on, and one may be freed.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        tokio::spawn(async move {
            // A session that breaks is the client's loss and is counted there.
            talk(stream).await.ok();
            drop(place);
        });
    }
}

async fn talk(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (floods, mut kept) = shake_hands(&mut stream).await?;
    if floods {
        return flood(stream).await;
    }
    let mut echo = Echo::default();
    if !kept.is_empty() {
        let mut answer = Vec::new();
        let taken = echo.take(&kept, &mut answer);
        kept.drain(..taken);
        stream.write_all(&answer).await?;
    }
    while !echo.ended {
        let turn = poll_fn(|cx| {
            SCRATCH.with_borrow_mut(|scratch| echo.turn(&mut stream, &mut kept, scratch, cx))
        });
        let Some(rest) = turn.await? else {
            return Ok(());
        };
        stream.write_all(&rest).await?;
    }
    stream.shutdown().await
}

/// Answers a handshake. Whether floods are asked for, and what was read behind it.
async fn shake_hands(stream: &mut TcpStream) -> std::io::Result<(bool, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if bytes.len() > HEAD_BYTES_MAX || stream.read_buf(&mut bytes).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut fields);
        let length = match request.parse(&bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => continue,
            Err(error) => return Err(Error::new(ErrorKind::InvalidData, error)),
        };
        let key = request.headers.iter();
        let key = key
            .filter(|field| field.name.eq_ignore_ascii_case("sec-websocket-key"))
            .find_map(|field| std::str::from_utf8(field.value).ok());
        let Some(key) = key else {
            let refusal =
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(refusal).await?;
            return Err(ErrorKind::InvalidData.into());
        };
        let floods = request.path.is_some_and(|path| path.contains("/flood"));
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept_key(key)
        );
        stream.write_all(answer.as_bytes()).await?;
        return Ok((floods, bytes.split_off(length)));
    }
}

async fn flood(mut stream: TcpStream) -> std::io::Result<()> {
    let mut message = Vec::with_capacity(FLOOD_BYTES + 14);
    Head::server(frame::BINARY, FLOOD_BYTES).write(&mut message);
    message.resize(message.len() + FLOOD_BYTES, b'x');
    loop {
        stream.write_all(&message).await?;
    }
}

/// One session's way from what a client sends to what goes back: each frame unmasked, Pings as Pongs,
/// Pongs not at all.
#[derive(Debug, Default)]
struct Echo {
    frame: Option<Frame>,
    /// Close was answered.
    ended: bool,
}

/// A frame under way.
#[derive(Debug)]
struct Frame {
    head: Head,
    /// Bytes of payload that were taken.
    taken: u64,
}

// === impl Echo ===

impl Echo {
    /// Reads once and sends what goes back; what the socket does not take at once is returned, which is
    /// nearly always nothing. `None` at the end of the connection.
    fn turn(
        &mut self,
        stream: &mut TcpStream,
        kept: &mut Vec<u8>,
        (read, answer): &mut (Vec<u8>, Vec<u8>),
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<Option<Vec<u8>>>> {
        let mut buffer = ReadBuf::new(read);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
        let mut shown = buffer.filled();
        if shown.is_empty() {
            return Poll::Ready(Ok(None));
        }
        if !kept.is_empty() {
            kept.extend_from_slice(shown);
            shown = kept;
        }
        answer.clear();
        let taken = self.take(shown, answer);
        *kept = shown[taken..].to_vec();
        let sent = match stream.try_write(answer) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Poll::Ready(Err(error)),
        };
        Poll::Ready(Ok(Some(answer[sent..].to_vec())))
    }

    /// Walks over `bytes` and appends what goes back. How many were taken; those after them are to be shown
    /// again with more behind them.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while !self.ended {
            let Some(frame) = &mut self.frame else {
                let Some(head) = Head::read(&bytes[at..]) else {
                    break;
                };
                at += head.len;
                let answer = Head {
                    mask: None,
                    opcode: match head.opcode {
                        frame::PING => frame::PONG,
                        other => other,
                    },
                    ..head
                };
                if head.opcode != frame::PONG {
                    answer.write(out);
                }
                self.frame = Some(Frame { head, taken: 0 });
                continue;
            };
            let left = usize::try_from(frame.head.payload - frame.taken).unwrap_or(usize::MAX);
            let part = &bytes[at..at + left.min(bytes.len() - at)];
            if frame.head.opcode != frame::PONG {
                let from = out.len();
                out.extend_from_slice(part);
                apply_mask(
                    &mut out[from..],
                    frame.head.mask.unwrap_or_default(),
                    frame.taken,
                );
            }
            at += part.len();
            frame.taken += part.len() as u64;
            if frame.taken < frame.head.payload {
                break;
            }
            self.ended = frame.head.opcode == frame::CLOSE;
            self.frame = None;
        }
        at
    }
}

/// A started origin, in a process of its own.
#[derive(Debug)]
pub(crate) struct Origin {
    guard: Guard,
    pub(crate) address: SocketAddr,
}

// === impl Origin ===

impl Origin {
    /// Starts one beside the client; `name` tells its files from another one's.
    pub(crate) async fn start(scratch: &Scratch, name: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Ready {
            address: SocketAddr,
        }
        let program = std::env::current_exe().context("this program cannot find itself")?;
        let ready_file = scratch.path(&format!("{name}.ready"));
        forget_ready(&ready_file)?;
        let log = scratch.path(&format!("{name}.out"));
        let mut command = Command::new(program);
        command
            .arg("ws-origin")
            .arg("--ready-file")
            .arg(&ready_file);
        let mut guard = spawn(command, &bench::client_cpus(), &log)?;
        let ready = wait_for(&mut guard, &log, "the WebSocket origin", async || {
            let text = std::fs::read(&ready_file).ok()?;
            serde_json::from_slice::<Ready>(&text).ok()
        });
        let address = ready.await?.address;
        Ok(Self { guard, address })
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> Result<u64> {
        let usage = usage(self.guard.pid()).context("the WebSocket origin has no figures")?;
        Ok(usage.fds)
    }

    pub(crate) async fn end(self) -> Result<()> {
        bench::end(self.guard).await
    }
}

/// One that runs in this process.
#[cfg(test)]
pub(crate) async fn started() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener));
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::frame::client_frame;

    #[test]
    fn frames_come_back_unmasked_wherever_they_are_cut() {
        let mut sent = client_frame(false, frame::TEXT, b"Hel");
        sent.extend(client_frame(true, frame::PING, b"?"));
        sent.extend(client_frame(true, frame::PONG, b"no"));
        sent.extend(client_frame(true, frame::CONTINUATION, &[b'x'; 300]));
        sent.extend(client_frame(true, frame::BINARY, b""));
        let mut expected = Vec::from(b"\x01\x03Hel\x8a\x01?\x80\x7e\x01\x2c");
        expected.extend([b'x'; 300]);
        expected.extend(b"\x82\x00");
        for cut in 0..sent.len() {
            let (mut echo, mut out) = (Echo::default(), Vec::new());
            let taken = echo.take(&sent[..cut], &mut out);
            assert!(taken <= cut);
            assert_eq!(taken + echo.take(&sent[taken..], &mut out), sent.len());
            assert_eq!(out, expected, "{cut}");
        }
    }

    #[test]
    fn nothing_comes_back_after_close() {
        let mut sent = client_frame(true, frame::CLOSE, b"\x03\xe8");
        let close = sent.len();
        sent.extend(client_frame(true, frame::TEXT, b"more"));
        let (mut echo, mut out) = (Echo::default(), Vec::new());
        assert_eq!(echo.take(&sent, &mut out), close);
        assert_eq!(out, b"\x88\x02\x03\xe8");
        assert!(echo.ended);
    }
}
