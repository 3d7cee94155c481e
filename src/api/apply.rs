//! Applying a spec: check it, admit its components, write it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use axum::{Json, extract::State};
use sampan_core::{
    escape,
    event::Reason,
    name::{Name, ServiceKey},
    object::App,
    plan::{
        apply::{self, Applied, ApplyError, Wanted},
        quota::Ask,
    },
    record::{self, Key, Refusal, Service},
    secret::SecretValue,
    spec::{self, Found, SpecText, check_kinds},
    view,
};

use super::{
    Api, MAX_CHANGES, Shared,
    artifacts::blocking,
    body::{AppPath, Body},
    claims, components,
    error::{ApiError, Code},
    objects::{self, AppObjects, MAX_TRIES, Writes, wall_ms},
    turns::Place,
    volumes,
    work::{Work, compute},
};
use crate::{
    events::Subject,
    secrets::{self, Sealed, SecretsError},
};

/// The longest text that says what brings a change about. The rest is cut off.
const MAX_CAUSE_CHARACTERS: usize = 200;
/// The longest path of a directory, as in Linux.
const MAX_BASE_BYTES: usize = 4096;

/// `PUT /v1/apps/{app}`
pub(super) async fn put(
    State(api): Shared,
    AppPath(name): AppPath,
    Body(body): Body<view::Apply>,
) -> Result<Json<view::Plan>, ApiError> {
    api.stays()?;
    let place = api.0.applies.place(&name)?;
    let checked = Checked::check(&api, &api.0.applying, &name, body).await?;
    checked.apply(&api, &place).await.map(Json)
}

/// `POST /v1/apps/{app}/plan`
pub(super) async fn plan(
    State(api): Shared,
    AppPath(name): AppPath,
    Body(body): Body<view::Apply>,
) -> Result<Json<view::Plan>, ApiError> {
    let place = api.0.plans.place(&name)?;
    let _turn = place.turn().await;
    let checked = Checked::check(&api, &api.0.planning, &name, body).await?;
    Ok(Json(checked.plan(&api, &api.0.planning).await?.1.plan))
}

/// `DELETE /v1/apps/{app}`
pub(super) async fn delete(
    State(api): Shared,
    AppPath(name): AppPath,
) -> Result<Json<view::Plan>, ApiError> {
    let _place = api.place()?;
    api.delete(&name, "is being deleted").await.map(Json)
}

impl Api {
    /// Notes in one transaction that an app and all that belongs to it is to go.
    async fn delete(&self, name: &Name, told: &str) -> Result<view::Plan, ApiError> {
        let store = &*self.0.store;
        for _ in 0..MAX_TRIES {
            let _turn = store.turns().alone(name.as_str()).await;
            let objects = AppObjects::read(store, name).await?;
            let Some(app) = objects.doomed(store, name).await? else {
                let known = super::wanted::app_names(self).await?;
                return Err(ApiError::absent("app", name.as_str(), &known));
            };
            let applied = compute(|| apply::delete(&objects.present, &app));
            if applied.app.is_none() {
                return Ok(applied.plan);
            }
            let whole = compute(|| write(&objects, &applied, &Sealed::new()));
            // What is too much for one transaction follows the app, which is the intent.
            let writes = match (whole.check(), &applied.app) {
                (Err(_), Some(app)) => {
                    Writes::new(objects.modified).put(Key::App(name.clone()), app)
                }
                (Ok(()), _) | (_, None) => whole,
            };
            if writes.commit(store).await? {
                let subject = Subject::App(name.clone());
                self.0
                    .admission
                    .tell(subject, Reason::Deleted, told.to_owned());
                return Ok(applied.plan);
            }
        }
        Err(objects::conflict(&format!("the app `{name}`")))
    }

    /// Deletes what belongs to an app that there is not: versions of this program that wrote a
    /// change in several transactions left it behind when they were killed. An app that there is
    /// and that cannot be read is left alone, with all that it has.
    pub(crate) async fn delete_left_behind(&self) {
        let left = objects::left_behind(&*self.0.store).await;
        for name in left.unwrap_or_default() {
            let told = "was left half made by an earlier run, and is being deleted";
            if let Err(error) = self.delete(&name, told).await {
                let reason = error.message;
                tracing::warn!(app = %name, reason, "cannot delete what was left half made");
            }
        }
    }

    /// Applies a spec of this process's own, as if it had been sent. The error is why nothing was
    /// changed, for people.
    pub(crate) async fn apply(&self, checked: &Checked) -> Result<view::Plan, String> {
        let applied = async {
            let place = self.0.applies.place(&checked.app.name)?;
            checked.apply(self, &place).await
        };
        applied.await.map_err(|error: ApiError| error.message)
    }

    /// Seals the secrets of an app, and notes in it which versions these are. The error is for people.
    pub(crate) fn seal(
        &self,
        app: &mut App,
        values: &BTreeMap<Name, SecretValue>,
    ) -> Result<Sealed, String> {
        let sealed = self.0.secrets.seal(app, values);
        sealed.map_err(|error| ApiError::from(error).message)
    }

    /// A place among those who change something without applying a spec.
    pub(super) fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, ApiError> {
        let place = self.0.changes.try_acquire();
        place.map_err(|_| ApiError::busy("changes", MAX_CHANGES))
    }
}

/// A spec that was found good.
pub(crate) struct Checked {
    pub(crate) app: App,
    /// The values of its secrets, which it names by their versions.
    pub(crate) sealed: Sealed,
    /// The absolute directory that its relative paths start from.
    pub(crate) base: std::path::PathBuf,
    /// Of the component of each service and job.
    pub(crate) digests: BTreeMap<Name, String>,
    /// What brings the change about, in a few words.
    pub(crate) cause: String,
    /// What the app was read from.
    pub(crate) spec: SpecText,
}

impl Checked {
    /// Admits all that is new, then writes. The error is why nothing was changed.
    async fn apply(&self, api: &Api, place: &Place<'_>) -> Result<view::Plan, ApiError> {
        let name = &self.app.name;
        let _turn = place.turn().await;
        self.plan(api, &api.0.applying).await?;
        components::present(api, self.digests.values().cloned().collect()).await?;
        components::spread(api, self.digests.values()).await?;
        let mut admitted = Admitted::default();
        for _ in 0..MAX_TRIES {
            // Controllers write nothing of the app between what is read and what is written here.
            let turn = api.0.store.turns().alone(name.as_str()).await;
            let (objects, mut applied) = self.plan(api, &api.0.applying).await?;
            if !admitted.covers(&applied) {
                drop(turn);
                let refused = admitted.admit(api, &applied).await;
                if !refused.is_empty() {
                    return Err(refuse(api, refused).await);
                }
                // That took a while, so that what was read before may be old.
                continue;
            }
            let found = admitted.found(&objects, &applied);
            let fit = || check_kinds(&self.app, &found, &self.spec);
            compute(fit).map_err(invalid_spec)?;
            if applied.app.is_none() {
                return Ok(applied.plan);
            }
            for (name, found) in &found {
                applied.is_of_kind(&ServiceKey::new(&self.app.name, name), found.kind);
            }
            let (writes, ask) = compute(|| {
                let ask = Ask::of(name, &objects.present, (&applied).into());
                (write(&objects, &applied, &self.sealed), ask)
            });
            let _claim = api.claim(&ask).await?;
            if writes.commit(&*api.0.store).await? {
                tell(api, name, &self.cause, &applied);
                return Ok(applied.plan);
            }
        }
        Err(objects::conflict(&format!("the app `{name}`")))
    }

    async fn check(
        api: &Api,
        work: &Work,
        name: &Name,
        body: view::Apply,
    ) -> Result<Self, ApiError> {
        let invalid = |message: String| Err(ApiError::new(Code::Invalid, message));
        let mut app = work.run(|| load(&body)).await??;
        scaled(&mut app, &body.replicas)?;
        if app.name != *name {
            return invalid(format!(
                "the spec is of app `{}`, not of `{name}`",
                app.name
            ));
        }
        let base = std::path::PathBuf::from(&body.base);
        if body.base.len() > MAX_BASE_BYTES {
            return invalid(format!("`base` is longer than {MAX_BASE_BYTES} bytes"));
        }
        if !base.is_absolute() {
            let shown = &body.base;
            return invalid(format!(
                "`base` is `{shown}`, which is not an absolute path"
            ));
        }
        let digests = digests(&body.components)?;
        let roots = api.0.volumes.clone();
        let from = base.clone();
        let (secrets, values) = (Arc::clone(&api.0.secrets), values(&body.secrets));
        let resolved = blocking(move || -> Result<_, ApiError> {
            volumes::resolve(&mut app, &from, &roots)?;
            let sealed = secrets.seal(&mut app, &values)?;
            Ok((app, sealed))
        });
        let (app, sealed) = resolved.await??;
        let cause = match body.cause.is_empty() {
            true => format!("apply of {}", body.path),
            false => body.cause,
        };
        let cause = escape::word(&cause);
        let cause = cause.chars().take(MAX_CAUSE_CHARACTERS).collect();
        Ok(Self {
            app,
            sealed,
            base,
            digests,
            cause,
            spec: SpecText {
                path: body.path,
                text: body.spec,
            },
        })
    }

    /// What there is, and what to write.
    async fn plan(&self, api: &Api, work: &Work) -> Result<(AppObjects, Applied), ApiError> {
        claims::check(api, &self.app).await?;
        let objects = AppObjects::read(&*api.0.store, &self.app.name).await?;
        let wanted = Wanted {
            app: &self.app,
            base: Path::new(&self.base),
            digests: &self.digests,
            cause: &self.cause,
            wall_ms: wall_ms(),
        };
        let planned = || -> Result<_, ApiError> {
            let applied = apply::apply(&objects.present, &wanted)?;
            let ask = Ask::of(&self.app.name, &objects.present, (&applied).into());
            // Before how much that is to write, of which users know less.
            api.0.quota.check_app(&ask)?;
            write(&objects, &applied, &self.sealed).check()?;
            Ok((applied, ask))
        };
        let (applied, ask) = work.run(planned).await??;
        api.check_quota(&ask).await?;
        Ok((objects, applied))
    }
}

impl From<SecretsError> for ApiError {
    fn from(error: SecretsError) -> Self {
        let code = match &error {
            SecretsError::Missing(_) => Code::Invalid,
            SecretsError::Key(_)
            | SecretsError::Gone(_)
            | SecretsError::OtherKey { .. }
            | SecretsError::Damaged(_)
            | SecretsError::Store(_) => Code::StoreFailed,
        };
        let causes = std::iter::successors(std::error::Error::source(&error), |it| it.source());
        let causes = causes.map(|cause| format!(": {cause}"));
        Self::new(code, error.to_string() + &causes.collect::<String>())
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        let message = error.to_string();
        match error {
            ApplyError::NoDigest(_) | ApplyError::NotADigest { .. } | ApplyError::Unknown(_) => {
                Self::new(Code::Invalid, message)
            }
            ApplyError::Pinned { .. } => Self::new(Code::WrongDigest, message)
                .hint("build the component again, or change `digest` in the spec"),
        }
    }
}

/// Checks the spec as `sampan validate` does, with what the client has sent instead of files and
/// variables.
fn load(body: &view::Apply) -> Result<App, ApiError> {
    let input = spec::Input {
        path: &body.path,
        text: &body.spec,
        environment: &|name| body.environment.get(name).cloned(),
        read_file: &|path| {
            let text = body.files.get(path).cloned();
            text.ok_or_else(|| "the client has not sent it".to_owned())
        },
        profiles: &body.profiles,
    };
    let read_secret = |name: &Name, _: &_| {
        let value = body.secrets.0.get(name.as_str()).cloned();
        value.ok_or_else(|| "the client has not sent its value".to_owned())
    };
    spec::load_with_secrets(&input, &read_secret).map_err(invalid_spec)
}

#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn invalid_spec(problems: spec::Problems) -> ApiError {
    let message = problems.to_plain().trim_end().to_owned();
    let places = problems.iter().map(|problem| {
        let (line, column) = (problem.line, problem.column);
        format!("{}:{line}:{column}: {}", problem.file, problem.message)
    });
    ApiError::new(Code::InvalidSpec, message).details(places.collect())
}

/// Gives services the replicas that are asked for beside the spec.
fn scaled(app: &mut App, replicas: &BTreeMap<String, u32>) -> Result<(), ApiError> {
    for (name, replicas) in replicas {
        let services = app.services.iter_mut();
        let mut named = services.filter(|(service, _)| service.as_str() == name);
        let Some((_, service)) = named.next() else {
            let message = format!("`replicas`: the spec has no service `{name}`");
            return Err(ApiError::new(Code::Invalid, message));
        };
        if *replicas > record::MAX_REPLICAS {
            let most = record::MAX_REPLICAS;
            let message = format!("`replicas` of `{name}`: at most {most} are possible");
            return Err(ApiError::new(Code::Invalid, message));
        }
        service.replicas = *replicas;
    }
    Ok(())
}

/// What was sent of secrets that a spec may have.
fn values(sent: &view::Secrets) -> BTreeMap<Name, SecretValue> {
    let sent = sent.0.iter();
    let named = sent.filter_map(|(name, value)| Some((Name::parse(name).ok()?, value.clone())));
    named.collect()
}

fn digests(components: &BTreeMap<String, String>) -> Result<BTreeMap<Name, String>, ApiError> {
    let parsed = components.iter().map(|(name, digest)| {
        let name = Name::parse(name)
            .map_err(|error| ApiError::new(Code::Invalid, format!("`components`: {error}")))?;
        Ok((name, digest.clone()))
    });
    parsed.collect()
}

/// What has been admitted for one request.
#[derive(Default)]
struct Admitted {
    services: BTreeMap<(ServiceKey, String), Found>,
    jobs: BTreeSet<(ServiceKey, String)>,
}

/// Something that cannot run, and why.
pub(super) struct Refused {
    pub(super) subject: Subject,
    pub(super) reason: String,
}

impl Admitted {
    /// Admits what has not been so far, all of it, and tells what was refused.
    async fn admit(&mut self, api: &Api, applied: &Applied) -> Vec<Refused> {
        let admission = &api.0.admission;
        let mut refused = Vec::new();
        for (service, template) in &applied.admit {
            let key = (service.clone(), template.hash());
            if self.services.contains_key(&key) {
                continue;
            }
            match admission.admit(service, template).await {
                Ok(found) => drop(self.services.insert(key, found)),
                Err(reason) => refused.push(Refused {
                    subject: Subject::Service(service.clone()),
                    reason,
                }),
            }
        }
        for job in to_admit(applied) {
            let key = job_key(job);
            if self.jobs.contains(&key) {
                continue;
            }
            match admission.admit_job(&job.key, &job.spec).await {
                Ok(()) => drop(self.jobs.insert(key)),
                Err(reason) => refused.push(Refused {
                    subject: Subject::Job(job.key.clone()),
                    reason,
                }),
            }
        }
        refused
    }

    fn of(&self, service: &ServiceKey, template: &record::Template) -> Option<Found> {
        self.services
            .get(&(service.clone(), template.hash()))
            .copied()
    }

    /// What the components of services were found to be: those that were admitted now, and those
    /// that run already.
    fn found(&self, objects: &AppObjects, applied: &Applied) -> BTreeMap<Name, Found> {
        let before = objects.present.services.iter().map(|(name, service)| {
            let found = Found {
                kind: service.spec.kind,
                // Its probes were found good when it was admitted.
                is_callable: true,
            };
            (name.clone(), found)
        });
        let now = applied.admit.iter().filter_map(|(service, template)| {
            let found = self.of(service, template)?;
            Some((service.name.clone(), found))
        });
        before.chain(now).collect()
    }

    /// Whether all that is about to run has been admitted.
    fn covers(&self, applied: &Applied) -> bool {
        let mut services = applied.admit.iter();
        services.all(|(service, template)| self.of(service, template).is_some())
            && to_admit(applied).all(|job| self.jobs.contains(&job_key(job)))
    }
}

fn to_admit(applied: &Applied) -> impl Iterator<Item = &record::Job> {
    applied.jobs.iter().filter(|job| !job.deleting)
}

fn job_key(job: &record::Job) -> (ServiceKey, String) {
    let spec = serde_json::to_string(&job.spec).expect("a spec is plain data");
    (job.key.clone(), spec)
}

/// Notes what was refused, at services that there are and as events.
pub(super) async fn refuse(api: &Api, refused: Vec<Refused>) -> ApiError {
    let mut details = Vec::new();
    for Refused { subject, reason } in refused {
        details.push(format!("{subject}: {reason}"));
        if let Subject::Service(key) = &subject {
            note_refusal(api, key, &reason).await;
        }
        let message = format!("change refused, nothing was touched: {reason}");
        api.0.admission.tell(subject, Reason::Refused, message);
    }
    ApiError::new(Code::Refused, details.join("; "))
        .hint("nothing was changed; what ran before goes on")
        .details(details)
}

/// Notes a refusal at the service, if there is one. If that cannot be written, the client still
/// gets the answer, and the event is there.
async fn note_refusal(api: &Api, service: &ServiceKey, reason: &str) {
    let key = Key::Service(service.clone());
    for _ in 0..MAX_TRIES {
        let _turn = api.0.store.turns().shared(service.app.as_str()).await;
        let found = objects::get::<Service>(&*api.0.store, &key).await;
        let Ok(Some((mut service, modified))) = found else {
            return;
        };
        service.status.refused = Some(Refusal {
            reason: reason.to_owned(),
            at_ms: wall_ms(),
        });
        let writes = Writes::new([(key.clone(), modified)].into()).put(key.clone(), &service);
        match writes.commit(&*api.0.store).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(reason = error.message, %key, "cannot note a refusal");
                return;
            }
        }
    }
}

fn write(objects: &AppObjects, applied: &Applied, sealed: &Sealed) -> Writes {
    let mut writes = Writes::new(objects.modified.clone());
    let new: BTreeSet<_> = applied.revisions.iter().map(|(key, _)| key).collect();
    for (service, revision) in &applied.revisions {
        writes = writes.put(Key::Revision(service.clone(), revision.number), revision);
    }
    for service in &applied.services {
        writes = writes.put(Key::Service(service.key.clone()), service);
        if !service.spec.deleting && !new.contains(&service.key) {
            // It may not be pruned meanwhile.
            let revision = Key::Revision(service.key.clone(), service.spec.revision);
            writes = writes.holds(&revision);
        }
    }
    // Values that are there are written again, so that none of them is removed meanwhile.
    let revisions = applied.revisions.iter();
    let revisions = revisions.map(|(service, it)| (&service.app, &it.template.grants));
    let jobs = applied.jobs.iter().filter(|job| !job.deleting);
    let jobs = jobs.map(|job| (&job.key.app, &job.spec.grants));
    let used = revisions.chain(jobs);
    let used: BTreeSet<_> = used
        .flat_map(|(app, it)| secrets::keys_of(app, it))
        .collect();
    for key in used {
        if let Some(record) = sealed.get(&key) {
            writes = writes.put(key, record);
        }
    }
    for job in &applied.jobs {
        writes = writes.put(Key::Job(job.key.clone()), job);
    }
    if let Some(app) = &applied.app {
        writes = writes.put(Key::App(app.name.clone()), app);
    }
    writes
}

fn tell(api: &Api, name: &Name, cause: &str, applied: &Applied) {
    let admission = &api.0.admission;
    admission.tell(
        Subject::App(name.clone()),
        Reason::Applied,
        cause.to_owned(),
    );
    let services: BTreeSet<_> = applied.services.iter().map(|it| &it.key).collect();
    let jobs: BTreeSet<_> = applied.jobs.iter().map(|it| &it.key).collect();
    for change in &applied.plan.changes {
        let Ok(of) = Name::parse(&change.name) else {
            continue;
        };
        let key = ServiceKey::new(name, &of);
        let (written, subject) = match change.kind.as_str() {
            "service" => (services.contains(&key), Subject::Service(key)),
            _ => (jobs.contains(&key), Subject::Job(key)),
        };
        if !written {
            continue;
        }
        match change.verb {
            view::Verb::Added => admission.tell(subject, Reason::Added, change.pods.clone()),
            view::Verb::Changed => admission.tell(subject, Reason::Changed, change.pods.clone()),
            view::Verb::Deleted => admission.tell(subject, Reason::Deleted, change.pods.clone()),
            view::Verb::Unchanged => {}
        }
    }
}
