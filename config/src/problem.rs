//! Mistakes in a configuration, all of one run.

use std::fmt;
use std::path::PathBuf;

/// One mistake: where it is, what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// The file it is in.
    pub file: PathBuf,
    /// Line in that file, from 1; `None` for the file as a whole.
    pub line: Option<usize>,
    /// Key path, as `cluster "web".endpoints.blue[0]`; empty for the file as a whole.
    pub at: String,
    /// What is wrong and what to do. Never contains a secret.
    pub message: String,
}

/// Every mistake of one run, sorted by file and line. At most [`Problems::SHOWN_MAX`] are kept, the
/// rest is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, thiserror::Error)]
pub struct Problems {
    list: Vec<Problem>,
    left_out: usize,
    #[serde(skip)]
    files: Vec<PathBuf>,
}

impl Problems {
    /// How many problems are kept in full.
    pub const SHOWN_MAX: usize = 1_000;

    /// The problems, sorted by file and line.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// Number of problems, those left out included.
    pub fn len(&self) -> usize {
        self.list.len() + self.left_out
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Files that the configuration names, as far as it could be understood: a mistake in one of them
    /// is corrected there, so they are worth watching.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    pub(crate) fn of_files(mut self, files: Vec<PathBuf>) -> Self {
        self.files = files;
        self
    }

    pub(crate) fn add(&mut self, problem: Problem) {
        if self.is_full() {
            self.left_out += 1;
        } else if !self.list.contains(&problem) {
            self.list.push(problem);
        }
    }

    pub(crate) fn add_left_out(&mut self, count: usize) {
        self.left_out += count;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= Self::SHOWN_MAX
    }

    pub(crate) fn sort(&mut self) {
        self.list.sort();
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.at.is_empty() {
            write!(f, ": {}", self.at)?;
        }
        write!(f, "\n  {}", self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            write!(f, "{problem}\n\n")?;
        }
        if self.left_out > 0 {
            write!(f, "... and {} more that are not shown\n\n", self.left_out)?;
        }
        match self.len() {
            1 => f.write_str("1 problem"),
            count => write!(f, "{count} problems"),
        }
    }
}
