//! What reading one head costs: a browser's ten headers, a short one, and one that needs every slow
//! path.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hub_core::HeaderField;
use hub_gateway::front::head::{HeadLimits, parse};
use std::hint::black_box;

const LIMITS: HeadLimits = HeadLimits {
    head_bytes_max: 32_768,
    uri_bytes_max: 8_192,
    header_count_max: 100,
};

const BROWSER: &[u8] =
    b"GET /locations/ve9EPM428h8vShlRW1KT/contacts?limit=20&query=smith HTTP/1.1\r\n\
    Host: acme.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: application/json, text/plain, */*\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.sig\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef; theme=dark\r\n\
    Referer: https://acme.example.com/contacts\r\n\
    X-Location-Id: ve9EPM428h8vShlRW1KT\r\n\r\n";

const SHORT: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

const SLOW: &[u8] =
    b"POST /a/%2e/b%20c//d HTTP/1.1\r\nHost: Acme.Example.COM:443\r\nmy_header: a\r\n\
    Transfer-Encoding: chunked\r\nConnection: keep-alive, x\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    for (name, bytes) in [("browser", BROWSER), ("short", SHORT), ("slow_paths", SLOW)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| parse(black_box(bytes), &LIMITS));
        });
    }
    group.bench_function("browser_with_its_fields", |bencher| {
        let mut fields: Vec<HeaderField<'_>> = Vec::with_capacity(128);
        bencher.iter(|| {
            let head = parse(black_box(BROWSER), &LIMITS)
                .expect("well formed")
                .expect("complete");
            fields.clear();
            fields.extend(head.fields(BROWSER));
            black_box((head.host(BROWSER), head.path(BROWSER), fields.len()));
        });
    });
    group.finish();
}

criterion_group!(benches, heads);
criterion_main!(benches);
