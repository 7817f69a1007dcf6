//! The course of the demo: load, the edit half-way, the accident at three quarters, the end.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{
    documents::{Shop, VICTIM, sidecar},
    edges::{self, Reading},
    load::{Load, Tally},
    screen::Screen,
    summary::{Accident, Summary, complaints},
};
use crate::{child::State, run::mesh::LocalMesh};

/// After the edit, the time that sidecars have to follow before the new split is measured.
const SETTLING: Duration = Duration::from_secs(1);
/// How often the table is redrawn on a terminal, and printed where it cannot be redrawn.
const LIVE: Duration = Duration::from_secs(1);
const PRINTED: Duration = Duration::from_secs(5);
const NOTICE_DEADLINE: Duration = Duration::from_secs(5);

/// What is to happen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) duration: Duration,
    pub(super) rate: u32,
    /// Percent of payment for v1 before and after the edit.
    pub(super) splits: [u32; 2],
}

/// The demo while it runs.
pub(super) struct Story<'a> {
    plan: Plan,
    shop: &'a Shop,
    mesh: &'a mut LocalMesh,
    screen: &'a mut Screen,
}

/// What was measured on the way.
#[derive(Debug)]
struct Events {
    /// When the route was edited.
    before: Tally,
    /// When everybody must have followed.
    settled: Tally,
    accident: Accident,
}

impl<'a> Story<'a> {
    pub(super) const fn new(plan: Plan, shop: &'a Shop, mesh: &'a mut LocalMesh, screen: &'a mut Screen) -> Self {
        Self { plan, shop, mesh, screen }
    }

    /// Tells it to the end: the summary, and everything that is not as it should be.
    pub(super) async fn tell(&mut self) -> anyhow::Result<(Summary, Vec<String>)> {
        let entrance = self.shop.entrance().context("the shop has no entrance")?;
        let Plan { duration, rate, splits: [before, _] } = self.plan;
        let first = edges::read(&self.mesh.board()).await?;
        self.screen.note(&format!(
            "{rate} requests a second for {} s; payment is split {before}/{} by an HTTPRoute",
            duration.as_secs_f64(),
            100 - before
        ))?;
        let load = Load::new();
        let start = Instant::now();
        let running = load.run(entrance, rate, duration);
        let (events, ()) = tokio::try_join!(self.events(&load, start, &first), async {
            running.await;
            Ok(())
        })?;
        let last = edges::read(&self.mesh.board()).await?;
        let tally = load.tally();
        let whole = edges::since(&last, &first);
        let summary = self.summary(&whole, &tally, &events);
        self.screen.note(&format!("over all {:.0} s:", start.elapsed().as_secs_f64()))?;
        self.screen.table(&summary.edges, &[], start.elapsed())?;
        self.screen.keep();
        self.conclude(&summary, &tally, &events.accident)?;
        let complaints = complaints(&summary, &tally, self.plan.splits, &events.accident);
        Ok((summary, complaints))
    }

    /// The table, and what happens at its time.
    async fn events(&mut self, load: &Load, start: Instant, first: &Reading) -> anyhow::Result<Events> {
        let duration = self.plan.duration;
        let mut view = View { reading: first.clone(), at: start, tally: Tally::default() };
        self.watch(load, &mut view, start + duration / 2).await?;
        let before = load.tally();
        let [old, new] = self.plan.splits;
        self.shop.split(new)?;
        self.note(start, &format!("route.yaml edited: payment {old}/{} -> {new}/{}", 100 - old, 100 - new))?;
        // Not part of any table: the moment in which both splits were in force.
        sleep_until(Instant::now() + SETTLING).await;
        self.refresh(load, &mut view).await?;
        let settled = load.tally();
        self.watch(load, &mut view, start + duration * 3 / 4).await?;
        let accident = self.accident(start).await?;
        self.watch(load, &mut view, start + duration).await?;
        Ok(Events { before, settled, accident })
    }

    /// Kills one instance, application and sidecar, and waits until that is noticed; then takes it out of the mesh.
    async fn accident(&mut self, start: Instant) -> anyhow::Result<Accident> {
        let killed = Instant::now();
        self.mesh.family.kill(VICTIM).with_context(|| format!("cannot kill {VICTIM}"))?;
        self.mesh.family.kill(&sidecar(VICTIM)).with_context(|| format!("cannot kill the sidecar of {VICTIM}"))?;
        self.note(start, &format!("killed {VICTIM} and its sidecar (SIGKILL); {VICTIM} was one of two of v1"))?;
        let mut board = self.mesh.family.watch();
        let gone = board
            .wait_for(|board| board.get(VICTIM).is_some_and(|status| matches!(status.state, State::Exited { .. })));
        drop(tokio::time::timeout(NOTICE_DEADLINE, gone).await.context("nobody noticed the loss")??);
        self.shop.remove(VICTIM).with_context(|| format!("cannot remove the document of {VICTIM}"))?;
        let noticed = Instant::now();
        // Otherwise it would be started again: this one stays away.
        self.mesh.family.stop(&[sidecar(VICTIM)], Duration::ZERO).await;
        let after = noticed - killed;
        self.note(start, &format!("noticed after {:.0} ms: its Workload is removed", after.as_secs_f64() * 1000.0))?;
        Ok(Accident { killed, noticed })
    }

    /// Shows the table until then.
    async fn watch(&mut self, load: &Load, view: &mut View, until: Instant) -> anyhow::Result<()> {
        let every = if self.screen.is_live() { LIVE } else { PRINTED };
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            tokio::select! {
                _ = ticks.tick() => self.draw(load, view).await?,
                () = sleep_until(until) => break,
            }
        }
        if !self.screen.is_live() && view.at.elapsed() > Duration::from_millis(500) {
            self.draw(load, view).await?;
        }
        self.screen.keep();
        Ok(())
    }

    async fn draw(&mut self, load: &Load, view: &mut View) -> anyhow::Result<()> {
        let earlier = self.refresh(load, view).await?;
        let change = edges::since(&view.reading, &earlier.reading);
        let ledger = view.tally.ledger_ms.get(earlier.tally.ledger_ms.len()..).unwrap_or_default();
        let rows = edges::rows(&change, ledger);
        self.screen.table(&rows, &edges::split(&change), view.at - earlier.at)?;
        Ok(())
    }

    /// Takes a new reading; gives back the one before.
    async fn refresh(&mut self, load: &Load, view: &mut View) -> anyhow::Result<View> {
        let reading = edges::read(&self.mesh.board()).await?;
        Ok(std::mem::replace(view, View { reading, at: Instant::now(), tally: load.tally() }))
    }

    fn note(&mut self, start: Instant, text: &str) -> std::io::Result<()> {
        self.screen.note(&format!("[{:5.1} s] {text}", start.elapsed().as_secs_f64()))
    }

    fn summary(&self, whole: &Reading, tally: &Tally, events: &Events) -> Summary {
        let split = |later: &Tally, earlier: &Tally| -> BTreeMap<String, f64> {
            let share = |version: &str| (later.share(version, earlier) * 10.0).round() / 10.0;
            ["v1", "v2"].map(|version| (version.to_owned(), share(version))).into()
        };
        Summary {
            requests: tally.requests,
            failed: tally.failed,
            edges: edges::rows(whole, &tally.ledger_ms),
            split_before: split(&events.before, &Tally::default()),
            split_after: split(tally, &events.settled),
        }
    }

    fn conclude(&mut self, summary: &Summary, tally: &Tally, accident: &Accident) -> std::io::Result<()> {
        let share = |split: &BTreeMap<String, f64>| split.get("v1").copied().unwrap_or(0.0);
        let window = tally.failures.iter().map(|(at, _)| *at).max().map(|last| last - accident.killed.min(last));
        let failures = match window {
            None => "no request failed".to_owned(),
            Some(window) => {
                format!("{} failed, the last {:.0} ms after the kill", summary.failed, window.as_secs_f64() * 1000.0)
            }
        };
        self.screen.note(&format!(
            "{} requests, {failures}; v1 of payment had {:.1} % before the edit and {:.1} % after it",
            summary.requests,
            share(&summary.split_before),
            share(&summary.split_after)
        ))
    }
}

/// The reading that the table counts from.
#[derive(Debug)]
struct View {
    reading: Reading,
    at: Instant,
    tally: Tally,
}
