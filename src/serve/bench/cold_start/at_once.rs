//! Several starts at the same time.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use sampan_core::spec::node::Node as NodeLimits;
use sampan_gateway::Gateway;
use sampan_runtime::Loaded;
use tokio::task::JoinSet;

use super::start::{first, load_one, pod, released, template};
use crate::serve::{
    AppSource, Node,
    bench::{
        BenchError, Component, Workbench,
        recorder::{Part, Place},
        report::{Better, Scale, Unit},
    },
};

/// Warm starts for each cold one: they take little time.
const WARM: usize = 5;

/// Several starts at once, and where their figures go.
pub(super) struct AtOnce<'a> {
    bench: &'a Workbench,
    source: Arc<AppSource>,
    component: &'a Component,
    part: &'a Part,
    place: Place,
}

impl<'a> AtOnce<'a> {
    pub(super) fn new(
        bench: &'a Workbench,
        source: &AppSource,
        component: &'a Component,
        part: &'a Part,
    ) -> Self {
        let title =
            "From a component's bytes to its first byte, so many at once: until all have answered";
        let place = part.group("at_once", title, Unit::Ms, Better::Lower);
        Self {
            bench,
            source: Arc::new(source.clone()),
            component,
            part,
            place: part.along(place, "starts at once", Scale::Steps),
        }
    }

    /// Measures so many starts at once, with code that is to be compiled and with code in the cache.
    pub(super) async fn round(&self, count: u32, round: u32) -> Result<(), BenchError> {
        for time in 0..times(count) {
            let named = |number: u32| format!("{count}-{round}-{time}-{number}");
            let variants = (0..count).map(|number| self.component.variant(&named(number)));
            let variants: Vec<Component> = variants.collect();
            // The first warm one meets the compilers of the cold one that are still ending.
            let kinds = [("cold", 1), ("warm", WARM)];
            let kinds = kinds.iter().flat_map(|(name, times)| vec![*name; *times]);
            for name in kinds {
                let took = together(&self.bench.node, &self.source, &variants).await?;
                let (x, took) = (f64::from(count), took.as_secs_f64() * 1e3);
                self.part.sample(self.place, name, Some(x), took);
            }
        }
        Ok(())
    }
}

/// Few starts at once take little time and vary more: there are more of them in a round.
fn times(count: u32) -> u32 {
    match count {
        ..8 => 4,
        8..32 => 2,
        32.. => 1,
    }
}

/// Starts all of them at one moment. Tells the time from then to the last one's first byte, once
/// nothing of them is left.
async fn together(
    node: &Node,
    source: &Arc<AppSource>,
    components: &[Component],
) -> Result<Duration, BenchError> {
    let mut starts = JoinSet::new();
    let begun = Instant::now();
    for (run, component) in (0..).zip(components) {
        let (node, source, component) = (node.clone(), Arc::clone(source), component.clone());
        starts.spawn(async move {
            let held = start(&node, &source, &component, run).await?;
            Ok::<_, BenchError>((begun.elapsed(), held))
        });
    }
    let mut last = Duration::ZERO;
    let mut all = Vec::new();
    while let Some(started) = starts.join_next().await {
        let lost = |_| BenchError::Failed("a start has ended before its time".to_owned());
        let (took, held) = started.map_err(lost)??;
        last = last.max(took);
        all.push(held);
    }
    for held in all {
        released(&held).await?;
    }
    Ok(last)
}

/// One start, from the bytes of the component to the first byte of an answer.
async fn start(
    node: &Node,
    source: &AppSource,
    component: &Component,
    run: u32,
) -> Result<Weak<Loaded>, BenchError> {
    // Each has a gateway of its own: what is published is all that a gateway has.
    let gateway = Gateway::new(NodeLimits::default().gateway);
    let loaded = load_one(node, component).await?;
    let held = Arc::downgrade(&loaded);
    let template = Arc::new(template(component, source, loaded)?);
    let capacity = template.concurrency();
    let pod = pod(node, component, run, &template).await?;
    first(&gateway, source, capacity, pod).await?;
    Ok(held)
}
