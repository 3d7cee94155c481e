//! What guests keep in key-value stores, for people.

use std::{error::Error as _, sync::Arc};

use axum::{
    Json,
    body::to_bytes,
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use http_body_util::LengthLimitError;
use sampan_core::{
    name::Name,
    record::{self, Key, key_value_stores},
    view,
};
use sampan_store::{AppStores, KeyValueError};
use serde::Deserialize;

use super::{
    Api, MAX_UPLOADS, Shared,
    artifacts::blocking,
    body::{AppPath, Asked, StorePath},
    error::{ApiError, Code},
    objects, pace,
};

/// The largest value that any node allows.
const MAX_VALUE_BYTES: usize = 16 << 20;

/// The key of a value.
#[derive(Deserialize)]
pub(super) struct OfKey {
    key: String,
}

/// Where a list goes on.
#[derive(Deserialize)]
pub(super) struct After {
    after: Option<String>,
}

impl From<KeyValueError> for ApiError {
    fn from(error: KeyValueError) -> Self {
        let message = error.to_string();
        match error {
            KeyValueError::KeyTooLong { .. }
            | KeyValueError::ValueTooLarge { .. }
            | KeyValueError::TooManyAtOnce { .. }
            | KeyValueError::TooLargeAtOnce { .. }
            | KeyValueError::NotANumber(_)
            | KeyValueError::Overflow(_) => Self::new(Code::Invalid, message),
            KeyValueError::TooManyKeys { .. } | KeyValueError::TooManyBytes { .. } => {
                Self::new(Code::QuotaExceeded, message)
                    .hint("`[keyvalue]` of the node's configuration says how much there may be")
            }
            KeyValueError::Held { .. } => Self::new(Code::Conflict, message),
            KeyValueError::Busy | KeyValueError::InUse(_) => {
                Self::new(Code::Busy, message).hint("try again in a moment")
            }
            KeyValueError::Full { .. } => Self::new(Code::StoreFull, message)
                .hint("nothing was changed, and everything goes on running; free some space"),
            KeyValueError::NoPlace | KeyValueError::Failed { .. } | KeyValueError::Closed => {
                Self::new(Code::StoreFailed, message)
            }
        }
    }
}

impl Api {
    /// The stores of an app, if it has any.
    async fn stores(&self, app: &Name) -> Result<Option<Arc<AppStores>>, ApiError> {
        let databases = Arc::clone(&self.0.keyvalue);
        if let Some(stores) = databases.find(app) {
            return Ok(Some(stores));
        }
        let app = app.clone();
        let opened = move || match databases.has(&app) {
            true => databases.open(&app).map(Some),
            false => Ok(None),
        };
        Ok(blocking(opened).await??)
    }

    /// The stores of an app that is there; they are begun if there are none.
    async fn made(&self, app: &Name) -> Result<Arc<AppStores>, ApiError> {
        if let Some(stores) = self.stores(app).await? {
            return Ok(stores);
        }
        self.is_there(app).await?.then_some(()).ok_or_else(|| {
            ApiError::new(Code::NotFound, format!("there is no app `{app}`"))
                .hint("a store belongs to an app; `sampan get apps` lists them")
        })?;
        let (databases, app) = (Arc::clone(&self.0.keyvalue), app.clone());
        Ok(blocking(move || databases.open(&app)).await??)
    }

    async fn is_there(&self, app: &Name) -> Result<bool, ApiError> {
        let key = Key::App(app.clone());
        let found = objects::get::<record::App>(&*self.0.store, &key).await?;
        Ok(found.is_some())
    }
}

/// `GET /v1/apps/{app}/stores`
pub(super) async fn stores(
    State(api): Shared,
    AppPath(app): AppPath,
) -> Result<Json<Vec<view::KeyValueStore>>, ApiError> {
    let Some(stores) = api.stores(&app).await? else {
        return Ok(Json(Vec::new()));
    };
    let found = stores.stores().await?.into_iter();
    let shown = found.map(|store| view::KeyValueStore {
        name: store.name,
        keys: store.keys,
        bytes: store.bytes,
    });
    Ok(Json(shown.collect()))
}

/// `DELETE /v1/apps/{app}/stores`
pub(super) async fn remove(
    State(api): Shared,
    AppPath(app): AppPath,
) -> Result<StatusCode, ApiError> {
    if api.is_there(&app).await? {
        let message = format!("app `{app}` is there, and may use its key-value stores");
        return Err(ApiError::new(Code::Conflict, message)
            .hint(format!("`sampan delete {app} --volumes` deletes both")));
    }
    let (databases, name) = (Arc::clone(&api.0.keyvalue), app.clone());
    match blocking(move || databases.remove(&name)).await?? {
        true => {
            if let Some(cluster) = &api.0.cluster {
                let given_up = cluster.give_up(None, &app, &[key_value_stores()]).await;
                given_up.map_err(|reason| ApiError::new(Code::StoreFailed, reason))?;
            }
            Ok(StatusCode::NO_CONTENT)
        }
        false => Err(ApiError::new(
            Code::NotFound,
            "the app has no key-value stores",
        )),
    }
}

/// `GET /v1/apps/{app}/stores/{store}/keys`
pub(super) async fn keys(
    State(api): Shared,
    StorePath(app, store): StorePath,
    Asked(After { after }): Asked<After>,
) -> Result<Json<view::KeyValueKeys>, ApiError> {
    let Some(stores) = api.stores(&app).await? else {
        return Err(no_store(&app, &store));
    };
    let page = stores.sorted_keys(&store, after.clone()).await?;
    // One that has become empty is there.
    if page.keys.is_empty() && after.is_none() {
        let known = stores.stores().await?;
        if !known.iter().any(|it| it.name == store.as_str()) {
            return Err(no_store(&app, &store));
        }
    }
    Ok(Json(view::KeyValueKeys {
        keys: page.keys,
        next: page.next,
    }))
}

fn no_store(app: &Name, store: &Name) -> ApiError {
    let message = format!("app `{app}` has no key-value store `{store}`");
    ApiError::new(Code::NotFound, message).hint(format!("`sampan kv list {app}` lists them"))
}

fn no_key(app: &Name, store: &Name, key: &str) -> ApiError {
    let message = format!("there is no key `{key}` in the store `{store}` of app `{app}`");
    ApiError::new(Code::NotFound, message)
}

/// `GET /v1/apps/{app}/stores/{store}/value`
pub(super) async fn get(
    State(api): Shared,
    StorePath(app, store): StorePath,
    Asked(OfKey { key }): Asked<OfKey>,
) -> Result<Response, ApiError> {
    let absent = || no_key(&app, &store, &key);
    let stores = api.stores(&app).await?.ok_or_else(absent)?;
    let found = stores.get(&store, vec![key.clone()]).await?.pop();
    let found = found.flatten().ok_or_else(absent)?;
    api.whole("application/octet-stream", found.value.into())
}

/// `PUT /v1/apps/{app}/stores/{store}/value`
pub(super) async fn put(
    State(api): Shared,
    StorePath(app, store): StorePath,
    Asked(OfKey { key }): Asked<OfKey>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let place = api.0.uploads.try_acquire();
    let _place = place.map_err(|_| ApiError::busy("uploads", MAX_UPLOADS))?;
    let stores = api.made(&app).await?;
    let value = to_bytes(request.into_body(), MAX_VALUE_BYTES).await;
    let value = value.map_err(|error| match error.source() {
        Some(source) if source.is::<LengthLimitError>() => {
            let message = format!("the value is larger than {} MiB", MAX_VALUE_BYTES >> 20);
            ApiError::new(Code::TooLarge, message)
        }
        _ => pace::broken(&error),
    })?;
    stores
        .write(&store, vec![(key, Some(value.into()))])
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/apps/{app}/stores/{store}/value`
pub(super) async fn delete(
    State(api): Shared,
    StorePath(app, store): StorePath,
    Asked(OfKey { key }): Asked<OfKey>,
) -> Result<StatusCode, ApiError> {
    let absent = || no_key(&app, &store, &key);
    let stores = api.stores(&app).await?.ok_or_else(absent)?;
    match stores.version(&store, key.clone()).await? {
        0 => return Err(absent()),
        _ => stores.write(&store, vec![(key, None)]).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}
