//! How many pods fit, and what each of them takes.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use sampan_core::{name::Name, record::Kind};

use super::{
    BenchError, Component, app_of,
    load::{Load, Pace},
    machine::Held,
    recorder::Part,
    report::{Better, Scale, Unit},
    rig::{Rig, on_node_with_room},
};

/// Pods of one service, which is the most.
const PODS_OF_SERVICE: u32 = 1000;
/// Time between two looks at the pods.
const LOOK: Duration = Duration::from_millis(20);
/// After this time without another pod, there is a limit.
const STILL: Duration = Duration::from_secs(3);
/// How long each service is asked, and how often in a second.
const TOUCH: (Duration, f64) = (Duration::from_millis(600), 3000.0);
/// Connections that ask.
const CONNECTIONS: u32 = 16;

/// What to measure.
#[derive(Clone)]
pub(crate) struct Wanted {
    /// Instead of the one that is built in.
    pub(crate) component: Option<Component>,
    /// The most pods.
    pub(crate) pods: u32,
}

/// Makes pods until there is a limit, then asks them.
pub(crate) async fn measure(wanted: &Wanted, part: &Part) -> Result<(), BenchError> {
    let component = wanted.component.clone().unwrap_or_else(Component::own);
    part.component(&component);
    part.method(&format!(
        "A node in this process with services of up to {PODS_OF_SERVICE} pods each, `isolation = \
         \"pod\"`, which are added one service after the other until all {} pods are there or no more \
         come for {} s. What each pod takes is what this process holds beyond what it held with one pod a \
         service, divided by the pods that came; files of `/proc/self`. Lightly loaded: each service in \
         turn was asked {} times a second for {} ms.",
        wanted.pods,
        STILL.as_secs(),
        TOUCH.1,
        TOUCH.0.as_millis()
    ));
    let services = wanted.pods.div_ceil(PODS_OF_SERVICE);
    let mut spec = "app = \"bench\"\n".to_owned();
    let mut components = BTreeMap::new();
    for number in 0..services {
        let pods = PODS_OF_SERVICE.min(wanted.pods - number * PODS_OF_SERVICE);
        // Writing to a text cannot fail.
        let _ = write!(
            spec,
            "[service.s{number}]\ncomponent = \"bench.wasm\"\nisolation = \"pod\"\nreplicas = {pods}\n\
             route = [\"s{number}.localhost/\"]\n"
        );
        let name = Name::parse(&format!("s{number}")).expect("it is a name");
        components.insert(name, component.clone());
    }
    let mut source = app_of(&spec)?;
    let instances = source.instances();
    for service in source.app.services.values_mut() {
        service.replicas = 1;
    }
    part.progress(0.0, "a node");
    let work = async |rig: &mut Rig| fill(rig, wanted, part).await;
    on_node_with_room(instances, source, &components, work).await
}

async fn fill(rig: &mut Rig, wanted: &Wanted, part: &Part) -> Result<(), BenchError> {
    let before = Held::now();
    let names: Vec<Name> = rig.source.app.services.keys().cloned().collect();
    let first = ready(rig);
    let title = "Time to so many pods more";
    let place = part.group("time", title, Unit::Ms, Better::Lower);
    let along = part.along(place, "pods", Scale::Steps);
    let (mut pods, mut limit, mut left) = (first, None, wanted.pods);
    for name in &names {
        let done = f64::from(pods) / f64::from(wanted.pods);
        part.progress(0.8 * done, &format!("density, pods: {pods}"));
        let start = Instant::now();
        if let Some(service) = rig.source.app.services.get_mut(name) {
            service.replicas = PODS_OF_SERVICE.min(left);
            left -= service.replicas;
        }
        if let Err(error) = rig.apply().await {
            limit = Some(error.to_string());
            break;
        }
        let expected = wanted_pods(rig);
        let mut came = Instant::now();
        while ready(rig) < expected && came.elapsed() < STILL {
            let now = ready(rig);
            if now > pods {
                (pods, came) = (now, Instant::now());
            }
            tokio::time::sleep(LOOK).await;
        }
        pods = ready(rig);
        if pods < expected {
            limit = Some(reason(rig, name));
            break;
        }
        let took = start.elapsed().as_secs_f64() * 1e3;
        part.sample(along, "up", Some(f64::from(pods)), took);
    }
    told(part, "idle", &before, pods.saturating_sub(first));
    let total = part.group(
        "pods",
        "Pods that were up at once",
        Unit::Count,
        Better::Higher,
    );
    part.sample(total, "pods", None, f64::from(pods));
    part.note(match limit {
        Some(reason) => format!("the limit was met at {pods} pods: {reason}"),
        None => format!("no limit was met: {pods} pods are what was asked for (`--pods`)"),
    });
    part.progress(0.8, "a light load");
    for name in &names {
        let target = rig.target(&format!("{name}.localhost"), "/");
        let load = Load::start(target, CONNECTIONS, Pace::Constant(TOUCH.1))?;
        tokio::time::sleep(TOUCH.0).await;
        let outcome = load.end().await?;
        for reason in outcome.reasons {
            part.note(format!("failed under the light load: {reason}"));
        }
    }
    told(part, "lightly loaded", &before, pods.saturating_sub(first));
    Ok(())
}

/// What each pod takes.
fn told(part: &Part, name: &str, before: &Held, pods: u32) {
    let now = Held::now();
    if pods == 0 {
        return;
    }
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / f64::from(pods);
    for (id, title, unit, value) in [
        (
            "memory",
            "Memory of each pod",
            Unit::Bytes,
            each(now.memory_bytes, before.memory_bytes),
        ),
        (
            "maps",
            "Memory maps of each pod",
            Unit::Count,
            each(now.maps, before.maps),
        ),
        (
            "descriptors",
            "File descriptors of each pod",
            Unit::Count,
            each(now.descriptors, before.descriptors),
        ),
    ] {
        let place = part.group(id, title, unit, Better::Lower);
        part.sample(place, name, None, value);
    }
}

/// Pods that get requests.
fn ready(rig: &Rig) -> u32 {
    let totals = rig.context.node.registry.totals();
    let ready: u64 = totals.values().map(|it| it.ready).sum();
    u32::try_from(ready).unwrap_or(u32::MAX)
}

fn wanted_pods(rig: &Rig) -> u32 {
    rig.source.app.services.values().map(|it| it.replicas).sum()
}

/// Why a pod does not come, as the pod says it, and how much of the limits of a process is used.
fn reason(rig: &Rig, service: &Name) -> String {
    let follower = rig.context.objects.follow(&[Kind::Pod]);
    let mirror = follower.mirror();
    let registry = &rig.context.node.registry;
    let missing = mirror.pods_of(&rig.key(service)).find_map(|pod| {
        let known = registry.get(&pod.value.name())?;
        known.reason.filter(|_| !known.ready)
    });
    let missing = missing.unwrap_or_else(|| format!("no other pod came within {STILL:?}"));
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let most_maps = read("/proc/sys/vm/max_map_count");
    let limits = read("/proc/self/limits");
    let files = limits
        .lines()
        .find_map(|it| it.strip_prefix("Max open files"));
    let files = files.and_then(|it| it.split_whitespace().next());
    let held = Held::now();
    format!(
        "{missing} (memory maps: {} of {}; file descriptors: {} of {})",
        held.maps,
        most_maps.trim(),
        held.descriptors,
        files.unwrap_or("?")
    )
}
