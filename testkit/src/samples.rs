//! Seeded randomness and sample data: the same seed gives the same data on every machine.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fmt::Write;

/// Environment variable that repeats a run: its value is the seed.
pub const SEED_VARIABLE: &str = "HUB_SEED";

/// A generator for one test, and its seed, which is printed so that a failure can be repeated. The
/// seed is [`SEED_VARIABLE`]'s value where that is set, else random.
///
/// # Panics
/// Where the variable is set to something that is not a `u64`.
pub fn rng() -> (StdRng, u64) {
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(text) => text.trim().parse().unwrap_or_else(|_| {
            panic!("{SEED_VARIABLE} must be a whole number below 2^64, not {text:?}")
        }),
        Err(_) => rand::random(),
    };
    println!("seed {seed}; repeat with {SEED_VARIABLE}={seed}");
    (StdRng::seed_from_u64(seed), seed)
}

/// A tenant that a test can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleTenant {
    /// Its `location_id`: 20 of `[A-Za-z0-9]`, as GoHighLevel makes them.
    pub id: String,
    /// Its slug, in lower case and unique among those of one call.
    pub slug: String,
    /// Its quota, in requests a second; `None` for about half of them.
    pub requests_per_second: Option<u32>,
}

impl SampleTenant {
    /// The tenant as one line of a directory file, without the newline.
    pub fn json(&self) -> String {
        // Neither id nor slug can hold a character that JSON would escape.
        let mut line = format!(r#"{{"id":"{}","slug":"{}""#, self.id, self.slug);
        if let Some(quota) = self.requests_per_second {
            write!(line, r#","requests_per_second":{quota}"#)
                .expect("a String takes whatever is written");
        }
        line.push('}');
        line
    }
}

/// `count` tenants. Ids are random and the slug carries the position, so neither
/// repeats within one call.
pub fn tenants(count: usize, seed: u64) -> Vec<SampleTenant> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|position| SampleTenant {
            id: location_id(&mut rng),
            slug: format!(
                "{}-{position}",
                pick(&mut rng, &["acme", "harbour", "oak", "skyline", "vista"])
            ),
            requests_per_second: rng.random_bool(0.5).then(|| rng.random_range(10..=1_000)),
        })
        .collect()
}

/// The directory file of [`tenants`]: JSON Lines, one tenant a line.
pub fn tenants_jsonl(count: usize, seed: u64) -> String {
    jsonl(&tenants(count, seed))
}

/// These tenants as a directory file.
pub fn jsonl(tenants: &[SampleTenant]) -> String {
    let mut text = String::with_capacity(tenants.len() * 90);
    for tenant in tenants {
        text.push_str(&tenant.json());
        text.push('\n');
    }
    text
}

/// A random `location_id` of 20 of `[A-Za-z0-9]`: 119 bits, so that a repeat does not happen.
pub fn location_id(rng: &mut impl Rng) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..20)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect()
}

fn pick<'a>(rng: &mut impl Rng, words: &[&'a str]) -> &'a str {
    words[rng.random_range(0..words.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_same_seed_gives_the_same_tenants() {
        assert_eq!(tenants_jsonl(50, 7), tenants_jsonl(50, 7));
        assert_ne!(tenants_jsonl(50, 7), tenants_jsonl(50, 8));
    }

    #[test]
    fn ids_and_slugs_do_not_repeat() {
        let tenants = tenants(10_000, 1);
        let ids: HashSet<_> = tenants.iter().map(|t| &t.id).collect();
        let slugs: HashSet<_> = tenants.iter().map(|t| &t.slug).collect();
        assert_eq!((ids.len(), slugs.len()), (10_000, 10_000));
    }

    #[test]
    fn every_line_is_json_with_the_tenants_own_keys() {
        for (line, tenant) in tenants_jsonl(100, 3).lines().zip(tenants(100, 3)) {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["id"], tenant.id.as_str());
            assert_eq!(value["slug"], tenant.slug.as_str());
            assert_eq!(
                value["requests_per_second"].as_u64(),
                tenant.requests_per_second.map(u64::from)
            );
        }
    }
}
