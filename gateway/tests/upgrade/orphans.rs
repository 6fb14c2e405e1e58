//! What a new process does whose predecessor dies, or is none: this test plays the predecessor.

use crate::{PATIENCE, begin, binary, config, holds, inode, start, status, upgrade};
use hub_testkit::{Origin, Signal, Wire, demo_config};
use rustix::cmsg_space;
use rustix::fd::{AsFd as _, BorrowedFd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A new process, and the control socket's end that is ours.
struct Successor {
    child: Child,
    control: BufReader<UnixStream>,
    folder: TempDir,
    sockets: [TcpListener; 2],
}

impl Drop for Successor {
    fn drop(&mut self) {
        // Both can only fail if it has ended meanwhile.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Successor {
    /// Starts one, which says hello.
    fn start(origin: &Origin) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let place = |text: String| text.replace("{dir}", &folder.path().display().to_string());
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, place(config(origin, ""))).expect("written");
        std::fs::write(folder.path().join("admin.token"), "0123456789abcdef").expect("written");
        let control = folder.path().join("control");
        let listener = UnixListener::bind(&control).expect("a socket");
        let log = std::fs::File::create(folder.path().join("stderr")).expect("a file");
        let child = Command::new(binary())
            .arg("run")
            .arg(&path)
            .env("HUB_UPGRADE_SOCKET", &control)
            .stderr(Stdio::from(log))
            .spawn()
            .expect("the gateway can be run");
        let (control, _) = listener.accept().expect("it connects");
        let socket = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut successor = Self {
            child,
            control: BufReader::new(control),
            folder,
            sockets: [socket(), socket()],
        };
        for socket in &successor.sockets {
            socket.set_nonblocking(true).expect("our own socket");
        }
        assert_eq!(successor.hear()["say"], "hello");
        successor
    }

    fn address(&self) -> SocketAddr {
        self.sockets[0].local_addr().expect("an address")
    }

    fn offer(&mut self) {
        let at = |socket: &TcpListener| socket.local_addr().expect("an address").to_string();
        let sockets = json!([
            {"role": {"listener": "public"}, "at": {"tcp": at(&self.sockets[0])}, "kept": false},
            {"role": "admin", "at": {"tcp": at(&self.sockets[1])}, "kept": false},
        ]);
        let offer = json!({
            "say": "offer", "protocol": 3, "version": "0", "upgrade": "this", "sockets": sockets,
            "draining": [],
        });
        self.say(&offer, &[]);
        let ready = self.hear();
        assert_eq!(
            (&ready["say"], &ready["claims"]),
            (&json!("ready"), &json!([0, 1]))
        );
    }

    fn pass_sockets(&mut self) {
        let message = json!({"say": "sockets", "positions": [0, 1], "last": true});
        let sockets = [0, 1].map(|index| self.sockets[index].try_clone().expect("one"));
        self.say(&message, &[sockets[0].as_fd(), sockets[1].as_fd()]);
    }

    fn say(&mut self, message: &Value, descriptors: &[BorrowedFd<'_>]) {
        let line = format!("{message}\n");
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let parts = [IoSlice::new(line.as_bytes())];
        let stream = self.control.get_ref();
        let sent = sendmsg(stream, &parts, &mut control, SendFlags::empty());
        assert_eq!(sent.expect("it listens"), line.len());
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.control.read_line(&mut line).expect("it speaks");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}: {}", self.log()))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    async fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_without_sockets_ends_when_its_predecessor_turns_away() {
    let origin = Origin::start().await;
    for offered in [false, true] {
        let mut successor = Successor::start(&origin);
        if offered {
            successor.offer();
        }
        let end = successor
            .control
            .get_ref()
            .shutdown(std::net::Shutdown::Both);
        end.expect("our own socket");
        assert_eq!(successor.exit_code().await, Some(71), "{}", successor.log());
        assert!(
            successor.log().contains("has turned away"),
            "{}",
            successor.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_with_sockets_ends_too_where_its_predecessor_lives_and_leaves_it_its_clients()
{
    let origin = Origin::start().await;
    for told in [false, true] {
        let mut successor = Successor::start(&origin);
        successor.offer();
        successor.pass_sockets();
        assert_eq!(successor.hear()["say"], "taken");
        let mut client = Wire::connect(successor.address()).await;
        client.send(crate::GET).await;
        if told {
            let pid = i32::try_from(successor.child.id()).expect("a process id");
            let pid = rustix::process::Pid::from_raw(pid).expect("one");
            rustix::process::kill_process(pid, Signal::TERM).expect("it lives");
            assert_eq!(successor.hear()["say"], "gave_up");
        } else {
            let end = successor
                .control
                .get_ref()
                .shutdown(std::net::Shutdown::Both);
            end.expect("our own socket");
            successor.wait_for_log("has turned away and lives").await;
        }
        assert_eq!(successor.exit_code().await, Some(71));
        // It was never the one that serves, and its predecessor has the client.
        assert!(!successor.log().contains("\"message\":\"serving\""));
        let (mut stream, _) = successor.sockets[0].accept().expect("a client waits");
        stream.set_nonblocking(false).expect("our own socket");
        let mut asked = vec![0; crate::GET.len()];
        stream.read_exact(&mut asked).expect("it has asked");
        assert_eq!(asked, crate::GET.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_answers_once_its_predecessor_has_parted() {
    let origin = Origin::start().await;
    let mut successor = Successor::start(&origin);
    successor.offer();
    successor.pass_sockets();
    assert_eq!(successor.hear()["say"], "taken");
    let mut client = Wire::connect(successor.address()).await;
    client.send(crate::GET).await;
    // The predecessor was asked for a reload behind the new process's back.
    let path = successor.folder.path().join("gateway.toml");
    let text = std::fs::read_to_string(&path).expect("a file");
    let text = text.replace("drain_notice_ms = 0", "drain_notice_ms = 1");
    std::fs::write(&path, text).expect("written");
    successor.say(&json!({"say": "parted", "reload": true}), &[]);
    assert_eq!(client.read_response().await.status, 200);
    let admin = successor.sockets[1].local_addr().expect("an address");
    let mut wire = Wire::connect(admin).await;
    wire.send("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(wire.read_response().await.status, 200);
    successor
        .wait_for_log("\"message\":\"a new configuration is in force\",\"trigger\":\"signal\"")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_has_the_sockets_goes_on_when_the_old_one_is_killed() {
    let origin = Origin::start().await;
    for step in [
        "has the sockets",
        "\"step\":\"handing_over\"",
        "another process serves",
    ] {
        let mut hub = start(&config(&origin, "")).await;
        let (old, address) = (hub.pid(), hub.addr("public"));
        let socket = inode(address);
        let id = begin(&hub, json!({})).await;
        if step == "has the sockets" {
            let (_, shown) = loop {
                let (status, shown) = hub.admin("GET", "/v1/upgrade", "").await;
                if shown["last"]["to"]["pid"].is_u64() {
                    break (status, shown);
                }
            };
            assert_eq!(shown["last"]["id"], id);
            let new = shown["last"]["to"]["pid"].as_u64().expect("a process id");
            while !holds(new, &socket) {
                std::thread::yield_now();
            }
        } else {
            hub.wait_for_stderr(step).await;
        }
        hub.signal(Signal::KILL);
        assert_ne!(hub.wait_for_successor().await, old);
        assert_eq!(hub.wait_exit().await.code(), None);
        assert_eq!(status(address).await, 200, "{step}");
        assert_eq!(
            hub.admin_request("GET", "/readyz", "", None).await.status,
            200
        );
        let told = hub
            .stderr()
            .contains("has died in the middle of an upgrade");
        println!(
            "{step}: the new process {}",
            if told {
                "went on alone"
            } else {
                "had taken over"
            }
        );
        // It can hand over in its turn.
        upgrade(&mut hub).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_predecessor_of_another_protocol_is_not_followed() {
    let origin = Origin::start().await;
    let mut successor = Successor::start(&origin);
    let offer = json!({
        "say": "offer", "protocol": 7, "version": "7", "upgrade": "this", "sockets": [],
    });
    successor.say(&offer, &[]);
    assert_eq!(successor.exit_code().await, Some(71));
    assert!(
        successor.log().contains("version 7 of the hand-over"),
        "{}",
        successor.log()
    );
}

#[test]
fn a_control_socket_of_nobody_s_ends_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    let text = demo_config("127.0.0.1:9");
    let mut file = std::fs::File::create(&path).expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    let output = Command::new(binary())
        .arg("run")
        .arg(&path)
        .env("HUB_UPGRADE_SOCKET", folder.path().join("nobody"))
        .output()
        .expect("the gateway can be run");
    assert_eq!(output.status.code(), Some(71));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("HUB_UPGRADE_SOCKET"), "{said}");
}
