//! What each balancer makes of ten endpoints of which one is slow, one fails and one is new: a simulation in virtual time,
//! the same in every run. Prints a table; takes seconds.
//!
//! 1,000 requests a second for 90 s, at random times. An endpoint serves 16 requests at once and queues the others. Eight
//! take 10 ms on average (exponential), the slow one 100 ms; the failing one fails after 1 ms. The new one is one of the
//! eight, comes after 30 s and is cold: 150 ms at first, 10 ms after 20 s.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use pillion_proxy::balance::{self, Ewma, LoadBalancer, Spec, View, Weights, xxh64};
use pillion_proxy::config::{LbPolicy, SlowStart};
use tokio::time::Instant;

const SECOND: f64 = 1e9;
const RATE: f64 = 1000.0;
const END: u64 = 90_000_000_000;
const JOINS: u64 = 30_000_000_000;
const IS_NEW_FOR: u64 = 20_000_000_000;
const AT_ONCE: usize = 16;
const DECAY: Duration = Duration::from_secs(10);
const SLOW: usize = 7;
const FAILING: usize = 8;
const NEW: usize = 9;

fn main() {
    let least = |full_scan| LbPolicy::LeastRequest { choices: 2, bias: 100, full_scan };
    let ewma =
        LbPolicy::PeakEwma { decay: DECAY, default_rtt: Duration::from_millis(30), penalty: Duration::from_secs(5) };
    let slow_start = Some(SlowStart { window: Duration::from_secs(20), aggression: 100, minimum: 10 });
    println!("| algorithm | p50 | p99 | failed | ordinary, each | slow | failing | new, its first 20 s |");
    println!("|---|---|---|---|---|---|---|---|");
    for (name, policy, slow_start) in [
        ("`roundRobin`", LbPolicy::RoundRobin, None),
        ("`roundRobin`, `slowStart` 20 s", LbPolicy::RoundRobin, slow_start),
        ("`random`", LbPolicy::Random, None),
        ("`leastRequest`", least(false), None),
        ("`leastRequest`, `slowStart` 20 s", least(false), slow_start),
        ("`leastConnections`", least(true), None),
        ("`peakEwma`", ewma, None),
        ("`ringHash`", LbPolicy::RingHash { minimum: 1024, maximum: 8 << 20 }, None),
        ("`maglev`", LbPolicy::Maglev { table: 65_537 }, None),
    ] {
        println!("| {name} | {} |", Simulation::new(policy, slow_start).run());
    }
}

/// The mesh at a time.
struct Simulation {
    policy: LbPolicy,
    slow_start: Option<SlowStart>,
    start: Instant,
    now: u64,
    random: Cell<u64>,
    hash: u64,
    endpoints: Vec<Endpoint>,
    /// When requests end: time, endpoint, latency.
    ends: BinaryHeap<Reverse<(u64, usize, u64)>>,
}

#[derive(Default)]
struct Endpoint {
    in_flight: usize,
    /// When each of those that serve is free again.
    free: BinaryHeap<Reverse<u64>>,
    latency: Ewma,
    picks: u64,
    picks_while_new: u64,
}

impl Simulation {
    fn new(policy: LbPolicy, slow_start: Option<SlowStart>) -> Self {
        let endpoint = || Endpoint { free: (0..AT_ONCE).map(|_| Reverse(0)).collect(), ..Endpoint::default() };
        Self {
            policy,
            slow_start,
            start: Instant::now(),
            now: 0,
            random: Cell::new(42),
            hash: 0,
            endpoints: (0..NEW).map(|_| endpoint()).collect(),
            ends: BinaryHeap::new(),
        }
    }

    fn run(mut self) -> String {
        let (mut balancer, mut latencies, mut failed, mut while_new) = (self.balancer(), Vec::new(), 0_u64, 0_u64);
        loop {
            self.now += (-self.uniform().ln() / RATE * SECOND) as u64;
            if self.now > END {
                break;
            }
            self.end_what_is_over();
            if self.now >= JOINS && self.endpoints.len() == NEW {
                let free = (0..AT_ONCE).map(|_| Reverse(self.now)).collect();
                self.endpoints.push(Endpoint { free, ..Endpoint::default() });
                balancer = self.balancer();
            }
            // One of 10,000 users.
            self.hash = xxh64(&(self.next() % 10_000).to_le_bytes(), 0);
            let Some(at) = balancer.pick(&self) else { continue };
            let latency = self.serve(at);
            let is_new = (JOINS..JOINS + IS_NEW_FOR).contains(&self.now);
            while_new += u64::from(is_new);
            let Some(endpoint) = self.endpoints.get_mut(at) else { continue };
            endpoint.picks += 1;
            endpoint.picks_while_new += u64::from(is_new);
            if at == FAILING { failed += 1 } else { latencies.push(latency) }
        }
        self.summary(&mut latencies, failed, while_new)
    }

    fn balancer(&self) -> Box<dyn LoadBalancer> {
        let weights = vec![1; self.endpoints.len()];
        let name = |at| format!("10.0.0.{at}:80");
        balance::make(&Spec { policy: self.policy, weights: &weights, name: &name, start: 0 })
    }

    /// Takes a request, and says how long it will take.
    fn serve(&mut self, at: usize) -> u64 {
        let mean = match at {
            FAILING => 0.001,
            SLOW => 0.1,
            NEW => {
                let warm = ((self.now - JOINS) as f64 / IS_NEW_FOR as f64).min(1.0);
                0.15 - 0.14 * warm
            }
            _ => 0.01,
        };
        let takes = if at == FAILING { mean } else { -self.uniform().ln() * mean };
        let Some(endpoint) = self.endpoints.get_mut(at) else { return 0 };
        let free = endpoint.free.pop().map_or(0, |Reverse(free)| free);
        let end = free.max(self.now) + (takes * SECOND) as u64;
        endpoint.free.push(Reverse(end));
        endpoint.in_flight += 1;
        self.ends.push(Reverse((end, at, end - self.now)));
        end - self.now
    }

    fn end_what_is_over(&mut self) {
        while let Some(Reverse((end, at, latency))) =
            self.ends.peek().copied().filter(|Reverse(next)| next.0 <= self.now)
        {
            self.ends.pop();
            let Some(endpoint) = self.endpoints.get_mut(at) else { continue };
            endpoint.in_flight -= 1;
            let latency = Duration::from_nanos(latency);
            let latency = if at == FAILING { latency.max(Duration::from_secs(5)) } else { latency };
            endpoint.latency.observe(latency, self.start + Duration::from_nanos(end), DECAY);
        }
    }

    fn summary(&self, latencies: &mut [u64], failed: u64, while_new: u64) -> String {
        latencies.sort_unstable();
        let quantile = |part: usize| {
            let value = latencies.get(latencies.len() * part / 100).copied().unwrap_or_default();
            format!("{:.0} ms", value as f64 / 1e6)
        };
        let total = (latencies.len() as u64 + failed) as f64;
        let percent = |count: u64, of: f64| format!("{:.1} %", count as f64 * 100.0 / of);
        let picks = |at: usize| self.endpoints.get(at).map_or(0, |endpoint| endpoint.picks);
        let ordinary: u64 = (0..SLOW).map(picks).sum();
        let new = self.endpoints.get(NEW).map_or(0, |endpoint| endpoint.picks_while_new);
        [
            quantile(50),
            quantile(99),
            percent(failed, total),
            percent(ordinary, total * SLOW as f64),
            percent(picks(SLOW), total),
            percent(picks(FAILING), total),
            percent(new, while_new as f64),
        ]
        .join(" | ")
    }

    /// SplitMix64 (Steele et al., 2014).
    fn next(&self) -> u64 {
        self.random.set(self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mixed = self.random.get();
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Above 0, up to 1.
    fn uniform(&self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    fn is_warming(&self) -> bool {
        let window = self.slow_start.map_or(0, |slow| slow.window.as_nanos() as u64);
        self.endpoints.len() > NEW && self.now < JOINS + window
    }
}

impl View for Simulation {
    fn count(&self) -> usize {
        self.endpoints.len()
    }

    fn usable(&self, _at: usize) -> bool {
        true
    }

    fn weights(&self) -> Weights {
        if self.is_warming() { Weights::Moving } else { Weights::Even }
    }

    fn weight(&self, at: usize) -> f64 {
        match self.slow_start.filter(|_| at == NEW) {
            Some(slow) => balance::started(slow, Duration::from_nanos(self.now - JOINS)),
            None => 1.0,
        }
    }

    fn in_flight(&self, at: usize) -> usize {
        self.endpoints.get(at).map_or(0, |endpoint| endpoint.in_flight)
    }

    fn latency(&self, at: usize) -> f64 {
        let now = self.start + Duration::from_nanos(self.now);
        self.endpoints.get(at).and_then(|endpoint| endpoint.latency.expect(now, DECAY)).unwrap_or(0.03)
    }

    fn hash(&self) -> Option<u64> {
        Some(self.hash)
    }

    fn random(&self) -> u64 {
        self.next()
    }
}
