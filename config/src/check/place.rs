//! Where in a file something stands: key paths and lines.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One step of a key path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// A key path, as a list from the leaf to the root that lives on the stack: walking ten thousand
/// routes without a problem allocates nothing for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a>(Option<(&'a At<'a>, Step<'a>)>);

/// A parsed TOML file that knows the line of each of its keys.
#[derive(Debug)]
pub(crate) struct Document<'t> {
    root: Option<Spanned<DeTable<'t>>>,
    line_ends: Vec<usize>,
}

impl At<'static> {
    /// The file as a whole.
    pub(crate) const ROOT: Self = At(None);
}

impl<'a> At<'a> {
    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        Self(Some((self, Step::Key(key))))
    }

    pub(crate) fn index(&'a self, index: usize) -> Self {
        Self(Some((self, Step::Index(index))))
    }

    /// From the root to the leaf.
    pub(crate) fn steps(&self) -> Vec<Step<'a>> {
        let mut steps = Vec::new();
        let mut at = *self;
        while let Some((parent, step)) = at.0 {
            steps.push(step);
            at = *parent;
        }
        steps.reverse();
        steps
    }
}

impl<'t> Document<'t> {
    /// Parses `text`. Where it is not TOML, gives every mistake with its line.
    pub(crate) fn parse(text: &'t str) -> Result<Self, Vec<(Option<usize>, String)>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut document = Self::without_text();
        document.line_ends = memchr_lines(text);
        if errors.is_empty() {
            document.root = Some(root);
            return Ok(document);
        }
        Err(errors
            .iter()
            .map(|error| {
                let line = error.span().map(|span| document.line_of(span.start));
                (line, error.message().to_owned())
            })
            .collect())
    }

    /// Stands for a file that is not TOML: key paths without lines.
    pub(crate) fn without_text() -> Self {
        Self {
            root: None,
            line_ends: Vec::new(),
        }
    }

    /// The tree, which is there after [`Document::parse`].
    pub(crate) fn root(&self) -> Option<&DeTable<'t>> {
        self.root.as_ref().map(|root| root.get_ref())
    }

    /// The key path as text, with names in place of numbers where the file gives one, and the line of
    /// the deepest part of it that is there.
    pub(crate) fn place(&self, at: &At<'_>) -> (String, Option<usize>) {
        let mut text = String::new();
        let mut offset = None;
        let mut table = self.root();
        let mut value: Option<&DeValue<'_>> = None;
        let steps = at.steps();
        for (depth, step) in steps.iter().enumerate() {
            match step {
                Step::Key(key) => {
                    let found = table.and_then(|table| table.get_key_value(*key));
                    if let Some((key, inner)) = found {
                        offset = Some(key.span().start);
                        value = Some(inner.get_ref());
                    } else {
                        value = None;
                    }
                    push_key(&mut text, key);
                }
                Step::Index(index) => {
                    let found = value
                        .and_then(DeValue::as_array)
                        .and_then(|a| a.get(*index));
                    if let Some(inner) = found {
                        offset = Some(inner.span().start);
                    }
                    value = found.map(Spanned::get_ref);
                    let name = (depth == 1).then(|| name_of(value)).flatten();
                    match name {
                        Some(name) => text.push_str(&format!(" {name:?}")),
                        None => text.push_str(&format!("[{index}]")),
                    }
                }
            }
            table = value.and_then(DeValue::as_table);
        }
        (text, offset.map(|offset| self.line_of(offset)))
    }

    fn line_of(&self, offset: usize) -> usize {
        self.line_ends.partition_point(|end| *end < offset) + 1
    }
}

fn push_key(text: &mut String, key: &str) {
    if !text.is_empty() {
        text.push('.');
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if !key.is_empty() && key.bytes().all(plain) {
        text.push_str(key);
    } else {
        text.push_str(&format!("{:?}", shorten(key)));
    }
}

/// What a `[[section]]` calls itself.
fn name_of<'v>(value: Option<&'v DeValue<'_>>) -> Option<&'v str> {
    let table = value?.as_table()?;
    let name = table
        .get("name")
        .or_else(|| table.get("id"))?
        .get_ref()
        .as_str()?;
    (!name.is_empty() && name.len() <= 64).then_some(name)
}

fn memchr_lines(text: &str) -> Vec<usize> {
    text.bytes()
        .enumerate()
        .filter_map(|(at, byte)| (byte == b'\n').then_some(at))
        .collect()
}

/// At most 64 characters of what somebody typed, so that a message stays readable.
pub(crate) fn shorten(text: &str) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(64) {
        None => text.into(),
        Some((end, _)) => format!("{}...", &text[..end]).into(),
    }
}
