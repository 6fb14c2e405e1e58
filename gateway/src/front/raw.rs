//! The socket as accepted, before TLS: it can give back bytes that were read too early.

use super::wrap::delegate_io;
use pingora::protocols::Stream;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// An accepted stream with the bytes that followed its PROXY header, which TLS or HTTP is to read
/// first.
#[derive(Debug)]
pub(crate) struct Raw {
    inner: Stream,
    unread: Vec<u8>,
}

impl Raw {
    pub(crate) fn new(inner: Stream, unread: Vec<u8>) -> Self {
        Self { inner, unread }
    }

    /// Puts bytes back that were read too early; they are the next to be read.
    pub(crate) fn give_back(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.unread.is_empty(), "bytes are given back once");
        self.unread = bytes;
    }

    /// The stream and what was given back but not read again.
    pub(crate) fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.inner, self.unread)
    }
}

delegate_io!(Raw);

impl AsyncRead for Raw {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = buf.remaining().min(self.unread.len());
        buf.put_slice(&self.unread[..count]);
        self.unread.drain(..count);
        if self.unread.is_empty() {
            self.unread = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}
