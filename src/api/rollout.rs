//! The verbs that change one service or job.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use sampan_core::{
    event::Reason,
    name::ServiceKey,
    object::ServiceKind,
    plan::apply::{self, Retarget, VerbError},
    record::{Job, Key, Revision, Service},
    view,
};

use super::{
    Api, Shared,
    apply::{Refused, refuse},
    body::{Body, JobPath, ServicePath},
    components,
    error::{ApiError, Code},
    objects::{self, MAX_TRIES, Writes, wall_ms},
};
use crate::events::Subject;

type Answer = Result<Json<view::Service>, ApiError>;

impl From<VerbError> for ApiError {
    fn from(error: VerbError) -> Self {
        Self::new(Code::Impossible, error.to_string())
    }
}

/// What a verb does: the service, a revision that is new, and what there is to tell of it here.
struct Done {
    service: Service,
    revision: Option<Revision>,
    /// The number of the revision that it goes back to, if it does.
    back_to: Option<u64>,
    told: Option<(Reason, String)>,
}

/// `PUT /v1/apps/{app}/services/{service}/scale`
pub(super) async fn scale(
    State(api): Shared,
    ServicePath(key): ServicePath,
    Body(scale): Body<view::Scale>,
) -> Answer {
    let change = |service: &Service| {
        let scaled = apply::scale(service, scale.replicas)?;
        Ok(scaled.map(|scaled| Done {
            service: scaled,
            revision: None,
            back_to: None,
            // Told by the rollout that makes or stops the pods.
            told: None,
        }))
    };
    simple(&api, &key, &change).await
}

/// `POST /v1/apps/{app}/services/{service}/rollout/pause`
pub(super) async fn pause(State(api): Shared, ServicePath(key): ServicePath) -> Answer {
    let change = |service: &Service| {
        Ok(Some(Done {
            service: apply::pause(service)?,
            revision: None,
            back_to: None,
            told: Some((Reason::Paused, "the rollout is paused".to_owned())),
        }))
    };
    simple(&api, &key, &change).await
}

/// `POST /v1/apps/{app}/services/{service}/rollout/resume`
pub(super) async fn resume(State(api): Shared, ServicePath(key): ServicePath) -> Answer {
    let change = |service: &Service| {
        Ok(Some(Done {
            service: apply::resume(service)?,
            revision: None,
            back_to: None,
            told: Some((Reason::Resumed, "the rollout goes on".to_owned())),
        }))
    };
    simple(&api, &key, &change).await
}

/// `POST /v1/apps/{app}/services/{service}/restart`
pub(super) async fn restart(State(api): Shared, ServicePath(key): ServicePath) -> Answer {
    let change = |service: &Service, revisions: &[Revision]| {
        let retarget = apply::restart(service, revisions, wall_ms())?;
        let message = format!(
            "all pods are replaced, as revision {}",
            retarget.service.spec.revision
        );
        Ok((retarget, Reason::Restarted, message))
    };
    retarget(&api, &key, &change).await
}

/// `POST /v1/apps/{app}/jobs/{job}/restart`
pub(super) async fn run_again(
    State(api): Shared,
    JobPath(key): JobPath,
) -> Result<Json<view::Job>, ApiError> {
    let message = "it runs once more, from its first attempt";
    change_job(&api, &key, apply::again, (Reason::Restarted, message)).await
}

/// `POST /v1/apps/{app}/jobs/{job}/run`
pub(super) async fn run_now(
    State(api): Shared,
    JobPath(key): JobPath,
) -> Result<Json<view::Job>, ApiError> {
    let message = "a run by hand is asked for";
    change_job(&api, &key, apply::run, (Reason::RunAsked, message)).await
}

/// Changes a job without another spec of it.
async fn change_job(
    api: &Api,
    key: &ServiceKey,
    change: fn(&Job) -> Result<Job, VerbError>,
    (reason, message): (Reason, &str),
) -> Result<Json<view::Job>, ApiError> {
    let _place = api.place()?;
    let store = &*api.0.store;
    for _ in 0..MAX_TRIES {
        let _turn = store.turns().shared(key.app.as_str()).await;
        let (job, modified) = objects::job(store, key).await?;
        let changed = change(&job)?;
        components::present(api, [job.spec.component.digest.clone()].into()).await?;
        let name = Key::Job(key.clone());
        let writes = Writes::new([(name.clone(), modified)].into()).put(name, &changed);
        if writes.commit(store).await? {
            let subject = Subject::Job(key.clone());
            let message = message.to_owned();
            api.0.admission.tell(subject, reason, message);
            return Ok(Json(view::Job::of(&changed)));
        }
    }
    Err(objects::conflict(&format!("the job `{key}`")))
}

/// `POST /v1/apps/{app}/services/{service}/rollout/undo`
pub(super) async fn undo(
    State(api): Shared,
    ServicePath(key): ServicePath,
    Body(undo): Body<view::Undo>,
) -> Answer {
    let change = |service: &Service, revisions: &[Revision]| {
        let retarget = apply::undo(service, revisions, undo.to)?;
        let (from, to) = (service.spec.revision, retarget.service.spec.revision);
        let noted = other_kind(service, &retarget.service);
        let message = format!("from revision {from} back to revision {to}{noted}");
        Ok((retarget, Reason::Undone, message))
    };
    retarget(&api, &key, &change).await
}

/// What comes of a service's routes, which are of no revision, with one of another kind.
fn other_kind(before: &Service, after: &Service) -> &'static str {
    let answers = |it: &Service| it.spec.kind != ServiceKind::Command;
    match (
        answers(before),
        answers(after),
        after.spec.routes.is_empty(),
    ) {
        (true, false, true) => ", which runs a command",
        (true, false, false) => ", which runs a command: its routes are not in use meanwhile",
        (false, true, true) => ", which answers requests: the spec of now has no `route` for them",
        (false, true, false) => ", which answers requests",
        (true, true, _) | (false, false, _) => "",
    }
}

/// Changes a service without another revision of it.
async fn simple(
    api: &Api,
    key: &ServiceKey,
    change: &(dyn Fn(&Service) -> Result<Option<Done>, VerbError> + Sync),
) -> Answer {
    let _place = api.place()?;
    for _ in 0..MAX_TRIES {
        let _turn = api.0.store.turns().alone(key.app.as_str()).await;
        let (service, modified) = objects::service(&*api.0.store, key).await?;
        let Some(done) = change(&service)? else {
            return Ok(Json(view::Service::of(&service)));
        };
        if let Some(answer) = write(api, key, modified, done).await? {
            return Ok(answer);
        }
    }
    Err(objects::conflict(&format!("the service `{key}`")))
}

type Change<'a> =
    dyn Fn(&Service, &[Revision]) -> Result<(Retarget, Reason, String), VerbError> + Sync + 'a;

/// Gives a service another revision, once that is admitted. It does not wait for the turn: who goes
/// back to what ran before has no time for what others have compiled.
async fn retarget(api: &Api, key: &ServiceKey, change: &Change<'_>) -> Answer {
    let _place = api.place()?;
    let store = &*api.0.store;
    let mut admitted = None;
    for _ in 0..MAX_TRIES {
        let turn = store.turns().alone(key.app.as_str()).await;
        let (service, modified) = objects::service(store, key).await?;
        let revisions = objects::revisions(store, key).await?;
        let (retarget, reason, message) = change(&service, &revisions)?;
        let hash = retarget.template.hash();
        if admitted.as_ref() != Some(&hash) {
            drop(turn);
            let digest = retarget.template.component.digest.clone();
            components::present(api, [digest].into()).await?;
            if let Err(reason) = api.0.admission.admit(key, &retarget.template).await {
                let subject = Subject::Service(key.clone());
                return Err(refuse(api, vec![Refused { subject, reason }]).await);
            }
            // What was read before may be old by now.
            admitted = Some(hash);
            continue;
        }
        let new = retarget.revision.is_some();
        let done = Done {
            back_to: (!new).then_some(retarget.service.spec.revision),
            service: retarget.service,
            revision: retarget.revision,
            told: Some((reason, message)),
        };
        if let Some(answer) = write(api, key, modified, done).await? {
            return Ok(answer);
        }
    }
    Err(objects::conflict(&format!("the service `{key}`")))
}

/// Writes what was done; `None` if others have changed the service meanwhile.
async fn write(
    api: &Api,
    key: &ServiceKey,
    modified: sampan_store::Revision,
    done: Done,
) -> Result<Option<Json<view::Service>>, ApiError> {
    let name = Key::Service(key.clone());
    let mut seen = BTreeMap::from([(name.clone(), modified)]);
    let kept = done
        .back_to
        .map(|number| Key::Revision(key.clone(), number));
    if let Some(kept) = &kept {
        match objects::get::<Revision>(&*api.0.store, kept).await? {
            Some((_, at)) => drop(seen.insert(kept.clone(), at)),
            None => return Ok(None),
        }
    }
    let writes = Writes::new(seen).put(name, &done.service);
    // A revision does not change, but it may be pruned meanwhile.
    let mut writes = kept.iter().fold(writes, Writes::holds);
    if let Some(revision) = &done.revision {
        writes = writes.put(Key::Revision(key.clone(), revision.number), revision);
    }
    let _claim = api.claim_for(&done.service, done.revision.as_ref()).await?;
    if !writes.commit(&*api.0.store).await? {
        return Ok(None);
    }
    if let Some((reason, message)) = done.told {
        let subject = Subject::Service(key.clone());
        api.0.admission.tell(subject, reason, message);
    }
    Ok(Some(Json(view::Service::of(&done.service))))
}
