//! What every check shares: where problems go, and how the world outside is asked.

use super::place::{At, Document, Step};
use super::shape::Report;
use super::{Environment, Resolver, files};
use crate::{PluginCatalog, Problem, Problems};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The state of one run over one file.
pub(crate) struct Scope<'a> {
    pub(crate) document: Rc<Document<'a>>,
    /// As problems name it.
    pub(crate) file: &'a Path,
    base: &'a Path,
    pub(crate) catalog: &'a dyn PluginCatalog,
    pub(crate) env: &'a Environment<'a>,
    resolve: &'a Resolver<'a>,
    looked_up: HashMap<(String, u16), Result<Vec<SocketAddr>, String>>,
    pub(crate) problems: Problems,
    repaired: Vec<Vec<OwnedStep>>,
    digest: Sha256,
    /// Files whose change means another configuration.
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
enum OwnedStep {
    Key(String),
    Index(usize),
}

impl<'a> Scope<'a> {
    pub(crate) fn new(
        file: &'a Path,
        base: &'a Path,
        catalog: &'a dyn PluginCatalog,
        env: &'a Environment<'a>,
        resolve: &'a Resolver<'a>,
    ) -> Self {
        Self {
            document: Rc::new(Document::without_text()),
            file,
            base,
            catalog,
            env,
            resolve,
            looked_up: HashMap::new(),
            problems: Problems::default(),
            repaired: Vec::new(),
            digest: Sha256::new(),
            files: Vec::new(),
        }
    }

    /// Reports a mistake, unless it only follows from one that is reported.
    pub(crate) fn problem(&mut self, at: &At<'_>, message: impl Into<String>) {
        let steps = at.steps();
        let follows = |repaired: &Vec<OwnedStep>| starts_with(&steps, repaired);
        if !self.repaired.iter().any(follows) {
            let (text, line) = self.document.place(at);
            self.problem_in(self.file, line, &text, message);
        }
    }

    /// Reports a mistake with a line of its own, or in another file.
    pub(crate) fn problem_in(
        &mut self,
        file: &Path,
        line: Option<usize>,
        at: &str,
        message: impl Into<String>,
    ) {
        self.problems.add(Problem {
            file: file.to_owned(),
            line,
            at: at.to_owned(),
            message: message.into(),
        });
    }

    /// True where something at or below `at` was repaired: what it lacks is not the operator's word.
    pub(crate) fn is_repaired(&self, at: &At<'_>) -> bool {
        let steps = at.steps();
        self.repaired.iter().any(|repaired| {
            let within = repaired.len() >= steps.len();
            within && repaired.iter().zip(&steps).all(|(a, b)| same(b, a))
        })
    }

    /// Line of a key path.
    pub(crate) fn line(&self, at: &At<'_>) -> Option<usize> {
        self.document.place(at).1
    }

    /// A path as the operator wrote it, relative to the folder of the configuration.
    pub(crate) fn path(&self, written: &str) -> PathBuf {
        self.base.join(written)
    }

    /// Reads a small file that the configuration names. `None` where it cannot, which is reported.
    pub(crate) fn read(&mut self, at: &At<'_>, written: &str) -> Option<(PathBuf, Vec<u8>)> {
        if written.is_empty() {
            self.problem(at, "is empty; write the path of a file");
            return None;
        }
        let path = self.path(written);
        match files::read(&path, files::SMALL_FILE_BYTES_MAX) {
            Ok(bytes) => Some((path, bytes)),
            Err(message) => {
                self.problem(at, format!("{}: {message}", path.display()));
                None
            }
        }
    }

    /// Has `path` watched.
    pub(crate) fn watch(&mut self, path: PathBuf) {
        if !self.files.contains(&path) {
            self.files.push(path);
        }
    }

    /// Makes `bytes` part of the configuration's hash.
    pub(crate) fn digest(&mut self, bytes: &[u8]) {
        // With its length, so that two parts cannot trade bytes.
        self.digest.update((bytes.len() as u64).to_be_bytes());
        self.digest.update(bytes);
    }

    pub(crate) fn hash(&self) -> String {
        hex(&self.digest.clone().finalize())
    }

    /// Looks a name up, once a run.
    pub(crate) fn resolve(&mut self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let resolve = self.resolve;
        self.looked_up
            .entry((host.to_owned(), port))
            .or_insert_with(|| resolve(host, port).map_err(|error: io::Error| error.to_string()))
            .clone()
    }
}

impl Report for Scope<'_> {
    fn problem(&mut self, at: &At<'_>, message: String) {
        Scope::problem(self, at, message);
        self.repaired(at);
    }

    fn repaired(&mut self, at: &At<'_>) {
        // Each repair past this many is still reported or counted; it may then cause a second report.
        if self.repaired.len() < Problems::SHOWN_MAX {
            let owned = at.steps().into_iter().map(|step| match step {
                Step::Key(key) => OwnedStep::Key(key.to_owned()),
                Step::Index(index) => OwnedStep::Index(index),
            });
            self.repaired.push(owned.collect());
        }
    }
}

fn starts_with(steps: &[Step<'_>], start: &[OwnedStep]) -> bool {
    steps.len() >= start.len() && steps.iter().zip(start).all(|(a, b)| same(a, b))
}

fn same(step: &Step<'_>, owned: &OwnedStep) -> bool {
    match (step, owned) {
        (Step::Key(a), OwnedStep::Key(b)) => a == b,
        (Step::Index(a), OwnedStep::Index(b)) => a == b,
        (Step::Key(_), OwnedStep::Index(_)) | (Step::Index(_), OwnedStep::Key(_)) => false,
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
