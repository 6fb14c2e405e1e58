use super::{BASE, examples, load, load_in, problems};
use crate::runtime::{
    AdminAddress, Colour, EndpointAddress, HostPattern, LogTarget, PathPattern, TenantSource,
};
use crate::testing::{FakeCatalog, no_env};
use crate::{Loader, Secret};
use std::path::Path;

fn good(text: &str) -> crate::runtime::Config {
    load(text).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_least_configuration_gets_safe_defaults() {
    let config = good(BASE);
    assert_eq!(config.listeners[0].head_bytes_max, 32_768);
    assert_eq!(config.clusters[0].total_timeout, None);
    assert_eq!(config.routes[0].path, PathPattern::Prefix("/".into()));
    assert_eq!(config.access_log.target, LogTarget::Stdout);
    assert!(config.admin.token.is_none());
    assert_eq!(config.hash.len(), 64);
}

#[test]
fn every_example_loads() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        }
    };
    copy(&examples(), folder.path());
    std::fs::create_dir(folder.path().join("tls")).unwrap();
    copy(&examples().join("tls"), &folder.path().join("tls"));
    // The demo's secrets are made when it starts.
    for secret in ["admin-token", "jwt-secret", "api-keys"] {
        std::fs::write(folder.path().join(secret), [b'x'; 48]).unwrap();
    }
    let mut seen = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let config = crate::load(&path, &FakeCatalog, &no_env);
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.files[0], path);
        seen += 1;
    }
    assert!(seen >= 3, "only {seen} examples");
}

#[test]
fn the_full_example_means_what_it_says() {
    let config = crate::load(&examples().join("full.toml"), &FakeCatalog, &no_env).unwrap();
    assert_eq!(config.tenants.len(), 4);
    let index = config.tenants.get_by_slug("bay-realty").unwrap();
    let tenant = &config.tenants[index];
    assert_eq!(tenant.in_flight_max, Some(64));
    assert_eq!(tenant.websockets_max, Some(200));
    let quota = tenant.quota.unwrap();
    assert_eq!((quota.requests, quota.burst), (20, 40), "the defaults");
    assert_eq!(
        tenant.overlay.as_ref().unwrap().colour(0),
        Some(Colour::Green)
    );
    let own = &config.tenants[config.tenants.get_by_slug("demo").unwrap()];
    assert_eq!(own.overlay.as_ref().unwrap().cluster(0), Some(1));
    assert_eq!(own.websockets_max, Some(2000));
    let index = config.tenants.get_by_slug("acme-homes").unwrap();
    assert_eq!(
        config.tenants[index].websockets_max,
        Some(500),
        "the default"
    );
    let contacts = config.routes[0].tenant.as_ref().unwrap();
    // Canonical order, whatever the file says.
    assert!(matches!(contacts.sources[0], TenantSource::Header(_)));
    assert_eq!(contacts.sources[1], TenantSource::Path(1));
    assert!(!contacts.from_credential);
    assert_eq!(
        config.routes[2].hosts,
        [HostPattern::Wildcard(".hub.localhost".into())]
    );
    assert!(
        config
            .files
            .iter()
            .any(|file| file.ends_with("tenants.jsonl"))
    );
}

#[test]
fn a_route_with_an_identify_plugin_believes_the_credential_alone_unless_told_otherwise() {
    let route = |extra: &str| {
        let text = format!(
            "{BASE}plugins = [\"who\"]\ntenant.sources = [\"credential\"]\n{extra}\n\
             [[plugin]]\nname = \"who\"\nkind = \"jwt\"\n"
        );
        good(&text).routes[0].tenant.clone().unwrap()
    };
    assert!(route("").from_credential);
    assert!(!route("tenant.from_credential = false").from_credential);
}

#[test]
fn sources_are_put_in_canonical_order() {
    let text = format!(
        "{}plugins = [\"who\"]\n[[plugin]]\nname = \"who\"\nkind = \"api_key\"\n",
        BASE.replace(
            "path = { prefix = \"/\" }",
            "path = { template = \"/a/{id}\" }"
        ) + "tenant.sources = [{ query = \"q\" }, { path = \"id\" }, { subdomain = \"Example.com\" }, \
               { header = \"X-A\" }, \"credential\"]\n"
    );
    let config = good(&text);
    let sources = &config.routes[0].tenant.as_ref().unwrap().sources;
    assert_eq!(sources[0], TenantSource::Credential);
    assert!(matches!(&sources[1], TenantSource::Header(name) if name.as_str() == "x-a"));
    assert_eq!(sources[2], TenantSource::Subdomain(".example.com".into()));
    assert_eq!(sources[3], TenantSource::Path(1));
    assert_eq!(sources[4], TenantSource::Query("q".into()));
}

#[test]
fn hosts_are_lower_cased_and_brackets_stay() {
    let text = format!(
        "{BASE}hosts = [\"API.Example.COM\", \"*.Example.com\", \"[::0001]\", \"10.0.0.1\"]\n"
    );
    let config = good(&text);
    let exact = |host: &str| HostPattern::Exact(host.into());
    let wildcard = HostPattern::Wildcard(".example.com".into());
    assert_eq!(
        config.routes[0].hosts,
        [
            exact("api.example.com"),
            wildcard,
            exact("[::1]"),
            exact("10.0.0.1")
        ]
    );
}

#[test]
fn a_name_stands_for_its_least_address_so_reloads_are_stable() {
    let config = good(&BASE.replace("127.0.0.1:9001", "app.internal:80"));
    let endpoint = &config.clusters[0].blue[0];
    assert_eq!(endpoint.name, "app.internal:80");
    assert_eq!(
        endpoint.address,
        EndpointAddress::Tcp("10.0.0.1:80".parse().unwrap())
    );
}

#[test]
fn link_local_addresses_are_taken_where_they_are_meant() {
    let text = BASE.replace("127.0.0.1:9001", "169.254.1.1:80");
    assert_eq!(problems(&text).len(), 1);
    let allowed = text.replace("[[route]]", "allow_link_local = true\n[[route]]");
    assert!(problems(&allowed).is_empty());
}

#[test]
fn unix_sockets_start_at_the_configurations_folder() {
    let text = format!(
        "{}[admin]\naddress = \"unix:run/admin.sock\"\n",
        BASE.replace("127.0.0.1:9001", "unix:run/app.sock")
    );
    let config = good(&text);
    let expected = examples().join("run/app.sock");
    assert_eq!(
        config.clusters[0].blue[0].address,
        EndpointAddress::Unix(expected)
    );
    let expected = examples().join("run/admin.sock");
    assert_eq!(config.admin.address, AdminAddress::Unix(expected));
}

#[test]
fn upstream_authorities_are_read_and_part_of_the_hash() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let pem = std::fs::read_to_string(examples().join("tls/certificate.pem")).unwrap();
    std::fs::write(&ca, &pem).unwrap();
    let text = BASE.replace(
        "[[route]]",
        "tls = { server_name = \"App.example.com\", ca_file = \"ca.pem\" }\n[[route]]",
    );
    let first = load_in(folder.path(), &text).unwrap();
    let tls = first.clusters[0].tls.as_ref().unwrap();
    assert_eq!(tls.server_name, "app.example.com");
    assert_eq!(tls.authorities.as_ref().unwrap().len(), 1);
    assert!(first.files.contains(&ca));
    std::fs::write(&ca, pem.repeat(2)).unwrap();
    let second = load_in(folder.path(), &text).unwrap();
    assert_ne!(first.hash, second.hash);
}

#[test]
fn a_token_comes_from_a_file_or_from_the_environment_and_never_prints() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "0123456789abcdef\n").unwrap();
    let config = load_in(
        folder.path(),
        &format!("{BASE}[admin]\ntoken_file = \"token\"\n"),
    );
    let config = config.unwrap();
    assert_eq!(config.admin.token, Some(Secret::new(*b"0123456789abcdef")));
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
    let env = |name: &str| (name == "HUB_TOKEN").then(|| "fedcba9876543210".to_owned());
    let text = format!("{BASE}[admin]\ntoken_env = \"HUB_TOKEN\"\n");
    let path = folder.path().join("gateway.toml");
    let config = Loader::new(&FakeCatalog, &env).load_str(&text, &path, folder.path());
    assert_eq!(
        config.unwrap().admin.token,
        Some(Secret::new(*b"fedcba9876543210"))
    );
}

#[test]
fn routes_that_differ_in_one_thing_live_side_by_side() {
    let text = format!(
        r#"{BASE}
[[route]]
name = "by-method"
path = {{ prefix = "/" }}
methods = ["GET"]
cluster = "app"
[[route]]
name = "by-host"
hosts = ["a.example"]
path = {{ prefix = "/" }}
cluster = "app"
[[route]]
name = "by-wildcard"
hosts = ["*.a.example"]
path = {{ prefix = "/" }}
cluster = "app"
[[route]]
name = "by-header"
path = {{ prefix = "/" }}
headers = [{{ name = "x-beta" }}]
cluster = "app"
[[route]]
name = "by-value"
path = {{ prefix = "/" }}
headers = [{{ name = "x-beta", value = "1" }}]
cluster = "app"
[[route]]
name = "exact"
path = {{ exact = "/" }}
cluster = "app"
"#
    );
    assert_eq!(good(&text).routes.len(), 7);
}

#[test]
fn the_hash_is_of_the_content_not_of_the_place() {
    let a = load_in(Path::new("/a"), BASE).unwrap();
    let b = load_in(Path::new("/b"), BASE).unwrap();
    assert_eq!(a.hash, b.hash);
    assert_ne!(a.hash, good(&format!("{BASE}# more\n")).hash);
}
