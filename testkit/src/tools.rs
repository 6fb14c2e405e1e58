//! Packages of other languages that tests need, installed once below a directory of theirs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter of a virtual environment below `directory` that holds this package of PyPI in this
/// version. It is made where it is not there; two tests at once need two directories.
///
/// # Errors
/// Where Python 3 or a package index is missing: what to install, and what was said.
pub fn python_with(directory: &Path, package: &str, version: &str) -> Result<PathBuf, String> {
    let home = directory.join(format!("{package}-venv"));
    let python = home.join("bin/python");
    let check = format!(
        "import importlib.metadata, sys; sys.exit(importlib.metadata.version('{package}') != '{version}')"
    );
    if run(Command::new(&python).args(["-c", &check])).is_ok() {
        return Ok(python);
    }
    let hint = |why| format!("{why}; needed: Debian package python3-venv, and a package index");
    let mut make = Command::new("python3");
    run(make.args(["-m", "venv", "--clear"]).arg(&home)).map_err(hint)?;
    let wanted = format!("{package}=={version}");
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", &wanted])).map_err(hint)?;
    run(Command::new(&python).args(["-c", &check]))?;
    Ok(python)
}

/// The `node_modules` below `directory` that holds this package of npm in this version. It is made where it
/// is not there; two tests at once need two directories.
///
/// # Errors
/// Where Node, npm or a registry is missing: what to install, and what was said.
pub fn node_modules_with(
    directory: &Path,
    package: &str,
    version: &str,
) -> Result<PathBuf, String> {
    let home = directory.join(format!("{package}-node"));
    let modules = home.join("node_modules");
    let manifest = modules.join(package).join("package.json");
    let is_there = || {
        let text = std::fs::read_to_string(&manifest).unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(&text)
            .is_ok_and(|manifest| manifest["version"] == version)
    };
    let hint = |why| format!("{why}; needed: Debian packages nodejs and npm, and a registry");
    run(Command::new("node").arg("--version")).map_err(hint)?;
    if !is_there() {
        std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
        let quiet = ["--no-save", "--no-audit", "--no-fund", "--ignore-scripts"];
        let mut install = Command::new("npm");
        install
            .arg("install")
            .args(quiet)
            .arg("--prefix")
            .arg(&home);
        run(install.arg(format!("{package}@{version}"))).map_err(hint)?;
    }
    match is_there() {
        true => Ok(modules),
        false => Err(format!("{} has no {package} {version}", modules.display())),
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}
