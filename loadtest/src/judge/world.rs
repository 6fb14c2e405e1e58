//! Simulated traffic: tenants of very different size, speed and error rate, and a canary among them.

use hub_stats::judge::fast::Bucket;
use hub_stats::judge::histogram::Histogram;
use hub_stats::judge::{Arm, STRATA_MAX, Split, Strata, StratumId};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

/// Requests that green gets in a second: 5 % of 1,000.
pub(super) const GREEN_PER_SECOND: u32 = 50;
const BLUE_PER_SECOND: u32 = 950;
const TENANTS: usize = 400;
/// Mean share of failures on blue.
const SHARE: f64 = 0.001;
/// Median latency of the median tenant, in microseconds.
const LATENCY: f64 = 30_000.0;
/// Spread of latency: between tenants, and between requests of one; of the logarithm.
const SIGMA_TENANTS: f64 = 0.5;
const SIGMA_REQUESTS: f64 = 0.5;
/// The same of error rates between tenants.
const SIGMA_SHARES: f64 = 1.0;
/// Requests a second from which a tenant has a stratum of its own.
const OWN_STRATUM: f64 = 5.0;
/// Places of a table from which tenants and latencies are drawn, by 12 bits.
const PLACES: usize = 4_096;
/// Mean number of errors of a burst.
const BURST: f64 = 3.0;

/// One kind of deployment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) green: Green,
    pub(super) split: Split,
    pub(super) trouble: Trouble,
    pub(super) seconds: u32,
}

/// What green does differently.
#[derive(Clone, Copy, Debug)]
pub(super) enum Green {
    Same,
    /// This share of its requests fail, where blue would have failed a thousandth.
    Fails(f64),
    /// Every request takes so many times as long.
    Slower(f64),
    /// A share of requests take so many times its tenant's p99 on blue.
    Tail {
        share: f64,
        times: f64,
    },
    /// Every request takes longer than the one before.
    Grows {
        millis_per_100: f64,
    },
}

/// What both colours suffer from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// Errors come in groups.
    Bursts,
    /// For 20 s, 2 % more of the requests fail, and all take half as long again.
    Outage,
}

/// The tenants of one deployment, and what they did in the last second.
#[derive(Debug)]
pub(super) struct World {
    case: Case,
    strata: Strata,
    tenants: Vec<Tenant>,
    green: Vec<u16>,
    stay: Vec<u16>,
    latencies: Vec<f32>,
    /// Times the errors that blue makes, for green.
    times: f64,
    second: u32,
    before: u32,
    phase: f64,
    green_requests: u32,
    last: Second,
}

#[derive(Clone, Copy, Debug)]
struct Tenant {
    share: f64,
    micros: f32,
    stratum: StratumId,
}

/// What happened in one second, by stratum and arm, and by colour.
#[derive(Debug)]
pub(super) struct Second {
    groups: Vec<Group>,
    /// Where the group of a stratum and arm is.
    places: [[Option<usize>; 3]; STRATA_MAX],
    buckets: [Bucket; 2],
    /// Sum of latencies in microseconds, green and blue.
    micros: [f64; 2],
}

/// Requests of one stratum and arm.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) stratum: StratumId,
    pub(super) arm: Arm,
    pub(super) requests: u32,
    pub(super) failed: u32,
    pub(super) latency: Histogram,
}

// === impl Case ===

impl Case {
    /// Two colours that are the same, for 5,000 requests on green.
    pub(super) const fn new(name: &'static str) -> Self {
        Self {
            name,
            green: Green::Same,
            split: Split::Tenants,
            trouble: Trouble::None,
            seconds: 100,
        }
    }

    /// Seconds in which blue alone is watched: as many as the judges keep, or enough for references.
    pub(super) fn before_seconds(&self) -> u32 {
        match self.split {
            Split::Tenants => 256,
            Split::Requests => 60,
        }
    }
}

// === impl World ===

impl World {
    pub(super) fn new(case: &Case, rng: &mut SmallRng) -> Self {
        let mut weights: Vec<f64> = (1..=TENANTS).map(|rank| 1.0 / rank as f64).collect();
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= total);
        let all = f64::from(GREEN_PER_SECOND + BLUE_PER_SECOND);
        // Traffic of a thousand seconds before the deployment.
        let traffic = weights.iter().map(|weight| (weight * all * 1e3) as u64);
        let strata = Strata::choose((0_u64..).zip(traffic), (OWN_STRATUM * 1e3) as u64, 1);
        let mut tenants: Vec<Tenant> = (0_u64..TENANTS as u64)
            .map(|tenant| Tenant {
                share: (SIGMA_SHARES * normal(rng.random())).exp(),
                micros: (LATENCY * (SIGMA_TENANTS * normal(rng.random())).exp()) as f32,
                stratum: strata.of(tenant, 0),
            })
            .collect();
        let shares = weights
            .iter()
            .zip(&tenants)
            .map(|(weight, one)| weight * one.share);
        let mean: f64 = shares.sum();
        tenants.iter_mut().for_each(|one| one.share *= SHARE / mean);

        let everyone: Vec<usize> = (0..TENANTS).collect();
        let (green, stay) = match case.split {
            Split::Requests => (everyone.clone(), everyone),
            Split::Tenants => ring(&weights, f64::from(GREEN_PER_SECOND) / all, rng),
        };
        normalise(&mut tenants, &weights, &(0..TENANTS).collect::<Vec<_>>());
        let times = match case.green {
            Green::Fails(wanted) => {
                // From a thousandth on blue to what is wanted on green, for the same tenants.
                normalise(&mut tenants, &weights, &green);
                wanted / SHARE
            }
            Green::Same | Green::Slower(_) | Green::Tail { .. } | Green::Grows { .. } => 1.0,
        };
        Self {
            case: *case,
            green: places(&green, &weights),
            stay: places(&stay, &weights),
            latencies: (0..PLACES)
                .map(|place| (place as f64 + 0.5) / PLACES as f64)
                .map(|q| (SIGMA_REQUESTS * normal(q)).exp() as f32)
                .collect(),
            times,
            second: 0,
            before: 0,
            phase: rng.random(),
            green_requests: 0,
            last: Second::empty(),
            strata,
            tenants,
        }
    }

    pub(super) fn strata(&self) -> usize {
        self.strata.len()
    }

    /// A second before the deployment: blue answers for everyone.
    pub(super) fn before(&mut self, rng: &mut SmallRng) -> &Second {
        self.last.clear();
        self.before += 1;
        let requests = match self.case.split {
            Split::Tenants => GREEN_PER_SECOND,
            Split::Requests => BLUE_PER_SECOND,
        };
        self.draw(Arm::Before, requests, rng);
        // Of those that stay the last minute has to do.
        if self.case.split == Split::Tenants && self.before + 60 > self.case.before_seconds() {
            self.draw(Arm::Beside, BLUE_PER_SECOND, rng);
        }
        &self.last
    }

    /// The next second of the deployment.
    pub(super) fn next(&mut self, rng: &mut SmallRng) -> &Second {
        self.last.clear();
        self.second += 1;
        self.draw(Arm::Green, GREEN_PER_SECOND, rng);
        let blue = match self.case.split {
            Split::Tenants => Arm::Beside,
            Split::Requests => Arm::Before,
        };
        self.draw(blue, BLUE_PER_SECOND, rng);
        self.last.close();
        &self.last
    }

    fn draw(&mut self, arm: Arm, requests: u32, rng: &mut SmallRng) {
        let outage = self.case.trouble == Trouble::Outage && (40..60).contains(&self.second);
        let bursts = self.case.trouble == Trouble::Bursts;
        let on_green = arm == Arm::Green;
        // Load comes and goes, for both colours alike.
        let angle = f64::from(self.before + self.second) / 300.0 + self.phase;
        let mut slower = 1.0 + 0.1 * (angle * std::f64::consts::TAU).sin();
        let (mut times, mut more) = (if on_green { self.times } else { 1.0 }, 0.0);
        if bursts {
            times /= BURST;
        }
        if outage {
            slower *= 1.5;
            more = 0.02;
        }
        if let (Green::Slower(by), true) = (self.case.green, on_green) {
            slower *= by;
        }
        // The p99 of a tenant, over its median.
        let p99 = (SIGMA_REQUESTS * 2.326).exp();
        let colour = usize::from(!on_green);
        let places = match arm {
            Arm::Beside => &self.stay,
            Arm::Green | Arm::Before => &self.green,
        };
        for _ in 0..requests {
            let bits: u64 = rng.random();
            let tenant = self.tenants[usize::from(places[bits as usize % PLACES])];
            let place = (bits >> 12) as usize % PLACES;
            let mut micros = f64::from(tenant.micros * self.latencies[place]) * slower;
            if on_green {
                self.green_requests += 1;
                match self.case.green {
                    Green::Tail { share, times } if rng.random_bool(share) => {
                        micros = f64::from(tenant.micros) * slower * p99 * times;
                    }
                    Green::Grows { millis_per_100 } => {
                        micros += f64::from(self.green_requests) * millis_per_100 * 10.0;
                    }
                    Green::Same | Green::Fails(_) | Green::Slower(_) | Green::Tail { .. } => {}
                }
            }
            let chance = (tenant.share * times + more).min(1.0);
            let failed = ((bits >> 32) as f64) < chance * 4_294_967_296.0;
            self.last.add(colour, tenant.stratum, arm, micros, failed);
            if failed && bursts {
                while rng.random_bool(1.0 - 1.0 / BURST) {
                    self.last.add(colour, tenant.stratum, arm, micros, true);
                }
            }
        }
    }
}

/// Tenants in random order until green has its share, and those that stay.
fn ring(weights: &[f64], share: f64, rng: &mut SmallRng) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.shuffle(rng);
    let mut left = share;
    order.into_iter().partition(|&tenant| {
        let fits = weights[tenant] <= left;
        if fits {
            left -= weights[tenant];
        }
        fits
    })
}

/// Makes [`SHARE`] the share of failures of these tenants together.
fn normalise(tenants: &mut [Tenant], weights: &[f64], these: &[usize]) {
    let weight: f64 = these.iter().map(|&one| weights[one]).sum();
    let failed: f64 = these
        .iter()
        .map(|&one| weights[one] * tenants[one].share)
        .sum();
    for &one in these {
        tenants[one].share *= SHARE * weight / failed;
    }
}

/// A table in which each tenant has places by its weight.
fn places(tenants: &[usize], weights: &[f64]) -> Vec<u16> {
    let total: f64 = tenants.iter().map(|&tenant| weights[tenant]).sum();
    let mut places = Vec::with_capacity(PLACES);
    let mut sum = 0.0;
    for &tenant in tenants {
        sum += weights[tenant] / total;
        let until = ((sum * PLACES as f64).round() as usize).min(PLACES);
        places.resize(until.max(places.len()), tenant as u16);
    }
    let last = tenants.last().copied().unwrap_or(0);
    places.resize(PLACES, last as u16);
    places
}

/// The quantile of the normal distribution (Abramowitz and Stegun, 26.2.23; to 0.00045).
fn normal(q: f64) -> f64 {
    let tail = q.min(1.0 - q).max(1e-9);
    let t = (-2.0 * tail.ln()).sqrt();
    let top = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let bottom = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    (t - top / bottom).copysign(q - 0.5)
}

// === impl Second ===

impl Second {
    fn empty() -> Self {
        Self {
            groups: Vec::new(),
            places: [[None; 3]; STRATA_MAX],
            buckets: [Bucket::default(), Bucket::default()],
            micros: [0.0; 2],
        }
    }

    fn clear(&mut self) {
        self.groups.clear();
        self.places = [[None; 3]; STRATA_MAX];
        self.buckets = [Bucket::default(), Bucket::default()];
        self.micros = [0.0; 2];
    }

    fn add(&mut self, colour: usize, stratum: StratumId, arm: Arm, micros: f64, failed: bool) {
        // Those that stay are compared as one.
        let stratum = match arm {
            Arm::Beside => StratumId::POOL,
            Arm::Green | Arm::Before => stratum,
        };
        let place = &mut self.places[stratum.index()][arm as usize];
        let number = *place.get_or_insert_with(|| {
            self.groups.push(Group {
                stratum,
                arm,
                requests: 0,
                failed: 0,
                latency: Histogram::default(),
            });
            self.groups.len() - 1
        });
        let group = &mut self.groups[number];
        group.requests += 1;
        group.failed += u32::from(failed);
        group.latency.record_micros(micros as u64);
        self.micros[colour] += micros;
    }

    /// Adds the groups up.
    fn close(&mut self) {
        for group in &self.groups {
            let bucket = &mut self.buckets[usize::from(group.arm != Arm::Green)];
            bucket.requests += u64::from(group.requests);
            bucket.server_errors += u64::from(group.failed);
            bucket.latency.merge(&group.latency);
        }
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Green's and blue's.
    pub(super) fn buckets(&self) -> [&Bucket; 2] {
        let [green, blue] = &self.buckets;
        [green, blue]
    }

    /// Failures in percent and mean latency in milliseconds, of green and of blue.
    pub(super) fn metrics(&self) -> [[f64; 2]; 2] {
        [0, 1].map(|colour| {
            let requests = self.buckets[colour].requests.max(1) as f64;
            let failed = self.buckets[colour].server_errors as f64;
            [
                failed / requests * 100.0,
                self.micros[colour] / requests / 1e3,
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn normal_is_the_normal_quantile() {
        for (q, z) in [(0.5, 0.0), (0.975, 1.96), (0.01, -2.326), (0.999, 3.09)] {
            assert!((normal(q) - z).abs() < 1e-3, "{q}: {}", normal(q));
        }
    }

    #[test]
    fn blue_fails_a_thousandth_and_green_what_the_case_says() {
        let mut rng = SmallRng::seed_from_u64(2);
        let case = Case {
            green: Green::Fails(0.01),
            ..Case::new("x")
        };
        let (mut green, mut blue) = ((0, 0), (0, 0));
        for _ in 0..20 {
            let mut world = World::new(&case, &mut rng);
            for _ in 0..100 {
                let [of_green, of_blue] = world.next(&mut rng).buckets();
                assert_eq!(of_green.requests, u64::from(GREEN_PER_SECOND));
                green = (
                    green.0 + of_green.requests,
                    green.1 + of_green.server_errors,
                );
                blue = (blue.0 + of_blue.requests, blue.1 + of_blue.server_errors);
            }
        }
        let share = |(requests, failed): (u64, u64)| failed as f64 / requests as f64;
        assert!((share(green) - 0.01).abs() < 0.001, "{green:?}");
        assert!((share(blue) - 0.001).abs() < 0.0001, "{blue:?}");
    }
}
