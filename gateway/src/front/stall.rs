//! The end of a wait in which nothing moves.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Bounds the time for which something stands still. Costs nothing until there is something to wait for.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    waiting: bool,
    /// Kept from wait to wait.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Ready once it was polled, and not [`moved`](Self::moved), for `longest`.
    pub(crate) fn poll(&mut self, longest: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let fresh = !std::mem::replace(&mut self.waiting, true);
        let ends = || Instant::now() + longest;
        let timer = match &mut self.timer {
            Some(timer) if fresh => {
                timer.as_mut().reset(ends());
                timer
            }
            Some(timer) => timer,
            None => self
                .timer
                .insert(Box::pin(tokio::time::sleep_until(ends()))),
        };
        ready!(timer.as_mut().poll(cx));
        self.waiting = false;
        Poll::Ready(())
    }

    /// Something moved: the next wait starts anew.
    pub(crate) fn moved(&mut self) {
        self.waiting = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(10);

    async fn ended(stall: &mut Stall) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(stall.poll(LONGEST, cx).is_ready())).await
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_without_progress_counts() {
        let mut stall = Stall::default();
        for _ in 0..3 {
            assert!(!ended(&mut stall).await);
            tokio::time::advance(Duration::from_secs(9)).await;
            assert!(!ended(&mut stall).await);
            stall.moved();
        }
        assert!(!ended(&mut stall).await);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(ended(&mut stall).await);
    }
}
