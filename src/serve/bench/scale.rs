//! A load that steps up and down: how soon there are as many pods as it needs, and how many too many.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sampan_core::name::Name;

use super::{
    BenchError, Component, app_of, load,
    load::{Load, Pace},
    recorder::Part,
    report::{Better, Scale, Unit},
    rig::{Rig, on_node},
};

/// Requests in a second that a pod should answer.
const RATE_OF_POD: u32 = 20;
/// The load before the step and after it, in pods.
const LOW: u32 = 1;
/// Time between two looks at the pods.
const LOOK: Duration = Duration::from_millis(20);
/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that put load on it.
const CONNECTIONS: u32 = 16;

/// What to measure.
#[derive(Clone)]
pub(crate) struct Wanted {
    /// Instead of the one that is built in.
    pub(crate) component: Option<Component>,
    /// Pods that the load needs after the step.
    pub(crate) pods: u32,
    pub(crate) steps: u32,
    /// How long the load stays.
    pub(crate) hold: Duration,
    /// How often a service without pods is asked.
    pub(crate) wakes: u32,
}

/// Measures steps, then services without pods.
pub(crate) async fn measure(wanted: &Wanted, part: &Part) -> Result<(), BenchError> {
    let component = wanted.component.clone().unwrap_or_else(Component::own);
    part.component(&component);
    part.method(&format!(
        "A service with `autoscale = {{ rps = {RATE_OF_POD} }}` and a load at a constant rate that \
         steps from what {LOW} pod should answer to what {} pods should, {} times, and back after \
         {} s; pods are looked at each {} ms. Overshoot is how many pods more than that there were, \
         undershoot how many fewer there were between the moment at which they were all there and the step \
         back. `stabilization` is 1 s instead of its default. Zero to one: a service without pods is \
         asked on a new connection; the time is to the end of its answer.",
        wanted.pods,
        wanted.steps,
        wanted.hold.as_secs_f64(),
        LOOK.as_millis()
    ));
    let most = wanted.pods * 3;
    let source = app_of(&format!(
        "app = \"bench\"\n\
         [service.step]\ncomponent = \"bench.wasm\"\nroute = [\"step.localhost/\"]\n\
         autoscale = {{ min = {LOW}, max = {most}, rps = {RATE_OF_POD}, stabilization = \"1s\" }}\n\
         [service.zero]\ncomponent = \"bench.wasm\"\nroute = [\"zero.localhost/\"]\n\
         autoscale = {{ min = 0, max = 1, rps = 1000, stabilization = \"0s\", idle = \"100ms\" }}\n"
    ))?;
    let [step, zero] = ["step", "zero"].map(|it| Name::parse(it).expect("it is a name"));
    let components = [&step, &zero].map(|it| (it.clone(), component.clone()));
    on_node(source, &BTreeMap::from(components), async |rig| {
        for number in 0..wanted.steps {
            one(rig, &step, wanted, part, number).await?;
        }
        wakes(rig, &zero, wanted, part).await
    })
    .await
}

/// Pods of a service that get requests.
fn ready(rig: &Rig, service: &Name) -> u32 {
    let totals = rig.context.node.registry.totals();
    let ready = totals.get(&rig.key(service)).map_or(0, |it| it.ready);
    u32::try_from(ready).unwrap_or(u32::MAX)
}

/// One step up and down.
async fn one(
    rig: &Rig,
    service: &Name,
    wanted: &Wanted,
    part: &Part,
    number: u32,
) -> Result<(), BenchError> {
    let target = rig.target("step.localhost", "/");
    let group = |id, title, unit| part.group(id, title, unit, Better::Lower);
    let time = group("time", "From the step to the wanted count", Unit::Ms);
    let off = group("off", "Pods beside the wanted count", Unit::Count);
    let pods = part.group("pods", "Pods over the time", Unit::Count, Better::Neither);
    let pods = part.along(pods, "seconds from the step", Scale::Linear);
    let progress = |done: f64, what: &str| {
        let done = (f64::from(number) + done) / f64::from(wanted.steps);
        part.progress(0.7 * done, what);
    };
    let pace = |count: u32| Pace::Constant(f64::from(count * RATE_OF_POD) * 0.95);
    progress(0.0, "a low load");
    let low = Load::start(target.clone(), CONNECTIONS, pace(LOW))?;
    until(|| ready(rig, service) == LOW, "the low load").await?;
    // The first sample of the autoscaler is of this load.
    tokio::time::sleep(Duration::from_secs(1)).await;
    low.end().await?;
    progress(0.3, "the step up");
    let load = Load::start(target.clone(), CONNECTIONS, pace(wanted.pods))?;
    let (start, name) = (Instant::now(), format!("step {}", number + 1));
    let mut there: Option<Duration> = None;
    let (mut most, mut least) = (0, wanted.pods);
    let mut last = None;
    while there.is_none_or(|it| start.elapsed() < it + wanted.hold) {
        let count = ready(rig, service);
        let elapsed = start.elapsed();
        if last != Some(count) {
            for point in [last, Some(count)].into_iter().flatten() {
                let x = (elapsed.as_secs_f64() * 1e3).round() / 1e3;
                let x = if Some(point) == last { x - 0.001 } else { x };
                part.sample(pods, &name, Some(x), f64::from(point));
            }
            last = Some(count);
        }
        if there.is_none() && count >= wanted.pods {
            there = Some(elapsed);
            part.sample(time, "up", None, elapsed.as_secs_f64() * 1e3);
        }
        most = most.max(count);
        if there.is_some() {
            least = least.min(count);
        }
        late(start, "the step up")?;
        tokio::time::sleep(LOOK).await;
    }
    part.sample(
        off,
        "overshoot",
        None,
        f64::from(most.saturating_sub(wanted.pods)),
    );
    part.sample(off, "undershoot", None, f64::from(wanted.pods - least));
    let outcome = load.end().await?;
    let failed = part.group("failed", "Failed requests", Unit::Count, Better::Lower);
    part.sample(failed, "in the step", None, outcome.failed() as f64);
    progress(0.6, "the step down");
    let low = Load::start(target, CONNECTIONS, pace(LOW))?;
    let start = Instant::now();
    until(|| ready(rig, service) <= LOW, "the step down").await?;
    part.sample(time, "down", None, start.elapsed().as_secs_f64() * 1e3);
    low.end().await?;
    Ok(())
}

/// A service without pods is asked.
async fn wakes(rig: &Rig, service: &Name, wanted: &Wanted, part: &Part) -> Result<(), BenchError> {
    let title = "Zero to one: from the request to the end of its answer";
    let place = part.group("zero", title, Unit::Ms, Better::Lower);
    let target = rig.target("zero.localhost", "/");
    for wake in 0..wanted.wakes {
        let done = f64::from(wake) / f64::from(wanted.wakes);
        part.progress(0.7 + 0.3 * done, "zero to one");
        until(|| ready(rig, service) == 0, "scaling to zero").await?;
        let start = Instant::now();
        let mut sender = load::connect(rig.address)
            .await
            .map_err(BenchError::Failed)?;
        let answer = load::exchange(&mut sender, &target).await;
        let answer = answer.map_err(BenchError::Failed)?;
        if !answer.status.is_success() {
            let bad = format!("a service without pods answers with {}", answer.status);
            return Err(BenchError::Failed(bad));
        }
        part.sample(
            place,
            "first answer",
            None,
            start.elapsed().as_secs_f64() * 1e3,
        );
    }
    Ok(())
}

async fn until(is_so: impl Fn() -> bool, what: &str) -> Result<(), BenchError> {
    let start = Instant::now();
    while !is_so() {
        late(start, what)?;
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn late(start: Instant, what: &str) -> Result<(), BenchError> {
    match start.elapsed() > PATIENCE {
        true => Err(BenchError::Failed(format!(
            "{what} took longer than {PATIENCE:?}"
        ))),
        false => Ok(()),
    }
}
