//! The rules, and how each is recognised.

use super::{Finding, finding, nesting, split_commas};
use crate::Kind;
use crate::migrate::lexer::{self, Class, Token};
use std::collections::BTreeSet;

/// A pattern that is not let through without a waiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As findings and waivers spell it.
    pub name: &'static str,
    /// What would happen.
    pub why: &'static str,
    /// What to do.
    pub instead: &'static str,
}

macro_rules! rules {
    ($($name:literal: $why:literal => $instead:literal;)*) => {
        /// Every rule.
        pub const RULES: &[Rule] = &[$(Rule { name: $name, why: $why, instead: $instead }),*];
    };
}

rules! {
    "index-not-concurrent":
        "building the index stops every write to the table until it is done"
        => "CREATE INDEX CONCURRENTLY, alone in its step";
    "index-drop-not-concurrent":
        "dropping the index waits for every query on the table, and stops those that come after it"
        => "DROP INDEX CONCURRENTLY, alone in its step";
    "index-if-not-exists":
        "an attempt that was cut off leaves an invalid index under this name, and this would keep it"
        => "leave IF NOT EXISTS out; drop the invalid index where there is one";
    "reindex-not-concurrent":
        "rebuilding stops every write to the table until it is done"
        => "REINDEX ... CONCURRENTLY, alone in its step";
    "concurrent-not-alone":
        "this runs outside of a transaction, so a failure half way leaves the rest of the step undone"
        => "move this statement into a step of its own";
    "volatile-default":
        "a default that may differ from row to row rewrites the whole table under an exclusive lock"
        => "add the column without it, SET DEFAULT for new rows, and fill old rows in batches";
    "rewriting-column":
        "a serial, identity or stored generated column rewrites the whole table under an exclusive lock"
        => "add a plain column, fill it in batches, then attach the sequence or a trigger";
    "not-null-without-default":
        "it fails on a table with rows, and inserts of the running colour fail after it"
        => "add the column with a constant DEFAULT, or nullable";
    "not-null-existing":
        "every row is read under an exclusive lock, and a colour that writes NULL fails"
        => "ADD CONSTRAINT ... CHECK (column IS NOT NULL) NOT VALID; VALIDATE it in a later step; then SET NOT NULL finds it proven, and may be waived";
    "json-column":
        "json has no equality, so SELECT DISTINCT and UNION over the table fail from now on"
        => "jsonb";
    "rename":
        "the colour that runs now asks for the old name and fails at once"
        => "expand: add the new one, or a view, and write both; contract: drop the old one";
    "type-change":
        "most changes of type rewrite the table under an exclusive lock, and the other colour may not read the new type"
        => "expand: add a column of the new type, write both, fill in batches; contract: drop the old one";
    "foreign-key-validated":
        "every row is compared while writes to both tables wait"
        => "ADD ... NOT VALID, then VALIDATE CONSTRAINT in a later step";
    "check-validated":
        "every row is read under an exclusive lock"
        => "ADD ... NOT VALID, then VALIDATE CONSTRAINT in a later step";
    "validate-with-add":
        "the lock of ADD CONSTRAINT is held until the step ends, so it covers the validation too"
        => "VALIDATE CONSTRAINT in a later step";
    "unique-without-index":
        "the index behind the constraint is built under an exclusive lock"
        => "CREATE UNIQUE INDEX CONCURRENTLY in an earlier step, then ADD CONSTRAINT ... USING INDEX";
    "exclusion-constraint":
        "the index behind it is built under an exclusive lock, and there is no other way to add one"
        => "make a new table with it and move the rows, or waive this for a small table";
    "drop-in-expand":
        "the colour that runs now may still use it"
        => "a contract step, which runs when no colour needs it";
    "default-drop-in-expand":
        "inserts of the colour that runs now may rely on the default"
        => "a contract step";
    "truncate-in-expand":
        "rows that the running colour may still read are gone, under an exclusive lock"
        => "a contract step, or DELETE in batches";
    "drop-cascade":
        "what else goes is decided by the database, not by this file"
        => "drop what depends on it by name";
    "exclusive-rewrite":
        "the whole table is rewritten, or read, while every query on it waits"
        => "REFRESH ... CONCURRENTLY for a view; pg_repack or a quiet hour, with a waiver, for a table";
    "lock-table":
        "everything that needs the table waits until the step ends"
        => "leave it out; statements take the locks they need";
    "write-with-ddl":
        "the locks of the schema change are held while rows are written"
        => "write rows in a step of its own, or in batches outside of migrations";
    "write-unbounded":
        "every row is locked and rewritten in one transaction"
        => "batches outside of migrations, or a WHERE that bounds the rows";
    "transaction-control":
        "the step runs in a transaction already, together with its record in the history"
        => "leave BEGIN, COMMIT, ROLLBACK and SAVEPOINT out; split the file for two transactions";
    "timeout-override":
        "lock_timeout and statement_timeout are what keeps a migration from stopping everybody"
        => "set them for the run, with hubctl's flags";
    "dynamic-sql":
        "SQL that is put together at run time cannot be checked"
        => "write the statements out, or waive this after a look";
    "unterminated":
        "a string, a quoted name or a comment begins here and does not end"
        => "close it";
    "waiver-malformed":
        "a waiver names rules that exist, and a reason"
        => "-- hub-lint: allow RULE: why it does no harm here";
    "waiver-unused":
        "nothing on this line, or the next, needs this waiver"
        => "remove it";
}

/// Functions whose value is the same for every row of a statement. Whatever is not listed counts as
/// volatile.
const STABLE: &[&str] = &[
    "now",
    "transaction_timestamp",
    "statement_timestamp",
    "date_trunc",
    "to_timestamp",
    "to_date",
    "make_date",
    "make_interval",
    "make_timestamptz",
    "timezone",
    "lower",
    "upper",
    "coalesce",
    "nullif",
    "greatest",
    "least",
    "cast",
    "concat",
    "jsonb_build_object",
    "jsonb_build_array",
    "json_build_object",
    "json_build_array",
    "to_jsonb",
    "md5",
    "decode",
    "encode",
    "array",
    "current_setting",
    "current_timestamp",
    "localtimestamp",
    "current_time",
    "localtime",
];

/// Words that end the expression of a column's default.
const AFTER_DEFAULT: &[&str] = &[
    "not",
    "null",
    "check",
    "references",
    "unique",
    "primary",
    "generated",
    "constraint",
    "collate",
    "deferrable",
    "initially",
];

/// Adds the findings of statements that run in one step.
pub(super) fn check(statements: &[Vec<Token>], kind: Kind, found: &mut Vec<Finding>) {
    let mut step = Step {
        kind,
        created: BTreeSet::new(),
        added_unproven: false,
        ddl: false,
        found,
    };
    for statement in statements {
        step.statement(statement);
    }
    if statements.len() > 1 {
        for statement in statements.iter().filter(|it| outside_transaction(it)) {
            step.find("concurrent-not-alone", &statement[0]);
        }
    }
    if step.ddl {
        for statement in statements {
            if matches!(word(statement, 0), "update" | "delete") {
                step.find("write-with-ddl", &statement[0]);
            }
        }
    }
}

/// Whether Postgres refuses this statement inside of a transaction.
pub(super) fn outside_transaction(statement: &[Token]) -> bool {
    let concurrently = || {
        statement
            .iter()
            .take(8)
            .any(|token| token.is("concurrently"))
    };
    match word(statement, 0) {
        "create" | "drop" => {
            let index = word(statement, 1) == "index"
                || word(statement, 1) == "unique" && word(statement, 2) == "index";
            index && concurrently() || word(statement, 1) == "database"
        }
        "reindex" => concurrently(),
        "alter" => {
            word(statement, 1) == "system"
                || has(statement, &["detach", "partition"])
                    && statement.last().is_some_and(|last| last.is("concurrently"))
        }
        "vacuum" => true,
        _ => false,
    }
}

struct Step<'a> {
    kind: Kind,
    /// Tables that this step makes: nobody uses them yet.
    created: BTreeSet<String>,
    /// A constraint was added without being validated.
    added_unproven: bool,
    /// A table in use was changed.
    ddl: bool,
    found: &'a mut Vec<Finding>,
}

// === impl Step ===

impl Step<'_> {
    fn find(&mut self, rule: &str, at: &Token) {
        self.found.push(finding(rule, at.line));
    }

    fn statement(&mut self, tokens: &[Token]) {
        let first = &tokens[0];
        match (word(tokens, 0), word(tokens, 1)) {
            ("create", _) => self.create(tokens),
            ("alter", "table") | ("alter", "foreign") => self.alter_table(tokens),
            ("alter", "view" | "materialized" | "schema" | "type" | "function" | "sequence")
                if has(tokens, &["rename"]) =>
            {
                // A value of an enum, like a name, is asked for by the running colour.
                self.find("rename", first);
            }
            ("drop", _) => self.drop(tokens),
            ("reindex", _) if !has(tokens, &["concurrently"]) => {
                self.find("reindex-not-concurrent", first);
            }
            ("truncate", _)
                if !self.is_created(name_after(tokens, &["truncate", "table", "only"])) =>
            {
                if self.kind == Kind::Expand {
                    self.find("truncate-in-expand", first);
                }
                if has(tokens, &["cascade"]) {
                    self.find("drop-cascade", first);
                }
            }
            ("cluster", _) => self.find("exclusive-rewrite", first),
            ("vacuum", _) if has(tokens, &["full"]) => self.find("exclusive-rewrite", first),
            ("refresh", _) if !has(tokens, &["concurrently"]) => {
                self.find("exclusive-rewrite", first);
            }
            ("lock", _) => self.find("lock-table", first),
            ("update" | "delete", _) => {
                let table = name_after(tokens, &["update", "delete", "from", "only"]);
                if !self.is_created(table) && !has(tokens, &["where"]) {
                    self.find("write-unbounded", first);
                }
            }
            ("begin" | "commit" | "rollback" | "savepoint" | "end" | "abort" | "release", _)
            | ("start", "transaction") => self.find("transaction-control", first),
            ("set" | "reset", _) => {
                let target = tokens.iter().any(|token| {
                    matches!(
                        token.text.as_str(),
                        "lock_timeout"
                            | "statement_timeout"
                            | "idle_in_transaction_session_timeout"
                            | "all"
                    )
                });
                if target {
                    self.find("timeout-override", first);
                }
            }
            ("do", _) => self.anonymous_block(tokens),
            _ => {}
        }
    }

    fn create(&mut self, tokens: &[Token]) {
        let first = &tokens[0];
        let table = ["temp", "temporary", "unlogged", "global", "local", "table"];
        if has(&tokens[..tokens.len().min(4)], &["table"]) && table.contains(&word(tokens, 1)) {
            // With IF NOT EXISTS it may be there, full and in use.
            if !has(&tokens[..tokens.len().min(7)], &["if", "not", "exists"]) {
                let mut skip = vec!["create"];
                skip.extend(table);
                self.created.extend(name_after(tokens, &skip));
            }
            return;
        }
        let index =
            word(tokens, 1) == "index" || word(tokens, 1) == "unique" && word(tokens, 2) == "index";
        if !index {
            return;
        }
        let concurrent = outside_transaction(tokens);
        let on = tokens
            .iter()
            .position(|token| token.is("on"))
            .map_or(&[][..], |at| &tokens[at..]);
        if !concurrent && !self.is_created(name_after(on, &["on", "only"])) {
            self.find("index-not-concurrent", first);
        }
        if concurrent && has(&tokens[..tokens.len().min(8)], &["if", "not", "exists"]) {
            self.find("index-if-not-exists", first);
        }
    }

    fn drop(&mut self, tokens: &[Token]) {
        let first = &tokens[0];
        let what = word(tokens, 1);
        if what == "index" {
            if !has(tokens, &["concurrently"]) {
                self.find("index-drop-not-concurrent", first);
            }
        } else if self.kind == Kind::Expand {
            let used = split_commas(tokens)
                .into_iter()
                .any(|part| !self.is_created(name_after(part, &["drop", "table", "if", "exists"])));
            if used {
                self.find("drop-in-expand", first);
            }
        }
        if has(tokens, &["cascade"]) {
            self.find("drop-cascade", first);
        }
    }

    fn alter_table(&mut self, tokens: &[Token]) {
        let skip = ["alter", "foreign", "table", "if", "exists", "only"];
        let start = tokens
            .iter()
            .position(|token| !skip.iter().any(|word| token.is(word)))
            .unwrap_or(tokens.len());
        let (table, length) = name(&tokens[start..]);
        if self.is_created(Some(table)) {
            return;
        }
        self.ddl = true;
        let mut rest = &tokens[start + length..];
        if rest.first().is_some_and(|token| token.is("*")) {
            rest = &rest[1..];
        }
        for action in split_commas(rest) {
            self.alter_action(action);
        }
    }

    fn alter_action(&mut self, action: &[Token]) {
        let first = &action[0];
        match word(action, 0) {
            "add" => self.add(action),
            "drop" => {
                if self.kind == Kind::Expand && word(action, 1) != "constraint" {
                    self.find("drop-in-expand", first);
                }
                if has(action, &["cascade"]) {
                    self.find("drop-cascade", first);
                }
            }
            "alter" => {
                let skip = usize::from(word(action, 1) == "column");
                let change = action.get(2 + skip..).unwrap_or_default();
                match (word(change, 0), word(change, 1)) {
                    ("type", _) | ("set", "data") => self.find("type-change", first),
                    ("set", "not") => self.find("not-null-existing", first),
                    ("drop", "default") if self.kind == Kind::Expand => {
                        self.find("default-drop-in-expand", first);
                    }
                    _ => {}
                }
            }
            "rename" if word(action, 1) != "constraint" => self.find("rename", first),
            "validate" if self.added_unproven => self.find("validate-with-add", first),
            "set" => {
                let rewrite = ["tablespace", "logged", "unlogged", "access", "schema"];
                match word(action, 1) {
                    "schema" => self.find("rename", first),
                    what if rewrite.contains(&what) => self.find("exclusive-rewrite", first),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// `ADD COLUMN` or `ADD CONSTRAINT`.
    fn add(&mut self, action: &[Token]) {
        let first = &action[0];
        let mut rest = &action[1..];
        if word(rest, 0) == "constraint" {
            rest = rest.get(2..).unwrap_or_default();
        }
        let proven = !has(rest, &["not", "valid"]);
        match word(rest, 0) {
            "check" | "foreign" => {
                self.added_unproven |= !proven;
                let rule = if word(rest, 0) == "check" {
                    "check-validated"
                } else {
                    "foreign-key-validated"
                };
                if proven {
                    self.find(rule, first);
                }
            }
            "unique" | "primary" => {
                if !has(rest, &["using", "index"]) || has(rest, &["using", "index", "tablespace"]) {
                    self.find("unique-without-index", first);
                }
            }
            "exclude" => self.find("exclusion-constraint", first),
            _ => self.add_column(first, rest),
        }
    }

    fn add_column(&mut self, first: &Token, column: &[Token]) {
        let column = match word(column, 0) {
            "column" => &column[1..],
            _ => column,
        };
        let column = if has(&column[..column.len().min(3)], &["if", "not", "exists"]) {
            &column[3..]
        } else {
            column
        };
        let kind = word(column, 1);
        let flat = outside_parentheses(column);
        let default = default_expression(column);
        let serial = matches!(
            kind,
            "serial" | "bigserial" | "smallserial" | "serial4" | "serial8" | "serial2"
        );
        if serial
            || flat
                .iter()
                .any(|token| token.is("identity") || token.is("stored"))
        {
            self.find("rewriting-column", first);
        } else if flat
            .windows(2)
            .any(|two| two[0].is("not") && two[1].is("null"))
            && default.is_none()
        {
            self.find("not-null-without-default", first);
        }
        if default.is_some_and(is_volatile) {
            self.find("volatile-default", first);
        }
        if kind == "json" {
            self.find("json-column", first);
        }
        for (constraint, rule) in [
            ("references", "foreign-key-validated"),
            ("check", "check-validated"),
            ("unique", "unique-without-index"),
            ("primary", "unique-without-index"),
        ] {
            if flat.iter().skip(1).any(|token| token.is(constraint)) {
                self.find(rule, first);
            }
        }
    }

    /// `DO $$ ... $$`: its body runs now, so it is checked as the statements between its keywords.
    fn anonymous_block(&mut self, tokens: &[Token]) {
        let Some(body) = tokens.iter().find(|token| token.class == Class::Text) else {
            return;
        };
        for mut statement in lexer::statements(lexer::lex(&body.text, body.line).tokens) {
            while let Some(length) = control(&statement) {
                statement.drain(..length);
            }
            if statement.is_empty() || statement[0].is("end") {
                continue;
            }
            if statement[0].is("execute") || statement[0].is("perform") {
                self.find("dynamic-sql", &statement[0]);
            }
            self.statement(&statement);
        }
    }

    fn is_created(&self, table: Option<String>) -> bool {
        table.is_some_and(|table| self.created.contains(&table))
    }
}

// === Looking at tokens ===

/// How many tokens of PL/pgSQL stand before the statement that they control; `None` where none do.
fn control(tokens: &[Token]) -> Option<usize> {
    let through = |word: &str| {
        let at = tokens.iter().position(|token| token.is(word));
        at.map_or(tokens.len(), |at| at + 1)
    };
    match word(tokens, 0) {
        "begin" | "else" | "loop" | "declare" | "exception" => Some(1),
        "if" | "elsif" | "elseif" | "when" | "case" => Some(through("then")),
        "for" | "while" | "foreach" => Some(through("loop")),
        _ => None,
    }
}

/// The word at a place; empty where there is none, or something else.
fn word(tokens: &[Token], at: usize) -> &str {
    tokens
        .get(at)
        .filter(|token| token.class == Class::Word)
        .map_or("", |token| token.text.as_str())
}

/// Whether these words follow each other anywhere.
fn has(tokens: &[Token], words: &[&str]) -> bool {
    tokens
        .windows(words.len())
        .any(|window| window.iter().zip(words).all(|(token, word)| token.is(word)))
}

/// The name, with its schema, that follows words to skip.
fn name_after(tokens: &[Token], skip: &[&str]) -> Option<String> {
    let start = tokens
        .iter()
        .position(|token| !skip.iter().any(|word| token.is(word)))?;
    Some(name(&tokens[start..]).0)
}

/// A name, with its schema, and how many tokens it has.
fn name(tokens: &[Token]) -> (String, usize) {
    let mut name = tokens
        .first()
        .map_or(String::new(), |token| token.text.clone());
    let mut length = tokens.len().min(1);
    while let [dot, part, ..] = &tokens[length..]
        && dot.is(".")
    {
        name = format!("{name}.{}", part.text);
        length += 2;
    }
    (name, length)
}

fn outside_parentheses(tokens: &[Token]) -> Vec<&Token> {
    let mut depth = 0;
    tokens
        .iter()
        .filter(|token| {
            depth += nesting(token);
            depth == 0
        })
        .collect()
}

/// What stands between `DEFAULT` and the next constraint.
fn default_expression(column: &[Token]) -> Option<&[Token]> {
    let start = column.iter().position(|token| token.is("default"))? + 1;
    let mut depth = 0;
    let end = column[start..]
        .iter()
        .enumerate()
        .skip(1)
        .find(|(_, token)| {
            depth += nesting(token);
            depth == 0 && AFTER_DEFAULT.iter().any(|word| token.is(word))
        });
    let end = end.map_or(column.len(), |(at, _)| start + at);
    Some(&column[start..end])
}

/// Whether an expression calls a function that is not known to be stable.
fn is_volatile(expression: &[Token]) -> bool {
    expression.windows(2).enumerate().any(|(at, two)| {
        let call = matches!(two[0].class, Class::Word | Class::Name) && two[1].is("(");
        // A type with a length, after `::` or in a CAST, looks like a call.
        let before = at.checked_sub(1).map(|before| &expression[before]);
        let is_type = before.is_some_and(|before| before.is(":") || before.is("as"));
        call && !is_type && !STABLE.contains(&two[0].text.as_str())
    })
}
