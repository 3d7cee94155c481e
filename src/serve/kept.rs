//! What a node of a cluster keeps on its disk for apps: pods that use it have to run there, so the store
//! says which node that is.

use std::{io, sync::Arc};

use sampan_core::{name::Name, record::key_value_stores};
use sampan_runtime::off_thread;
use sampan_store::StoreError;

use super::{context::NodeContext, member::Member};

/// Why it is not said what a node keeps.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    /// Its volumes.
    #[error("cannot read the volumes of this node")]
    Volumes(#[from] io::Error),
    /// The store.
    #[error("cannot say in the store which volumes this node keeps")]
    Store(#[from] StoreError),
}

/// Says in the store which volumes and key-value stores of apps are on this node, unless it says of
/// another node that it keeps them.
pub(crate) async fn keep(member: &Member, context: &NodeContext) -> Result<(), KeepError> {
    let (runtime, keyvalue) = (
        Arc::clone(&context.node.runtime),
        Arc::clone(&context.keyvalue),
    );
    let apps: Vec<Name> = {
        let objects = context.objects.follow(&[]);
        let mirror = objects.mirror();
        mirror.apps.keys().cloned().collect()
    };
    let found = off_thread(move || {
        let volumes = runtime.volumes().map(|volumes| volumes.list());
        let with_stores = apps.into_iter().filter(|app| keyvalue.has(app));
        let stores = with_stores.map(|app| (app, key_value_stores()));
        let mut found: Vec<_> = stores.collect();
        found.extend(volumes.transpose()?.into_iter().flatten());
        io::Result::Ok(found)
    });
    Ok(member.keep(&found.await?).await?)
}
