//! What the kernel knows of this process, read at scrape time.
//!
//! The names are those that Prometheus client libraries agree on, so that common dashboards work.
//! What cannot be read (no `/proc`) is left out rather than shown as nought.

use super::metrics::Scrape;
use hub_core::names;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Ticks a second in `/proc`: a constant of the kernel's interface on every architecture that Rust's
/// Linux targets of today run on, whatever the kernel's own timer does.
const TICKS_PER_SECOND: f64 = 100.0;

/// Fields of `/proc/self/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    /// Since boot.
    start_ticks: u64,
}

/// Adds the process's series.
pub(super) fn scrape(scrape: &mut Scrape) {
    let stat = read("/proc/self/stat").and_then(|text| parse_stat(&text));
    if let Some(stat) = stat {
        let seconds = float(stat.cpu_ticks) / TICKS_PER_SECOND;
        let help = "CPU time used, user and system.";
        scrape.counter_f64(names::PROCESS_CPU_SECONDS_TOTAL, help, &[], seconds);
        let help = "Threads of the process.";
        scrape.gauge(names::PROCESS_THREADS, help, &[], float(stat.threads));
    }
    if let (Some(stat), Some(boot)) = (stat, boot_unix_seconds()) {
        let at = float(boot) + float(stat.start_ticks) / TICKS_PER_SECOND;
        let help = "When the process started, in seconds since 1970.";
        scrape.gauge(names::PROCESS_START_SECONDS, help, &[], at);
    }
    if let Some(kib) = read("/proc/self/status").and_then(|text| value_after(&text, "VmRSS:")) {
        let help = "Resident memory.";
        scrape.gauge(
            names::PROCESS_RESIDENT_BYTES,
            help,
            &[],
            float(kib) * 1024.0,
        );
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        let open = u64::try_from(entries.count().saturating_sub(1)).unwrap_or(u64::MAX);
        let help = "Open file descriptors.";
        scrape.gauge(names::PROCESS_OPEN_FDS, help, &[], float(open));
    }
    // Where the limit is `unlimited` there is no number to show.
    if let Some(limit) =
        read("/proc/self/limits").and_then(|text| value_after(&text, "Max open files"))
    {
        let help = "Most file descriptors that may be open.";
        scrape.gauge(names::PROCESS_MAX_FDS, help, &[], float(limit));
    }
}

/// When the system was booted. A service that may see nothing but processes in `/proc` works it out from
/// the clocks, once, so that it does not flicker.
fn boot_unix_seconds() -> Option<u64> {
    static FROM_CLOCKS: OnceLock<Option<u64>> = OnceLock::new();
    let from_clocks = || {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?;
        let since = clock_gettime(ClockId::Boottime).tv_sec;
        now.as_secs().checked_sub(u64::try_from(since).ok()?)
    };
    let read = read("/proc/stat").and_then(|text| value_after(&text, "btime "));
    read.or_else(|| *FROM_CLOCKS.get_or_init(from_clocks))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The name of the program, in parentheses, may hold anything; numbers are counted from behind it.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // proc_pid_stat(5) numbers fields from 1, and the third is the first behind the name.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: field(14)? + field(15)?,
        threads: field(20)?,
        start_ticks: field(22)?,
    })
}

/// The first number behind `key` at the start of a line.
fn value_after(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the text format has floating point only"
)]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "42 (a ) b) S 1 42 42 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 7 0 12345 1 2 3";
        let expected = Stat {
            cpu_ticks: 200,
            threads: 7,
            start_ticks: 12_345,
        };
        assert_eq!(parse_stat(text), Some(expected));
        assert_eq!(parse_stat("42 (a) S 1"), None);
    }

    #[test]
    fn numbers_are_found_behind_their_key_and_words_are_not_numbers() {
        assert_eq!(
            value_after("VmPeak:\t9 kB\nVmRSS:\t  77 kB\n", "VmRSS:"),
            Some(77)
        );
        assert_eq!(
            value_after("Max open files  unlimited  unlimited", "Max open files"),
            None
        );
    }

    #[test]
    fn this_process_is_shown_with_plausible_values() {
        let mut into = Scrape::default();
        scrape(&mut into);
        let text = String::from_utf8(into.into_text()).expect("text");
        for name in [
            names::PROCESS_CPU_SECONDS_TOTAL,
            names::PROCESS_THREADS,
            names::PROCESS_START_SECONDS,
            names::PROCESS_RESIDENT_BYTES,
            names::PROCESS_OPEN_FDS,
        ] {
            assert!(text.contains(&format!("\n{name} ")), "{name} in {text}");
        }
        let rss = text
            .lines()
            .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
            .and_then(|value| value.parse::<f64>().ok())
            .expect("a number");
        assert!((1e6..1e12).contains(&rss), "{rss}");
    }
}
