//! The endpoints of a configuration: `bridge.listen` and the `[[listen]]` tables, as written and as checked.

use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use shm_transport::socket::Address;
use toml::de::{DeTable, DeValue};

use super::ListenConfig;
use super::check::join;
use super::problem::Problems;
use super::section::{At, Section};
use crate::listen::{self, TlsConfig, TlsError, Token};

/// Each handshake takes a thread while it lasts, and so do all endpoints together.
pub(super) const PENDING_HANDSHAKES_MAX: u64 = 400;
/// Handshakes that may be under way at once at an endpoint where the file names no number.
const PENDING_HANDSHAKES_DEFAULT: usize = 64;
/// A Python interpreter that imports something large first needs seconds.
const LOCAL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The SDK connects when it is ready to speak; who waits for longer has nothing to say.
const REMOTE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Longest `handshake_timeout_ms`.
const TIMEOUT_MAX_MS: u64 = 600_000;

/// A `[[listen]]` table.
#[derive(Debug)]
pub(super) struct Endpoint {
    label: String,
    span: Range<usize>,
    address: Option<At<String>>,
    token_file: Option<At<String>>,
    token_env: Option<At<String>>,
    certificate: Option<At<String>>,
    key: Option<At<String>>,
    client_ca: Option<At<String>>,
    allow_plaintext: bool,
    handshake_timeout_ms: Option<u64>,
    max_pending_handshakes: Option<u64>,
    allow_block: bool,
}

/// What `[bridge]` says of its own endpoint and as a default for the others.
pub(super) struct Defaults {
    pub(super) listen: Option<At<String>>,
    pub(super) max_pending_handshakes: Option<u64>,
}

/// Reads the `[[listen]]` tables.
pub(super) fn read(top: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Vec<Endpoint> {
    match top.take("listen") {
        Some((_, DeValue::Array(items))) => {
            let mut endpoints = Vec::new();
            for (number, item) in items.iter().enumerate() {
                match item.get_ref() {
                    DeValue::Table(table) => {
                        endpoints.push(endpoint(number, table, item.span(), problems));
                    }
                    _ => problems.add(
                        &item.span(),
                        "listen must be a table",
                        "write [[listen]] on a line of its own",
                    ),
                }
            }
            endpoints
        }
        Some((span, _)) => {
            problems.add(
                &span,
                "listen must be an array of tables",
                "write [[listen]] with two brackets, or listen = \"PATH\" inside of [bridge]",
            );
            Vec::new()
        }
        None => Vec::new(),
    }
}

fn endpoint(
    number: usize,
    table: &DeTable<'_>,
    span: Range<usize>,
    problems: &mut Problems<'_>,
) -> Endpoint {
    let mut section = Section::new(format!("listen number {}", number + 1), table, span.clone());
    let address = section.string("address", problems);
    if let Some(address) = &address {
        section.set_label(format!("listen '{}'", address.value.escape_debug()));
    } else if !table.contains_key("address") {
        problems.add(
            &span,
            format!("{}: missing key 'address'", section.label()),
            "add address = \"tcp:127.0.0.1:7001\", \"tls:HOST:PORT\" or \"unix:/PATH\"",
        );
    }
    let endpoint = Endpoint {
        label: section.label().to_owned(),
        span,
        address,
        token_file: section.path("token_file", problems),
        token_env: section.string("token_env", problems),
        certificate: section.path("certificate", problems),
        key: section.path("key", problems),
        client_ca: section.path("client_ca", problems),
        allow_plaintext: section
            .boolean("allow_plaintext", problems)
            .unwrap_or(false),
        handshake_timeout_ms: section
            .integer("handshake_timeout_ms", 1..=TIMEOUT_MAX_MS, problems)
            .map(|at| at.value),
        max_pending_handshakes: section
            .integer(
                "max_pending_handshakes",
                1..=PENDING_HANDSHAKES_MAX,
                problems,
            )
            .map(|at| at.value),
        allow_block: section.boolean("allow_block", problems).unwrap_or(true),
    };
    section.finish(problems);
    endpoint
}

/// Checks all endpoints; the one of `[bridge]` comes first.
pub(super) fn check(
    defaults: Defaults,
    written: Vec<Endpoint>,
    directory: &Path,
    problems: &mut Problems<'_>,
) -> Vec<ListenConfig> {
    let count = |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok());
    let pending = count(defaults.max_pending_handshakes).unwrap_or(PENDING_HANDSHAKES_DEFAULT);
    let mut endpoints: Vec<ListenConfig> = Vec::new();
    if let Some(at) = defaults.listen {
        let text = at.value.strip_prefix("unix:").unwrap_or(&at.value);
        if ["tcp:", "tls:"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
        {
            problems.add(
                &at.span,
                format!("[bridge]: listen is a path: value='{text}'"),
                format!("a port needs a table of its own: [[listen]] with address = \"{text}\""),
            );
        }
        let path = join(directory, text);
        if let Err(error) = listen::check_path(&path) {
            problems.add(&at.span, format!("[bridge]: {error}"), error.hint());
        }
        endpoints.push(ListenConfig {
            address: Address::Unix(path),
            token: None,
            tls: None,
            handshake_timeout: LOCAL_TIMEOUT_DEFAULT,
            max_pending_handshakes: pending,
            allow_block: true,
        });
    }
    for item in written {
        let token = token(&item, directory, problems);
        let Some(address) = address(&item, directory, problems) else {
            continue;
        };
        let tls = tls(&item, &address, directory, problems);
        let is_local = matches!(address, Address::Unix(_));
        if let Some(at) = &item.address {
            check_exposure(&item, &address, token.is_some(), at, problems);
            let is_chosen = !matches!(
                &address,
                Address::Tcp { port: 0, .. } | Address::Tls { port: 0, .. }
            );
            if is_chosen && endpoints.iter().any(|other| other.address == address) {
                problems.add(
                    &at.span,
                    format!("{}: address is named twice: address={address}", item.label),
                    "remove one of them",
                );
            }
        }
        endpoints.push(ListenConfig {
            address,
            token: token.and_then(Result::ok),
            tls,
            handshake_timeout: match item.handshake_timeout_ms {
                Some(milliseconds) => Duration::from_millis(milliseconds),
                None if is_local => LOCAL_TIMEOUT_DEFAULT,
                None => REMOTE_TIMEOUT_DEFAULT,
            },
            max_pending_handshakes: count(item.max_pending_handshakes).unwrap_or(pending),
            allow_block: item.allow_block,
        });
        check_threads(&endpoints, &item.span, &item.label, problems);
    }
    endpoints
}

/// Certificate and key of a `tls:` address, which has to have both; no other has any.
fn tls(
    item: &Endpoint,
    address: &Address,
    directory: &Path,
    problems: &mut Problems<'_>,
) -> Option<TlsConfig> {
    let label = &item.label;
    if !matches!(address, Address::Tls { .. }) {
        for (key, at) in [
            ("certificate", &item.certificate),
            ("key", &item.key),
            ("client_ca", &item.client_ca),
        ] {
            if let Some(at) = at {
                problems.add(
                    &at.span,
                    format!("{label}: {key} is for tls: addresses only"),
                    "write tls: instead of tcp:, or remove it",
                );
            }
        }
        return None;
    }
    let (Some(certificate), Some(key)) = (&item.certificate, &item.key) else {
        problems.add(
            &item.span,
            format!("{label}: a tls: address needs a certificate and its key"),
            "add certificate = \"FILE.pem\" and key = \"FILE.pem\"",
        );
        return None;
    };
    let loaded = TlsConfig::load(
        join(directory, &certificate.value),
        join(directory, &key.value),
        item.client_ca.as_ref().map(|at| join(directory, &at.value)),
    );
    let noted = |error: TlsError| {
        let at = match &error {
            TlsError::File { what: "key", .. } => key,
            TlsError::File {
                what: "client_ca", ..
            }
            | TlsError::ClientCa { .. } => item.client_ca.as_ref().unwrap_or(certificate),
            TlsError::File { .. } | TlsError::Unusable { .. } => certificate,
        };
        problems.add(&at.span, format!("{label}: {error}"), error.hint());
    };
    loaded.map_err(noted).ok()
}

fn check_threads(
    endpoints: &[ListenConfig],
    span: &Range<usize>,
    label: &str,
    problems: &mut Problems<'_>,
) {
    let sum: usize = endpoints.iter().map(|it| it.max_pending_handshakes).sum();
    let before = sum - endpoints.last().map_or(0, |it| it.max_pending_handshakes);
    // Only where the sum goes beyond the limit; all endpoints after that would say the same.
    if sum as u64 > PENDING_HANDSHAKES_MAX && before as u64 <= PENDING_HANDSHAKES_MAX {
        problems.add(
            span,
            format!(
                "{label}: max_pending_handshakes of all endpoints up to this one are too many: sum={sum}, \
                 max={PENDING_HANDSHAKES_MAX}"
            ),
            "lower max_pending_handshakes; each takes a thread",
        );
    }
}

fn address(item: &Endpoint, directory: &Path, problems: &mut Problems<'_>) -> Option<Address> {
    let at = item.address.as_ref()?;
    match Address::parse_listening(&at.value) {
        Ok(Address::Unix(path)) => {
            let path = join(directory, path);
            if let Err(error) = listen::check_path(&path) {
                problems.add(&at.span, format!("{}: {error}", item.label), error.hint());
            }
            Some(Address::Unix(path))
        }
        Ok(address) => Some(address),
        Err(error) => {
            problems.add(
                &at.span,
                format!("{}: {}", item.label, error.problem),
                "write address = \"tcp:127.0.0.1:7001\", \"tls:HOST:PORT\" or \"unix:/PATH\"; an IPv6 address takes brackets",
            );
            None
        }
    }
}

/// What is reachable from other hosts has to be encrypted, and every port has to ask for a token.
fn check_exposure(
    item: &Endpoint,
    address: &Address,
    has_token: bool,
    at: &At<String>,
    problems: &mut Problems<'_>,
) {
    let label = &item.label;
    if matches!(address, Address::Tcp { .. } | Address::Tls { .. }) && !has_token {
        problems.add(
            &at.span,
            format!("{label}: a port needs a token, as whoever can reach it can connect"),
            "add token_file = \"PATH\" or token_env = \"NAME\"; make one with: openssl rand -base64 32",
        );
    }
    match address {
        Address::Tcp { host, .. } if !is_loopback(host) && !item.allow_plaintext => problems.add(
            &at.span,
            format!("{label}: other hosts would send token and data unencrypted: host={host}"),
            "write tls: instead of tcp:, or allow_plaintext = true where the network is trusted",
        ),
        Address::Tls { .. } | Address::Unix(_) if item.allow_plaintext => problems.add(
            &at.span,
            format!("{label}: allow_plaintext is for tcp: addresses only"),
            "remove it",
        ),
        _ => {}
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The token of an endpoint that names one; what is wrong with it has been noted.
fn token(
    item: &Endpoint,
    directory: &Path,
    problems: &mut Problems<'_>,
) -> Option<Result<Token, ()>> {
    let (at, token) = match (&item.token_file, &item.token_env) {
        (Some(at), None) => (at, Token::from_file(&join(directory, &at.value))),
        (None, Some(at)) => (at, Token::from_env(&at.value)),
        (None, None) => return None,
        (Some(_), Some(at)) => {
            problems.add(
                &at.span,
                format!("{}: token_file and token_env are both given", item.label),
                "remove one of them",
            );
            return Some(Err(()));
        }
    };
    let noted = |error: listen::TokenError| {
        problems.add(&at.span, format!("{}: {error}", item.label), error.hint());
    };
    Some(token.map_err(noted))
}
