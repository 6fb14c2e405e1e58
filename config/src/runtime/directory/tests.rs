use super::*;
use std::collections::HashMap;

fn tenant(id: &str, slug: Option<&str>, enabled: bool) -> Tenant {
    Tenant {
        id: LocationId::parse(id.as_bytes()).unwrap(),
        slug: slug.map(|slug| Slug::parse(slug).unwrap()),
        enabled,
        quota: None,
        in_flight_max: None,
        websockets_max: None,
        overlay: None,
    }
}

fn id(text: &str) -> LocationIdRef<'_> {
    LocationIdRef::parse(text.as_bytes()).unwrap()
}

/// Distinct texts of every length from 1 to 63, of which many share all but a byte at the start, in the
/// middle or at the end.
fn texts() -> Vec<String> {
    let mut texts = Vec::new();
    for len in 1..=63 {
        texts.push("a".repeat(len));
        for at in [0, len / 2, len - 1] {
            for letter in ["b", "c"] {
                let mut text = "a".repeat(len);
                text.replace_range(at..=at, letter);
                texts.push(text);
            }
        }
    }
    texts.sort();
    texts.dedup();
    texts
}

#[test]
fn ids_and_slugs_of_every_length_are_found_and_no_others() {
    // Every other text is a tenant's id, and its slug is the id turned around.
    let turned = |text: &str| text.chars().rev().collect::<String>();
    let texts = texts();
    let mut tenants = Tenants::with_capacity(0);
    let mut by_id = HashMap::new();
    let mut by_slug = HashMap::new();
    for text in texts.iter().step_by(2) {
        let slug = turned(text);
        let index = tenants
            .insert(tenant(text, Some(&slug), text.len() % 3 > 0))
            .unwrap();
        by_id.insert(text.clone(), index);
        by_slug.insert(slug, index);
    }
    assert_eq!(tenants.len(), by_id.len());
    for text in &texts {
        let wanted = by_id.get(text).copied();
        assert_eq!(tenants.get(id(text)), wanted, "{text}");
        let enabled = wanted.filter(|index| tenants[*index].enabled);
        assert_eq!(tenants.get_enabled(id(text)), enabled, "{text}");
        assert_eq!(
            tenants.get_by_slug(text),
            by_slug.get(text).copied(),
            "{text}"
        );
    }
}

#[test]
fn a_taken_id_or_slug_is_told_with_its_tenant() {
    let mut tenants = Tenants::default();
    let first = tenants.insert(tenant("A", Some("a"), false)).unwrap();
    assert_eq!(
        tenants.insert(tenant("A", None, true)),
        Err(Taken::Id(first))
    );
    assert_eq!(
        tenants.insert(tenant("B", Some("a"), true)),
        Err(Taken::Slug(first))
    );
    let long = "B".repeat(60);
    assert_eq!(
        tenants.insert(tenant(&long, Some("a"), true)),
        Err(Taken::Slug(first))
    );
    // What was refused has left nothing behind.
    assert_eq!((tenants.get(id("B")), tenants.get(id(&long))), (None, None));
    // Ids and slugs are two name spaces, and ids have a case.
    assert!(tenants.insert(tenant("a", Some("b"), true)).is_ok());
    assert_eq!(tenants.len(), 2);
}

#[test]
fn no_text_outside_the_alphabet_finds_anything() {
    let mut tenants = Tenants::default();
    tenants.insert(tenant("a", None, true)).unwrap();
    for text in ["", "\0", "a\0", "A", "é"] {
        assert_eq!(tenants.get_by_slug(text), None, "{text:?}");
    }
}
