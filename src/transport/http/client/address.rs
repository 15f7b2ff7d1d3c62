//! Where the coordinator is.

use hyper::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use thiserror::Error;

use crate::transport::http::{DEFAULT_PORT, api::BASE};

/// The coordinator's address: with TLS or without, host, port, and what comes before the protocol's paths.
#[derive(Debug, Clone)]
pub struct Address {
    scheme: Scheme,
    authority: Authority,
    prefix: String,
}

impl Address {
    /// From `https://HOST:PORT`, `http://HOST:PORT`, or either without its port ([`DEFAULT_PORT`] for both). `HOST:PORT` and
    /// `HOST` are plain HTTP.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if that is no such address.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let trimmed = text.trim();
        let full = if trimmed.contains("://") {
            trimmed.to_string()
        } else {
            format!("http://{trimmed}")
        };
        let parts = full
            .parse::<Uri>()
            .map_err(|reason| AddressError::new(text, &reason.to_string()))?
            .into_parts();
        let scheme = match parts.scheme {
            Some(scheme) if scheme == Scheme::HTTP || scheme == Scheme::HTTPS => scheme,
            _ => {
                let problem = "must begin with http:// or https://";
                return Err(AddressError::new(text, problem));
            }
        };
        let authority = parts
            .authority
            .ok_or_else(|| AddressError::new(text, "has no host"))?;
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(AddressError::new(
                text,
                "must be http://HOST:PORT or https://HOST:PORT",
            ));
        }
        let authority = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => {
                let with_port = format!("{authority}:{DEFAULT_PORT}").parse::<Authority>();
                with_port.map_err(|reason| AddressError::new(text, &reason.to_string()))?
            }
            _ if authority.port_u16().is_some_and(|port| port > 0) => authority,
            _ => return Err(AddressError::new(text, "has no valid port")),
        };
        let path = parts.path_and_query;
        if path.as_ref().is_some_and(|path| path.query().is_some()) {
            return Err(AddressError::new(text, "must not have a query"));
        }
        let path = path.as_ref().map_or("", PathAndQuery::path);
        let prefix = path.trim_end_matches('/');
        // Somebody may have copied the base of the API from its document.
        let prefix = prefix.strip_suffix(BASE).unwrap_or(prefix).to_string();
        Ok(Self {
            scheme,
            authority,
            prefix,
        })
    }

    /// Whether the coordinator speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The name or the IP address, without an IPv6 address's brackets.
    pub fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    /// Why nothing can be sent there.
    pub(super) fn unusable(&self, problem: &str) -> AddressError {
        AddressError::new(&format!("{}://{}", self.scheme, self.authority), problem)
    }

    /// Host and port.
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The URI of a path of the protocol.
    pub(in crate::transport::http) fn uri(&self, path: &str) -> Result<Uri, hyper::http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{BASE}{path}", self.prefix))
            .build()
    }
}

/// An address that can't be one of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{address:?} is not an address of a coordinator: {problem}")]
pub struct AddressError {
    /// The address.
    pub address: String,
    /// What is wrong with it.
    pub problem: String,
}

impl AddressError {
    fn new(address: &str, problem: &str) -> Self {
        Self {
            address: address.to_string(),
            problem: problem.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_be_short() {
        for (text, uri) in [
            (
                "http://100.64.0.1:8000",
                "http://100.64.0.1:8000/api/v1/health",
            ),
            ("lab:9000/", "http://lab:9000/api/v1/health"),
            ("lab", "http://lab:8000/api/v1/health"),
            ("http://[::1]", "http://[::1]:8000/api/v1/health"),
            ("https://lab", "https://lab:8000/api/v1/health"),
            ("HTTPS://lab:9", "https://lab:9/api/v1/health"),
            ("http://lab/api/v1", "http://lab:8000/api/v1/health"),
            ("http://lab/fed/", "http://lab:8000/fed/api/v1/health"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.uri("/health").unwrap().to_string(), uri, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "ftp://lab",
            "http://",
            "http://[]",
            "[]:8000",
            "http://user:password@lab",
            "http://lab:99999",
            "http://lab:0",
            "http://lab:",
            "http://lab/?x=1",
            "a b",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
