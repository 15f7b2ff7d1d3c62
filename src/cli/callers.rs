//! The limits of callers: arguments of a coordinator.

use std::time::Duration;

use clap::Args;

use super::{
    Failure,
    values::{any_u32, any_u64, bytes, count, seconds},
};
use crate::transport::http::{AddressLimits, CallerLimits, Network};

/// What each caller may do. Of this machine's own addresses, only wrong tokens, strangers and registrations are limited, unless
/// `--limit-loopback` is given.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct CallerArgs {
    /// The most requests a second from an address (IPv4, or an IPv6 network of 64 bits); 0: any
    #[arg(long, value_name = "N", default_value = "2000", value_parser = any_u64)]
    pub address_requests: u64,
    /// The most bytes a second that are read from an address; more are read later; 0: any
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = bytes)]
    pub address_bytes: u64,
    /// The most connections of an address; 0: any
    #[arg(long, value_name = "N", default_value = "4096", value_parser = count)]
    pub address_connections: usize,
    /// The most connections of an address that have shown no valid token yet; 0: any
    #[arg(long, value_name = "N", default_value = "256", value_parser = count)]
    pub address_strangers: usize,
    /// The most workers a second that register from an address; five seconds' worth may come at once; 0: any
    #[arg(long, value_name = "N", default_value = "50", value_parser = any_u64)]
    pub address_registrations: u64,
    /// After this many wrong tokens from an address within a minute, further wrong ones are told to wait, longer and longer. Valid
    /// ones always pass; 0: never
    #[arg(long, value_name = "N", default_value = "10", value_parser = any_u32)]
    pub wrong_tokens: u32,
    /// The most workers a second that register, from all addresses; 0: any
    #[arg(long, value_name = "N", default_value = "200", value_parser = any_u64)]
    pub registrations: u64,
    /// The most requests a second of a worker; 0: any
    #[arg(long, value_name = "N", default_value = "500", value_parser = any_u64)]
    pub worker_requests: u64,
    /// The most reports that a worker uploads at once; 0: any
    #[arg(long, value_name = "N", default_value = "32", value_parser = count)]
    pub worker_uploads: usize,
    /// A connection that has shown no valid token is closed once it is idle for this long, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub stranger_idle: Duration,
}

/// What is in front of a coordinator.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct ProxyArgs {
    /// Limit this machine's own addresses as those of others: for a tunnel or a proxy that ends here
    #[arg(long)]
    pub limit_loopback: bool,
    /// A proxy, or a network of them (10.0.0.0/8), that is trusted to say in X-Forwarded-For or Forwarded whose request it passes on.
    /// May be given more than once; not with --open
    #[arg(long, value_name = "ADDRESS")]
    pub trusted_proxy: Vec<Network>,
}

impl CallerArgs {
    pub(super) fn limits(&self) -> CallerLimits {
        CallerLimits {
            address: AddressLimits {
                requests: self.address_requests,
                worker_requests: self.worker_requests,
                received: self.address_bytes,
                connections: self.address_connections,
                strangers: self.address_strangers,
                registrations: self.address_registrations,
                failures: self.wrong_tokens,
            },
            registrations: self.registrations,
            worker_uploads: self.worker_uploads,
            stranger_idle: self.stranger_idle,
            ..CallerLimits::default()
        }
    }
}

impl ProxyArgs {
    /// An open coordinator trusts this machine's addresses, and a proxy on it would let in everybody.
    pub(super) fn check(&self, is_open: bool) -> Result<(), Failure> {
        if is_open && !self.trusted_proxy.is_empty() {
            return Err(Failure::Usage(
                "--trusted-proxy passes on requests of others, and --open asks for no token: leave one of them out".to_string(),
            ));
        }
        if let Some(all) = self.trusted_proxy.iter().find(|network| network.is_all()) {
            tracing::warn!(
                "--trusted-proxy {all}: everybody is trusted to say whose request it is, so the limits of addresses hold nobody"
            );
        }
        Ok(())
    }

    pub(super) fn apply(&self, limits: &mut CallerLimits) {
        if self.limit_loopback {
            limits.loopback = limits.address.clone();
        }
        limits.trusted_proxies.clone_from(&self.trusted_proxy);
    }
}
