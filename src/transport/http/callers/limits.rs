//! What a caller may do, as settings.

use std::{net::IpAddr, time::Duration};

use super::Network;
use crate::transport::peer::is_loopback;

/// The limits of callers. The server holds those of connections and bytes ([`ServerConfig::callers`]), the router the others
/// ([`RouterConfig::callers`]). Each has a default; 0 is no limit.
///
/// [`ServerConfig::callers`]: super::super::ServerConfig::callers
/// [`RouterConfig::callers`]: super::super::RouterConfig::callers
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CallerLimits {
    /// Of each IPv4 address and each IPv6 network of 64 bits.
    pub address: AddressLimits,
    /// Of each address of this machine. Larger by default: whoever is here shares the processors and the memory anyway, and
    /// behind a tunnel that ends here may be everybody.
    pub loopback: AddressLimits,
    /// Registrations a second from all addresses; five seconds' worth may come at once. Default: 200.
    pub registrations: u64,
    /// The most reports that one worker uploads at once. Default: 32, half of what a coordinator receives at once.
    pub worker_uploads: usize,
    /// How long a connection that has shown no valid credentials may take for TLS's handshake, and how long it may be
    /// idle. Default: 10 s.
    pub stranger_idle: Duration,
    /// How many addresses are remembered, and how many workers, at about 200 bytes each. If there are more, those that did
    /// the least are forgotten first. Default: 65 536.
    pub remembered: usize,
    /// Proxies: for requests from there, the caller is the last address of `X-Forwarded-For` or `Forwarded` that is
    /// none of theirs. They have no limits of their own as addresses.
    pub trusted_proxies: Vec<Network>,
}

/// The limits of an address. 0 is no limit.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AddressLimits {
    /// Requests a second; as many may come at once.
    pub requests: u64,
    /// Requests a second of each worker there; as many may come at once.
    pub worker_requests: u64,
    /// Bytes a second that are read; more are read later.
    pub received: u64,
    /// Open connections.
    pub connections: usize,
    /// Open connections that have shown no valid credentials.
    pub strangers: usize,
    /// Registrations a second; five seconds' worth may come at once.
    pub registrations: u64,
    /// Wrong credentials in a minute; further ones are told to wait, longer and longer. Right ones always pass.
    pub failures: u32,
}

impl Default for CallerLimits {
    fn default() -> Self {
        Self {
            address: AddressLimits::default(),
            loopback: AddressLimits::of_loopback(),
            registrations: 200,
            worker_uploads: 32,
            stranger_idle: Duration::from_secs(10),
            remembered: 1 << 16,
            trusted_proxies: Vec::new(),
        }
    }
}

impl Default for AddressLimits {
    /// Those of other machines: 2000 requests, 500 of a worker, 1 GiB and 50 registrations a second, 4096 connections, 256 of
    /// strangers, 10 wrong credentials a minute. A laboratory with a thousand workers behind one address stays below.
    fn default() -> Self {
        Self {
            requests: 2000,
            worker_requests: 500,
            received: 1 << 30,
            connections: 4096,
            strangers: 256,
            registrations: 50,
            failures: 10,
        }
    }
}

impl AddressLimits {
    /// Those of this machine by default: no limit but of connections of strangers (16 384, half of all connections), of
    /// registrations (1000 a second) and of wrong credentials (1000 a minute).
    pub fn of_loopback() -> Self {
        Self {
            requests: 0,
            worker_requests: 0,
            received: 0,
            connections: 0,
            strangers: 16_384,
            registrations: 1000,
            failures: 1000,
        }
    }
}

impl CallerLimits {
    /// The limits of this address.
    pub(super) fn of(&self, address: IpAddr) -> &AddressLimits {
        if is_loopback(address) {
            &self.loopback
        } else {
            &self.address
        }
    }

    pub(super) fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies
            .iter()
            .any(|network| network.contains(address))
    }
}
