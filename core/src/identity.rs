//! Who a request proved to be.

use crate::LocationId;
use std::time::SystemTime;

/// What a credential proved. Made by an identify plugin only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who: a JWT's `sub`, or an API key's configured name. Bounded to 256 bytes by its maker.
    pub subject: Box<str>,
    /// The tenant that the credential itself names (a JWT claim, an API key's owner). Where it is
    /// present it is the canonical source of the tenant.
    pub tenant: Option<LocationId>,
    /// Which kind of credential it was.
    pub method: IdentityMethod,
    /// When the credential expires, without the leeway that its checker may have given; `None`: never.
    pub expires: Option<SystemTime>,
}

/// The kind of credential behind an [`Identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdentityMethod {
    /// A signed JSON Web Token.
    Jwt,
    /// A pre-shared API key.
    ApiKey,
}

impl IdentityMethod {
    /// As logs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::ApiKey => "api_key",
        }
    }
}
