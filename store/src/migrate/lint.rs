//! Postgres migrations that stop or break a database in use, found before they run.
//!
//! After the checks of strong_migrations and the practice of pgroll; the list is [`RULES`]. A finding
//! that does not apply is waived where it stands, with a reason:
//!
//! ```
//! use hub_store::Kind;
//! use hub_store::migrate::lint;
//!
//! let findings = lint("CREATE INDEX lead_email ON lead (email);", Kind::Expand);
//! assert_eq!((findings[0].rule, findings[0].line), ("index-not-concurrent", 1));
//!
//! let waived = "-- hub-lint: allow index-not-concurrent: ten rows, and nobody reads it yet
//!     CREATE INDEX lead_email ON lead (email);";
//! assert!(lint(waived, Kind::Expand).is_empty());
//! ```
//!
//! Absent on purpose: the bodies of functions, which do not run now, and SQL that is put together at
//! run time, which is refused because it cannot be seen.

mod rules;

pub use rules::{RULES, Rule};

use super::lexer::{self, Class, Comment, Lexed, Token};
use crate::Kind;
use std::collections::BTreeSet;

/// Something in a migration that needs another way, or a waiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Name of the rule, as a waiver spells it.
    pub rule: &'static str,
    /// Line of the file, from 1.
    pub line: u32,
    /// What would happen.
    pub why: &'static str,
    /// What to do.
    pub instead: &'static str,
}

/// Findings of one step's SQL, by line. Table rows, sizes and types are not known here, so every
/// table that the step does not make itself counts as large and in use.
pub fn lint(sql: &str, kind: Kind) -> Vec<Finding> {
    let lexed = lexer::lex(sql, 1);
    let waivers = waivers(&lexed);
    let mut found = Vec::new();
    if let Some(line) = lexed.unterminated {
        found.push(finding("unterminated", line));
    }
    let statements = lexer::statements(lexed.tokens);
    rules::check(&statements, kind, &mut found);
    let mut used = BTreeSet::new();
    found.retain(|finding| {
        let waiver = waivers.iter().position(|waiver| {
            waiver.covers == Some(finding.line) && waiver.rules.contains(&finding.rule)
        });
        used.extend(waiver);
        waiver.is_none()
    });
    for (index, waiver) in waivers.iter().enumerate() {
        if waiver.malformed {
            found.push(finding("waiver-malformed", waiver.line));
        } else if !used.contains(&index) {
            found.push(finding("waiver-unused", waiver.line));
        }
    }
    found.sort_by_key(|finding| (finding.line, finding.rule));
    found.dedup();
    found
}

/// Whether a step can only run outside of a transaction.
pub(crate) fn runs_alone(sql: &str) -> bool {
    let statements = lexer::statements(lexer::lex(sql, 1).tokens);
    statements
        .iter()
        .any(|statement| rules::outside_transaction(statement))
}

/// Statements in a text.
pub(crate) fn statement_count(sql: &str) -> usize {
    lexer::statements(lexer::lex(sql, 1).tokens).len()
}

/// Names in a statement that makes an index concurrently, as Postgres folds them: the index's own is
/// among them.
pub(crate) fn concurrent_indexes(sql: &str) -> Vec<String> {
    let statements = lexer::statements(lexer::lex(sql, 1).tokens);
    statements
        .iter()
        .filter(|statement| rules::outside_transaction(statement) && statement[0].is("create"))
        .flatten()
        .filter(|token| matches!(token.class, Class::Word | Class::Name))
        .map(|token| token.text.clone())
        .collect()
}

fn finding(rule: &str, line: u32) -> Finding {
    let rule = RULES
        .iter()
        .find(|known| known.name == rule)
        .expect("every finding names a rule of the table");
    Finding {
        rule: rule.name,
        line,
        why: rule.why,
        instead: rule.instead,
    }
}

// === Waivers: `-- hub-lint: allow RULE, RULE: reason` ===

struct Waiver {
    line: u32,
    /// The line it speaks of: its own, or the next that holds anything.
    covers: Option<u32>,
    rules: Vec<&'static str>,
    malformed: bool,
}

fn waivers(lexed: &Lexed) -> Vec<Waiver> {
    let lines = lexer::lines(&lexed.tokens);
    lexed
        .comments
        .iter()
        .filter_map(|comment| waiver(comment, &lines))
        .collect()
}

fn waiver(comment: &Comment, lines: &BTreeSet<u32>) -> Option<Waiver> {
    let text = comment.text.trim().strip_prefix("hub-lint:")?;
    let (names, reason) = text
        .trim()
        .strip_prefix("allow ")
        .and_then(|text| text.split_once(':'))
        .unwrap_or_default();
    let rules: Vec<Option<&'static str>> = names
        .split(',')
        .map(|name| {
            let rule = RULES.iter().find(|rule| rule.name == name.trim())?;
            Some(rule.name)
        })
        .collect();
    Some(Waiver {
        line: comment.line,
        covers: lines.range(comment.line..).next().copied(),
        malformed: reason.trim().is_empty() || rules.contains(&None),
        rules: rules.into_iter().flatten().collect(),
    })
}

/// Splits at commas outside of parentheses and brackets.
fn split_commas(tokens: &[Token]) -> Vec<&[Token]> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, token) in tokens.iter().enumerate() {
        depth += nesting(token);
        if depth == 0 && token.is(",") {
            parts.push(&tokens[start..at]);
            start = at + 1;
        }
    }
    parts.push(&tokens[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// What a token adds to the depth of parentheses.
fn nesting(token: &Token) -> i32 {
    match token.text.as_str() {
        "(" | "[" if token.class == Class::Symbol => 1,
        ")" | "]" if token.class == Class::Symbol => -1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
