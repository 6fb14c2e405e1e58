//! What the tests of the gateway are written with: a scriptable origin, a byte-exact client, the
//! gateway itself as a child process, a Postgres server, certificates, and seeded sample data. A
//! dev-dependency only.
//!
//! ```no_run
//! # async fn example() {
//! use hub_testkit::{Hub, Origin, Wire, demo_config};
//!
//! let origin = Origin::start().await;
//! let hub = Hub::builder("target/debug/hub-gateway".as_ref())
//!     .config(&demo_config(origin.endpoint()))
//!     .start()
//!     .await;
//! let mut client = Wire::connect(hub.addr("public")).await;
//! client.send("GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
//! assert_eq!(client.read_response().await.status, 200);
//! assert_eq!(origin.requests()[0].target, "/a");
//! # }
//! ```
//!
//! Invariant: everything listens on 127.0.0.1 at port 0, or on a Unix socket of its own, and stops when it is dropped.
//! Invariant: nothing sleeps to be in step. What a test waits for is an event, and every wait ends
//! with a panic that says what was missing.

pub mod certs;
mod fields;
mod gate;
pub mod hub;
pub mod load;
pub mod origin;
mod postgres;
pub mod process;
pub mod samples;
pub mod service_manager;
mod stream;
pub mod tools;
pub mod websocket;
pub mod wire;

pub use certs::{Ca, KeyKind, Leaf};
pub use gate::Gate;
pub use hub::{ADMIN_TOKEN, Hub, HubBuilder, Hubctl, Said, Signal, demo_config};
pub use origin::{Behaviour, Feed, Origin, OriginBuilder, RecordedRequest, Reply};
pub use postgres::{Postgres, Session as PostgresSession};
pub use service_manager::ServiceManager;
pub use wire::{End, Wire, WireResponse};

use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Longest wait for anything that should take no time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes a file, readable by its owner alone, and puts it in place in one step, so that nobody
/// reads half of it.
///
/// # Panics
/// Where it cannot be written.
fn replace_file(path: &Path, contents: &[u8]) {
    let directory = path.parent().expect("files of a test are in a directory");
    let written = tempfile::NamedTempFile::new_in(directory).and_then(|mut file| {
        file.write_all(contents)?;
        file.persist(path).map_err(Into::into)
    });
    if let Err(error) = written {
        panic!("cannot write {}: {error}", path.display());
    }
}
