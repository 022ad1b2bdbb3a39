//! Asks for metrics, and checks their format.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::WATCHDOG;

/// Status line, headers and body.
pub(crate) fn http(address: &str, request: &str) -> (String, String, String) {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer to the end");
    let (head, body) = answer.split_once("\r\n\r\n").expect("headers");
    let (line, headers) = head.split_once("\r\n").expect("a status line");
    (line.to_owned(), headers.to_owned(), body.to_owned())
}

/// Checks the text format line by line, and gives the samples by name and labels.
pub(crate) fn samples(text: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            && name.starts_with("mycelium_")
    };
    let (mut help, mut current) = (None, None);
    let mut samples = BTreeMap::new();
    let mut seen = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').expect(line);
            assert!(is_name(name) && text.ends_with('.'), "{line}");
            assert!(!seen.contains(&name), "{name} comes twice");
            seen.push(name);
            help = Some(name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert_eq!(help, Some(name), "TYPE follows HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            current = Some((name, kind));
        } else {
            let (sample, value) = line.rsplit_once(' ').expect(line);
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let (metric, kind) = current.expect("TYPE comes first");
            let is_part = match kind {
                "histogram" => ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|part| name.strip_suffix(part) == Some(metric)),
                _ => name == metric,
            };
            assert!(is_part, "{line}");
            if let Some(labels) = labels.strip_suffix("\"}") {
                for label in labels.split("\",") {
                    let (key, value) = label.split_once("=\"").expect(line);
                    assert!(key.bytes().all(|byte| byte.is_ascii_lowercase()), "{line}");
                    assert!(!value.contains(['"', '\\']), "{line}");
                }
            } else {
                assert_eq!(labels, "", "{line}");
            }
            let value: f64 = value.parse().expect(line);
            assert!(
                samples.insert(sample.to_owned(), value).is_none(),
                "{line} comes twice"
            );
        }
    }
    assert!(text.ends_with('\n'));
    samples
}
