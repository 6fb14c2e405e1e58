//! A column gets another name while two releases write to it, each of which knows one name alone: expand,
//! switch, contract, at 200 transactions a second, through the gateway and hubctl, on a real Postgres.
//!
//! `HUB_MIGRATE_SECONDS` says how long each part lasts at least; `make bench-migrate` makes it long.

use crate::site::Site;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use hub_testkit::load::{Ask, Body, Settings, open};
use hub_testkit::{Postgres, PostgresSession};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Transactions a second, both colours together.
const RATE: f64 = 200.0;
/// Sessions of each colour.
const SESSIONS: usize = 6;
const TENANTS: u64 = 40;
/// Longest wait for a part, beyond its length.
const PATIENCE: Duration = Duration::from_secs(60);

const STEPS: [(&str, &str); 4] = [
    (
        "0001_lead.expand.sql",
        "CREATE TABLE lead (id bigserial PRIMARY KEY, phone text NOT NULL);",
    ),
    (
        "0002_phone_number.expand.sql",
        "ALTER TABLE lead ADD COLUMN phone_number text;
         CREATE FUNCTION lead_phone() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF TG_OP = 'INSERT' THEN
                 NEW.phone_number := coalesce(NEW.phone_number, NEW.phone);
                 NEW.phone := coalesce(NEW.phone, NEW.phone_number);
             ELSIF NEW.phone IS DISTINCT FROM OLD.phone THEN
                 NEW.phone_number := NEW.phone;
             ELSE
                 NEW.phone := NEW.phone_number;
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER lead_phone BEFORE INSERT OR UPDATE ON lead
             FOR EACH ROW EXECUTE FUNCTION lead_phone();",
    ),
    (
        "0003_fill.expand.sql",
        "UPDATE lead SET phone_number = phone WHERE phone_number IS NULL;",
    ),
    (
        "0004_drop_phone.contract.sql",
        "DROP TRIGGER lead_phone ON lead;
         DROP FUNCTION lead_phone();
         ALTER TABLE lead DROP COLUMN phone;",
    ),
];

/// A release: it knows the column by one name.
struct App {
    column: &'static str,
    sessions: Mutex<Vec<PostgresSession>>,
    free: Semaphore,
    done: AtomicU64,
    failed: Mutex<Vec<String>>,
}

// === impl App ===

impl App {
    /// Serves on a free port; where that is.
    async fn start(server: &Postgres, colour: &str, column: &'static str) -> (Arc<Self>, String) {
        let mut sessions = Vec::new();
        for number in 0..SESSIONS {
            sessions.push(server.session(&format!("lead-app/{colour}/{number}")).await);
        }
        let app = Arc::new(Self {
            column,
            sessions: Mutex::new(sessions),
            free: Semaphore::new(SESSIONS),
            done: AtomicU64::new(0),
            failed: Mutex::default(),
        });
        let routes = Router::new().route("/lead", post(Self::lead));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let service = routes.with_state(Arc::clone(&app));
        tokio::spawn(async move { axum::serve(listener, service).await });
        (app, address)
    }

    /// Writes a row, changes it, reads it back, and reads the newest rows, which may be the other colour's.
    async fn lead(State(app): State<Arc<Self>>) -> StatusCode {
        let _turn = app.free.acquire().await.expect("never closed");
        let session = app.sessions.lock().expect("no panic").pop();
        let Some(session) = session else {
            app.fail("a request came after the release was stopped".into());
            return StatusCode::SERVICE_UNAVAILABLE;
        };
        let column = app.column;
        let outcome = session
            .run(&format!(
                "INSERT INTO lead ({column}) VALUES ('555');
                 UPDATE lead SET {column} = {column} || '-0100' WHERE id = currval('lead_id_seq');
                 SELECT {column} FROM lead WHERE id = currval('lead_id_seq');
                 SELECT {column} FROM lead ORDER BY id DESC LIMIT 5;"
            ))
            .await;
        app.sessions.lock().expect("no panic").push(session);
        match outcome {
            Ok(rows) if rows[0].as_deref() == Some("555-0100") && !rows.contains(&None) => {
                app.done.fetch_add(1, Ordering::Relaxed);
                StatusCode::OK
            }
            Ok(rows) => {
                app.fail(format!("{column} reads {rows:?}"));
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Err(why) => {
                app.fail(format!("{column}: {why}"));
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    fn fail(&self, why: String) {
        self.failed.lock().expect("no panic").push(why);
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends its sessions, as the end of its process would.
    fn stop(&self) {
        self.sessions.lock().expect("no panic").clear();
    }
}

/// Until each of these has done its part of so many seconds more; how many each did.
async fn work(seconds: u64, part: f64, apps: &[&App]) -> Vec<u64> {
    let began = Instant::now();
    let before: Vec<u64> = apps.iter().map(|app| app.done()).collect();
    let wanted = (seconds as f64 * RATE * part) as u64;
    loop {
        let done = apps
            .iter()
            .zip(&before)
            .map(|(app, before)| app.done() - before);
        let done: Vec<u64> = done.collect();
        if done.iter().all(|done| *done >= wanted) {
            return done;
        }
        assert!(
            began.elapsed() < PATIENCE + Duration::from_secs(seconds),
            "{done:?} of {wanted} transactions"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_colours_write_through_expand_switch_and_contract_without_a_failed_query() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let seconds = std::env::var("HUB_MIGRATE_SECONDS").ok();
    let seconds: u64 = seconds.map_or(1, |text| text.parse().expect("a number of seconds"));
    let (blue, blue_at) = App::start(&server, "blue", "phone").await;
    let (green, green_at) = App::start(&server, "green", "phone_number").await;
    let tenants: String = (0..TENANTS)
        .map(|number| format!("[[tenant]]\nid = \"loc_{number}\"\n"))
        .collect();
    let site = Site::before(
        Some([blue_at, green_at]),
        "schema = { scopes = [\"app\"], blue = { min = 1, max = 1 }, green = { min = 3, max = 4 } }\n",
        "tenant = { sources = [{ header = \"x-location-id\" }] }\n",
        &tenants,
    );
    let Some(mut site) = site.await else {
        return;
    };
    site.use_database(server.connection_string());
    site.write(&STEPS[..1]);
    site.expand().await;

    let settings = Settings {
        connections: 16,
        request_timeout: Duration::from_secs(20),
        duration_max: Duration::from_secs(3_600),
        ..Settings::new(site.hub.addr("public"))
    };
    let load = open(settings, RATE, |number, request| {
        let tenant = number % TENANTS;
        let head = format!(
            "POST /lead HTTP/1.1\r\nHost: a.test\r\nX-Location-Id: loc_{tenant}\r\nContent-Length: 0\r\n\r\n"
        );
        request.extend_from_slice(head.as_bytes());
        Ask {
            class: 0,
            status: 200,
            body: Body::Any,
        }
    });
    let alone = work(seconds, 1.0, &[&blue]).await;
    let start = ["rollout", "start", "app", "--all-at-once", "--bake", "0"];
    let behind = site.hubctl(&start).await;
    behind.is(1, &["`app` is at step 0001, and step 0003 is needed"]);
    site.write(&STEPS);
    let expanded = site.migrate("expand", &[]).await;
    expanded.is(0, &["0002  applied", "0003  applied", "next is step 0004"]);
    println!("{}", expanded.text);
    work(seconds, 1.0, &[&blue]).await;

    let both = switch(&site, seconds, &blue, &green).await;
    let connected = site.migrate("contract", &[]).await;
    connected.is(1, &["colour `blue` still has 6 sessions on this database"]);
    blue.stop();
    let contracted = contract(&site).await;
    println!("{contracted}");
    let after = work(seconds, 1.0, &[&green]).await;
    let back = site.hubctl(&start).await;
    back.is(1, &["contract step 0004 of `app` was run"]);

    let report = load.stop().await;
    let failed: Vec<String> = [&blue, &green]
        .iter()
        .flat_map(|app| app.failed.lock().expect("no panic").clone())
        .collect();
    println!(
        "{:.0} s at {RATE} transactions a second, 4 queries each: {} answered, {} failed ({}), {} never sent; \
         blue {} and green {}; before the switch {} by blue, while both wrote {} by blue and {} by green, \
         behind the contract step {} by green; queries failed: {}; p99 {} ms, longest {} ms",
        report.elapsed.as_secs_f64(),
        report.counts.ok(),
        report.counts.failed(),
        report.counts.failures(),
        report.unsent,
        blue.done(),
        green.done(),
        alone[0],
        both[0],
        both[1],
        after[0],
        failed.len(),
        report.percentile_us(99.0) / 1_000,
        report.percentile_us(100.0) / 1_000,
    );
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!((report.counts.failed(), report.unsent), (0, 0));
}

/// Rolls green out by a canary of half the tenants, in which both write; a rollout that the judges end on a
/// busy machine is begun anew.
async fn switch(site: &Site, seconds: u64, blue: &App, green: &App) -> Vec<u64> {
    for _ in 0..4 {
        let plan = json!({"stages": [{"percent": 50, "observe_seconds": 3600}], "bake_seconds": 3600,
                "baseline_seconds": 0});
        let (status, begun) = site.rollout("start", &plan).await;
        assert_eq!(status, 200, "{begun}");
        if !reaches(site, "canary").await {
            continue;
        }
        let both = work(seconds, 0.25, &[blue, green]).await;
        let canary = site.migrate("contract", &[]).await;
        // Blue's sessions are found before the gateway is asked.
        canary.is(1, &["colour `green` still has 6 sessions"]);
        site.rollout("promote", &Value::Null).await;
        if reaches(site, "bake").await {
            let (_, done) = site.rollout("promote", &Value::Null).await;
            assert_eq!(done["phase"], "committed", "{done}");
            return both;
        }
    }
    panic!("the judges do not let green be rolled out");
}

/// Whether the rollout gets there; else it is over.
async fn reaches(site: &Site, phase: &str) -> bool {
    let began = Instant::now();
    loop {
        let (_, body) = site.hub.admin("GET", "/v1/rollouts", "").await;
        let rollout = &body["rollouts"][0];
        if rollout["phase"] == phase {
            return true;
        }
        if rollout["over"] == true {
            println!("begun anew: {}", rollout["why"]);
            return false;
        }
        assert!(began.elapsed() < PATIENCE, "not {phase}: {rollout}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs the contract step once the server has noticed that blue's sessions have ended.
async fn contract(site: &Site) -> String {
    let began = Instant::now();
    loop {
        let said = site.migrate("contract", &[]).await;
        if said.code == Some(0) {
            return said.text;
        }
        assert!(
            said.text.contains("sessions on this database") && began.elapsed() < PATIENCE,
            "{}",
            said.text
        );
    }
}
