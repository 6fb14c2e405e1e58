//! `[route.websocket]`.

use super::place::At;
use super::process::millis;
use super::scope::Scope;
use super::words;
use crate::{file, runtime};
use hub_core::Method;

/// `methods` are those of the route, where they are known.
pub(crate) fn websocket(
    scope: &mut Scope<'_>,
    at: &At<'_>,
    file: &file::WebSocket,
    methods: Option<&[Method]>,
) -> Option<runtime::WebSocket> {
    if methods.is_some_and(|methods| !methods.is_empty() && !methods.contains(&Method::GET)) {
        let message = "has no effect: a WebSocket begins with GET, which methods leaves out; list \"GET\" there, or \
                       remove this table";
        scope.problem(at, message);
    }
    let origins = words::each(
        scope,
        &at.key("origins"),
        &file.origins,
        |text| match text.as_str() {
            "*" => Err("\"*\" is no origin; leave origins out to let any connect".to_owned()),
            text => words::origin(text),
        },
    );
    Some(runtime::WebSocket {
        origins: origins?,
        utf8: file.utf8,
        compression: file.compression,
        frame_bytes_max: file.frame_bytes_max,
        message_bytes_max: file.message_bytes_max,
        fragments_max: file.fragments_max,
        client_messages_per_second: file.client_messages_per_second,
        client_kilobytes_per_second: file.client_kilobytes_per_second,
        upstream_messages_per_second: file.upstream_messages_per_second,
        upstream_kilobytes_per_second: file.upstream_kilobytes_per_second,
        connections_max: file.connections_max,
        idle_timeout: millis(file.idle_timeout_ms),
        lifetime: millis(file.lifetime_ms),
        ping_interval: millis(file.ping_interval_ms),
        pong_timeout: millis(file.pong_timeout_ms),
        write_timeout: millis(file.write_timeout_ms),
        close_timeout: millis(file.close_timeout_ms),
        until_credential_expires: file.until_credential_expires,
        on_switch: file.on_switch,
        on_upgrade: file.on_upgrade,
        jitter: millis(file.jitter_ms),
    })
}
