//! How long it takes until a component answers, step by step, and many at once.

mod at_once;
mod start;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use sampan_core::object::Isolation;
use sampan_runtime::{Loaded, Origin, admission::inspect::Inspection};

use super::{
    BenchError, Component, Workbench, app, isolation_name,
    recorder::{Part, Place},
    report::{Better, Unit},
};
use crate::serve::AppSource;
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
    /// How often they do.
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

/// Measures every step on its own, then starts of several at once.
pub(crate) async fn measure(wanted: &Wanted, part: &Part) -> Result<(), BenchError> {
    part.component(&wanted.component);
    part.method(
        "`fetch` reads the file, hashes it and finds out what it is; `compile` makes native code in a \
         child process; `load` checks and maps code from the cache, with all that is done each time: \
         hashing the component among it; `instantiate` makes a pod; `first_byte` is the first request \
         to the pod, through the gateway in this process, with no socket. At once: so many components \
         that differ in their digest begin together, and the time is to the first byte of the last one; \
         cold they are compiled for it, warm their code is in the cache. There are four times as many \
         rounds of fewer than 8 at once, and twice as many of fewer than 32.",
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
    let isolation = each_step(&bench, &source, wanted, &steps).await?;
    part.note(format!("isolation = \"{}\"", isolation_name(isolation)));
    let started = (&wanted.component, &wanted.at_once[..], wanted.rounds);
    at_once::measure(&bench, &source, started, part).await
}

/// Measures every step. Nothing else runs on the node meanwhile.
async fn each_step(
    bench: &Workbench,
    source: &AppSource,
    wanted: &Wanted,
    steps: &Steps<'_>,
) -> Result<Isolation, BenchError> {
    let Wanted {
        component,
        runs,
        compile_runs,
        ..
    } = wanted;
    fetch(bench, component, *runs, steps).await?;
    let loaded = compile(bench, component, *compile_runs, steps).await?;
    let template = start::template(component, source, loaded)?;
    let (isolation, capacity) = (template.isolation(), template.concurrency());
    drop(template);
    for run in 0..*runs {
        let done = HALF + HALF * f64::from(run) / f64::from(*runs);
        steps.part.progress(done * HALF, "cold start, step by step");
        let start = Instant::now();
        let loaded = load_one(&bench.node, component).await?;
        steps.took("load", start.elapsed());
        let held = Arc::downgrade(&loaded);
        let template = Arc::new(start::template(component, source, loaded)?);
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

/// The part of all that compiling is, and that the steps are.
const HALF: f64 = 0.5;

/// Reads the component, hashes it and finds out what it is.
async fn fetch(
    bench: &Workbench,
    component: &Component,
    runs: u32,
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

/// Compiles the component, which leaves its code in the cache. What is in the cache already is of
/// other digests.
async fn compile(
    bench: &Workbench,
    component: &Component,
    runs: u32,
    steps: &Steps<'_>,
) -> Result<Arc<Loaded>, BenchError> {
    let note = |loaded: &Loaded| {
        if let Origin::Compiled(took) = loaded.origin {
            steps.took("compile", took);
        }
    };
    for run in 1..runs {
        let done = HALF * f64::from(run) / f64::from(runs);
        steps.part.progress(done * HALF, "cold start, compiling");
        let variant = component.variant(&run.to_string());
        note(&*load_one(&bench.node, &variant).await?);
    }
    let loaded = load_one(&bench.node, component).await?;
    note(&loaded);
    Ok(loaded)
}
