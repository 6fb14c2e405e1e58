//! The line of a WebSocket session, written when it ends. That of its handshake has the same `request_id`.

use super::Line;
use super::json::put_number;
use super::record::{SecondText, micros, put_address, put_optional, put_text};
use hub_core::RequestId;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

/// A session that has ended.
#[derive(Clone, Copy, Debug)]
pub struct WebSocketRecord<'a> {
    /// When it ended.
    pub at: SystemTime,
    /// Id of the request that opened it.
    pub request_id: RequestId,
    /// The client's address.
    pub client: IpAddr,
    /// Name of the route.
    pub route: &'a str,
    /// Name of the cluster.
    pub cluster: &'a str,
    /// Colour that it was on.
    pub colour: &'a str,
    /// Endpoint that it was on.
    pub endpoint: &'a str,
    /// The tenant's id.
    pub tenant: Option<&'a str>,
    /// Code of the Close that ended it; 1006 where there was none.
    pub code: u16,
    /// `client`, `upstream` or `gateway`.
    pub by: &'a str,
    /// Why it ended.
    pub why: &'a str,
    /// Complete messages from the client.
    pub messages_in: u64,
    /// Complete messages to the client.
    pub messages_out: u64,
    /// Bytes of frames from the client, heads included.
    pub bytes_in: u64,
    /// The same to the client.
    pub bytes_out: u64,
    /// How long it was open.
    pub duration: Duration,
}

impl Line for WebSocketRecord<'_> {
    fn put_line(&self, out: &mut Vec<u8>, second: &mut SecondText) {
        out.extend_from_slice(b"{\"ts\":\"");
        second.put_timestamp(out, self.at);
        out.extend_from_slice(b"\",\"event\":\"websocket_end\",\"request_id\":\"");
        out.extend_from_slice(self.request_id.encode(&mut [0; 36]).as_bytes());
        out.extend_from_slice(b"\",\"client\":\"");
        put_address(out, self.client);
        out.extend_from_slice(b"\",\"route\":");
        put_text(out, self.route.as_bytes());
        out.extend_from_slice(b",\"cluster\":");
        put_text(out, self.cluster.as_bytes());
        out.extend_from_slice(b",\"colour\":");
        put_text(out, self.colour.as_bytes());
        out.extend_from_slice(b",\"endpoint\":");
        put_text(out, self.endpoint.as_bytes());
        out.extend_from_slice(b",\"tenant\":");
        put_optional(out, self.tenant);
        out.extend_from_slice(b",\"code\":");
        put_number(out, self.code);
        out.extend_from_slice(b",\"by\":");
        put_text(out, self.by.as_bytes());
        out.extend_from_slice(b",\"why\":");
        put_text(out, self.why.as_bytes());
        for (name, number) in [
            (&b",\"messages_in\":"[..], self.messages_in),
            (b",\"messages_out\":", self.messages_out),
            (b",\"bytes_in\":", self.bytes_in),
            (b",\"bytes_out\":", self.bytes_out),
            (b",\"duration_us\":", micros(self.duration)),
        ] {
            out.extend_from_slice(name);
            put_number(out, number);
        }
        out.extend_from_slice(b"}\n");
    }
}
