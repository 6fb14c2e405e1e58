//! The strict edge as varnishtest sees it: client and origin are scripts in `varnish/`, byte by byte.
//!
//! Without varnishtest (Debian package `varnish`) a case says so and passes, unless
//! `HUB_REQUIRE_VARNISHTEST` is set.

use hub_testkit::{Hub, demo_config};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Demands that the cases run.
const REQUIRE: &str = "HUB_REQUIRE_VARNISHTEST";

/// One named test for each script.
macro_rules! cases {
    ($($name:ident,)+) => {
        const CASES: &[&str] = &[$(stringify!($name)),+];
        $(
            #[tokio::test]
            async fn $name() {
                run(stringify!($name)).await;
            }
        )+
    };
}

cases! {
    absolute_uri,
    bare_line_feed,
    chunked_body,
    chunked_on_http_1_0,
    chunked_twice,
    connect,
    escaped_slash,
    first_chunk,
    folded_header,
    forwarding_headers,
    h2c_upgrade,
    later_chunk,
    length_and_chunked,
    missing_host,
    nul_in_value,
    pipelined,
    preface_of_http_2,
    space_before_colon,
    two_hosts,
    two_lengths,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/varnish")
}

/// Runs one script against a gateway of its own. The origin is a unix socket, which needs no port
/// that somebody else could take first.
async fn run(name: &str) {
    let hub = Hub::builder(Path::new(env!("CARGO_BIN_EXE_hub-gateway")))
        .config(&demo_config("unix:{dir}/origin.sock"))
        .start()
        .await;
    let mut command = Command::new("varnishtest");
    command
        .arg(format!("-Dhub={}", hub.addr("public")))
        .arg(format!(
            "-Dorigin={}",
            hub.dir().join("origin.sock").display()
        ))
        .args(["-v", "-t", "30"])
        .arg(directory().join(name).with_extension("vtc"))
        .env("TMPDIR", hub.dir());
    let output = match command.output() {
        Ok(output) => output,
        Err(error)
            if error.kind() == ErrorKind::NotFound && std::env::var_os(REQUIRE).is_none() =>
        {
            println!("SKIPPED {name}: there is no varnishtest; Debian's package is `varnish`");
            return;
        }
        Err(error) => panic!("cannot run varnishtest: {error}"),
    };
    assert_eq!(
        output.status.code(),
        Some(0),
        "{name}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_script_is_a_case() {
    let scripts: BTreeSet<String> = std::fs::read_dir(directory())
        .expect("the scripts are beside this file")
        .map(|entry| entry.expect("the scripts can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "vtc"))
        .filter_map(|path| path.file_stem()?.to_str().map(str::to_owned))
        .collect();
    let cases: BTreeSet<String> = CASES.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(scripts, cases);
    println!("{} scripts", scripts.len());
}
