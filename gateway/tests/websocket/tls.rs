//! Clients that speak TLS (`wss:`): the same, and the connection ends with a closing alert.

use hub_testkit::websocket::{Client, EchoServer, Event, Frame, Handshake, opcode};
use hub_testkit::{Ca, Hub, demo_config};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

async fn client(hub: &Hub, ca: &Ca) -> Client<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(hub.addr("public"))
        .await
        .expect("it listens");
    let name = ServerName::try_from("a.test").expect("a DNS name");
    let connector = TlsConnector::from(ca.client_config(&[]));
    let stream = connector.connect(name, stream).await.expect("TLS");
    Handshake::new("/socket").open(stream).await.0
}

#[tokio::test]
async fn a_session_over_tls_carries_messages_and_ends_in_an_orderly_way() {
    let echo = EchoServer::start().await;
    let ca = Ca::new("public authority");
    let leaf = ca.issue(&["a.test"]);
    let listener = "name = \"public\"\naddress = \"127.0.0.1:0\"\n";
    let tls = "tls = { certificates = [{ certificate_file = \"{dir}/0.pem\", key_file = \"{dir}/0.key\" }] }\n";
    let config = demo_config(echo.addr()).replace(listener, &format!("{listener}{tls}"))
        + "websocket = {}\n";
    let hub = Hub::builder(env!("CARGO_BIN_EXE_hub-gateway").as_ref())
        .file("0.pem", &leaf.certificate_pem)
        .file("0.key", &leaf.key_pem)
        .config(&config)
        .start()
        .await;

    let mut good = client(&hub, &ca).await;
    good.echo("over TLS").await;
    let payload: Vec<u8> = (0..900_000).map(|n| (n * 31 + n / 251) as u8).collect();
    for frame in Frame::fragments(opcode::BINARY, &payload, 100_000) {
        good.send(&frame).await;
    }
    assert_eq!(good.next().await, Event::Binary(payload));
    good.send(&Frame::ping("p")).await;
    assert_eq!(good.next().await, Event::Pong(b"p".to_vec()));
    good.send(&Frame::close(4001, "bye")).await;
    assert_eq!(good.next().await, Event::Close(Some(4001), "bye".into()));
    assert_eq!(good.next().await, Event::End);

    let mut bad = client(&hub, &ca).await;
    bad.send(&Frame::text("x").unmasked()).await;
    assert_eq!(bad.next().await.close_code(), Some(1002));
    bad.halves().0.finish().await;
    assert_eq!(bad.next().await, Event::End);
}
