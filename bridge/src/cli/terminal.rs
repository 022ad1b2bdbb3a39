//! The terminal while something is shown on it: keys without a line end, a screen of its own, and everything as it was
//! afterwards.

use std::io::{self, Stdin, Stdout, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::Winsize;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

nix::ioctl_read_bad!(window_size, nix::libc::TIOCGWINSZ, Winsize);

/// Another screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Ctrl-C as a key.
const CTRL_C: u8 = 3;
/// Rows and columns of a terminal that does not say.
const SIZE_DEFAULT: (usize, usize) = (24, 80);

/// A terminal with a screen of its own. Dropping it restores everything.
pub(super) struct Screen {
    stdout: Stdout,
    /// The settings to restore; `None` where standard input is no terminal, so that there are no keys.
    keys: Option<(Stdin, Termios)>,
    signals: SignalFd,
    blocked: SigSet,
}

/// Rows and columns of a terminal; `None` where this is none, or it does not say.
fn size_of(terminal: &impl AsRawFd) -> Option<(usize, usize)> {
    let mut size = Winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one `winsize` through the pointer, which is to a live one of exactly this type.
    unsafe { window_size(terminal.as_raw_fd(), &raw mut size) }.ok()?;
    let is_known = size.ws_row > 0 && size.ws_col > 0;
    is_known.then_some((usize::from(size.ws_row), usize::from(size.ws_col)))
}

/// Columns of a terminal; `None` where this is none, or it does not say.
pub(super) fn columns_of(terminal: &impl AsRawFd) -> Option<usize> {
    size_of(terminal).map(|(_, columns)| columns)
}

/// Why waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// The time is over, or the window has another size.
    Refresh,
    /// A key or a signal wants an end.
    End,
}

impl Screen {
    /// Takes the terminal over. Signals that end the program are read from here on.
    pub(super) fn enter() -> io::Result<Self> {
        let mut blocked = SigSet::empty();
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGWINCH,
        ] {
            blocked.add(signal);
        }
        blocked.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&blocked, flags)?;
        let stdin = io::stdin();
        let keys = match tcgetattr(&stdin) {
            Ok(before) => {
                let mut settings = before.clone();
                settings
                    .local_flags
                    .remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
                tcsetattr(&stdin, SetArg::TCSANOW, &settings)?;
                Some((stdin, before))
            }
            Err(_) => None,
        };
        let mut screen = Self {
            stdout: io::stdout(),
            keys,
            signals,
            blocked,
        };
        screen.stdout.write_all(ENTER.as_bytes())?;
        screen.stdout.flush()?;
        Ok(screen)
    }

    /// Rows and columns.
    pub(super) fn size(&self) -> (usize, usize) {
        size_of(&self.stdout).unwrap_or(SIZE_DEFAULT)
    }

    /// Puts lines in the place of what was shown before; they have to fit. Written at once, so that nothing flickers.
    pub(super) fn show(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = "\x1b[H".to_owned();
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                text += "\r\n";
            }
            text += line;
            text += "\x1b[K";
        }
        text += "\x1b[J";
        self.stdout.write_all(text.as_bytes())?;
        self.stdout.flush()
    }

    /// Waits, and listens to keys and signals meanwhile.
    pub(super) fn wait(&mut self, time: Duration) -> io::Result<Waited> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let millis = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            let mut watched = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            if let Some((stdin, _)) = &self.keys {
                watched.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut watched, PollTimeout::from(millis)) {
                Ok(0) if millis == 0 || Instant::now() >= until => return Ok(Waited::Refresh),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let has_key = watched
                .get(1)
                .and_then(PollFd::revents)
                .is_some_and(|events| !events.is_empty());
            drop(watched);
            if let Some(signal) = self.signals.read_signal()? {
                let is_end = signal.ssi_signo != Signal::SIGWINCH as u32;
                return Ok(if is_end { Waited::End } else { Waited::Refresh });
            }
            if has_key && let Some((stdin, _)) = &self.keys {
                let mut keys = [0; 16];
                let count = nix::unistd::read(stdin, &mut keys)?;
                // Nothing to read: the terminal is gone.
                if count == 0
                    || keys[..count]
                        .iter()
                        .any(|key| [b'q', b'Q', CTRL_C].contains(key))
                {
                    return Ok(Waited::End);
                }
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing restored.
        let _ = self.stdout.write_all(LEAVE.as_bytes());
        let _ = self.stdout.flush();
        if let Some((stdin, before)) = &self.keys {
            let _ = tcsetattr(stdin, SetArg::TCSANOW, before);
        }
        let _ = self.blocked.thread_unblock();
    }
}
