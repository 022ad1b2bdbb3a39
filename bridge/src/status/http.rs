//! The metrics over HTTP: `GET /metrics`, one request a connection, and nothing else of HTTP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::metrics::render;
use super::{CONNECTIONS_MAX, Source, note_failed};
use crate::config::MetricsConfig;
use crate::listen::ListenError;

/// Longest request, in bytes, headers included.
const REQUEST_MAX: usize = 8192;
/// Longest time for a request to arrive, and again for its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What Prometheus is told that it gets.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// The bound port.
#[derive(Debug)]
pub(super) struct Socket {
    socket: TcpListener,
    address: String,
}

impl Socket {
    pub(super) fn bind(config: &MetricsConfig) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Tcp {
            address: format!("{}:{}", config.host, config.port),
            source,
        };
        let socket = std::net::TcpListener::bind((&*config.host, config.port)).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?.to_string();
        let socket = TcpListener::from_std(socket).map_err(failed)?;
        tracing::info!(url = %format_args!("http://{address}/metrics"), "metrics");
        Ok(Self { socket, address })
    }

    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    /// Answers until it is dropped.
    pub(super) async fn serve(self, source: Source) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            // Who comes when all places are taken waits in the kernel's queue; each place is free again in seconds.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let stream = match self.socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let source = source.clone();
            connections.spawn(async move {
                note_failed("a request for metrics", converse(stream, &source).await);
                drop(place);
            });
        }
    }
}

async fn converse(mut stream: TcpStream, source: &Source) -> io::Result<()> {
    let request = timeout(PATIENCE, read_head(&mut stream)).await??;
    let (status, content_type, body) = match parse(&request) {
        Ok(Method::Get | Method::Head) => {
            let status = source.status().await;
            ("200 OK", METRICS_TYPE, render(&status))
        }
        Err(status) => (status, TEXT_TYPE, format!("{status}\n")),
    };
    let allow = if status.starts_with("405") {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        body.len()
    );
    if parse(&request) != Ok(Method::Head) {
        answer += &body;
    }
    timeout(PATIENCE, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await?
}

/// Reads up to the empty line behind the headers, or as much as a request may have.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(512);
    while head.len() < REQUEST_MAX && !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut limited = (&mut *stream).take((REQUEST_MAX - head.len()) as u64);
        if limited.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Head,
}

/// What is asked for, or the status line that says why it is not to be had.
fn parse(head: &[u8]) -> Result<Method, &'static str> {
    if !head.windows(4).any(|window| window == b"\r\n\r\n") {
        return Err(if head.len() >= REQUEST_MAX {
            "431 Request Header Fields Too Large"
        } else {
            "400 Bad Request"
        });
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    if !version.is_some_and(|version| version.starts_with(b"HTTP/1.")) || words.next().is_some() {
        return Err("400 Bad Request");
    }
    let path = target.and_then(|target| target.split(|byte| *byte == b'?').next());
    if path != Some(b"/metrics") {
        return Err("404 Not Found");
    }
    match method {
        Some(b"GET") => Ok(Method::Get),
        Some(b"HEAD") => Ok(Method::Head),
        _ => Err("405 Method Not Allowed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_from_what_is_none() {
        let parse = |line: &str| parse(format!("{line}\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(parse("GET /metrics HTTP/1.1"), Ok(Method::Get));
        assert_eq!(parse("HEAD /metrics?a=b HTTP/1.0"), Ok(Method::Head));
        assert_eq!(
            parse("POST /metrics HTTP/1.1"),
            Err("405 Method Not Allowed")
        );
        assert_eq!(parse("GET / HTTP/1.1"), Err("404 Not Found"));
        assert_eq!(parse("GET /metrics"), Err("400 Bad Request"));
        assert_eq!(parse("GET /metrics HTTP/1.1 x"), Err("400 Bad Request"));
        assert_eq!(
            super::parse(b"GET /metrics HTTP/1.1\r\n"),
            Err("400 Bad Request")
        );
        assert_eq!(
            super::parse(&[b'a'; REQUEST_MAX]),
            Err("431 Request Header Fields Too Large")
        );
    }
}
