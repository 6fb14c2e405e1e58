//! What the rules of a ledger have an engine do.

/// Decided in one place for every engine, between its reading and its writing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Write<T> {
    /// Nothing: this is kept already.
    Kept(T),
    /// Write this down.
    New(T),
}
