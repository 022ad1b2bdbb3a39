//! Forwards what a worker prints into the log, line by line.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line that is logged as one, in bytes; a longer one is logged in pieces, so that a worker that prints without
/// line ends cannot make the bridge's memory grow.
pub(crate) const LINE_MAX: usize = 8192;

/// So many characters of the last line are kept.
const LAST_WORDS_MAX: usize = 200;

/// The last line that a process has printed to its standard error: with most languages what it died of.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastWords(Arc<Mutex<Option<String>>>);

impl LastWords {
    fn note(&self, line: &str) {
        let line = line.trim();
        if !line.is_empty() {
            let kept = line.chars().take(LAST_WORDS_MAX).collect();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        }
    }

    pub(crate) fn get(&self) -> Option<String> {
        let line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.clone()
    }
}

/// Logs every line of `stream` until its end, and keeps the last one where that is wanted.
pub(crate) async fn forward(
    worker: Arc<str>,
    pid: u32,
    stream: &'static str,
    last_words: Option<LastWords>,
    mut reader: impl AsyncRead + Unpin,
) {
    let log = |line: &str| {
        log(&worker, pid, stream, line);
        if let Some(last_words) = &last_words {
            last_words.note(line);
        }
    };
    let mut lines = Lines::default();
    let mut chunk = [0; 4096];
    loop {
        match reader.read(&mut chunk).await {
            Ok(0) => break,
            Ok(length) => lines.feed(&chunk[..length], log),
            Err(error) => {
                tracing::warn!(%worker, pid, %stream, %error, "cannot read the worker's output");
                break;
            }
        }
    }
    lines.finish(log);
}

fn log(worker: &str, pid: u32, stream: &'static str, line: &str) {
    tracing::info!(target: "worker", worker = %worker, pid, stream = %stream, "{line}");
}

/// Cuts a stream of bytes into lines of bounded length.
#[derive(Debug, Default)]
struct Lines {
    /// The begin of a line whose end has not been seen; shorter than `LINE_MAX`.
    partial: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&str)) {
        while !bytes.is_empty() {
            let room = LINE_MAX - self.partial.len();
            let window = &bytes[..bytes.len().min(room)];
            match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.partial.extend_from_slice(&window[..end]);
                    self.flush(&mut emit);
                    bytes = &bytes[end + 1..];
                }
                None => {
                    self.partial.extend_from_slice(window);
                    bytes = &bytes[window.len()..];
                    if self.partial.len() == LINE_MAX {
                        self.flush(&mut emit);
                    }
                }
            }
        }
    }

    fn finish(mut self, mut emit: impl FnMut(&str)) {
        if !self.partial.is_empty() {
            self.flush(&mut emit);
        }
    }

    fn flush(&mut self, emit: &mut impl FnMut(&str)) {
        let line = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        emit(&String::from_utf8_lossy(line));
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, |line| seen.push(line.to_owned()));
        }
        lines.finish(|line| seen.push(line.to_owned()));
        seen
    }

    #[test]
    fn lines_are_put_together_from_chunks() {
        assert_eq!(
            lines(&[b"one\ntw", b"o\r\n", b"\nlast"]),
            ["one", "two", "", "last"]
        );
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn an_endless_line_comes_in_pieces_of_bounded_length() {
        let long = vec![b'x'; 2 * LINE_MAX + 5];
        let pieces = lines(&[&long, b"\nnext\n"]);
        let lengths: Vec<_> = pieces.iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_MAX, LINE_MAX, 5, 4]);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(lines(&[b"a\xffb\n"]), ["a\u{fffd}b"]);
    }

    #[test]
    fn last_words_are_the_last_line_with_letters_and_bounded() {
        let words = LastWords::default();
        assert_eq!(words.get(), None);
        words.note("  first");
        words.note(" \t");
        assert_eq!(words.get().as_deref(), Some("first"));
        words.note(&"ä".repeat(LINE_MAX));
        assert_eq!(words.get(), Some("ä".repeat(LAST_WORDS_MAX)));
    }
}
