//! One answer to a scrape, while it is put together.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder, TextEncoder};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Takes the series of everyone who has some to show, and puts those of one name together.
#[derive(Debug, Default)]
pub struct Scrape {
    families: BTreeMap<String, MetricFamily>,
}

impl Scrape {
    /// Shows a value that only grows while the series exists. Name and labels together are shown
    /// once.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        let mut counter = Counter::default();
        counter.set_value(number(value));
        let mut metric = with_labels(labels);
        metric.set_counter(counter);
        self.push(name, help, MetricType::COUNTER, metric);
    }

    /// As [`Scrape::counter`], for amounts that are no whole numbers, such as seconds.
    pub fn counter_f64(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = with_labels(labels);
        metric.set_counter(counter);
        self.push(name, help, MetricType::COUNTER, metric);
    }

    /// Shows a value that goes up and down. Name and labels together are shown once.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = with_labels(labels);
        metric.set_gauge(gauge);
        self.push(name, help, MetricType::GAUGE, metric);
    }

    /// Shows a histogram. `counts` has one number for each of `bounds` and one for what is above the
    /// last, none of them cumulative.
    pub(crate) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) {
        debug_assert_eq!(bounds.len() + 1, counts.len());
        let mut cumulative = 0;
        let buckets = bounds
            .iter()
            .zip(counts)
            .map(|(bound, count)| {
                cumulative += count;
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(cumulative);
                bucket
            })
            .collect();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(sum);
        let mut metric = with_labels(labels);
        metric.set_histogram(histogram);
        self.push(name, help, MetricType::HISTOGRAM, metric);
    }

    /// Takes a family that a `prometheus::Registry` gathered.
    pub(super) fn family(&mut self, mut family: MetricFamily) {
        match self.families.entry(family.name().to_owned()) {
            Entry::Vacant(place) => {
                place.insert(family);
            }
            Entry::Occupied(mut place) => {
                for metric in family.take_metric() {
                    place.get_mut().mut_metric().push(metric);
                }
            }
        }
    }

    /// The text format, version 0.0.4, families sorted by name.
    pub(crate) fn into_text(self) -> Vec<u8> {
        let families: Vec<_> = self.families.into_values().collect();
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .expect("a family is made with its first series, and writing to memory does not fail");
        text
    }

    fn push(&mut self, name: &str, help: &str, kind: MetricType, metric: Metric) {
        if let Some(family) = self.families.get_mut(name) {
            debug_assert_eq!(family.get_field_type(), kind, "{name} has one type");
            family.mut_metric().push(metric);
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.mut_metric().push(metric);
        self.families.insert(name.to_owned(), family);
    }
}

fn with_labels(labels: &[(&str, &str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

/// The text format knows floating point only: exact up to 2^53, and off by less than one in 10^15
/// above.
#[expect(
    clippy::cast_precision_loss,
    reason = "the format has no other numbers"
)]
fn number(value: u64) -> f64 {
    value as f64
}
