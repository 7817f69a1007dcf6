use std::collections::BTreeMap;

use pillion_wire::load_shedding::{MinRtt, Percent};
use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::*;

const MILLI: Duration = Duration::from_millis(1);

fn settings(fixed: Option<Duration>) -> Settings {
    Settings { min_rtt: MinRtt { fixed, ..MinRtt::default() }, ..Settings::default() }
}

/// A window of equal latencies with so many under way; the limit after it.
fn window(gradient: &mut Gradient, now: &mut Instant, latency: Duration, in_flight: u32) -> u32 {
    gradient.handle_in_flight(in_flight);
    for _ in 0..10 {
        gradient.handle_latency(*now, latency, *now, || 0.0);
    }
    *now += 100 * MILLI;
    gradient.handle_time(*now, || 0.0);
    gradient.limit()
}

#[tokio::test(start_paused = true)]
async fn the_limit_falls_by_half_at_most_and_rises_only_where_it_is_used() {
    let mut now = Instant::now();
    let mut gradient = Gradient::new(settings(Some(10 * MILLI)), now);
    assert_eq!(gradient.limit(), 1000, "it begins at the most");
    for (latency, in_flight, wanted) in [
        (1000, 1000, 522), // 500 + √500
        (1000, 522, 277),  // 261 + √261
        (20, 277, 186),    // 12.5 / 20 of it: 173 + √173
        (12, 186, 207),    // 12.5 / 12: 193.75 + √
        (12, 90, 207),     // Less than half is used.
        (1, 207, 434),     // Twice at most.
        (20, 1, 287),      // It falls however little is used.
    ] {
        assert_eq!(window(&mut gradient, &mut now, latency * MILLI, in_flight), wanted, "{latency} ms");
    }
    for _ in 0..20 {
        window(&mut gradient, &mut now, 1000 * MILLI, 1000);
    }
    assert_eq!(gradient.limit(), 3, "never below the least");
    assert!(!gradient.is_measuring(), "what is fixed is not measured");
}

#[tokio::test(start_paused = true)]
async fn min_rtt_is_measured_at_first_at_intervals_and_when_it_is_doubted() {
    let mut now = Instant::now();
    let mut gradient = Gradient::new(settings(None), now);
    let measure = |gradient: &mut Gradient, now: Instant, latency: Duration| {
        assert!(gradient.is_measuring());
        gradient.handle_latency(now - MILLI, 100 * latency, now, || 0.5); // It began before.
        for _ in 0..50 {
            assert!(gradient.is_measuring());
            gradient.handle_latency(now, latency, now, || 0.5);
        }
        assert!(!gradient.is_measuring());
        assert_eq!(gradient.min_rtt(), Some(latency));
    };
    measure(&mut gradient, now, 10 * MILLI);
    now += Duration::from_millis(64_499);
    gradient.handle_time(now, || 0.5);
    assert!(!gradient.is_measuring(), "60 s and half of 15 %");
    now += MILLI;
    gradient.handle_time(now, || 0.5);
    measure(&mut gradient, now, 20 * MILLI);
    let mut windows = 0;
    while !gradient.is_measuring() {
        window(&mut gradient, &mut now, 1000 * MILLI, 1000);
        windows += 1;
        assert!(windows < 30, "{gradient:?}");
    }
    assert_eq!(gradient.limit(), 3);
    measure(&mut gradient, now, 1000 * MILLI);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_held_back_for_long() {
    let start = Instant::now();
    let mut gradient = Gradient::new(settings(None), start);
    assert!(!gradient.holds(2, start), "so many may be under way");
    assert!(gradient.holds(3, start) && gradient.holds(100, start + MILLI));
    assert_eq!(gradient.held_until(), Some(start + gradient::HOLD));
    gradient.handle_time(start + gradient::HOLD, || 0.0);
    assert!(!gradient.holds(100, start + gradient::HOLD), "nothing is known, and it goes on with all of them");
    assert!(gradient.is_measuring());

    let mut gradient = Gradient::new(settings(None), start);
    assert!(gradient.holds(3, start));
    for _ in 0..3 {
        gradient.handle_latency(start, 700 * MILLI, start, || 0.0);
    }
    assert!(gradient.is_measuring());
    gradient.handle_time(start + gradient::HOLD, || 0.0);
    assert_eq!((gradient.min_rtt(), gradient.is_measuring()), (Some(700 * MILLI), false), "few have to do");
    let later = start + Duration::from_secs(100);
    gradient.handle_time(later, || 0.0);
    assert!(gradient.holds(3, later));
    assert_eq!(gradient.held_until(), Some(later + 2100 * MILLI), "three times the latency");
    gradient.handle_time(later + 2099 * MILLI, || 0.0);
    assert!(gradient.holds(3, later + 2099 * MILLI));
    gradient.handle_time(later + 2100 * MILLI, || 0.0);
    assert_eq!((gradient.min_rtt(), gradient.is_measuring()), (Some(700 * MILLI), false), "it stays as it was");
}

#[tokio::test(start_paused = true)]
async fn callers_that_lose_patience_count() {
    let mut now = Instant::now();
    let mut gradient = Gradient::new(settings(Some(10 * MILLI)), now);
    gradient.handle_in_flight(1000);
    for waited in [1, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12] {
        gradient.handle_given_up(waited * MILLI);
    }
    now += 100 * MILLI;
    gradient.handle_time(now, || 0.0);
    assert_eq!(gradient.limit(), 1000, "they waited no longer than usual");
    for _ in 0..10 {
        gradient.handle_given_up(1000 * MILLI);
    }
    gradient.handle_time(now, || 0.0);
    assert_eq!(gradient.limit(), 522);
}

const LOW: Criticality = Criticality::Sheddable;
const HIGH: Criticality = Criticality::Critical;

/// Places of a limit of ten, and who has them.
struct Table {
    shares: Shares,
    now: Instant,
    held: Vec<(&'static str, Criticality, Place)>,
}

impl Table {
    fn new() -> Self {
        let now = Instant::now();
        Self { shares: Shares::new(now), now, held: Vec::new() }
    }

    fn ask(&mut self, caller: &'static str, criticality: Criticality) -> Result<(), Why> {
        let place = self.shares.enter(&Arc::from(caller), criticality, 10, self.now)?;
        self.held.push((caller, criticality, place));
        Ok(())
    }

    /// As many as get in.
    fn fill(&mut self, caller: &'static str, criticality: Criticality) -> usize {
        std::iter::from_fn(|| self.ask(caller, criticality).ok()).take(100).count()
    }

    fn end(&mut self, caller: &str, criticality: Criticality) {
        let at = self.held.iter().position(|held| (held.0, held.1) == (caller, criticality)).expect("one of those");
        let (.., place) = self.held.remove(at);
        self.shares.leave(&place, 10, self.now);
    }
}

#[tokio::test(start_paused = true)]
async fn one_caller_may_have_all_places_and_the_next_gets_its_share_as_they_are_freed() {
    let mut table = Table::new();
    assert_eq!(table.fill("noisy", HIGH), 10, "there is nobody else");
    assert_eq!(table.ask("quiet", HIGH), Err(Why::Full));
    table.end("noisy", HIGH);
    assert_eq!(table.ask("noisy", HIGH), Err(Why::Caller), "the place is kept");
    assert_eq!(table.ask("quiet", HIGH), Ok(()));
    // Both want everything.
    for _ in 0..100 {
        table.end("noisy", HIGH);
        let _verdict = (table.ask("noisy", HIGH), table.ask("quiet", HIGH), table.ask("quiet", HIGH));
    }
    let of_quiet = table.held.iter().filter(|held| held.0 == "quiet").count();
    assert_eq!((of_quiet, table.held.len()), (5, 10), "fair shares");
    for _ in 0..5 {
        table.end("quiet", HIGH);
    }
    assert_eq!(table.ask("noisy", HIGH), Err(Why::Caller));
    table.now += Duration::from_secs(5);
    assert_eq!(table.fill("noisy", HIGH), 4, "its demand has faded, but for one place");
    table.now += Duration::from_secs(60);
    assert_eq!(table.fill("noisy", HIGH), 1, "it is not expected any more");
}

#[tokio::test(start_paused = true)]
async fn what_is_more_important_goes_first() {
    let mut table = Table::new();
    assert_eq!(table.fill("a", LOW), 10);
    assert_eq!(table.ask("a", HIGH), Err(Why::Full));
    table.end("a", LOW);
    assert_eq!(table.ask("a", LOW), Err(Why::Criticality), "of the same caller");
    assert_eq!(table.ask("a", HIGH), Ok(()));
    for _ in 0..9 {
        table.end("a", LOW);
        let _verdict = (table.ask("a", HIGH), table.ask("a", HIGH), table.ask("a", LOW));
    }
    assert!(table.held.iter().all(|held| held.1 == HIGH), "in the end there is nothing else");

    let mut table = Table::new();
    assert_eq!(table.fill("batch", LOW), 10);
    for _ in 0..4 {
        assert_eq!(table.ask("shop", HIGH), Err(Why::Full));
    }
    for _ in 0..4 {
        table.end("batch", LOW);
        assert_eq!(table.ask("batch", LOW), Err(Why::Criticality), "of another one");
        assert_eq!(table.ask("shop", HIGH), Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_everything_by_calling_it_critical() {
    let mut table = Table::new();
    assert_eq!(table.fill("liar", Criticality::CriticalPlus), 10);
    for _ in 0..100 {
        table.end("liar", Criticality::CriticalPlus);
        let _verdict = (table.ask("liar", Criticality::CriticalPlus), table.ask("honest", LOW));
        table.fill("honest", LOW);
    }
    let of_honest = table.held.iter().filter(|held| held.0 == "honest").count();
    assert_eq!(of_honest, 3, "half of its fair share, rounded up");
}

#[tokio::test(start_paused = true)]
async fn more_callers_than_are_told_apart_are_one() {
    let now = Instant::now();
    let mut shares = Shares::new(now);
    let caller = |number: u32| Arc::from(format!("caller-{number}"));
    let held: Vec<_> = (0..300).map(|number| shares.enter(&caller(number), HIGH, 1000, now).expect("room")).collect();
    assert_eq!((shares.callers(), shares.in_flight()), (256, 300));
    held.iter().for_each(|place| shares.leave(place, 1000, now));
    for number in 0..10_000 {
        let place = shares.enter(&caller(number), HIGH, 1000, now).expect("room");
        shares.leave(&place, 1000, now);
    }
    assert_eq!((shares.callers(), shares.in_flight()), (256, 0));
}

fn shedder(settings: Settings) -> Arc<Shedder> {
    Arc::new(Shedder::new(settings))
}

#[tokio::test(start_paused = true)]
async fn those_held_back_go_on_as_others_end_and_when_it_is_enough() {
    let shedder = shedder(settings(None));
    let caller: Arc<str> = "a".into();
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(shedder.enter(&caller, HIGH).await.expect("room"));
    }
    let wait = || {
        let (shedder, caller) = (Arc::clone(&shedder), Arc::clone(&caller));
        tokio::spawn(async move { (shedder.enter(&caller, HIGH).await.expect("room"), Instant::now()) })
    };
    let (began, waiting) = (Instant::now(), [wait(), wait(), wait()]);
    tokio::task::yield_now().await;
    assert_eq!((shedder.report().in_flight, shedder.report().held), (6, 3));
    let [one, two, three] = waiting;
    first.pop();
    let (ticket, at) = one.await.expect("no panic");
    assert_eq!(at, began, "at once");
    two.abort();
    assert!(two.await.is_err());
    assert_eq!((shedder.report().in_flight, shedder.report().held), (4, 1));
    let (last, at) = three.await.expect("no panic");
    assert_eq!(at.duration_since(began), gradient::HOLD);
    drop((first, ticket, last));
    assert_eq!((shedder.report().in_flight, shedder.report().held), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn time_alone_frees_the_places_of_streams() {
    let fixed = MinRtt { fixed: Some(MILLI), ..MinRtt::default() };
    let shedder = shedder(Settings { most: 3, min_rtt: fixed, ..Settings::default() });
    let caller: Arc<str> = "a".into();
    let mut downloads = Vec::new();
    for _ in 0..3 {
        let mut ticket = shedder.enter(&caller, HIGH).await.expect("room");
        ticket.answered(Instant::now());
        downloads.push(ticket);
    }
    tokio::time::advance(STREAM - MILLI).await;
    assert_eq!(shedder.enter(&caller, HIGH).await.err(), Some(Why::Full));
    downloads.pop().expect("three").says_nothing();
    assert_eq!(shedder.report().in_flight, 2, "what ends before is no stream");
    tokio::time::advance(MILLI).await;
    let mut next = shedder.enter(&caller, HIGH).await.expect("nobody has polled anything");
    assert_eq!(shedder.report().in_flight, 1);
    next.answered(Instant::now());
    tokio::time::advance(STREAM).await;
    assert_eq!(shedder.report().in_flight, 0, "whoever looks");
    for mut ticket in downloads {
        ticket.took(ticket.since().elapsed(), Instant::now());
    }
    drop(next);
    let state = shedder.state.lock();
    assert_eq!((state.shares.in_flight(), state.answered.len()), (0, 0), "places come back once");
    assert!(format!("{:?}", state.gradient).contains("latencies: []"), "what they took says nothing");
}

#[tokio::test(start_paused = true)]
async fn streams_hold_nobody_back_while_min_rtt_is_measured() {
    let min_rtt = MinRtt { requests: 1, interval: MILLI, ..MinRtt::default() };
    let shedder = shedder(Settings { min_rtt, ..Settings::default() });
    let caller: Arc<str> = "a".into();
    shedder.enter(&caller, HIGH).await.expect("room").took(Duration::from_secs(5), Instant::now());
    tokio::time::advance(2 * MILLI).await; // It is measured again; requests are held back for 15 s at most.
    let mut downloads = Vec::new();
    for _ in 0..3 {
        downloads.push(shedder.enter(&caller, HIGH).await.expect("room"));
    }
    let waiting = {
        let (shedder, caller) = (Arc::clone(&shedder), Arc::clone(&caller));
        tokio::spawn(async move { (shedder.enter(&caller, HIGH).await.expect("room"), Instant::now()) })
    };
    tokio::time::advance(500 * MILLI).await;
    let heads = Instant::now();
    downloads.iter_mut().for_each(|ticket| ticket.answered(heads));
    let (_ticket, at) = waiting.await.expect("no panic");
    assert_eq!(at, heads + STREAM);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_measurement_that_one_who_waits_finds_is_told_to_the_others() {
    let min_rtt = MinRtt { requests: 5, interval: 100 * MILLI, ..MinRtt::default() };
    let shedder = shedder(Settings { min_rtt, ..Settings::default() });
    let caller: Arc<str> = "a".into();
    for _ in 0..5 {
        shedder.enter(&caller, HIGH).await.expect("room").took(Duration::from_secs(5), Instant::now());
    }
    tokio::time::advance(200 * MILLI).await;
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(shedder.enter(&caller, HIGH).await.expect("room"));
    }
    let began = Instant::now();
    let wait = || {
        let (shedder, caller) = (Arc::clone(&shedder), Arc::clone(&caller));
        tokio::spawn(async move { (shedder.enter(&caller, HIGH).await.expect("room"), Instant::now()) })
    };
    let mut waiting = vec![wait()];
    sleep(500 * MILLI).await;
    waiting.push(wait()); // It looks for itself half a second after the one before.
    tokio::task::yield_now().await;
    assert_eq!(shedder.report().held, 2);
    // What was measured is there, and only time is missing.
    let three = [700 * MILLI; 3];
    three.into_iter().for_each(|latency| shedder.state.lock().gradient.handle_latency(began, latency, began, || 0.0));
    for waiting in waiting {
        let (ticket, at) = waiting.await.expect("no panic");
        first.push(ticket); // One that ends would wake the next.
        assert_eq!(at.duration_since(began), gradient::HOLD);
    }
}

#[tokio::test(start_paused = true)]
async fn other_settings_forget_nothing_that_is_under_way() {
    let shedder = shedder(settings(Some(MILLI)));
    let (one, other): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(shedder.enter(&one, HIGH).await.expect("room"));
    }
    held.push(shedder.enter(&other, HIGH).await.expect("room"));
    shedder.set(&Settings { most: 5, ..settings(Some(MILLI)) });
    let report = shedder.report();
    assert_eq!((report.limit, report.in_flight, report.callers), (5, 11, 2), "nobody is cut");
    assert_eq!(shedder.enter(&one, HIGH).await.err(), Some(Why::Full));
    held.truncate(4);
    assert_eq!(shedder.enter(&one, HIGH).await.err(), Some(Why::Caller), "the other's demand is remembered");
    drop(shedder.enter(&other, HIGH).await.expect("one has become free"));
    shedder.set(&Settings { least: Some(50), most: 100, ..settings(Some(MILLI)) });
    assert_eq!((shedder.report().limit, shedder.report().in_flight), (50, 4));
    assert_eq!(shedder.shed().concat().iter().sum::<u64>(), 2, "what was counted stays");

    shedder.set(&settings(None));
    assert!(shedder.report().is_measuring && shedder.report().min_rtt.is_none(), "what was told is no longer known");
    let waiting = {
        let (shedder, one) = (Arc::clone(&shedder), Arc::clone(&one));
        tokio::spawn(async move { shedder.enter(&one, HIGH).await.expect("room").since() })
    };
    tokio::task::yield_now().await;
    assert_eq!(shedder.report().held, 1);
    shedder.set(&settings(Some(MILLI)));
    assert_eq!(waiting.await.expect("no panic"), Instant::now(), "nothing is measured any more");
    drop(held);
    assert_eq!(shedder.report().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn other_settings_put_off_nothing_that_was_planned() {
    let mut now = Instant::now();
    let mut gradient = Gradient::new(settings(None), now);
    for _ in 0..50 {
        gradient.handle_latency(now, 10 * MILLI, now, || 0.0);
    }
    let every = |seconds| {
        let min_rtt = MinRtt { interval: Duration::from_secs(seconds), ..MinRtt::default() };
        Settings { min_rtt, ..Settings::default() }
    };
    for seconds in [60, 600] {
        now += Duration::from_secs(20);
        gradient.handle_time(now, || 0.0);
        gradient.set(every(seconds), now, || 0.0);
        assert_eq!((gradient.is_measuring(), gradient.min_rtt()), (false, Some(10 * MILLI)));
    }
    now += Duration::from_secs(20);
    gradient.handle_time(now, || 0.0);
    assert!(gradient.is_measuring(), "a minute after the last time");
    for _ in 0..49 {
        gradient.handle_latency(now, 20 * MILLI, now, || 0.0);
    }
    gradient.set(every(30), now, || 0.0);
    gradient.handle_latency(now, 20 * MILLI, now, || 0.0);
    assert_eq!((gradient.is_measuring(), gradient.min_rtt()), (false, Some(20 * MILLI)), "it goes on");
}

/// An application that serves `capacity` requests at once in 10 ms each and queues the others, under more load than that.
/// The limit at the end.
fn simulate(gradient: &mut Gradient, now: &mut Instant, capacity: usize, rounds: usize) -> u32 {
    let mut in_flight: std::collections::VecDeque<Instant> = std::collections::VecDeque::new();
    for _ in 0..rounds {
        while in_flight.len() < gradient.limit() as usize {
            in_flight.push_back(*now);
        }
        gradient.handle_in_flight(in_flight.len() as u32);
        *now += 10 * MILLI;
        for began in in_flight.drain(..capacity.min(in_flight.len())) {
            gradient.handle_latency(began, *now - began, *now, || 0.0);
        }
        gradient.handle_time(*now, || 0.0);
    }
    gradient.limit()
}

#[tokio::test(start_paused = true)]
async fn the_limit_settles_near_the_capacity_and_follows_it() {
    let mut now = Instant::now();
    let mut gradient = Gradient::new(settings(Some(10 * MILLI)), now);
    for capacity in [20, 100, 10, 50] {
        let limit = simulate(&mut gradient, &mut now, capacity, 1000);
        let bound = capacity as u32..=3 * capacity as u32;
        assert!(bound.contains(&limit), "{limit} for a capacity of {capacity}");
    }
}

/// An application with a queue, and callers that never leave it in peace.
struct World {
    shedder: Arc<Shedder>,
    application: Arc<Semaphore>,
}

impl World {
    /// `backlog` requests have come before anybody shed anything.
    fn new(capacity: usize, backlog: usize, callers: usize) -> Self {
        let min_rtt = MinRtt { interval: Duration::from_secs(20), ..MinRtt::default() };
        let world = Self {
            shedder: shedder(Settings { min_rtt, ..Settings::default() }),
            application: Arc::new(Semaphore::new(capacity)),
        };
        for _ in 0..backlog {
            tokio::spawn(serve(Arc::clone(&world.application)));
        }
        for number in 0..callers {
            let (shedder, application) = (Arc::clone(&world.shedder), Arc::clone(&world.application));
            let caller: Arc<str> = (number % 5).to_string().into();
            tokio::spawn(async move {
                loop {
                    match shedder.enter(&caller, HIGH).await {
                        Ok(mut ticket) => {
                            serve(Arc::clone(&application)).await;
                            ticket.took(ticket.since().elapsed(), Instant::now());
                        }
                        Err(_why) => sleep(20 * MILLI).await,
                    }
                }
            });
        }
        world
    }

    /// After some time the latency without load is known; and the limit in the middle of the five seconds after that.
    async fn settles(&self, seconds: u64) -> u32 {
        sleep(Duration::from_secs(seconds)).await;
        let report = self.shedder.report();
        assert!(report.min_rtt.is_some_and(|rtt| (10..15).contains(&rtt.as_millis())), "{report:?}");
        let mut limits = Vec::new();
        for _ in 0..50 {
            sleep(100 * MILLI).await;
            limits.push(self.shedder.report().limit);
        }
        limits.sort_unstable();
        limits[25]
    }
}

async fn serve(application: Arc<Semaphore>) {
    let _place = application.acquire_owned().await;
    sleep(10 * MILLI).await;
}

#[tokio::test(start_paused = true)]
async fn measured_again_and_again_under_overload_the_limit_stays_near_the_capacity_and_follows_it() {
    let world = World::new(20, 0, 120);
    let limit = world.settles(70).await;
    assert!((20..=60).contains(&limit), "{limit}");
    world.application.add_permits(40);
    let more = world.settles(70).await;
    assert!(more > limit && (50..=180).contains(&more), "{limit}, then {more}");
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_was_there_before_is_not_taken_for_the_latency_without_load() {
    let world = World::new(20, 5000, 120);
    sleep(Duration::from_secs(10)).await;
    assert!(world.shedder.report().min_rtt.is_some_and(|rtt| rtt > 100 * MILLI), "at first it is");
    let limit = world.settles(30).await;
    assert!((20..=60).contains(&limit), "{limit}");
}

#[derive(Clone, Debug)]
enum Step {
    Enter(u8, usize),
    Drop(usize),
    Answer(usize, u16),
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..5_u8, 0..4_usize).prop_map(|(caller, criticality)| Step::Enter(caller, criticality)),
        any::<usize>().prop_map(Step::Drop),
        (any::<usize>(), 0..500_u16).prop_map(|(which, millis)| Step::Answer(which, millis)),
        (0..2000_u16).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Nobody is let in beyond the limit, the limit stays in its bounds, and every place comes back once.
    #[test]
    fn places_are_never_too_many_and_all_come_back(
        steps in prop::collection::vec(step(), 1..400), most in 4..40_u32, least in 1..4_u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let min_rtt = MinRtt { requests: 5, interval: 500 * MILLI, jitter: Percent(0), ..MinRtt::default() };
            let settings = Settings { most, least: Some(least), min_rtt, ..Settings::default() };
            let shedder = shedder(settings);
            let mut held = BTreeMap::new();
            let mut next = 0_usize;
            for step in steps {
                match step {
                    Step::Enter(caller, criticality) => {
                        let before = shedder.report();
                        let caller: Arc<str> = caller.to_string().into();
                        if let Ok(ticket) = shedder.enter(&caller, Criticality::ALL[criticality]).await {
                            assert!(before.in_flight < before.limit.max(shedder.report().limit), "{before:?}");
                            held.insert(next, ticket);
                            next += 1;
                        } else {
                            assert!(before.in_flight > 0, "an idle port refuses nobody");
                        }
                    }
                    Step::Drop(which) => {
                        let key = held.keys().nth(which % held.len().max(1)).copied();
                        held.remove(&key.unwrap_or_default());
                    }
                    Step::Answer(which, millis) => {
                        let key = held.keys().nth(which % held.len().max(1)).copied();
                        if let Some(mut ticket) = held.remove(&key.unwrap_or_default()) {
                            ticket.took(u32::from(millis) * MILLI, Instant::now());
                        }
                    }
                    Step::Pass(millis) => tokio::time::advance(u32::from(millis) * MILLI).await,
                }
                let report = shedder.report();
                assert_eq!(report.in_flight as usize, held.len());
                assert_eq!(report.held, 0);
                assert!((least..=most).contains(&report.limit), "{report:?}");
            }
            drop(held);
            assert_eq!(shedder.report().in_flight, 0);
        });
    }
}
