//! A stream that comes back from code that would drop it.

use super::wrap::delegate_io;
use pingora::protocols::Stream;
use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;

/// A stream on loan: dropping it gives it back.
#[derive(Debug)]
pub(super) struct Loan {
    inner: Stream,
    back: Option<oneshot::Sender<Stream>>,
}

impl Loan {
    /// `stream` on loan, and where it comes back.
    pub(super) fn of(stream: Stream) -> (Self, oneshot::Receiver<Stream>) {
        let (back, returned) = oneshot::channel();
        let loan = Self {
            inner: stream,
            back: Some(back),
        };
        (loan, returned)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(back) = self.back.take() {
            // The stream cannot be moved out without something in its place. Where nobody waits for it,
            // it is closed here.
            let stand_in: Stream = Box::new(Cursor::new(Vec::new()));
            back.send(std::mem::replace(&mut self.inner, stand_in)).ok();
        }
    }
}

delegate_io!(Loan);

impl AsyncRead for Loan {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}
