//! Following what is wanted: services and jobs as they change.

use axum::{body::Bytes, extract::State, response::Response};
use sampan_core::{
    name::{Name, ServiceKey},
    record::{self, Key, Kind},
    view::{self, Watched},
};
use sampan_store::{Entry, Revision, Watch, WatchError};
use serde::Deserialize;

use super::{Api, Shared, body::Asked, error::ApiError, follow, objects, wanted};

/// Of which app.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Of {
    app: Option<String>,
}

/// `GET /v1/watch`
///
/// All services and jobs that there are, then `synced`, then each change. If changes come faster
/// than the client reads, it gets everything again.
pub(super) async fn watch(State(api): Shared, Asked(of): Asked<Of>) -> Result<Response, ApiError> {
    api.looked().await?;
    let app = wanted::app_of(of.app.as_deref())?;
    let place = api.follower()?;
    let start = Watching {
        api,
        app,
        watch: None,
    };
    let (first, watching) = start.begin().await?;
    let more = futures::stream::unfold(watching, async |watching| watching.next().await);
    Ok(follow::forever(place, first, more))
}

struct Watching {
    api: Api,
    app: Option<Name>,
    watch: Option<Watch>,
}

impl Watching {
    /// Everything there is, and from then on what changes.
    async fn begin(mut self) -> Result<(Bytes, Self), ApiError> {
        let store = &*self.api.0.store;
        let listing = store.list("/").await?;
        let mut lines = Vec::new();
        for entry in &listing.entries {
            lines.extend(self.line(&entry.key, Some(entry))?);
        }
        let Revision(revision) = listing.revision;
        lines.push(Watched::Synced { revision });
        self.watch = Some(store.watch("/", listing.revision).await?);
        Ok((follow::lines(&lines), self))
    }

    /// The next change; `None` when there is none any more.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        let watch = self.watch.as_mut()?;
        match watch.next().await {
            Ok(batch) => {
                let mut lines = Vec::new();
                for change in &batch.changes {
                    match self.line(&change.key, change.entry.as_ref()) {
                        Ok(line) => lines.extend(line),
                        Err(error) => {
                            tracing::warn!(reason = error.message, "a watch ends");
                            return None;
                        }
                    }
                }
                Some((follow::lines(&lines), self))
            }
            Err(WatchError::Compacted { .. }) => self.begin().await.ok(),
            Err(WatchError::Closed) => None,
        }
    }

    /// What there is to say of a key, if it is watched.
    fn line(&self, key: &str, entry: Option<&Entry>) -> Result<Option<Watched>, ApiError> {
        let watched = |kind: Kind| key.starts_with(kind.prefix());
        if !watched(Kind::Service) && !watched(Kind::Job) {
            return Ok(None);
        }
        let ours = |key: &ServiceKey| self.app.as_ref().is_none_or(|app| *app == key.app);
        Ok(match (Key::parse(key), entry) {
            (Some(Key::Service(key)), Some(entry)) if ours(&key) => {
                let service: record::Service = objects::decode(entry)?;
                Some(Watched::Service(Box::new(view::Service::of(&service))))
            }
            (Some(Key::Job(key)), Some(entry)) if ours(&key) => {
                let job: record::Job = objects::decode(entry)?;
                Some(Watched::Job(Box::new(view::Job::of(&job))))
            }
            (Some(Key::Service(key)), None) if ours(&key) => Some(Watched::ServiceGone {
                app: key.app.to_string(),
                name: key.name.to_string(),
            }),
            (Some(Key::Job(key)), None) if ours(&key) => Some(Watched::JobGone {
                app: key.app.to_string(),
                name: key.name.to_string(),
            }),
            _ => None,
        })
    }
}
