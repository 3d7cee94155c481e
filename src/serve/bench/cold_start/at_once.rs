//! Several starts at the same time.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use sampan_core::spec::node::Node as NodeLimits;
use sampan_gateway::Gateway;
use sampan_runtime::Loaded;

use super::start::{first, load_one, pod, released, template};
use crate::serve::{
    AppSource,
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
    let title = "From a component's bytes to its first byte, so many at once";
    let place = part.group("at_once", title, Unit::Ms, Better::Lower);
    let place = part.along(place, "starts at once", Scale::Steps);
    let all = at_once.len() as u32 * rounds;
    let mut done = 0;
    for count in at_once {
        for round in 0..rounds {
            part.progress(
                0.5 + 0.5 * f64::from(done) / f64::from(all),
                &format!("cold start, at once: {count}"),
            );
            done += 1;
            let variants: Vec<Component> = (0..*count)
                .map(|number| component.variant(&format!("{count}-{round}-{number}")))
                .collect();
            for name in ["cold", "warm"] {
                let starts = variants.iter().zip(0..);
                let starts = starts.map(|(variant, run)| start(bench, source, variant, run));
                let started = try_join_all(starts).await?;
                for (took, held) in started {
                    let took = took.as_secs_f64() * 1e3;
                    part.sample(place, name, Some(f64::from(*count)), took);
                    released(&held).await?;
                }
            }
        }
    }
    Ok(())
}

/// One start, from the bytes of the component to the first byte of an answer.
async fn start(
    bench: &Workbench,
    source: &AppSource,
    component: &Component,
    run: u32,
) -> Result<(Duration, Weak<Loaded>), BenchError> {
    // Each has a gateway of its own: what is published is all that a gateway has.
    let gateway = Gateway::new(NodeLimits::default().gateway);
    let start = Instant::now();
    let loaded = load_one(bench, component).await?;
    let held = Arc::downgrade(&loaded);
    let template = Arc::new(template(component, source, loaded)?);
    let capacity = template.concurrency();
    let pod = pod(bench, component, run, &template).await?;
    let before = start.elapsed();
    let answered = first(&gateway, source, capacity, pod).await?;
    Ok((before + answered, held))
}
