//! The end of a node that `up -d` has started.

use axum::{extract::State, http::StatusCode};

use super::{
    Shared,
    error::{ApiError, Code},
    wanted,
};

/// `POST /v1/stop`
pub(super) async fn stop(State(api): Shared) -> Result<StatusCode, ApiError> {
    let Some(ending) = &api.0.ending else {
        let message = "this node was not started by `up -d`";
        return Err(ApiError::new(Code::Impossible, message).hint(
            "Ctrl-C or SIGTERM to its process ends it, and its apps go on after the next start",
        ));
    };
    // From here on no app comes.
    ending.set(true);
    let apps = match wanted::app_names(&api).await {
        Ok(apps) => apps,
        Err(error) => {
            ending.set(false);
            return Err(error);
        }
    };
    if !apps.is_empty() {
        ending.set(false);
        let quoted: Vec<_> = apps.iter().map(|app| format!("`{app}`")).collect();
        let message = format!("the node still has {}", quoted.join(", "));
        return Err(ApiError::new(Code::Conflict, message)
            .hint("`sampan down APP` ends each")
            .details(apps));
    }
    ending.go();
    Ok(StatusCode::NO_CONTENT)
}

impl super::Api {
    /// Refused while the node ends.
    pub(super) fn stays(&self) -> Result<(), ApiError> {
        let ending = self.0.ending.as_ref();
        match ending.is_some_and(|it| it.is_set()) {
            false => Ok(()),
            true => Err(
                ApiError::new(Code::Busy, "the node is ending, without apps")
                    .hint("try again in a moment: `up -d` starts another one"),
            ),
        }
    }
}
