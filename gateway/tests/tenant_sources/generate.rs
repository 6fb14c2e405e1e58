//! Requests that name tenants in many places and spellings: mostly right, often nearly right.

use crate::gateway::Rule;
use crate::oracle::TENANTS;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// A request as the front hands it on: host in lower case, path normalised beside the raw one.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Position of the route's rule.
    pub(crate) rule: usize,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) path_raw: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// What a credential proved: somebody, and perhaps a tenant.
    pub(crate) identity: Option<Option<String>>,
}

pub(crate) fn request(rng: &mut StdRng, rules: &[Rule]) -> Request {
    let rule = rng.random_range(0..rules.len());
    let main = any_id(rng);
    // Half of the requests are wrong in one place at most, so that every verdict is frequent.
    let noise = *[0.02, 0.15, 0.5].choose(rng).expect("not empty");
    let named = |rng: &mut StdRng| {
        if rng.random_bool(noise) {
            any_id(rng)
        } else {
            main.clone()
        }
    };

    let identity = (rules[rule].authenticated && rng.random_bool(0.9)).then(|| {
        let id = named(rng);
        rng.random_bool(0.8).then_some(id)
    });
    let mut headers = Vec::new();
    for name in ["x-location-id", "x-tenant"] {
        let count = *[0, 1, 1, 1, 1, 1, 1, 1, 1, 2]
            .choose(rng)
            .expect("not empty");
        let count = if noise > 0.1 { count } else { count.min(1) };
        for _ in 0..count {
            let id = named(rng);
            let value = spelling(rng, &id, noise);
            headers.push((header_name(rng, name, noise), value.into_bytes()));
        }
    }
    if rng.random_bool(0.3) {
        headers.insert(
            rng.random_range(0..=headers.len()),
            ("accept".into(), b"*/*".to_vec()),
        );
    }
    let id = named(rng);
    let host = host(rng, &id, noise);
    let id = named(rng);
    let (path, path_raw) = path(rng, rule, &id, noise);
    let id = named(rng);
    Request {
        rule,
        host,
        path,
        path_raw,
        query: query(rng, &id, noise),
        headers,
        identity,
    }
}

fn any_id(rng: &mut StdRng) -> String {
    if rng.random_bool(0.1) {
        let strangers = ["nobody", "dead-2", "Loc_A", "bolt", "-", "_", "LOC-A"];
        return (*strangers.choose(rng).expect("not empty")).to_string();
    }
    TENANTS.choose(rng).expect("not empty").id.to_string()
}

/// An id as an attacker, or a careless client, might write it.
fn spelling(rng: &mut StdRng, id: &str, noise: f64) -> String {
    if !rng.random_bool(noise / 2.0) {
        return id.to_string();
    }
    let first = &id[..1];
    let rest = &id[1..];
    match rng.random_range(0..24) {
        0 => String::new(),
        1 => id.to_uppercase(),
        2 => id.to_lowercase(),
        3 => id.replace('_', "-"),
        4 => id.replace('-', "_"),
        5 => format!("%{:02x}{rest}", first.as_bytes()[0]),
        6 => format!("%25{:02x}{rest}", first.as_bytes()[0]),
        7 => id.replace('_', "%5F"),
        8 => format!(" {id}"),
        9 => format!("{id} "),
        10 => format!("{id}\0"),
        11 => format!("{id},{}", any_id(rng)),
        12 => format!("\"{id}\""),
        13 => format!("{id}*"),
        14 => "*".to_string(),
        15 => id.replace(['a', 'A'], "\u{430}"),
        16 => format!("\u{ff4c}{rest}"),
        17 => format!("{id}\u{200b}"),
        18 => id.repeat(2_000),
        19 => format!("{id}{}", "a".repeat(64 - id.len().min(63))),
        20 => format!("..{id}"),
        21 => format!("{id};{}", any_id(rng)),
        22 => format!("{id}' OR '1'='1"),
        _ => format!("{first}\u{301}{rest}"),
    }
}

fn header_name(rng: &mut StdRng, name: &str, noise: f64) -> String {
    if rng.random_bool(0.3) {
        return name.to_uppercase();
    }
    if !rng.random_bool(noise / 3.0) {
        return name.to_string();
    }
    match rng.random_range(0..6) {
        0 => name.replace('-', "_"),
        1 => name.to_uppercase().replacen('-', "_", 1),
        2 => name.replace('-', "."),
        3 => format!("{name}-"),
        4 => name.replace('-', ""),
        _ => name.replace('-', "--"),
    }
}

fn host(rng: &mut StdRng, id: &str, noise: f64) -> String {
    let slug = TENANTS
        .iter()
        .find(|tenant| tenant.id == id)
        .and_then(|tenant| tenant.slug);
    let other = TENANTS
        .choose(rng)
        .and_then(|tenant| tenant.slug)
        .unwrap_or("none");
    if !rng.random_bool(noise / 2.0) {
        return match slug {
            Some(slug) if rng.random_bool(0.7) => format!("{slug}.hub.test"),
            _ => (*["hub.test", "api.other.test"]
                .choose(rng)
                .expect("not empty"))
            .to_string(),
        };
    }
    match rng.random_range(0..12) {
        0 => format!("{other}.hub.test"),
        1 => format!("{}.hub.test", id.to_lowercase()),
        2 => format!("www.{other}.hub.test"),
        3 => format!("{other}.www.hub.test"),
        4 => format!("{other}.hub.test.evil.test"),
        5 => format!("{other}hub.test"),
        6 => format!("-{other}.hub.test"),
        7 => format!("{other}-.hub.test"),
        8 => format!("{}.hub.test", "a".repeat(rng.random_range(62..66))),
        9 => "none.hub.test".to_string(),
        10 => ".hub.test".to_string(),
        _ => format!("{id}.hub.test"),
    }
}

/// The normal path, and one that has it as its normal form.
fn path(rng: &mut StdRng, rule: usize, id: &str, noise: f64) -> (String, String) {
    // What no path can hold never comes this far: it is refused, or escaped by the client.
    let segment: String = spelling(rng, id, noise)
        .chars()
        .filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '*'))
        .collect();
    let segment = match segment.as_str() {
        "" | "." | ".." => "-".to_string(),
        _ => segment,
    };
    let path = format!("/r{rule}/l/{segment}/x");
    if !rng.random_bool(noise / 2.0) {
        return (path.clone(), path);
    }
    let other = any_id(rng);
    let escaped = format!("%{:02x}{}", segment.as_bytes()[0], &segment[1..]);
    let raw = match rng.random_range(0..12) {
        0 => format!("/r{rule}/l/{escaped}/x"),
        1 => format!("/r{rule}/l/{other}/../{segment}/x"),
        2 => format!("/r{rule}/l/./{segment}/x"),
        3 => format!("/r{rule}//l/{segment}/x"),
        4 => format!("/r{rule}/%6c/{segment}/x"),
        5 => format!("/r{rule}/l/{segment}/%78"),
        6 => format!("/r{rule}/l/{segment}/./x"),
        7 => format!("/r{rule}/l/{segment}//x"),
        8 => format!("/r{rule}/l/{segment}/../{segment}/x"),
        9 => format!("/r{rule}/l/{other}/%2e%2e/{segment}/x"),
        10 => format!("/r{rule}/l/{segment}%2e/../{segment}/x"),
        _ => format!("/{other}/../r{rule}/l/{segment}/x"),
    };
    (path, raw)
}

fn query(rng: &mut StdRng, id: &str, noise: f64) -> Option<String> {
    if rng.random_bool(0.2) {
        return None;
    }
    let mut pairs = Vec::new();
    for _ in 0..rng.random_range(0..3) {
        let others = [
            "a=1",
            "page=2",
            "q=location_id",
            "id=loc_A",
            "x[location_id]=loc_A",
            "",
            "=",
            "b=1;c=2",
        ];
        pairs.push((*others.choose(rng).expect("not empty")).to_string());
    }
    if rng.random_bool(0.85) {
        let value = spelling(rng, id, noise);
        pairs.push(format!("{}={value}", query_name(rng, noise)));
    }
    if rng.random_bool(noise / 5.0) {
        let other = any_id(rng);
        pairs.push(format!("{}={other}", query_name(rng, 0.9)));
    }
    if rng.random_bool(noise / 10.0) {
        pairs.push("location_id".to_string());
    }
    let separator = if rng.random_bool(noise / 5.0) {
        ";"
    } else {
        "&"
    };
    let start = rng.random_range(0..=pairs.len());
    pairs.rotate_left(start);
    Some(pairs.join(separator))
}

fn query_name(rng: &mut StdRng, noise: f64) -> &'static str {
    if !rng.random_bool(noise / 3.0) {
        return "location_id";
    }
    let names = [
        "Location_Id",
        "LOCATION_ID",
        "location-id",
        "location.id",
        "location id",
        "location+id",
        "location%5fid",
        "%6cocation_id",
        "location_id[]",
        "location_id%5B%5D",
        "location_id[0]",
        "+location_id",
        "location_id%20",
        "location_id%00x",
        "location_i",
        "location_idx",
        "locationid",
        "location%_id",
        "location_id%",
        "%0alocation_id",
    ];
    names.choose(rng).expect("not empty")
}
