//! Lets go of what apps that are gone have kept, so that another node can have it.

use std::{sync::Arc, time::Duration};

use sampan_core::{name::Name, record::Key};
use sampan_runtime::{Runtime, off_thread};
use sampan_store::KeyValues;

use crate::mirror::Follower;

/// How often it is tried while pods of the app still end.
const TRIES: u32 = 40;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Follows apps, as long as there is a store.
pub(super) async fn run(mut apps: Follower, keyvalue: Arc<KeyValues>, runtime: Arc<Runtime>) {
    while let Some(keys) = apps.next().await {
        for key in keys {
            let Key::App(app) = key else {
                continue;
            };
            if !apps.mirror().apps.contains_key(&app) {
                release(app, &keyvalue, &runtime).await;
            }
        }
    }
}

async fn release(app: Name, keyvalue: &Arc<KeyValues>, runtime: &Arc<Runtime>) {
    for _ in 0..TRIES {
        let (keyvalue, runtime, app) = (Arc::clone(keyvalue), Arc::clone(runtime), app.clone());
        let is_free = off_thread(move || {
            let volumes = runtime.volumes().is_none_or(|it| it.release(&app));
            keyvalue.release(&app) && volumes
        });
        if is_free.await {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
