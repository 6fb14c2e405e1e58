use super::{BASE, load_in};
use crate::{Problem, Problems, runtime};

/// Loads [`BASE`] with `extra` and a directory of these bytes.
fn load(extra: &str, directory: &[u8]) -> Result<runtime::Config, Problems> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tenants.jsonl"), directory).unwrap();
    let text = format!("{BASE}[tenants]\ndirectory = \"tenants.jsonl\"\n{extra}\n");
    load_in(folder.path(), &text)
}

fn problems(extra: &str, directory: &[u8]) -> Vec<Problem> {
    load(extra, directory).map_or_else(
        |problems| problems.iter().cloned().collect(),
        |_| Vec::new(),
    )
}

/// The only problem, which must be of the directory.
fn problem(directory: &[u8]) -> (usize, String, String) {
    let problems = problems("", directory);
    let [one] = &problems[..] else {
        panic!("{problems:#?}");
    };
    assert!(one.file.ends_with("tenants.jsonl"));
    (one.line.unwrap(), one.at.clone(), one.message.clone())
}

#[test]
fn blank_lines_line_ends_of_dos_and_a_last_line_without_end_are_fine() {
    let config = load("", b"\n{\"id\":\"a\"}\r\n   \n{\"id\":\"b\",\"slug\":null}").unwrap();
    assert_eq!(config.tenants.len(), 2);
}

#[test]
fn an_empty_directory_is_fine() {
    assert!(load("", b"").unwrap().tenants.is_empty());
}

#[test]
fn a_malformed_line_names_its_number() {
    let (line, _, message) = problem(b"{\"id\":\"a\"}\n\n{\"id\":\n");
    assert_eq!(line, 3);
    assert!(message.contains("is no tenant: EOF"), "{message}");
}

#[test]
fn a_line_tells_every_mistake_in_it() {
    let problems = problems("", b"{\"id\":5,\"slgu\":\"a\",\"burst\":0}\n");
    let found: Vec<_> = problems.iter().map(|p| (p.at.as_str(), p.line)).collect();
    assert_eq!(
        found,
        [("burst", Some(1)), ("id", Some(1)), ("slgu", Some(1))]
    );
    assert!(problems[2].message.contains("did you mean \"slug\"?"));
}

#[test]
fn what_is_no_object_or_no_utf8_or_doubled_is_refused() {
    for bad in [
        &b"[]"[..],
        b"null",
        b"5",
        b"\"a\"",
        b"{}",
        b"{\"id\":\"\xff\"}",
        b"{\"id\":\"a\"} {\"id\":\"b\"}",
        b"{\"id\":\"a\",\"id\":\"b\"}",
        b"\0",
        b"\xef\xbb\xbf{\"id\":\"a\"}",
        b"{\"id\":\"a b\"}",
        b"{\"id\":\"\"}",
        b"{\"id\":\"a\",\"requests_per_second\":0}",
        b"{\"id\":\"a\",\"colours\":{\"app\":\"green\"}}",
        b"{\"id\":\"a\",\"routes\":{\"all\":\"none\"}}",
    ] {
        let text = String::from_utf8_lossy(bad);
        assert_eq!(problem(bad).0, 1, "{text}");
    }
}

#[test]
fn a_line_past_the_bound_is_refused_and_the_next_one_is_read() {
    let mut text = vec![b' '; 65_536];
    text.extend_from_slice(b"\n{\"id\":\"fine\"}\n");
    assert_eq!(load("", &text).unwrap().tenants.len(), 1);
    text.insert(0, b' ');
    text.extend_from_slice(b"{\"id\":\"fine\"}\n");
    let problems = problems("", &text);
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].message.contains("longer than 65536 bytes"));
    assert_eq!(
        problems[1].line,
        Some(3),
        "the duplicate behind it is found"
    );
}

#[test]
fn a_duplicate_names_both_places_within_a_file() {
    let (line, at, message) = problem(b"{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"a\"}\n");
    assert_eq!((line, at.as_str()), (3, "id"));
    assert!(
        message.contains("on line 1 of") && message.contains("tenants.jsonl"),
        "{message}"
    );
}

#[test]
fn a_duplicate_names_both_places_across_files() {
    let extra = "[[tenant]]\nid = \"x\"\nslug = \"s\"";
    let problems = problems(
        extra,
        b"{\"id\":\"a\"}\n{\"id\":\"x\"}\n{\"id\":\"b\",\"slug\":\"s\"}\n",
    );
    assert_eq!(problems.len(), 2);
    for (problem, line) in problems.iter().zip([2, 3]) {
        assert_eq!(problem.line, Some(line));
        let message = &problem.message;
        assert!(
            message.contains("on line 14 of") && message.contains("gateway.toml"),
            "{message}"
        );
    }
}

#[test]
fn ids_that_differ_in_case_alone_are_two_tenants() {
    let config = load("", b"{\"id\":\"a\"}\n{\"id\":\"A\"}\n").unwrap();
    assert_eq!(config.tenants.len(), 2);
}

#[test]
fn the_first_hundred_problems_are_shown_and_the_rest_counted() {
    let problems = load("", "x\n".repeat(1_234).as_bytes()).unwrap_err();
    assert_eq!(problems.iter().len(), 101);
    assert_eq!(problems.len(), 1_234);
    assert!(
        problems.to_string().contains("has 1134 more problems"),
        "{problems}"
    );
}

#[test]
fn defaults_fill_what_a_tenant_leaves_out() {
    let extra =
        "default_requests_per_second = 7\ndefault_in_flight_max = 3\ndefault_websockets_max = 5";
    let text = b"{\"id\":\"a\"}\n{\"id\":\"b\",\"requests_per_second\":9,\"in_flight_max\":4,\"websockets_max\":6,\"enabled\":false}\n";
    let config = load(extra, text).unwrap();
    let tenants: Vec<_> = config
        .tenants
        .iter()
        .map(|(_, tenant)| tenant.clone())
        .collect();
    let quota = tenants[0].quota.unwrap();
    assert_eq!(
        (quota.requests, quota.burst, tenants[0].in_flight_max),
        (7, 7, Some(3))
    );
    let quota = tenants[1].quota.unwrap();
    assert_eq!(
        (quota.requests, quota.burst, tenants[1].in_flight_max),
        (9, 9, Some(4))
    );
    let websockets = tenants.iter().map(|tenant| tenant.websockets_max);
    assert!(websockets.eq([Some(5), Some(6)]));
    assert!(tenants[0].enabled && !tenants[1].enabled);
}

#[test]
fn the_directory_is_part_of_the_hash() {
    let a = load("", b"{\"id\":\"a\"}\n").unwrap();
    let b = load("", b"{\"id\":\"b\"}\n").unwrap();
    assert_ne!(a.hash, b.hash);
}

#[test]
fn a_pipe_in_place_of_a_directory_is_refused_and_not_waited_for() {
    let text = format!("{BASE}[tenants]\ndirectory = \"/dev/null\"\n");
    let problems = load_in(std::path::Path::new("/"), &text).unwrap_err();
    assert!(
        problems.to_string().contains("not a regular file"),
        "{problems}"
    );
}
