//! The last refused requests, so that `explain` can say why a request id was refused.
//!
//! Only refusals pay: a lock and a few copied bytes, into memory that is reused. Looking one up is
//! rare and done by a person, so there is no index; the ring is searched in pieces, between which
//! refusals go on.

use hub_core::{Reason, RequestId};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::time::SystemTime;

/// Most bytes kept of a detail and of a route's name.
const TEXT_BYTES_MAX: usize = 256;
/// Ids compared without letting a refusal in between: 256 KiB of memory, some tens of microseconds.
const PIECE: usize = 16_384;

/// A refused request, to be remembered.
#[derive(Clone, Copy, Debug)]
pub struct RefusalNote<'a> {
    /// Its id.
    pub request_id: RequestId,
    /// Why.
    pub reason: Reason,
    /// More about it; cut after 256 bytes.
    pub detail: Option<&'a str>,
    /// Name of the route, where one matched; cut after 256 bytes.
    pub route: Option<&'a str>,
    /// The tenant's id, where one was resolved.
    pub tenant: Option<&'a str>,
    /// The client's address.
    pub client: IpAddr,
    /// When it arrived.
    pub at: SystemTime,
}

/// A refused request, as remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRequest {
    /// Its id.
    pub request_id: RequestId,
    /// Why.
    pub reason: Reason,
    /// More about it; empty where there is no more.
    pub detail: String,
    /// Name of the route; empty where none matched.
    pub route: String,
    /// The tenant's id; empty where none was resolved.
    pub tenant: String,
    /// The client's address.
    pub client: IpAddr,
    /// When it arrived.
    pub at: SystemTime,
}

/// A ring of the last refusals.
///
/// Memory: about 250 bytes for each that is remembered, taken as they come.
#[derive(Debug)]
pub struct Refusals {
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    capacity: usize,
    /// Apart from the rest, so that a search reads 16 bytes each.
    ids: Vec<RequestId>,
    rest: Vec<RefusedRequest>,
    /// Where the next one goes once the ring is full: the oldest.
    next: usize,
}

impl Refusals {
    /// Remembers the last `capacity` refusals; 0 remembers none.
    pub fn new(capacity: usize) -> Self {
        Self {
            ring: Mutex::new(Ring::new(capacity)),
        }
    }

    /// Remembers a refusal in place of the oldest.
    pub fn note(&self, note: &RefusalNote<'_>) {
        self.ring.lock().note(note);
    }

    /// The refusal of a request id, unless it is too long ago or was never refused.
    pub fn find(&self, id: RequestId) -> Option<RefusedRequest> {
        let mut from = 0;
        loop {
            let ring = self.ring.lock();
            let to = ring.ids.len().min(from + PIECE);
            let piece = ring.ids.get(from..to)?;
            if let Some(at) = piece.iter().position(|known| *known == id) {
                return ring.rest.get(from + at).cloned();
            }
            if to == ring.ids.len() {
                return None;
            }
            from = to;
        }
    }

    /// Changes how many are remembered; the youngest stay. Moving and freeing them takes long where
    /// there are many, so it is done without the lock that refusals take; for as long, those from
    /// before are not found.
    pub fn set_capacity(&self, capacity: usize) {
        let mut old = {
            let mut ring = self.ring.lock();
            if capacity == ring.capacity {
                return;
            }
            std::mem::replace(&mut *ring, Ring::new(capacity))
        };
        let youngest = old.rest.len().saturating_sub(capacity);
        let mut ring = Ring::new(capacity);
        for refused in old.take_in_order().skip(youngest) {
            ring.put(refused);
        }
        let mut current = self.ring.lock();
        std::mem::swap(&mut *current, &mut ring);
        // What was refused meanwhile: a few.
        for refused in ring.take_in_order() {
            current.put(refused);
        }
    }

    /// How many are remembered now.
    pub fn len(&self) -> usize {
        self.ring.lock().ids.len()
    }

    /// True where none is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            ids: Vec::new(),
            rest: Vec::new(),
            next: 0,
        }
    }

    /// Everything, from the oldest to the youngest.
    fn take_in_order(&mut self) -> impl Iterator<Item = RefusedRequest> + use<> {
        let mut all = std::mem::take(&mut self.rest);
        all.rotate_left(std::mem::take(&mut self.next));
        all.into_iter()
    }

    /// Puts one in place of the oldest.
    fn put(&mut self, refused: RefusedRequest) {
        if self.ids.len() < self.capacity {
            self.ids.push(refused.request_id);
            self.rest.push(refused);
        } else if let Some(id) = self.ids.get_mut(self.next) {
            *id = refused.request_id;
            self.rest[self.next] = refused;
            self.next = (self.next + 1) % self.capacity;
        }
    }

    fn note(&mut self, note: &RefusalNote<'_>) {
        if self.ids.len() < self.capacity {
            self.ids.push(note.request_id);
            self.rest.push(RefusedRequest {
                request_id: note.request_id,
                reason: note.reason,
                detail: bounded(note.detail).to_owned(),
                route: bounded(note.route).to_owned(),
                tenant: bounded(note.tenant).to_owned(),
                client: note.client,
                at: note.at,
            });
            return;
        }
        let (Some(id), Some(oldest)) = (self.ids.get_mut(self.next), self.rest.get_mut(self.next))
        else {
            // The capacity is nought.
            return;
        };
        *id = note.request_id;
        oldest.request_id = note.request_id;
        oldest.reason = note.reason;
        oldest.client = note.client;
        oldest.at = note.at;
        for (text, new) in [
            (&mut oldest.detail, note.detail),
            (&mut oldest.route, note.route),
            (&mut oldest.tenant, note.tenant),
        ] {
            text.clear();
            text.push_str(bounded(new));
        }
        self.next = (self.next + 1) % self.capacity;
    }
}

fn bounded(text: Option<&str>) -> &str {
    let text = text.unwrap_or_default();
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn id(number: u16) -> RequestId {
        let [high, low] = number.to_be_bytes();
        RequestId::new(u64::from(number), [high, low, 0, 0, 0, 0, 0, 0, 0, 1])
    }

    fn note(number: u16) -> RefusalNote<'static> {
        RefusalNote {
            request_id: id(number),
            reason: Reason::TenantLimited,
            detail: Some("limit `burst`"),
            route: Some("contacts"),
            tenant: None,
            client: [192, 0, 2, 7].into(),
            at: UNIX_EPOCH + Duration::from_secs(number.into()),
        }
    }

    fn remembered(refusals: &Refusals, numbers: impl Iterator<Item = u16>) -> Vec<u16> {
        numbers
            .filter(|number| refusals.find(id(*number)).is_some())
            .collect()
    }

    #[test]
    fn a_refusal_is_found_with_all_that_was_known() {
        let refusals = Refusals::new(3);
        refusals.note(&note(7));
        let expected = RefusedRequest {
            request_id: id(7),
            reason: Reason::TenantLimited,
            detail: "limit `burst`".into(),
            route: "contacts".into(),
            tenant: String::new(),
            client: [192, 0, 2, 7].into(),
            at: UNIX_EPOCH + Duration::from_secs(7),
        };
        assert_eq!(refusals.find(id(7)), Some(expected));
        assert_eq!(refusals.find(id(8)), None);
    }

    #[test]
    fn the_oldest_makes_room_and_leaves_nothing_behind() {
        let refusals = Refusals::new(3);
        for number in 0..8 {
            refusals.note(&note(number));
        }
        assert_eq!(remembered(&refusals, 0..9), [5, 6, 7]);
        let bare = RefusalNote {
            detail: None,
            route: None,
            tenant: Some("loc_1"),
            reason: Reason::NoRoute,
            ..note(8)
        };
        refusals.note(&bare);
        let found = refusals.find(id(8)).expect("remembered");
        assert_eq!((found.detail.as_str(), found.route.as_str()), ("", ""));
        assert_eq!(
            (found.tenant.as_str(), found.reason),
            ("loc_1", Reason::NoRoute)
        );
        assert_eq!(refusals.len(), 3);
    }

    #[test]
    fn a_capacity_of_nought_remembers_nothing() {
        let refusals = Refusals::new(0);
        refusals.note(&note(1));
        assert!(refusals.is_empty());
        assert_eq!(refusals.find(id(1)), None);
    }

    #[test]
    fn a_new_capacity_keeps_the_youngest_and_their_order() {
        let refusals = Refusals::new(5);
        for number in 0..8 {
            refusals.note(&note(number));
        }
        refusals.set_capacity(2);
        assert_eq!(remembered(&refusals, 0..9), [6, 7]);
        refusals.note(&note(8));
        assert_eq!(remembered(&refusals, 0..9), [7, 8]);
        refusals.set_capacity(4);
        for number in 9..12 {
            refusals.note(&note(number));
        }
        assert_eq!(remembered(&refusals, 0..12), [8, 9, 10, 11]);
        refusals.set_capacity(0);
        refusals.note(&note(12));
        assert!(refusals.is_empty());
    }

    #[test]
    fn a_ring_larger_than_one_piece_is_searched_to_its_end() {
        let refusals = Refusals::new(40_000);
        for number in 0..40_000 {
            refusals.note(&note(number));
        }
        assert_eq!(
            remembered(&refusals, [0, 16_383, 16_384, 39_999, 40_000].into_iter()),
            [0, 16_383, 16_384, 39_999]
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "ü".repeat(1_000) + "x";
        let refusals = Refusals::new(1);
        let mut odd = note(1);
        let shifted = format!("x{long}");
        odd.detail = Some(&shifted);
        refusals.note(&odd);
        assert_eq!(refusals.find(id(1)).expect("remembered").detail.len(), 255);
    }
}
