use super::{BASE, examples, load, problems};
use crate::Problems;
use crate::testing::{FakeCatalog, no_env};
use proptest::prelude::*;

/// One mistake: what is appended to or replaced in [`BASE`], and the line, key path and message that
/// must come of it.
struct Case {
    text: String,
    line: usize,
    at: &'static str,
    message: &'static str,
}

/// `text` is appended to [`BASE`], which has 11 lines with the first one empty.
fn after(text: &str, line: usize, at: &'static str, message: &'static str) -> Case {
    Case {
        text: format!("{BASE}{text}\n"),
        line,
        at,
        message,
    }
}

/// `old` in [`BASE`] becomes `new`.
fn with(old: &str, new: &str, line: usize, at: &'static str, message: &'static str) -> Case {
    assert!(BASE.contains(old), "{old}");
    Case {
        text: BASE.replace(old, new),
        line,
        at,
        message,
    }
}

fn listener(new: &str, at: &'static str, message: &'static str) -> Case {
    with("address = \"127.0.0.1:8080\"", new, 4, at, message)
}

fn endpoint(new: &str, message: &'static str) -> Case {
    with(
        "127.0.0.1:9001",
        new,
        7,
        r#"cluster "app".endpoints.blue[0]"#,
        message,
    )
}

fn cluster(new: &str, at: &'static str, message: &'static str) -> Case {
    with(
        "endpoints = {",
        &format!("{new}\nendpoints = {{"),
        7,
        at,
        message,
    )
}

fn gate(new: &str, key: &str, message: &'static str) -> Case {
    let at = format!("cluster \"app\".gate.requests[0].{key}");
    cluster(
        &format!("gate = {{ requests = [{{ name = \"a\", {new} }}] }}"),
        String::leak(at),
        message,
    )
}

const STORE: &str = "store = { directory = \"/tmp/hub\" }\n";

/// A schema that is right but for one thing.
fn schema(inner: &str, store: &str, at: &'static str, message: &'static str) -> Case {
    let range = if inner.contains("blue =") || inner.contains("from_health") {
        ""
    } else {
        ", blue = { min = 1, max = 1 }"
    };
    let line = format!("schema = {{ {inner}{range} }}");
    let mut case = cluster(&line, at, message);
    case.text = format!("{store}{}", case.text);
    case.line += store.lines().count();
    case
}

fn route(new: &str, at: &'static str, message: &'static str) -> Case {
    after(new, 12, at, message)
}

fn path(new: &str, at: &'static str, message: &'static str) -> Case {
    with("{ prefix = \"/\" }", new, 10, at, message)
}

fn plugin(new: &str, at: &'static str, message: &'static str) -> Case {
    after(&format!("[[plugin]]\nname = \"p\"\n{new}"), 14, at, message)
}

fn limit(new: &str, at: &'static str, message: &'static str) -> Case {
    after(
        &format!("[[limit]]\nname = \"l\"\nrequests = 5\n{new}"),
        15,
        at,
        message,
    )
}

fn tenant(new: &str, at: &'static str, message: &'static str) -> Case {
    after(&format!("[[tenant]]\nid = \"t\"\n{new}"), 14, at, message)
}

const ADDRESS: &str = "address = \"127.0.0.1:8080\"";

// A table reads best with one row a line.
#[rustfmt::skip]
fn front() -> Vec<Case> {
    let with_address = |text: &str| format!("{text}\n{ADDRESS}");
    let number = |key: &str, value: &str| with_address(&format!("{key} = {value}"));
    vec![
        listener("adress = \"127.0.0.1:8080\"", r#"listener "http".adress"#, "did you mean \"address\"?"),
        listener("", r#"listener "http".address"#, "is missing; it takes text").on(2),
        listener("address = \"localhost:8080\"", r#"listener "http".address"#, "no literal address"),
        listener("address = \"127.0.0.1\"", r#"listener "http".address"#, "has no port"),
        listener("address = 8080", r#"listener "http".address"#, "takes text in quotes, found the number 8080"),
        listener(&number("trusted_hops", "1"), r#"listener "http".trusted_from"#, "list the networks").on(2),
        listener(&number("trusted_from", "[\"10.0.0.0/8\"]"), r#"listener "http".trusted_from"#, "has no effect while trusted_hops is 0"),
        listener(&number("trusted_hops", "1\ntrusted_from = [\"10.0.0.1/8\"]"), r#"listener "http".trusted_from[0]"#, "write 10.0.0.0/8").on(5),
        listener(&number("trusted_hops", "11"), r#"listener "http".trusted_hops"#, "from 0 to 10"),
        listener(&number("head_timeout_ms", "99"), r#"listener "http".head_timeout_ms"#, "from 100 to 120000"),
        listener(&number("head_timeout_ms", "-1"), r#"listener "http".head_timeout_ms"#, "-1 is out of range"),
        listener(&number("connections_max", "0"), r#"listener "http".connections_max"#, "from 1 to 1000000"),
        listener(&number("header_count_max", "129"), r#"listener "http".header_count_max"#, "from 1 to 128"),
        listener(&number("head_bytes_max", "1.5"), r#"listener "http".head_bytes_max"#, "found the number 1.5"),
        listener(&number("idle_timeout_ms", "\"1s\""), r#"listener "http".idle_timeout_ms"#, "a whole number from 100 to 3600000, found text"),
        listener(&number("idle_timeout_ms", "99999999999999999999"), r#"listener "http".idle_timeout_ms"#, "too large"),
        listener(&number("idle_timeout_ms", "2024-01-01"), r#"listener "http".idle_timeout_ms"#, "is a date"),
        listener(&number("idle_timeout_ms", "nan"), r#"listener "http".idle_timeout_ms"#, "no ordinary number"),
        listener(&number("uri_bytes_max", "40000"), r#"listener "http".uri_bytes_max"#, "more than head_bytes_max"),
        listener(&number("proxy_protocol", "\"on\""), r#"listener "http".proxy_protocol"#, r#"known: "off", "optional", "required""#),
        listener(&number("proxy_protocol", "\"required\""), r#"listener "http".proxy_protocol_from"#, "list the networks").on(2),
        listener(&number("proxy_protocol_from", "[\"10.0.0.0/8\"]"), r#"listener "http".proxy_protocol_from"#, "has no effect"),
        listener(&number("proxy_protocol", "\"optional\"\nproxy_protocol_from = [\"10.0.0.1/8\"]"), r#"listener "http".proxy_protocol_from[0]"#, "write 10.0.0.0/8").on(5),
        listener(&number("tls", "{ certificates = [] }"), r#"listener "http".tls.certificates"#, "at least one"),
        listener(&number("tls", "{ certificates = [{ certificate_file = \"tls/none.pem\", key_file = \"tls/key.pem\" }] }"), r#"listener "http".tls.certificates[0].certificate_file"#, "does not exist"),
        listener(&number("tls", "{ certificates = [{ certificate_file = \"tls/key.pem\", key_file = \"tls/key.pem\" }] }"), r#"listener "http".tls.certificates[0].certificate_file"#, "holds no certificate"),
        listener(&number("tls", "{ certificates = [{ certificate_file = \"tls/certificate.pem\", key_file = \"tls/certificate.pem\" }] }"), r#"listener "http".tls.certificates[0].key_file"#, "holds no private key"),
        listener(&number("tls", "{ certificates = [{ certificate_file = \"tls\", key_file = \"tls/key.pem\" }] }"), r#"listener "http".tls.certificates[0].certificate_file"#, "not a regular file"),
        listener(&number("tls", "true"), r#"listener "http".tls"#, "takes a table, found true"),
        with("name = \"http\"", "name = \"HTTP\"", 3, r#"listener "HTTP".name"#, "write 1 to 64 of a-z 0-9 _ -"),
        with("name = \"http\"", "", 2, "listener[0].name", "\"name\" is missing"),
        after("[[listener]]\nname = \"http\"\naddress = \"127.0.0.1:81\"", 13, r#"listener "http".name"#, "taken by the listener on line 3"),
        after("[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:8080\"", 14, r#"listener "b".address"#, "in use by listener \"http\""),
        after("[[listener]]\nname = \"b\"\naddress = \"0.0.0.0:9900\"", 14, r#"listener "b".address"#, "in use by the admin API"),
    ]
}

// A table reads best with one row a line.
#[rustfmt::skip]
fn process() -> Vec<Case> {
    vec![
        after("[gateway]\nworkers = 257", 13, "gateway.workers", "from 0 to 256"),
        after("[gateway]\nlog_level = \"warning\"", 13, "gateway.log_level", "did you mean \"warn\"?"),
        after("[gatway]\nworkers = 1", 12, "gatway", "did you mean \"gateway\"?"),
        after("[admin]\naddress = \"0.0.0.0:1\"", 13, "admin.address", "is not loopback"),
        after("[admin]\naddress = \"unix:\"", 13, "admin.address", "needs a path"),
        after("[admin]\ntoken_env = \"NONE_SUCH\"", 13, "admin.token_env", "\"NONE_SUCH\" is not set"),
        after("[admin]\ntoken_file = \"none\"", 13, "admin.token_file", "does not exist"),
        after("[admin]\ntoken_file = \"minimal.toml\"", 13, "admin.token_file", "white space"),
        after("[admin]\ntoken_file = \"a\"\ntoken_env = \"B\"", 14, "admin.token_env", "exactly one"),
        after("[admin]\naudit_file = \"no-folder/audit.log\"", 13, "admin.audit_file", "make it first"),
        after("[access_log]\ntarget = \"\"", 13, "access_log.target", "is empty"),
        after("[access_log]\ntarget = \"tls\"", 13, "access_log.target", "is a folder"),
        after("[access_log]\nqueue_lines = 63", 13, "access_log.queue_lines", "from 64 to 1048576"),
        after("[metrics]\ntenant_labels_max = 10001", 13, "metrics.tenant_labels_max", "from 0 to 10000"),
        after("[limits]\nkeys_max = 1", 13, "limits.keys_max", "from 1024 to 16777216"),
        after("[limits]\naddress = [\"none\"]", 13, "limits.address[0]", "no limit is named \"none\"; none is configured"),
        after("[limits]\naddress = [\"l\"]\n[[limit]]\nname = \"l\"\nby = \"tenant\"\nrequests = 1", 13, "limits.address[0]", "must have by = \"address\""),
        after("[limits]\nheaders = \"yes\"", 13, "limits.headers", "takes true or false, found text"),
        limit("by = \"addres\"", r#"limit "l".by"#, "did you mean \"address\"?"),
        limit("by = \"header:\"", r#"limit "l".by"#, "no header name"),
        limit("by = \"route\"\nburst = 0", r#"limit "l".burst"#, "from 1 to 1000000000").on(16),
        limit("by = \"route\"\nper_ms = 0", r#"limit "l".per_ms"#, "from 1 to 86400000").on(16),
        after("[[limit]]\nname = \"l\"\nby = \"route\"", 12, r#"limit "l".requests"#, "it takes a whole number"),
        after("listener = 5", 12, r#"route "all".listener"#, "unknown key"),
    ]
}

// A table reads best with one row a line.
#[rustfmt::skip]
fn upstream() -> Vec<Case> {
    vec![
        endpoint("127.0.0.1", "has no port"),
        endpoint("127.0.0.1:0", "port from 1 to 65535"),
        endpoint("127.0.0.1:70000", "port from 1 to 65535"),
        endpoint("::1:80", "write IPv6 as"),
        endpoint("http://app:80", "is a URL"),
        endpoint("unix:", "needs a path"),
        endpoint("no-such.internal:80", "cannot be looked up"),
        endpoint("empty.internal:80", "has no address"),
        endpoint("metadata.internal:80", "leads to 169.254.169.254"),
        endpoint("0.0.0.0:80", "allow_link_local = true"),
        endpoint("[fe80::1]:80", "allow_link_local = true"),
        endpoint("[::ffff:169.254.169.254]:80", "allow_link_local = true"),
        endpoint("[fd00:ec2::254]:80", "allow_link_local = true"),
        with("[\"127.0.0.1:9001\"]", "[\"127.0.0.1:1\", \"127.0.0.1:1\"]", 7, r#"cluster "app".endpoints.blue[1]"#, "same address as \"127.0.0.1:1\""),
        with("[\"127.0.0.1:9001\"]", "[]", 7, r#"cluster "app".endpoints.blue"#, "active colour and has no endpoint"),
        cluster("active = \"green\"", r#"cluster "app".endpoints.green"#, "set active to the other colour").on(8),
        cluster("active = \"gren\"", r#"cluster "app".active"#, "did you mean \"green\"?"),
        cluster("balance = \"random\"", r#"cluster "app".balance"#, r#"known: "peak_ewma", "round_robin""#),
        cluster("first_byte_timeout_ms = 60001", r#"cluster "app".first_byte_timeout_ms"#, "raise idle_timeout_ms"),
        cluster("idle_timeout_ms = 29999", r#"cluster "app".first_byte_timeout_ms"#, "30000 is more than idle_timeout_ms (29999)").on(5),
        cluster("connect_retries = 2", r#"cluster "app".connect_retries"#, "from 0 to 1"),
        cluster("tls = { server_name = \"\" }", r#"cluster "app".tls.server_name"#, "turn verification off"),
        cluster("tls = { server_name = \"a b\" }", r#"cluster "app".tls.server_name"#, "no host name"),
        cluster("tls = { server_name = \"a\", ca_file = \"tls/key.pem\" }", r#"cluster "app".tls.ca_file"#, "holds no certificate"),
        cluster("tls = { server_name = \"a\", ca_file = \"\" }", r#"cluster "app".tls.ca_file"#, "is empty"),
        cluster("health = { status = 99 }", r#"cluster "app".health.status"#, "from 100 to 599"),
        cluster("health = { interval_ms = 100, timeout_ms = 200 }", r#"cluster "app".health.timeout_ms"#, "more than interval_ms"),
        cluster("health = { kind = \"http\", path = \"x\" }", r#"cluster "app".health.path"#, "does not start with"),
        schema("scopes = [\"app\"]", "", r#"cluster "app".schema"#, "set store.directory"),
        schema("scopes = []", STORE, r#"cluster "app".schema.scopes"#, "give 1 to 256"),
        schema("scopes = [\"a\", \"a\"]", STORE, r#"cluster "app".schema.scopes[1]"#, "there twice"),
        schema("scopes = [\"\"]", STORE, r#"cluster "app".schema.scopes[0]"#, "no name of a database"),
        schema("scopes = [\"a\"], blue = { min = 0, max = 1 }", STORE, r#"cluster "app".schema.blue.min"#, "from 1 to 9999"),
        schema("scopes = [\"a\"], blue = { min = 3, max = 2 }", STORE, r#"cluster "app".schema.blue.max"#, "less than min (3)"),
        schema("scopes = [\"a\"], from_health = true", STORE, r#"cluster "app".schema.from_health"#, "set health.kind"),
        cluster("health = { kind = \"http\", host = \"a b\" }", r#"cluster "app".health.host"#, "no host name"),
        cluster("health = { kind = \"http\", body_contains = \"\" }", r#"cluster "app".health.body_contains"#, "is empty"),
        cluster("gate = { warm_connections = 65 }", r#"cluster "app".gate.warm_connections"#, "from 0 to 64"),
        gate("path = \"x\"", "path", "does not start with"),
        gate("path = \"/\", method = \"get\"", "method", "write \"GET\""),
        gate("path = \"/\", tenant = \"a b\"", "tenant", "a b"),
        gate("path = \"/\", host = \"a b\"", "host", "no host name"),
        gate("path = \"/\", status = 101", "status", "from 200 to 599"),
        gate("path = \"/\", headers = [{ name = \"Host\", value = \"a\" }]", "headers[0].name", "not for a gate to set"),
        gate("path = \"/\", headers = [{ name = \"x\", value = \" a\" }]", "headers[0].value", "no header's value"),
        gate("path = \"/\", body_contains = \"\"", "body_contains", "is empty"),
        gate("path = \"/\", body_sha256 = \"00\"", "body_sha256", "64 hexadecimal digits"),
        gate("path = \"/\", latency_ms_max = 0", "latency_ms_max", "from 1 to 60000"),
        cluster("gate = { requests = [{ name = \"A\", path = \"/\" }] }", r#"cluster "app".gate.requests[0].name"#, "is no name"),
        cluster("gate = { requests = [{ name = \"a\", path = \"/\" }, { name = \"a\", path = \"/\" }] }", r#"cluster "app".gate.requests[1].name"#, "is taken"),
    ]
}

// A table reads best with one row a line.
#[rustfmt::skip]
fn routes() -> Vec<Case> {
    vec![
        with("cluster = \"app\"", "cluster = \"ap\"", 11, r#"route "all".cluster"#, "no cluster is named \"ap\"; did you mean \"app\"?"),
        with("cluster = \"app\"", "", 8, r#"route "all".cluster"#, "is missing"),
        route("hosts = [\"*\"]", r#"route "all".hosts[0]"#, "leave hosts out"),
        route("hosts = [\"a.*.com\"]", r#"route "all".hosts[0]"#, "wildcard in the wrong place"),
        route("hosts = [\"*.*.com\"]", r#"route "all".hosts[0]"#, "wildcard in the wrong place"),
        route("hosts = [\"a.com:80\"]", r#"route "all".hosts[0]"#, "has a port"),
        route("hosts = [\"https://a.com\"]", r#"route "all".hosts[0]"#, "is a URL"),
        route("hosts = [\"a.com.\"]", r#"route "all".hosts[0]"#, "ends with a dot"),
        route("hosts = [\"bücher.de\"]", r#"route "all".hosts[0]"#, "xn--"),
        route("hosts = [\"a..b\"]", r#"route "all".hosts[0]"#, "no host name"),
        route("hosts = [\"\"]", r#"route "all".hosts[0]"#, "is empty"),
        route("hosts = [\"a.b\", \"A.B\"]", r#"route "all".hosts[1]"#, "listed twice"),
        route("hosts = \"a.b\"", r#"route "all".hosts"#, "takes a list [...], found text"),
        path("{ prefix = \"api\" }", r#"route "all".path.prefix"#, "does not start with"),
        path("{ prefix = \"/api/\" }", r#"route "all".path.prefix"#, "write \"/api\""),
        path("{ exact = \"/a/../b\" }", r#"route "all".path.exact"#, "\"..\" segment"),
        path("{ exact = \"/a%2Fb\" }", r#"route "all".path.exact"#, "%2F is refused"),
        path("{ exact = \"/a?b\" }", r#"route "all".path.exact"#, "match the path alone"),
        path("{ exact = \"/{a}\" }", r#"route "all".path.exact"#, "path = { template"),
        path("{ template = \"/a\" }", r#"route "all".path.template"#, "has no {name}"),
        path("{ template = \"/{a}/{a}\" }", r#"route "all".path.template"#, "two segments named \"a\""),
        path("{ template = \"/{*a}/b\" }", r#"route "all".path.template"#, "put it last"),
        path("{ template = \"/{A}\" }", r#"route "all".path.template"#, "no segment name"),
        path("{ template = \"/x{a}\" }", r#"route "all".path.template"#, "mixes text and braces"),
        path("{ template = \"/{a}//b\" }", r#"route "all".path.template"#, "empty segment"),
        path("{ regex = \"/\" }", r#"route "all".path.regex"#, r#"known: "exact", "prefix", "template""#),
        path("{ prefix = \"/\", exact = \"/\" }", r#"route "all".path"#, "exactly one of"),
        path("\"/\"", r#"route "all".path"#, "with one key of"),
        path("\"prefix\"", r#"route "all".path"#, "needs a value"),
        route("methods = [\"get\"]", r#"route "all".methods[0]"#, "write \"GET\""),
        route("methods = [\"CONNECT\"]", r#"route "all".methods[0]"#, "refused by every listener"),
        route("methods = [\"G T\"]", r#"route "all".methods[0]"#, "is no method"),
        route("headers = [{ name = \"x y\" }]", r#"route "all".headers[0].name"#, "no header name"),
        route("headers = [{ name = \"Host\" }]", r#"route "all".headers[0].name"#, "write it in hosts"),
        route("headers = [{ name = \"a\" }, { name = \"A\" }]", r#"route "all".headers[1].name"#, "condition already"),
        route("headers = [{ name = \"a\", value = \" b\" }]", r#"route "all".headers[0].value"#, "no header's value"),
        route("plugins = [\"none\"]", r#"route "all".plugins[0]"#, "no plugin is named"),
        route("limits = [\"none\"]", r#"route "all".limits[0]"#, "no limit is named"),
        route("limits = [\"l\"]\n[[limit]]\nname = \"l\"\nby = \"tenant\"\nrequests = 1", r#"route "all".limits[0]"#, "the route has no tenant"),
        route("limits = [\"l\"]\n[[limit]]\nname = \"l\"\nby = \"identity\"\nrequests = 1", r#"route "all".limits[0]"#, "no plugin that identifies"),
        route("limits = [\"l\", \"l\"]\n[[limit]]\nname = \"l\"\nby = \"route\"\nrequests = 1", r#"route "all".limits[1]"#, "listed twice"),
        route("body_bytes_max = 1099511627777", r#"route "all".body_bytes_max"#, "to 1099511627776"),
        route("cors_origins = [\"example.com\"]", r#"route "all".cors_origins[0]"#, "is no origin"),
        route("cors_origins = [\"https://example.com/\"]", r#"route "all".cors_origins[0]"#, "without a path"),
        route("cors_origins = [\"*\", \"https://a.com\"]", r#"route "all".cors_origins"#, "keep one or the other"),
        route("tenant.sources = []", r#"route "all".tenant.sources"#, "at least one"),
        route("tenant.sources = [\"credentials\"]", r#"route "all".tenant.sources[0]"#, "did you mean \"credential\"?"),
        route("tenant.sources = [\"credential\"]", r#"route "all".tenant.sources[0]"#, "needs a plugin that identifies"),
        route("tenant = { sources = [{ query = \"t\" }], from_credential = true }", r#"route "all".tenant.from_credential"#, "needs a plugin that identifies"),
        route("tenant.sources = [{ header = \"Host\" }]", r#"route "all".tenant.sources[0]"#, "hop-by-hop or set by the gateway"),
        route("tenant.sources = [{ header = \"X-Forwarded-Host\" }]", r#"route "all".tenant.sources[0]"#, "choose another header"),
        route("tenant.sources = [{ header = \"Proxy-Authorization\" }]", r#"route "all".tenant.sources[0]"#, "choose another header"),
        route("tenant.sources = [{ path = \"id\" }]", r#"route "all".tenant.sources[0]"#, "write path = { template"),
        route("tenant.sources = [{ subdomain = \"*.a.com\" }]", r#"route "all".tenant.sources[0]"#, "wildcard"),
        route("tenant.sources = [{ subdomain = \"10.0.0.1\" }]", r#"route "all".tenant.sources[0]"#, "is an address"),
        route("tenant.sources = [{ query = \"a b\" }]", r#"route "all".tenant.sources[0]"#, "no parameter name"),
        route("tenant.sources = [{ query = \"t\" }, { query = \"t\" }]", r#"route "all".tenant.sources[1]"#, "listed twice"),
        route("tenant.sources = [5]", r#"route "all".tenant.sources[0]"#, "found the number 5"),
        route("tenant = {}", r#"route "all".tenant.sources"#, "is missing; it takes a list"),
        after("[[route]]\nname = \"twin\"\npath = { prefix = \"/\" }\ncluster = \"app\"", 12, r#"route "twin""#, "what route \"all\" on line 8 matches"),
    ]
}

// A table reads best with one row a line.
#[rustfmt::skip]
fn websockets() -> Vec<Case> {
    let key = |line: &str, at: &'static str, message: &'static str| {
        after(&format!("[route.websocket]\n{line}"), 13, at, message)
    };
    vec![
        route("websocket = true", r#"route "all".websocket"#, "takes a table, found true; write [route.websocket] below the other keys instead"),
        route("websocket = false", r#"route "all".websocket"#, "takes a table, found false; leave it out instead"),
        route("websocket = \"on\"", r#"route "all".websocket"#, "takes a table, found text"),
        route("methods = [\"POST\"]\nwebsocket = {}", r#"route "all".websocket"#, "a WebSocket begins with GET, which methods leaves out").on(13),
        key("frame_bytes = 1", r#"route "all".websocket.frame_bytes"#, "did you mean \"frame_bytes_max\"?"),
        key("origins = [\"app.example.com\"]", r#"route "all".websocket.origins[0]"#, "is no origin"),
        key("origins = [\"https://app.example.com/\"]", r#"route "all".websocket.origins[0]"#, "without a path"),
        key("origins = [\"https://App.example.com\"]", r#"route "all".websocket.origins[0]"#, "in lower case"),
        key("origins = [\"*\"]", r#"route "all".websocket.origins[0]"#, "leave origins out to let any connect"),
        key("origins = [\"http://a.b\", \"http://a.b\"]", r#"route "all".websocket.origins[1]"#, "listed twice"),
        key("utf8 = 1", r#"route "all".websocket.utf8"#, "takes true or false"),
        key("compression = \"deflate\"", r#"route "all".websocket.compression"#, r#"known: "pass", "refuse""#),
        key("frame_bytes_max = 0", r#"route "all".websocket.frame_bytes_max"#, "from 1 to 1073741824"),
        key("message_bytes_max = 1099511627777", r#"route "all".websocket.message_bytes_max"#, "from 1 to 1099511627776"),
        key("fragments_max = 1000001", r#"route "all".websocket.fragments_max"#, "from 1 to 1000000"),
        key("client_messages_per_second = 0", r#"route "all".websocket.client_messages_per_second"#, "from 1 to 1000000"),
        key("client_kilobytes_per_second = 0", r#"route "all".websocket.client_kilobytes_per_second"#, "from 1 to 1000000"),
        key("upstream_messages_per_second = 0", r#"route "all".websocket.upstream_messages_per_second"#, "from 1 to 1000000"),
        key("upstream_kilobytes_per_second = 0", r#"route "all".websocket.upstream_kilobytes_per_second"#, "from 1 to 1000000"),
        key("connections_max = 0", r#"route "all".websocket.connections_max"#, "from 1 to 1000000"),
        key("idle_timeout_ms = 86400001", r#"route "all".websocket.idle_timeout_ms"#, "from 0 to 86400000"),
        key("lifetime_ms = 86400001", r#"route "all".websocket.lifetime_ms"#, "from 0 to 86400000"),
        key("ping_interval_ms = 86400001", r#"route "all".websocket.ping_interval_ms"#, "from 0 to 86400000"),
        key("pong_timeout_ms = 0", r#"route "all".websocket.pong_timeout_ms"#, "from 1 to 86400000"),
        key("write_timeout_ms = 0", r#"route "all".websocket.write_timeout_ms"#, "from 1 to 86400000"),
        key("close_timeout_ms = 0", r#"route "all".websocket.close_timeout_ms"#, "from 1 to 86400000"),
        key("on_switch = \"migrate\"", r#"route "all".websocket.on_switch"#, r#"known: "cut", "drain", "pin""#),
        key("on_upgrade = \"pin\"", r#"route "all".websocket.on_upgrade"#, r#"known: "drain", "keep""#),
        key("jitter_ms = 3600001", r#"route "all".websocket.jitter_ms"#, "from 0 to 3600000"),
    ]
}

// A table reads best with one row a line.
#[rustfmt::skip]
fn plugins_and_tenants() -> Vec<Case> {
    vec![
        plugin("kind = \"jtw\"", r#"plugin "p".kind"#, "did you mean \"jwt\"?"),
        plugin("kind = \"jwt\"\nconfig.bad = [\"keys[0].algorithm\"]\nconfig.keys = [{ algorithm = 1 }]", r#"plugin "p".config.keys[0].algorithm"#, "the plugin does not like this").on(16),
        plugin("kind = \"jwt\"\nconfig.bad = [\"\"]", r#"plugin "p".config"#, "the plugin does not like this").on(15),
        tenant("slug = \"Acme\"", r#"tenant "t".slug"#, "a slug is"),
        tenant("requests_per_second = 0", r#"tenant "t".requests_per_second"#, "from 1 to 1000000000"),
        tenant("websockets_max = 0", r#"tenant "t".websockets_max"#, "from 1 to 1000000"),
        tenant("colours = true", r#"tenant "t".colours"#, "write [tenant.colours] below the other keys instead"),
        tenant("burst = 5", r#"tenant "t".burst"#, "add requests_per_second"),
        tenant("colours = { ap = \"blue\" }", r#"tenant "t".colours.ap"#, "did you mean \"app\"?"),
        tenant("colours = { app = \"green\" }", r#"tenant "t".colours.app"#, "no endpoint of this colour"),
        tenant("colours = { app = \"red\" }", r#"tenant "t".colours.app"#, "known: \"blue\", \"green\""),
        tenant("routes = { none = \"app\" }", r#"tenant "t".routes.none"#, "no route is named"),
        tenant("routes = { all = \"none\" }", r#"tenant "t".routes.all"#, "no cluster is named"),
        after("[[tenant]]\nid = \"a b\"", 13, r#"tenant "a b".id"#, "A-Z a-z 0-9 _ - only"),
        after("[[tenant]]\nid = \"a\"\n[[tenant]]\nid = \"a\"", 15, r#"tenant "a".id"#, "taken by the tenant on line 12"),
        after("[[tenant]]\nid = \"a\"\nslug = \"s\"\n[[tenant]]\nid = \"b\"\nslug = \"s\"", 17, r#"tenant "b".slug"#, "taken by the tenant on line 12"),
        after("[tenants]\ndirectory = \"none.jsonl\"", 13, "tenants.directory", "does not exist"),
        after("[tenants]\ndefault_websockets_max = 1000001", 13, "tenants.default_websockets_max", "from 1 to 1000000"),
        after("[tenants]\ndefault_burst = 0", 13, "tenants.default_burst", "from 1 to 1000000000"),
    ]
}

impl Case {
    fn on(mut self, line: usize) -> Self {
        self.line = line;
        self
    }
}

fn cases() -> Vec<Case> {
    [
        front(),
        process(),
        upstream(),
        routes(),
        websockets(),
        plugins_and_tenants(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn every_mistake_is_told_once_with_its_line_path_and_advice() {
    let cases = cases();
    assert!(cases.len() >= 60);
    let mut failures = String::new();
    for case in &cases {
        let problems = problems(&case.text);
        let told = match &problems[..] {
            [one] => {
                one.line == Some(case.line)
                    && one.at == case.at
                    && one.message.contains(case.message)
            }
            _ => false,
        };
        if !told {
            failures += &format!(
                "wanted line {} {}: {}\ngot {problems:#?}\n\n",
                case.line, case.at, case.message
            );
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn one_run_shows_every_mistake_of_shape_and_meaning() {
    let text = r#"
unknown = 1
[gateway]
workers = "many"
[[listener]]
name = "http"
address = "nowhere"
head_timeout_ms = 1
[[cluster]]
name = "app"
endpoints = { blue = ["1.2.3.4"] }
[[route]]
name = "a"
path = { prefix = "a" }
cluster = "none"
[[route]]
name = "a"
cluster = "app"
"#;
    let found: Vec<_> = problems(text)
        .iter()
        .map(|problem| (problem.line.unwrap(), problem.at.clone()))
        .collect();
    let expected = [
        (2, "unknown"),
        (4, "gateway.workers"),
        (7, r#"listener "http".address"#),
        (8, r#"listener "http".head_timeout_ms"#),
        (11, r#"cluster "app".endpoints.blue[0]"#),
        (14, r#"route "a".path.prefix"#),
        (15, r#"route "a".cluster"#),
        (16, r#"route "a".path"#),
        (17, r#"route "a".name"#),
    ];
    let expected: Vec<_> = expected.map(|(line, at)| (line, at.to_owned())).into();
    assert_eq!(found, expected);
}

#[test]
fn an_empty_file_says_what_is_needed() {
    let messages: Vec<_> = problems("")
        .into_iter()
        .map(|problem| problem.message)
        .collect();
    for wanted in ["no listener", "no cluster", "no route"] {
        assert!(
            messages.iter().any(|message| message.contains(wanted)),
            "{messages:?}"
        );
    }
    assert_eq!(messages.len(), 3);
}

#[test]
fn what_is_not_toml_is_told_with_every_line() {
    let problems = problems("a = \nb = 1\nc = = 2\n");
    let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [Some(1), Some(3)], "{problems:?}");
    assert!(problems[0].message.starts_with("is not TOML"));
}

#[test]
fn a_missing_configuration_is_a_problem_too() {
    let problems = crate::load(&examples().join("none.toml"), &FakeCatalog, &no_env).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(
        problems.to_string().contains("none.toml\n  does not exist"),
        "{problems}"
    );
    assert!(problems.to_string().ends_with("\n1 problem"));
}

#[test]
fn a_configuration_that_is_not_utf8_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, b"a = 1\n\xff").unwrap();
    let problems = crate::load(&path, &FakeCatalog, &no_env).unwrap_err();
    assert!(
        problems.to_string().contains("not UTF-8 (line 2)"),
        "{problems}"
    );
}

#[test]
fn a_weak_token_is_refused_without_being_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "hunter2\n").unwrap();
    let text = format!("{BASE}[admin]\ntoken_file = \"token\"\n");
    let problems = super::load_in(folder.path(), &text)
        .unwrap_err()
        .to_string();
    assert!(problems.contains("7 characters"), "{problems}");
    assert!(!problems.contains("hunter2"), "{problems}");
}

#[test]
fn a_flood_of_mistakes_is_cut_and_counted() {
    let mut text = BASE.to_owned();
    for i in 0..1_500 {
        text += &format!("[[limit]]\nname = \"l{i}\"\nby = \"nobody\"\nrequests = 1\n");
    }
    let problems = load(&text).unwrap_err();
    assert_eq!(problems.iter().len(), Problems::SHOWN_MAX);
    assert_eq!(problems.len(), 1_500);
    assert!(
        problems
            .to_string()
            .ends_with("... and 500 more that are not shown\n\n1500 problems")
    );
}

#[test]
fn problems_are_sorted_by_line() {
    let text = format!("{}hosts = [\"\"]\n", BASE.replace(":8080", ""));
    let lines: Vec<_> = problems(&text).iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [Some(4), Some(12)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Lines and bytes of a good file, cut, doubled, swapped and overwritten.
    #[test]
    fn no_mutation_of_a_good_file_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..6, any::<char>()), 1..12)
    ) {
        let folder = examples();
        let mut text = std::fs::read_to_string(folder.join("full.toml")).unwrap();
        for (index, kind, insert) in edits {
            let at = index.index(text.len() + 1);
            let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let line_end = text[at..].find('\n').map_or(text.len(), |end| at + end);
            match kind {
                0 => text.insert(at, insert),
                1 => text.replace_range(at..line_end, ""),
                2 => text.insert_str(at, "-9"),
                3 => {
                    let line = text[at..line_end].to_owned();
                    text.insert_str(line_end, &format!("\n{line}"));
                }
                4 => text.insert_str(at, "\"\n"),
                _ => {
                    if let Some(next) = text[at..].chars().next() {
                        text.replace_range(at..at + next.len_utf8(), "x");
                    }
                }
            }
        }
        if let Err(problems) = super::load(&text) {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.to_string().contains("problem"));
        }
    }
}

#[test]
fn what_stands_in_the_place_of_a_secrets_name_or_path_is_not_repeated() {
    for key in ["token_env", "token_file"] {
        let text = format!("{BASE}[admin]\n{key} = \"s3cr3t-in-the-wrong-place\"\n");
        let problems = format!("{:?}", problems(&text));
        assert!(problems.contains(&format!("admin.{key}")), "{problems}");
        assert!(!problems.contains("s3cr3t"), "{problems}");
    }
}
