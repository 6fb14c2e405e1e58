//! Who may import whom: the fences of ARCHITECTURE.md, over `cargo metadata`.

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};

/// Crate folder to the crates of ours that it may use, dev-dependencies aside.
const IMPORTS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("stats", &["core"]),
    ("config", &["core"]),
    ("store", &["core", "stats", "config"]),
    ("plugins", &["core", "config", "stats"]),
    ("gateway", &["core", "stats", "config", "store", "plugins"]),
    ("ops", &["core", "config", "store"]),
    ("testkit", &["core", "config"]),
    ("loadtest", &["core", "config", "stats", "testkit"]),
];

/// Name (or start of a name) of an outside crate to the crates of ours that may name it. The testkit does
/// for the servers that tests start.
const FENCES: &[(&str, &[&str])] = &[
    ("pingora", &["gateway"]),
    ("redis", &["store"]),
    ("tokio-postgres", &["store", "testkit"]),
    ("deadpool-postgres", &["store"]),
    ("rusqlite", &["store"]),
    ("burn", &["coaching"]),
];

fn direct_dependencies() -> BTreeMap<String, Vec<(String, DependencyKind)>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .other_options(vec!["--offline".into()])
        .exec()
        .expect("cargo metadata reads this workspace");
    metadata
        .packages
        .iter()
        .map(|package| {
            let name = package.name.trim_start_matches("hub-").to_owned();
            let dependencies = package
                .dependencies
                .iter()
                .map(|dependency| (dependency.name.clone(), dependency.kind))
                .collect();
            (name, dependencies)
        })
        .collect()
}

#[test]
fn imports_point_one_way() {
    let crates = direct_dependencies();
    let known: BTreeSet<&str> = IMPORTS.iter().map(|(name, _)| *name).collect();
    for (name, dependencies) in &crates {
        assert!(
            known.contains(name.as_str()),
            "crate `{name}` is not in this test's table; say what it may import"
        );
        let allowed = IMPORTS
            .iter()
            .find(|(known, _)| known == name)
            .map_or(&[][..], |(_, allowed)| allowed);
        for (dependency, kind) in dependencies {
            let Some(ours) = dependency.strip_prefix("hub-") else {
                continue;
            };
            if *kind == DependencyKind::Development {
                continue;
            }
            assert!(
                allowed.contains(&ours),
                "`{name}` imports `{ours}`, which the direction of imports forbids"
            );
        }
    }
}

#[test]
fn the_testkit_is_a_development_dependency_only() {
    for (name, dependencies) in direct_dependencies() {
        let normal = dependencies.contains(&("hub-testkit".to_owned(), DependencyKind::Normal));
        assert!(
            !normal || name == "loadtest",
            "`{name}` ships the testkit; make it a dev-dependency"
        );
    }
}

#[test]
fn each_fenced_library_stays_with_its_keepers() {
    for (name, dependencies) in direct_dependencies() {
        for (dependency, _) in &dependencies {
            for (fenced, keepers) in FENCES {
                let named = dependency == fenced || dependency.starts_with(&format!("{fenced}-"));
                assert!(
                    !named || keepers.contains(&name.as_str()),
                    "`{name}` names {dependency}; only {keepers:?} may"
                );
            }
        }
    }
}
