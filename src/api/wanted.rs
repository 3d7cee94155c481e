//! What is wanted, as it is in the store.

use std::collections::BTreeMap;

use axum::{Json, extract::State, response::Response};
use sampan_core::{
    name::{Name, ServiceKey},
    record::{self, Key, Kind},
    view,
};
use serde::Deserialize;

use super::{
    Api, Shared,
    body::{AppPath, Asked, ServicePath},
    error::{ApiError, Code},
    objects,
};

/// Of which app and service.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Of {
    pub(super) app: Option<String>,
    pub(super) service: Option<String>,
}

/// The app that a query names, if it names one.
pub(super) fn app_of(asked: Option<&str>) -> Result<Option<Name>, ApiError> {
    let app = asked.map(Name::parse).transpose();
    app.map_err(|error| ApiError::new(Code::BadRequest, format!("`app`: {error}")))
}

impl Of {
    pub(super) fn app(&self) -> Result<Option<Name>, ApiError> {
        app_of(self.app.as_deref())
    }

    /// Whether the service is of those that are asked for, if its app is.
    pub(super) fn is(&self, key: &ServiceKey) -> bool {
        self.service
            .as_deref()
            .is_none_or(|service| service == key.name.as_str())
    }
}

pub(super) async fn app_names(api: &Api) -> Result<Vec<String>, ApiError> {
    let found = objects::list::<record::App>(&*api.0.store, Kind::App.prefix()).await?;
    Ok(found
        .iter()
        .map(|(_, app, _)| app.name.to_string())
        .collect())
}

/// `GET /v1/apps`
pub(super) async fn apps(State(api): Shared) -> Result<Response, ApiError> {
    let found = objects::list::<record::App>(&*api.0.store, Kind::App.prefix());
    let shown = |found: &Vec<(_, record::App, _)>| -> Vec<_> {
        found.iter().map(|(_, app, _)| view::App::of(app)).collect()
    };
    api.list(found, shown).await
}

/// `GET /v1/apps/{app}`
pub(super) async fn app(
    State(api): Shared,
    AppPath(name): AppPath,
) -> Result<Json<view::App>, ApiError> {
    let found = objects::get::<record::App>(&*api.0.store, &Key::App(name.clone())).await?;
    match found {
        Some((app, _)) => Ok(Json(view::App::of(&app))),
        None => {
            let known = app_names(&api).await?;
            Err(ApiError::absent("app", name.as_str(), &known))
        }
    }
}

/// `GET /v1/services`
pub(super) async fn services(
    State(api): Shared,
    Asked(of): Asked<Of>,
) -> Result<Response, ApiError> {
    api.looked().await?;
    let prefix = objects::prefix(Kind::Service, of.app()?.as_ref());
    let found = objects::list::<record::Service>(&*api.0.store, &prefix);
    let shown = |found: &Vec<(_, record::Service, _)>| -> Vec<_> {
        let found = found.iter().map(|(_, service, _)| service);
        let asked = found.filter(|service| of.is(&service.key));
        asked.map(view::Service::of).collect()
    };
    api.list(found, shown).await
}

/// `GET /v1/apps/{app}/services/{service}`
pub(super) async fn service(
    State(api): Shared,
    ServicePath(key): ServicePath,
) -> Result<Json<view::Service>, ApiError> {
    api.looked().await?;
    let (service, _) = objects::service(&*api.0.store, &key).await?;
    Ok(Json(view::Service::of(&service)))
}

/// `GET /v1/apps/{app}/services/{service}/revisions`
pub(super) async fn service_revisions(
    State(api): Shared,
    ServicePath(key): ServicePath,
) -> Result<Json<Vec<view::Revision>>, ApiError> {
    let (service, _) = objects::service(&*api.0.store, &key).await?;
    let found = objects::revisions(&*api.0.store, &key).await?;
    let current = Some(service.spec.revision);
    let shown = |revision: &record::Revision| view::Revision::of(&key, revision, current);
    Ok(Json(found.iter().map(shown).collect()))
}

/// `GET /v1/revisions`
pub(super) async fn revisions(
    State(api): Shared,
    Asked(of): Asked<Of>,
) -> Result<Response, ApiError> {
    let store = &*api.0.store;
    let app = of.app()?;
    let prefix = |kind| objects::prefix(kind, app.as_ref());
    let gather = async {
        let services = objects::list::<record::Service>(store, &prefix(Kind::Service)).await?;
        let found = objects::list::<record::Revision>(store, &prefix(Kind::Revision)).await?;
        Ok((services, found))
    };
    let shown = |(services, found): &(Vec<(_, record::Service, _)>, Vec<_>)| -> Vec<_> {
        let services = services.iter().map(|(_, service, _)| service);
        let current: BTreeMap<_, _> = services.map(|it| (&it.key, it.spec.revision)).collect();
        let shown = found.iter().filter_map(|(key, revision, _)| match key {
            Key::Revision(service, _) if of.is(service) => {
                let current = current.get(service).copied();
                Some(view::Revision::of(service, revision, current))
            }
            _ => None,
        });
        shown.collect()
    };
    api.list(gather, shown).await
}

/// `GET /v1/jobs`
pub(super) async fn jobs(State(api): Shared, Asked(of): Asked<Of>) -> Result<Response, ApiError> {
    api.looked().await?;
    let prefix = objects::prefix(Kind::Job, of.app()?.as_ref());
    let found = objects::list::<record::Job>(&*api.0.store, &prefix);
    let shown = |found: &Vec<(_, record::Job, _)>| -> Vec<_> {
        let asked = found.iter().filter(|(_, job, _)| of.is(&job.key));
        asked.map(|(_, job, _)| view::Job::of(job)).collect()
    };
    api.list(found, shown).await
}
