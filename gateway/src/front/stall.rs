//! How long a client may take nothing of what is ready for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Bounds the time in which writing makes no progress. Costs a comparison where the socket takes the
/// bytes at once, which is nearly always.
#[derive(Debug)]
pub(super) struct Stall {
    longest: Duration,
    /// Set while the last write, flush or shutdown found the socket full.
    waiting: bool,
    /// Kept from stall to stall.
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Stall {
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            longest,
            waiting: false,
            timer: None,
        }
    }

    pub(super) fn set_longest(&mut self, longest: Duration) {
        self.longest = longest;
    }

    /// Passes on how writing went. One that has waited too long since the last progress fails.
    pub(super) fn watch<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        if !self.waiting {
            self.waiting = true;
            let ends = Instant::now() + self.longest;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(ends),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(ends))),
            }
        }
        match self.timer.as_mut().map(|timer| timer.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn watch(stall: &mut Stall, written: impl Fn() -> Poll<io::Result<()>>) -> Option<bool> {
        std::future::poll_fn(|cx| {
            Poll::Ready(match stall.watch(written(), cx) {
                Poll::Pending => None,
                Poll::Ready(done) => Some(done.is_ok()),
            })
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_without_progress_counts() {
        let full = || Poll::Pending;
        let taken = || Poll::Ready(Ok(()));
        let mut stall = Stall::new(Duration::from_secs(10));
        for _ in 0..3 {
            assert_eq!(watch(&mut stall, full).await, None);
            tokio::time::advance(Duration::from_secs(9)).await;
            assert_eq!(watch(&mut stall, full).await, None);
            assert_eq!(watch(&mut stall, taken).await, Some(true));
        }
        assert_eq!(watch(&mut stall, full).await, None);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(watch(&mut stall, full).await, Some(false));
    }
}
