//! Plain HTTP: to which hosts it may go, and what it means.
//!
//! Here and not in the transport: a program that embeds the library may have its own TLS in front, or a network that
//! encrypts. People at a command line mostly have not, and would send their tokens to everybody on the way.

use std::net::IpAddr;

use clap::Args;

use super::{Failure, tailscale::is_of_tailscale};
use crate::transport::http::Address;

/// What plain HTTP lets others do.
const MEANS: &str = "everybody on the way can read and change tokens, models and reports";

/// Whether plain HTTP may go to other machines.
#[derive(Debug, Clone, Default, Args)]
pub struct PlainArgs {
    /// Allow plain HTTP between machines, which everybody on the way can read and change, tokens included. Loopback and
    /// Tailscale addresses (100.64.0.0/10, fd7a:115c:a1e0::/48, names in .ts.net) need no permission
    #[arg(long, env = "FEDAVG_PLAIN", value_parser = yes_or_no, hide_env_values = true)]
    pub plain: bool,
}

impl PlainArgs {
    /// Whether plain HTTP to or from this host may be; says what it means if it is only allowed by the flag.
    pub(super) fn check(&self, what: &str, host: &str, instead: &str) -> Result<(), Failure> {
        if is_private(host) {
            return Ok(());
        }
        if self.plain {
            tracing::warn!("{what} is plain HTTP (--plain): {MEANS}");
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "{what} is plain HTTP to other machines: {MEANS}. {instead}; or allow it with --plain (FEDAVG_PLAIN=1) if \
             the network encrypts, or nobody else is on it"
        )))
    }

    /// Whether a client may send its token to this coordinator.
    pub(super) fn check_coordinator(&self, url: &str, address: &Address) -> Result<(), Failure> {
        if address.is_tls() {
            return Ok(());
        }
        let what = format!("--coordinator {url}");
        let instead = "Use https:// if the coordinator speaks TLS (--tls-self-signed there)";
        self.check(&what, address.host(), instead)
    }
}

/// Whether only this machine, or a network that encrypts, sees what goes to this host.
pub(super) fn is_private(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    if let Ok(address) = host.parse::<IpAddr>() {
        return address.to_canonical().is_loopback() || is_of_tailscale(address);
    }
    host == "localhost" || host.trim_end_matches('.').ends_with(".ts.net")
}

/// The value of the flag's variable. A mistyped one must not allow anything.
fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        // A variable that is set to nothing counts as unset.
        "" | "0" | "false" => Ok(false),
        _ => Err("not 1, true, 0 or false".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_goes_to_loopback_and_tailscale_and_else_only_if_allowed() {
        let refusing = PlainArgs::default();
        let allowing = PlainArgs { plain: true };
        for (url, is_free) in [
            ("http://127.0.0.1:8000", true),
            ("127.9.9.9", true),
            ("http://[::1]:8000", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://localhost:8000", true),
            ("http://LOCALHOST", true),
            ("http://100.64.0.1:8000", true),
            ("http://100.127.255.255", true),
            ("http://[fd7a:115c:a1e0::1]:8000", true),
            ("http://lab.tailnet.ts.net", true),
            ("http://Lab.Tailnet.TS.NET.:8000", true),
            ("https://lab", true),
            ("https://203.0.113.7", true),
            ("http://lab", false),
            ("lab:8000", false),
            ("http://192.168.1.5", false),
            ("http://10.0.0.1:8000", false),
            ("http://203.0.113.7", false),
            ("http://0.0.0.0:8000", false),
            ("http://[fe80::1]", false),
            ("http://100.128.0.1", false),
            ("http://localhost.example.org", false),
            ("http://evil-ts.net", false),
            ("http://ts.net.example.org", false),
            ("http://127.0.0.1.example.org", false),
        ] {
            let address = Address::parse(url).unwrap();
            let told = refusing.check_coordinator(url, &address);
            assert_eq!(told.is_ok(), is_free, "{url}");
            if let Err(failure) = told {
                assert_eq!(failure.code(), 2);
                let text = failure.to_string();
                assert!(text.contains(url) && text.contains("--plain"), "{text}");
            }
            assert!(allowing.check_coordinator(url, &address).is_ok(), "{url}");
        }
    }

    #[test]
    fn a_mistyped_variable_allows_nothing() {
        assert_eq!((yes_or_no("1"), yes_or_no("true")), (Ok(true), Ok(true)));
        assert_eq!((yes_or_no(""), yes_or_no("0")), (Ok(false), Ok(false)));
        assert!(yes_or_no("no").is_err() && yes_or_no("yes").is_err());
    }
}
