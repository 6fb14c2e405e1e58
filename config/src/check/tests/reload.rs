//! What a load looks at beside the file where it follows a running configuration.

use super::{BASE, load_in, resolve};
use crate::testing::{FakeCatalog, no_env};
use crate::{Loader, Problems, runtime};
use std::path::Path;
use std::sync::Arc;

fn directory(count: std::ops::Range<u32>) -> String {
    count.map(|n| format!("{{\"id\":\"t{n}\"}}\n")).collect()
}

/// Loads [`BASE`] with `extra` and a directory, to start with or to follow `running`.
fn load(
    folder: &Path,
    extra: &str,
    tenants: &str,
    running: Option<(&runtime::Config, bool)>,
) -> Result<runtime::Config, Problems> {
    std::fs::write(folder.join("tenants.jsonl"), tenants).unwrap();
    let text = format!("{BASE}[tenants]\ndirectory = \"tenants.jsonl\"\n{extra}\n");
    let Some((running, allow)) = running else {
        return load_in(folder, &text);
    };
    Loader::new(&FakeCatalog, &no_env)
        .resolver(resolve)
        .after(running)
        .allow_removals(allow)
        .load_str(&text, &folder.join("gateway.toml"), folder)
}

#[test]
fn a_directory_that_loses_more_than_half_of_its_tenants_is_refused_unless_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let own = "[[tenant]]\nid = \"own\"\n";
    let ten = load(folder.path(), own, &directory(0..10), None).unwrap();
    assert_eq!((ten.tenants.len(), ten.directory_tenants), (11, 10));
    let next = |extra: &str, tenants: &str, allow: bool| {
        load(folder.path(), extra, tenants, Some((&ten, allow)))
    };
    for cut in ["", &directory(0..4), &directory(100..200)] {
        let problems = next(own, cut, false).unwrap_err();
        let message = problems.iter().next().unwrap().to_string();
        assert!(message.contains("tenants.directory"), "{message}");
        assert!(message.contains("--allow-removals"), "{message}");
        assert!(next(own, cut, true).is_ok());
    }
    // Half may go; so may the configuration's own, and tenants may move there.
    assert!(next("", &directory(0..5), false).is_ok());
    let moved = "[[tenant]]\nid = \"t0\"\n";
    assert!(next(moved, &directory(1..5), false).is_ok());
    // A start takes what there is.
    assert!(load(folder.path(), "", "", None).is_ok());
}

#[test]
fn a_name_that_cannot_be_looked_up_keeps_the_address_in_force() {
    let text = BASE.replace("127.0.0.1:9001", "app.internal:80");
    let load = |running: Option<&runtime::Config>, known: bool| {
        let mut loader =
            Loader::new(&FakeCatalog, &no_env).resolver(move |host, port| match known {
                true => resolve(host, port),
                false => Err(std::io::Error::other("no server answers")),
            });
        if let Some(running) = running {
            loader = loader.after(running);
        }
        loader.load_str(&text, Path::new("gateway.toml"), Path::new(""))
    };
    let running = load(None, true).unwrap();
    assert!(running.warnings.is_empty());
    let next = load(Some(&running), false).unwrap();
    assert_eq!(next.clusters, running.clusters);
    let warning = next.warnings[0].to_string();
    assert!(warning.contains("no server answers"), "{warning}");
    assert!(warning.contains("10.0.0.1:80"), "{warning}");
    assert!(load(None, false).is_err());
}

#[test]
fn a_plugin_that_would_be_built_as_it_is_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "one").unwrap();
    let who = format!(
        "[[plugin]]\nname = \"who\"\nkind = \"jwt\"\nconfig.files = [{:?}]\n",
        keys.to_str().unwrap()
    );
    let first = load(folder.path(), &who, "", None).unwrap();
    let next = || load(folder.path(), &who, "", Some((&first, false))).unwrap();
    let same = |next: &runtime::Config| {
        let (old, new) = (&first.plugins[0].built, &next.plugins[0].built);
        Arc::ptr_eq(&old.instance, &new.instance)
    };
    assert!(same(&next()));
    std::fs::write(&keys, "two").unwrap();
    assert!(!same(&next()));
}

#[test]
fn the_number_of_workers_is_kept_as_typed() {
    // What 0 stands for may change while the process runs.
    let config = load_in(Path::new(""), BASE).unwrap();
    assert_eq!(config.gateway.workers, 0);
}
