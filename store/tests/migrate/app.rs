//! An application whose database is migrated.

use hub_store::migrate::{
    Database, Location, MigrateError, Progress, Report, Run, RunOptions, Standing, StepFile,
    Timeouts, contract, expand, load, status,
};
use hub_store::{Kind, Memory, MigrationLedger, StepState};
use hub_testkit::Postgres;
use std::fs;
use std::time::Duration;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// An application with a directory of steps, one database, and the ledger.
pub(crate) struct App {
    pub(crate) steps: TempDir,
    pub(crate) database: Database,
    pub(crate) ledger: Memory,
    pub(crate) options: RunOptions,
    pub(crate) progress: Vec<Progress>,
}

impl App {
    pub(crate) async fn new(location: &Location) -> Self {
        Self {
            steps: tempfile::tempdir().unwrap(),
            database: Database::connect(location, &Timeouts::default())
                .await
                .unwrap(),
            ledger: Memory::new(),
            options: RunOptions {
                attempts_max: 3,
                pause_min: Duration::from_millis(1),
                ..RunOptions::default()
            },
            progress: Vec::new(),
        }
    }

    pub(crate) fn write(&self, file: &str, sql: &str) {
        fs::write(self.steps.path().join(file), sql).unwrap();
    }

    pub(crate) fn load(&self) -> Vec<StepFile> {
        load(self.steps.path()).unwrap()
    }

    pub(crate) async fn run(&mut self, kind: Kind) -> Result<Report, MigrateError> {
        let steps = self.load();
        let run = Run {
            steps: &steps,
            scope: "app",
            ledger: &self.ledger,
            options: &self.options,
        };
        let mut note = |progress| self.progress.push(progress);
        match kind {
            Kind::Expand => expand(&run, &mut self.database, &mut note).await,
            Kind::Contract => contract(&run, &mut self.database, &mut note).await,
        }
    }

    pub(crate) async fn standings(&mut self) -> Vec<Standing> {
        let steps = self.load();
        let run = Run {
            steps: &steps,
            scope: "app",
            ledger: &self.ledger,
            options: &self.options,
        };
        let statuses = status(&run, &mut self.database).await.unwrap();
        statuses.iter().map(|status| status.standing).collect()
    }

    /// What the ledger has to say of a step.
    pub(crate) async fn detail(&self, number: u32) -> String {
        let steps = self.ledger.list("app").await.unwrap();
        let mut of = steps.iter().filter(|step| step.number == number);
        of.next().unwrap().detail.clone()
    }

    pub(crate) async fn states(&self) -> Vec<(u32, StepState)> {
        let steps = self.ledger.list("app").await.unwrap();
        steps.iter().map(|step| (step.number, step.state)).collect()
    }
}

pub(crate) async fn sqlite() -> (App, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::Embedded(directory.path().join("app.db"));
    (App::new(&location).await, directory)
}

pub(crate) async fn postgres() -> Option<(App, Client, Postgres)> {
    let server = Postgres::start()?;
    let app = App::new(&Location::parse(&server.connection_string())).await;
    let other = connect(&server, "app-blue").await;
    Some((app, other, server))
}

pub(crate) async fn connect(server: &Postgres, name: &str) -> Client {
    let text = format!("{} application_name={name}", server.connection_string());
    let (client, connection) = tokio_postgres::connect(&text, NoTls).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    client
}
