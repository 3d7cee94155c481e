//! How long it takes until a component answers, step by step, and many at once.

mod at_once;
mod start;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use sampan_core::object::Isolation;
use sampan_runtime::{Origin, admission::inspect::Inspection};

use super::{
    BenchError, Component, Workbench, app, isolation_name,
    recorder::{Part, Place},
    report::{Better, Unit},
};
use crate::serve::AppSource;
use at_once::AtOnce;
use start::{first, load_one, pod, refused, released};

/// What to measure.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) component: Component,
    pub(crate) isolation: Option<Isolation>,
    /// How often to measure each step but compiling.
    pub(crate) runs: u32,
    /// How often to compile.
    pub(crate) compile_runs: u32,
    /// How many begin at once, one after the other.
    pub(crate) at_once: Vec<u32>,
    /// How often they do. Everything else is spread over these rounds, so that each figure is of the
    /// whole time.
    pub(crate) rounds: u32,
}

/// A step, and where its figures go.
struct Steps<'a> {
    part: &'a Part,
    place: Place,
}

impl Steps<'_> {
    fn took(&self, step: &str, took: Duration) {
        self.part
            .sample(self.place, step, None, took.as_secs_f64() * 1e3);
    }
}

/// Measures every step on its own and starts of several at once, in interleaved rounds.
pub(crate) async fn measure(wanted: &Wanted, part: &Part) -> Result<(), BenchError> {
    part.component(&wanted.component);
    part.method(
        "`fetch` reads the file, hashes it and finds out what it is; `compile` makes native code in a \
         child process; `load` checks and maps code from the cache, with all that is done each time: \
         hashing the component among it; `instantiate` makes a pod; `first_byte` is the first request \
         to the pod, through the gateway in this process, with no socket. At once: so many components \
         that differ in their digest begin together, and the time is to the first byte of the last one; \
         cold they are compiled for it, warm their code is in the cache. There are four times as many \
         of fewer than 8 at once, twice as many of fewer than 32, and five warm ones for a cold one. All of it is done in rounds, \
         so that each figure is of the whole time.",
    );
    let title = "Each step on its own";
    let steps = Steps {
        part,
        place: part.group("steps", title, Unit::Ms, Better::Lower),
    };
    let source = app(
        wanted.at_once.iter().copied().max().unwrap_or(1),
        wanted.isolation,
    );
    let bench = Workbench::new(&source)?;
    let at_once = AtOnce::new(&bench, &source, &wanted.component, part);
    let rounds = wanted.rounds.max(1);
    for round in 0..rounds {
        let progress = |done: f64, what: &str| {
            part.progress((f64::from(round) + done) / f64::from(rounds), what);
        };
        progress(0.0, "cold start, step by step");
        let share = Share { round, rounds };
        let isolation = each_step(&bench, &source, (wanted, share), &steps).await?;
        if let Some(isolation) = isolation {
            part.note(format!("isolation = \"{}\"", isolation_name(isolation)));
        }
        for (number, count) in wanted.at_once.iter().enumerate() {
            let done = 0.2 + 0.8 * number as f64 / wanted.at_once.len() as f64;
            progress(done, &format!("cold start, at once: {count}"));
            at_once.round(*count, round).await?;
        }
    }
    Ok(())
}

/// The part of all runs that one round has.
#[derive(Clone, Copy)]
struct Share {
    round: u32,
    rounds: u32,
}

impl Share {
    /// The numbers of the runs of this round. The first round has one at least.
    fn of(self, runs: u32) -> std::ops::Range<u32> {
        let before = |round: u32| {
            let runs = u64::from(runs) * u64::from(round);
            runs.div_ceil(self.rounds.into()) as u32
        };
        before(self.round)..before(self.round + 1)
    }
}

/// Measures every step. Nothing else runs on the node meanwhile. Tells the isolation if a component
/// was started.
async fn each_step(
    bench: &Workbench,
    source: &AppSource,
    (wanted, share): (&Wanted, Share),
    steps: &Steps<'_>,
) -> Result<Option<Isolation>, BenchError> {
    let component = &wanted.component;
    let runs = share.of(wanted.runs);
    fetch(bench, component, runs.len(), steps).await?;
    compile(bench, component, share.of(wanted.compile_runs), steps).await?;
    let mut isolation = None;
    for run in runs {
        let start = Instant::now();
        let loaded = load_one(&bench.node, component).await?;
        steps.took("load", start.elapsed());
        let held = Arc::downgrade(&loaded);
        let template = Arc::new(start::template(component, source, loaded)?);
        isolation = Some(template.isolation());
        let capacity = template.concurrency();
        let start = Instant::now();
        let pod = pod(&bench.node, component, run, &template).await?;
        steps.took("instantiate", start.elapsed());
        let gateway = bench.node.edge.gateway();
        let took = first(gateway, source, capacity, pod).await?;
        steps.took("first_byte", took);
        drop(template);
        released(&held).await?;
    }
    Ok(isolation)
}

/// Reads the component, hashes it and finds out what it is.
async fn fetch(
    bench: &Workbench,
    component: &Component,
    runs: usize,
    steps: &Steps<'_>,
) -> Result<(), BenchError> {
    let path = bench.directory.path().join("component.wasm");
    fs::write(&path, &component.bytes)?;
    for _ in 0..runs {
        let start = Instant::now();
        let bytes = fs::read(&path)?;
        Inspection::of(&bytes).map_err(|error| refused(component, error))?;
        steps.took("fetch", start.elapsed());
        // So that Ctrl-C has an effect.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Compiles the component, and after the first time the same under other digests. Its code is in the
/// cache then.
async fn compile(
    bench: &Workbench,
    component: &Component,
    runs: std::ops::Range<u32>,
    steps: &Steps<'_>,
) -> Result<(), BenchError> {
    for run in runs {
        let variant = match run {
            0 => component.clone(),
            run => component.variant(&run.to_string()),
        };
        let loaded = load_one(&bench.node, &variant).await?;
        if let Origin::Compiled(took) = loaded.origin {
            steps.took("compile", took);
        }
        let held = Arc::downgrade(&loaded);
        drop(loaded);
        released(&held).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rounds_have_all_runs_between_them() {
        for (runs, rounds) in [(200, 10), (5, 1000), (1, 1), (7, 3)] {
            let shares = (0..rounds).map(|round| Share { round, rounds }.of(runs));
            let all: Vec<u32> = shares.flatten().collect();
            assert_eq!(all, (0..runs).collect::<Vec<_>>());
            assert!(!Share { round: 0, rounds }.of(runs).is_empty());
        }
    }
}
