use super::*;
use crate::testing::{Request, build, catalog, problems_of};
use hub_config::PluginCatalog;
use serde_json::{Value, json};

fn tenant(id: &str) -> LocationId {
    LocationId::parse(id.as_bytes()).unwrap()
}

/// A key's text, and the settings of an instance that knows it.
fn key_and_config(extra: Value) -> (String, Value) {
    let made = generate("billing", Some(&tenant("loc_1"))).unwrap();
    let key = String::from_utf8(made.key.expose().to_vec()).unwrap();
    let sha256 = made.line.rsplit(':').next().unwrap().to_owned();
    let mut config =
        json!({ "keys": [{ "name": "billing", "tenant": "loc_1", "sha256": sha256 }] });
    for (name, value) in extra.as_object().unwrap() {
        config[name] = value.clone();
    }
    (key, config)
}

fn refused_because(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Refuse(refusal) | Verdict::Missing(refusal) => {
            assert_eq!(refusal.reason, Reason::Unauthenticated);
            refusal.detail.as_deref().unwrap()
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_known_key_identifies_its_user_and_tenant() {
    let (key, config) = key_and_config(json!({}));
    let verdict = Request::new()
        .header("x-api-key", &key)
        .verdict(&*build("api_key", config));
    let Verdict::Identified(identity) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(&*identity.subject, "billing");
    assert_eq!(identity.tenant, Some(tenant("loc_1")));
    assert_eq!(identity.method, IdentityMethod::ApiKey);
    assert_eq!(identity.expires, None, "keys have no expiry");
}

#[test]
fn keys_come_from_a_file_with_comments_and_tenants_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let (one, two) = (
        generate("one", None).unwrap(),
        generate("two", Some(&tenant("L-2"))).unwrap(),
    );
    std::fs::write(&path, format!("# ours\n\n{}\n  {}  \n", one.line, two.line)).unwrap();
    let plugin = build("api_key", json!({ "file": path }));
    for (made, name, location) in [(one, "one", None), (two, "two", Some(tenant("L-2")))] {
        let verdict = Request::new()
            .header("X-Api-Key", made.key.expose())
            .verdict(&*plugin);
        let Verdict::Identified(identity) = verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!((&*identity.subject, identity.tenant), (name, location));
    }
}

#[test]
fn wrong_doubled_and_overlong_keys_are_refused_with_a_challenge() {
    let (key, config) = key_and_config(json!({ "required": false }));
    let plugin = build("api_key", config);
    let last = if key.ends_with('A') { "B" } else { "A" };
    let near = format!("{}{last}", &key[..key.len() - 1]);
    let cases = [
        (
            Request::new().header("X-Api-Key", near),
            "the API key is unknown",
        ),
        (
            Request::new().header("X-Api-Key", ""),
            "the API key is unknown",
        ),
        (
            Request::new().header("X-Api-Key", format!("{key} ")),
            "the API key is unknown",
        ),
        (
            Request::new().header("X-Api-Key", "k".repeat(257)),
            "the API key is too long",
        ),
        (
            Request::new()
                .header("X-Api-Key", &key)
                .header("x-api-key", &key),
            "the API key's header is there twice",
        ),
    ];
    for (request, why) in cases {
        let (verdict, edits) = request.run(&*plugin);
        assert_eq!(refused_because(&verdict), why, "{request:?}");
        let challenge = HeaderValue::from_static("ApiKey header=\"x-api-key\"");
        assert_eq!(edits.response, [Edit::Append(WWW_AUTHENTICATE, challenge)]);
    }
}

#[test]
fn a_hash_is_not_a_key() {
    let (_, config) = key_and_config(json!({}));
    let sha256 = config["keys"][0]["sha256"].as_str().unwrap().to_owned();
    let verdict = Request::new()
        .header("X-Api-Key", sha256)
        .verdict(&*build("api_key", config));
    assert_eq!(refused_because(&verdict), "the API key is unknown");
}

#[test]
fn a_missing_key_is_refused_only_where_one_is_required() {
    let (_, config) = key_and_config(json!({}));
    let verdict = Request::new().verdict(&*build("api_key", config));
    assert_eq!(refused_because(&verdict), "no API key");
    let (_, config) = key_and_config(json!({ "required": false }));
    let (verdict, edits) = Request::new().run(&*build("api_key", config));
    assert_eq!(verdict, Verdict::Continue);
    assert!(edits.response.is_empty());
}

#[test]
fn the_header_is_the_configured_one() {
    let (key, config) = key_and_config(json!({ "header": "X-Hook-Key" }));
    let plugin = build("api_key", config);
    let verdict = Request::new().header("x-hook-key", &key).verdict(&*plugin);
    assert!(matches!(verdict, Verdict::Identified(_)));
    let verdict = Request::new().header("x-api-key", &key).verdict(&*plugin);
    assert_eq!(refused_because(&verdict), "no API key");
}

#[test]
fn every_mistake_is_reported_at_once_and_no_line_is_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let good = generate("good", None).unwrap().line;
    std::fs::write(
        &path,
        format!("hub_pasted_by_mistake\n{good}\n{good}\nx:a b:{:064}\n", 0),
    )
    .unwrap();
    let config = json!({
        "file": path,
        "header": "Authorization",
        "keys": [
            { "name": "two words", "sha256": "ab" },
            { "name": "x", "tenant": "", "sha256": "0".repeat(64), "secret": "hub_inline" },
        ],
    });
    let problems = catalog()
        .build("api_key", "test", config.as_object().unwrap(), None)
        .unwrap_err();
    let text = format!("{problems:?}");
    let at: Vec<_> = problems.iter().map(|problem| problem.at.as_str()).collect();
    assert_eq!(
        at,
        [
            "keys[1].secret",
            "keys[0]",
            "keys[0]",
            "file",
            "file",
            "file",
            "header"
        ]
    );
    for line in ["line 1: ", "line 3: ", "line 4: "] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("hub_"), "{text}");
}

#[test]
fn an_instance_without_keys_is_a_mistake() {
    assert_eq!(problems_of("api_key", json!({})), [""]);
}

#[test]
fn generated_keys_differ_never_print_and_have_256_bits() {
    let (one, two) = (generate("a", None).unwrap(), generate("a", None).unwrap());
    assert_ne!(one.key, two.key);
    let text = std::str::from_utf8(one.key.expose()).unwrap();
    assert_eq!(URL_SAFE_NO_PAD.decode(&text[4..]).unwrap().len(), 32);
    assert!(!format!("{one:?}").contains(&text[4..]));
    for bad in ["", "a:b", "é", &"n".repeat(65)] {
        assert_eq!(generate(bad, None).unwrap_err(), GenerateError::BadName);
    }
}
