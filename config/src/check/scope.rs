//! What every check shares: where problems go, and how the world outside is asked.

use super::names::{self, Answer, Name};
use super::place::{At, Document, Step};
use super::shape::Report;
use super::{Environment, Loader, Resolver, files};
use crate::{PluginCatalog, Problem, Problems, runtime};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The state of one run over one file.
pub(crate) struct Scope<'a> {
    pub(crate) document: Rc<Document<'a>>,
    /// As problems name it.
    pub(crate) file: &'a Path,
    base: &'a Path,
    pub(crate) catalog: &'a dyn PluginCatalog,
    pub(crate) env: &'a Environment<'a>,
    resolve: &'a Arc<Resolver>,
    looked_up: HashMap<Name, Answer>,
    /// The configuration that this one is to follow, at a reload.
    pub(crate) running: Option<&'a runtime::Config>,
    /// See [`Loader::allow_removals`].
    pub(crate) allow_removals: bool,
    pub(crate) problems: Problems,
    pub(crate) warnings: Vec<Problem>,
    repaired: Vec<Vec<OwnedStep>>,
    digest: Sha256,
    /// Files whose change means another configuration.
    pub(crate) files: Vec<PathBuf>,
}

/// How long all names together may take to look up: at a start, as long as a resolver that asks a second
/// server after the first one's silence; at a reload, where names keep the address they have, shorter.
const LOOK_UP_AT_START: Duration = Duration::from_secs(15);
/// See [`LOOK_UP_AT_START`].
const LOOK_UP_AT_RELOAD: Duration = Duration::from_secs(3);

#[derive(Debug, PartialEq, Eq)]
enum OwnedStep {
    Key(String),
    Index(usize),
}

impl<'a> Scope<'a> {
    pub(crate) fn new(file: &'a Path, base: &'a Path, loader: &'a Loader<'a>) -> Self {
        Self {
            document: Rc::new(Document::without_text()),
            file,
            base,
            catalog: loader.catalog,
            env: loader.env,
            resolve: &loader.resolve,
            looked_up: HashMap::new(),
            running: loader.running,
            allow_removals: loader.allow_removals,
            problems: Problems::default(),
            warnings: Vec::new(),
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

    /// Tells what is no mistake, and what an operator should know of all the same.
    pub(crate) fn warn(&mut self, at: &At<'_>, message: impl Into<String>) {
        if self.warnings.len() < Problems::SHOWN_MAX {
            let (text, line) = self.document.place(at);
            self.warnings.push(Problem {
                file: self.file.to_owned(),
                line,
                at: text,
                message: message.into(),
            });
        }
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
        let shown = self.path(written);
        self.read_as(at, written, &shown.display().to_string())
    }

    /// As [`Scope::read`] for the file of a secret. What stands in place of its path may be the secret
    /// itself, so it is not repeated.
    pub(crate) fn read_secret(&mut self, at: &At<'_>, written: &str) -> Option<(PathBuf, Vec<u8>)> {
        self.read_as(at, written, "the file")
    }

    fn read_as(&mut self, at: &At<'_>, written: &str, shown: &str) -> Option<(PathBuf, Vec<u8>)> {
        if written.is_empty() {
            self.problem(at, "is empty; write the path of a file");
            return None;
        }
        let path = self.path(written);
        match files::read(&path, files::SMALL_FILE_BYTES_MAX) {
            Ok(bytes) => Some((path, bytes)),
            Err(message) => {
                self.problem(at, format!("{shown}: {message}"));
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

    /// Looks names up, all at once; [`Scope::addresses`] has the answers.
    pub(crate) fn look_up(&mut self, names: BTreeSet<Name>) {
        let longest = match self.running {
            Some(_) => LOOK_UP_AT_RELOAD,
            None => LOOK_UP_AT_START,
        };
        self.looked_up = names::look_up(self.resolve, names, longest);
    }

    /// Every address of a name that was looked up; at least one.
    pub(crate) fn addresses(&self, name: &Name) -> Result<Vec<SocketAddr>, String> {
        match self.looked_up.get(name) {
            Some(Ok(all)) if all.is_empty() => Err("it has no address".into()),
            Some(answer) => answer.clone(),
            None => Err("no answer in time".into()),
        }
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
