//! What load shedding does for an application that gets three times what it can do: a simulation in virtual time. Prints a
//! table; takes seconds.
//!
//! The application serves 16 requests at once in 10 ms each on average (exponential), 1,600 in a second, and queues the
//! others; it does not notice when a caller has left. For 100 s a noisy caller sends 4,800 a second and a quiet one 50, at
//! random times; both wait for a second at most.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to say")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pillion_proxy::resilience::shedding::Shedder;
use pillion_wire::load_shedding::{Criticality, Gradient, MinRtt, Percent};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const CAPACITY: usize = 16;
const SERVICE: f64 = 0.01;
const PATIENCE: Duration = Duration::from_secs(1);
const END: Duration = Duration::from_secs(100);
const NOISY: f64 = 4800.0;
const QUIET: f64 = 50.0;

/// One row of the table.
struct Scenario {
    name: &'static str,
    shedding: bool,
    /// The callers' names.
    callers: [&'static str; 2],
    noisy_is: Criticality,
}

/// What became of a caller's requests.
#[derive(Default)]
struct Tally {
    sent: Cell<u64>,
    refused: Cell<u64>,
    latencies: RefCell<Vec<Duration>>,
}

fn main() {
    println!(
        "| | served in time, each second | of the noisy caller | of the quiet caller | p50, p99 of the quiet one |"
    );
    println!("|---|---|---|---|---|");
    let scenario = |name, shedding, callers, noisy_is| Scenario { name, shedding, callers, noisy_is };
    for scenario in [
        scenario("without", false, ["noisy", "quiet"], Criticality::Critical),
        scenario("a limit, callers not told apart", true, ["any", "any"], Criticality::Critical),
        scenario("fair among callers", true, ["noisy", "quiet"], Criticality::Critical),
        scenario("the noisy one's are `SHEDDABLE`", true, ["any", "any"], Criticality::Sheddable),
    ] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let row = LocalSet::new().block_on(&runtime.expect("a runtime"), run(&scenario));
        println!("| {} | {row} |", scenario.name);
    }
}

async fn run(scenario: &Scenario) -> String {
    let shedder = scenario.shedding.then(|| {
        // As by default, but the same in every run.
        let min_rtt = MinRtt { jitter: Percent(0), ..MinRtt::default() };
        let gradient = Gradient { min_rtt, ..Gradient::default() };
        Arc::new(Shedder::new(gradient))
    });
    let application = Arc::new(Semaphore::new(CAPACITY));
    let tallies = [Rc::new(Tally::default()), Rc::new(Tally::default())];
    let callers = [(NOISY, scenario.noisy_is, 1), (QUIET, Criticality::Critical, 2)];
    let all =
        callers.into_iter().zip(&tallies).zip(scenario.callers).map(|(((rate, criticality, seed), tally), name)| {
            let caller = Caller {
                name: name.into(),
                criticality,
                shedder: shedder.clone(),
                application: Arc::clone(&application),
                tally: Rc::clone(tally),
            };
            tokio::task::spawn_local(send(rate, Random(Cell::new(seed)), Rc::new(caller)))
        });
    for caller in all.collect::<Vec<_>>() {
        caller.await.expect("no panic");
    }
    sleep(PATIENCE * 2).await;
    let [noisy, quiet] = &tallies;
    let served = |tally: &Tally| tally.latencies.borrow().len() as f64;
    let part = |tally: &Tally| format!("{:.1} %", served(tally) * 100.0 / tally.sent.get() as f64);
    format!(
        "{:.0} | {} | {} | {}, {}",
        (served(noisy) + served(quiet)) / END.as_secs_f64(),
        part(noisy),
        part(quiet),
        quantile(quiet, 50),
        quantile(quiet, 99)
    )
}

fn quantile(tally: &Tally, percent: usize) -> String {
    let mut latencies = tally.latencies.borrow_mut();
    latencies.sort_unstable();
    let found = latencies.get(latencies.len() * percent / 100);
    found.map_or_else(|| "-".to_owned(), |latency| format!("{} ms", latency.as_millis()))
}

/// Whoever sends, and to whom.
struct Caller {
    name: Arc<str>,
    criticality: Criticality,
    shedder: Option<Arc<Shedder>>,
    application: Arc<Semaphore>,
    tally: Rc<Tally>,
}

async fn send(rate: f64, random: Random, caller: Rc<Caller>) {
    let began = Instant::now();
    let mut at = Duration::ZERO;
    loop {
        at += Duration::from_secs_f64(random.exponential() / rate);
        if at >= END {
            return;
        }
        sleep_until(began + at).await;
        let takes = Duration::from_secs_f64(random.exponential() * SERVICE);
        tokio::task::spawn_local(request(Rc::clone(&caller), takes));
    }
}

async fn request(caller: Rc<Caller>, takes: Duration) {
    let (began, tally) = (Instant::now(), &caller.tally);
    tally.sent.set(tally.sent.get() + 1);
    let mut ticket = None;
    if let Some(shedder) = &caller.shedder {
        match shedder.enter(&caller.name, caller.criticality).await {
            Ok(entered) => ticket = Some(entered),
            Err(_why) => return tally.refused.set(tally.refused.get() + 1),
        }
    }
    let application = Arc::clone(&caller.application);
    let work = tokio::task::spawn_local(async move {
        let _place = application.acquire_owned().await;
        sleep(takes).await;
    });
    if timeout(PATIENCE.saturating_sub(began.elapsed()), work).await.is_ok() {
        if let Some(ticket) = &mut ticket {
            let now = Instant::now();
            ticket.took(now - ticket.since(), now);
        }
        tally.latencies.borrow_mut().push(began.elapsed());
    }
}

/// SplitMix64 (Steele et al., 2014).
struct Random(Cell<u64>);

impl Random {
    fn exponential(&self) -> f64 {
        self.0.set(self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mixed = self.0.get();
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let uniform = (((mixed ^ (mixed >> 31)) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -uniform.ln()
    }
}
