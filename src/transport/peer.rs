//! The sender of a request.

use std::net::{IpAddr, SocketAddr};

use crate::protocol::Token;

/// Where a request comes from, as far as the transport knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Peer {
    /// Code in this process.
    InProcess,
    /// A program at this address.
    Address(SocketAddr),
    /// The transport can't say.
    #[default]
    Unknown,
}

impl Peer {
    /// Whether it is surely on this machine: in this process, or at a loopback address.
    pub fn is_here(self) -> bool {
        match self {
            Self::InProcess => true,
            Self::Address(address) => is_loopback(address.ip()),
            // A server that does not know the caller must not open a coordinator without a token to everybody.
            Self::Unknown => false,
        }
    }
}

/// Whether only this machine has the address, an IPv4 one within IPv6 included.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The operator that asks: its address, and the token that it shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    /// Where the request comes from.
    pub peer: Peer,
    /// The token that was shown, if any.
    pub token: Option<Token>,
}

impl Caller {
    /// Code in this process. A coordinator trusts it, since it holds the coordinator; a client of a remote coordinator
    /// shows the token that it was made with.
    pub fn in_process() -> Self {
        Self {
            peer: Peer::InProcess,
            token: None,
        }
    }

    /// A caller from this place who showed this token, or none.
    pub fn new(peer: Peer, token: Option<Token>) -> Self {
        Self { peer, token }
    }
}
