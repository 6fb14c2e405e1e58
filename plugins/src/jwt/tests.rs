//! What a token must and must not achieve, through the plugin as the gateway drives it.

pub(super) mod signer;

use super::keys::CANDIDATES_MAX;
use super::*;
use crate::testing::{NOW, Request, SECRET, build, catalog, problems_of};
use hub_config::PluginCatalog;
use hub_core::LocationId;
use proptest::prelude::*;
use serde_json::{Value, json};
use signer::{Signer, base64url};

/// Claims that are good at [`NOW`] for [`config`].
fn claims() -> Value {
    json!({ "sub": "user-1", "iss": "https://id.example", "aud": "crm", "exp": NOW + 600,
            "iat": NOW - 10, "location_id": "loc_1" })
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn claims_without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

/// Settings that accept the tokens of these signers.
fn config(signers: &[&Signer]) -> Value {
    let keys: Vec<_> = signers.iter().map(|signer| signer.key()).collect();
    json!({ "keys": keys, "issuers": ["https://id.example"], "audiences": ["crm"] })
}

fn config_with(signers: &[&Signer], name: &str, value: Value) -> Value {
    let mut config = config(signers);
    config[name] = value;
    config
}

fn bearer_request(token: impl AsRef<[u8]>) -> Request {
    Request::new().header("Authorization", [b"Bearer ", token.as_ref()].concat())
}

fn identity(verdict: Verdict) -> Identity {
    match verdict {
        Verdict::Identified(identity) => identity,
        other => panic!("not identified: {other:?}"),
    }
}

fn fault(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Refuse(refusal) | Verdict::Missing(refusal) => {
            assert_eq!(refusal.reason, Reason::Unauthenticated);
            refusal.detail.as_deref().unwrap()
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn assert_fault(plugin: &dyn Plugin, request: &Request, expected: Fault) {
    assert_eq!(
        fault(&request.verdict(plugin)),
        expected.detail(),
        "{request:?}"
    );
}

#[test]
fn every_algorithm_identifies_and_refuses_a_changed_signature_and_a_changed_claim() {
    for signer in Signer::one_of_each() {
        let plugin = build("jwt", config(&[&signer]));
        let token = signer.sign(&claims());
        let identity = identity(bearer_request(&token).verdict(&*plugin));
        assert_eq!(&*identity.subject, "user-1");
        assert_eq!(identity.tenant, LocationId::parse(b"loc_1").ok());
        assert_eq!(identity.method, IdentityMethod::Jwt);

        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = signer::decode(signature);
        bytes[3] ^= 1;
        let changed = format!("{message}.{}", base64url(&bytes));
        assert_fault(&*plugin, &bearer_request(changed), Fault::BadSignature);

        let header = token.split('.').next().unwrap();
        let stolen = base64url(
            claims_with("location_id", json!("loc_2"))
                .to_string()
                .as_bytes(),
        );
        let changed = format!("{header}.{stolen}.{signature}");
        assert_fault(&*plugin, &bearer_request(changed), Fault::BadSignature);
    }
}

#[test]
fn a_key_checks_only_with_the_algorithms_that_it_lists() {
    let rsa = Signer::rsa("PS256");
    let mut settings = config(&[&rsa]);
    settings["keys"][0]["algorithms"] = json!(["RS256"]);
    let plugin = build("jwt", settings);
    assert_fault(&*plugin, &bearer_request(rsa.sign(&claims())), Fault::NoKey);
}

/// Each row: what an attacker sends, and what comes of it. All of them hold a key or a secret that would
/// be good for something.
#[test]
fn attacks_on_the_header_are_refused() {
    let (hmac, rsa, ec) = (
        Signer::hmac("HS256"),
        Signer::rsa("RS256"),
        Signer::ecdsa("ES256"),
    );
    let plugin = build("jwt", config(&[&hmac, &rsa, &ec]));
    let stranger = Signer::ecdsa("ES256").with_kid(ec.kid());
    let with = |signer: &Signer, name: &str, value: Value| {
        let mut header = signer.header();
        header[name] = value;
        signer.sign_raw(&header.to_string(), &claims().to_string())
    };
    let unsigned = |alg: &str| {
        let header = json!({ "alg": alg, "typ": "JWT" }).to_string();
        format!(
            "{}.{}.",
            base64url(header.as_bytes()),
            base64url(claims().to_string().as_bytes())
        )
    };
    // The public key's PEM and DER, used as an HMAC secret.
    let pem = std::fs::read(rsa.key()["public_key_file"].as_str().unwrap()).unwrap();
    let confused = |secret: &[u8]| {
        Signer::hmac_with("HS256", secret)
            .with_kid(rsa.kid())
            .sign(&claims())
    };
    let table: Vec<(&str, String, Fault)> = vec![
        ("alg none", unsigned("none"), Fault::UnknownAlgorithm),
        ("alg None", unsigned("None"), Fault::UnknownAlgorithm),
        ("alg nOnE", unsigned("nOnE"), Fault::UnknownAlgorithm),
        ("alg empty", unsigned(""), Fault::UnknownAlgorithm),
        (
            "alg in lower case",
            unsigned("hs256"),
            Fault::UnknownAlgorithm,
        ),
        ("alg unknown", unsigned("ES256K"), Fault::UnknownAlgorithm),
        (
            "alg no text",
            with(&hmac, "alg", json!(["HS256"])),
            Fault::UnknownAlgorithm,
        ),
        ("no signature", unsigned("HS256"), Fault::BadSignature),
        (
            "no signature, asymmetric",
            unsigned("ES256"),
            Fault::BadSignature,
        ),
        ("HS/RS confusion by PEM", confused(&pem), Fault::NoKey),
        (
            "HS/RS confusion by PEM, trimmed",
            confused(pem.trim_ascii()),
            Fault::NoKey,
        ),
        (
            "RS key used as ES",
            with(&rsa, "alg", json!("ES256")),
            Fault::NoKey,
        ),
        (
            "RS signature sold as PS",
            with(&rsa, "alg", json!("PS256")),
            Fault::NoKey,
        ),
        (
            "a stranger's key under our kid",
            stranger.sign(&claims()),
            Fault::BadSignature,
        ),
        (
            "kid of another key",
            with(&ec, "kid", json!(rsa.kid())),
            Fault::NoKey,
        ),
        (
            "kid as path",
            with(&ec, "kid", json!("../../../../dev/null")),
            Fault::NoKey,
        ),
        (
            "kid as SQL",
            with(&ec, "kid", json!("x' UNION SELECT 'secret")),
            Fault::NoKey,
        ),
        (
            "kid as shell",
            with(&ec, "kid", json!("k|id")),
            Fault::NoKey,
        ),
        (
            "kid as URL",
            with(&ec, "kid", json!("http://169.254.169.254/")),
            Fault::NoKey,
        ),
        (
            "kid with NUL",
            with(&ec, "kid", json!(format!("{}\0", ec.kid()))),
            Fault::NoKey,
        ),
        (
            "kid no text",
            with(&ec, "kid", json!({ "$ne": null })),
            Fault::BadHeader,
        ),
        ("kid null", with(&ec, "kid", Value::Null), Fault::BadHeader),
        (
            "jku",
            with(&ec, "jku", json!("http://127.0.0.1:1/jwks")),
            Fault::ForbiddenParameter,
        ),
        (
            "x5u",
            with(&ec, "x5u", json!("http://127.0.0.1:1/cert")),
            Fault::ForbiddenParameter,
        ),
        (
            "x5c",
            with(&ec, "x5c", json!(["MIIB"])),
            Fault::ForbiddenParameter,
        ),
        (
            "embedded jwk",
            with(&stranger, "jwk", json!({ "kty": "EC" })),
            Fault::ForbiddenParameter,
        ),
        (
            "crit",
            with(&ec, "crit", json!(["exp"])),
            Fault::ForbiddenParameter,
        ),
        (
            "crit empty",
            with(&ec, "crit", json!([])),
            Fault::ForbiddenParameter,
        ),
        (
            "b64 off",
            with(&ec, "b64", json!(false)),
            Fault::ForbiddenParameter,
        ),
        (
            "zip",
            with(&ec, "zip", json!("DEF")),
            Fault::ForbiddenParameter,
        ),
        (
            "enc",
            with(&ec, "enc", json!("A128GCM")),
            Fault::ForbiddenParameter,
        ),
        (
            "a logout token",
            with(&ec, "typ", json!("logout+jwt")),
            Fault::WrongType,
        ),
        (
            "a DPoP proof",
            with(&ec, "typ", json!("dpop+jwt")),
            Fault::WrongType,
        ),
        ("typ no text", with(&ec, "typ", json!(1)), Fault::WrongType),
        (
            "alg twice",
            hmac.sign_raw(r#"{"alg":"none","alg":"HS256"}"#, &claims().to_string()),
            Fault::BadHeader,
        ),
        (
            "header an array",
            hmac.sign_raw(r#"["HS256"]"#, &claims().to_string()),
            Fault::BadHeader,
        ),
        (
            "header with a tail",
            hmac.sign_raw(r#"{"alg":"HS256"}{}"#, &claims().to_string()),
            Fault::BadHeader,
        ),
        (
            "header nested deep",
            hmac.sign_raw(&format!("{{\"a\":{}", "[".repeat(3_000)), "{}"),
            Fault::BadHeader,
        ),
    ];
    for (name, token, expected) in table {
        assert_eq!(
            fault(&bearer_request(token).verdict(&*plugin)),
            expected.detail(),
            "{name}"
        );
    }
}

#[test]
fn ecdsa_signatures_in_der_or_of_zeros_are_refused() {
    let ec = Signer::ecdsa("ES256");
    let plugin = build("jwt", config(&[&ec]));
    let token = ec.sign(&claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let fixed = signer::decode(signature);
    let der = [
        &[0x30, 0x44, 0x02, 0x20],
        &fixed[..32],
        &[0x02, 0x20],
        &fixed[32..],
    ]
    .concat();
    for bytes in [
        der,
        vec![0; 64],
        Vec::new(),
        fixed[..63].to_vec(),
        [fixed.clone(), vec![0]].concat(),
    ] {
        let token = format!("{message}.{}", base64url(&bytes));
        assert_fault(&*plugin, &bearer_request(token), Fault::BadSignature);
    }
}

#[test]
fn attacks_on_the_shape_are_refused() {
    let hmac = Signer::hmac("HS256");
    let plugin = build("jwt", config(&[&hmac]));
    let good = hmac.sign(&claims());
    let parts: Vec<_> = good.split('.').collect();
    let table = [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        parts[0].into(),
        parts[..2].join("."),
        format!("{good}.{}", parts[2]),
        format!("{good}="),
        format!("{good}\n"),
        good.replacen('.', " .", 1),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{good}+/"),
        format!("\u{feff}{good}"),
    ];
    for token in table {
        let verdict = bearer_request(&token).verdict(&*plugin);
        // A newline at the end cannot come through the front; here it is trimmed like any white space.
        if token == format!("{good}\n") {
            assert!(matches!(verdict, Verdict::Identified(_)));
        } else {
            let found = fault(&verdict);
            let expected = [Fault::NotThreeParts, Fault::BadHeader].map(Fault::detail);
            assert!(expected.contains(&found), "{token:?}: {found}");
        }
    }
    let mut bytes = good.into_bytes();
    bytes.push(0xff);
    assert_fault(&*plugin, &bearer_request(bytes), Fault::NotThreeParts);
}

#[test]
fn only_the_one_base64_spelling_of_a_token_is_good() {
    // 32 bytes of signature leave two bits unused in the last letter; three other letters decode to the
    // same bytes in a lax reader, and would make one token many.
    let hmac = Signer::hmac("HS256");
    let plugin = build("jwt", config(&[&hmac]));
    let good = hmac.sign(&claims());
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let accepted = alphabet
        .chars()
        .map(|last| format!("{}{last}", &good[..good.len() - 1]))
        .filter(|token| {
            matches!(
                bearer_request(token).verdict(&*plugin),
                Verdict::Identified(_)
            )
        })
        .count();
    assert_eq!(accepted, 1);
}

#[test]
fn claims_are_checked_each_one() {
    let signer = Signer::hmac("HS256");
    let plugin = build("jwt", config(&[&signer]));
    let table: Vec<(Value, Fault)> = vec![
        (claims_without("exp"), Fault::NoExpiry),
        (claims_with("exp", json!("tomorrow")), Fault::NoExpiry),
        (claims_with("exp", Value::Null), Fault::NoExpiry),
        (claims_with("exp", json!(-1)), Fault::NoExpiry),
        (claims_with("exp", json!(u64::MAX)), Fault::NoExpiry),
        (claims_with("exp", json!(1e300)), Fault::NoExpiry),
        (claims_with("iat", json!(NOW + 31)), Fault::NotYet),
        (
            claims_with("iat", json!(NOW + 700)),
            Fault::IssuedAfterExpiry,
        ),
        (claims_with("iat", json!("now")), Fault::BadTime),
        (claims_with("nbf", json!(NOW + 31)), Fault::NotYet),
        (claims_with("nbf", json!([NOW])), Fault::BadTime),
        (claims_without("iss"), Fault::WrongIssuer),
        (
            claims_with("iss", json!("https://id.example/")),
            Fault::WrongIssuer,
        ),
        (
            claims_with("iss", json!(["https://id.example"])),
            Fault::WrongIssuer,
        ),
        (claims_without("aud"), Fault::WrongAudience),
        (claims_with("aud", json!("crm2")), Fault::WrongAudience),
        (claims_with("aud", json!([])), Fault::WrongAudience),
        (
            claims_with("aud", json!(["billing", 7])),
            Fault::WrongAudience,
        ),
        (
            claims_with("aud", json!({ "crm": true })),
            Fault::WrongAudience,
        ),
        (claims_without("sub"), Fault::BadSubject),
        (claims_with("sub", json!("")), Fault::BadSubject),
        (claims_with("sub", json!(7)), Fault::BadSubject),
        (
            claims_with("sub", json!("s".repeat(257))),
            Fault::BadSubject,
        ),
        (
            claims_with("sub", json!("a\r\nX-Location-Id: loc_2")),
            Fault::BadSubject,
        ),
        (claims_with("location_id", json!("loc 1")), Fault::BadTenant),
        (claims_with("location_id", json!("")), Fault::BadTenant),
        (
            claims_with("location_id", json!("l".repeat(65))),
            Fault::BadTenant,
        ),
        (
            claims_with("location_id", json!(["loc_1"])),
            Fault::BadTenant,
        ),
        (claims_with("location_id", Value::Null), Fault::BadTenant),
        (json!([]), Fault::BadClaims),
        (json!("claims"), Fault::BadClaims),
    ];
    for (claims, expected) in table {
        let verdict = bearer_request(signer.sign(&claims)).verdict(&*plugin);
        assert_eq!(fault(&verdict), expected.detail(), "{claims}");
    }
    let twice = r#"{"sub":"a","aud":"crm","iss":"https://id.example","exp":1,"exp":9999999999}"#;
    let token = signer.sign_raw(&signer.header().to_string(), twice);
    assert_fault(&*plugin, &bearer_request(token), Fault::BadClaims);
}

#[test]
fn a_list_of_audiences_a_fraction_of_a_second_and_no_tenant_are_fine() {
    let signer = Signer::hmac("HS256");
    let plugin = build("jwt", config(&[&signer]));
    for claims in [
        claims_with("aud", json!(["billing", "crm"])),
        claims_with("exp", json!(NOW as f64 + 60.5)),
        claims_with("sub", json!("s".repeat(256))),
        claims_without("iat"),
    ] {
        identity(bearer_request(signer.sign(&claims)).verdict(&*plugin));
    }
    let token = signer.sign(&claims_without("location_id"));
    assert_eq!(
        identity(bearer_request(token).verdict(&*plugin)).tenant,
        None
    );
}

#[test]
fn times_hold_to_the_second_with_the_configured_leeway_remembered_or_not() {
    let signer = Signer::hmac("HS256");
    let mut claims = claims_with("nbf", json!(NOW));
    claims["exp"] = json!(NOW + 100);
    let token = signer.sign(&claims);
    for (leeway, cache) in [(0, 0), (0, 100), (30, 100), (300, 0)] {
        let mut settings = config_with(&[&signer], "leeway_seconds", json!(leeway));
        settings["cache_entries"] = json!(cache);
        let plugin = build("jwt", settings);
        let at = |now: u64| bearer_request(&token).at(now).verdict(&*plugin);
        identity(at(NOW - leeway));
        // What the leeway lets in has expired all the same.
        let late = identity(at(NOW + 99 + leeway));
        let expiry = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + 100);
        assert_eq!(late.expires, Some(expiry), "leeway {leeway}, cache {cache}");
        assert_eq!(fault(&at(NOW - leeway - 1)), Fault::NotYet.detail());
        assert_eq!(fault(&at(NOW + 100 + leeway)), Fault::Expired.detail());
    }
}

#[test]
fn settings_decide_which_claims_count() {
    let signer = Signer::hmac("HS256");
    let any = |name: &str, value: Value| {
        let mut settings = config(&[&signer]);
        settings[name] = value;
        settings
    };
    let mut settings = any("any_audience", json!(true));
    settings["audiences"] = json!([]);
    let plugin = build("jwt", settings);
    identity(bearer_request(signer.sign(&claims_without("aud"))).verdict(&*plugin));
    let plugin = build("jwt", any("issuers", json!([])));
    identity(bearer_request(signer.sign(&claims_without("iss"))).verdict(&*plugin));
    let plugin = build("jwt", any("tenant_claim", json!("https://hub/tenant")));
    let token = signer.sign(&claims_with("https://hub/tenant", json!("loc_9")));
    let tenant = identity(bearer_request(token).verdict(&*plugin)).tenant;
    assert_eq!(tenant, LocationId::parse(b"loc_9").ok());
    let plugin = build("jwt", any("token_bytes_max", json!(256)));
    let token = signer.sign(&claims_with("pad", json!("p".repeat(100))));
    assert!(token.len() > 256);
    assert_fault(&*plugin, &bearer_request(token), Fault::TooLong);
}

#[test]
fn a_token_past_8_kib_is_refused_by_default() {
    let signer = Signer::hmac("HS256");
    let plugin = build("jwt", config(&[&signer]));
    let fits = signer.sign(&claims_with("pad", json!("p".repeat(5_000))));
    identity(bearer_request(fits).verdict(&*plugin));
    let token = signer.sign(&claims_with("pad", json!("p".repeat(6_200))));
    assert_fault(&*plugin, &bearer_request(token), Fault::TooLong);
}

#[test]
fn a_missing_token_is_refused_only_where_one_is_required() {
    let signer = Signer::hmac("HS256");
    let plugin = build("jwt", config(&[&signer]));
    let (verdict, edits) = Request::new().run(&*plugin);
    assert_eq!(fault(&verdict), Fault::Missing.detail());
    assert_eq!(
        edits.response,
        [Edit::Append(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer")
        )]
    );

    let plugin = build("jwt", config_with(&[&signer], "required", json!(false)));
    let (verdict, edits) = Request::new().run(&*plugin);
    assert_eq!(verdict, Verdict::Continue);
    assert!(edits.response.is_empty());
    let other_scheme = Request::new().header("Authorization", "Basic dXNlcjpwYXNz");
    assert_eq!(other_scheme.verdict(&*plugin), Verdict::Continue);
    let (verdict, edits) = bearer_request("nonsense").run(&*plugin);
    assert_eq!(fault(&verdict), Fault::NotThreeParts.detail());
    let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    assert_eq!(edits.response, [Edit::Append(WWW_AUTHENTICATE, challenge)]);
}

#[test]
fn the_scheme_is_read_in_any_case_and_two_headers_are_refused() {
    let signer = Signer::hmac("HS256");
    let plugin = build("jwt", config(&[&signer]));
    let token = signer.sign(&claims());
    for scheme in ["Bearer", "bearer", "BEARER", "Bearer  "] {
        let request = Request::new().header("authorization", format!("{scheme} {token}"));
        identity(request.verdict(&*plugin));
    }
    for value in [
        format!("Bearer{token}"),
        format!("Bearer:{token}"),
        token.clone(),
    ] {
        let request = Request::new().header("Authorization", value);
        assert_fault(&*plugin, &request, Fault::Missing);
    }
    for value in ["Bearer", "Bearer "] {
        let request = Request::new().header("Authorization", value);
        assert_fault(&*plugin, &request, Fault::NotThreeParts);
    }
    let good = format!("Bearer {token}");
    for second in [good.as_str(), "Basic dXNlcjpwYXNz", ""] {
        let request = Request::new()
            .header("Authorization", &good)
            .header("authorization", second);
        assert_fault(&*plugin, &request, Fault::TwoHeaders);
        let request = Request::new()
            .header("Authorization", second)
            .header("authorization", &good);
        assert_fault(&*plugin, &request, Fault::TwoHeaders);
    }
}

#[test]
fn cookie_and_query_count_only_where_configured_and_must_not_contradict() {
    let signer = Signer::hmac("HS256");
    let (token, other) = (
        signer.sign(&claims()),
        signer.sign(&claims_with("sub", json!("user-2"))),
    );
    let in_cookie = Request::new().header("Cookie", format!("a=b; session={token}; sessions=x"));
    let in_query = Request::new().query(&format!("q=1&access_token={token}&xaccess_token=y"));

    let plugin = build("jwt", config(&[&signer]));
    assert_fault(&*plugin, &in_cookie, Fault::Missing);
    assert_fault(&*plugin, &in_query, Fault::Missing);

    let mut settings = config_with(&[&signer], "cookie", json!("session"));
    settings["query_parameter"] = json!("access_token");
    let plugin = build("jwt", settings);
    identity(in_cookie.verdict(&*plugin));
    identity(in_query.verdict(&*plugin));
    let same = in_cookie
        .clone()
        .header("Authorization", format!("Bearer {token}"));
    identity(same.verdict(&*plugin));
    for request in [
        in_cookie
            .clone()
            .header("Authorization", format!("Bearer {other}")),
        in_cookie
            .clone()
            .header("Cookie", format!("session={other}")),
        in_cookie.clone().header("Authorization", "Bearer"),
        in_cookie.clone().query(&format!("access_token={other}")),
        Request::new().query(&format!("access_token={token}&access_token={other}")),
        Request::new().query(&format!("access_token={token}&access%5Ftoken={other}")),
        Request::new().query(&format!("access_token={token}&Access-Token={other}")),
        in_cookie.clone().query(&format!("access_token[]={other}")),
    ] {
        assert_fault(&*plugin, &request, Fault::Contradiction);
    }
}

#[test]
fn a_token_without_a_kid_is_tried_with_four_keys_at_most() {
    let signers: Vec<_> = (0..5)
        .map(|n| Signer::hmac_with("HS256", format!("{n}{SECRET}").as_bytes()))
        .collect();
    let plugin = build("jwt", config(&signers.iter().collect::<Vec<_>>()));
    for (n, signer) in signers.iter().enumerate() {
        let verdict = bearer_request(signer.sign_raw(r#"{"alg":"HS256"}"#, &claims().to_string()))
            .verdict(&*plugin);
        assert_eq!(matches!(verdict, Verdict::Identified(_)), n < 4, "key {n}");
        identity(bearer_request(signer.sign(&claims())).verdict(&*plugin));
    }
}

#[test]
fn a_repeated_token_costs_no_signature_check() {
    let rsa = Signer::rsa("RS256");
    let plugin = build("jwt", config(&[&rsa]));
    let request = bearer_request(rsa.sign(&claims()));
    let first = identity(request.verdict(&*plugin));
    // Counted in claims read, which follow each signature check and nothing else.
    let before = token::claims_read();
    for _ in 0..100 {
        assert_eq!(identity(request.verdict(&*plugin)), first);
    }
    assert_eq!(token::claims_read(), before);
    let plugin = build("jwt", config_with(&[&rsa], "cache_entries", json!(0)));
    for _ in 0..3 {
        identity(request.verdict(&*plugin));
    }
    assert_eq!(token::claims_read(), before + 3);
}

#[test]
fn keys_come_from_a_jwks_file() {
    let (ec, ed, rsa) = (
        Signer::ecdsa("ES384"),
        Signer::ed25519(),
        Signer::rsa("RS512"),
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    std::fs::write(
        &path,
        json!({ "keys": [ec.jwk(), ed.jwk(), rsa.jwk()] }).to_string(),
    )
    .unwrap();
    let plugin = build(
        "jwt",
        json!({ "jwks": { "file": path }, "audiences": ["crm"] }),
    );
    for signer in [&ec, &ed, &rsa] {
        identity(bearer_request(signer.sign(&claims())).verdict(&*plugin));
    }
}

#[test]
fn the_key_that_a_token_names_is_tried_however_many_have_no_name() {
    let named = Signer::rsa("RS256");
    let mut keys = vec![json!({
        "algorithms": ["RS256"],
        "public_key_file": "tests/keys/rsa-test-only.pub.pem",
    })];
    keys.resize(CANDIDATES_MAX, keys[0].clone());
    keys.push(named.key());
    let of = |keys: &[Value]| json!({ "keys": keys, "audiences": ["crm"] });
    let plugin = build("jwt", of(&keys));
    identity(bearer_request(named.sign(&claims())).verdict(&*plugin));
    // A fifth without a name would never be tried.
    keys.push(keys[0].clone());
    assert_eq!(problems_of("jwt", of(&keys)), [""]);
}

#[test]
fn every_mistake_is_reported_at_once_with_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let pem = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/keys/rsa-test-only.pub.pem"
    ))
    .unwrap();
    let private = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/rsa-test-only.pem");
    let settings = json!({
        "keys": [
            { "algorithms": ["HS256"], "secret_file": write("short", b"short-canary") },
            { "algorithms": ["HS256"], "secret_file": write("pem", &pem) },
            { "algorithms": ["RS256"], "secret_env": "TEST_SECRET" },
            { "algorithms": ["HS256"], "public_key_file": "tests/keys/rsa-test-only.pub.pem" },
            { "algorithms": ["ES256"], "public_key_file": "tests/keys/rsa-test-only.pub.pem" },
            { "algorithms": ["RS256"], "public_key_file": "tests/keys/rsa-1024.pub.pem" },
            { "algorithms": ["RS256"], "public_key_file": private },
            { "algorithms": [], "public_key_file": "tests/keys/rsa-test-only.pub.pem" },
            { "algorithms": ["RS256"], "public_key_file": "nowhere.pem" },
            { "algorithms": ["HS256"], "secret_env": "NO_SUCH_VARIABLE" },
            { "algorithms": ["HS256"], "secret_env": "TEST_SECRET", "secret_file": "both" },
            { "algorithms": ["HS256"] },
            { "algorithms": ["HS256"], "secret_env": "TEST_SECRET", "kid": "same" },
            { "algorithms": ["HS256"], "secret_env": "TEST_SECRET", "kid": "same" },
            { "algorithms": ["HS256"], "secret_env": "TEST_SECRET", "kid": "" },
        ],
        "jwks": { "url": "http://example.com/jwks", "algorithms": ["HS256"], "refresh_seconds": 0 },
        "leeway_seconds": 301,
        "token_bytes_max": 1,
        "cache_entries": 1_000_001,
        "cookie": "a b",
        "tenant_claim": "",
        "issuers": [""],
        "secret": "inline-canary",
    });
    let problems = catalog()
        .build("jwt", "test", settings.as_object().unwrap(), None)
        .unwrap_err();
    let at: Vec<_> = problems.iter().map(|problem| problem.at.as_str()).collect();
    assert_eq!(
        at,
        [
            "secret",
            "keys[0].secret_file",
            "keys[1].secret_file",
            "keys[2].secret_env",
            "keys[3].public_key_file",
            "keys[4].public_key_file",
            "keys[5].public_key_file",
            "keys[6].public_key_file",
            "keys[7].public_key_file",
            "keys[8].public_key_file",
            "keys[9].secret_env",
            "keys[10]",
            "keys[11]",
            "keys[13].kid",
            "keys[14].kid",
            "jwks.algorithms",
            "jwks.refresh_seconds",
            "jwks.url",
            "audiences",
            "issuers[0]",
            "tenant_claim",
            "cookie",
            "leeway_seconds",
            "token_bytes_max",
            "cache_entries",
        ]
    );
    let text = format!("{problems:?}");
    assert!(!text.contains("canary") && !text.contains("MII"), "{text}");
}

#[test]
fn urls_are_https_or_loopback_and_never_link_local() {
    let at = |url: &str| crate::testing::problems_of("jwt", json!({ "jwks": { "url": url } }));
    for bad in [
        "http://example.com/",
        "http://localhost/",
        "http://10.0.0.1/",
        "ftp://example.com/",
        "/jwks",
        "https://user:pass@example.com/",
        "https://example.com/#x",
        "https://169.254.169.254/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        "https://[fe80::1]/",
        "",
    ] {
        assert_eq!(at(bad), ["jwks.url", "audiences"], "{bad}");
    }
    // Checked without `audiences`, so that nothing is fetched.
    for good in [
        "https://example.com/jwks?v=1",
        "http://127.0.0.1:1/",
        "http://[::1]:1/",
    ] {
        assert_eq!(at(good), ["audiences"], "{good}");
    }
}

#[test]
fn no_secret_and_no_token_is_in_any_output() {
    let signer = Signer::hmac("HS512");
    let plugin = build(
        "jwt",
        config_with(&[&signer], "token_bytes_max", json!(1_000)),
    );
    let tokens = [
        signer.sign(&claims()),
        signer.sign(&claims_without("exp")),
        SECRET.into(),
        "s".repeat(1_001),
    ];
    let mut output = String::new();
    for token in &tokens {
        output += &format!("{:?}", bearer_request(token).verdict(&*plugin));
    }
    output += &format!("{plugin:?}");
    assert!(!output.contains(&SECRET[..16]), "{output}");
    for token in &tokens {
        assert!(!output.contains(&token[token.len() - 16..]), "{output}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_never_identify(token in proptest::collection::vec(any::<u8>(), 0..600)) {
        let signer = Signer::hmac("HS256");
        let plugin = build("jwt", config_with(&[&signer], "cookie", json!("c")));
        let verdict = bearer_request(&token).verdict(&*plugin);
        prop_assert!(matches!(verdict, Verdict::Refuse(_) | Verdict::Missing(_)));
        let verdict = Request::new().header("Authorization", &token).header("Cookie", &token).verdict(&*plugin);
        prop_assert!(matches!(verdict, Verdict::Refuse(_) | Verdict::Missing(_)));
    }

    #[test]
    fn a_good_token_with_any_byte_changed_never_identifies(position in 0..10_000_usize, byte in any::<u8>()) {
        let signer = Signer::hmac("HS256");
        let plugin = build("jwt", config(&[&signer]));
        let mut token = signer.sign(&claims()).into_bytes();
        let position = position % token.len();
        prop_assume!(token[position] != byte);
        // White space at the end is not part of the token.
        prop_assume!(position + 1 < token.len() || !byte.is_ascii_whitespace());
        token[position] = byte;
        let verdict = bearer_request(&token).verdict(&*plugin);
        prop_assert!(matches!(verdict, Verdict::Refuse(_) | Verdict::Missing(_)), "{verdict:?}");
    }

    #[test]
    fn random_headers_and_claims_in_good_form_never_panic(header in ".{0,80}", claims in ".{0,80}") {
        let signer = Signer::hmac("HS256");
        let plugin = build("jwt", config(&[&signer]));
        let verdict = bearer_request(signer.sign_raw(&header, &claims)).verdict(&*plugin);
        prop_assert!(matches!(verdict, Verdict::Refuse(_) | Verdict::Missing(_)));
        let verdict = bearer_request(signer.sign_raw(&signer.header().to_string(), &claims)).verdict(&*plugin);
        prop_assert!(matches!(verdict, Verdict::Refuse(_) | Verdict::Missing(_)));
    }
}
