//! The process's own log, on standard error: text for a person at a terminal, JSON for a collector.
//!
//! Our crates log at the configured level. Everyone else's lines count only from `warn` on, and what
//! comes through the `log` crate (pingora does) is throttled: a client that breaks connections makes
//! pingora write a line each, and must not be able to fill a disk with them.

use super::throttle::Throttle;
use hub_config::runtime::LogLevel;
use std::fmt;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, reload};

/// Lines of other crates in each [`FOREIGN_PERIOD`]; more are counted.
const FOREIGN_LINES: u32 = 20;
/// See [`FOREIGN_LINES`].
const FOREIGN_PERIOD: Duration = Duration::from_secs(10);

/// The process's log, while it runs: changes its level.
#[derive(Clone)]
pub struct ProcessLog {
    filter: reload::Handle<Targets, Registry>,
}

/// The log was set up before, by us or by someone else in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this process has a log already")]
pub struct AlreadyLogging;

/// Which form lines have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// Sets the process's log up, at `level` for our own crates. Once in a process, before any thread
/// that logs is started.
///
/// # Errors
/// Where it was set up before.
pub fn init_process_log(level: LogLevel) -> Result<ProcessLog, AlreadyLogging> {
    let form = if io::stderr().is_terminal() {
        Form::Text
    } else {
        Form::Json
    };
    let (log, subscriber) = build(level, form, io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| AlreadyLogging)?;
    log::set_boxed_logger(Box::new(Bridge::new())).map_err(|_| AlreadyLogging)?;
    log::set_max_level(log::LevelFilter::Warn);
    Ok(log)
}

impl ProcessLog {
    /// Changes the least level of our own crates' lines, as after a reload.
    pub fn set_level(&self, level: LogLevel) {
        // Fails only where the subscriber is gone, and then there is nothing to change.
        if self.filter.reload(filter(level)).is_err() {
            tracing::debug!("the process's log has ended");
        }
    }
}

impl fmt::Debug for ProcessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessLog").finish_non_exhaustive()
    }
}

fn build<W>(
    level: LogLevel,
    form: Form,
    writer: W,
) -> (ProcessLog, impl tracing::Subscriber + Send + Sync)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<_> + Send + Sync> = match form {
        Form::Text => lines.with_ansi(false).boxed(),
        Form::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .boxed(),
    };
    let subscriber = Registry::default().with(filter).with(lines);
    (ProcessLog { filter: handle }, subscriber)
}

/// Our own crates at `level`, all others from `warn` on at most.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("hub", level)
}

/// Takes what other crates say through `log`.
struct Bridge {
    throttle: Throttle,
}

impl Bridge {
    fn new() -> Self {
        Self {
            throttle: Throttle::new(FOREIGN_LINES, FOREIGN_PERIOD),
        }
    }
}

impl log::Log for Bridge {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        match metadata.level() {
            log::Level::Error => tracing::enabled!(target: "foreign", tracing::Level::ERROR),
            log::Level::Warn => tracing::enabled!(target: "foreign", tracing::Level::WARN),
            log::Level::Info | log::Level::Debug | log::Level::Trace => false,
        }
    }

    fn log(&self, record: &log::Record<'_>) {
        // A pooled connection that its upstream has closed is an everyday thing, and pingora's word for it
        // an error.
        let everyday = record.target() == "pingora_core::connectors";
        if everyday || !self.enabled(record.metadata()) {
            return;
        }
        let Some(held_back) = self.throttle.pass(Instant::now()) else {
            return;
        };
        // How many lines this one stands for, where it is more than itself.
        let held_back = (held_back > 0).then_some(held_back);
        let (source, text) = (record.target(), record.args());
        if record.level() == log::Level::Error {
            tracing::error!(target: "foreign", source, held_back, "{text}");
        } else {
            tracing::warn!(target: "foreign", source, held_back, "{text}");
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Log;
    use parking_lot::Mutex;
    use std::io::Write;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `work` logs.
    fn lines(level: LogLevel, form: Form, work: impl FnOnce(&ProcessLog)) -> Vec<String> {
        let memory = Memory::default();
        let writer = memory.clone();
        let (log, subscriber) = build(level, form, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || work(&log));
        let text = String::from_utf8(memory.0.lock().clone()).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    fn foreign(bridge: &Bridge, level: log::Level, text: &str) {
        let mut record = log::Record::builder();
        record.level(level).target("pingora_core::server");
        bridge.log(&record.args(format_args!("{text}")).build());
    }

    #[test]
    fn our_lines_follow_the_level_and_others_start_at_warn() {
        let shown = lines(LogLevel::Info, Form::Text, |_| {
            tracing::info!(target: "hub_gateway::x", "ours");
            tracing::debug!(target: "hub_gateway::x", "too fine");
            tracing::info!(target: "h2::proto", "chatter");
            tracing::warn!(target: "h2::proto", "trouble");
        });
        assert_eq!(shown.len(), 2, "{shown:?}");
        assert!(shown[0].contains("ours") && shown[1].contains("trouble"));
    }

    #[test]
    fn the_level_can_be_changed_while_it_runs() {
        let shown = lines(LogLevel::Error, Form::Text, |log| {
            tracing::warn!(target: "h2", "1");
            tracing::warn!(target: "hub_gateway", "2");
            log.set_level(LogLevel::Debug);
            tracing::debug!(target: "hub_gateway", "3");
            tracing::debug!(target: "h2", "4");
        });
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert!(shown[0].contains('3'));
    }

    #[test]
    fn a_collector_gets_json_with_fields_of_their_own() {
        let shown = lines(LogLevel::Info, Form::Json, |_| {
            tracing::info!(target: "hub_gateway", tenants = 3, path = "a\"b\n", "reloaded");
        });
        let line: serde_json::Value = serde_json::from_str(&shown[0]).expect("JSON");
        assert_eq!(
            (&line["message"], &line["level"]),
            (&"reloaded".into(), &"INFO".into())
        );
        assert_eq!(
            (&line["tenants"], &line["path"]),
            (&3.into(), &"a\"b\n".into())
        );
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn a_flood_of_other_crates_is_cut_and_says_by_how_much() {
        let bridge = Bridge {
            throttle: Throttle::new(2, Duration::from_secs(3_600)),
        };
        let shown = lines(LogLevel::Info, Form::Json, |_| {
            for _ in 0..1_000 {
                foreign(&bridge, log::Level::Error, "connection reset by peer");
            }
        });
        assert_eq!(shown.len(), 2);
        let line: serde_json::Value = serde_json::from_str(&shown[0]).expect("JSON");
        assert_eq!(line["message"], "connection reset by peer");
        assert_eq!(line["source"], "pingora_core::server");
        assert_eq!(line["held_back"], serde_json::Value::Null);
        // A bound that is due again at once: every line passes and none is held back.
        let bridge = Bridge {
            throttle: Throttle::new(1, Duration::ZERO),
        };
        let shown = lines(LogLevel::Info, Form::Text, |_| {
            foreign(&bridge, log::Level::Warn, "once");
            foreign(&bridge, log::Level::Info, "never");
        });
        assert_eq!(shown.len(), 1, "{shown:?}");
    }

    #[test]
    fn terminal_escapes_of_a_client_do_not_reach_a_terminal() {
        let shown = lines(LogLevel::Info, Form::Text, |_| {
            tracing::info!(target: "hub_gateway", path = "\u{1b}[31m", "from a client: \u{1b}[2J");
        });
        assert!(!shown.concat().contains('\u{1b}'), "{shown:?}");
    }
}
