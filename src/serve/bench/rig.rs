//! An app on a node of its own that listens on loopback, to put load on.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use sampan_core::{
    name::{Name, ServiceKey},
    record::{Kind, RolloutState},
    spec::SpecText,
};

use super::{
    BenchError, Component, Workbench,
    load::{self, Target},
};
use crate::{
    api::{Api, Checked},
    events::Subject,
    mirror::{Follower, Mirror},
    secrets::Sealed,
    serve::{AppSource, app::Listening, context::NodeContext, control, daemon::Daemon},
};

/// The longest that a rollout may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// An app and the node that it runs on.
pub(super) struct Rig {
    pub(super) context: NodeContext,
    pub(super) address: SocketAddr,
    api: Api,
    pub(super) source: AppSource,
    /// Of the component of each service.
    pub(super) digests: BTreeMap<Name, String>,
    _workbench: Workbench,
}

/// Runs an app on a node of its own, measures, and ends it. Each service has the component with its
/// name.
pub(super) async fn on_node<T>(
    source: AppSource,
    components: &BTreeMap<Name, Component>,
    measure: impl AsyncFnOnce(&mut Rig) -> Result<T, BenchError>,
) -> Result<T, BenchError> {
    let room = source.instances();
    on_node_with_room(room, source, components, measure).await
}

/// The same on a node on which so many instances can be alive at once, if they fit.
pub(super) async fn on_node_with_room<T>(
    instances: u32,
    source: AppSource,
    components: &BTreeMap<Name, Component>,
    measure: impl AsyncFnOnce(&mut Rig) -> Result<T, BenchError>,
) -> Result<T, BenchError> {
    let workbench = Workbench::with_room(instances)?;
    let context = NodeContext::foreground(workbench.node.clone()).await?;
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listening = Listening::start(&context.node, None, anywhere).await?;
    let mut rig = Rig {
        api: control::api(&context, None),
        address: listening.address,
        context,
        source,
        digests: BTreeMap::new(),
        _workbench: workbench,
    };
    let services: Vec<_> = rig.source.app.services.keys().cloned().collect();
    for service in services {
        let component = components.get(&service).expect("each has a component");
        let digest = rig.take(&service, component).await?;
        rig.digests.insert(service, digest);
    }
    // Applied first: a client that comes before the service is known is told that there is none.
    rig.apply().await?;
    let mut daemon = Daemon::start(&rig.context);
    let measured = tokio::select! {
        measured = async {
            rig.complete().await?;
            measure(&mut rig).await
        } => measured,
        reason = daemon.failed() => Err(BenchError::Failed(reason)),
    };
    listening.drain().await;
    daemon.rest().await;
    measured
}

impl Rig {
    pub(super) fn key(&self, service: &Name) -> ServiceKey {
        ServiceKey::new(&self.source.app.name, service)
    }

    /// Loads a component for a service. Tells its digest.
    pub(super) async fn take(
        &self,
        service: &Name,
        component: &Component,
    ) -> Result<String, BenchError> {
        let (subject, bytes) = (Subject::Service(self.key(service)), component.bytes.clone());
        let Some(wanted) = self.source.app.services.get(service) else {
            return Err(BenchError::Failed(format!(
                "there is no service `{service}`"
            )));
        };
        let demands = (&wanted.limits, false);
        let loader = &self.context.loader;
        let path = wanted.component.path.clone();
        let loaded = loader.take(&subject, bytes, path, None, demands).await;
        let loaded = loaded.map_err(|source| BenchError::Load {
            name: component.name.clone(),
            source,
        })?;
        Ok(loaded.inspection.digest.to_hex())
    }

    /// Wants the app as it is here.
    pub(super) async fn apply(&self) -> Result<(), BenchError> {
        let checked = Checked {
            app: self.source.app.clone(),
            sealed: Sealed::new(),
            base: "/".into(),
            digests: self.digests.clone(),
            cause: "bench".to_owned(),
            spec: SpecText::default(),
        };
        let applied = self.api.apply(&checked).await;
        applied.map_err(BenchError::Failed)?;
        Ok(self.context.objects.catch_up().await?)
    }

    /// Waits until all pods of all services are as they are wanted.
    pub(super) async fn complete(&self) -> Result<(), BenchError> {
        let mut follower = self.context.objects.follow(&[Kind::Service]);
        self.completed(&mut follower).await
    }

    pub(super) async fn completed(&self, follower: &mut Follower) -> Result<(), BenchError> {
        let begun = Instant::now();
        while !self.is_complete(&follower.mirror())? {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match tokio::time::timeout(left, follower.next()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Err(BenchError::Failed("the store is closed".to_owned())),
                Err(_) => {
                    let late = format!("the rollout took longer than {PATIENCE:?}");
                    return Err(BenchError::Failed(late));
                }
            }
        }
        Ok(())
    }

    fn is_complete(&self, mirror: &Mirror) -> Result<bool, BenchError> {
        let mut is_complete = true;
        for service in self.source.app.services.keys() {
            let stored = mirror.services.get(&self.key(service));
            let service = stored.map(|stored| Arc::clone(&stored.value));
            match service.as_ref().map(|service| service.rollout()) {
                Some(RolloutState::Complete) => {}
                Some(RolloutState::RolledBack { reason } | RolloutState::Failed { reason }) => {
                    return Err(BenchError::Failed(format!("the rollout failed: {reason}")));
                }
                Some(
                    RolloutState::UnderWay | RolloutState::Waiting | RolloutState::Held { .. },
                )
                | None => is_complete = false,
            }
        }
        Ok(is_complete)
    }

    /// A path of the service that has this host.
    pub(super) fn target(&self, host: &str, path: &str) -> Target {
        Target {
            address: self.address,
            method: http::Method::GET,
            host: host.to_owned(),
            path: path.to_owned(),
        }
    }

    /// Asks until the revision of the service that is wanted answers. The gateway hears of the last
    /// pods that go a moment after the store, and none of its answers may fail meanwhile.
    pub(super) async fn answers_come_from(
        &self,
        service: &Name,
        target: &Target,
    ) -> Result<(), BenchError> {
        let wanted = {
            let follower = self.context.objects.follow(&[Kind::Service]);
            let mirror = follower.mirror();
            let stored = mirror.services.get(&self.key(service));
            stored.map(|stored| stored.value.spec.revision)
        };
        let mut sender = load::connect(self.address)
            .await
            .map_err(BenchError::Failed)?;
        let begun = Instant::now();
        loop {
            let answer = load::exchange(&mut sender, target).await;
            let answer = answer.map_err(BenchError::Failed)?;
            if answer.status.is_success() && answer.revision == wanted {
                return Ok(());
            }
            if !answer.status.is_success() || begun.elapsed() > PATIENCE {
                return Err(BenchError::Failed(format!(
                    "revision {:?} answers with {}, and {wanted:?} is wanted",
                    answer.revision, answer.status
                )));
            }
        }
    }
}
