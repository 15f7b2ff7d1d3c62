//! Keeps web pages out of an open coordinator, which asks for no token.

use std::net::IpAddr;

use axum::http::{header, request::Parts};

use super::{app::App, problem::Problem};
use crate::report::RefusalKind;

/// Keeps out requests without a token that a web page in a browser on this machine can make: those that say so, and those
/// for a host that is neither this machine nor configured, which is how a page makes its own name mean this machine.
pub(super) fn refuse_browsers(parts: &Parts, app: &App) -> Result<(), Problem> {
    let refuse = |detail: String| Err(Problem::new(RefusalKind::Forbidden, detail));
    // Browsers send it with all that a page asks of another site, but for a plain GET, whose answer the page can't
    // read.
    if parts.headers.contains_key(header::ORIGIN) {
        return refuse("a web page can't use a coordinator that is open (--open)".to_string());
    }
    // Against DNS rebinding: a page lets its own name lead to this machine. To the browser this is then the page's own
    // site, so it sends no `Origin` with a GET and shows the page the answer; but it sends that name. A browser always
    // sends a host.
    let Some(host) = parts.headers.get(header::HOST) else {
        return Ok(());
    };
    let host = host.to_str().unwrap_or_default();
    let name = host_name(host);
    let is_known = is_this_machine(name)
        || app
            .config
            .hosts
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name));
    if is_known {
        return Ok(());
    }
    refuse(format!(
        "an open coordinator (--open) is not asked as {name:?}: ask for localhost, or start it with --allow-host"
    ))
}

/// A host without its port.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

/// Whether no name server has a say in what this name means.
fn is_this_machine(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower == "localhost" || lower.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}
