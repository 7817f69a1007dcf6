//! Happy Eyeballs (RFC 8305): of several addresses of one host, the first that answers.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

/// How long one address has before the next is tried beside it (RFC 8305, section 5: "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Dials `addresses` in their order: the next one when the last has failed, or has not answered for 250 ms. The first that
/// answers wins, and the others are given up. The caller sets the deadline, and has put families in turns (section 4).
///
/// # Errors
/// When all have failed, with the last failure; without an address when there was none.
///
/// # Cancel safety
/// All attempts are given up.
pub async fn race<T, F>(
    addresses: &[SocketAddr],
    dial: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), (Option<SocketAddr>, io::Error)>
where
    F: Future<Output = io::Result<T>>,
{
    let mut untried = addresses.iter().copied();
    let mut attempts = FuturesUnordered::new();
    let mut failure = (None, io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address"));
    loop {
        let next = untried.next();
        if let Some(address) = next {
            let attempt = dial(address);
            attempts.push(async move { (address, attempt.await) });
        }
        let patience = Instant::now() + ATTEMPT_DELAY;
        tokio::select! {
            () = sleep_until(patience), if next.is_some() && untried.len() > 0 => {}
            answer = attempts.next() => match answer {
                Some((address, Ok(connection))) => return Ok((address, connection)),
                Some((address, Err(error))) => failure = (Some(address), error),
                None => return Err(failure),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// Who answers after how long: the address's port says, in milliseconds; those of an even host fail then.
    async fn dial(address: SocketAddr) -> io::Result<u16> {
        sleep(Duration::from_millis(address.port().into())).await;
        match address.to_string().starts_with("192.0.2.2:") {
            true => Err(io::Error::other("it fails")),
            false => Ok(address.port()),
        }
    }

    async fn race_of(texts: &[&str]) -> (Option<String>, u128) {
        let addresses: Vec<SocketAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let start = Instant::now();
        let won = race(&addresses, dial).await;
        (won.ok().map(|(address, _)| address.to_string()), start.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_answers_wins_and_the_next_begins_after_a_failure_or_a_while() {
        for (addresses, winner, took) in [
            (&["192.0.2.1:100"][..], Some("192.0.2.1:100"), 100),
            (&["192.0.2.1:100", "192.0.2.1:10"], Some("192.0.2.1:100"), 100), // Not even tried.
            (&["192.0.2.1:60000", "192.0.2.1:10"], Some("192.0.2.1:10"), 260),
            (&["192.0.2.1:300", "192.0.2.1:100"], Some("192.0.2.1:300"), 300), // It may still win.
            (&["192.0.2.2:20", "192.0.2.1:10"], Some("192.0.2.1:10"), 30),
            (&["192.0.2.1:60000", "192.0.2.2:20", "192.0.2.1:10"], Some("192.0.2.1:10"), 280),
            (&["192.0.2.1:60000", "192.0.2.1:60001", "192.0.2.1:5"], Some("192.0.2.1:5"), 505),
            (&["192.0.2.2:20", "192.0.2.2:30"], None, 50),
            (&[], None, 0),
        ] {
            assert_eq!(race_of(addresses).await, (winner.map(str::to_owned), took), "{addresses:?}");
        }
    }
}
