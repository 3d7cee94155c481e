//! No two apps may claim the same requests: of two equal routes the later would match nothing.

use std::collections::BTreeSet;

use sampan_core::{
    object::App,
    record::{self, Kind},
};

use super::{
    Api,
    error::{ApiError, Code},
    objects,
};

/// Fails if a service of another app has one of the routes of this one.
///
/// Two applies at once could still both find a route free. Then the gateway lets the first keep it
/// and says so.
pub(super) async fn check(api: &Api, app: &App) -> Result<(), ApiError> {
    let routes = app.services.values().flat_map(|service| &service.routes);
    let wanted: BTreeSet<_> = routes.collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let services = objects::list::<record::Service>(&*api.0.store, Kind::Service.prefix()).await?;
    let others = services
        .iter()
        .map(|(_, service, _)| service)
        .filter(|service| service.key.app != app.name && !service.spec.deleting);
    for other in others {
        let Some(route) = other.spec.routes.iter().find(|it| wanted.contains(it)) else {
            continue;
        };
        let (name, of) = (&other.key.name, &other.key.app);
        let message = format!("the route `{route}` belongs to the service `{name}` of app `{of}`");
        let hint = "give one of the two another host or prefix, or delete the other app";
        return Err(ApiError::new(Code::Impossible, message).hint(hint));
    }
    Ok(())
}
