//! Steps as files: `NNNN_name.expand.sql` and `NNNN_name.contract.sql`.

use super::lint;
use crate::Kind;
use crate::migration::NUMBER_MAX;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Largest file of a step, in bytes. Data does not belong into steps.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest name of a step, in bytes.
pub const STEP_NAME_BYTES_MAX: usize = 100;

/// One step, as its file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFile {
    /// Where it was read.
    pub path: PathBuf,
    /// 1 to [`NUMBER_MAX`], without gaps.
    pub number: u32,
    /// Lower-case letters, digits and `_`; at most [`STEP_NAME_BYTES_MAX`].
    pub name: String,
    /// From the file's name.
    pub kind: Kind,
    /// The whole file.
    pub sql: String,
    /// SHA-256 of the file, in hexadecimal.
    pub checksum: String,
    /// Whether it runs outside of a transaction, as `CREATE INDEX CONCURRENTLY` must.
    pub alone: bool,
}

/// Everything that is wrong with a directory of steps.
#[derive(Debug, Error)]
pub struct Problems(pub Vec<String>);

/// Reads the steps of a directory, by number. Files whose name does not end with `.sql` are none of
/// its business.
///
/// # Errors
/// All problems at once: names that say no number or kind, numbers that are there twice or missing,
/// files that are empty, too large or no text, and statements that must be alone in their step.
pub fn load(directory: &Path) -> Result<Vec<StepFile>, Problems> {
    let mut problems = Vec::new();
    let mut steps: BTreeMap<u32, StepFile> = BTreeMap::new();
    for path in paths(directory, &mut problems) {
        let Some(step) = read(&path, &mut problems) else {
            continue;
        };
        if let Some(other) = steps.get(&step.number) {
            problems.push(format!(
                "{}: number {} is taken by {}; give it the next free one",
                shown(&path),
                step.number,
                shown(&other.path)
            ));
        } else {
            steps.insert(step.number, step);
        }
    }
    for (expected, number) in (1..).zip(steps.keys()) {
        if expected != *number {
            problems.push(format!(
                "{}: there is no step {expected:04} before step {number:04}; numbers have no gaps",
                directory.display()
            ));
            break;
        }
    }
    if problems.is_empty() {
        Ok(steps.into_values().collect())
    } else {
        Err(Problems(problems))
    }
}

/// The `.sql` files of a directory, by name.
fn paths(directory: &Path, problems: &mut Vec<String>) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(directory).and_then(|files| {
        files
            .map(|file| Ok(file?.path()))
            .collect::<std::io::Result<Vec<_>>>()
    });
    match listed {
        Ok(mut paths) => {
            paths.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
            paths.sort();
            paths
        }
        Err(error) => {
            problems.push(format!("{}: {error}", directory.display()));
            Vec::new()
        }
    }
}

fn read(path: &Path, problems: &mut Vec<String>) -> Option<StepFile> {
    let mut problem = |what: String| problems.push(format!("{}: {what}", shown(path)));
    let parsed = parse_name(path);
    if parsed.is_none() {
        problem(format!(
            "the name is not NNNN_name.expand.sql or NNNN_name.contract.sql, with a number from 0001 \
             to {NUMBER_MAX} and a name of a-z, 0-9 and _"
        ));
    }
    let mut sql = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut sql));
    if let Err(error) = read {
        problem(error.to_string());
        return None;
    }
    if sql.len() as u64 > FILE_BYTES_MAX {
        problem(format!(
            "it has more than {FILE_BYTES_MAX} bytes; load data in another way"
        ));
        return None;
    }
    let statements = lint::statement_count(&sql);
    let alone = lint::runs_alone(&sql);
    if statements == 0 {
        problem("it holds no statement".to_owned());
    }
    if alone && statements > 1 {
        problem(
            "a statement that runs outside of a transaction, such as CREATE INDEX CONCURRENTLY, \
             needs a step of its own"
                .to_owned(),
        );
    }
    let (number, name, kind) = parsed?;
    Some(StepFile {
        path: path.to_owned(),
        number,
        name,
        kind,
        checksum: format!("{:x}", Sha256::digest(&sql)),
        sql,
        alone,
    })
}

fn parse_name(path: &Path) -> Option<(u32, String, Kind)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".sql")?;
    let (stem, kind) = stem.rsplit_once('.')?;
    let (digits, name) = stem.split_once('_')?;
    let kind = Kind::parse(kind)?;
    let number = digits.parse().ok().filter(|number| *number > 0)?;
    let digits_fit = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let name_fits = (1..=STEP_NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    (digits_fit && name_fits).then(|| (number, name.to_owned(), kind))
}

fn shown(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
}

// === impl Problems ===

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::{FILE_BYTES_MAX, load};
    use crate::Kind;
    use std::fs;

    #[test]
    fn steps_are_read_by_number() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, sql: &str| fs::write(directory.path().join(name), sql).unwrap();
        write("0002_drop_old.contract.sql", "DROP TABLE old");
        write("0001_leads.expand.sql", "CREATE TABLE lead (id bigint)");
        write(
            "0003_index.expand.sql",
            "CREATE INDEX CONCURRENTLY i ON lead (id)",
        );
        write("README.md", "not a step");
        let steps = load(directory.path()).unwrap();
        let seen: Vec<_> = steps
            .iter()
            .map(|step| (step.number, step.name.as_str(), step.kind, step.alone))
            .collect();
        assert_eq!(
            seen,
            [
                (1, "leads", Kind::Expand, false),
                (2, "drop_old", Kind::Contract, false),
                (3, "index", Kind::Expand, true)
            ]
        );
        assert_eq!(steps[0].checksum.len(), 64);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, sql: &[u8]| fs::write(directory.path().join(name), sql).unwrap();
        write("0001_a.expand.sql", b"-- nothing");
        write("0001_b.expand.sql", b"SELECT 1");
        write("0003_c.expand.sql", b"SELECT 1; DROP INDEX CONCURRENTLY i");
        write("4_d.expand.sql", b"SELECT 1");
        write("0005_E.expand.sql", b"SELECT 1");
        write("0006_f.sql", b"SELECT 1");
        write("0007_g.expand.sql", b"\xff");
        write(
            "0008_h.expand.sql",
            &vec![b' '; FILE_BYTES_MAX as usize + 1],
        );
        let problems = load(directory.path()).unwrap_err().to_string();
        let lines: Vec<_> = problems.lines().collect();
        for (line, says) in lines.iter().zip([
            "0001_a.expand.sql: it holds no statement",
            "0001_b.expand.sql: number 1 is taken by 0001_a.expand.sql",
            "0003_c.expand.sql: a statement that runs outside",
            "0005_E.expand.sql: the name is not",
            "0006_f.sql: the name is not",
            "0007_g.expand.sql: stream did not contain valid UTF-8",
            "0008_h.expand.sql: it has more than 1048576 bytes",
            "4_d.expand.sql: the name is not",
        ]) {
            assert!(line.starts_with(says), "{line}");
        }
        assert!(
            lines[8].contains("no step 0002 before step 0003"),
            "{}",
            lines[8]
        );
        assert_eq!(lines.len(), 9);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let problems = load("/no/such/directory".as_ref()).unwrap_err().to_string();
        assert!(problems.starts_with("/no/such/directory: "), "{problems}");
    }
}
