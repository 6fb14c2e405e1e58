//! What is asked for.

use super::payload;
use hub_testkit::load::spread;
use serde::Serialize;

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// GET on a kept HTTP/1.1 connection.
    Get1,
    /// GET over HTTP/2.
    Get2,
    /// POST with a body, on HTTP/1.1.
    Post1,
    /// POST with a body, over HTTP/2.
    Post2,
    /// POST whose body is sent in pieces with pauses, on HTTP/1.1.
    Upload1,
    /// The same over HTTP/2.
    Upload2,
    /// GET whose answer comes in pieces with pauses, on HTTP/1.1.
    Drip1,
    /// The same over HTTP/2.
    Drip2,
    /// Upgrade, one message there and back, end.
    WebSocket,
}

/// How many of 1,000 requests are of which kind.
#[derive(Clone, Debug)]
pub(crate) struct Mix(Vec<(Kind, u64)>);

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'t> {
    pub(crate) kind: Kind,
    pub(crate) tenant: &'t str,
    /// Which payload it sends, or is to be answered with.
    pub(crate) payload: usize,
}

// === impl Kind ===

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Get1,
        Self::Get2,
        Self::Post1,
        Self::Post2,
        Self::Upload1,
        Self::Upload2,
        Self::Drip1,
        Self::Drip2,
        Self::WebSocket,
    ];

    /// As tables name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get1 => "HTTP/1.1 GET",
            Self::Get2 => "HTTP/2 GET",
            Self::Post1 => "HTTP/1.1 POST",
            Self::Post2 => "HTTP/2 POST",
            Self::Upload1 => "HTTP/1.1 slow upload",
            Self::Upload2 => "HTTP/2 slow upload",
            Self::Drip1 => "HTTP/1.1 slow answer",
            Self::Drip2 => "HTTP/2 slow answer",
            Self::WebSocket => "WebSocket",
        }
    }

    pub(crate) fn is_http2(self) -> bool {
        matches!(self, Self::Get2 | Self::Post2 | Self::Upload2 | Self::Drip2)
    }

    /// It may be sent twice (RFC 9110, 9.2.2). A WebSocket may not: what it carries is not known.
    pub(crate) fn is_idempotent(self) -> bool {
        matches!(self, Self::Get1 | Self::Get2 | Self::Drip1 | Self::Drip2)
    }

    pub(crate) fn is_post(self) -> bool {
        matches!(
            self,
            Self::Post1 | Self::Post2 | Self::Upload1 | Self::Upload2
        )
    }

    pub(crate) fn is_slow_upload(self) -> bool {
        matches!(self, Self::Upload1 | Self::Upload2)
    }
}

// === impl Mix ===

impl Mix {
    /// For switches: a fifth has bodies, a twentieth is slow.
    pub(crate) fn switch() -> Self {
        Self(vec![
            (Kind::Get1, 450),
            (Kind::Get2, 300),
            (Kind::Post1, 100),
            (Kind::Post2, 100),
            (Kind::Upload1, 15),
            (Kind::Upload2, 10),
            (Kind::Drip1, 15),
            (Kind::Drip2, 10),
        ])
    }

    /// For bad colours: a tenth is POST, a fiftieth WebSocket.
    pub(crate) fn greens() -> Self {
        Self(vec![
            (Kind::Get1, 580),
            (Kind::Get2, 300),
            (Kind::Post1, 70),
            (Kind::Post2, 30),
            (Kind::WebSocket, 20),
        ])
    }

    /// As many of each.
    #[cfg(test)]
    pub(super) fn of(kinds: &[Kind]) -> Self {
        let share = 1_000_u64.div_ceil(kinds.len() as u64);
        Self(kinds.iter().map(|kind| (*kind, share)).collect())
    }

    fn kind(&self, drawn: u64) -> Kind {
        let mut left = drawn % 1_000;
        for (kind, share) in &self.0 {
            match left.checked_sub(*share) {
                Some(less) => left = less,
                None => return *kind,
            }
        }
        Kind::Get1
    }
}

// === impl Request ===

impl<'t> Request<'t> {
    /// Request number `number`: the same on every run.
    pub(crate) fn draw(number: u64, mix: &Mix, tenants: &'t [String]) -> Self {
        let drawn = spread(number);
        let pick = |shift: u32, among: usize| (drawn >> shift) as usize % among;
        Self {
            kind: mix.kind(drawn >> 48),
            tenant: &tenants[pick(16, tenants.len())],
            payload: pick(0, payload::COUNT),
        }
    }

    pub(crate) fn path(&self) -> String {
        match self.kind {
            Kind::Get1 | Kind::Get2 => format!("/items/{}", self.payload),
            Kind::Drip1 | Kind::Drip2 => format!("/drip/{}", self.payload),
            Kind::Post1 | Kind::Post2 | Kind::Upload1 | Kind::Upload2 => "/echo".to_owned(),
            Kind::WebSocket => "/ws".to_owned(),
        }
    }
}
