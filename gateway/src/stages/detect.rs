//! detect: the point at which inline detection judges a request, between limits and plugins.
//!
//! No detector exists yet, so every request passes. The point is part of the order of stages, and
//! therefore of the contract that detectors will be written against: they see the tenant, and they
//! run before plugins spend anything.

use super::Exchange;
use hub_core::{Refusal, RequestView};

/// Lets every request pass.
pub(super) fn detect(_exchange: &mut Exchange, _view: &RequestView<'_>) -> Result<(), Refusal> {
    Ok(())
}
