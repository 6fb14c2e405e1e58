//! What the reload thread is asked for, and what holds it back.

use super::{Fence, Options, Outcome, Trigger};
use crate::control::stamps::Stamps;
use crate::snapshot::Snapshot;
use parking_lot::{Condvar, Mutex};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Callers that may wait for an outcome; more are told to try again.
pub(super) const QUEUE: usize = 8;

pub(super) struct Job {
    pub(super) trigger: Trigger,
    pub(super) options: Options,
    pub(super) done: oneshot::Sender<Outcome>,
}

/// What the reload thread was asked for and has not begun.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) asked: Mutex<Asked>,
    pub(super) wake: Condvar,
    /// A reload is at work.
    pub(super) running: watch::Sender<bool>,
    /// Every file of the last load, good or not, as that load read it.
    pub(super) read: Mutex<Stamps>,
    /// What colours may come into use, where there is a store.
    pub(super) fence: OnceLock<Fence>,
}

#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Nobody waits for the outcome of this one, so one stands for any number.
    pub(super) nudge: Option<Trigger>,
    pub(super) jobs: Vec<Job>,
    /// Nothing of it is begun.
    pub(super) held: bool,
    /// Snapshots that others have replaced, to be freed.
    pub(super) retired: Vec<Arc<Snapshot>>,
}

/// Requests that one load answers.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) nudge: Option<Trigger>,
    pub(super) jobs: Vec<Job>,
    pub(super) options: Options,
}

/// While this is there no reload begins, and none is at work.
#[derive(Debug)]
pub(crate) struct HeldReloads {
    queue: Arc<Queue>,
    /// They stay held.
    ended: bool,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("trigger", &self.trigger)
            .finish_non_exhaustive()
    }
}

// === impl HeldReloads ===

impl HeldReloads {
    pub(super) async fn hold(queue: &Arc<Queue>) -> Self {
        queue.asked.lock().held = true;
        let held = Self {
            queue: Arc::clone(queue),
            ended: false,
        };
        let mut running = queue.running.subscribe();
        // Its sender is the queue's.
        let _closed = running.wait_for(|running| !running).await.map(drop);
        held
    }

    /// Another process serves: no reload begins here any more. True where one was asked for that nobody waits
    /// for, which is the other process's to do.
    pub(crate) fn end(mut self) -> bool {
        self.ended = true;
        let mut asked = self.queue.asked.lock();
        // Who waits for an outcome hears that there is none.
        asked.jobs.clear();
        asked.nudge.take().is_some()
    }
}

impl Drop for HeldReloads {
    fn drop(&mut self) {
        if !self.ended {
            self.queue.asked.lock().held = false;
            self.queue.wake.notify_one();
        }
    }
}

// === impl Queue ===

impl Queue {
    /// What is to be done next: all reloads that wait, since one load answers all of them, or else all
    /// dry runs. `None` where nothing comes within `longest`,
    /// or where there are retired snapshots to be taken.
    pub(super) fn next(&self, longest: Option<Duration>) -> Option<Batch> {
        let mut asked = self.asked.lock();
        while asked.held || (asked.nudge.is_none() && asked.jobs.is_empty()) {
            if !asked.retired.is_empty() {
                return None;
            }
            match longest {
                None => self.wake.wait(&mut asked),
                Some(longest) => {
                    if self.wake.wait_for(&mut asked, longest).timed_out() {
                        return None;
                    }
                }
            }
        }
        let nudge = asked.nudge.take();
        let is_reload = |job: &Job| !job.options.dry_run;
        let dry_run = nudge.is_none() && !asked.jobs.iter().any(is_reload);
        let allows = |job: &Job| job.options.dry_run == dry_run && job.options.allow_removals;
        let options = Options {
            dry_run,
            allow_removals: asked.jobs.iter().any(allows),
        };
        let jobs = asked.jobs.extract_if(.., |job| job.options == options);
        // Before the lock is let go: who holds reloads then sees this one.
        self.running.send_replace(true);
        Some(Batch {
            jobs: jobs.collect(),
            nudge,
            options,
        })
    }

    /// Snapshots that others have replaced.
    pub(super) fn take_retired(&self) -> Vec<Arc<Snapshot>> {
        std::mem::take(&mut self.asked.lock().retired)
    }
}

impl Batch {
    pub(super) fn trigger(&self) -> Trigger {
        let asked = self.jobs.iter().map(|job| job.trigger).next();
        asked.or(self.nudge).unwrap_or(Trigger::Admin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::reload::{NotNow, Reloader};

    fn job(dry_run: bool) -> Job {
        Job {
            trigger: Trigger::Admin,
            options: Options {
                dry_run,
                allow_removals: false,
            },
            done: oneshot::channel().0,
        }
    }

    #[test]
    fn one_load_answers_all_that_wait_for_one() {
        let reloader = Reloader {
            queue: Arc::default(),
        };
        for _ in 0..QUEUE {
            reloader.nudge(Trigger::Signal);
        }
        reloader.nudge(Trigger::FileChange);
        let jobs = [job(true), job(false), job(true), job(false)];
        reloader.queue.asked.lock().jobs.extend(jobs);
        let next = || reloader.queue.next(Some(Duration::ZERO));
        let batch = next().expect("a reload");
        assert_eq!((batch.jobs.len(), batch.options.dry_run), (2, false));
        assert_eq!(batch.nudge, Some(Trigger::Signal));
        let batch = next().expect("a dry run");
        assert_eq!((batch.jobs.len(), batch.options.dry_run), (2, true));
        assert!(next().is_none());
    }

    #[tokio::test]
    async fn while_reloads_are_held_none_begins_and_what_was_asked_for_is_kept() {
        let reloader = Reloader {
            queue: Arc::default(),
        };
        let next = || reloader.queue.next(Some(Duration::ZERO));
        reloader.nudge(Trigger::Signal);
        assert!(next().is_some());
        // That one is at work.
        let early = tokio::time::timeout(Duration::from_millis(20), reloader.hold()).await;
        assert!(early.is_err());
        reloader.queue.running.send_replace(false);
        let held = reloader.hold().await;
        reloader.nudge(Trigger::Signal);
        let refused = reloader.reload(Trigger::Admin, Options::default()).await;
        assert_eq!(refused.err(), Some(NotNow::Upgrading));
        assert!(next().is_none());
        drop(held);
        assert!(next().is_some());
        reloader.queue.running.send_replace(false);
        let held = reloader.hold().await;
        reloader.nudge(Trigger::FileChange);
        assert!(held.end(), "the other process is to do it");
        reloader.nudge(Trigger::FileChange);
        assert!(next().is_none());
    }

    #[test]
    fn dry_runs_that_fill_the_queue_hide_no_nudge() {
        let reloader = Reloader {
            queue: Arc::default(),
        };
        let jobs = (0..QUEUE).map(|_| job(true));
        reloader.queue.asked.lock().jobs.extend(jobs);
        reloader.nudge(Trigger::FileChange);
        let batch = reloader.queue.next(None).expect("a reload");
        assert!(!batch.options.dry_run && batch.jobs.is_empty());
    }
}
