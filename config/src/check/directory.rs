//! All tenants: those of the configuration, then those of the directory file.

use super::files;
use super::place::{At, Document, shorten};
use super::scope::Scope;
use super::shape::{Report, Shape};
use super::tenant::{Known, tenant};
use crate::runtime::Tenants;
use crate::runtime::directory::Taken;
use crate::{file, runtime};
use sha2::{Digest, Sha256};
use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Most tenants in all.
const TENANTS_MAX: usize = 1_000_000;

/// Longest line of a directory file, in bytes, its end not counted.
const LINE_BYTES_MAX: usize = 64 << 10;

/// How many problems of a directory file are shown; the rest is counted.
const PROBLEMS_MAX: usize = 100;

/// The table as it grows, with the place of each tenant.
struct Table {
    tenants: Tenants,
    /// Line of each tenant, in the configuration or in the directory.
    lines: Vec<u32>,
    /// How many of them stand in the configuration; they come first.
    own: usize,
}

/// Checks every tenant, and says how many of them stand in the directory. `None` where it cannot be read.
pub(crate) fn tenants(
    scope: &mut Scope<'_>,
    file: &file::Config,
    known: &Known<'_>,
) -> Option<(Tenants, usize)> {
    let directory_at = At::ROOT.key("tenants");
    let directory_at = directory_at.key("directory");
    let directory = match &file.tenants.directory {
        None => None,
        Some(written) => {
            let path = scope.path(written);
            match files::open(&path) {
                Ok((file, len)) => Some((path, file, len)),
                Err(message) => {
                    scope.problem(&directory_at, format!("{}: {message}", path.display()));
                    None
                }
            }
        }
    };
    // A short line has about 48 bytes; a wrong guess costs a few moves of the table.
    let expected = directory.as_ref().map_or(0, |(_, _, len)| len / 48);
    let expected = usize::try_from(expected)
        .unwrap_or(TENANTS_MAX)
        .min(TENANTS_MAX);
    let mut table = Table {
        tenants: Tenants::with_capacity(file.tenant_entries.len() + expected),
        lines: Vec::with_capacity(file.tenant_entries.len() + expected),
        own: 0,
    };
    own_tenants(scope, file, known, &mut table);
    if let Some((path, file, _)) = directory {
        read_directory(scope, &path, file, known, &mut table);
        scope.watch(path);
    }
    let of_directory = table.lines.len() - table.own;
    keep_most(scope, &directory_at, &table.tenants);
    Some((table.tenants, of_directory))
}

/// A directory that is written while it is read, or by a program that failed half-way, mostly ends with
/// a line, and looks like one that is whole.
fn keep_most(scope: &mut Scope<'_>, at: &At<'_>, tenants: &Tenants) {
    let Some(running) = scope.running.filter(|_| !scope.allow_removals) else {
        return;
    };
    let all = running.directory_tenants;
    let own = running.tenants.len() - all;
    let of_directory = running.tenants.iter().skip(own);
    let lost = of_directory
        .filter(|(_, tenant)| tenants.get(tenant.id.as_ref()).is_none())
        .count();
    if lost * 2 > all {
        scope.problem(
            at,
            format!(
                "{lost} of the directory's {all} tenants would be gone; if its file is whole and you mean it, \
                 run `hubctl reload --allow-removals`"
            ),
        );
    }
}

fn own_tenants(scope: &mut Scope<'_>, file: &file::Config, known: &Known<'_>, table: &mut Table) {
    let section = At::ROOT.key("tenant");
    for (i, file) in file.tenant_entries.iter().enumerate() {
        let at = section.index(i);
        let checked = tenant(&at, file, known, &mut |at, message| {
            scope.problem(at, message())
        });
        let Some(checked) = checked else { continue };
        if table.tenants.len() == TENANTS_MAX {
            scope.problem(&at, too_many());
            break;
        }
        let line = scope.line(&at).unwrap_or_default();
        if let Err(taken) = table.insert(checked, line) {
            let (key, message) = table.taken(&taken, file, scope.file, None);
            scope.problem(&at.key(key), message);
        }
    }
    table.own = table.lines.len();
}

/// Reads a directory line by line, so that its size does not matter.
fn read_directory(
    scope: &mut Scope<'_>,
    path: &Path,
    file: File,
    known: &Known<'_>,
    table: &mut Table,
) {
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut digest = Sha256::new();
    let mut line = Vec::with_capacity(1 << 10);
    let mut problems = LineProblems {
        scope,
        path,
        number: 0,
        found: 0,
    };
    let shape = OnceCell::new();
    loop {
        line.clear();
        let end = (&mut reader)
            .take(LINE_BYTES_MAX as u64 + 1)
            .read_until(b'\n', &mut line);
        problems.number += 1;
        match end {
            Ok(0) => break,
            Ok(_) => digest.update(&line),
            Err(error) => {
                problems.add(&At::ROOT, &|| format!("cannot be read: {error}"));
                break;
            }
        }
        if line.len() > LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            problems.add(&At::ROOT, &|| {
                format!(
                    "is longer than {LINE_BYTES_MAX} bytes; a tenant is one JSON object on one line"
                )
            });
            if let Err(error) = skip_line(&mut reader, &mut digest) {
                problems.add(&At::ROOT, &|| format!("cannot be read: {error}"));
                break;
            }
            continue;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Some(file) = parse(&line, &shape, &mut problems) else {
            continue;
        };
        let checked = tenant(&At::ROOT, &file, known, &mut |at, message| {
            problems.add(at, message)
        });
        let Some(checked) = checked else { continue };
        if table.tenants.len() == TENANTS_MAX {
            problems.add(&At::ROOT, &too_many);
            break;
        }
        if let Err(taken) = table.insert(checked, problems.number) {
            let (key, message) = table.taken(&taken, &file, problems.scope.file, Some(path));
            problems.add(&At::ROOT.key(key), &|| message.clone());
        }
    }
    let found = problems.found;
    if found > PROBLEMS_MAX {
        let more = found - PROBLEMS_MAX;
        scope.problem_in(
            path,
            None,
            "",
            format!("has {more} more problems that are not shown"),
        );
        scope.problems.add_left_out(more - 1);
    }
    scope.digest(&digest.finalize());
}

fn parse(
    line: &[u8],
    shape: &OnceCell<Shape>,
    problems: &mut LineProblems<'_, '_>,
) -> Option<file::Tenant> {
    let error = match serde_json::from_slice(line) {
        Ok(tenant) => return Some(tenant),
        Err(error) => error,
    };
    let found = problems.found;
    // The slow way finds all that is wrong with the line; past the bound one count will do.
    if found < PROBLEMS_MAX
        && let Ok(mut value) = serde_json::from_slice(line)
    {
        let schema = || Shape::new(schemars::schema_for!(file::Tenant).to_value());
        shape
            .get_or_init(schema)
            .fit("", &mut value, &At::ROOT, problems);
    }
    if problems.found == found {
        problems.add(&At::ROOT, &|| not_a_tenant(&error));
    }
    None
}

fn not_a_tenant(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = format!(" at line {} column {}", error.line(), error.column());
    let text = shorten(text.strip_suffix(&end).unwrap_or(&text)).into_owned();
    format!(
        "is no tenant: {text} (column {}); a line is one JSON object such as {{\"id\":\"ve9EPM428h8vShlRW1KT\"}}",
        error.column()
    )
}

fn skip_line(reader: &mut impl BufRead, digest: &mut Sha256) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer
            .iter()
            .position(|byte| *byte == b'\n')
            .map(|at| at + 1);
        let used = end.unwrap_or(buffer.len());
        digest.update(&buffer[..used]);
        reader.consume(used);
        if end.is_some() || used == 0 {
            return Ok(());
        }
    }
}

fn too_many() -> String {
    format!("there are more than {TENANTS_MAX} tenants, the most that one gateway holds")
}

// === impl Table ===

impl Table {
    fn insert(&mut self, tenant: runtime::Tenant, line: usize) -> Result<(), Taken> {
        self.tenants.insert(tenant)?;
        self.lines.push(u32::try_from(line).unwrap_or(u32::MAX));
        Ok(())
    }

    /// The key that is taken, and a message that names the other place.
    fn taken(
        &self,
        taken: &Taken,
        file: &file::Tenant,
        config: &Path,
        directory: Option<&Path>,
    ) -> (&'static str, String) {
        let (key, text, index) = match taken {
            Taken::Id(index) => ("id", file.id.as_str(), index.as_usize()),
            Taken::Slug(index) => {
                let slug = file.slug.as_deref().unwrap_or_default();
                ("slug", slug, index.as_usize())
            }
        };
        // While the configuration's own tenants are read, every tenant is one of them.
        let path = directory.filter(|_| index >= self.own).unwrap_or(config);
        let line = self.lines[index];
        let message = format!(
            "{text:?} is taken by the tenant on line {line} of {}; remove one of the two",
            path.display()
        );
        (key, message)
    }
}

/// Where the problems of a directory go, with the line in hand.
struct LineProblems<'s, 'a> {
    scope: &'s mut Scope<'a>,
    path: &'s Path,
    number: usize,
    found: usize,
}

impl LineProblems<'_, '_> {
    fn add(&mut self, at: &At<'_>, message: &dyn Fn() -> String) {
        self.found += 1;
        if self.found <= PROBLEMS_MAX {
            let (text, _) = Document::without_text().place(at);
            self.scope
                .problem_in(self.path, Some(self.number), &text, message());
        }
    }
}

impl Report for LineProblems<'_, '_> {
    fn problem(&mut self, at: &At<'_>, message: String) {
        self.add(at, &|| message.clone());
    }

    // A line that was repaired is not checked any further.
    fn repaired(&mut self, _at: &At<'_>) {}
}
