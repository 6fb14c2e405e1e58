//! Samples, percentiles, and the report that every bench of this repository writes.

use serde_json::{Value, json};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Calls in one sample: few enough that slow calls show, enough that reading the clock does not.
const CALLS: usize = 16;

/// Nanoseconds per call, each the mean of [`CALLS`] calls; sorted.
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Times `count` samples after a tenth as many for warming up. `call` gets the call's number plus a
    /// zero that depends on what the call before returned, so that calls cannot overlap in the processor:
    /// what is measured is how long a caller waits.
    pub(crate) fn take(count: usize, mut call: impl FnMut(usize) -> usize) -> Self {
        let nothing = black_box(0_usize);
        let mut last = 0;
        let mut nanos = Vec::with_capacity(count);
        for sample in 0..count + count / 10 {
            let start = Instant::now();
            for number in sample * CALLS..(sample + 1) * CALLS {
                last = call(number + (last & nothing));
            }
            let elapsed = start.elapsed();
            if sample >= count / 10 {
                nanos.push(elapsed.as_secs_f64() * 1e9 / CALLS as f64);
            }
        }
        black_box(last);
        nanos.sort_unstable_by(f64::total_cmp);
        Self(nanos)
    }

    /// The value that the share `at` of all samples does not exceed; 0 to 1.
    pub(crate) fn percentile(&self, at: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * at).round() as usize]
    }

    /// What is kept beside the figures.
    pub(crate) fn raw(&self) -> Value {
        let percentiles = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999].map(|at| {
            let name = format!("p{}", at * 100.0);
            json!({"name": name, "nanoseconds": self.percentile(at)})
        });
        json!({"samples": self.0.len(), "calls_per_sample": CALLS, "percentiles": percentiles})
    }
}

/// One line of a report; less is better in all of these.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) floor: Option<f64>,
    pub(crate) note: String,
}

/// True under `cargo bench`; false where `cargo test` only wants to see that benches run.
pub(crate) fn is_measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Writes `target/reports/NAME.json` and prints the table.
pub(crate) fn write(name: &str, figures: &[Figure], raw: Value) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/reports");
    let path = directory.join(format!("{name}.json"));
    let report = json!({
        "name": name,
        "commit": commit(),
        "machine": machine(),
        "command": format!("cargo bench -p hub-gateway --bench {name}"),
        "figures": figures.iter().map(Figure::json).collect::<Vec<_>>(),
        "raw": raw,
    });
    let written = std::fs::create_dir_all(&directory)
        .and_then(|()| std::fs::write(&path, format!("{report:#}\n")));
    if let Err(error) = written {
        panic!("{} cannot be written: {error}", path.display());
    }
    println!(
        "\n{:<44} {:>12} {:>5}  {:>8}",
        "figure", "value", "unit", "floor"
    );
    for figure in figures {
        let floor = figure
            .floor
            .map_or_else(|| "-".to_owned(), |floor| floor.to_string());
        println!(
            "{:<44} {:>12.1} {:>5}  {floor:>8}{}",
            figure.name,
            figure.value,
            figure.unit,
            match figure.floor {
                Some(floor) if figure.value > floor => "  MISSED",
                Some(_) | None => "",
            }
        );
    }
    println!("written to target/reports/{name}.json");
}

impl Figure {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "floor": self.floor,
            "goal": null,
            "better": "lower",
            "note": self.note,
        })
    }
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    match (
        git(&["rev-parse", "--short=12", "HEAD"]),
        git(&["status", "--porcelain"]),
    ) {
        (Some(hash), Some(changes)) if changes.is_empty() => hash,
        (Some(hash), _) => format!("{hash}-dirty"),
        (None, _) => "unknown".to_owned(),
    }
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} x {model}")
}
