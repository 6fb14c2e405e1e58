//! The gateway with an origin behind it, and what a refusal looks like from all sides.

use hub_core::{Reason, names};
use hub_testkit::{End, Hub, Origin, Wire, WireResponse, demo_config};
use serde_json::Value;
use std::path::Path;

/// One named test for each request that the gateway must refuse before an origin sees a byte of it.
macro_rules! refused {
    ($($name:ident: $bytes:expr => $reason:ident;)+) => {$(
        #[tokio::test]
        async fn $name() {
            crate::edge::refuses($bytes.as_ref(), hub_core::Reason::$reason).await;
        }
    )+};
}
pub(crate) use refused;

/// A running gateway and the origin of its one cluster.
pub(crate) struct Edge {
    pub(crate) hub: Hub,
    pub(crate) origin: Origin,
}

/// Starts the gateway; see [`Edge::before`].
pub(crate) async fn edge(listener: &str, route: &str) -> Edge {
    Edge::before(Origin::start().await, listener, route).await
}

/// The gateway as it is without any settings refuses these bytes, for this reason, on a connection of
/// their own, and the origin does not hear of it.
pub(crate) async fn refuses(bytes: &[u8], reason: Reason) {
    let edge = edge("", "").await;
    let mut client = edge.client().await;
    client.send(bytes).await;
    edge.assert_refused(&mut client, reason).await;
    edge.assert_origin_untouched();
    assert_eq!(
        edge.hub.access_log().len(),
        1,
        "one line for one bad request"
    );
}

impl Edge {
    /// Starts the gateway before this origin. `listener` is added to the keys of the listener, and
    /// `route` to those of the route `all` and, from its first table header on, to the file.
    pub(crate) async fn before(origin: Origin, listener: &str, route: &str) -> Self {
        let name = "name = \"public\"\n";
        let config = demo_config(origin.endpoint()).replace(name, &format!("{name}{listener}\n"));
        let hub = Hub::builder(Path::new(env!("CARGO_BIN_EXE_hub-gateway")))
            .config(&(config + route))
            .start()
            .await;
        Self { hub, origin }
    }

    pub(crate) async fn client(&self) -> Wire {
        Wire::connect(self.hub.addr("public")).await
    }

    /// Sends these bytes on a connection of their own and returns the answer, which must be 200.
    pub(crate) async fn served(&self, bytes: impl AsRef<[u8]>) -> WireResponse {
        let mut client = self.client().await;
        client.send(bytes).await;
        let response = client.read_response().await;
        assert_eq!(response.status, 200, "{}", response.raw_text());
        response
    }

    /// The client's next answer, the metric and the log line are those of this reason, and the
    /// connection ends where the reason ends it.
    pub(crate) async fn assert_refused(&self, client: &mut Wire, reason: Reason) -> Value {
        let answer = client.read_response().await;
        assert_eq!(
            answer.status,
            reason.status().as_u16(),
            "{}",
            answer.raw_text()
        );
        let error = &answer.json()["error"];
        assert_eq!(error["code"], reason.code(), "{}", answer.raw_text());
        let id = answer.header("x-request-id").expect("a request id");
        assert_eq!(error["request_id"], id);
        if reason.closes() {
            assert_eq!(answer.header("connection"), Some("close"));
            assert_eq!(client.wait_closed().await, End::Closed);
        }
        let line = self.hub.wait_for_log_line(|l| l["request_id"] == id).await;
        assert_eq!(line["reason"], reason.code(), "{line}");
        assert_eq!(line["status"], answer.status, "{line}");
        self.assert_counted(reason).await;
        line
    }

    /// This reason was counted once, and no other was.
    pub(crate) async fn assert_counted(&self, reason: Reason) {
        let label = [(names::label::REASON, reason.code())];
        self.hub
            .wait_for_metric(names::REFUSALS_TOTAL, &label, |count| count > 0.0)
            .await;
        assert_eq!(self.hub.metric(names::REFUSALS_TOTAL, &label).await, 1.0);
        assert_eq!(self.hub.metric(names::REFUSALS_TOTAL, &[]).await, 1.0);
    }

    /// No request was refused so far.
    pub(crate) async fn assert_nothing_refused(&self) {
        assert_eq!(self.hub.metric(names::REFUSALS_TOTAL, &[]).await, 0.0);
    }

    /// The origin has received nothing, and nobody has connected to it.
    pub(crate) fn assert_origin_untouched(&self) {
        assert_eq!(self.origin.raw_bytes(), 0);
        assert_eq!(self.origin.connections(), 0);
    }

    /// True where one of the origin's connections has received these bytes.
    pub(crate) fn origin_saw(&self, text: &str) -> bool {
        (0..self.origin.connections()).any(|connection| {
            self.origin
                .raw(connection)
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        })
    }
}
