//! The volumes of apps: which there are, how full they are, and their removal.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Json,
    extract::State,
    http::{Method, Uri},
    response::{IntoResponse as _, Response},
};
use sampan_core::{
    name::Name,
    object::{Grants, MountSource},
    record::{self, Key, Kind},
    view,
};
use serde::Deserialize;

use super::{
    Api, Shared,
    artifacts::blocking,
    body::{AppPath, Asked},
    error::{ApiError, Code},
    everywhere::Everywhere,
    objects::{self, AppObjects},
    state::KeptError,
    wanted::app_of,
};

/// Of which app.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Of {
    pub(super) app: Option<String>,
}

/// `GET /v1/volumes`
pub(super) async fn list(
    State(api): Shared,
    asked: Uri,
    Asked(of): Asked<Of>,
) -> Result<Response, ApiError> {
    let mut others = api.everywhere(&asked).await;
    let _turn = api.0.lists.turn().await?;
    let app = app_of(of.app.as_deref())?;
    let mut volumes = declared(&api, app.as_ref()).await?;
    let kept = api.0.kept.clone();
    let found = blocking(move || kept.volumes(app.as_ref())).await?;
    let found = found.map_err(|error| ApiError::new(Code::Internal, error))?;
    for (app, name, bytes) in found {
        let volume = volumes
            .entry((app.clone(), name.clone()))
            .or_insert_with(|| volume(&app, &name, None));
        volume.used_bytes = bytes;
    }
    // Each is on one node, which says what is in it.
    for (_, said) in others.documents::<Vec<view::Volume>>() {
        for found in said {
            let key = (Name::parse(&found.app), Name::parse(&found.name));
            if let (Ok(app), Ok(name)) = key {
                let volume = volumes.entry((app, name)).or_insert_with(|| found.clone());
                volume.used_bytes = volume.used_bytes.max(found.used_bytes);
            }
        }
    }
    let volumes: Vec<_> = volumes.into_values().collect();
    Ok(others.noted(Json(volumes).into_response()))
}

fn volume(app: &Name, name: &Name, quota_bytes: Option<u64>) -> view::Volume {
    view::Volume {
        app: app.to_string(),
        name: name.to_string(),
        used_bytes: 0,
        quota_bytes,
        used_by: Vec::new(),
    }
}

type Volumes = BTreeMap<(Name, Name), view::Volume>;

/// The volumes that apps declare.
async fn declared(api: &Api, only: Option<&Name>) -> Result<Volumes, ApiError> {
    let store = &*api.0.store;
    let mut volumes = Volumes::new();
    let apps = objects::list::<record::App>(store, Kind::App.prefix()).await?;
    let apps = apps.into_iter().map(|(_, app, _)| app);
    let asked = |app: &record::App| only.is_none_or(|only| *only == app.name);
    for app in apps.filter(|app| asked(app) && !app.volumes.is_empty() && !app.deleting) {
        let objects = AppObjects::read(store, &app.name).await?;
        let used_by = used_by(&objects);
        for (name, declared) in app.volumes {
            let mut volume = volume(&app.name, &name, Some(declared.quota.0));
            let users = used_by.get(&name).into_iter().flatten();
            volume.used_by = users.cloned().collect();
            volumes.insert((app.name.clone(), name), volume);
        }
    }
    Ok(volumes)
}

/// The services and jobs of an app that each of its volumes is mounted for.
fn used_by(objects: &AppObjects) -> BTreeMap<Name, BTreeSet<String>> {
    let mut used_by = BTreeMap::<_, BTreeSet<_>>::new();
    for (user, grants) in objects.grants() {
        for volume in mounted(grants) {
            used_by
                .entry(volume.clone())
                .or_default()
                .insert(user.to_string());
        }
    }
    used_by
}

fn mounted(grants: &Grants) -> impl Iterator<Item = &Name> {
    grants.files.iter().filter_map(|mount| match &mount.source {
        MountSource::Host(_) | MountSource::Secret(_) => None,
        MountSource::Volume(volume) => Some(&volume.name),
    })
}

impl From<KeptError> for ApiError {
    fn from(error: KeptError) -> Self {
        match error {
            KeptError::Used(message) => Self::new(Code::Conflict, message)
                .hint("its pods have to be gone; try again in a moment"),
            KeptError::Absent(message) => {
                Self::new(Code::NotFound, message).hint("`sampan get volumes` lists them")
            }
            KeptError::Refused(message) => {
                Self::new(Code::Invalid, message).hint("the volume is as it was")
            }
            KeptError::Failed(message) => Self::new(Code::Internal, message),
        }
    }
}

/// The names of pods that a refusal has.
const MAX_NAMED: usize = 10;

impl Api {
    /// Refused while there are pods of services and jobs that have the volume. Returns its quota, if
    /// it is declared.
    pub(super) async fn unused(&self, app: &Name, name: &Name) -> Result<Option<u64>, ApiError> {
        let declared = declared(self, Some(app)).await?;
        let Some(volume) = declared.get(&(app.clone(), name.clone())) else {
            return Ok(None);
        };
        let prefix = objects::prefix(Kind::Pod, Some(app));
        let pods = objects::list::<record::Pod>(&*self.0.store, &prefix).await?;
        let users = pods.iter().filter(|(_, pod, _)| {
            let service = pod.service.name.to_string();
            volume.used_by.contains(&service)
        });
        let users: Vec<_> = users
            .map(|(_, pod, _)| format!("`{}`", pod.name()))
            .collect();
        if users.is_empty() {
            return Ok(volume.quota_bytes);
        }
        let named = users
            .iter()
            .take(MAX_NAMED)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        let more = match users.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!("volume `{name}` is in use by {named}{more}");
        Err(ApiError::new(Code::Conflict, message).hint(
            "`sampan scale SERVICE=0` ends the pods of a service, `sampan down` those of an app",
        ))
    }
}

/// `DELETE /v1/apps/{app}/volumes`
pub(super) async fn remove(
    State(api): Shared,
    asked: Uri,
    AppPath(name): AppPath,
) -> Result<Response, ApiError> {
    let _place = api.place()?;
    // Nothing begins to use one meanwhile that has not begun before.
    let _turn = api.0.store.turns().alone(name.as_str()).await;
    let app = objects::get::<record::App>(&*api.0.store, &Key::App(name.clone())).await?;
    if app.is_some() {
        let message = format!("app `{name}` is there, and its volumes with it");
        let hint = format!("`sampan delete {name} --volumes` deletes both");
        return Err(ApiError::new(Code::Conflict, message).hint(hint));
    }
    let kept = api.0.kept.clone();
    let app = name.clone();
    let removed = blocking(move || kept.remove(&app)).await?;
    let removed = removed.map_err(ApiError::from)?;
    let mut names: Vec<_> = removed.iter().map(Name::to_string).collect();
    let mut others = Everywhere::default();
    if let Some(cluster) = &api.0.cluster {
        let failed = |reason| ApiError::new(Code::StoreFailed, reason);
        let given_up = cluster.give_up(None, &name, &removed).await;
        given_up.map_err(failed)?;
        others = Everywhere::of(cluster.tell_all(Method::DELETE, asked.path()).await);
        for (node, removed) in others.documents::<Vec<Name>>() {
            names.extend(removed.iter().map(Name::to_string));
            let given_up = cluster.give_up(Some(&node), &name, &removed).await;
            given_up.map_err(failed)?;
        }
    }
    Ok(others.noted(Json(names).into_response()))
}
