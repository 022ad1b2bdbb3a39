//! Certificates of a scenario: an authority, the bridge's, and a client's.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::{Place, TOKEN};

/// Files in the directory of a [`Place`].
#[derive(Debug)]
pub struct Certificates {
    /// The authority.
    pub ca: PathBuf,
    /// The bridge's certificate.
    pub server: (PathBuf, PathBuf),
    /// A client's.
    pub client: (PathBuf, PathBuf),
}

impl Certificates {
    /// Makes them for a bridge at `localhost` and `127.0.0.1`; `name` tells the files of several authorities apart.
    ///
    /// # Panics
    ///
    /// If they cannot be made or written.
    #[must_use]
    pub fn make(place: &Place, name: &str) -> Self {
        Self::make_for(place, name, &["localhost", "127.0.0.1"])
    }

    /// As [`Certificates::make`], valid until the beginning of a day: year, month, day.
    ///
    /// # Panics
    ///
    /// If they cannot be made or written.
    #[must_use]
    pub fn make_until(place: &Place, name: &str, not_after: (i32, u8, u8)) -> Self {
        Self::made(place, name, &["localhost", "127.0.0.1"], Some(not_after))
    }

    /// As [`Certificates::make`], for a bridge with these names and addresses.
    ///
    /// # Panics
    ///
    /// If they cannot be made or written.
    #[must_use]
    pub fn make_for(place: &Place, name: &str, hosts: &[&str]) -> Self {
        Self::made(place, name, hosts, None)
    }

    /// Puts the bridge's certificate and key of `other` in the place of this one's.
    ///
    /// # Panics
    ///
    /// If they cannot be copied.
    pub fn renew_from(&self, other: &Self) {
        std::fs::copy(&other.server.0, &self.server.0).expect("copy a certificate");
        std::fs::copy(&other.server.1, &self.server.1).expect("copy a key");
    }

    fn made(place: &Place, name: &str, hosts: &[&str], not_after: Option<(i32, u8, u8)>) -> Self {
        let write = |part: &str, text: String| {
            let path = place.path().join(format!("{name}-{part}.pem"));
            std::fs::write(&path, text).expect("write a certificate");
            path
        };
        let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority
            .distinguished_name
            .push(DnType::CommonName, format!("authority {name}"));
        let key = KeyPair::generate().expect("a key");
        let certificate = authority.self_signed(&key).expect("a certificate");
        let ca = write("ca", certificate.pem());
        let issuer = Issuer::new(authority, key);
        let signed = |part: &str, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let key = KeyPair::generate().expect("a key");
            let mut parameters = CertificateParams::new(names).expect("parameters");
            parameters.use_authority_key_identifier_extension = true;
            if let Some((year, month, day)) = not_after {
                parameters.not_after = rcgen::date_time_ymd(year, month, day);
            }
            parameters.distinguished_name.push(DnType::CommonName, part);
            let certificate = parameters.signed_by(&key, &issuer).expect("a certificate");
            let file = write(part, certificate.pem());
            (file, write(&format!("{part}-key"), key.serialize_pem()))
        };
        Self {
            ca,
            server: signed("server", hosts),
            client: signed("client", &["client"]),
        }
    }
}

impl Place {
    /// Adds an endpoint with TLS on a free port of this host that asks for [`TOKEN`], with further lines of its table.
    ///
    /// # Panics
    ///
    /// If the token cannot be written.
    #[must_use]
    pub fn encrypted(self, certificates: &Certificates, lines: &str) -> Self {
        std::fs::write(self.path().join("token"), TOKEN).expect("write the token");
        let (certificate, key) = &certificates.server;
        self.table(&format!(
            "[[listen]]\naddress = 'tls:localhost:0'\ntoken_file = 'token'\ncertificate = {certificate:?}\n\
             key = {key:?}\n{lines}"
        ))
    }
}
