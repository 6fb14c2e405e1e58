//! How long a step has been running.

use hub_store::migrate::Progress;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often it is shown anew.
pub(super) const PERIOD: Duration = Duration::from_millis(500);

/// On a terminal, how long the step has been running.
pub(super) struct Clock {
    live: bool,
    running: Mutex<Option<(u32, Instant)>>,
}

impl Clock {
    pub(super) fn new(live: bool) -> Self {
        Self {
            live,
            running: Mutex::default(),
        }
    }

    pub(super) fn note(&self, progress: &Progress) {
        let mut running = self.running.lock().unwrap_or_else(|dead| dead.into_inner());
        match progress {
            Progress::Begun { number, .. } => *running = Some((*number, Instant::now())),
            Progress::Applied { .. } | Progress::Adopted { .. } => *running = None,
            Progress::Retrying { .. } => {}
        }
    }

    pub(super) fn show(&self) {
        let running = *self.running.lock().unwrap_or_else(|dead| dead.into_inner());
        if let (true, Some((number, since))) = (self.live, running) {
            print!("\r\x1b[2K{number:04}  {} s", since.elapsed().as_secs());
            std::io::stdout().flush().ok();
        }
    }

    /// Takes the line of [`Self::show`] away.
    pub(super) fn clear(&self) {
        if self.live {
            print!("\r\x1b[2K");
            std::io::stdout().flush().ok();
        }
    }
}
