//! The sending half of a peer.

use super::{Frame, PATIENCE, Role};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Sends whatever the test says.
#[derive(Debug)]
pub struct Sender<W> {
    pub(super) stream: W,
    pub(super) role: Role,
}

impl<W: AsyncWrite + Unpin> Sender<W> {
    /// Sends a frame.
    ///
    /// # Panics
    /// Where the other end is gone, or takes nothing for [`PATIENCE`]; so do the others, but those with
    /// `try`.
    pub async fn send(&mut self, frame: &Frame) {
        self.send_raw(frame.bytes(self.role)).await;
    }

    /// Sends a frame, if the other end takes it.
    pub async fn try_send(&mut self, frame: &Frame) -> io::Result<()> {
        self.try_send_raw(frame.bytes(self.role)).await
    }

    /// Sends bytes.
    pub async fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send_raw(bytes)
            .await
            .unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends bytes, if the other end takes them.
    ///
    /// # Errors
    /// Where it is gone, or has taken nothing for [`PATIENCE`].
    pub async fn try_send_raw(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let sent = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        tokio::time::timeout(PATIENCE, sent)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Sends bytes in writes of `size`, and lets other tasks run between them. The other end may still
    /// read several at once.
    pub async fn try_send_in_pieces(&mut self, bytes: &[u8], size: usize) -> io::Result<()> {
        for piece in bytes.chunks(size) {
            self.try_send_raw(piece).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Sends these bytes again and again, until the other end has taken nothing for `quiet`, is gone, or
    /// has taken `limit` bytes. How many it took.
    pub async fn send_until_stuck(&mut self, bytes: &[u8], limit: u64, quiet: Duration) -> u64 {
        let mut sent = 0;
        while sent < limit {
            // Where it stopped, so that frames stay whole.
            let from = (sent % bytes.len() as u64) as usize;
            match tokio::time::timeout(quiet, self.stream.write(&bytes[from..])).await {
                Ok(Ok(count @ 1..)) => sent += count as u64,
                Ok(_) | Err(_) => break,
            }
        }
        sent
    }

    /// Closes this half of the connection.
    pub async fn finish(&mut self) {
        // Where the other end is gone it is closed already.
        self.stream.shutdown().await.ok();
    }
}
