//! Networks of proxies that are trusted to say whose request they pass on.

use std::{fmt, net::IpAddr, str::FromStr};

use axum::http::HeaderMap;
use thiserror::Error;

/// An address, or a network in CIDR notation: `10.0.0.7`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// What is no address and no network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} must be an address, or a network such as 10.0.0.0/8")]
pub struct NetworkError(String);

impl Network {
    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }

    /// Whether every address of its kind is in it.
    pub fn is_all(&self) -> bool {
        self.bits == 0
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError(text.to_string());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| wrong())?,
            None => most,
        };
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.bits)
    }
}

/// The last address that a chain of proxies names and that is none of theirs. None if there is no such address, or if
/// what stands there can't be read: what is before it could have been made up.
pub(super) fn forwarded_for(
    headers: &HeaderMap,
    is_proxy: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    // One header alone: a proxy that writes one may pass the other one on from the caller.
    let mut hops = Vec::new();
    for value in headers.get_all("x-forwarded-for") {
        hops.extend(value.to_str().ok()?.split(','));
    }
    if hops.is_empty() {
        for value in headers.get_all("forwarded") {
            for element in value.to_str().ok()?.split(',') {
                hops.push(for_of(element)?);
            }
        }
    }
    for hop in hops.into_iter().rev() {
        let address = address_of(hop)?;
        if !is_proxy(address) {
            return Some(address);
        }
    }
    None
}

/// The value of `for` in an element of `Forwarded`.
fn for_of(element: &str) -> Option<&str> {
    for pair in element.split(';') {
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") {
            return Some(value.trim().trim_matches('"'));
        }
    }
    None
}

/// An address, with or without brackets and a port.
fn address_of(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    Some(inner.parse::<IpAddr>().ok()?.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_they_say() {
        for (network, address, is_in) in [
            ("10.0.0.0/8", "10.200.3.4", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.6", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fd12::1", true),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.contains(address.parse().unwrap()),
                is_in,
                "{network} {address}"
            );
        }
        for wrong in [
            "",
            "proxy",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "fd00::/129",
            "10.0.0.1:80",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_last_address_that_is_no_proxys_counts() {
        let proxies: Network = "10.0.0.0/8".parse().unwrap();
        for (name, value, caller) in [
            ("x-forwarded-for", "1.1.1.1", Some("1.1.1.1")),
            // The first one is what the caller says of itself.
            (
                "x-forwarded-for",
                "6.6.6.6, 1.1.1.1, 10.0.0.2",
                Some("1.1.1.1"),
            ),
            ("x-forwarded-for", "6.6.6.6, nonsense, 10.0.0.2", None),
            ("x-forwarded-for", "10.0.0.2", None),
            ("x-forwarded-for", "1.1.1.1:4711", Some("1.1.1.1")),
            (
                "forwarded",
                "for=6.6.6.6, for=\"[2001:db8::1]:80\";proto=https",
                Some("2001:db8::1"),
            ),
            ("forwarded", "for=unknown", None),
            ("forwarded", "proto=https", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            let found = forwarded_for(&headers, |address| proxies.contains(address));
            assert_eq!(
                found,
                caller.map(|caller| caller.parse().unwrap()),
                "{value}"
            );
        }
    }
}
