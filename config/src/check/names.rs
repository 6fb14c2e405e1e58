//! Looking host names up: all at once, and under one deadline, since a resolver that is slow for one name
//! is mostly slow for all of them.

use super::Resolver;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Most look-ups at a time.
const THREADS_MAX: usize = 16;

/// A host and a port.
pub(crate) type Name = (String, u16);

/// Every address of a name, or why there is none.
pub(crate) type Answer = Result<Vec<SocketAddr>, String>;

/// Looks all `names` up. Those without an answer after `longest` are left out; a look-up cannot be
/// broken off, so the threads that wait for one end when it does.
pub(crate) fn look_up(
    resolve: &Arc<Resolver>,
    names: BTreeSet<Name>,
    longest: Duration,
) -> HashMap<Name, Answer> {
    let deadline = Instant::now() + longest;
    let count = names.len();
    let (send, answers) = sync_channel(count);
    let waiting = Arc::new(Mutex::new(names));
    for _ in 0..count.min(THREADS_MAX) {
        let (resolve, send, waiting) = (Arc::clone(resolve), send.clone(), Arc::clone(&waiting));
        let next = move || {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.pop_first()
        };
        let work = move || {
            while let Some((host, port)) = next() {
                let answer = resolve(&host, port).map_err(|error| error.to_string());
                if send.send(((host, port), answer)).is_err() {
                    return;
                }
            }
        };
        // Fewer threads take longer, and none at all is the same as no answer.
        if thread::Builder::new()
            .name("look-up".into())
            .spawn(work)
            .is_err()
        {
            break;
        }
    }
    drop(send);
    let mut found = HashMap::with_capacity(count);
    while found.len() < count {
        let left = deadline.saturating_duration_since(Instant::now());
        match answers.recv_timeout(left) {
            Ok((name, answer)) => found.insert(name, answer),
            Err(_) => break,
        };
    }
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.clear();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Barrier;

    fn names(count: u16) -> BTreeSet<Name> {
        (0..count).map(|n| (format!("host-{n}"), n)).collect()
    }

    #[test]
    fn names_are_looked_up_side_by_side() {
        // Each look-up ends only when all of them have begun.
        let all = Arc::new(Barrier::new(THREADS_MAX));
        let resolve: Arc<Resolver> = Arc::new(move |_, port| {
            all.wait();
            Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])
        });
        let found = look_up(&resolve, names(THREADS_MAX as u16), Duration::from_secs(60));
        assert_eq!(found.len(), THREADS_MAX);
        for ((_, port), answer) in found {
            assert_eq!(answer.unwrap()[0].port(), port);
        }
    }

    #[test]
    fn a_name_that_hangs_costs_the_deadline_and_the_others_have_their_answers() {
        let (release, hang) = sync_channel::<()>(0);
        let hang = Mutex::new(hang);
        let resolve: Arc<Resolver> = Arc::new(move |host, port| match host {
            "host-0" => {
                let hung_up = hang.lock().unwrap().recv();
                Err(io::Error::other(hung_up.unwrap_err()))
            }
            "host-1" => Err(io::Error::other("no such name")),
            _ => Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]),
        });
        let mut wanted = names(40);
        let found = look_up(&resolve, wanted.clone(), Duration::from_millis(500));
        drop(release);
        wanted.retain(|name| !found.contains_key(name));
        assert_eq!(wanted, names(1));
        assert!(found[&("host-1".into(), 1)].is_err());
    }
}
