//! Lines on their way to where they are written, so that who logs never waits for who reads.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Memory for lines that wait, unless a single one needs more: at some 130 bytes each more than 30,000 of them.
const WAITING_MAX: usize = 4 * 1024 * 1024;

/// A bounded queue of lines with a thread that writes them.
#[derive(Clone, Default)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There are lines for the thread.
    filled: Condvar,
    /// The thread has written all that there was.
    drained: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    /// Of the lines, and of the one that is being written.
    bytes: usize,
    /// Lines that found no room. While there are any, none is taken: so they are one gap, reported where it is.
    gap: u64,
    lost: u64,
}

impl Queue {
    /// Starts the thread, which never ends. When there is room again, it calls `report` with the number of lines that
    /// found none.
    ///
    /// # Errors
    ///
    /// The system has no thread for it.
    pub(super) fn start(
        &self,
        mut output: impl Write + Send + 'static,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<()> {
        let queue = self.clone();
        let thread = thread::Builder::new().name("log".into());
        thread.spawn(move || {
            loop {
                let line = queue.next();
                // Counted, but not reported by one more line that can be written no better.
                let is_lost = output.write_all(&line).is_err();
                if let Some(gap) = queue.written(line.len(), is_lost) {
                    report(gap);
                }
            }
        })?;
        Ok(())
    }

    /// Takes a line if there is room for it, and counts it as lost otherwise.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state();
        let has_room = state.bytes == 0 || state.bytes.saturating_add(line.len()) <= WAITING_MAX;
        if state.gap > 0 || !has_room {
            state.gap += 1;
            state.lost += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.into());
        drop(state);
        self.0.filled.notify_one();
    }

    /// Lines that found no room or could not be written.
    pub(super) fn lost(&self) -> u64 {
        self.state().lost
    }

    /// Waits until everything is written, but no longer than `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut state = self.state();
        while state.bytes > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.drained.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn next(&self) -> Box<[u8]> {
        let mut state = self.state();
        loop {
            if let Some(line) = state.lines.pop_front() {
                return line;
            }
            let waited = self.0.filled.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns the lines that found no room once there is enough again.
    fn written(&self, bytes: usize, is_lost: bool) -> Option<u64> {
        let mut state = self.state();
        state.bytes -= bytes;
        state.lost += u64::from(is_lost);
        if state.bytes == 0 {
            self.0.drained.notify_all();
        }
        let has_gap = state.gap > 0 && state.bytes <= WAITING_MAX / 2;
        has_gap.then(|| std::mem::take(&mut state.gap))
    }

    /// Nothing in here panics while it holds the lock.
    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

    use super::*;

    /// Takes a line only after it was told how that ends, and shows what it was given.
    struct Valve {
        verdicts: Receiver<io::Result<()>>,
        lines: Sender<Vec<u8>>,
    }

    impl Write for Valve {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.lines.send(line.to_vec()).map_err(io::Error::other)?;
            self.verdicts.recv().map_err(io::Error::other)??;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_never_waits_and_the_gap_is_reported_where_it_is() {
        let queue = Queue::default();
        let ((verdict, verdicts), (taken, lines)) = (sync_channel(0), channel());
        let valve = Valve {
            verdicts,
            lines: taken,
        };
        let reported = queue.clone();
        let report = move |gap| reported.push(format!("gap of {gap}").as_bytes());
        queue.start(valve, report).expect("a thread");

        let quarter = vec![b'x'; WAITING_MAX / 4];
        for _ in 0..6 {
            queue.push(&quarter);
        }
        queue.push(b"too late");
        assert_eq!(queue.lost(), 3);
        for _ in 0..2 {
            assert_eq!(lines.recv(), Ok(quarter.clone()));
            verdict.send(Ok(())).expect("the thread");
        }
        // The report is behind what waits, and what comes now is behind the report.
        assert_eq!(lines.recv(), Ok(quarter.clone()));
        queue.push(b"after the gap");
        for expected in [&quarter, b"gap of 3".as_slice(), b"after the gap"] {
            verdict.send(Ok(())).expect("the thread");
            assert_eq!(lines.recv().as_deref(), Ok(expected));
        }
        // What cannot be written is lost without a report.
        let refused = io::Error::from(io::ErrorKind::StorageFull);
        verdict.send(Err(refused)).expect("the thread");
        queue.flush(Duration::from_secs(1000));
        assert_eq!(queue.lost(), 4);
        // A line that needs more than there is at all is taken when no other waits.
        queue.push(&vec![b'y'; WAITING_MAX + 1]);
        assert_eq!(lines.recv().map(|line| line.len()), Ok(WAITING_MAX + 1));
        // Nobody takes it: the wait for it is bounded.
        queue.flush(Duration::from_millis(5));
        assert_eq!(queue.lost(), 4);
    }
}
