//! Certificates of the tests' own.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::transport::http::{Authorities, Identity};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// An identity that signs itself.
pub fn own(of: &[&str]) -> Identity {
    let pem = Identity::self_signed_pem(&names(of)).unwrap();
    Identity::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap()
}

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(parameters, key).unwrap())
    }

    /// Those who trust it.
    pub fn trusted(&self) -> Authorities {
        Authorities::from_pem(self.0.pem().as_bytes()).unwrap()
    }

    /// An identity that it has signed.
    pub fn identity(&self, of: &[&str]) -> Identity {
        let parameters = CertificateParams::new(names(of)).unwrap();
        let key = KeyPair::generate().unwrap();
        let signed = parameters.signed_by(&key, &self.0).unwrap();
        Identity::from_pem(signed.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }
}
