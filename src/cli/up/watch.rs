//! Watches component files, for `up --watch`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use notify::{EventKind, RecursiveMode, Watcher as _};
use sampan_core::name::Name;
use tokio::sync::mpsc;

use crate::serve::app::RunningApp;

/// Time without a change after which a file counts as whole: a linker writes in several steps.
const QUIET: Duration = Duration::from_millis(100);
/// Changes that wait to be looked at. More of them say nothing new.
const MAX_CHANGES: usize = 1024;

/// Names of services whose component has changed, from now on.
pub(super) fn start(app: &RunningApp) -> anyhow::Result<mpsc::Receiver<Name>> {
    let mut files: BTreeMap<PathBuf, BTreeSet<Name>> = BTreeMap::new();
    for (name, path) in app.components() {
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot watch `{}`", path.display()))?;
        files.entry(path).or_default().insert(name.clone());
    }
    let (changed, changes) = mpsc::channel(MAX_CHANGES);
    let ours: BTreeSet<_> = files.keys().cloned().collect();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let paths: Vec<_> = match event.need_rescan() {
            // The system has lost changes: any file may have one.
            true => ours.iter().cloned().collect(),
            // The neighbours of our files are left out here: one that never rests, such as a log,
            // would otherwise keep them from ever being looked at.
            false if matches!(event.kind, EventKind::Access(_)) => return,
            false => event.paths,
        };
        for path in paths.into_iter().filter(|path| ours.contains(path)) {
            // A full channel means that a look at the files is due anyway.
            let _ = changed.try_send(path);
        }
    })?;
    // Directories, not files: most tools write a new file and rename it over the old one.
    let directories: BTreeSet<_> = files.keys().filter_map(|path| path.parent()).collect();
    for directory in directories {
        watcher
            .watch(directory, RecursiveMode::NonRecursive)
            .with_context(|| format!("cannot watch `{}`", directory.display()))?;
    }
    let (found, services) = mpsc::channel(MAX_CHANGES);
    tokio::spawn(settle(files, changes, found, watcher));
    Ok(services)
}

/// Gathers changes until they pause, then names the services.
async fn settle(
    files: BTreeMap<PathBuf, BTreeSet<Name>>,
    mut changes: mpsc::Receiver<PathBuf>,
    found: mpsc::Sender<Name>,
    _watcher: notify::RecommendedWatcher,
) {
    while let Some(first) = changes.recv().await {
        let mut paths = BTreeSet::from([first]);
        while let Ok(Some(path)) = tokio::time::timeout(QUIET, changes.recv()).await {
            paths.insert(path);
        }
        let names = paths.iter().filter_map(|path| files.get(path)).flatten();
        for name in names.collect::<BTreeSet<_>>() {
            if found.send(name.clone()).await.is_err() {
                return;
            }
        }
    }
}
