//! Finds this machine's Tailscale address among those of its network interfaces.
//!
//! It looks at the ranges that Tailscale assigns from and at the interfaces' names; it must never ask `tailscaled`, nor
//! take an address that is not there.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use sysinfo::Networks;

/// The ranges that Tailscale assigns addresses from, for people.
const RANGES: &str = "100.64.0.0/10 or fd7a:115c:a1e0::/48";

/// The most addresses that an error names.
const MOST_NAMED: usize = 16;

/// An address of this machine. Their order is by interface, and there by address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LocalAddress {
    pub interface: String,
    pub address: IpAddr,
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.address, self.interface)
    }
}

/// The addresses of this machine's interfaces, in order.
pub(super) fn local_addresses() -> Vec<LocalAddress> {
    let networks = Networks::new_with_refreshed_list();
    let mut addresses: Vec<_> = networks
        .iter()
        .flat_map(|(interface, data)| {
            data.ip_networks().iter().map(|network| LocalAddress {
                interface: interface.clone(),
                address: network.addr,
            })
        })
        .collect();
    // sysinfo's map has no order, and the same machine must take the same address at each start.
    addresses.sort();
    addresses
}

/// The Tailscale addresses among these, the one to take first: one of an interface with Tailscale's name before those of
/// others, since an internet provider may have assigned it; there IPv4 before IPv6; else in order.
pub(super) fn candidates(addresses: &[LocalAddress]) -> Vec<&LocalAddress> {
    let mut found: Vec<_> = addresses
        .iter()
        .filter(|local| is_of_tailscale(local.address))
        .collect();
    found.sort_by_key(|local| {
        let is_elsewhere = !has_its_name(&local.interface);
        (is_elsewhere, local.address.is_ipv6(), *local)
    });
    found
}

/// Why there is none, and what to do about it.
pub(super) fn none_found(addresses: &[LocalAddress]) -> String {
    let mut named: Vec<_> = addresses.iter().map(LocalAddress::to_string).collect();
    if named.len() > MOST_NAMED {
        let more = named.len() - MOST_NAMED;
        named.truncate(MOST_NAMED);
        named.push(format!("{more} more"));
    }
    let has = if named.is_empty() {
        "no addresses".to_string()
    } else {
        named.join(", ")
    };
    format!(
        "this machine has no Tailscale address, which would be in {RANGES}. It has {has}. Is tailscaled running? \
         `tailscale up` connects this machine; or name the address itself"
    )
}

/// Whether Tailscale assigns such addresses. Internet providers assign from the range of IPv4, too (RFC 6598).
pub(super) fn is_of_tailscale(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let is_shared = is_within(address, Ipv4Addr::new(100, 64, 0, 0), 10);
            // ChromeOS has these for its own virtual machines, and Tailscale leaves them out.
            is_shared && !is_within(address, Ipv4Addr::new(100, 115, 92, 0), 23)
        }
        IpAddr::V6(address) => {
            let prefix = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0);
            address.segments()[..3] == prefix.segments()[..3]
        }
    }
}

fn is_within(address: Ipv4Addr, network: Ipv4Addr, bits: u32) -> bool {
    (address.to_bits() ^ network.to_bits()) >> (32 - bits) == 0
}

/// Linux and Windows name the interface after Tailscale; macOS numbers tunnels.
fn has_its_name(interface: &str) -> bool {
    let name = interface.to_ascii_lowercase();
    name.starts_with("tailscale") || name.starts_with("utun")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(interface: &str, address: &str) -> LocalAddress {
        LocalAddress {
            interface: interface.to_string(),
            address: address.parse().unwrap(),
        }
    }

    /// What is taken, whatever order the addresses come in.
    fn taken(addresses: &[(&str, &str)]) -> Option<String> {
        let mut addresses: Vec<_> = addresses
            .iter()
            .map(|(interface, address)| local(interface, address))
            .collect();
        let first = |addresses: &[LocalAddress]| {
            candidates(addresses).first().map(|first| first.to_string())
        };
        let found = first(&addresses);
        addresses.reverse();
        assert_eq!(first(&addresses), found, "the order decides");
        found
    }

    #[test]
    fn the_ranges_end_where_tailscales_do() {
        for (address, is_one) in [
            ("100.63.255.255", false),
            ("100.64.0.0", true),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("100.115.91.255", true),
            ("100.115.92.0", false),
            ("100.115.93.255", false),
            ("100.115.94.0", true),
            ("10.64.0.1", false),
            ("127.0.0.1", false),
            ("fd7a:115c:a1df:ffff:ffff:ffff:ffff:ffff", false),
            ("fd7a:115c:a1e0::", true),
            ("fd7a:115c:a1e0::1", true),
            ("fd7a:115c:a1e0:ffff:ffff:ffff:ffff:ffff", true),
            ("fd7a:115c:a1e1::1", false),
            ("fe80::1", false),
            ("::1", false),
        ] {
            assert_eq!(
                is_of_tailscale(address.parse().unwrap()),
                is_one,
                "{address}"
            );
        }
    }

    #[test]
    fn of_several_the_one_of_tailscales_interface_is_taken_and_ipv4_before_ipv6() {
        let lo = ("lo", "127.0.0.1");
        let lan = ("eth0", "192.168.1.5");
        let provider = ("eth0", "100.70.0.9");
        let four = ("tailscale0", "100.101.102.103");
        let six = ("tailscale0", "fd7a:115c:a1e0::1");
        for (addresses, expected) in [
            (vec![lo, lan, six, four], "100.101.102.103 (tailscale0)"),
            (vec![lo, lan, six], "fd7a:115c:a1e0::1 (tailscale0)"),
            (vec![lo, provider, four], "100.101.102.103 (tailscale0)"),
            (vec![lo, provider, six], "fd7a:115c:a1e0::1 (tailscale0)"),
            (vec![lo, provider], "100.70.0.9 (eth0)"),
            (
                vec![provider, ("utun4", "100.80.0.1")],
                "100.80.0.1 (utun4)",
            ),
            (
                vec![provider, ("Tailscale", "100.80.0.1")],
                "100.80.0.1 (Tailscale)",
            ),
            (
                vec![("wg1", "100.64.0.1"), ("wg0", "100.64.0.2")],
                "100.64.0.2 (wg0)",
            ),
            (
                vec![("wg0", "100.64.0.10"), ("wg0", "100.64.0.9")],
                "100.64.0.9 (wg0)",
            ),
        ] {
            assert_eq!(
                taken(&addresses).as_deref(),
                Some(expected),
                "{addresses:?}"
            );
        }
        assert_eq!(taken(&[lo, lan]), None);
        assert_eq!(taken(&[]), None);
    }

    #[test]
    fn without_one_the_error_names_what_there_is() {
        let text = none_found(&[local("eth0", "192.168.1.5"), local("lo", "127.0.0.1")]);
        for part in [
            "100.64.0.0/10",
            "fd7a:115c:a1e0::/48",
            "It has 192.168.1.5 (eth0), 127.0.0.1 (lo).",
            "tailscaled",
            "`tailscale up`",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(none_found(&[]).contains("It has no addresses."));
        let many: Vec<_> = (0..40)
            .map(|host| local("lo", &format!("127.0.0.{host}")))
            .collect();
        let text = none_found(&many);
        assert!(text.contains("127.0.0.15 (lo), 24 more."), "{text}");
    }

    #[test]
    fn this_machine_has_its_loopback_address() {
        let addresses = local_addresses();
        let is_loopback = |local: &LocalAddress| local.address.is_loopback();
        assert!(addresses.iter().any(is_loopback), "{addresses:?}");
        assert!(addresses.is_sorted());
    }
}
