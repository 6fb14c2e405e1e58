//! Says when something is due, at a fixed rate and whatever became of what was due before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What is due, and since when.
pub(crate) type Due = (u64, Instant);

/// A thread that keeps the time: tokio's timers tick in milliseconds, which would be added to every
/// latency. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// When number 0 was due.
    pub(crate) began: Instant,
    stopped: Arc<AtomicBool>,
    missed: Arc<AtomicU64>,
}

impl Pacer {
    /// Makes `rate` things due a second, above 0; at most `queue_max` wait for the receiver.
    pub(crate) fn start(rate: f64, queue_max: usize) -> (Self, mpsc::Receiver<Due>) {
        let (due, queue) = mpsc::channel(queue_max);
        let pacer = Self {
            began: Instant::now(),
            stopped: Arc::default(),
            missed: Arc::default(),
        };
        let (began, stopped) = (pacer.began, Arc::clone(&pacer.stopped));
        let missed = Arc::clone(&pacer.missed);
        // Not joined: it ends within one pause of the value.
        std::thread::spawn(move || pace(began, rate, &stopped, &missed, &due));
        (pacer, queue)
    }

    /// Nothing more becomes due; the receiver ends soon.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// How many were due while as many as may wait did.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn pace(
    began: Instant,
    rate: f64,
    stopped: &AtomicBool,
    missed: &AtomicU64,
    due: &mpsc::Sender<Due>,
) {
    for number in 0_u64.. {
        let at = began + Duration::from_secs_f64(number as f64 / rate);
        loop {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // The cap keeps the end from being slept through at low rates.
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        match due.try_send((number, at)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                missed.fetch_add(1, Ordering::Relaxed);
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_due_comes_in_turn_at_its_time_and_ends_with_the_pacer() {
        let (pacer, mut queue) = Pacer::start(1_000.0, 64);
        for expected in 0..10 {
            let (number, at) = queue.recv().await.unwrap();
            assert_eq!(number, expected);
            assert_eq!(at, pacer.began + Duration::from_millis(number));
        }
        drop(pacer);
        while queue.recv().await.is_some() {}
    }

    #[tokio::test]
    async fn what_finds_no_place_in_the_queue_is_counted() {
        let (pacer, mut queue) = Pacer::start(100_000.0, 1);
        let deadline = Instant::now() + Duration::from_secs(10);
        while pacer.missed() == 0 {
            assert!(Instant::now() < deadline, "nothing was missed");
            std::thread::yield_now();
        }
        assert_eq!(queue.recv().await.unwrap().0, 0);
    }
}
