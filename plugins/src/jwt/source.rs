//! A key set behind a URL, kept fresh by a thread of its own.

mod schedule;

use super::jwks::{self, DOCUMENT_BYTES_MAX};
use super::keys::{self, Algorithm, KeySet};
use arc_swap::ArcSwap;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use schedule::Schedule;
pub(super) use schedule::Timing;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Everything that makes two sources the same one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Origin {
    pub(super) url: String,
    /// DER certificates of the authorities to trust; `None` means the system's.
    pub(super) authorities: Option<Vec<Vec<u8>>>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) timing: Timing,
}

/// The keys behind a URL. Its thread ends when the last user lets go.
///
/// Invariant: a request reads the set in force and at most sets a flag; it never waits for the thread.
/// Invariant: what is fetched, and when, depends on settings and time alone; a token can bring the next
/// fetch forward, and never to before [`Timing::early_min`] after the last one.
#[derive(Debug)]
pub(super) struct Source {
    shared: Arc<Shared>,
    thread: Thread,
    /// It belongs to the configuration in force.
    in_force: AtomicBool,
}

#[derive(Debug, Default)]
struct Shared {
    keys: ArcSwap<KeySet>,
    early: AtomicBool,
    stop: AtomicBool,
    outcomes: [AtomicU64; 3],
    /// Number of fetches that have ended, for those who wait for one.
    fetches: Mutex<u64>,
    fetched: Condvar,
    last: Mutex<Last>,
}

/// What the last fetches brought.
#[derive(Debug, Default)]
struct Last {
    /// The document of the keys in force.
    good: Option<Arc<[u8]>>,
    /// Why the last fetch brought none, if it did not.
    error: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Changed,
    Unchanged,
    Failed,
}

/// Longest fetch, from looking up the name to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

// === impl Source ===

impl Source {
    /// The source for `origin`: the one that is running, where there is one, so that a reload of the
    /// configuration neither loses keys nor fetches them anew.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(super) fn of(origin: Origin) -> std::io::Result<Arc<Self>> {
        // Bounded by what is configured: sources that have ended are swept out on every call.
        static RUNNING: Mutex<Vec<(Origin, Weak<Source>)>> = Mutex::new(Vec::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|(_, source)| source.strong_count() > 0);
        let same = running.iter().find(|(known, _)| *known == origin);
        if let Some(source) = same.and_then(|(_, source)| source.upgrade()) {
            return Ok(source);
        }
        // Other timing, authorities or algorithms for the same URL: what it gave last serves until it is
        // fetched anew.
        let seed = running
            .iter()
            .rev()
            .filter(|(known, _)| known.url == origin.url)
            .find_map(|(_, source)| source.upgrade()?.shared.last().good.clone());
        let source = Arc::new(Self::start(origin.clone(), seed)?);
        running.push((origin, Arc::downgrade(&source)));
        Ok(source)
    }

    fn start(origin: Origin, seed: Option<Arc<[u8]>>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        if let Some(document) = seed
            && let Ok(read) = jwks::read(&document, &origin.algorithms)
        {
            shared.keys.store(Arc::new(KeySet::new(read.keys)));
            shared.last().good = Some(document);
        }
        let theirs = Arc::clone(&shared);
        let handle = thread::Builder::new()
            .name("jwks".into())
            .spawn(move || Refresher::new(origin, theirs).run())?;
        Ok(Self {
            shared,
            thread: handle.thread().clone(),
            in_force: AtomicBool::new(false),
        })
    }

    /// The keys in force; none before the first fetch.
    pub(super) fn keys(&self) -> arc_swap::Guard<Arc<KeySet>> {
        self.shared.keys.load()
    }

    /// Asks for a fetch as soon as the schedule allows one. Neither waits nor allocates.
    pub(super) fn ask_early(&self) {
        // Most calls find the flag set; they do not write to the shared line.
        let shared = &self.shared;
        if !shared.early.load(Ordering::Relaxed) && !shared.early.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }

    /// Notes that it belongs to the configuration in force.
    pub(super) fn is_in_force(&self) {
        self.in_force.store(true, Ordering::Relaxed);
    }

    /// Waits until there are keys or the first fetch has failed, or it is `deadline`. Who comes to share a
    /// source that is in force goes on with what it has, keys or none.
    ///
    /// # Errors
    /// Why there are no keys.
    pub(super) fn wait_for_keys(&self, deadline: Instant) -> Result<(), String> {
        if self.in_force.load(Ordering::Relaxed) || self.keys().len() > 0 {
            return Ok(());
        }
        let longest = deadline.saturating_duration_since(Instant::now());
        let fetched = self.wait_for_fetches(1, longest);
        if self.keys().len() > 0 {
            return Ok(());
        }
        let error = self.shared.last().error.clone();
        Err(match error.filter(|_| fetched) {
            Some(error) => format!("cannot be fetched: {error}"),
            None => "is not fetched yet".into(),
        })
    }

    /// Waits until `count` fetches have ended, or `longest` has passed; says which. Not for requests.
    pub(super) fn wait_for_fetches(&self, count: u64, longest: Duration) -> bool {
        let fetches = self
            .shared
            .fetches
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .shared
            .fetched
            .wait_timeout_while(fetches, longest, |done| *done < count);
        let (fetches, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *fetches >= count
    }

    /// Fetches so far, by outcome.
    pub(super) fn counters(&self) -> Vec<(&'static str, u64)> {
        let count =
            |outcome: Outcome| self.shared.outcomes[outcome as usize].load(Ordering::Relaxed);
        [Outcome::Changed, Outcome::Unchanged, Outcome::Failed]
            .map(|outcome| (outcome.label(), count(outcome)))
            .into()
    }
}

impl Shared {
    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // Not joined: the thread may be in a fetch, which ends by its own deadline.
        self.shared.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

/// What the thread owns.
struct Refresher {
    origin: Origin,
    shared: Arc<Shared>,
    agent: Option<Agent>,
    /// SHA-256 of the document in force.
    in_force: Option<Vec<u8>>,
    random: SystemRandom,
}

struct Fetched {
    document: Vec<u8>,
    /// SHA-256 of it.
    hash: Vec<u8>,
}

// === impl Refresher ===

impl Refresher {
    fn new(origin: Origin, shared: Arc<Shared>) -> Self {
        Self {
            origin,
            shared,
            agent: None,
            in_force: None,
            random: SystemRandom::new(),
        }
    }

    fn run(mut self) {
        let mut schedule = Schedule::new(self.origin.timing, Instant::now());
        while !self.shared.stop.load(Ordering::Acquire) {
            // The flag stays up until the fetch, so that those who find it up need not wake us again.
            if self.shared.early.load(Ordering::Acquire) {
                schedule.ask_early();
            }
            let wait = schedule.wait(Instant::now());
            if !wait.is_zero() {
                // An unpark between the checks above and here makes this return at once.
                thread::park_timeout(wait);
                continue;
            }
            self.shared.early.store(false, Ordering::Release);
            let outcome = self.fetch();
            schedule.ended(
                !matches!(outcome, Outcome::Failed),
                Instant::now(),
                self.random(),
            );
            self.shared.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
            *self
                .shared
                .fetches
                .lock()
                .unwrap_or_else(PoisonError::into_inner) += 1;
            self.shared.fetched.notify_all();
        }
    }

    fn fetch(&mut self) -> Outcome {
        // A query may hold what is nobody's business.
        let url = self
            .origin
            .url
            .split('?')
            .next()
            .unwrap_or_default()
            .to_owned();
        let read = match self.get() {
            Ok(fetched) if self.in_force.as_ref() == Some(&fetched.hash) => {
                return Outcome::Unchanged;
            }
            Ok(fetched) => jwks::read(&fetched.document, &self.origin.algorithms)
                .map(|document| (document, fetched)),
            Err(error) => Err(error),
        };
        match read {
            Ok((document, fetched)) => {
                for why in &document.refused {
                    tracing::warn!(url, why, "a key of the JWKS is not used");
                }
                if let Some(algorithm) = keys::crowded(&document.keys) {
                    tracing::warn!(
                        url,
                        ?algorithm,
                        "the JWKS holds more keys without a `kid` for this algorithm than a token is tried with; the last ones serve none"
                    );
                }
                let keys = KeySet::new(document.keys);
                tracing::info!(url, keys = keys.len(), "the JWKS changed");
                self.shared.keys.store(Arc::new(keys));
                *self.shared.last() = Last {
                    good: Some(fetched.document.into()),
                    error: None,
                };
                self.in_force = Some(fetched.hash);
                Outcome::Changed
            }
            Err(error) => {
                let kept = self.shared.keys.load().len();
                tracing::warn!(
                    url,
                    error,
                    kept,
                    "the JWKS could not be fetched; the last good keys stay"
                );
                self.shared.last().error = Some(error);
                Outcome::Failed
            }
        }
    }

    fn get(&mut self) -> Result<Fetched, String> {
        let agent = match &self.agent {
            Some(agent) => agent,
            None => self
                .agent
                .insert(agent(self.origin.authorities.as_deref())?),
        };
        let mut answer = agent
            .get(&self.origin.url)
            .call()
            .map_err(|error| error.to_string())?;
        if answer.status() != 200 {
            return Err(format!("answered with status {}", answer.status().as_u16()));
        }
        let document = answer
            .body_mut()
            .with_config()
            .limit(DOCUMENT_BYTES_MAX)
            .read_to_vec()
            .map_err(|error| error.to_string())?;
        let hash = digest::digest(&digest::SHA256, &document).as_ref().to_vec();
        Ok(Fetched { document, hash })
    }

    /// Evenly spread over the `u32`s. Where the system has no random bytes, jitter is not worth failing
    /// for.
    fn random(&self) -> u32 {
        let mut bytes = [0; 4];
        match self.random.fill(&mut bytes) {
            Ok(()) => u32::from_be_bytes(bytes),
            Err(_) => u32::MAX,
        }
    }
}

fn agent(authorities: Option<&[Vec<u8>]>) -> Result<Agent, String> {
    let roots = match authorities {
        Some(authorities) => authorities.to_vec(),
        None => rustls_native_certs::load_native_certs()
            .map_err(|error| format!("the system's authorities cannot be read: {error}"))?
            .into_iter()
            .map(|certificate| certificate.to_vec())
            .collect(),
    };
    let roots: RootCerts = roots
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    let config = Agent::config_builder()
        .timeout_global(Some(FETCH_TIMEOUT))
        // An answer that points elsewhere is a failure: it would name a host that nobody configured.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        // Nor do variables of the environment decide where keys come from.
        .proxy(None)
        // A connection a fetch: minutes lie between them.
        .max_idle_connections(0)
        .max_response_header_size(16 << 10)
        .accept("application/jwk-set+json, application/json")
        .user_agent("enterprisehub-gateway")
        .tls_config(tls)
        .build();
    Ok(config.into())
}

#[cfg(test)]
pub(super) mod tests;
