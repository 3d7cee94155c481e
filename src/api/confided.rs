//! The secrets of apps: which there are, and what sees them. No value is here.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State};
use sampan_core::{
    object::SecretUse,
    record::{self, Kind},
    view,
};

use super::{
    Shared,
    body::Asked,
    error::ApiError,
    kept::Of,
    objects::{self, AppObjects},
    wanted::app_of,
};

/// `GET /v1/secrets`
pub(super) async fn list(
    State(api): Shared,
    Asked(of): Asked<Of>,
) -> Result<Json<Vec<view::Secret>>, ApiError> {
    let _turn = api.0.lists.turn().await?;
    let only = app_of(of.app.as_deref())?;
    let store = &*api.0.store;
    let apps = objects::list::<record::App>(store, Kind::App.prefix()).await?;
    let apps = apps.into_iter().map(|(_, app, _)| app);
    let asked = apps.filter(|app| only.as_ref().is_none_or(|only| *only == app.name));
    let mut secrets = Vec::new();
    for app in asked.filter(|app| !app.deleting) {
        let objects = AppObjects::read(store, &app.name).await?;
        secrets.extend(
            used(&objects)
                .into_iter()
                .map(|(secret, used_by)| view::Secret {
                    app: app.name.to_string(),
                    name: secret.name.to_string(),
                    version: secret.shown().to_owned(),
                    used_by: used_by.into_iter().collect(),
                }),
        );
    }
    Ok(Json(secrets))
}

/// The values of secrets that the services and jobs of an app see.
fn used(objects: &AppObjects) -> BTreeMap<&SecretUse, BTreeSet<String>> {
    let mut used = BTreeMap::<_, BTreeSet<_>>::new();
    for (user, grants) in objects.grants() {
        for secret in grants.secrets() {
            used.entry(secret).or_default().insert(user.to_string());
        }
    }
    used
}
