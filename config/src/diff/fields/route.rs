//! `[[route]]`.

use super::{Field, Fields, show};
use crate::runtime::{Config, HostPattern, PathPattern, Route, Segment, WebSocket};

pub(super) fn fields(config: &Config, route: &Route) -> Fields {
    let Route {
        name: _,
        hosts,
        path,
        methods,
        headers,
        cluster,
        tenant,
        plugins,
        limits,
        body_bytes_max,
        websocket,
        retry_other_colour,
        cors,
    } = route;
    let hosts: Vec<_> = hosts
        .iter()
        .map(|host| match host {
            HostPattern::Exact(host) => host.clone(),
            HostPattern::Wildcard(suffix) => format!("*{suffix}"),
        })
        .collect();
    let plugins: Vec<_> = plugins.iter().map(|plugin| &*plugin.name).collect();
    let limits: Vec<_> = limits
        .iter()
        .map(|i| config.limits[*i].name.as_str())
        .collect();
    let mut fields = vec![
        ("hosts", show(&hosts)),
        ("path", Field::Shown(pattern(path))),
        ("methods", show(methods)),
        ("headers", show(headers)),
        (
            "cluster",
            Field::Shown(config.clusters[*cluster].name.clone()),
        ),
        ("tenant", show(tenant)),
        ("plugins", show(&plugins)),
        ("limits", show(&limits)),
        ("body_bytes_max", show(body_bytes_max)),
        ("retry_other_colour", show(retry_other_colour)),
        ("cors_origins", show(cors)),
        ("websocket", show(&websocket.is_some())),
    ];
    // Last, since they may be missing on one side: then the table as a whole is told, and none of its keys.
    fields.extend(websocket.iter().flat_map(|table| websocket_fields(table)));
    fields
}

fn websocket_fields(websocket: &WebSocket) -> Fields {
    let WebSocket {
        origins,
        utf8,
        compression,
        frame_bytes_max,
        message_bytes_max,
        fragments_max,
        client_messages_per_second,
        client_kilobytes_per_second,
        upstream_messages_per_second,
        upstream_kilobytes_per_second,
        connections_max,
        idle_timeout,
        lifetime,
        ping_interval,
        pong_timeout,
        write_timeout,
        close_timeout,
        until_credential_expires,
        on_switch,
        on_upgrade,
        jitter,
    } = websocket;
    vec![
        ("websocket.origins", show(origins)),
        ("websocket.utf8", show(utf8)),
        ("websocket.compression", show(compression)),
        ("websocket.frame_bytes_max", show(frame_bytes_max)),
        ("websocket.message_bytes_max", show(message_bytes_max)),
        ("websocket.fragments_max", show(fragments_max)),
        (
            "websocket.client_messages_per_second",
            show(client_messages_per_second),
        ),
        (
            "websocket.client_kilobytes_per_second",
            show(client_kilobytes_per_second),
        ),
        (
            "websocket.upstream_messages_per_second",
            show(upstream_messages_per_second),
        ),
        (
            "websocket.upstream_kilobytes_per_second",
            show(upstream_kilobytes_per_second),
        ),
        ("websocket.connections_max", show(connections_max)),
        ("websocket.idle_timeout_ms", show(idle_timeout)),
        ("websocket.lifetime_ms", show(lifetime)),
        ("websocket.ping_interval_ms", show(ping_interval)),
        ("websocket.pong_timeout_ms", show(pong_timeout)),
        ("websocket.write_timeout_ms", show(write_timeout)),
        ("websocket.close_timeout_ms", show(close_timeout)),
        (
            "websocket.until_credential_expires",
            show(until_credential_expires),
        ),
        ("websocket.on_switch", show(on_switch)),
        ("websocket.on_upgrade", show(on_upgrade)),
        ("websocket.jitter_ms", show(jitter)),
    ]
}

pub(super) fn same(
    (old_config, old): (&Config, &Route),
    (new_config, new): (&Config, &Route),
) -> bool {
    let Route {
        name: _,
        hosts,
        path,
        methods,
        headers,
        cluster,
        tenant,
        plugins,
        limits,
        body_bytes_max,
        websocket,
        retry_other_colour,
        cors,
    } = old;
    *hosts == new.hosts
        && *path == new.path
        && *methods == new.methods
        && *headers == new.headers
        && old_config.clusters[*cluster].name == new_config.clusters[new.cluster].name
        && *tenant == new.tenant
        && plugins
            .iter()
            .map(|one| &one.name)
            .eq(new.plugins.iter().map(|one| &one.name))
        && limits
            .iter()
            .map(|index| &old_config.limits[*index].name)
            .eq(new
                .limits
                .iter()
                .map(|index| &new_config.limits[*index].name))
        && *body_bytes_max == new.body_bytes_max
        && *websocket == new.websocket
        && *retry_other_colour == new.retry_other_colour
        && *cors == new.cors
}

fn pattern(path: &PathPattern) -> String {
    match path {
        PathPattern::Prefix(path) => format!("prefix {path}"),
        PathPattern::Exact(path) => format!("exact {path}"),
        PathPattern::Template(segments) => {
            segments
                .iter()
                .fold("template ".to_owned(), |text, one| match one {
                    Segment::Literal(literal) => format!("{text}/{literal}"),
                    Segment::One(name) => format!("{text}/{{{name}}}"),
                    Segment::Rest(name) => format!("{text}/{{*{name}}}"),
                })
        }
    }
}
