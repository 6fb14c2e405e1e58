//! Everything of a reload that takes long and changes nothing: reading, checking, comparing, building.

use super::queue::Queue;
use super::{Options, Outcome, load, tell_warnings};
use crate::control::stamps::Stamps;
use crate::front::tls;
use crate::hub::Hub;
use crate::snapshot::{Snapshot, colour_name};
use crate::switch::admission::Wanted;
use crate::telemetry::AccessLog;
use crate::telemetry::access_log::Prepared as PreparedLog;
use crate::telemetry::metrics::{CERTIFICATES_REJECTED, RouteKey};
use hub_config::{Diff, runtime};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// What came of it.
pub(super) enum Prepared {
    /// There is nothing to put in force.
    Done(Outcome),
    /// This can be put in force.
    Ready(Box<Ready>),
}

/// A configuration that can be put in force, if the ledger of migrations lets its colours pass.
pub(super) struct Ready {
    pub(super) next: Arc<Snapshot>,
    /// The colours that it brings into use, where there is a ledger of migrations.
    pub(super) wanted: Option<Wanted>,
    pub(super) diff: Diff,
    /// Series of what is no more.
    pub(super) gone: Vec<RouteKey>,
    /// By position of the listener.
    pub(super) certificates: Vec<(usize, tls::Prepared)>,
    /// Some certificate is another one.
    pub(super) rotated: bool,
    /// The access log's new target, where it is another one.
    pub(super) log: Option<PreparedLog>,
}

/// Prepares a reload. `queue` learns which files were read.
pub(super) fn prepare(hub: &Hub, file: &Path, queue: &Queue, options: Options) -> Prepared {
    let current = hub.snapshot();
    let began = SystemTime::now();
    let mut known = files(file, &current.config);
    known.extend(queue.read.lock().files().cloned());
    let before = Stamps::now(&known);
    // Now already, so that nobody asks for a second reload for what this one is about to read.
    if !options.dry_run {
        *queue.read.lock() = before.clone();
    }
    let loaded = load(file, Some(&current.config), options.allow_removals);
    let read = match &loaded {
        Ok(config) => files(file, config),
        Err(problems) => {
            // How far it was read is not known; what is in force may be named there, too.
            let mut read = problems.files().to_vec();
            read.extend(files(file, &current.config));
            read
        }
    };
    // A dry run puts nothing in force, so what it has read is still to be loaded.
    if !options.dry_run {
        *queue.read.lock() = before.read_since(began, &read);
    }
    let config = match loaded {
        Ok(config) => config,
        Err(problems) => {
            return Prepared::Done(Outcome::Rejected {
                problems: problems.iter().map(ToString::to_string).collect(),
            });
        }
    };
    tell_warnings(&config);
    match prepare_config(hub, &current, config, queue, options.dry_run) {
        Ok(prepared) => prepared,
        Err(problem) => Prepared::Done(Outcome::Rejected {
            problems: vec![problem],
        }),
    }
}

fn prepare_config(
    hub: &Hub,
    current: &Snapshot,
    config: runtime::Config,
    queue: &Queue,
    dry_run: bool,
) -> Result<Prepared, String> {
    let mut diff = hub_config::diff(&current.config, &config);
    note_decided(hub, current, &config, &mut diff, dry_run);
    if !diff.needs_upgrade.is_empty() {
        return Ok(Prepared::Done(Outcome::NeedsUpgrade {
            settings: diff.needs_upgrade.clone(),
            diff,
        }));
    }
    let certificates = prepare_certificates(hub, &config)?;
    let rotated = note_rotated(hub, &certificates, &mut diff);
    let log =
        match &config.access_log.target {
            target if *target == current.config.access_log.target => None,
            target => Some(AccessLog::prepare(target).map_err(|error| {
                format!("access_log.target: {target:?} cannot be opened: {error}")
            })?),
        };
    if dry_run {
        return Ok(Prepared::Done(Outcome::WouldApply { diff }));
    }
    // The hash leaves secrets out, since it is shown; the difference knows of them.
    if config.hash == current.config.hash && diff.is_empty() {
        return Ok(Prepared::Done(Outcome::Unchanged { hash: config.hash }));
    }
    let next = Snapshot::build(config, Some(current), hub);
    let fence = queue.fence.get();
    let wanted = fence.map(|fence| fence.runtime.block_on(fence.ledger.wanted(&next)));
    Ok(Prepared::Ready(Box::new(Ready {
        gone: next.lacks_of(current),
        next: Arc::new(next),
        wanted,
        diff,
        certificates,
        rotated,
        log,
    })))
}

/// Says of a changed `active` that it moves nobody, where a rollout has decided which colour is active.
fn note_decided(
    hub: &Hub,
    current: &Snapshot,
    config: &runtime::Config,
    diff: &mut Diff,
    dry_run: bool,
) {
    for cluster in &config.clusters {
        let name = &cluster.name;
        let mut before = current.config.clusters.iter();
        let changed = before.any(|known| known.name == *name && known.active != cluster.active);
        let decided = hub.switchboard.is_decided(name);
        let Some(present) = hub.switchboard.present(name).filter(|_| changed && decided) else {
            continue;
        };
        let active = colour_name(present.routing.active);
        let why = format!(
            "moves nobody: a rollout has decided that {active} is active, and `hubctl rollout start {name}` is what changes it"
        );
        if !dry_run {
            tracing::warn!(cluster = name, active, "a changed setting `active` {why}");
        }
        diff.remark(&format!("cluster {name:?}.active"), &why);
    }
}

/// Reads every listener's certificates, so that a bad one refuses the reload as a whole.
fn prepare_certificates(
    hub: &Hub,
    config: &runtime::Config,
) -> Result<Vec<(usize, tls::Prepared)>, String> {
    let mut prepared = Vec::new();
    for (index, settings) in hub.in_bound_order(&config.listeners).iter().enumerate() {
        let (Some(tls), Some(settings)) = (&hub.listeners[index].tls, &settings.tls) else {
            continue;
        };
        let certificates = tls.prepare(settings).map_err(|error| {
            hub.metrics.certificates_read(CERTIFICATES_REJECTED);
            format!("listener `{}`: {error}", hub.listeners[index].name)
        })?;
        prepared.push((index, certificates));
    }
    Ok(prepared)
}

/// Adds what is another certificate under the same settings; true where there is one.
fn note_rotated(hub: &Hub, prepared: &[(usize, tls::Prepared)], diff: &mut Diff) -> bool {
    let mut rotated = false;
    for (index, prepared) in prepared {
        let listener = &hub.listeners[*index];
        let Some(tls) = &listener.tls else { continue };
        let current = tls.certificates();
        for certificate in prepared.certificates() {
            if current.contains(certificate) {
                continue;
            }
            rotated = true;
            let until = certificate.not_after_unix_seconds;
            diff.note_changed(
                format!("listener {:?}.tls.certificates", listener.name),
                format!(
                    "{} holds another certificate, which expires at {until} (seconds since 1970)",
                    certificate.file.display()
                ),
            );
        }
    }
    rotated
}

/// Every file whose change should cause a reload.
pub(super) fn files(file: &Path, config: &runtime::Config) -> Vec<PathBuf> {
    let listeners = config.listeners.iter();
    let certificates = listeners
        .filter_map(|listener| listener.tls.as_ref())
        .flat_map(|tls| tls.certificates.iter())
        .flat_map(|(certificate, key)| [certificate.clone(), key.clone()]);
    std::iter::once(file.to_path_buf())
        .chain(config.files.iter().cloned())
        .chain(certificates)
        .collect()
}
