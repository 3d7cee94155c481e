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
        recorder::Part,
        report::{Better, Scale, Unit},
    },
};

/// Measures so many starts at once, with code that is to be compiled and with code in the cache.
pub(super) async fn measure(
    bench: &Workbench,
    source: &AppSource,
    (component, at_once, rounds): (&Component, &[u32], u32),
    part: &Part,
) -> Result<(), BenchError> {
    let title =
        "From a component's bytes to its first byte, so many at once: until all have answered";
    let place = part.group("at_once", title, Unit::Ms, Better::Lower);
    let place = part.along(place, "starts at once", Scale::Steps);
    let source = Arc::new(source.clone());
    let all: u32 = at_once.iter().map(|count| rounds_of(*count, rounds)).sum();
    let mut done = 0;
    for count in at_once {
        for round in 0..rounds_of(*count, rounds) {
            part.progress(
                0.5 + 0.5 * f64::from(done) / f64::from(all),
                &format!("cold start, at once: {count}"),
            );
            done += 1;
            let variants: Vec<Component> = (0..*count)
                .map(|number| component.variant(&format!("{count}-{round}-{number}")))
                .collect();
            for name in ["cold", "warm"] {
                let took = together(&bench.node, &source, &variants).await?;
                part.sample(
                    place,
                    name,
                    Some(f64::from(*count)),
                    took.as_secs_f64() * 1e3,
                );
            }
        }
    }
    Ok(())
}

/// Few starts at once take little time and vary more: there are more rounds of them.
fn rounds_of(count: u32, rounds: u32) -> u32 {
    match count {
        ..8 => rounds.saturating_mul(4),
        8..32 => rounds.saturating_mul(2),
        32.. => rounds,
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
