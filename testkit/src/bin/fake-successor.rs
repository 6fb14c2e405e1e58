//! A new binary of the gateway that does what it is told and no more, for tests of upgrades that fail.
//!
//! Started as the gateway is (`run CONFIG ...`), it does the words of the file `successor.script` beside
//! CONFIG, one after the other; without such a file, those of `HUB_SUCCESSOR_SCRIPT`:
//!
//! | word | what |
//! |---|---|
//! | `connect` | connects to the control socket |
//! | `hello`, `hello=N` | connects if it has not, and says hello, in version N of the protocol |
//! | `offer` | waits for the offer |
//! | `ready`, `ready=all` | says ready and claims nothing, or every socket that is offered |
//! | `ready=wrong` | claims a socket that is not offered |
//! | `sockets` | waits for the sockets and keeps them |
//! | `taken` | says so |
//! | `give_up=TEXT` | says that it gives up |
//! | `noise` | says something that is no message |
//! | `close` | closes the control socket |
//! | `exit=N`, `panic`, `die` | ends with this code, by a panic, by SIGKILL |
//! | `hang` | does nothing for ever |
//!
//! It says on stderr what it has done, and never accepts a connection.

use rustix::cmsg_space;
use rustix::fd::OwnedFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};
use std::io::{IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Default)]
struct Successor {
    control: Option<UnixStream>,
    read: Vec<u8>,
    sockets: Vec<OwnedFd>,
    offered: usize,
}

fn main() -> ExitCode {
    let config = PathBuf::from(std::env::args_os().nth(2).expect("run CONFIG"));
    let script = std::fs::read_to_string(config.with_file_name("successor.script"))
        .or_else(|_| std::env::var("HUB_SUCCESSOR_SCRIPT"));
    let mut successor = Successor::default();
    for step in script.expect("a script").split_whitespace() {
        if let Some(code) = step.strip_prefix("exit=") {
            return ExitCode::from(code.parse::<u8>().expect("a code"));
        }
        successor.perform(step);
        eprintln!("fake successor {}: {step}", std::process::id());
    }
    ExitCode::SUCCESS
}

impl Successor {
    fn perform(&mut self, step: &str) {
        let (word, value) = step.split_once('=').unwrap_or((step, ""));
        match word {
            "connect" => self.connect(),
            "hello" => {
                if self.control.is_none() {
                    self.connect();
                }
                let protocol: u32 = value.parse().unwrap_or(3);
                self.say(&json!({"say": "hello", "protocol": protocol, "version": "0.0.0-fake"}));
            }
            "offer" => {
                let offer = self.hear("offer");
                self.offered = offer["sockets"].as_array().expect("a list").len();
            }
            "ready" => {
                let claims: Vec<usize> = match value {
                    "all" => (0..self.offered).collect(),
                    "wrong" => vec![self.offered],
                    _ => Vec::new(),
                };
                self.say(&json!({"say": "ready", "hash": "-", "claims": claims, "bound": []}));
            }
            "sockets" => while self.hear("sockets")["last"] != true {},
            "taken" => self.say(&json!({"say": word})),
            "give_up" => self.say(&json!({"say": "gave_up", "why": value})),
            "noise" => self.write(b"\x00\xff no message\n"),
            "close" => self.control = None,
            "panic" => panic!("as it was told to"),
            "die" => kill_process(getpid(), Signal::KILL).expect("oneself"),
            "hang" => loop {
                std::thread::park();
            },
            _ => panic!("no such word: {step}"),
        }
    }

    fn connect(&mut self) {
        let path = std::env::var_os("HUB_UPGRADE_SOCKET").expect("a control socket");
        self.control = Some(UnixStream::connect(path).expect("it is open"));
    }

    fn say(&mut self, message: &Value) {
        self.write(format!("{message}\n").as_bytes());
    }

    fn write(&mut self, bytes: &[u8]) {
        let control = self.control.as_mut().expect("connected");
        control.write_all(bytes).expect("somebody listens");
    }

    /// Waits for a message, which must be this one.
    fn hear(&mut self, expected: &str) -> Value {
        let control = self.control.as_ref().expect("connected");
        let end = loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                break end;
            }
            let mut bytes = [0; 4096];
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(64))];
            let mut extra = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let received = recvmsg(control, &mut parts, &mut extra, RecvFlags::CMSG_CLOEXEC);
            let count = received.expect("the old process speaks").bytes;
            assert!(count > 0, "the old process has closed the control socket");
            for message in extra.drain() {
                if let RecvAncillaryMessage::ScmRights(sockets) = message {
                    self.sockets.extend(sockets);
                }
            }
            self.read.extend_from_slice(&bytes[..count]);
        };
        let line: Vec<u8> = self.read.drain(..=end).collect();
        let message: Value = serde_json::from_slice(&line).expect("a message");
        assert_eq!(message["say"], expected);
        message
    }
}
