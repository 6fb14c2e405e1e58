//! What a bench prints and writes.

use anyhow::{Context, Result};
use serde::Serialize;
use std::path::Path;
use std::process::Command;

/// One measured figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    /// `None` where it could not be measured; `note` then says why.
    value: Option<f64>,
    unit: &'static str,
    /// The value that has to be reached.
    floor: Option<f64>,
    /// The value that is hoped for.
    goal: Option<f64>,
    better: Better,
    note: String,
    /// Printed even where the bench has a table of its own and the figure has no bound.
    #[serde(skip)]
    shown: bool,
}

/// Which direction is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    Lower,
    Higher,
}

/// All figures of one bench.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    name: &'static str,
    commit: String,
    machine: String,
    command: String,
    figures: Vec<Figure>,
    raw: serde_json::Value,
}

impl Figure {
    /// A figure without floor, goal and note. A value that is not a number counts as not measured.
    pub(crate) fn new(
        name: impl Into<String>,
        value: Option<f64>,
        unit: &'static str,
        better: Better,
    ) -> Self {
        let value = value.filter(|value| value.is_finite());
        Self {
            name: name.into(),
            value,
            unit,
            floor: None,
            goal: None,
            better,
            note: String::new(),
            shown: false,
        }
    }

    pub(crate) fn floor(mut self, floor: f64) -> Self {
        self.floor = Some(floor);
        self
    }

    pub(crate) fn goal(mut self, goal: f64) -> Self {
        self.goal = Some(goal);
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    pub(crate) fn shown(mut self) -> Self {
        self.shown = true;
        self
    }

    /// How the value stands to `bound`; `None` where either is missing.
    fn reaches(&self, bound: Option<f64>) -> Option<bool> {
        let (value, bound) = (self.value?, bound?);
        Some(match self.better {
            Better::Lower => value <= bound,
            Better::Higher => value >= bound,
        })
    }

    fn verdict(&self) -> &'static str {
        let bound = self.floor.or(self.goal);
        match (self.value, self.reaches(bound)) {
            (None, _) => "not measured",
            (_, Some(true)) => "reached",
            (_, Some(false)) => "MISSED",
            (_, None) => "",
        }
    }

    fn row(&self) -> Vec<String> {
        let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        vec![
            self.name.clone(),
            show(self.value),
            self.unit.to_owned(),
            show(self.floor),
            show(self.goal),
            self.verdict().to_owned(),
        ]
    }

    fn is_judged(&self) -> bool {
        self.shown || self.floor.is_some() || self.goal.is_some() || self.value.is_none()
    }
}

impl Report {
    /// A report of the bench `name` at this commit, on this machine.
    pub(crate) fn new(name: &'static str, figures: Vec<Figure>, raw: serde_json::Value) -> Self {
        Self {
            name,
            commit: commit(),
            machine: machine(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            figures,
            raw,
        }
    }

    /// Writes `DIR/NAME.json` and returns its path for the eye.
    pub(crate) fn write(&self, dir: &Path) -> Result<String> {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("{} cannot be created", dir.display()))?;
        let path = dir.join(format!("{}.json", self.name));
        let mut text = serde_json::to_string_pretty(self).context("the report is not JSON")?;
        text.push('\n');
        std::fs::write(&path, text)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path.display().to_string())
    }

    /// Figures that miss their floor, or were not measured though they have one, as `name value`.
    pub(crate) fn missed(&self) -> Vec<String> {
        let missed = self
            .figures
            .iter()
            .filter(|figure| figure.floor.is_some() && figure.reaches(figure.floor) != Some(true));
        missed
            .map(|figure| {
                let value = figure.value.map_or_else(|| "-".to_owned(), number);
                format!("{} {value}", figure.name)
            })
            .collect()
    }

    /// Writes the report, then prints `heading` (a table of the bench's own, or nothing) and the
    /// figures that have a bound or are to be shown anyway, last.
    pub(crate) fn finish(&self, dir: &Path, heading: &str) -> Result<()> {
        let path = self.write(dir)?;
        let judged: Vec<&Figure> = if heading.is_empty() {
            self.figures.iter().collect()
        } else {
            self.figures.iter().filter(|one| one.is_judged()).collect()
        };
        println!("\n{} at {} on {}", self.name, self.commit, self.machine);
        println!("written to {path}\n");
        print!("{heading}");
        let head = ["figure", "value", "unit", "floor", "goal", ""];
        let rows: Vec<Vec<String>> = judged.iter().map(|figure| figure.row()).collect();
        print!("{}", table(&head, &rows));
        Ok(())
    }
}

/// Lines the columns up: the first to the left, the others to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let longest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        longest.max(head.get(column).map_or(0, |cell| cell.chars().count()))
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (column, cell) in cells.enumerate() {
            let width = widths.get(column).copied().unwrap_or(0);
            if column == 0 {
                text.push_str(&format!("{cell:<width$}"));
            } else {
                text.push_str(&format!("  {cell:>width$}"));
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// A number with as many decimals as it has meaning.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The middle value, or the mean of the two in the middle; `None` of nothing. Values that are not
/// numbers are left out.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|one| one.is_finite()).collect();
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some((values[values.len() / 2 - 1] + upper) / 2.0)
}

/// The commit of the working tree, with `-dirty` if it was changed since.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    match git(&["rev-parse", "--short=12", "HEAD"]) {
        Some(hash) if git(&["status", "--porcelain"]).is_some_and(|text| text.is_empty()) => hash,
        Some(hash) => format!("{hash}-dirty"),
        None => "unknown".to_owned(),
    }
}

/// CPU, cores, memory and kernel, and how busy it was before the bench.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after_colon = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cpu = after_colon(&read("/proc/cpuinfo"), "model name");
    let memory = after_colon(&read("/proc/meminfo"), "MemTotal");
    let cores = crate::bench::all_cpus().len();
    format!(
        "{} x {}, {}, Linux {}, load {} before",
        cores,
        cpu.unwrap_or_else(|| "unknown CPU".to_owned()),
        memory.unwrap_or_else(|| "unknown memory".to_owned()),
        read("/proc/sys/kernel/osrelease").trim(),
        crate::bench::load_before(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_without_a_value_is_written_as_null_and_shown() {
        let gone = Figure::new("x", Some(f64::NAN), "ms", Better::Lower)
            .floor(5.0)
            .note("why");
        let json = serde_json::to_value(&gone).unwrap();
        assert_eq!(json["value"], serde_json::Value::Null);
        assert_eq!(json["better"], "lower");
        assert_eq!(json["note"], "why");
        assert_eq!(gone.verdict(), "not measured");
        assert!(gone.is_judged());
    }

    #[test]
    fn a_bound_itself_is_reached() {
        let figure = |value, better| Figure::new("x", Some(value), "", better).floor(2.0);
        assert_eq!(figure(2.0, Better::Lower).verdict(), "reached");
        assert_eq!(figure(2.1, Better::Lower).verdict(), "MISSED");
        assert_eq!(figure(2.0, Better::Higher).verdict(), "reached");
        assert_eq!(figure(1.9, Better::Higher).verdict(), "MISSED");
    }

    #[test]
    fn what_misses_its_floor_or_was_not_measured_is_named() {
        let figure = |name: &str, value| Figure::new(name, value, "ms", Better::Lower);
        let figures = vec![
            figure("good", Some(1.0)).floor(1.0),
            figure("free", Some(9.0)).goal(1.0),
            figure("bad", Some(2.0)).floor(1.0),
            figure("gone", None).floor(1.0),
        ];
        let report = Report::new("x", figures, serde_json::Value::Null);
        assert_eq!(report.missed(), ["bad 2", "gone -"]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_ones() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([f64::NAN, 1.0]), Some(1.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn a_report_has_the_keys_that_readers_of_reports_rely_on() {
        let dir = tempfile::tempdir().unwrap();
        let figure = Figure::new("a", Some(1.5), "us", Better::Lower).goal(1.0);
        let report = Report::new("bench", vec![figure], serde_json::json!([1]));
        report.write(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("bench.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        for key in ["name", "commit", "machine", "command", "figures", "raw"] {
            assert!(json.get(key).is_some(), "{key}");
        }
        let figure = json["figures"][0].as_object().unwrap();
        let keys: Vec<&str> = figure.keys().map(String::as_str).collect();
        let mut expected = ["name", "value", "unit", "floor", "goal", "better", "note"];
        expected.sort_unstable();
        let mut keys = keys;
        keys.sort_unstable();
        assert_eq!(keys, expected);
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["long name".to_owned(), "1".to_owned()],
            vec!["b".to_owned(), "100".to_owned()],
        ];
        assert_eq!(
            table(&["n", "v"], &rows),
            "n            v\nlong name    1\nb          100\n"
        );
    }
}
