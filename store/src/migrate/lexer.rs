//! Postgres' SQL as tokens and statements: just enough to tell a keyword from a name, a string or a
//! comment. After `scan.l` of PostgreSQL 15, with `standard_conforming_strings` on.

use std::collections::BTreeSet;

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) class: Class,
    /// Words in lower case; quoted names, strings and dollar-quoted bodies without their quotes.
    pub(crate) text: String,
    /// Line of its first byte, from 1.
    pub(crate) line: u32,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// A keyword, or a name without quotes.
    Word,
    /// A name in double quotes; never a keyword.
    Name,
    /// A string of any notation.
    Text,
    /// A number or a parameter.
    Number,
    /// One other character.
    Symbol,
}

/// A comment that begins with `--`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    /// What follows the dashes.
    pub(crate) text: String,
    pub(crate) line: u32,
}

/// What was read of a text.
#[derive(Debug, Default)]
pub(crate) struct Lexed {
    pub(crate) tokens: Vec<Token>,
    pub(crate) comments: Vec<Comment>,
    /// Line where something begins that never ends: a string, a quoted name, a comment.
    pub(crate) unterminated: Option<u32>,
}

/// Reads a text whose first line has this number.
pub(crate) fn lex(sql: &str, first_line: u32) -> Lexed {
    let mut lexer = Lexer {
        rest: sql,
        line: first_line,
        lexed: Lexed::default(),
    };
    while lexer.next() {}
    lexer.lexed
}

/// Splits tokens into statements. The bodies of functions in standard SQL (`BEGIN ATOMIC ... END`)
/// stay in one piece.
pub(crate) fn statements(tokens: Vec<Token>) -> Vec<Vec<Token>> {
    let mut statements = Vec::new();
    let mut statement: Vec<Token> = Vec::new();
    // Open `BEGIN ATOMIC` and, inside of it, `CASE`.
    let mut open = 0_u32;
    for token in tokens {
        if open == 0 && token.is(";") {
            statements.push(std::mem::take(&mut statement));
            continue;
        }
        if token.is("atomic") && statement.last().is_some_and(|last| last.is("begin"))
            || open > 0 && token.is("case")
        {
            open += 1;
        } else if open > 0 && token.is("end") {
            open -= 1;
        }
        statement.push(token);
    }
    statements.push(statement);
    statements.retain(|statement| !statement.is_empty());
    statements
}

/// Lines that hold a token.
pub(crate) fn lines(tokens: &[Token]) -> BTreeSet<u32> {
    tokens.iter().map(|token| token.line).collect()
}

struct Lexer<'a> {
    rest: &'a str,
    line: u32,
    lexed: Lexed,
}

// === impl Token ===

impl Token {
    /// Whether this is a word or symbol; never a quoted name or a string.
    pub(crate) fn is(&self, text: &str) -> bool {
        matches!(self.class, Class::Word | Class::Symbol) && self.text == text
    }
}

// === impl Lexer ===

impl<'a> Lexer<'a> {
    /// Reads what comes next; false at the end.
    fn next(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else {
            return false;
        };
        let line = self.line;
        if first.is_whitespace() {
            self.take(first.len_utf8());
        } else if self.rest.starts_with("--") {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            let text = self.take(end)[2..].to_owned();
            self.lexed.comments.push(Comment { text, line });
        } else if self.rest.starts_with("/*") {
            self.block_comment();
        } else if first == '\'' {
            self.quoted('\'', Escapes::None, Class::Text);
        } else if first == '"' {
            self.quoted('"', Escapes::None, Class::Name);
        } else if first == '$' {
            self.dollar();
        } else if first.is_alphabetic() || first == '_' || !first.is_ascii() {
            self.word();
        } else if first.is_ascii_digit() {
            let text = self
                .take(self.while_matches(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_'));
            let text = text.to_owned();
            self.push(Class::Number, text, line);
        } else {
            let text = self.take(first.len_utf8()).to_owned();
            self.push(Class::Symbol, text, line);
        }
        true
    }

    fn word(&mut self) {
        let line = self.line;
        let length =
            self.while_matches(|c| c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii());
        let word = self.take(length);
        // A prefix glued to a quote is part of the string or name.
        let prefix = word.to_ascii_lowercase();
        match (prefix.as_str(), self.rest.chars().next()) {
            ("e", Some('\'')) => self.quoted('\'', Escapes::Backslash, Class::Text),
            ("b" | "x" | "n", Some('\'')) => self.quoted('\'', Escapes::None, Class::Text),
            ("u", Some('&')) if self.rest[1..].starts_with(['\'', '"']) => {
                self.take(1);
                let quote = if self.rest.starts_with('"') {
                    '"'
                } else {
                    '\''
                };
                let class = if quote == '"' {
                    Class::Name
                } else {
                    Class::Text
                };
                self.quoted(quote, Escapes::None, class);
            }
            _ => self.push(Class::Word, word.to_lowercase(), line),
        }
    }

    /// From one quote to the next that is not doubled.
    fn quoted(&mut self, quote: char, escapes: Escapes, class: Class) {
        let line = self.line;
        self.take(1);
        let mut text = String::new();
        let mut characters = self.rest.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            if escapes == Escapes::Backslash && character == '\\' {
                text.push(character);
                text.extend(characters.next().map(|(_, escaped)| escaped));
            } else if character != quote {
                text.push(character);
            } else if characters.next_if(|(_, next)| *next == quote).is_some() {
                text.push(quote);
            } else {
                self.take(at + 1);
                self.push(class, text, line);
                return;
            }
        }
        self.unterminated(line);
    }

    /// `$tag$ ... $tag$`, or a parameter.
    fn dollar(&mut self) {
        let line = self.line;
        let inner = &self.rest[1..];
        let tag_length = inner
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(inner.len());
        let starts_well = !inner.starts_with(|c: char| c.is_ascii_digit());
        if starts_well && inner[tag_length..].starts_with('$') {
            let tag = &self.rest[..tag_length + 2];
            self.take(tag.len());
            match self.rest.find(tag) {
                Some(end) => {
                    let body = self.take(end).to_owned();
                    self.take(tag.len());
                    self.push(Class::Text, body, line);
                }
                None => self.unterminated(line),
            }
        } else {
            let text = self.take(1 + tag_length).to_owned();
            self.push(Class::Number, text, line);
        }
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let line = self.line;
        let mut depth = 0_u32;
        let mut at = 0;
        while at < self.rest.len() {
            let here = &self.rest[at..];
            if here.starts_with("/*") {
                depth += 1;
                at += 2;
            } else if here.starts_with("*/") {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    self.take(at);
                    return;
                }
            } else {
                at += here.chars().next().map_or(1, char::len_utf8);
            }
        }
        self.unterminated(line);
    }

    fn unterminated(&mut self, line: u32) {
        self.lexed.unterminated = Some(line);
        self.take(self.rest.len());
    }

    fn while_matches(&self, matches: impl Fn(char) -> bool) -> usize {
        self.rest
            .find(|character| !matches(character))
            .unwrap_or(self.rest.len())
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        let breaks = taken.bytes().filter(|byte| *byte == b'\n').count();
        self.line = self
            .line
            .saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
        self.rest = rest;
        taken
    }

    fn push(&mut self, class: Class, text: String, line: u32) {
        self.lexed.tokens.push(Token { class, text, line });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    None,
    Backslash,
}

#[cfg(test)]
mod tests {
    use super::{Class, lex, statements};
    use proptest::prelude::*;

    fn texts(sql: &str) -> Vec<(Class, String)> {
        let lexed = lex(sql, 1);
        assert_eq!(lexed.unterminated, None, "{sql}");
        lexed
            .tokens
            .into_iter()
            .map(|token| (token.class, token.text))
            .collect()
    }

    #[test]
    fn strings_names_and_comments_are_no_keywords() {
        for (sql, class, text) in [
            ("'DROP TABLE a; --'", Class::Text, "DROP TABLE a; --"),
            ("'it''s'", Class::Text, "it's"),
            (r"'back\'", Class::Text, r"back\"),
            (r"E'it\'s'", Class::Text, r"it\'s"),
            ("U&'\\0041'", Class::Text, "\\0041"),
            ("\"Drop\"\"Table\"", Class::Name, "Drop\"Table"),
            ("$$ DROP 'x $$", Class::Text, " DROP 'x "),
            ("$a_1$ $$ $b$ $a_1$", Class::Text, " $$ $b$ "),
            ("DROP", Class::Word, "drop"),
            ("a$b$c", Class::Word, "a$b$c"),
            ("$1", Class::Number, "$1"),
            ("1.5e10", Class::Number, "1.5e10"),
            ("-- DROP\n/* DROP /* nested */ */ x", Class::Word, "x"),
            ("Ärger", Class::Word, "ärger"),
        ] {
            assert_eq!(texts(sql), [(class, text.to_owned())], "{sql}");
        }
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let lexed = lex("a -- b\n/* \n */ 'x\ny' $$\n\n$$ z", 10);
        let lines: Vec<_> = lexed.tokens.iter().map(|token| token.line).collect();
        assert_eq!(lines, [10, 12, 13, 15]);
        assert_eq!(lexed.comments[0].line, 10);
    }

    #[test]
    fn what_never_ends_is_named_by_its_line() {
        for sql in ["a\n'x", "a\n\"x", "a\n$$ x $", "a\n/* /* */", "a\nE'\\'"] {
            assert_eq!(lex(sql, 1).unterminated, Some(2), "{sql}");
        }
    }

    #[test]
    fn a_body_of_standard_sql_stays_with_its_function() {
        let sql = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; \
                   SELECT 2; END; SELECT 3";
        let statements = statements(lex(sql, 1).tokens);
        assert_eq!(statements.len(), 2);
        assert_eq!(statements[1].len(), 2);
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(sql in "(?s)[a-z0-9$'\"/*\\\\;\n -]{0,60}|.{0,40}") {
            let lexed = lex(&sql, 1);
            let lines = u32::try_from(sql.lines().count()).unwrap();
            prop_assert!(lexed.tokens.iter().all(|token| token.line <= lines.max(1) + 1));
        }
    }
}
