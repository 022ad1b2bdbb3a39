//! A process that waits on a doorbell and means harm: whatever it does with its part, the other side does not wait.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};
use shm_transport::wakeup::Doorbell;

const ORDERS: &str = "HOSTILE_DOORBELL_ORDERS";
const WATCHDOG: Duration = Duration::from_secs(60);

/// Notifies many times on a thread of its own; fails if that does not come to an end.
fn notify_often(doorbell: &Doorbell) {
    let doorbell = doorbell.try_clone().expect("dup");
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..10_000 {
            // An error is as good as a wakeup: the peer has broken its own doorbell.
            let _ = doorbell.notify();
        }
        done.send(()).expect("the test waits");
    });
    is_done.recv_timeout(WATCHDOG).expect("a notify blocks");
}

/// What the second process does with its part, by number.
const TRICKS: usize = 3;

fn play(trick: usize, doorbell: &OwnedFd) {
    fcntl(doorbell, FcntlArg::F_SETFL(OFlag::empty())).expect("made blocking");
    match trick {
        0 => setsockopt(doorbell, sockopt::RcvBuf, &1).expect("the smallest buffer"),
        // Fills what the other side never reads.
        1 => while send(doorbell.as_raw_fd(), &[0; 8], MsgFlags::MSG_DONTWAIT).is_ok() {},
        _ => nix::sys::socket::shutdown(doorbell.as_raw_fd(), nix::sys::socket::Shutdown::Both)
            .expect("shut down"),
    }
}

#[test]
fn the_other_process() {
    let Ok(orders) = std::env::var(ORDERS) else {
        // Nobody has started this as a second process. A doorbell of one's own is rung in vain, too.
        let (notify, wait) = Doorbell::pair().expect("doorbell");
        drop(wait);
        assert!(notify.notify().is_err(), "nobody is there");
        return;
    };
    let (trick, fd) = orders.split_once(' ').expect("two words");
    // SAFETY: the process that started this one left an open descriptor under this number, for this test alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd.parse().expect("a descriptor")) };
    play(trick.parse().expect("a number"), &fd);
    std::io::Write::write_all(&mut std::io::stdout(), b"played\n").expect("a pipe");
    // Holds its part, reads nothing, until it is killed.
    loop {
        std::thread::park();
    }
}

#[test]
fn a_hostile_process_cannot_make_a_notify_wait() {
    for trick in 0..TRICKS {
        let (notify, wait) = Doorbell::pair().expect("doorbell");
        let theirs = nix::unistd::dup(wait.as_fd()).expect("dup");
        let mut child = Command::new(std::env::current_exe().expect("path of the test binary"))
            .args(["--exact", "the_other_process", "--nocapture"])
            .env(ORDERS, format!("{trick} {}", theirs.as_raw_fd()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("second process");
        drop((wait, theirs));
        let output = child.stdout.take().expect("piped");
        let played = std::io::BufRead::lines(std::io::BufReader::new(output))
            .map_while(Result::ok)
            .any(|line| line.contains("played"));
        assert!(played, "trick={trick}");
        notify_often(&notify);
        child.kill().expect("SIGKILL");
        child.wait().expect("wait");
        notify_often(&notify);
    }
}
