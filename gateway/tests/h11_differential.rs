//! Our head parser and body tracker beside h11 (PyPI), which follows RFC 9112 closely: whatever h11
//! refuses, we refuse; where both accept, both read the same request, and find its end at the same byte.
//!
//! `HUB_H11_SEED` repeats a run, `HUB_H11_REQUESTS` sets its length. Without Python 3 or a package
//! index the test says so and passes, unless `HUB_REQUIRE_H11` is set.

use hub_gateway::front::body::MessageBody;
use hub_gateway::front::head::{Framing, Head, HeadLimits, parse};
use hub_testkit::tools::python_with;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const H11_VERSION: &str = "0.16.0";
const REQUESTS: usize = 120_000;
/// Large enough that no limit of ours is met; limits are not h11's matter.
const LIMITS: HeadLimits = HeadLimits {
    head_bytes_max: 65_535,
    uri_bytes_max: 60_000,
    header_count_max: 1_000,
};

#[test]
fn nothing_that_h11_refuses_is_accepted_and_what_both_accept_reads_the_same() {
    let python = match python_with(env!("CARGO_TARGET_TMPDIR").as_ref(), "h11", H11_VERSION) {
        Ok(python) => python,
        Err(why) if std::env::var_os("HUB_REQUIRE_H11").is_none() => {
            println!("SKIPPED: {why}; set HUB_REQUIRE_H11=1 to make this a failure");
            return;
        }
        Err(why) => panic!("{why}"),
    };
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse().expect("a number"))
    };
    let seed: u64 = number("HUB_H11_SEED").unwrap_or_else(rand::random);
    let count = number("HUB_H11_REQUESTS").map_or(REQUESTS, |n: u64| n as usize);
    println!("seed {seed}, {count} requests; HUB_H11_SEED={seed} repeats this run");

    let mut oracle = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/h11/differential.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python was just used");
    let mut questions = BufWriter::new(oracle.stdin.take().expect("piped"));
    let answers = BufReader::new(oracle.stdout.take().expect("piped"));
    let requests = move || {
        let mut rng = StdRng::seed_from_u64(seed);
        (0..count).map(move |_| request(&mut rng))
    };
    // Asking and listening at once, so that neither pipe fills up; both draw from the same seed.
    let asked = requests();
    let asking = std::thread::spawn(move || {
        for request in asked {
            let len = u32::try_from(request.len()).expect("requests are short");
            questions.write_all(&len.to_be_bytes())?;
            questions.write_all(&request)?;
        }
        questions.flush()
    });
    let mut tally = Tally::default();
    let mut lines = answers.lines();
    for request in requests() {
        let line = lines.next().expect("an answer each").expect("text");
        let verdict = serde_json::from_str(&line).expect("JSON");
        if let Err(why) = tally.compare(&request, &verdict) {
            panic!(
                "seed {seed}: {why}\n{}\nh11: {verdict}",
                request.escape_ascii()
            );
        }
    }
    asking.join().expect("no panic").expect("the pipe held");
    assert!(oracle.wait().expect("started").success());
    println!("{tally}");
    // A generator that made only noise, or only good requests, would prove nothing.
    assert!(
        tally.both_accept * 5 > count && tally.both_refuse * 20 > count,
        "{tally}"
    );
}

/// How often what happened.
#[derive(Default)]
struct Tally {
    both_accept: usize,
    both_refuse: usize,
    both_wait: usize,
    bodies_complete: usize,
    bodies_refused: usize,
    stricter: BTreeMap<String, usize>,
}

impl Tally {
    fn compare(&mut self, request: &[u8], h11: &Value) -> Result<(), String> {
        let ours = parse(request, &LIMITS);
        match (
            ours,
            h11.get("refused").is_some(),
            h11.get("incomplete").is_some(),
        ) {
            (Ok(Some(_)), true, _) => return Err("we accept what h11 refuses".into()),
            (Ok(Some(_)), _, true) => return Err("we take a head for complete too early".into()),
            // It may know of a fault before the line that holds it has come to an end.
            (Ok(None), refused, incomplete) if refused || incomplete => self.both_wait += 1,
            (Ok(None), ..) => return Err("we wait for more of a complete head".into()),
            (Err(_), true, _) => self.both_refuse += 1,
            (Err(refusal), false, _) => {
                let rule = refusal.detail.ok_or("a refusal without its rule's name")?;
                *self
                    .stricter
                    .entry(format!("{} ({rule})", refusal.reason.code()))
                    .or_default() += 1;
            }
            (Ok(Some(head)), false, false) => {
                self.both_accept += 1;
                same_head(&head, request, h11)?;
                self.same_body(&head, request, &h11["body"])?;
            }
        }
        Ok(())
    }

    fn same_body(&mut self, head: &Head, request: &[u8], h11: &Value) -> Result<(), String> {
        let bytes = &request[head.len..];
        let mut body = MessageBody::new(head.framing, u64::MAX).map_err(|r| r.code().to_owned())?;
        match (body.advance(bytes), h11["state"].as_str()) {
            (Ok(progress), Some("complete")) if progress.done => {
                self.bodies_complete += 1;
                let rest = (bytes.len() - progress.consumed) as u64;
                if json!(progress.payload) != h11["payload"] || json!(rest) != h11["rest"] {
                    return Err(format!("the body ends elsewhere: {progress:?}"));
                }
            }
            (Ok(progress), Some("incomplete")) if !progress.done => {}
            // As with heads: it may refuse sooner, never instead.
            (Ok(progress), Some("refused")) if !progress.done => {}
            (Err(_), Some("refused")) => self.bodies_refused += 1,
            (Err(reason), _) => {
                *self
                    .stricter
                    .entry(format!("{} (in the body)", reason.code()))
                    .or_default() += 1;
            }
            (Ok(progress), state) => return Err(format!("body {progress:?}, h11 {state:?}")),
        }
        Ok(())
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "both accept {}, both refuse {}, both wait {}; of accepted heads' bodies {} complete, {} \
             refused by both\nours alone refuses, by rule:",
            self.both_accept,
            self.both_refuse,
            self.both_wait,
            self.bodies_complete,
            self.bodies_refused
        )?;
        self.stricter
            .iter()
            .try_for_each(|(rule, count)| writeln!(f, "{count:8} {rule}"))
    }
}

/// Method, target, version, framing and every field, as h11 has them.
fn same_head(head: &Head, request: &[u8], h11: &Value) -> Result<(), String> {
    let latin_1 = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| char::from(*byte))
            .collect::<String>()
    };
    let headers: Vec<_> = head
        .fields(request)
        .map(|field| {
            let name = latin_1(field.name).to_ascii_lowercase();
            let mut value = latin_1(field.value);
            if name == "transfer-encoding" {
                // h11 writes the one that it understood in lower case.
                value.make_ascii_lowercase();
            }
            json!([name, value])
        })
        .collect();
    let framing = match head.framing {
        Framing::None => json!("none"),
        Framing::Length(length) => json!(length),
        Framing::Chunked => json!("chunked"),
    };
    let line = format!(
        "{} {} HTTP/{}\r\n",
        head.method,
        h11["target"].as_str().unwrap_or("?"),
        h11["version"].as_str().unwrap_or("?")
    );
    let ours = json!({"method": head.method.as_str(), "headers": headers, "framing": framing});
    for key in ["method", "headers", "framing"] {
        if ours[key] != h11[key] {
            return Err(format!("{key} differs: ours {}", ours[key]));
        }
    }
    let version_agrees = head
        .version
        .as_str()
        .ends_with(h11["version"].as_str().unwrap_or("?"));
    if !version_agrees || !request.starts_with(line.as_bytes()) {
        return Err("the request line differs".into());
    }
    let target = h11["target"].as_str().unwrap_or("?");
    let path_and_query = match head.query(request) {
        Some(query) => format!("{}?{query}", head.path_raw(request)),
        None => head.path_raw(request).to_owned(),
    };
    if !target.contains("://") && target != path_and_query {
        return Err(format!("the target differs: ours {path_and_query}"));
    }
    Ok(())
}

// === the generator ===

/// One request: well formed, odd, or damaged.
fn request(rng: &mut StdRng) -> Vec<u8> {
    let method = pick(
        rng,
        &[
            "GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "GET", "POST",
        ],
        &[
            "CONNECT", "get", "", "G T", "PATCH\t", "M-SEARCH", "TRACE", "G@T", "POST ", " GET",
        ],
    );
    let target = pick(
        rng,
        &[
            "/",
            "/a/b?c=d",
            "/%41/./b",
            "http://a.example/x",
            "/locations/x1/y",
        ],
        &[
            "*",
            "",
            "a",
            "/a b",
            "/\\",
            "/%2f",
            "/%zz",
            "/a#b",
            "//a",
            "/\u{e9}",
            "http://b/",
            "/a?%",
            "/<",
            "/?{}",
            "/..",
            "a.example:80",
            "/\0",
        ],
    );
    let version = pick(
        rng,
        &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"],
        &[
            "HTTP/1.2",
            "HTTP/2.0",
            "http/1.1",
            "HTTP/1.1 ",
            "HTTP/11",
            "",
            "HTTP/1.01",
            "HTTQ/1.1",
        ],
    );
    let mut lines = vec![format!("{method} {target} {version}")];
    if rng.random_bool(0.95) {
        let host = pick(
            rng,
            &["a.example", "A.example", "a.example:80", "[::1]"],
            &["", "a b", "a,b", "a:99999", "a..b", "a@b", "a/b"],
        );
        lines.push(format!("Host: {host}"));
    }
    let body = body(rng);
    match rng.random_range(0..8) {
        0..=2 => lines.push("Transfer-Encoding: chunked".into()),
        3 | 4 => lines.push(format!(
            "Content-Length: {}",
            rng.random_range(0..=body.len())
        )),
        5 => lines.push(odd(rng, ODD_FRAMING)),
        _ => {}
    }
    for _ in 0..rng.random_range(0..5) {
        let line = if rng.random_bool(0.9) {
            FIELDS.choose(rng).copied().expect("not empty").to_owned()
        } else {
            odd(rng, ODD_FIELDS)
        };
        let at = rng.random_range(1..=lines.len());
        lines.insert(at, line);
    }
    let mut bytes = Vec::new();
    for line in lines {
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(if rng.random_bool(0.997) {
            b"\r\n"
        } else {
            b"\n"
        });
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    if rng.random_bool(0.3) {
        damage(rng, &mut bytes);
    }
    bytes
}

/// Mostly one of the good, sometimes one of the odd.
fn pick<'a>(rng: &mut StdRng, good: &[&'a str], odd: &[&'a str]) -> &'a str {
    let from = if rng.random_bool(0.95) { good } else { odd };
    from.choose(rng).expect("not empty")
}

fn odd(rng: &mut StdRng, lines: &[&str]) -> String {
    lines.choose(rng).copied().expect("not empty").to_owned()
}

const FIELDS: &[&str] = &[
    "Accept: */*",
    "User-Agent: x/1.0 (y; z)",
    "Cookie: a=b; c=d",
    "Connection: close",
    "X-A:",
    "X-B: \t c \t",
    "Connection: keep-alive",
    "TE: trailers",
    "X-C: caf\u{e9}",
    "Accept-Encoding: gzip, br",
    "Upgrade: websocket",
    "Content-Type: text/plain",
    "X-Location-Id: abc",
];

const ODD_FRAMING: &[&str] = &[
    "Content-Length: 5, 5",
    "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: 3\r\nContent-Length: 4",
    "Content-Length: +3",
    "Content-Length: -1",
    "Content-Length: 0x3",
    "Content-Length: 03",
    "Content-Length: ",
    "Content-Length: 3 ",
    "Content-Length: 99999999999999999999",
    "Content-Length: 9223372036854775808",
    "Content-Length: 1\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: CHUNKED",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding: xchunked",
    "Transfer_Encoding: chunked",
    "Transfer-Encoding:\u{b}chunked",
    "Transfer-Encoding:\r\n chunked",
    "X: y\rTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\0",
];

const ODD_FIELDS: &[&str] = &[
    "Host: b.example",
    "Host: a.example",
    " folded: x",
    "X-Fold: a\r\n b",
    "NoColon",
    ": empty",
    "X Y: z",
    "X-D : z",
    "X-E: a\u{1}b",
    "X-F: a\0b",
    "X-G: a\rb",
    "X-H: a\u{7f}b",
    "x_location_id: abc",
    "X(Y): z",
    "X\u{e9}: z",
    "Expect: 100-continue",
    "Expect: 200-ok",
    "Connection: a b",
    "Connection: ,,close",
    "Connection: content-length",
    "Authorization: a\r\nAuthorization: b",
    "Content-Type: a\r\nContent-Type: b",
    "X-I: \u{c}a",
    "X-J: a\u{b}b",
    "Upgrade: h2c",
    "my_header: a",
    "X@Y: z",
    "X-K:\u{a0}a",
    "",
];

fn body(rng: &mut StdRng) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..rng.random_range(0..3) {
        let size = rng.random_range(1..20);
        let line = match rng.random_range(0..60) {
            0 => format!("{size:x} "),
            1 => format!("{size:x};a=\"b c\""),
            2 => format!("{size:x};a b"),
            3 => format!("0x{size:x}"),
            4 => format!("+{size:x}"),
            5 => format!("{size:X};x=y"),
            6 => format!("000{size:x}"),
            7 => format!("fffffffffffffffff{size:x}"),
            8 => format!("{size:x}\n"),
            9 => String::new(),
            _ => format!("{size:x}"),
        };
        body.extend_from_slice(line.as_bytes());
        body.extend_from_slice(b"\r\n");
        body.extend((0..size).map(|_| rng.random::<u8>()));
        body.extend_from_slice(b"\r\n");
    }
    let end = pick(
        rng,
        &[
            "0\r\n\r\n",
            "0\r\nX-Sum: 1\r\n\r\n",
            "0\r\n\r\nGET / HTTP/1.1\r\n",
        ],
        &[
            "0\r\nContent-Length: 3\r\n\r\n",
            "0\r\nX : 1\r\n\r\n",
            "0\n\n",
            "0\r\n",
            "",
            "0\r\n folded\r\n\r\n",
            "00\r\n\r\n",
            "0;a\r\n\r\n",
            "0\r\nHost: b\r\n\r\n",
            "0\r\nX: \0\r\n\r\n",
            "0\r\n\n",
            "0\r\nX: a\rb\r\n\r\n",
        ],
    );
    body.extend_from_slice(end.as_bytes());
    body
}

/// Puts in, takes out, changes, doubles or cuts off bytes, preferring those that mean something.
fn damage(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    const TELLING: &[u8] = b"\r\n\0 \t:;,%/\\?#@_\x0b\x0c\x7f\x80\xff05aA\"";
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len());
        let byte = if rng.random_bool(0.8) {
            TELLING.choose(rng).copied().expect("not empty")
        } else {
            rng.random()
        };
        match rng.random_range(0..12) {
            0..=3 => bytes.insert(at, byte),
            4..=6 => bytes[at] = byte,
            7 | 8 if bytes.len() > 1 => {
                bytes.remove(at);
            }
            9 | 10 => {
                let end = bytes.len().min(at + rng.random_range(1..12));
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
}
