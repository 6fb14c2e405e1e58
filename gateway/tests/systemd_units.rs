//! What is shipped for systemd: units that systemd finds no fault with, hardened as far as promised, and
//! in line with the configuration that is shipped with them.
//!
//! Without systemd's programs these tests say so and pass, unless `HUB_REQUIRE_SYSTEMD=1`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Most exposure of a service by `systemd-analyze security`, in tenths.
const EXPOSURE_MAX: &str = "15";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

fn shipped(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of all units.
fn units() -> Vec<String> {
    let names = std::fs::read_dir(folder())
        .expect("the folder")
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("plain names")
        });
    let is_unit = |name: &String| {
        let kinds = [".service", ".socket", ".timer"];
        kinds.iter().any(|kind| name.ends_with(kind))
    };
    names.filter(is_unit).collect()
}

/// The values of a key of a unit, in order.
fn values<'u>(unit: &'u str, key: &str) -> Vec<&'u str> {
    let value = |line: &'u str| line.strip_prefix(key)?.strip_prefix('=');
    unit.lines().filter_map(value).collect()
}

/// True where this program can be run. Where it has to be, and cannot, the test fails.
fn is_there(program: &str) -> bool {
    if Command::new(program).arg("--version").output().is_ok() {
        return true;
    }
    let required = std::env::var_os("HUB_REQUIRE_SYSTEMD").is_some_and(|value| value == "1");
    assert!(
        !required,
        "{program} is missing: install Debian's package systemd"
    );
    println!("skipped: {program} is missing (Debian's package systemd has it)");
    false
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env("SYSTEMD_COLORS", "0");
    command.output().expect("it was there")
}

fn text(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr];
    parts.map(|part| String::from_utf8_lossy(part)).concat()
}

/// The units and the example drop-in in a folder of their own, with programs that are there.
fn installed() -> TempDir {
    let place = tempfile::tempdir().expect("a folder");
    for name in units() {
        let unit = shipped(&name)
            .replace("/usr/bin/hub-gateway", env!("CARGO_BIN_EXE_hub-gateway"))
            .replace("/usr/bin/hubctl", "/bin/true");
        std::fs::write(place.path().join(name), unit).expect("write");
    }
    let drop_ins = place.path().join("hub-gateway.service.d");
    std::fs::create_dir(&drop_ins).expect("create");
    let example = shipped("examples/override.conf");
    // All of it, the settings that are commented out too.
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
        Some(_) | None => format!("{line}\n"),
    };
    let example: String = example.lines().map(uncomment).collect();
    std::fs::write(drop_ins.join("override.conf"), example).expect("write");
    place
}

#[test]
fn systemd_finds_no_fault_with_any_unit() {
    if !is_there("systemd-analyze") {
        return;
    }
    let place = installed();
    let paths = units().into_iter().map(|name| place.path().join(name));
    let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
    let options = ["verify", "--man=no", "--recursive-errors=yes"];
    let arguments = [
        options.as_slice(),
        &paths.iter().map(String::as_str).collect::<Vec<_>>(),
    ];
    let output = run("systemd-analyze", &arguments.concat());
    // Faults of the machine's own units are none of ours.
    let said = text(&output);
    let ours = said.lines().filter(|line| line.contains("hub-gateway"));
    let ours: Vec<&str> = ours.collect();
    assert!(output.status.success() || ours.is_empty(), "{said}");
    assert_eq!(ours, Vec::<&str>::new());
    println!("{} units verified", paths.len());
    assert!(paths.len() >= 5);
}

#[test]
fn every_service_is_hardened() {
    if !is_there("systemd-analyze") {
        return;
    }
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let options = ["security", "--offline=yes", "--no-pager", &threshold];
    let mut services = 0;
    for name in units().iter().filter(|name| name.ends_with(".service")) {
        let path = folder().join(name).display().to_string();
        let output = run("systemd-analyze", &[options.as_slice(), &[&path]].concat());
        let said = text(&output);
        let exposure = said.lines().find(|line| line.contains("exposure level"));
        println!("{}", exposure.unwrap_or(&said));
        assert!(output.status.success(), "{said}");
        services += 1;
    }
    assert!(services >= 2);
}

#[test]
fn the_user_and_the_folders_are_made_as_the_unit_needs_them() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give folders to others");
        return;
    }
    if !is_there("systemd-sysusers") || !is_there("systemd-tmpfiles") {
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    let root = format!("--root={}", place.path().display());
    std::fs::create_dir(place.path().join("etc")).expect("create");
    let file = |name| folder().join(name).display().to_string();
    let users = run("systemd-sysusers", &[&root, &file("hub-gateway.sysusers")]);
    assert!(users.status.success(), "{}", text(&users));
    let passwd = std::fs::read_to_string(place.path().join("etc/passwd")).expect("a file");
    assert!(passwd.starts_with("hub-gateway:"), "{passwd}");
    let files = file("hub-gateway.tmpfiles");
    let folders = run("systemd-tmpfiles", &[&root, "--create", &files]);
    assert!(folders.status.success(), "{}", text(&folders));
    let mode = |path: &str| {
        let metadata = std::fs::metadata(place.path().join(path)).expect("it is there");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode("etc/hub-gateway/credentials"), 0o700);
    assert_eq!(mode("etc/hub-gateway/credentials/tls"), 0o700);
    assert_eq!(mode("etc/hub-gateway/tls"), 0o750);
    assert_eq!(mode("var/log/hub-gateway"), 0o750);
    assert_eq!(mode("var/lib/hub-gateway"), 0o750);
}

/// `key = "value"` lines of the shipped configuration, those of commented examples too.
fn settings(key: &str) -> Vec<String> {
    let config = shipped("gateway.toml");
    let value = |line: &str| {
        let line = line.trim_start_matches('#');
        let value = line.strip_prefix(key)?.strip_prefix(" = \"")?;
        value.strip_suffix('"').map(str::to_owned)
    };
    config.lines().filter_map(value).collect()
}

#[test]
fn sockets_are_those_of_the_shipped_configuration() {
    let names = settings("name");
    // The first address is the admin API's.
    let addresses = settings("address").split_off(1);
    for (unit, index) in [("hub-gateway.socket", 0), ("hub-gateway-https.socket", 1)] {
        let unit = shipped(unit);
        assert_eq!(values(&unit, "FileDescriptorName"), [&names[index]]);
        assert_eq!(values(&unit, "ListenStream"), [&addresses[index]]);
        assert_eq!(values(&unit, "Service"), ["hub-gateway.service"]);
    }
}

#[test]
fn secrets_of_the_shipped_configuration_are_credentials_of_the_unit() {
    let unit = shipped("hub-gateway.service");
    let credentials = values(&unit, "LoadCredential");
    let names: Vec<&str> = credentials
        .iter()
        .filter_map(|credential| Some(credential.split_once(':')?.0))
        .collect();
    let files = ["token_file", "certificate_file", "key_file"].map(settings);
    let files = files.concat();
    assert_eq!(files.len(), 3);
    for file in files {
        let name = file.strip_prefix("/run/credentials/hub-gateway.service/");
        let name = name.unwrap_or_else(|| panic!("{file} is no credential"));
        // A folder's files are called FOLDER_FILE.
        let is_loaded = |credential: &&str| {
            let rest = name.strip_prefix(*credential);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        };
        assert!(names.iter().any(is_loaded), "{name} is not among {names:?}");
    }
}

#[test]
fn the_shipped_configuration_is_good() {
    let place = tempfile::tempdir().expect("a folder");
    std::fs::write(
        place.path().join("admin-token"),
        "0123456789abcdef".repeat(2),
    )
    .expect("write");
    let config = shipped("gateway.toml")
        .replace(
            "/run/credentials/hub-gateway.service",
            &place.path().display().to_string(),
        )
        .replace("/var/log/hub-gateway", &place.path().display().to_string())
        .replace("/var/lib/hub-gateway", &place.path().display().to_string());
    let path = place.path().join("gateway.toml");
    std::fs::write(&path, config).expect("write");
    let path = path.display().to_string();
    let output = run(env!("CARGO_BIN_EXE_hub-gateway"), &["check", &path]);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_reload_checks_the_file_that_is_served_first() {
    let unit = shipped("hub-gateway.service");
    let config = values(&unit, "ExecStart")[0]
        .rsplit_once(' ')
        .expect("a path")
        .1;
    let reload = values(&unit, "ExecReload");
    assert_eq!(reload.len(), 2);
    assert!(reload[0].ends_with(&format!("/hub-gateway check {config}")));
    assert!(reload[1].ends_with("kill -HUP $MAINPID"));
}
