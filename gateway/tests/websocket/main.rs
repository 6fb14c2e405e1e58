//! WebSockets that end at the gateway: the protocol case by case, peers that mean harm or do it by mistake
//! on either side, and clients that others have written.

mod cases;
mod clients;
mod ends;
mod handshake;
mod hostile;
mod orders;
mod slow;
mod tls;
mod upstream;

use hub_testkit::websocket::{Client, Handshake};
use hub_testkit::{Hub, Wire, WireResponse, demo_config};
use std::fmt::Display;
use std::path::Path;

const BINARY: &str = env!("CARGO_BIN_EXE_hub-gateway");

/// A gateway whose one route takes WebSockets, with these keys of its `websocket` table.
async fn gateway(endpoint: impl Display, keys: &str) -> Hub {
    let config = demo_config(endpoint) + &format!("websocket = {{ {keys} }}\n");
    Hub::builder(Path::new(BINARY))
        .config(&config)
        .start()
        .await
}

async fn client(hub: &Hub) -> Client {
    Client::connect(hub.addr("public"), "/socket").await
}

/// What the gateway answers where it does not agree to a WebSocket.
async fn refusal(hub: &Hub, handshake: &Handshake) -> WireResponse {
    let mut wire = Wire::connect(hub.addr("public")).await;
    wire.send(handshake.request()).await;
    wire.read_response().await
}
