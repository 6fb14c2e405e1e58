//! Which of the offered sockets belong to which listener.

use hub_config::runtime::AdminAddress;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A socket that the old process would hand over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offered {
    pub(super) role: Role,
    pub(super) at: Place,
    /// A service manager keeps it, too, so it must not be left without anybody who serves it.
    pub(super) kept: bool,
}

/// What a socket is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    /// The public listener of this name.
    Listener(String),
    /// The admin API.
    Admin,
}

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What is offered, and what of it is claimed so far, in order.
#[derive(Debug)]
pub(super) struct Offer {
    sockets: Vec<Offered>,
    claims: Vec<usize>,
}

impl Place {
    fn is(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            // Port 0 is any port.
            (Self::Tcp(at), Self::Tcp(wanted)) => {
                at == wanted || (wanted.port() == 0 && at.ip() == wanted.ip())
            }
            (Self::Unix(at), Self::Unix(wanted)) => at == wanted,
            (Self::Tcp(_), Self::Unix(_)) | (Self::Unix(_), Self::Tcp(_)) => false,
        }
    }
}

impl From<&AdminAddress> for Place {
    fn from(address: &AdminAddress) -> Self {
        match address {
            AdminAddress::Tcp(address) => Self::Tcp(*address),
            AdminAddress::Unix(path) => Self::Unix(path.clone()),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Offer {
    pub(super) fn new(sockets: Vec<Offered>) -> Self {
        Self {
            sockets,
            claims: Vec::new(),
        }
    }

    /// Claims the socket for `role` at `wanted`: that of the same name where it is bound there, else any
    /// listener's that is bound to exactly this address, since a listener may have got another name.
    pub(super) fn claim(&mut self, role: &Role, wanted: &Place) -> Option<(usize, Offered)> {
        let free = |position: &usize| !self.claims.contains(position);
        let same = |one: &Offered| one.role == *role && one.at.is(wanted);
        let moved = |one: &Offered| {
            let both_listeners = *role != Role::Admin && one.role != Role::Admin;
            both_listeners && one.at == *wanted
        };
        let find = |fits: &dyn Fn(&Offered) -> bool| {
            let mut positions = (0..self.sockets.len()).filter(free);
            positions.find(|position| fits(&self.sockets[*position]))
        };
        let found = find(&same).or_else(|| find(&moved))?;
        self.claims.push(found);
        Some((found, self.sockets[found].clone()))
    }

    /// Positions of what was claimed, in order.
    pub(super) fn claims(&self) -> &[usize] {
        &self.claims
    }

    /// What nobody has claimed.
    pub(super) fn left(&self) -> impl Iterator<Item = &Offered> {
        let sockets = self.sockets.iter().enumerate();
        sockets.filter_map(|(position, one)| (!self.claims.contains(&position)).then_some(one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Place {
        Place::Tcp(text.parse().expect("an address"))
    }

    fn listener(name: &str) -> Role {
        Role::Listener(name.to_owned())
    }

    fn offer(sockets: &[(Role, &str)]) -> Offer {
        let sockets = sockets.iter().map(|(role, address)| Offered {
            role: role.clone(),
            at: at(address),
            kept: false,
        });
        Offer::new(sockets.collect())
    }

    #[test]
    fn a_listener_gets_the_socket_of_its_name_and_place() {
        let mut offer = offer(&[
            (listener("a"), "127.0.0.1:1000"),
            (listener("b"), "127.0.0.1:2000"),
            (Role::Admin, "127.0.0.1:9900"),
        ]);
        let claim = |offer: &mut Offer, role: &Role, place| {
            offer.claim(role, &at(place)).map(|(position, _)| position)
        };
        // Any port of that address, and only once.
        assert_eq!(claim(&mut offer, &listener("b"), "127.0.0.1:0"), Some(1));
        assert_eq!(claim(&mut offer, &listener("b"), "127.0.0.1:0"), None);
        assert_eq!(claim(&mut offer, &listener("a"), "127.0.0.1:1000"), Some(0));
        assert_eq!(claim(&mut offer, &Role::Admin, "127.0.0.1:9900"), Some(2));
        assert_eq!(offer.claims(), [1, 0, 2]);
        assert_eq!(offer.left().count(), 0);
    }

    #[test]
    fn a_listener_that_was_renamed_keeps_its_socket_and_one_that_moved_does_not() {
        let mut offer = offer(&[
            (listener("old"), "127.0.0.1:1000"),
            (listener("b"), "127.0.0.1:2000"),
        ]);
        let renamed = offer.claim(&listener("new"), &at("127.0.0.1:1000"));
        assert_eq!(renamed.map(|(position, _)| position), Some(0));
        assert!(offer.claim(&listener("b"), &at("127.0.0.1:3000")).is_none());
        // Port 0 under another name is a new listener.
        assert!(offer.claim(&listener("c"), &at("127.0.0.1:0")).is_none());
        assert_eq!(offer.left().count(), 1);
    }

    #[test]
    fn the_admin_api_and_listeners_do_not_take_each_other_s_sockets() {
        let mut offer = offer(&[(listener("a"), "127.0.0.1:1"), (Role::Admin, "127.0.0.1:2")]);
        assert!(offer.claim(&Role::Admin, &at("127.0.0.1:1")).is_none());
        assert!(offer.claim(&listener("a"), &at("127.0.0.1:2")).is_none());
    }
}
