//! Requests as a browser of the product would send them.

use crate::origin;
use hub_testkit::load::{Ask, Body, spread};

/// Tenants of the comparison.
pub(crate) const TENANTS: u64 = 1_000;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Seven ordinary headers; `Host` and the tenant make nine.
const HEADERS: &str = "Host: hub.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n\
    Accept: application/json, text/plain, */*\r\n\
    Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: https://hub.example/contacts\r\n\
    Cookie: session=5f2c1f0a9b7e4d3c8a6b5e4f3d2c1b0a; theme=dark\r\n\
    Cache-Control: no-cache\r\n";

/// Tenant number `number`: 20 characters, as location ids are. The same on every run.
pub(crate) fn tenant_id(number: u64) -> String {
    let mut bits = (u128::from(spread(number)) << 64) | u128::from(spread(number ^ (1 << 63)));
    let mut id = String::with_capacity(20);
    for _ in 0..20 {
        let at = usize::try_from(bits % 62).unwrap_or(0);
        id.push(char::from(ALPHABET[at]));
        bits /= 62;
    }
    id
}

/// `tenant_id` of 0 to `count`.
pub(crate) fn tenant_ids(count: u64) -> Vec<String> {
    (0..count).map(tenant_id).collect()
}

/// The whole text of a request.
pub(crate) fn request(path: &str, tenant: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{HEADERS}X-Location-Id: {tenant}\r\n{more}\r\n")
}

/// Appends a request for `path` by `tenant`.
pub(crate) fn write_request(path: &str, tenant: &str, out: &mut Vec<u8>) {
    for part in [
        "GET ",
        path,
        " HTTP/1.1\r\n",
        HEADERS,
        "X-Location-Id: ",
        tenant,
        "\r\n\r\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// What a good answer from the origin looks like.
pub(crate) fn expect_origin(class: u16) -> Ask {
    Ask {
        class,
        status: 200,
        body: Body::Exact(origin::BODY),
    }
}

/// A generator: one of `tenants` drawn evenly, and one path. The draw depends on the request's
/// number alone.
pub(crate) fn any_tenant(
    tenants: Vec<String>,
) -> impl Fn(u64, &mut Vec<u8>) -> Ask + Send + Sync + 'static {
    move |number, out| {
        let at = usize::try_from(spread(number)).unwrap_or(0) % tenants.len();
        write_request("/api/v1/contacts?page=3&sort=name", &tenants[at], out);
        expect_origin(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tenant_ids_are_unique_well_formed_and_the_same_on_every_run() {
        let ids: HashSet<String> = tenant_ids(100_000).into_iter().collect();
        assert_eq!(ids.len(), 100_000);
        assert!(ids.iter().all(|id| id.len() == 20));
        assert!(
            ids.iter()
                .all(|id| id.bytes().all(|b| b.is_ascii_alphanumeric()))
        );
        assert_eq!(tenant_id(7), tenant_id(7));
    }

    #[test]
    fn both_ways_to_write_a_request_agree() {
        let mut bytes = Vec::new();
        write_request("/a", "t", &mut bytes);
        assert_eq!(String::from_utf8(bytes).unwrap(), request("/a", "t", ""));
    }

    #[test]
    fn every_tenant_is_drawn() {
        let next = any_tenant(tenant_ids(TENANTS));
        let mut seen = HashSet::new();
        for number in 0..20_000 {
            let mut bytes = Vec::new();
            next(number, &mut bytes);
            seen.insert(bytes);
        }
        assert_eq!(seen.len(), 1_000);
    }
}
