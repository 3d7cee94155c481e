//! What is asked of a volume or of key-value stores is answered by the node that keeps them: in a cluster
//! that may be another one, which is asked just what this one was.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::Method;
use sampan_core::{name::Name, record::key_value_stores};

use super::{
    Shared,
    error::{ApiError, Code},
    state::Keeper,
};

/// What a request is about: the app, and its volume.
fn asked(path: &str) -> Option<(Name, Name)> {
    let mut parts = path.strip_prefix("/v1/apps/")?.split('/');
    let app = Name::parse(parts.next()?).ok()?;
    match (parts.next()?, parts.next(), parts.next()) {
        ("stores", _, _) => Some((app, key_value_stores())),
        ("volumes", Some(volume), Some("archive")) => Some((app, Name::parse(volume).ok()?)),
        _ => None,
    }
}

/// Sends a request to the node that keeps what it is about.
pub(super) async fn ask(State(api): Shared, request: Request, next: Next) -> Response {
    let (Some(cluster), Some((app, volume))) = (api.0.cluster.clone(), asked(request.uri().path()))
    else {
        return next.run(request).await;
    };
    match cluster.keeper(&app, &volume) {
        Keeper::This => next.run(request).await,
        Keeper::None => {
            if request.method() == Method::PUT
                && let Err(reason) = cluster.keep(&app, &volume).await
            {
                return ApiError::new(Code::StoreFailed, reason).into_response();
            }
            next.run(request).await
        }
        Keeper::Other(node) => {
            let removes =
                request.method() == Method::DELETE && request.uri().path().ends_with("/stores");
            match cluster.pass(&node, request).await {
                Ok(response) if removes && response.status().is_success() => {
                    let given_up = cluster.give_up(Some(&node), &app, &[volume]).await;
                    let failed = |reason| ApiError::new(Code::StoreFailed, reason).into_response();
                    given_up.map_or_else(failed, |()| response)
                }
                Ok(response) => response,
                Err(reason) => {
                    let what = match volume == key_value_stores() {
                        true => format!("the key-value stores of `{app}` are"),
                        false => format!("volume `{volume}` is"),
                    };
                    let message =
                        format!("{what} on node `{node}`, which does not answer: {reason}");
                    ApiError::new(Code::Busy, message)
                        .hint("`sampan get nodes` says how it is")
                        .into_response()
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_and_stores_are_told_from_all_else() {
        let name = |text: &str| Name::parse(text).expect("a name");
        for (path, volume) in [
            ("/v1/apps/shop/stores", Some("keyvalue")),
            ("/v1/apps/shop/stores/carts/keys", Some("keyvalue")),
            ("/v1/apps/shop/volumes/data/archive", Some("data")),
            ("/v1/apps/shop/volumes", None),
            ("/v1/apps/shop/volumes/data", None),
            ("/v1/apps/shop/services/web/scale", None),
            ("/v1/apps/Shop/stores", None),
            ("/v1/apps/shop", None),
            ("/v1/pods", None),
        ] {
            let wanted = volume.map(|volume| (name("shop"), name(volume)));
            assert_eq!(asked(path), wanted, "{path}");
        }
    }
}
