//! The signals that are the program's: taken before they act on us, told apart by who sent them, and passed on.

use std::io;

use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use tokio::io::unix::AsyncFd;

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

    /// The signals as they come. Needs a runtime.
    pub(super) fn receive(&self) -> io::Result<Signals> {
        let file = SignalFd::with_flags(&self.taken, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals(AsyncFd::register(file).map_err(io::Error::from)?))
    }
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
pub(super) struct Signals(AsyncFd<SignalFd>);

impl Signals {
    /// The next one.
    ///
    /// # Cancel safety
    /// No signal is lost.
    pub(super) async fn next(&self) -> io::Result<Received> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|file| match file.get_ref().read_signal()? {
                Some(info) => Ok(info),
                None => Err(io::ErrorKind::WouldBlock.into()),
            });
            let Ok(info) = read else { continue };
            let info = info?;
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            if let Some(signal) = signal {
                return Ok(Received { signal, from_terminal: info.ssi_code == SI_KERNEL });
            }
        }
    }

    /// The next one that ends a program that has not begun.
    pub(super) async fn end(&self) -> io::Result<Signal> {
        loop {
            let received = self.next().await?;
            if received.ends() {
                return Ok(received.signal);
            }
        }
    }
}
