//! What services and pods are doing, as it was measured last, and which limits would fit them.

use axum::{body::Bytes, extract::State, http::Uri, response::Response};
use sampan_core::{
    name::{Name, ServiceKey},
    plan::{advise, autoscale::Decision},
    record::{self, Key, Kind},
    view::{self, Bounds, PodTop, ServiceTop, Top},
};
use serde::Deserialize;

use super::{
    Api, Shared, body::Asked, error::ApiError, everywhere::Everywhere, follow, objects, wanted,
    work::compute,
};
use crate::load::{Decided, Loads, Measured, PERIOD, PodLoad, ServiceLoad};

/// Of which app and service, and whether again and again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    app: Option<String>,
    service: Option<String>,
    #[serde(default)]
    watch: bool,
}

/// `GET /v1/top`
pub(super) async fn top(
    State(api): Shared,
    asked: Uri,
    Asked(which): Asked<Which>,
) -> Result<Response, ApiError> {
    api.looked().await?;
    let of = wanted::Of {
        app: which.app,
        service: which.service,
    };
    let mut watching = Watching {
        loads: api.0.views.loads(),
        api,
        app: of.app()?,
        of,
        asked: once(&asked),
    };
    let (first, others) = watching.look().await?;
    if !which.watch {
        return Ok(others.noted(watching.api.json(|| first).await?));
    }
    let place = watching.api.follower()?;
    let more = futures::stream::unfold(watching, Watching::next);
    Ok(others.noted(follow::forever(place, follow::lines(&[first]), more)))
}

/// The same question without the wish for more answers.
fn once(asked: &Uri) -> Uri {
    let query = asked.query().unwrap_or_default().split('&');
    let query: Vec<_> = query.filter(|pair| !pair.starts_with("watch=")).collect();
    let target = format!("{}?{}", asked.path(), query.join("&"));
    target.parse().unwrap_or_else(|_| asked.clone())
}

struct Watching {
    api: Api,
    loads: Loads,
    app: Option<Name>,
    of: wanted::Of,
    /// What the other nodes are asked.
    asked: Uri,
}

impl Watching {
    /// How it is now, on all nodes.
    async fn look(&mut self) -> Result<(Top, Everywhere), ApiError> {
        let mut others = self.api.everywhere(&self.asked).await;
        let mut top = self.look_here().await?;
        if self.api.0.cluster.is_none() {
            return Ok((top, others));
        }
        top = top.on(&self.api.0.views.node().name);
        for (node, theirs) in others.documents::<Top>() {
            top.add(theirs.on(node.as_str()));
        }
        for (node, why) in others.missing() {
            top.without(node.as_str(), why);
        }
        Ok((top, others))
    }

    /// How it is on this node.
    async fn look_here(&mut self) -> Result<Top, ApiError> {
        let prefix = objects::prefix(Kind::Service, self.app.as_ref());
        let found = objects::list::<record::Service>(&*self.api.0.store, &prefix).await?;
        let services = found.into_iter().map(|(_, service, _)| service);
        let services: Vec<_> = services.filter(|it| self.of.is(&it.key)).collect();
        let measured = self.loads.borrow_and_update().clone();
        let decisions = self.api.0.views.decisions().borrow().clone();
        Ok(compute(|| show(&services, &measured, &decisions)))
    }

    /// How it is after the next measurement; `None` when there is none any more.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        self.loads.changed().await.ok()?;
        match self.look().await {
            Ok((top, _)) => Some((follow::lines(&[top]), self)),
            Err(error) => {
                tracing::warn!(reason = error.message, "a watch of the load ends");
                None
            }
        }
    }
}

/// What is shown of these services.
fn show(services: &[record::Service], measured: &Measured, decisions: &Decided) -> Top {
    let mut top = Top {
        number: measured.number,
        period_ms: u64::try_from(PERIOD.as_millis()).unwrap_or(u64::MAX),
        ..Top::default()
    };
    let unknown = ServiceLoad::default();
    for it in services {
        let load = measured.services.get(&it.key).unwrap_or(&unknown);
        let decision = decisions.get(&it.key);
        top.services.push(service(it, load, decision));
        top.pods.extend(load.pods.iter().map(pod));
    }
    top
}

fn service(
    service: &record::Service,
    load: &ServiceLoad,
    decision: Option<&Decision>,
) -> ServiceTop {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let millis = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    let ready: Vec<_> = load.pods.iter().filter(|pod| pod.ready).collect();
    let used: Vec<f64> = load.pods.iter().filter_map(|pod| pod.cpu).collect();
    // One that was decided before the autoscaler was taken away counts for nothing.
    let decision = decision.filter(|_| service.spec.autoscale.is_some());
    ServiceTop {
        app: service.key.app.to_string(),
        service: service.key.name.to_string(),
        pods: count(load.pods.len()),
        ready: count(ready.len()),
        replicas: service.spec.replicas,
        wanted: decision.map(|it| it.replicas),
        autoscale: service.spec.autoscale.as_ref().map(|it| Bounds {
            min: it.min,
            max: it.max,
        }),
        why: decision.map(|it| it.why().to_string()),
        cpu_cores: (!used.is_empty()).then(|| used.iter().sum()),
        cpu_of_limit: share(&ready),
        throttled: match ready.len() {
            0 => 0.0,
            number => ready.iter().map(|pod| pod.throttled).sum::<f64>() / number as f64,
        },
        memory_bytes: load.pods.iter().map(|pod| pod.memory_bytes).sum(),
        rps: load.arrived.unwrap_or_default(),
        in_flight: load.in_flight.unwrap_or_default(),
        queued: load.queued,
        p50_ms: load.p50.map(millis),
        p99_ms: load.p99.map(millis),
        idle_ms: u64::try_from(load.idle.as_millis()).unwrap_or(u64::MAX),
    }
}

/// What these pods use as a share of what they may use, as far as that is known.
fn share(pods: &[&PodLoad]) -> Option<f64> {
    let known = pods.iter().filter_map(|pod| {
        let limit = f64::from(pod.cpu_limit?.millis) / 1e3;
        Some((pod.cpu?, limit))
    });
    let (used, limits) = known.fold((0.0, 0.0), |(used, limits), (more, limit)| {
        (used + more, limits + limit)
    });
    (limits > 0.0).then_some(used / limits)
}

fn pod(pod: &PodLoad) -> PodTop {
    let ServiceKey { app, name } = pod.pod.service();
    PodTop {
        app: app.to_string(),
        service: name.to_string(),
        pod: pod.pod.to_string(),
        node: None,
        phase: pod.phase.to_owned(),
        ready: pod.ready,
        cpu_cores: pod.cpu,
        cpu_of_limit: share(&[pod]),
        throttled: pod.throttled,
        memory_bytes: pod.memory_bytes,
        memory_limit_bytes: pod.memory_limit.0,
        rps: pod.requests,
        in_flight: pod.in_flight,
    }
}

/// `GET /v1/advice`
pub(super) async fn advice(
    State(api): Shared,
    asked: Uri,
    Asked(of): Asked<wanted::Of>,
) -> Result<Response, ApiError> {
    let mut others = api.everywhere(&asked).await;
    let theirs = others.documents::<Vec<view::Advice>>();
    let (store, app) = (&*api.0.store, of.app()?);
    let prefix = objects::prefix(Kind::Service, app.as_ref());
    let found = objects::list::<record::Service>(store, &prefix).await?;
    let mut seen = compute(|| api.0.views.seen());
    let mut advice = Vec::new();
    for (_, service, _) in found.iter().filter(|(_, it, _)| of.is(&it.key)) {
        let own = seen.remove(&service.key).unwrap_or_default();
        let mut seen = together(service, own, &theirs);
        let mut number = seen.revision;
        let key = |number| Key::Revision(service.key.clone(), number);
        let mut revision = objects::get::<record::Revision>(store, &key(number)).await?;
        if revision.is_none() {
            // Nothing was seen, or that of a revision that is gone.
            seen = Default::default();
            number = service.spec.revision;
            revision = objects::get(store, &key(number)).await?;
        }
        // One that is not there has just gone with its service.
        if let Some((revision, _)) = revision {
            advice.push(view::Advice::of(service, &revision, &seen));
        }
    }
    Ok(others.noted(api.json(|| advice).await?))
}

/// What this node and others have seen of a service.
fn together(
    service: &record::Service,
    own: advise::Seen,
    theirs: &[(Name, Vec<view::Advice>)],
) -> advise::Seen {
    let ServiceKey { app, name } = &service.key;
    let is_same = |it: &&view::Advice| (&*it.app, &*it.service) == (app.as_str(), name.as_str());
    let theirs = theirs.iter().flat_map(|(_, advice)| advice);
    let mut nodes: Vec<_> = theirs
        .filter(is_same)
        .filter_map(advise::Seen::said)
        .collect();
    if nodes.is_empty() {
        return own;
    }
    nodes.extend((!own.watched.is_zero()).then_some(own));
    advise::Seen::together(nodes, service.spec.revision)
}
