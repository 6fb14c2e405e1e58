//! A gateway with two colours, a folder of migration steps and a database, and hubctl to work on them.

use hub_testkit::{Hub, Origin, Wire, demo_config};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for what comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const RANGES: &str =
    "schema = { scopes = [\"app\"], blue = { min = 1, max = 2 }, green = { min = 2, max = 3 } }\n";

/// Steps of a column that gets another name.
pub(crate) const STEPS: [(&str, &str); 3] = [
    (
        "0001_lead.expand.sql",
        "CREATE TABLE lead (id bigint PRIMARY KEY, phone text);",
    ),
    (
        "0002_phone_number.expand.sql",
        "ALTER TABLE lead ADD COLUMN phone_number text;",
    ),
    (
        "0003_drop_phone.contract.sql",
        "ALTER TABLE lead DROP COLUMN phone;",
    ),
];

pub(crate) struct Site {
    pub(crate) hub: Hub,
    pub(crate) blue: Origin,
    pub(crate) green: Origin,
    files: TempDir,
    hubctl: PathBuf,
    database: String,
}

/// What hubctl said, on both of its outputs.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

/// hubctl beside the gateway's binary; a build of the workspace puts it there.
pub(crate) fn hubctl_binary() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_hub-gateway")).with_file_name("hubctl");
    if path.exists() {
        return Some(path);
    }
    assert!(
        std::env::var_os("HUB_REQUIRE_HUBCTL").is_none(),
        "HUB_REQUIRE_HUBCTL is set and {} is missing",
        path.display()
    );
    println!("left out: {} is missing", path.display());
    None
}

impl Site {
    /// `cluster` is what the cluster's table has beside its name and endpoints, `more` whole tables. The
    /// database is a new file of SQLite. `None` where hubctl was not built.
    pub(crate) async fn start(cluster: &str, more: &str) -> Option<Self> {
        Self::before(None, cluster, "", more).await
    }

    /// As [`Self::start`], in front of applications at these endpoints, blue and green, if any. `route` is
    /// what the route's table has besides.
    pub(crate) async fn before(
        applications: Option<[String; 2]>,
        cluster: &str,
        route: &str,
        more: &str,
    ) -> Option<Self> {
        let hubctl = hubctl_binary()?;
        let files = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(files.path().join("steps")).expect("a folder");
        let blue = Origin::builder().colour("blue").start().await;
        let green = Origin::builder().colour("green").start().await;
        let endpoints = applications.unwrap_or_else(|| [blue.endpoint(), green.endpoint()]);
        let text = config(&endpoints, cluster, route, more, files.path());
        let hub = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
            .config(&text)
            .start()
            .await;
        Some(Self {
            hub,
            blue,
            green,
            database: format!("sqlite:{}", files.path().join("app.db").display()),
            files,
            hubctl,
        })
    }

    /// Another database from now on.
    pub(crate) fn use_database(&mut self, location: String) {
        self.database = location;
    }

    /// The configuration with something else in it.
    pub(crate) fn config(&self, cluster: &str, more: &str) -> String {
        let endpoints = [self.blue.endpoint(), self.green.endpoint()];
        config(&endpoints, cluster, "", more, self.files.path())
    }

    pub(crate) fn write(&self, steps: &[(&str, &str)]) {
        for (name, sql) in steps {
            std::fs::write(self.files.path().join("steps").join(name), sql).expect("written");
        }
    }

    /// `hubctl migrate COMMAND` on the site's steps and database.
    pub(crate) async fn migrate(&self, command: &str, more: &[&str]) -> Said {
        said(self.migrate_command(command, more)).await
    }

    pub(crate) fn migrate_command(&self, command: &str, more: &[&str]) -> Command {
        let steps = self.files.path().join("steps");
        let steps = steps.to_str().expect("text");
        let mut arguments = vec!["migrate", command, "--dir", steps];
        if !more.contains(&"--scope") {
            arguments.extend(["--scope", "app"]);
        }
        arguments.extend(more);
        self.command(&arguments)
    }

    /// `hubctl` with these arguments.
    pub(crate) async fn hubctl(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments)).await
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.hubctl);
        command
            .args(arguments)
            .env_remove("HUB_ADMIN_TOKEN")
            .env("HUB_ADMIN", self.hub.admin_endpoint())
            .env("HUB_ADMIN_TOKEN_FILE", self.hub.dir().join("admin.token"))
            .env("HUB_DATABASE", &self.database);
        command
    }

    /// Applies the expand steps that there are.
    pub(crate) async fn expand(&self) {
        let said = self.migrate("expand", &[]).await;
        assert_eq!(said.code, Some(0), "{}", said.text);
    }

    /// Starts a rollout, or steers it.
    pub(crate) async fn rollout(&self, command: &str, plan: &Value) -> (u16, Value) {
        let body = if plan.is_null() {
            String::new()
        } else {
            plan.to_string()
        };
        let path = format!("/v1/rollouts/app/{command}");
        self.hub.admin("POST", &path, &body).await
    }

    /// Waits until the rollout is in `phase`, with requests meanwhile, and answers how it stands.
    pub(crate) async fn wait_for(&self, phase: &str) -> Value {
        let waiting = async {
            loop {
                let mut wire = Wire::connect(self.hub.addr("public")).await;
                for _ in 0..10 {
                    wire.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
                    wire.read_response().await;
                }
                let (_, body) = self.hub.admin("GET", "/v1/rollouts", "").await;
                let rollout = &body["rollouts"][0];
                if rollout["phase"] == phase {
                    return rollout.clone();
                }
                assert_eq!(rollout["over"], false, "not {phase}: {rollout}");
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("it never gets to {phase}"))
    }

    /// Everyone moves to the other colour.
    pub(crate) async fn switch(&self) {
        let plan = json!({"stages": [], "bake_seconds": 0});
        let (status, begun) = self.rollout("start", &plan).await;
        assert_eq!(status, 200, "{begun}");
        self.wait_for("committed").await;
    }

    /// Runs the contract steps as soon as they may run.
    pub(crate) async fn contract(&self) {
        let waiting = async {
            loop {
                let said = self.migrate("contract", &[]).await;
                if said.code == Some(0) {
                    return;
                }
                assert!(said.text.contains("requests are still on"), "{}", said.text);
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "the contract step may never run");
    }
}

impl Said {
    /// It ended with this code and said all of this.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.text);
        for part in parts {
            assert!(self.text.contains(part), "{part:?} in {}", self.text);
        }
    }
}

async fn said(mut command: Command) -> Said {
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("no panic").expect("hubctl runs");
    let text = [stdout, stderr].concat();
    Said {
        code: status.code(),
        text: String::from_utf8(text).expect("text"),
    }
}

fn config(
    [blue, green]: &[String; 2],
    cluster: &str,
    route: &str,
    more: &str,
    files: &Path,
) -> String {
    let endpoints = format!("endpoints = {{ blue = [\"{blue}\"], green = [\"{green}\"] }}\n");
    let store = files.join("store").display().to_string();
    demo_config("127.0.0.1:1").replace(
        "endpoints = { blue = [\"127.0.0.1:1\"] }\n",
        &(endpoints + cluster),
    ) + &format!("{route}\n[store]\ndirectory = {store:?}\n{more}")
}
