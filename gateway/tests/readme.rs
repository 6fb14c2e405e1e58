//! The lines that README.md and the demo tell people to paste, run against the demo itself.
//!
//! A command that ends in `# expect: TEXT` must exit 0 and print TEXT. In the README every command of
//! "Try it" has one.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Ports that the README and the demo's configuration name: gateway, admin, blue, green.
const PORTS: [u16; 4] = [8080, 9900, 8181, 8182];
const MARK: &str = "# expect: ";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the repository")
        .to_owned()
}

/// A command and what it must print, if that is told.
#[derive(Debug)]
struct Line {
    command: String,
    expected: Option<String>,
}

impl Line {
    fn read(text: &str) -> Self {
        match text.split_once(MARK) {
            Some((command, expected)) => Self {
                command: command.trim().to_owned(),
                expected: Some(expected.trim().to_owned()),
            },
            None => Self {
                command: text.trim().to_owned(),
                expected: None,
            },
        }
    }
}

/// The commands of "Try it".
fn readme() -> Vec<Line> {
    let text = std::fs::read_to_string(repository().join("README.md")).expect("README.md");
    let (_, section) = text.split_once("## Try it").expect("a section Try it");
    let section = section.split("\n## ").next().unwrap_or_default();
    let (_, fence) = section.split_once("```sh\n").expect("shell commands");
    let (commands, _) = fence.split_once("```").expect("the fence's end");
    commands
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(Line::read)
        .collect()
}

/// The demo on free ports. Dropped, it gets SIGTERM and is waited for.
struct Demo {
    child: Child,
    /// Kept open, so that what the demo says at its end has somewhere to go.
    _output: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
    ports: [u16; 4],
    binaries: PathBuf,
    printed: Vec<Line>,
}

impl Demo {
    /// Starts it and reads what it prints. `None` where another process took one of the ports first.
    fn try_start(binaries: &Path) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        // All four are held at a time, so that they differ.
        let held = PORTS.map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let ports = held
            .each_ref()
            .map(|socket| socket.local_addr().expect("an address").port());
        drop(held);
        let mut child = Command::new(repository().join("scripts/demo.sh"))
            .env("HUB_DEMO_DIR", folder.path())
            .env("HUB_DEMO_BIN", binaries)
            .env("HUB_DEMO_PORT", ports[0].to_string())
            .env("HUB_DEMO_ADMIN_PORT", ports[1].to_string())
            .env("HUB_DEMO_BLUE_PORT", ports[2].to_string())
            .env("HUB_DEMO_GREEN_PORT", ports[3].to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo can be run");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut printed = Vec::new();
        let mut line = String::new();
        // The demo itself gives up after 10 seconds.
        while output.read_line(&mut line).expect("text") > 0 {
            if let Some(command) = line.strip_prefix("  ")
                && !command.starts_with('#')
            {
                printed.push(Line::read(command));
            }
            if line.starts_with("Ctrl-C stops everything") {
                return Some(Self {
                    child,
                    _output: output,
                    folder,
                    ports,
                    binaries: binaries.to_owned(),
                    printed,
                });
            }
            line.clear();
        }
        let status = child.wait().expect("our own child");
        eprintln!("the demo ended instead of serving ({status})");
        None
    }

    /// `None` where the workspace's other binaries have not been built, which is said.
    fn start() -> Option<Self> {
        let binaries = Path::new(env!("CARGO_BIN_EXE_hub-gateway"))
            .parent()
            .expect("a binary is in a folder");
        for name in ["hubctl", "hub-sample-app"] {
            if !binaries.join(name).exists() {
                assert!(
                    std::env::var_os("HUB_REQUIRE_HUBCTL").is_none(),
                    "HUB_REQUIRE_HUBCTL is set and {name} is missing beside the gateway's binary"
                );
                eprintln!("not run: {name} is missing; build the workspace first");
                return None;
            }
        }
        let demo = (0..3).find_map(|_| Self::try_start(binaries));
        Some(demo.expect("the demo starts in one of three tries"))
    }

    /// Ports and places of the README in those of this demo.
    fn place(&self, command: &str) -> String {
        let binaries = self.binaries.display().to_string();
        let mut command = command.replace("target/demo", &self.folder.path().display().to_string());
        // The demo prints the place that it was given; the README names the usual one.
        if !command.contains(&binaries) {
            command = command.replace("target/debug", &binaries);
        }
        for (known, own) in PORTS.iter().zip(self.ports) {
            command = command.replace(&format!(":{known}"), &format!(":{own}"));
        }
        command
    }

    /// Runs these as one person would who pastes them into one shell; how many had to print something.
    fn paste<'a>(&self, lines: impl IntoIterator<Item = &'a Line>) -> usize {
        let mut exported = format!("export HUB_ADMIN=127.0.0.1:{}\n", self.ports[1]);
        let mut expected = 0;
        for line in lines {
            let command = self.place(&line.command);
            if command.starts_with("export ") {
                exported += &format!("{command}\n");
                continue;
            }
            let output = Command::new("bash")
                .arg("-c")
                .arg(format!("{exported}{command}"))
                .current_dir(repository())
                .output()
                .expect("bash");
            let (stdout, stderr) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            assert!(
                output.status.success(),
                "{command}: {}\n{stdout}\n{stderr}",
                output.status
            );
            if let Some(text) = &line.expected {
                assert!(
                    stdout.contains(text),
                    "{text} in what {command} printed:\n{stdout}\n{stderr}"
                );
                expected += 1;
            }
        }
        expected
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let asked = Command::new("bash")
            .args(["-c", "kill -TERM \"$0\"", &pid])
            .status();
        if asked.is_ok_and(|status| status.success()) {
            // Nothing is left to do where it cannot be waited for.
            self.child.wait().ok();
        }
    }
}

#[test]
fn the_readmes_commands_do_what_it_says() {
    let lines = readme();
    assert!(lines.len() >= 12, "{lines:#?}");
    for line in &lines {
        // Whether hubctl or the watch on the file comes first is open.
        let quiet = ["export ", "sed ", "target/debug/hubctl reload"]
            .iter()
            .any(|start| line.command.starts_with(start));
        assert!(
            quiet || line.expected.is_some(),
            "nothing is expected of {line:?}"
        );
    }
    let Some(demo) = Demo::start() else { return };
    println!(
        "{} of the README's commands print what it says",
        demo.paste(&lines)
    );
}

#[test]
fn the_demos_own_lines_do_what_they_say() {
    let Some(demo) = Demo::start() else { return };
    assert!(demo.printed.len() >= 12, "{:#?}", demo.printed);
    let expected = demo.paste(&demo.printed);
    assert!(expected >= 10, "{:#?}", demo.printed);
}
