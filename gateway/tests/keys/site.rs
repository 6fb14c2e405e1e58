//! A gateway between a client and two origins, and what probes do there.

use crate::config;
use crate::material::{self, MATERIAL};
use crate::socket::Application;
use hub_testkit::hub::StartFailure;
use hub_testkit::{ADMIN_TOKEN, Behaviour, Gate, Hub, Origin, Reply, Wire, WireResponse};
use serde_json::Value;
use std::fs::File;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::Command;
use std::time::Duration;
use tokio::net::TcpListener;

/// Looks at a running gateway, and tells what it saw.
pub(crate) type Probe = fn(&mut Site) -> Seen<'_>;
pub(crate) type Seen<'s> = Pin<Box<dyn Future<Output = String> + Send + 's>>;

/// A probe: `probe!(site => expression)`.
macro_rules! probe {
    ($site:ident => $seen:expr) => {
        |$site| Box::pin(async move { $seen })
    };
}
pub(crate) use probe;

/// In a pair of times, the short one is far below this and the long one far above.
pub(crate) const SOON: Duration = Duration::from_millis(1_500);

/// A running gateway and what is around it.
pub(crate) struct Site {
    pub(crate) hub: Hub,
    pub(crate) blue: Origin,
    pub(crate) green: Origin,
    /// The configuration, with everything but `{dir}` filled in.
    pub(crate) config: Value,
    _tls: Option<Origin>,
    application: Option<Application>,
    _silent: Option<TcpListener>,
    _pipe: Option<File>,
}

impl Site {
    /// Starts everything that the configuration names: `{blue}` and `{green}` are origins, `{tls}` one
    /// that speaks TLS, `{application}` takes WebSockets, `{silent}` takes connections and says nothing, and `{dir}/pipe` is one that
    /// nobody reads.
    pub(crate) async fn start(config: &Value) -> Result<Self, StartFailure> {
        let blue = scripted(0, "blue").start().await;
        let green = scripted(1, "green").start().await;
        let mut text = config.to_string();
        let mut tls = None;
        if text.contains("{tls}") {
            let server = MATERIAL.leaves[0].server_config(&["http/1.1"]);
            tls = Some(scripted(0, "tls").tls(server).start().await);
        }
        let mut silent = None;
        if text.contains("{silent}") {
            let listener = TcpListener::bind("127.0.0.1:0").await;
            silent = Some(listener.expect("a free port"));
        }
        let mut application = None;
        if text.contains("{application}") {
            application = Some(Application::start().await);
        }
        let address = |listener: &TcpListener| listener.local_addr().expect("bound").to_string();
        for (mark, place) in [
            ("{blue}", blue.endpoint()),
            ("{blue_port}", blue.addr().port().to_string()),
            ("{green}", green.endpoint()),
            (
                "{tls}",
                tls.as_ref().map_or(String::new(), Origin::endpoint),
            ),
            (
                "{application}",
                application
                    .as_ref()
                    .map_or(String::new(), |one| one.address.to_string()),
            ),
            ("{silent}", silent.as_ref().map_or(String::new(), address)),
        ] {
            text = text.replace(mark, &place);
        }
        let config: Value = serde_json::from_str(&text).expect("addresses need no escapes");
        let mut builder = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
            .config(&config::toml(&config))
            .env("HUB_TEST_TOKEN_A", ADMIN_TOKEN)
            .env("HUB_TEST_TOKEN_B", material::OTHER_TOKEN)
            .env("HUB_TEST_SECRET_A", material::SECRETS[0])
            .env("HUB_TEST_SECRET_B", material::SECRETS[1]);
        for (name, contents) in material::files() {
            builder = builder.file(name, contents);
        }
        let mut pipe = None;
        if text.contains("{dir}/pipe") {
            let path = builder.dir().join("pipe");
            let made = Command::new("mkfifo").arg(&path).status();
            assert!(made.is_ok_and(|status| status.success()), "mkfifo");
            // For both directions, so that neither end waits for the other to be opened.
            let both = File::options().read(true).write(true).open(&path);
            pipe = Some(both.expect("a pipe of our own"));
        }
        Ok(Self {
            hub: builder.try_start().await?,
            blue,
            green,
            config,
            application,
            _tls: tls,
            _silent: silent,
            _pipe: pipe,
        })
    }

    pub(crate) fn application(&self) -> &Application {
        let application = self.application.as_ref();
        application.expect("the configuration names it")
    }

    /// Where the first listener is bound.
    pub(crate) fn addr(&self) -> SocketAddr {
        let name = self.config["listener"][0]["name"].as_str();
        self.hub.addr(name.expect("a name"))
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.addr()).await
    }

    /// Sends these bytes on a connection of its own.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) -> Wire {
        let mut wire = self.connect().await;
        wire.send(bytes).await;
        wire
    }

    /// The answer to GET for a.test with these headers.
    pub(crate) async fn get(&self, path: &str, headers: &str) -> WireResponse {
        self.send(request(path, headers))
            .await
            .read_response()
            .await
    }

    /// [`Self::get`] in short.
    pub(crate) async fn status(&self, path: &str, headers: &str) -> String {
        brief(&self.get(path, headers).await)
    }

    /// In short, the last of this many answers to the same request.
    pub(crate) async fn nth(&self, count: usize, headers: &str) -> String {
        for _ in 1..count {
            self.get("/", headers).await;
        }
        self.status("/", headers).await
    }

    /// What the origin behind got under this name; `refused ...` where nothing got there.
    pub(crate) async fn forwarded(&self, path: &str, headers: &str, name: &str) -> String {
        let answer = self.get(path, headers).await;
        let json = answer.json();
        let Some(fields) = json["headers"].as_array() else {
            return format!("refused {}", brief(&answer));
        };
        let values: Vec<_> = fields
            .iter()
            .filter(|pair| {
                pair[0]
                    .as_str()
                    .is_some_and(|n| n.eq_ignore_ascii_case(name))
            })
            .map(|pair| pair[1].as_str().unwrap_or_default())
            .collect();
        format!("{values:?}")
    }

    /// Rolls the other colour out, to nearly everyone at first, and waits for this phase.
    pub(crate) async fn roll_out(&self, phase: &str) -> Value {
        let cluster = self.config["cluster"][0]["name"].as_str().expect("a name");
        let plan = r#"{"stages":[{"percent":99.99,"observe_seconds":600}],"baseline_seconds":0}"#;
        let path = format!("/v1/rollouts/{cluster}/start");
        let (status, begun) = self.hub.admin("POST", &path, plan).await;
        assert_eq!(status, 200, "{begun}");
        loop {
            let (_, body) = self.hub.admin("GET", "/v1/rollouts", "").await;
            let rollout = &body["rollouts"][0];
            if rollout["phase"] == phase || rollout["over"] == true {
                return rollout.clone();
            }
            tokio::task::yield_now().await;
        }
    }

    /// Colour of the origin that answers, or the refusal.
    pub(crate) async fn colour(&self, headers: &str) -> String {
        let answer = self.get("/", headers).await;
        match answer.json()["colour"].as_str() {
            Some(colour) => colour.to_owned(),
            None => brief(&answer),
        }
    }

    /// A header of the answer.
    pub(crate) async fn header(&self, path: &str, headers: &str, name: &str) -> String {
        format!("{:?}", self.get(path, headers).await.header(name))
    }

    /// A field of the access log after one request.
    pub(crate) async fn logged(&self, headers: &str, field: &str) -> String {
        self.get("/", headers).await;
        self.hub.wait_for_access_log(1).await[0][field].to_string()
    }

    /// The first blue endpoint, as the admin API shows it.
    pub(crate) async fn endpoint(&self) -> Value {
        let (_, clusters) = self.hub.admin("GET", "/v1/clusters", "").await;
        clusters["clusters"][0]["endpoints"][0].clone()
    }

    /// Waits for something that no event tells of.
    pub(crate) async fn until(&self, what: &str, mut look: impl AsyncFnMut(&Self) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(10), async {
            while !look(self).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "waited 10 s for {what}");
    }
}

/// What it comes to, if it does so soon.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(SOON, event).await.ok()
}

/// Whether it happens soon.
pub(crate) async fn whether<T>(event: impl Future<Output = T>) -> String {
    match soon(event).await {
        Some(_) => "happened".into(),
        None => "did not happen".into(),
    }
}

/// The next answer in short, if it comes soon.
pub(crate) async fn answer_soon(wire: &mut Wire) -> String {
    match soon(wire.try_read_response_to("GET")).await {
        None => "waits".into(),
        Some(answer) => ended(answer),
    }
}

/// The next answer in short, or how the connection ended.
pub(crate) async fn answer(wire: &mut Wire) -> String {
    ended(wire.try_read_response_to("GET").await)
}

fn ended(answer: std::io::Result<Option<WireResponse>>) -> String {
    match answer {
        Ok(Some(answer)) => brief(&answer),
        Ok(None) => "closed".into(),
        Err(_) => "broken".into(),
    }
}

pub(crate) fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n")
}

/// Status and, where the gateway refused, its code.
pub(crate) fn brief(answer: &WireResponse) -> String {
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = json["error"]["code"].as_str().unwrap_or_default();
    format!("{} {code}", answer.status)
}

fn scripted(keys: usize, colour: &str) -> hub_testkit::OriginBuilder {
    let out = Reply::ok("out").header("X-Out", "origin");
    Origin::builder()
        .colour(colour)
        .on("/jwks", Reply::ok(material::jwks(keys)))
        .on("/hang", Behaviour::Hang)
        .on("/out", out)
        .on("/ws", Behaviour::WebSocket)
        .on("/big", Reply::new(200).repeated(b'x', 64 << 20))
        .on("/pause", Reply::ok("late").body_after(&Gate::closed()))
}
