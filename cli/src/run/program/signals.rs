//! The signals that are the program's: taken before they act on us, told apart by who sent them, and passed on.

use std::{io, thread};

use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal},
    signalfd::{SfdFlags, SignalFd, siginfo},
};
use tokio::sync::mpsc;

/// What is passed on to the program.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];
/// Signals that wait to be passed on; more stay with the kernel.
const QUEUE: usize = 16;
/// `si_code` of a signal that the kernel sent: for these, because of a key in the terminal or its end.
const SI_KERNEL: i32 = 0x80;

/// These signals, blocked for all threads.
#[derive(Debug)]
pub(super) struct Blocked {
    taken: SigSet,
    before: SigSet,
}

impl Blocked {
    /// Keeps the signals from acting on us. To be called before there is a second thread.
    pub(super) fn block() -> nix::Result<Self> {
        let taken: SigSet = PASSED_ON.into_iter().collect();
        Ok(Self { taken, before: taken.thread_swap_mask(SigmaskHow::SIG_BLOCK)? })
    }

    /// What was blocked when we were started, and is to be when the program is: numbers.
    pub(super) fn before(&self) -> Vec<i32> {
        self.before.iter().map(|signal| signal as i32).collect()
    }

    /// The signals as they come.
    pub(super) fn receive(&self) -> io::Result<Signals> {
        let file = SignalFd::with_flags(&self.taken, SfdFlags::SFD_CLOEXEC)?;
        let (sender, signals) = mpsc::channel(QUEUE);
        // A thread of its own, which ends with the process: tokio waits only for files that it knows to be sound.
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            loop {
                match file.read_signal() {
                    Ok(Some(info)) if sender.blocking_send(received(&info)).is_ok() => {}
                    Ok(None) | Err(nix::Error::EINTR) => {}
                    _ => return,
                }
            }
        })?;
        Ok(Signals(signals))
    }
}

fn received(info: &siginfo) -> Option<Received> {
    let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())?;
    Some(Received { signal, from_terminal: info.ssi_code == SI_KERNEL })
}

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) signal: Signal,
    /// From the terminal: all processes in its foreground got it, so the program did too.
    pub(super) from_terminal: bool,
}

impl Received {
    /// Whether it ends a program that has not begun.
    pub(super) const fn ends(self) -> bool {
        matches!(self.signal, Signal::SIGTERM | Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT)
    }
}

/// The signals as they come.
#[derive(Debug)]
pub(super) struct Signals(mpsc::Receiver<Option<Received>>);

impl Signals {
    /// The next one.
    ///
    /// # Cancel safety
    /// No signal is lost.
    pub(super) async fn next(&mut self) -> Received {
        loop {
            match self.0.recv().await {
                Some(Some(received)) => return received,
                Some(None) => {}
                // The thread ended, which it never does: then there are no signals.
                None => std::future::pending().await,
            }
        }
    }

    /// Forgets those that have come.
    pub(super) fn forget(&mut self) {
        while self.0.try_recv().is_ok() {}
    }

    /// The next one that ends a program that has not begun.
    pub(super) async fn end(&mut self) -> Signal {
        loop {
            let received = self.next().await;
            if received.ends() {
                return received.signal;
            }
        }
    }
}
