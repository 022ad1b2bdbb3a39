//! The Python side: one process, a line of JSON for each message, both ways.

use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use mycelium_tests::{WATCHDOG, python, repository};
use serde_json::{Value, json};

use super::spec::MessageSpec;
use super::wire::{bytes, hex};

pub(crate) struct Peer {
    child: Child,
    input: BufWriter<ChildStdin>,
    output: Receiver<String>,
}

impl Peer {
    /// Starts Python with the module of the messages and tells it what values may be.
    pub(crate) fn start(module: &str, seed: u64, specs: &[MessageSpec]) -> Self {
        let script = repository().join("tests/tests/contracts_round_trip/round_trip.py");
        let mut child = Command::new(python())
            .arg(script)
            .args([module, &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                if sender.send(line.expect("UTF-8")).is_err() {
                    break;
                }
            }
        });
        let mut peer = Self {
            input: BufWriter::new(child.stdin.take().expect("piped")),
            child,
            output: receiver,
        };
        let specs: Vec<_> = specs.iter().map(MessageSpec::to_json).collect();
        peer.line(&Value::from(specs));
        peer
    }

    fn line(&mut self, value: &Value) {
        writeln!(self.input, "{value}").expect("Python reads: its error output says why not");
    }

    /// A message that Rust built, or with `broken` one that has to be refused because of that field.
    pub(crate) fn send(&mut self, name: &str, payload: &[u8], values: &Value, broken: &str) {
        self.line(&json!([name, hex(payload), values, broken]));
    }

    /// The next message that Python built: one for each valid one that it got.
    pub(crate) fn receive(&mut self) -> (String, Vec<u8>, Value) {
        self.input
            .flush()
            .expect("Python reads: its error output says why not");
        let line = self.output.recv_timeout(WATCHDOG);
        let line = line.expect("Python answers: its error output says why not");
        let mut line: Value = serde_json::from_str(&line).expect("JSON");
        let name = line[0].as_str().expect("a name").to_owned();
        (name, bytes(&line[1]), line[2].take())
    }

    /// Python has nothing more to say, and is content.
    pub(crate) fn finish(self) {
        let Self {
            mut child,
            input,
            output,
        } = self;
        drop(input);
        let left = output.recv_timeout(WATCHDOG);
        assert!(left.is_err(), "more than was asked for: {left:?}");
        let status = child.wait().expect("Python ends");
        assert!(status.success(), "Python found a difference: {status}");
    }
}
