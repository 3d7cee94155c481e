//! How many pods fit, and what each of them takes.

mod limit;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
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
use limit::{Limit, Uses, is_short};

use crate::serve::memory::Room;

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
/// The part of all that making pods is; the rest is a light load.
const FILLING: f64 = 0.8;

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
         \"pod\"`, which are added one service after the other until all {} pods are there, no more \
         come for {} s, or a tenth of the memory is left. What each pod takes is what this process \
         holds beyond what it held before there was a node, divided by the pods: so with few pods it \
         is mostly the node. Memory is what is resident, without page tables. Files of `/proc`. \
         Lightly loaded: each service in turn was asked {} times a second for {} ms.",
        wanted.pods,
        STILL.as_secs(),
        TOUCH.1,
        TOUCH.0.as_millis()
    ));
    let (spec, components) = app(wanted, &component);
    let mut source = app_of(&spec)?;
    let instances = source.instances();
    for service in source.app.services.values_mut() {
        service.replicas = 1;
    }
    part.progress(0.0, "a node");
    let before = Held::now();
    let work = async |rig: &mut Rig| {
        let mut run = Run {
            rig,
            part,
            before,
            asked: wanted.pods,
        };
        run.all().await
    };
    on_node_with_room(instances, source, &components, work).await
}

/// The spec, and the component of each service.
fn app(wanted: &Wanted, component: &Component) -> (String, BTreeMap<Name, Component>) {
    let mut spec = "app = \"bench\"\n".to_owned();
    let mut components = BTreeMap::new();
    for number in 0..wanted.pods.div_ceil(PODS_OF_SERVICE) {
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
    (spec, components)
}

struct Run<'a> {
    rig: &'a mut Rig,
    part: &'a Part,
    /// What this process held before there was a node.
    before: Held,
    /// The most pods.
    asked: u32,
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), BenchError> {
        let names: Vec<Name> = self.rig.source.app.services.keys().cloned().collect();
        let limit = self.fill(&names).await?;
        let pods = self.ready();
        let count = |id, title, better| self.part.group(id, title, Unit::Count, better);
        let total = count("pods", "Pods that were up at once", Better::Higher);
        self.part.sample(total, "pods", None, f64::from(pods));
        self.part
            .note(format!("at {pods} pods the limit was {limit}"));
        self.used(pods);
        self.part.progress(FILLING, "a light load");
        for name in &names {
            let target = self.rig.target(&format!("{name}.localhost"), "/");
            let load = Load::start(target, CONNECTIONS, Pace::Constant(TOUCH.1))?;
            tokio::time::sleep(TOUCH.0).await;
            let outcome = load.end().await?;
            for reason in outcome.reasons {
                self.part
                    .note(format!("failed under the light load: {reason}"));
            }
        }
        self.taken("lightly loaded", self.ready());
        Ok(())
    }

    /// Adds pods until there is a limit.
    async fn fill(&mut self, names: &[Name]) -> Result<Limit, BenchError> {
        let title = "Time to so many pods more";
        let place = self.part.group("time", title, Unit::Ms, Better::Lower);
        let time = self.part.along(place, "pods", Scale::Steps);
        let mut left = self.asked;
        for name in names {
            let before = self.ready();
            let done = FILLING * f64::from(before) / f64::from(self.asked);
            self.part
                .progress(done, &format!("density, pods: {before}"));
            let wanted = PODS_OF_SERVICE.min(left);
            left -= wanted;
            let start = Instant::now();
            if let Err(why) = self.want(name, wanted).await {
                return Ok(Limit::Refused(why.to_string()));
            }
            let limit = self.until_there(name).await;
            let (took, pods) = (start.elapsed().as_secs_f64() * 1e3, self.ready());
            self.taken("idle", pods);
            if let Some(limit) = limit {
                // Those that wait for a place leave the others alone.
                let there = wanted.saturating_sub(self.wanted().saturating_sub(pods));
                self.want(name, there.max(1)).await?;
                return Ok(limit);
            }
            self.part.sample(time, "up", Some(f64::from(pods)), took);
        }
        Ok(Limit::Asked)
    }

    async fn want(&mut self, name: &Name, pods: u32) -> Result<(), BenchError> {
        if let Some(service) = self.rig.source.app.services.get_mut(name) {
            service.replicas = pods;
        }
        self.rig.apply().await
    }

    /// Waits until all pods are there that are wanted. Tells the limit if they do not come.
    async fn until_there(&self, name: &Name) -> Option<Limit> {
        let expected = self.wanted();
        let (mut pods, mut came) = (self.ready(), Instant::now());
        while pods < expected {
            let room = Room::now();
            if let Some(room) = room.filter(|it| is_short(*it)) {
                return Some(Limit::Memory(room));
            }
            if came.elapsed() > STILL {
                let uses = Uses::now(&self.rig.context.node.runtime.pools());
                return Some(uses.limit(self.reason(name)));
            }
            tokio::time::sleep(LOOK).await;
            let now = self.ready();
            if now > pods {
                (pods, came) = (now, Instant::now());
            }
        }
        None
    }

    /// What this process holds, and what that is for each pod.
    fn taken(&self, name: &str, pods: u32) {
        let (now, before) = (Held::now(), self.before);
        for (id, held_id, title, held, unit, value) in [
            (
                "memory",
                "held_memory",
                "Memory of each pod",
                "Memory of this process beyond that before",
                Unit::Bytes,
                now.memory_bytes.saturating_sub(before.memory_bytes),
            ),
            (
                "maps",
                "held_maps",
                "Memory maps of each pod",
                "Memory maps of this process beyond those before",
                Unit::Count,
                now.maps.saturating_sub(before.maps),
            ),
            (
                "descriptors",
                "held_descriptors",
                "File descriptors of each pod",
                "File descriptors of this process beyond those before",
                Unit::Count,
                now.descriptors.saturating_sub(before.descriptors),
            ),
        ] {
            let along = |id, title| {
                let place = self.part.group(id, title, unit, Better::Lower);
                self.part.along(place, "pods", Scale::Steps)
            };
            let x = Some(f64::from(pods));
            let each = value as f64 / f64::from(pods.max(1));
            self.part.sample(along(id, title), name, x, each);
            let all = along(held_id, held);
            self.part.sample(all, name, x, value as f64);
        }
    }

    /// The part of each limit that is used.
    fn used(&self, pods: u32) {
        let uses = Uses::now(&self.rig.context.node.runtime.pools());
        let pool = uses.pool.map_or(0.0, |it| {
            f64::from(it.taken) / f64::from(it.instances.max(1))
        });
        let title = "Used of each limit, in %";
        let place = self
            .part
            .group("limits", title, Unit::Count, Better::Neither);
        for (name, part) in [
            ("pods asked for", f64::from(pods) / f64::from(self.asked)),
            ("places in the pool", pool),
            ("memory maps", uses.maps.part()),
            ("file descriptors", uses.descriptors.part()),
            ("memory", uses.memory.map_or(0.0, Room::used_part)),
        ] {
            self.part.sample(place, name, None, part * 100.0);
        }
    }

    /// Pods that get requests.
    fn ready(&self) -> u32 {
        let totals = self.rig.context.node.registry.totals();
        let ready: u64 = totals.values().map(|it| it.ready).sum();
        u32::try_from(ready).unwrap_or(u32::MAX)
    }

    fn wanted(&self) -> u32 {
        let services = self.rig.source.app.services.values();
        services.map(|it| it.replicas).sum()
    }

    /// Why a pod does not come, as the pod says it.
    fn reason(&self, service: &Name) -> Option<String> {
        let follower = self.rig.context.objects.follow(&[Kind::Pod]);
        let mirror = follower.mirror();
        let registry = &self.rig.context.node.registry;
        mirror.pods_of(&self.rig.key(service)).find_map(|pod| {
            let known = registry.get(&pod.value.name())?;
            known.reason.filter(|_| !known.ready)
        })
    }
}
