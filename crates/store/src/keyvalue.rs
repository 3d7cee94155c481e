//! Where guests keep what is theirs: for each app a database of its own, and in it stores by name.
//!
//! They are no part of [`Store`](crate::Store), which has what is wanted and what is known. A
//! database is opened when it is first used, and closed when [`MAX_OPEN`] others are used after it.
//! All that is asked of it goes to one thread ([`writer`]), which makes what has come together
//! durable at once: what has been acknowledged survives the end of the process and of the machine.

mod error;
mod stores;
mod tables;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use sampan_core::{name::Name, spec::node::KeyValueLimits};

use crate::own_file;
use error::{MAX_OPEN, failed};

pub use error::KeyValueError;
pub use stores::AppStores;
pub use tables::{Found, KeyPage, StoreSummary};

/// The databases of all apps of a node.
#[derive(Debug)]
pub struct KeyValues {
    /// Where they are; `None` if there is no place for them.
    directory: Option<PathBuf>,
    limits: KeyValueLimits,
    open: Mutex<Open>,
    /// The turn of who opens or removes one.
    turn: Mutex<()>,
}

/// The databases that are open, each with when it was used last.
#[derive(Debug, Default)]
struct Open {
    apps: HashMap<Name, (Arc<AppStores>, u64)>,
    uses: u64,
}

impl Open {
    fn find(&mut self, app: &Name) -> Option<Arc<AppStores>> {
        self.uses += 1;
        let (stores, used) = self.apps.get_mut(app)?;
        *used = self.uses;
        Some(Arc::clone(stores))
    }

    /// Takes out the one that was used before all others, among those that are not used now.
    fn idlest(&mut self) -> Option<Arc<AppStores>> {
        let idle = self.apps.iter();
        let idle = idle.filter(|(_, (stores, _))| Arc::strong_count(stores) == 1);
        let (app, _) = idle.min_by_key(|(_, (_, used))| *used)?;
        let app = app.clone();
        self.apps.remove(&app).map(|(stores, _)| stores)
    }
}

impl KeyValues {
    /// Databases below `directory`, which is created when it is needed.
    pub fn new(directory: Option<PathBuf>, limits: KeyValueLimits) -> Self {
        Self {
            directory,
            limits,
            open: Mutex::default(),
            turn: Mutex::default(),
        }
    }

    /// The stores of an app, if its database is open. It does not wait.
    pub fn find(&self, app: &Name) -> Option<Arc<AppStores>> {
        self.open.lock().find(app)
    }

    /// The stores of an app, whose database is opened, and begun if there is none. It waits for the
    /// disk.
    pub fn open(&self, app: &Name) -> Result<Arc<AppStores>, KeyValueError> {
        let _turn = self.turn.lock();
        if let Some(stores) = self.find(app) {
            return Ok(stores);
        }
        let idle = {
            let mut open = self.open.lock();
            match open.apps.len() < MAX_OPEN {
                true => None,
                false => Some(open.idlest().ok_or(KeyValueError::Busy)?),
            }
        };
        // It is closed before the next one is opened.
        drop(idle);
        let path = self.path(app)?;
        make_directory(path.parent().unwrap_or(Path::new("/")))
            .map_err(|error| failed(&path, &error))?;
        let stores = Arc::new(AppStores::open(&path, self.limits.clone())?);
        let mut open = self.open.lock();
        open.uses += 1;
        let used = open.uses;
        let kept = Arc::clone(&stores);
        open.apps.insert(app.clone(), (kept, used));
        Ok(stores)
    }

    /// Closes the database of an app, unless it is in use. Says whether it is closed. It waits for
    /// the disk.
    pub fn release(&self, app: &Name) -> bool {
        let _turn = self.turn.lock();
        let mut open = self.open.lock();
        match open.apps.get(app) {
            None => true,
            Some((stores, _)) if Arc::strong_count(stores) > 1 => false,
            Some(_) => {
                let closed = open.apps.remove(app);
                drop(open);
                drop(closed);
                true
            }
        }
    }

    /// Whether an app has a database.
    pub fn has(&self, app: &Name) -> bool {
        self.path(app).is_ok_and(|path| path.exists())
    }

    /// Removes the database of an app. Says whether there was one. It waits for the disk.
    pub fn remove(&self, app: &Name) -> Result<bool, KeyValueError> {
        let _turn = self.turn.lock();
        let path = self.path(app)?;
        let stores = {
            let mut open = self.open.lock();
            let is_idle = |(stores, _): &(Arc<AppStores>, u64)| Arc::strong_count(stores) == 1;
            if !open.apps.get(app).is_none_or(is_idle) {
                return Err(KeyValueError::InUse(app.clone()));
            }
            open.apps.remove(app)
        };
        drop(stores);
        if !path.exists() {
            return Ok(false);
        }
        // One that is damaged may go, one that another process uses may not.
        if let Err(own_file::Fault::Busy(holder)) = own_file::connect(&path, &tables::FORM) {
            let place = path.display().to_string();
            return Err(KeyValueError::Held { place, holder });
        }
        // The log first: what is left of a removal that was cut off is a whole database, though an
        // older one, and never a log that the next database would take for its own.
        for ending in ["-wal", ""] {
            match fs::remove_file(format!("{}{ending}", path.display())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&path, &error));
                }
                _ => {}
            }
        }
        Ok(true)
    }

    fn path(&self, app: &Name) -> Result<PathBuf, KeyValueError> {
        let directory = self.directory.as_ref().ok_or(KeyValueError::NoPlace)?;
        Ok(directory.join(format!("{app}.db")))
    }
}

/// Creates a directory of this user, if missing, so that it lasts.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.mode(0o700).recursive(true).create(directory)?;
    match directory.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
