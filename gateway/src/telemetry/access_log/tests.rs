use super::*;
use hub_core::RequestId;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, UNIX_EPOCH};

/// Longer than any test waits: nothing is flushed by time.
const NEVER: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_millis(1);
/// How long a test waits for another thread before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn record() -> Record<'static> {
    // 2026-02-28T23:59:59.000042Z
    let at = UNIX_EPOCH + Duration::from_micros(1_772_323_199_000_042);
    Record {
        at,
        request_id: RequestId::new(1_772_323_189_208, [7; 10]),
        trace_id: 42,
        listener: "public",
        client: [192, 0, 2, 7].into(),
        method: "GET",
        host: b"api.example.com",
        path: b"/v1/contacts",
        protocol: "HTTP/1.1",
        status: 200,
        reason: None,
        detail: None,
        route: Some("contacts"),
        cluster: Some("crm"),
        colour: Some("blue"),
        endpoint: Some("10.0.0.1:8080"),
        tenant: Some("ve9EPM428h8vShlRW1KT"),
        subject: None,
        bytes_in: 0,
        bytes_out: 1_234,
        duration: Duration::from_micros(1_500),
        upstream: Some(Duration::from_micros(900)),
        retries: 0,
        first_colour: None,
        user_agent: Some(b"curl/8.5.0"),
    }
}

fn numbered(number: u64) -> Record<'static> {
    Record {
        bytes_in: number,
        ..record()
    }
}

fn file(path: &Path) -> LogTarget {
    LogTarget::File(path.to_path_buf())
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    (directory, path)
}

/// The numbers of the lines in a file, each of which must be whole.
fn numbers(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect(line);
    text.lines()
        .map(|line| parse(line)["bytes_in"].as_u64().expect("a number"))
        .collect()
}

/// Waits for what another thread does, without a fixed pause.
fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        thread::yield_now();
    }
}

#[test]
fn every_line_of_every_thread_is_written_by_shutdown_and_none_twice() {
    let (_directory, path) = directory();
    let log = AccessLog::start(&file(&path), 100_000, SOON).expect("a log");
    thread::scope(|scope| {
        for thread in 0..8 {
            let log = &log;
            scope.spawn(move || {
                for number in 0..2_000 {
                    log.log(&numbered(thread * 10_000 + number));
                }
            });
        }
    });
    assert!(log.shutdown(PATIENCE));
    let written = numbers(&path);
    for thread in 0..8 {
        let mine: Vec<_> = written.iter().filter(|n| **n / 10_000 == thread).collect();
        assert!(mine.is_sorted());
    }
    let mut written = written;
    written.sort_unstable();
    let expected: Vec<_> = (0..8)
        .flat_map(|t| (0..2_000).map(move |n| t * 10_000 + n))
        .collect();
    assert_eq!(written, expected);
    assert_eq!((log.lines(), log.drops(), log.errors()), (16_000, 0, 0));
}

#[test]
fn a_line_is_written_within_the_flush_interval_without_more_traffic() {
    let (_directory, path) = directory();
    let log = AccessLog::start(&file(&path), 64, SOON).expect("a log");
    log.log(&numbered(1));
    until("the flush", || numbers(&path) == [1]);
}

#[test]
fn a_half_full_queue_is_written_before_the_interval_is_over() {
    let (_directory, path) = directory();
    let log = AccessLog::start(&file(&path), 64, NEVER).expect("a log");
    for number in 0..32 {
        log.log(&numbered(number));
    }
    until("the flush", || log.lines() > 0);
}

/// A pipe that is full and that nobody reads: the first write to it blocks.
fn stuck_pipe() -> (tempfile::TempDir, PathBuf, fs::File) {
    let (directory, path) = directory();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .expect("a pipe");
    // Open for both, so that neither this nor the writer waits for the other side.
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true);
    let reader = options.open(&path).expect("the pipe");
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits();
    options.custom_flags(i32::try_from(nonblocking).expect("a small flag"));
    let mut filler = options.open(&path).expect("the pipe");
    let full = std::iter::repeat_with(|| filler.write(&[b'x'; 4_096])).find_map(Result::err);
    assert_eq!(
        full.map(|error| error.kind()),
        Some(io::ErrorKind::WouldBlock)
    );
    (directory, path, reader)
}

#[test]
fn when_the_target_is_stuck_lines_are_dropped_and_counted_and_nobody_waits() {
    let (_directory, path, mut reader) = stuck_pipe();
    let log = AccessLog::start(&file(&path), 64, SOON).expect("a log");
    for _ in 0..1_200 {
        log.log(&record());
    }
    // One queue may be with the writer while the next one fills.
    assert!(log.drops() >= 1_200 - 2 * 64, "{}", log.drops());
    assert_eq!(log.lines(), 0);
    // Not held up for ever on the way out either.
    assert!(!log.shutdown(Duration::from_millis(10)));
    // Once somebody reads, the writer comes to its end, and every line is accounted for.
    let reading = thread::spawn(move || {
        let mut lines = 0_u64;
        let mut chunk = [0; 65_536];
        loop {
            let read = reader.read(&mut chunk).expect("the pipe");
            lines += memchr::memchr_iter(b'\n', &chunk[..read]).count() as u64;
            if chunk[..read].ends_with(b"END\n") {
                return lines - 1;
            }
        }
    });
    assert!(log.shutdown(PATIENCE));
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut pipe| pipe.write_all(b"END\n"))
        .expect("the pipe");
    assert_eq!(reading.join().expect("no panic"), log.lines());
    assert_eq!(log.lines() + log.drops(), 1_200);
}

#[test]
fn no_more_lines_wait_than_configured() {
    let shared = |lines| {
        let log = AccessLog::start(&LogTarget::Off, lines, NEVER).expect("a log");
        let sum: usize = log
            .shared
            .shards
            .iter()
            .map(|shard| shard.0.lock().lines_max)
            .sum();
        sum
    };
    for lines in [64, 65, 8_192, 1_048_576] {
        assert_eq!(shared(lines), lines);
    }
    let mut buffer = Buffer {
        lines_max: 4,
        ..Buffer::default()
    };
    let wakes: Vec<_> = (0..4)
        .map(|_| (buffer.is_full(), buffer.push(&record())))
        .collect();
    assert_eq!(
        wakes,
        [
            (false, false),
            (false, true),
            (false, false),
            (false, false)
        ]
    );
    assert!(buffer.is_full());
}

#[test]
fn long_lines_fill_the_queue_by_their_bytes() {
    let path = vec![b'\x01'; PATH_BYTES_MAX];
    let mut buffer = Buffer {
        lines_max: 64,
        ..Buffer::default()
    };
    while !buffer.is_full() {
        buffer.push(&Record {
            path: &path,
            ..record()
        });
    }
    assert!(buffer.lines < 8);
    assert!(buffer.bytes.len() < 64 * BYTES_PER_LINE + 32_768);
}

#[test]
fn a_renamed_file_is_left_and_a_new_one_begun_without_losing_a_line() {
    let (_directory, path) = directory();
    let old = path.with_extension("old");
    let log = AccessLog::start(&file(&path), 100_000, SOON).expect("a log");
    let mut number = 0;
    let mut log_one = || {
        log.log(&numbered(number));
        number += 1;
    };
    log_one();
    until("the first line", || log.lines() == 1);
    fs::rename(&path, &old).expect("renamed");
    // Even without traffic, so that a rotated file can be compressed and removed.
    until("a new file", || path.exists());
    log_one();
    assert!(log.shutdown(PATIENCE));
    assert_eq!((numbers(&old), numbers(&path)), (vec![0], vec![1]));
}

#[test]
fn reopen_takes_effect_before_the_interval_is_over() {
    let (_directory, path) = directory();
    let log = AccessLog::start(&file(&path), 64, NEVER).expect("a log");
    fs::remove_file(&path).expect("removed");
    log.reopen();
    until("a new file", || path.exists());
}

#[test]
fn a_full_disk_costs_lines_that_are_counted_and_nothing_else() {
    let (_directory, path) = directory();
    std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
    let log = AccessLog::start(&file(&path), 64, SOON).expect("a log");
    for number in 0..5 {
        log.log(&numbered(number));
    }
    until("the drops", || log.drops() == 5);
    assert!(log.errors() >= 1);
    assert_eq!(log.lines(), 0);
    // There is room again.
    fs::remove_file(&path).expect("removed");
    until("a new file", || path.exists());
    log.log(&numbered(5));
    assert!(log.shutdown(PATIENCE));
    assert_eq!(numbers(&path), [5]);
}

#[test]
fn a_missing_directory_is_an_error_at_start_and_later_a_reason_to_keep_the_old_file() {
    let (directory, path) = directory();
    let missing = directory.path().join("missing/access.log");
    assert!(AccessLog::start(&file(&missing), 64, SOON).is_err());
    let log = AccessLog::start(&file(&path), 64, SOON).expect("a log");
    assert!(AccessLog::prepare(&file(&missing)).is_err());
    log.log(&numbered(1));
    assert!(log.shutdown(PATIENCE));
    assert_eq!(numbers(&path), [1]);
}

#[test]
fn a_torn_line_costs_that_line_only() {
    let (_directory, path) = directory();
    let counters = Counters::default();
    fs::write(&path, "{\"bytes_").expect("written");
    let mut sink = Sink::new(Output::open(&file(&path)).expect("a file"));
    sink.torn = true;
    sink.write(b"{\"bytes_in\":1}\n", &counters);
    let text = fs::read_to_string(&path).expect("text");
    assert_eq!(text, "{\"bytes_\n{\"bytes_in\":1}\n");
}

fn move_to(log: &AccessLog, target: &LogTarget) {
    let prepared = AccessLog::prepare(target).expect("an open target");
    log.commit(Some(prepared), 64, SOON);
}

#[test]
fn a_pipe_without_a_reader_is_an_error_and_not_a_wait() {
    let (_directory, path) = directory();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a pipe");
    assert!(AccessLog::prepare(&file(&path)).is_err());
}

#[test]
fn settings_without_a_new_target_leave_the_file_alone() {
    let (_directory, path) = directory();
    let log = AccessLog::start(&file(&path), 64, SOON).expect("a log");
    log.log(&numbered(1));
    until("the first line", || numbers(&path) == [1]);
    log.commit(None, 128, SOON);
    log.log(&numbered(2));
    assert!(log.shutdown(PATIENCE));
    assert_eq!(numbers(&path), [1, 2]);
}

#[test]
fn new_settings_move_the_log_and_turn_it_off_and_on() {
    let (directory, path) = directory();
    let second = directory.path().join("second.log");
    let log = AccessLog::start(&LogTarget::Off, 64, SOON).expect("a log");
    log.log(&numbered(0));
    move_to(&log, &file(&path));
    until("the new target", || {
        log.log(&numbered(1));
        !numbers(&path).is_empty()
    });
    move_to(&log, &file(&second));
    until("the second target", || {
        log.log(&numbered(2));
        !numbers(&second).is_empty()
    });
    move_to(&log, &LogTarget::Off);
    log.log(&numbered(3));
    assert!(log.shutdown(PATIENCE));
    assert!(
        numbers(&path)
            .iter()
            .all(|number| *number == 1 || *number == 2)
    );
    assert!(numbers(&second).iter().all(|number| *number == 2));
}

#[test]
fn what_is_logged_after_shutdown_is_counted_as_dropped() {
    let (_directory, path) = directory();
    let log = AccessLog::start(&file(&path), 64, SOON).expect("a log");
    assert!(log.shutdown(PATIENCE));
    log.log(&record());
    assert_eq!((log.lines(), log.drops()), (0, 1));
    assert!(log.shutdown(PATIENCE));
}

#[test]
fn buffers_give_back_what_only_a_burst_needed() {
    let mut buffer = Vec::with_capacity(16 << 20);
    buffer.extend_from_slice(b"one line\n");
    empty(&mut buffer);
    assert!(buffer.capacity() < 16 << 20);
    let kept = buffer.capacity();
    buffer.resize(kept / 2, b'x');
    empty(&mut buffer);
    assert_eq!((buffer.len(), buffer.capacity()), (0, kept));
}
