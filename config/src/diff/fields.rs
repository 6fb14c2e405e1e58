//! Each section as a list of keys and values. Every struct is taken apart without `..`, so a field that
//! is added to one cannot be forgotten here.

mod route;

use crate::check::hex;
use crate::runtime::{
    AccessLog, Admin, Cluster, Config, EndpointAddress, Gateway, Limit, Listener, Quota, Route,
};
use crate::{PluginInstance, Secret};
use sha2::{Digest, Sha256};
use std::fmt::Debug;
use std::sync::Arc;

/// Keys and values of one section.
pub(super) type Fields = Vec<(&'static str, Field)>;

/// A list of named things, and how two of them are compared.
pub(super) struct Section<T> {
    pub(super) title: &'static str,
    pub(super) all: fn(&Config) -> &[T],
    pub(super) name: fn(&T) -> &str,
    /// True where both mean the same, each in its own configuration. Cheap: it is asked for all.
    pub(super) same: fn((&Config, &T), (&Config, &T)) -> bool,
    /// Asked for those alone that are not the same.
    pub(super) fields: fn(&Config, &T) -> Fields,
}

pub(super) const LISTENERS: Section<Arc<Listener>> = Section {
    title: "listener",
    all: |config| &config.listeners,
    name: |one| &one.name,
    same: |(_, old), (_, new)| old == new,
    fields: |_, one| listener(one),
};

pub(super) const LIMITS: Section<Limit> = Section {
    title: "limit",
    all: |config| &config.limits,
    name: |one| &one.name,
    same: |(_, old), (_, new)| old == new,
    fields: |_, one| limit(one),
};

pub(super) const PLUGINS: Section<Arc<PluginInstance>> = Section {
    title: "plugin",
    all: |config| &config.plugins,
    name: |one| &one.name,
    same: |(_, old), (_, new)| old.kind == new.kind && old.built.mark == new.built.mark,
    fields: |_, one| plugin(one),
};

pub(super) const CLUSTERS: Section<Cluster> = Section {
    title: "cluster",
    all: |config| &config.clusters,
    name: |one| &one.name,
    same: |(_, old), (_, new)| old == new,
    fields: |_, one| cluster(one),
};

pub(super) const ROUTES: Section<Route> = Section {
    title: "route",
    all: |config| &config.routes,
    name: |one| &one.name,
    same: route::same,
    fields: route::fields,
};

/// One value, to compare and to show.
#[derive(PartialEq)]
pub(super) enum Field {
    Shown(String),
    Hidden(Option<Secret>),
}

impl Field {
    /// The value for people, at most 200 characters of it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Shown(text) => cut(text),
            Self::Hidden(Some(_)) => "(not shown)".into(),
            Self::Hidden(None) => "none".into(),
        }
    }
}

/// At most 200 characters.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(200) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

fn show(value: &impl Debug) -> Field {
    Field::Shown(format!("{value:?}"))
}

pub(super) fn process(config: &Config) -> Fields {
    let Config {
        gateway,
        admin,
        access_log,
        store_directory,
        tenant_labels_max,
        limiter_keys_max,
        limit_headers,
        address_limits,
        limits,
        // The sections below are compared by name, tenants by id.
        listeners: _,
        clusters: _,
        routes: _,
        tenants: _,
        directory_tenants: _,
        plugins: _,
        // A comment changes the hash, and nothing that runs.
        hash: _,
        // Which files are watched follows from the rest.
        files: _,
        // They tell of the world outside.
        warnings: _,
    } = config;
    let Gateway {
        workers,
        drain_notice,
        drain_timeout,
        upgrade_timeout,
        upgrade_grace,
        reload_on_change,
        log_level,
    } = gateway;
    let Admin {
        address,
        token,
        audit_file,
        requests_per_second,
        refusals_remembered,
    } = admin;
    let AccessLog {
        target,
        queue_lines,
        flush_interval,
    } = access_log;
    let address_limits: Vec<_> = address_limits
        .iter()
        .map(|i| limits[*i].name.as_str())
        .collect();
    vec![
        ("gateway.workers", show(workers)),
        ("gateway.drain_notice_ms", show(drain_notice)),
        ("gateway.drain_timeout_ms", show(drain_timeout)),
        ("gateway.upgrade_timeout_ms", show(upgrade_timeout)),
        ("gateway.upgrade_grace_ms", show(upgrade_grace)),
        ("gateway.reload_on_change", show(reload_on_change)),
        ("gateway.log_level", show(log_level)),
        ("admin.address", show(address)),
        ("admin.token", Field::Hidden(token.clone())),
        ("admin.audit_file", show(audit_file)),
        ("admin.requests_per_second", show(requests_per_second)),
        ("admin.refusals_remembered", show(refusals_remembered)),
        ("store.directory", show(store_directory)),
        ("access_log.target", show(target)),
        ("access_log.queue_lines", show(queue_lines)),
        ("access_log.flush_interval_ms", show(flush_interval)),
        ("metrics.tenant_labels_max", show(tenant_labels_max)),
        ("limits.keys_max", show(limiter_keys_max)),
        ("limits.headers", show(limit_headers)),
        ("limits.address", show(&address_limits)),
    ]
}

fn listener(listener: &Listener) -> Fields {
    let Listener {
        name: _,
        address,
        tls,
        proxy_protocol,
        proxy_protocol_from,
        trusted_hops,
        trusted_from,
        connections_max,
        connections_per_address_max,
        head_timeout,
        idle_timeout,
        body_timeout,
        write_timeout,
        head_bytes_max,
        uri_bytes_max,
        header_count_max,
        requests_per_connection_max,
    } = listener;
    vec![
        ("address", show(address)),
        ("tls", show(tls)),
        ("proxy_protocol", show(proxy_protocol)),
        ("proxy_protocol_from", show(proxy_protocol_from)),
        ("trusted_hops", show(trusted_hops)),
        ("trusted_from", show(trusted_from)),
        ("connections_max", show(connections_max)),
        (
            "connections_per_address_max",
            show(connections_per_address_max),
        ),
        ("head_timeout_ms", show(head_timeout)),
        ("idle_timeout_ms", show(idle_timeout)),
        ("body_timeout_ms", show(body_timeout)),
        ("write_timeout_ms", show(write_timeout)),
        ("head_bytes_max", show(head_bytes_max)),
        ("uri_bytes_max", show(uri_bytes_max)),
        ("header_count_max", show(header_count_max)),
        (
            "requests_per_connection_max",
            show(requests_per_connection_max),
        ),
    ]
}

fn limit(limit: &Limit) -> Fields {
    let Limit {
        name: _,
        by,
        quota: rate,
    } = limit;
    vec![
        ("by", show(by)),
        ("requests", Field::Shown(quota(Some(rate)))),
    ]
}

fn plugin(plugin: &PluginInstance) -> Fields {
    let mark = plugin.built.mark.clone();
    vec![
        ("kind", show(&plugin.kind)),
        ("config", Field::Hidden(Some(mark))),
    ]
}

fn cluster(cluster: &Cluster) -> Fields {
    let Cluster {
        name: _,
        active,
        blue,
        green,
        balance,
        tls,
        health,
        gate,
        connect_timeout,
        first_byte_timeout,
        idle_timeout,
        total_timeout,
        keepalive_timeout,
        connect_retries,
        schema,
    } = cluster;
    let endpoints = |all: &[crate::runtime::Endpoint]| {
        let one = |endpoint: &crate::runtime::Endpoint| match &endpoint.address {
            EndpointAddress::Tcp(address) if address.to_string() != endpoint.name => {
                format!("{} ({address})", endpoint.name)
            }
            EndpointAddress::Tcp(_) | EndpointAddress::Unix(_) => endpoint.name.clone(),
        };
        Field::Shown(all.iter().map(one).collect::<Vec<_>>().join(", "))
    };
    let tls = tls.as_ref().map(|tls| {
        let authorities = tls
            .authorities
            .as_ref()
            .map_or("the system's".to_owned(), |all| {
                let mut digest = Sha256::new();
                all.iter().for_each(|der| digest.update(der));
                format!("{} of sha256 {}", all.len(), hex(&digest.finalize()))
            });
        format!("{} by authorities {authorities}", tls.server_name)
    });
    vec![
        ("active", show(active)),
        ("endpoints.blue", endpoints(blue)),
        ("endpoints.green", endpoints(green)),
        ("balance", show(balance)),
        ("tls", Field::Shown(tls.unwrap_or_else(|| "none".into()))),
        ("health", show(health)),
        ("gate", show(gate)),
        ("connect_timeout_ms", show(connect_timeout)),
        ("first_byte_timeout_ms", show(first_byte_timeout)),
        ("idle_timeout_ms", show(idle_timeout)),
        ("total_timeout_ms", show(total_timeout)),
        ("keepalive_timeout_ms", show(keepalive_timeout)),
        ("connect_retries", show(connect_retries)),
        ("schema", show(schema)),
    ]
}

pub(super) fn quota(quota: Option<&Quota>) -> String {
    quota.map_or("unlimited".into(), |quota| {
        let Quota {
            requests,
            period,
            burst,
        } = quota;
        format!("{requests} per {period:?}, burst {burst}")
    })
}
