//! One line of the access log.

use super::Line;
use super::json::{bounded, put_hex, put_number, put_string};
use hub_core::RequestId;
use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most bytes of a path that are logged.
pub const PATH_BYTES_MAX: usize = 2048;
/// Most bytes of a user agent that are logged.
pub const USER_AGENT_BYTES_MAX: usize = 256;
/// Most bytes of any other text.
const TEXT_BYTES_MAX: usize = 256;
/// Last second of the year 9999: later ones have no four-digit year.
const SECOND_MAX: u64 = 253_402_300_799;

/// One finished request. Texts are written as they are given, within their bounds.
///
/// There is no query: it often holds tokens and personal data.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the request arrived.
    pub at: SystemTime,
    /// Its id.
    pub request_id: RequestId,
    /// W3C trace id.
    pub trace_id: u128,
    /// Name of the listener.
    pub listener: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The method, as sent.
    pub method: &'a str,
    /// The host, as sent; empty where none could be read.
    pub host: &'a [u8],
    /// The path as sent, without the query; cut after [`PATH_BYTES_MAX`] bytes, which
    /// `path_truncated` then tells.
    pub path: &'a [u8],
    /// `HTTP/1.1` and the like.
    pub protocol: &'a str,
    /// Status that the client got; 0 for none.
    pub status: u16,
    /// Code of the refusal.
    pub reason: Option<&'a str>,
    /// More about the refusal; cut after 256 bytes.
    pub detail: Option<&'a str>,
    /// Name of the route.
    pub route: Option<&'a str>,
    /// Name of the cluster.
    pub cluster: Option<&'a str>,
    /// Colour that was chosen.
    pub colour: Option<&'a str>,
    /// Endpoint that was asked last.
    pub endpoint: Option<&'a str>,
    /// The tenant's id.
    pub tenant: Option<&'a str>,
    /// Subject of the verified credential.
    pub subject: Option<&'a str>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// From the head's first byte to the end of the answer.
    pub duration: Duration,
    /// From sending upstream to the first byte of its answer.
    pub upstream: Option<Duration>,
    /// Tries on another endpoint.
    pub retries: u32,
    /// Colour that was asked before `colour` and failed.
    pub first_colour: Option<&'a str>,
    /// `User-Agent`; cut after [`USER_AGENT_BYTES_MAX`] bytes.
    pub user_agent: Option<&'a [u8]>,
}

/// The text of the last second that was written: a second has many lines.
#[derive(Debug, Default)]
pub struct SecondText {
    second: Option<u64>,
    /// `2026-01-31T23:59:59.`
    text: [u8; 20],
}

impl Line for Record<'_> {
    fn put_line(&self, out: &mut Vec<u8>, second: &mut SecondText) {
        let path = bounded(self.path, PATH_BYTES_MAX);
        out.extend_from_slice(b"{\"ts\":\"");
        second.put_timestamp(out, self.at);
        out.extend_from_slice(b"\",\"request_id\":\"");
        out.extend_from_slice(self.request_id.encode(&mut [0; 36]).as_bytes());
        out.extend_from_slice(b"\",\"trace_id\":\"");
        put_hex(out, self.trace_id);
        out.extend_from_slice(b"\",\"listener\":");
        put_text(out, self.listener.as_bytes());
        out.extend_from_slice(b",\"client\":\"");
        put_address(out, self.client);
        out.extend_from_slice(b"\",\"method\":");
        put_text(out, self.method.as_bytes());
        out.extend_from_slice(b",\"host\":");
        put_text(out, self.host);
        out.extend_from_slice(b",\"path\":");
        put_string(out, path);
        if path.len() < self.path.len() {
            out.extend_from_slice(b",\"path_truncated\":true");
        }
        out.extend_from_slice(b",\"protocol\":");
        put_text(out, self.protocol.as_bytes());
        out.extend_from_slice(b",\"status\":");
        put_number(out, self.status);
        out.extend_from_slice(b",\"reason\":");
        put_optional(out, self.reason);
        out.extend_from_slice(b",\"detail\":");
        put_optional(out, self.detail);
        out.extend_from_slice(b",\"route\":");
        put_optional(out, self.route);
        out.extend_from_slice(b",\"cluster\":");
        put_optional(out, self.cluster);
        out.extend_from_slice(b",\"colour\":");
        put_optional(out, self.colour);
        out.extend_from_slice(b",\"endpoint\":");
        put_optional(out, self.endpoint);
        out.extend_from_slice(b",\"tenant\":");
        put_optional(out, self.tenant);
        out.extend_from_slice(b",\"subject\":");
        put_optional(out, self.subject);
        out.extend_from_slice(b",\"bytes_in\":");
        put_number(out, self.bytes_in);
        out.extend_from_slice(b",\"bytes_out\":");
        put_number(out, self.bytes_out);
        out.extend_from_slice(b",\"duration_us\":");
        put_number(out, micros(self.duration));
        out.extend_from_slice(b",\"upstream_us\":");
        match self.upstream {
            Some(upstream) => put_number(out, micros(upstream)),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"retries\":");
        put_number(out, self.retries);
        if self.first_colour.is_some() {
            out.extend_from_slice(b",\"first_colour\":");
            put_optional(out, self.first_colour);
        }
        out.extend_from_slice(b",\"user_agent\":");
        match self.user_agent {
            Some(agent) => put_string(out, bounded(agent, USER_AGENT_BYTES_MAX)),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b"}\n");
    }
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_string(out, bounded(text, TEXT_BYTES_MAX));
}

pub(super) fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text.as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
}

pub(super) fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        // By hand, because `Display` costs several times as much, and most addresses are these.
        IpAddr::V4(v4) => {
            let [first, rest @ ..] = v4.octets();
            put_number(out, first);
            for octet in rest {
                out.push(b'.');
                put_number(out, octet);
            }
        }
        IpAddr::V6(v6) => write!(out, "{v6}").expect("writing to memory does not fail"),
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

// === impl SecondText ===

impl SecondText {
    /// Appends RFC 3339 with microseconds, UTC. Times before 1970 are shown as 1970, those past 9999
    /// as its last second.
    pub(super) fn put_timestamp(&mut self, out: &mut Vec<u8>, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since.as_secs().min(SECOND_MAX);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = second_text(second);
        }
        out.extend_from_slice(&self.text);
        let mut fraction = *b"000000Z";
        put_digits(&mut fraction[..6], u64::from(since.subsec_micros()));
        out.extend_from_slice(&fraction);
    }
}

fn second_text(second: u64) -> [u8; 20] {
    let (day, rest) = (second / 86_400, second % 86_400);
    let (year, month, day) = civil(day);
    let mut text = *b"0000-00-00T00:00:00.";
    put_digits(&mut text[0..4], year);
    put_digits(&mut text[5..7], month);
    put_digits(&mut text[8..10], day);
    put_digits(&mut text[11..13], rest / 3_600);
    put_digits(&mut text[14..16], rest / 60 % 60);
    put_digits(&mut text[17..19], rest % 60);
    text
}

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar: years that begin in
/// March, in eras of 400 years, which all have as many days.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, day)
}

fn put_digits(out: &mut [u8], mut number: u64) {
    for slot in out.iter_mut().rev() {
        *slot = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::access_log::tests::record;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn line(record: &Record<'_>) -> String {
        let mut out = Vec::new();
        record.put_line(&mut out, &mut SecondText::default());
        String::from_utf8(out).expect("ASCII")
    }

    fn parsed(record: &Record<'_>) -> Value {
        serde_json::from_str(&line(record)).expect("JSON")
    }

    fn timestamp(second: u64, micros: u32) -> String {
        let mut out = Vec::new();
        let at = UNIX_EPOCH + Duration::new(second, micros * 1_000);
        SecondText::default().put_timestamp(&mut out, at);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn a_line_holds_every_field_and_says_null_where_there_is_nothing() {
        let expected = json!({
            "ts": "2026-02-28T23:59:59.000042Z",
            "request_id": "019ca6b1-b1d8-7707-8707-070707070707",
            "trace_id": "0000000000000000000000000000002a",
            "listener": "public", "client": "192.0.2.7", "method": "GET",
            "host": "api.example.com", "path": "/v1/contacts", "protocol": "HTTP/1.1",
            "status": 200, "reason": null, "detail": null, "route": "contacts",
            "cluster": "crm", "colour": "blue", "endpoint": "10.0.0.1:8080",
            "tenant": "ve9EPM428h8vShlRW1KT", "subject": null, "bytes_in": 0,
            "bytes_out": 1234, "duration_us": 1500, "upstream_us": 900, "retries": 0,
            "user_agent": "curl/8.5.0",
        });
        assert_eq!(parsed(&record()), expected);
        let mut refused = record();
        refused.reason = Some("tenant_limited");
        refused.detail = Some("limit \"burst\"");
        refused.upstream = None;
        refused.user_agent = None;
        refused.client = "2001:db8::1".parse().expect("an address");
        let refused = parsed(&refused);
        assert_eq!(refused["reason"], "tenant_limited");
        assert_eq!(refused["detail"], "limit \"burst\"");
        assert_eq!(refused["upstream_us"], Value::Null);
        assert_eq!(refused["user_agent"], Value::Null);
        assert_eq!(refused["client"], "2001:db8::1");
    }

    #[test]
    fn long_paths_and_agents_are_cut_and_the_path_says_so() {
        let (path, agent) = (vec![b'/'; PATH_BYTES_MAX + 1], vec![b'a'; 9_000]);
        let mut long = record();
        long.path = &path;
        long.user_agent = Some(&agent);
        long.host = &agent;
        let cut = parsed(&long);
        assert_eq!(cut["path"].as_str().map(str::len), Some(PATH_BYTES_MAX));
        assert_eq!(cut["path_truncated"], true);
        assert_eq!(cut["user_agent"].as_str().map(str::len), Some(256));
        assert_eq!(cut["host"].as_str().map(str::len), Some(256));
        long.path = &path[1..];
        assert_eq!(parsed(&long)["path_truncated"], Value::Null);
    }

    #[test]
    fn days_that_calendars_get_wrong_are_right() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (SECOND_MAX, "9999-12-31T23:59:59.000000Z"),
            (SECOND_MAX + 1, "9999-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(timestamp(second, 0), text);
        }
    }

    #[test]
    fn the_remembered_second_is_renewed_when_time_goes_back_or_on() {
        let mut second = SecondText::default();
        for (at, text) in [
            (1, "00:00:01."),
            (1, "00:00:01."),
            (60, "00:01:00."),
            (1, "00:00:01."),
        ] {
            let mut out = Vec::new();
            second.put_timestamp(&mut out, UNIX_EPOCH + Duration::from_secs(at));
            assert_eq!(&out[11..20], text.as_bytes());
        }
    }

    #[test]
    fn consecutive_days_follow_each_other_for_eight_centuries() {
        let mut expected = (1970, 1, 1);
        for day in 0..300_000 {
            assert_eq!(civil(day), expected, "day {day}");
            let (year, month, date) = expected;
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (date == last, month == 12) {
                (false, _) => (year, month, date + 1),
                (true, false) => (year, month + 1, 1),
                (true, true) => (year + 1, 1, 1),
            };
        }
    }

    proptest! {
        #[test]
        fn whatever_clients_send_a_line_is_one_line_and_reads_back(
            method in any::<String>(),
            host in prop::collection::vec(any::<u8>(), 0..80),
            path in prop::collection::vec(any::<u8>(), 0..200),
            agent in prop::option::of(prop::collection::vec(any::<u8>(), 0..80)),
            subject in prop::option::of(any::<String>()),
            status in any::<u16>(),
            bytes in any::<u64>(),
        ) {
            let mut hostile = record();
            hostile.method = &method;
            hostile.host = &host;
            hostile.path = &path;
            hostile.user_agent = agent.as_deref();
            hostile.subject = subject.as_deref();
            hostile.status = status;
            hostile.bytes_in = bytes;
            let line = line(&hostile);
            prop_assert!(line.bytes().filter(|byte| !(0x20..0x7f).contains(byte)).eq([b'\n']));
            let parsed: Value = serde_json::from_str(&line).expect("JSON");
            let lossy = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
            prop_assert_eq!(&parsed["host"], &json!(lossy(&host)));
            prop_assert_eq!(&parsed["path"], &json!(lossy(&path)));
            prop_assert_eq!(&parsed["user_agent"], &json!(agent.as_deref().map(lossy)));
            if method.len() <= TEXT_BYTES_MAX {
                prop_assert_eq!(&parsed["method"], &json!(method));
            }
            if let Some(subject) = subject.filter(|subject| subject.len() <= TEXT_BYTES_MAX) {
                prop_assert_eq!(&parsed["subject"], &json!(subject));
            }
            prop_assert_eq!(&parsed["status"], &json!(status));
            prop_assert_eq!(&parsed["bytes_in"], &json!(bytes));
        }
    }
}
