//! The address that a coordinator listens on, and the one that workers and operators use.
//!
//! Values of arguments, and what they mean on this machine; it must never open a socket.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use super::{
    Failure,
    tailscale::{LocalAddress, candidates, none_found},
    values::bind_address,
};
use crate::transport::http::DEFAULT_PORT;

/// Means this machine's Tailscale address.
const TAILSCALE: &str = "tailscale";

/// The usual port of TLS.
const HTTPS_PORT: u16 = 443;

/// What to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bind {
    /// On this address.
    Address(SocketAddr),
    /// On this machine's Tailscale address, whatever it is.
    Tailscale {
        /// The port; 0 is any free one.
        port: u16,
    },
}

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match of_tailscale(text)? {
            Some(port) => Ok(Self::Tailscale {
                port: port.unwrap_or(DEFAULT_PORT),
            }),
            None => bind_address(text).map(Self::Address),
        }
    }
}

impl Bind {
    /// The address, if these are the machine's.
    pub(super) fn resolve(self, addresses: &[LocalAddress]) -> Result<SocketAddr, Failure> {
        match self {
            Self::Address(address) => Ok(address),
            Self::Tailscale { port } => Ok(SocketAddr::new(
                tailscale_address("--bind", addresses)?,
                port,
            )),
        }
    }
}

/// How a URL says whether there is TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// The beginning of a URL.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Http => "http://",
            Self::Https => "https://",
        }
    }
}

/// By which address others reach a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advertise {
    /// By this host.
    Host {
        /// Whether there is TLS, if not as the coordinator itself has it: what is in front of it may add it.
        scheme: Option<Scheme>,
        /// A name, or an address as a URL has it.
        host: String,
        /// The port, if it is not the one that the coordinator listens on.
        port: Option<u16>,
    },
    /// By this machine's Tailscale address.
    Tailscale {
        /// The port, if it is not the one that the coordinator listens on.
        port: Option<u16>,
    },
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // As the coordinator prints it, so that it can be copied from there.
        let mut scheme = None;
        let mut text = text;
        for known in [Scheme::Http, Scheme::Https] {
            if let Some(rest) = text.strip_prefix(known.prefix()) {
                (scheme, text) = (Some(known), rest);
                break;
            }
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        if let Some(port) = of_tailscale(text)? {
            return Ok(Self::Tailscale {
                port: port.map(above_zero).transpose()?,
            });
        }
        // Before the text is split at a colon: an address of IPv6 has several.
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Self::of_ip(scheme, address.ip(), Some(above_zero(address.port())?));
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Self::of_ip(scheme, address, None);
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(above_zero(port_of(port)?)?)),
            None => (text, None),
        };
        let is_usual =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_');
        // Digits alone are no host: a user who writes `8000` means a port.
        if host.contains(|letter: char| letter.is_ascii_alphabetic()) && host.chars().all(is_usual)
        {
            Ok(Self::Host {
                scheme,
                host: host.to_string(),
                port,
            })
        } else {
            Err(
                "not a host; give one such as lab.tailnet.ts.net, 100.64.0.1:8000 or tailscale"
                    .to_string(),
            )
        }
    }
}

impl Advertise {
    fn of_ip(scheme: Option<Scheme>, address: IpAddr, port: Option<u16>) -> Result<Self, String> {
        if address.is_unspecified() {
            return Err(format!(
                "{address} means every address of a machine; give one that workers can use"
            ));
        }
        let host = in_url(address);
        Ok(Self::Host { scheme, host, port })
    }

    /// The host and perhaps the port, if these are the machine's addresses.
    pub(super) fn resolve(&self, addresses: &[LocalAddress]) -> Result<Place, Failure> {
        let (scheme, host, port) = match self {
            Self::Host { scheme, host, port } => (*scheme, host.clone(), *port),
            Self::Tailscale { port } => {
                let address = tailscale_address("--advertise", addresses)?;
                (None, in_url(address), *port)
            }
        };
        Ok(Place { scheme, host, port })
    }

    /// Whether it leads back to this machine alone.
    pub(super) fn is_loopback(&self) -> bool {
        match self {
            Self::Host { host, .. } => {
                // Brackets: it is kept as a URL has it. Canonical: `::ffff:127.0.0.1` is this machine, too.
                let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
                host == "localhost"
                    || address.is_ok_and(|address| address.to_canonical().is_loopback())
            }
            Self::Tailscale { .. } => false,
        }
    }
}

/// By which address others reach a coordinator, whatever port it turns out to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    scheme: Option<Scheme>,
    host: String,
    port: Option<u16>,
}

impl Place {
    /// A name, or an address as a URL has it.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Whether there is TLS, for a coordinator that has it or not by itself.
    pub(super) fn scheme(&self, own: Scheme) -> Scheme {
        self.scheme.unwrap_or(own)
    }

    /// The URL for a coordinator that listens on this port. Without a port of its own, it is that one; or 443 if TLS comes from
    /// what is in front of the coordinator, which has that port mostly.
    pub(super) fn url(&self, own: Scheme, listening: u16) -> String {
        let scheme = self.scheme(own);
        let has_proxy = own == Scheme::Http && scheme == Scheme::Https;
        let usual = if has_proxy { HTTPS_PORT } else { listening };
        let port = self.port.unwrap_or(usual);
        format!("{}{}:{port}", scheme.prefix(), self.host)
    }
}

/// The URL of a socket.
pub(super) fn url_of(scheme: Scheme, address: SocketAddr) -> String {
    format!("{}{address}", scheme.prefix())
}

/// The URL by which a coordinator that listens here is reached, if that is an address of one machine and one place.
pub(super) fn reached_at(scheme: Scheme, listening: SocketAddr) -> Option<String> {
    let needs_scope =
        matches!(listening.ip(), IpAddr::V6(address) if address.is_unicast_link_local());
    // A link-local address means another machine on each of a machine's networks.
    if listening.ip().is_unspecified() || needs_scope {
        None
    } else {
        Some(url_of(scheme, listening))
    }
}

/// `tailscale`, or `tailscale:PORT` with its port.
fn of_tailscale(text: &str) -> Result<Option<Option<u16>>, String> {
    match text.strip_prefix(TAILSCALE) {
        Some("") => Ok(Some(None)),
        Some(rest) => match rest.strip_prefix(':') {
            Some(port) => port_of(port).map(Some).map(Some),
            // A host whose name begins like the word, `tailscaled` for example.
            None => Ok(None),
        },
        None => Ok(None),
    }
}

fn port_of(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{text:?} is not a port"))
}

fn above_zero(port: u16) -> Result<u16, String> {
    match port {
        0 => Err(
            "no machine can be reached by port 0; give the port that the coordinator listens on"
                .to_string(),
        ),
        port => Ok(port),
    }
}

fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// This machine's Tailscale address, which the flag asks for; the log says which it is, and which others there are.
fn tailscale_address(flag: &str, addresses: &[LocalAddress]) -> Result<IpAddr, Failure> {
    let found = candidates(addresses);
    let Some((taken, others)) = found.split_first() else {
        let problem = none_found(addresses);
        return Err(Failure::Usage(format!("{flag} {TAILSCALE}: {problem}")));
    };
    let others: Vec<_> = others.iter().map(ToString::to_string).collect();
    let others = if others.is_empty() {
        "none".to_string()
    } else {
        others.join(", ")
    };
    let LocalAddress { interface, address } = taken;
    tracing::info!(%address, interface, others, "took this machine's Tailscale address");
    Ok(*address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::http::{ClientConfig, HttpTransport};

    fn machine(addresses: &[&str]) -> Vec<LocalAddress> {
        let local = |address: &&str| LocalAddress {
            interface: "net0".to_string(),
            address: address.parse().unwrap(),
        };
        addresses.iter().map(local).collect()
    }

    #[test]
    fn tailscale_means_the_machines_address_there() {
        let addresses = machine(&["192.168.1.5", "100.64.0.7"]);
        for (text, expected) in [
            ("tailscale", "100.64.0.7:8000"),
            ("tailscale:9000", "100.64.0.7:9000"),
            ("tailscale:0", "100.64.0.7:0"),
            ("100.99.0.1", "100.99.0.1:8000"),
            ("0.0.0.0:9000", "0.0.0.0:9000"),
        ] {
            let bind: Bind = text.parse().unwrap();
            assert_eq!(bind.resolve(&addresses).unwrap().to_string(), expected);
        }
        for text in ["tailscale:", "tailscale:99999", "tailscale6", "tailscaled"] {
            assert!(text.parse::<Bind>().is_err(), "{text}");
        }
        let six = machine(&["192.168.1.5", "fd7a:115c:a1e0::7"]);
        let bind: Bind = "tailscale".parse().unwrap();
        assert_eq!(
            bind.resolve(&six).unwrap().to_string(),
            "[fd7a:115c:a1e0::7]:8000"
        );
    }

    #[test]
    fn without_a_tailscale_address_the_flag_is_a_usage_error() {
        let addresses = machine(&["192.168.1.5"]);
        let bind: Bind = "tailscale".parse().unwrap();
        let advertise: Advertise = "tailscale".parse().unwrap();
        for (flag, failure) in [
            ("--bind tailscale: ", bind.resolve(&addresses).unwrap_err()),
            (
                "--advertise tailscale: ",
                advertise.resolve(&addresses).unwrap_err(),
            ),
        ] {
            assert_eq!(failure.code(), 2);
            let text = failure.to_string();
            assert!(
                text.starts_with(flag) && text.contains("192.168.1.5 (net0)"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_advertised_address_is_one_that_a_worker_takes() {
        let addresses = machine(&["100.64.0.7"]);
        for (text, expected) in [
            ("lab", "http://lab:8123"),
            ("lab.tailnet.ts.net:80", "http://lab.tailnet.ts.net:80"),
            ("http://lab:9000/", "http://lab:9000"),
            ("https://lab", "https://lab:443"),
            ("https://lab:8443", "https://lab:8443"),
            ("http://lab", "http://lab:8123"),
            ("203.0.113.7", "http://203.0.113.7:8123"),
            ("203.0.113.7:9000", "http://203.0.113.7:9000"),
            ("fd7a:115c:a1e0::1", "http://[fd7a:115c:a1e0::1]:8123"),
            (
                "[fd7a:115c:a1e0::1]:9000",
                "http://[fd7a:115c:a1e0::1]:9000",
            ),
            ("tailscale", "http://100.64.0.7:8123"),
            ("tailscale:9000", "http://100.64.0.7:9000"),
        ] {
            let advertise: Advertise = text.parse().unwrap();
            let url = advertise
                .resolve(&addresses)
                .unwrap()
                .url(Scheme::Http, 8123);
            assert_eq!(url, expected, "{text}");
            assert!(
                HttpTransport::new(&url, ClientConfig::default()).is_ok(),
                "{url}"
            );
        }
        // With TLS of its own, the coordinator listens on the port that it means.
        let advertise: Advertise = "https://lab".parse().unwrap();
        let place = advertise.resolve(&addresses).unwrap();
        assert_eq!(place.url(Scheme::Https, 8123), "https://lab:8123");
        for text in [
            "",
            ":8000",
            "8000",
            "lab:0",
            "lab:99999",
            "lab:",
            "la b",
            "ftp://lab",
            "lab/path",
            "a@b",
            "0.0.0.0",
            "[::]:8000",
            "203.0.113.7:0",
            "tailscale:0",
        ] {
            assert!(text.parse::<Advertise>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_address_at_once_is_none_to_reach_a_machine_by() {
        for (listening, expected) in [
            ("100.64.0.1:8000", Some("http://100.64.0.1:8000")),
            (
                "[fd7a:115c:a1e0::1]:8000",
                Some("http://[fd7a:115c:a1e0::1]:8000"),
            ),
            ("127.0.0.1:8000", Some("http://127.0.0.1:8000")),
            ("0.0.0.0:8000", None),
            ("[::]:8000", None),
            ("[fe80::1%2]:8000", None),
        ] {
            let reached = reached_at(Scheme::Http, listening.parse().unwrap());
            assert_eq!(reached.as_deref(), expected);
        }
        for (text, is_loopback) in [
            ("localhost", true),
            ("127.0.0.1:9000", true),
            ("[::1]", true),
            ("lab", false),
            ("100.64.0.1", false),
            ("tailscale", false),
        ] {
            let advertise: Advertise = text.parse().unwrap();
            assert_eq!(advertise.is_loopback(), is_loopback, "{text}");
        }
    }
}
