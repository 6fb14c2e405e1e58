//! The contestants of the comparison: how each is configured, started and proven to do its job.

use crate::bench::{self, Origin, Scratch, fetch};
use crate::origin::BODY;
use crate::software::{Launch, Software, fill};
use crate::workload::{request, tenant_id, tenant_ids};
use anyhow::{Context, Result, bail, ensure};
use hub_testkit::load::FullAnswer;
use hub_testkit::process::Guard;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What it has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Forward.
    Plain,
    /// Tenant, rate limit, in-flight cap, request id, X-Forwarded-For, JSON access log.
    SameJob,
}

/// One line of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contestant {
    pub(crate) software: Software,
    pub(crate) shape: Shape,
}

/// Limits of the same job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Requests a second of one tenant.
    pub(crate) rate: u32,
    /// Requests of one tenant at once.
    pub(crate) burst: u32,
    /// Requests of one tenant in flight.
    pub(crate) in_flight: u32,
}

impl Limits {
    /// So high that the bench never reaches them: they are evaluated and let everything pass.
    pub(crate) const WIDE: Self = Self {
        rate: 1_000_000,
        burst: 1_000_000,
        in_flight: 1_000,
    };
}

/// A contestant that serves.
#[derive(Debug)]
pub(crate) struct Serving {
    guard: Guard,
    pub(crate) address: SocketAddr,
    /// Its access log, if it writes one.
    pub(crate) log: Option<PathBuf>,
}

/// Everyone, in the order of the table.
pub(crate) const ALL: [Contestant; 7] = [
    Contestant::of(Software::Hub, Shape::SameJob),
    Contestant::of(Software::Nginx, Shape::SameJob),
    Contestant::of(Software::Haproxy, Shape::SameJob),
    Contestant::of(Software::Hub, Shape::Plain),
    Contestant::of(Software::Bare, Shape::Plain),
    Contestant::of(Software::Nginx, Shape::Plain),
    Contestant::of(Software::Haproxy, Shape::Plain),
];

// === impl Contestant ===

impl Contestant {
    pub(crate) const fn of(software: Software, shape: Shape) -> Self {
        Self { software, shape }
    }

    /// As figures name it.
    pub(crate) fn name(self) -> &'static str {
        match (self.software, self.shape) {
            (Software::Hub, Shape::Plain) => "hub_plain",
            (Software::Hub, Shape::SameJob) => "hub_same_job",
            (Software::Bare, _) => "bare_pingora_plain",
            (Software::Nginx, Shape::Plain) => "nginx_plain",
            (Software::Nginx, Shape::SameJob) => "nginx_same_job",
            (Software::Haproxy, Shape::Plain) => "haproxy_plain",
            (Software::Haproxy, Shape::SameJob) => "haproxy_same_job",
        }
    }

    fn template(self) -> Option<&'static str> {
        match (self.software, self.shape) {
            (Software::Hub, Shape::Plain) => Some(include_str!("../peers/hub/plain.toml.in")),
            (Software::Hub, Shape::SameJob) => Some(include_str!("../peers/hub/same_job.toml.in")),
            (Software::Nginx, Shape::Plain) => Some(include_str!("../peers/nginx/plain.conf.in")),
            (Software::Nginx, Shape::SameJob) => {
                Some(include_str!("../peers/nginx/same_job.conf.in"))
            }
            (Software::Haproxy, Shape::Plain) => {
                Some(include_str!("../peers/haproxy/plain.cfg.in"))
            }
            (Software::Haproxy, Shape::SameJob) => {
                Some(include_str!("../peers/haproxy/same_job.cfg.in"))
            }
            (Software::Bare, _) => None,
        }
    }

    /// The list of tenants in the form that this software reads.
    fn tenant_list(self) -> String {
        let line = |id: String| match self.software {
            Software::Hub | Software::Bare => format!("{{\"id\":\"{id}\"}}\n"),
            Software::Nginx => format!("\"{id}\" \"{id}\";\n"),
            Software::Haproxy => format!("{id}\n"),
        };
        tenant_ids(crate::workload::TENANTS)
            .into_iter()
            .map(line)
            .collect()
    }

    /// Its configuration file; `listen` is unknown to the gateway, which takes a free port itself.
    fn config(
        self,
        scratch: &Scratch,
        origin: SocketAddr,
        listen: SocketAddr,
        limits: Limits,
    ) -> Result<Option<String>> {
        let Some(template) = self.template() else {
            return Ok(None);
        };
        let values = [
            ("DIR", scratch.text("")),
            ("ORIGIN", origin.to_string()),
            ("LISTEN", listen.to_string()),
            ("TENANTS", scratch.text(&self.file("tenants"))),
            ("LOG", scratch.text(&self.file("log"))),
            ("RATE", limits.rate.to_string()),
            ("BURST", limits.burst.to_string()),
            ("IN_FLIGHT", limits.in_flight.to_string()),
        ];
        fill(template, &values).map(Some)
    }

    fn file(self, ending: &str) -> String {
        format!("{}.{ending}", self.name())
    }

    /// Starts it on the server's CPU and waits until it answers.
    pub(crate) async fn start(
        self,
        bin_dir: &Path,
        scratch: &Scratch,
        origin: &Origin,
        limits: Limits,
    ) -> Result<Serving> {
        let listen = bench::free_address()?;
        let config = self.config(scratch, origin.address, listen, limits)?;
        let config = scratch.write(&self.file("conf"), config.as_deref().unwrap_or_default())?;
        scratch.write(&self.file("tenants"), &self.tenant_list())?;
        let own_log = scratch.path(&self.file("log"));
        if own_log.exists() {
            std::fs::remove_file(&own_log).context("an old access log cannot be removed")?;
        }
        let launch = Launch {
            bin_dir,
            scratch,
            name: self.name(),
            config: &config,
            listen,
            origin: origin.address,
        };
        let (guard, address) = self.software.start(&launch).await?;
        let log = match (self.software, self.shape) {
            (Software::Bare, _) | (_, Shape::Plain) => None,
            (Software::Haproxy, Shape::SameJob) => Some(launch.output()),
            (Software::Hub | Software::Nginx, Shape::SameJob) => Some(own_log),
        };
        Ok(Serving {
            guard,
            address,
            log,
        })
    }

    /// Asks a few requests by hand: a contestant that does not do the job is not measured.
    pub(crate) async fn check(self, address: SocketAddr) -> Result<()> {
        let name = self.name();
        let tenant = tenant_id(1);
        let close = "Connection: close\r\n";
        let good = fetch(address, &request("/", &tenant, close)).await?;
        ensure!(
            good.status == 200 && good.body == BODY,
            "{name} answered {} {}",
            good.status,
            good.text()
        );
        if self.shape == Shape::Plain {
            return Ok(());
        }
        let unknown = fetch(address, &request("/", "nobody", close)).await?;
        ensure!(
            unknown.status == 404,
            "{name} answered an unknown tenant with {}",
            unknown.status
        );
        let spoofed = "X-Forwarded-For: 203.0.113.9\r\nX-Request-Id: mine\r\nConnection: close\r\n";
        let first = fetch(address, &request("/__echo", &tenant, spoofed)).await?;
        let second = fetch(address, &request("/__echo", &tenant, spoofed)).await?;
        let forwarded = echoed(&first, "x-forwarded-for");
        ensure!(
            forwarded == ["127.0.0.1"],
            "{name} sent X-Forwarded-For {forwarded:?} upstream"
        );
        let up = echoed(&first, "x-request-id");
        let down: Vec<&str> = first.header_all("x-request-id").collect();
        ensure!(
            up.len() == 1 && down == up && up[0].len() >= 16,
            "{name} sent request ids {up:?} upstream and {down:?} back"
        );
        ensure!(
            echoed(&second, "x-request-id") != up,
            "{name} gave two requests one id"
        );
        Ok(())
    }

    /// Starts it with limits that are easily reached and proves that it keeps them.
    pub(crate) async fn prove_limits(
        self,
        bin_dir: &Path,
        scratch: &Scratch,
        origin: &Origin,
    ) -> Result<()> {
        let name = self.name();
        let narrow = Limits {
            rate: 5,
            burst: 5,
            in_flight: 1_000,
        };
        let serving = self.start(bin_dir, scratch, origin, narrow).await?;
        let mut limited = 0;
        for _ in 0..40 {
            let text = request("/", &tenant_id(2), "Connection: close\r\n");
            match fetch(serving.address, &text).await?.status {
                200 => {}
                429 => limited += 1,
                other => bail!("{name} answered {other} where a rate limit was expected"),
            }
        }
        let text = request("/", &tenant_id(3), "Connection: close\r\n");
        let other_tenant = fetch(serving.address, &text).await?.status;
        serving.end().await?;
        ensure!(
            limited >= 20 && other_tenant == 200,
            "{name} limited {limited} of 40 requests at 5 a second, and answered another tenant {other_tenant}"
        );

        let one = Limits {
            in_flight: 1,
            ..Limits::WIDE
        };
        let serving = self.start(bin_dir, scratch, origin, one).await?;
        let text = request("/__hold/300", &tenant_id(2), "Connection: close\r\n");
        let (first, second) =
            tokio::join!(fetch(serving.address, &text), fetch(serving.address, &text));
        serving.end().await?;
        let mut statuses = [first?.status, second?.status];
        statuses.sort_unstable();
        ensure!(
            statuses[0] == 200 && matches!(statuses[1], 429 | 503),
            "{name} let two requests in flight where one is allowed: {statuses:?}"
        );
        Ok(())
    }
}

/// Values of the header `name` (lower case) in the head that the origin sent back.
fn echoed(answer: &FullAnswer, name: &str) -> Vec<String> {
    let text = answer.text();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

// === impl Serving ===

impl Serving {
    pub(crate) fn pid(&self) -> u32 {
        self.guard.pid()
    }

    pub(crate) async fn end(self) -> Result<()> {
        bench::end(self.guard).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_filled_completely() {
        let scratch = Scratch::new().unwrap();
        let origin = "127.0.0.1:81".parse().unwrap();
        let listen = "127.0.0.1:82".parse().unwrap();
        for contestant in ALL {
            let config = contestant.config(&scratch, origin, listen, Limits::WIDE);
            let Some(config) = config.unwrap() else {
                assert_eq!(contestant.software, Software::Bare);
                continue;
            };
            assert!(config.contains("127.0.0.1:81"), "{}", contestant.name());
            assert!(!config.contains('@'), "{}", contestant.name());
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = ALL.iter().map(|one| one.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
