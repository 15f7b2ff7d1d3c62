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
    /// A program at this address that has shown a TLS certificate which the server accepts.
    Certified {
        /// The address.
        address: SocketAddr,
        /// SHA-256 of the certificate.
        certificate: [u8; 32],
    },
    /// A program at this address, as a trusted proxy says; port 0 if it does not say which. Never counts as here.
    Forwarded(SocketAddr),
    /// The transport can't say.
    #[default]
    Unknown,
}

impl Peer {
    /// Whether it is surely on this machine: in this process, or at a loopback address.
    pub fn is_here(self) -> bool {
        match self {
            Self::InProcess => true,
            Self::Forwarded(_) => false,
            // A server that does not know the caller must not open a coordinator without a token to everybody.
            _ => self
                .address()
                .is_some_and(|address| is_loopback(address.ip())),
        }
    }

    /// Its address, if it has one that is known.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) | Self::Forwarded(address) | Self::Certified { address, .. } => {
                Some(address)
            }
            Self::InProcess | Self::Unknown => None,
        }
    }

    /// SHA-256 of the certificate that it has shown.
    pub fn certificate(self) -> Option<[u8; 32]> {
        match self {
            Self::Certified { certificate, .. } => Some(certificate),
            _ => None,
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
