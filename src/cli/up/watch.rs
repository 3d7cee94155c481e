//! Watches component files, for `up --watch`.
//!
//! A file is looked at through every link and folder on the way to it, as it would be loaded, a few
//! times a second: what a path leads to changes in many places besides its own folder
//! ([ADR 0027](../../../docs/adr/0027-watched-files-are-looked-at.md)).

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use sampan_core::name::Name;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::serve::AppSource;

/// Time between two looks. A change counts once a file looks the same twice: a linker writes in
/// several steps, and what is written after the second look looks different.
const PERIOD: Duration = Duration::from_millis(200);
/// Changes that wait to be applied. Looks pause while there are so many.
const MAX_CHANGES: usize = 1024;

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// The same of the last change of the file or of what the system knows of it: unlike the one
    /// above, no program can set it back.
    changed: (i64, i64),
}

impl Look {
    /// The file at the end of the path, if there is one.
    fn at(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

struct File {
    path: PathBuf,
    services: Vec<Name>,
    /// How it was when it was loaded, or was last said to have changed.
    told: Option<Look>,
    last: Option<Look>,
}

/// The component files of an app's services.
pub(super) struct Watch {
    files: Vec<File>,
}

impl Watch {
    /// Watches from now on. To be made before the files are loaded, so that no change falls between.
    pub(super) fn new(source: &AppSource) -> Self {
        let services = source.app.services.iter();
        Self::over(services.map(|(name, service)| {
            let path = source.base.join(&service.component.path);
            (name.clone(), path)
        }))
    }

    fn over(components: impl Iterator<Item = (Name, PathBuf)>) -> Self {
        let mut files: BTreeMap<PathBuf, Vec<Name>> = BTreeMap::new();
        for (name, path) in components {
            files.entry(path).or_default().push(name);
        }
        let files = files.into_iter().map(|(path, services)| {
            let now = Look::at(&path);
            File {
                path,
                services,
                told: now,
                last: now,
            }
        });
        Self {
            files: files.collect(),
        }
    }

    /// Looks again. Yields the services whose component is another now, and rests.
    fn look(&mut self) -> Vec<Name> {
        let mut changed = Vec::new();
        for file in &mut self.files {
            let now = Look::at(&file.path);
            let rests = now == file.last;
            file.last = now;
            if rests && now != file.told {
                file.told = now;
                changed.extend(file.services.iter().cloned());
            }
        }
        changed
    }

    /// The names of services whose component has changed, as long as the receiver is there.
    pub(super) fn start(self) -> mpsc::Receiver<Name> {
        let (found, services) = mpsc::channel(MAX_CHANGES);
        tokio::spawn(self.run(found));
        services
    }

    async fn run(mut self, found: mpsc::Sender<Name>) {
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !found.is_closed() {
            period.tick().await;
            // A file may be on a disk or server that takes its time.
            let looked = tokio::task::spawn_blocking(move || {
                let changed = self.look();
                (self, changed)
            });
            // It ends early only with the program.
            let Ok((watch, changed)) = looked.await else {
                return;
            };
            self = watch;
            for name in changed {
                if found.send(name).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder with files and links in it.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().expect("a directory"));
            for folder in [
                "one",
                "two",
                "mount/..v1",
                "mount/..v2",
                "deep/er/one",
                "deep2/er/one",
            ] {
                fs::create_dir_all(place.at(folder)).expect("a folder");
                fs::write(place.at(folder).join("c.wasm"), folder).expect("written");
            }
            fs::write(place.at("old"), "old").expect("written");
            fs::write(place.at("new"), "newer").expect("written");
            place.link("old", "link");
            place.link("link", "chain");
            place.link("one", "current");
            place.link("..v1", "mount/..data");
            place.link("..data/c.wasm", "mount/c.wasm");
            place
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        /// Puts a link in the place of whatever is there, at once.
        fn link(&self, target: &str, path: &str) {
            symlink(target, self.at("link.new")).expect("a link");
            self.rename("link.new", path);
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.at(from), self.at(to)).expect("renamed");
        }

        fn remove(&self, path: &str) {
            fs::remove_file(self.at(path)).expect("removed");
        }

        fn write(&self, path: &str, text: &str) {
            fs::write(self.at(path), text).expect("written");
        }

        fn watch(&self, path: &str) -> Watch {
            let name = Name::parse("web").expect("a name");
            Watch::over([(name, self.at(path))].into_iter())
        }
    }

    /// How often a change is said to have happened, in five looks.
    fn times(watch: &mut Watch) -> usize {
        (0..5).map(|_| watch.look().len()).sum()
    }

    type Act = fn(&Place);

    #[test]
    fn whatever_leads_to_another_file_is_a_change() {
        let changes: [(&str, &str, Act); 14] = [
            ("written", "old", |it| it.write("old", "changed")),
            ("another renamed over it", "old", |it| {
                it.rename("new", "old")
            }),
            ("removed", "old", |it| it.remove("old")),
            ("removed and made again", "old", |it| {
                it.remove("old");
                it.write("old", "made again");
            }),
            ("another link", "link", |it| it.link("new", "link")),
            ("a link removed and made again", "link", |it| {
                it.remove("link");
                symlink("new", it.at("link")).expect("a link");
            }),
            ("a file in the place of a link", "link", |it| {
                it.rename("new", "link")
            }),
            ("the file behind a link", "link", |it| {
                it.write("old", "changed")
            }),
            ("a link in a chain", "chain", |it| it.link("new", "link")),
            ("the link to a folder", "current/c.wasm", |it| {
                it.link("two", "current")
            }),
            ("folders that change places", "one/c.wasm", |it| {
                it.rename("one", "aside");
                it.rename("two", "one");
            }),
            ("a folder high above", "deep/er/one/c.wasm", |it| {
                it.rename("deep", "aside");
                it.rename("deep2", "deep");
            }),
            ("a ConfigMap", "mount/c.wasm", |it| {
                it.link("..v2", "mount/..data")
            }),
            ("a link into nothing", "link", |it| {
                it.link("nothing", "link")
            }),
        ];
        for (what, path, act) in changes {
            let place = Place::new();
            let mut watch = place.watch(path);
            assert_eq!(times(&mut watch), 0, "before {what}");
            act(&place);
            assert_eq!(times(&mut watch), 1, "{what}");
        }
    }

    #[test]
    fn what_leads_to_the_same_file_is_none() {
        let changes: [(&str, &str, Act); 4] = [
            ("a neighbour", "old", |it| it.write("new", "changed")),
            ("another way to the same", "chain", |it| {
                it.link("old", "chain")
            }),
            ("what another link leads to", "link", |it| {
                it.link("new", "chain");
                it.write("new", "changed");
            }),
            ("another folder", "current/c.wasm", |it| {
                it.write("two/c.wasm", "changed")
            }),
        ];
        for (what, path, act) in changes {
            let place = Place::new();
            let mut watch = place.watch(path);
            act(&place);
            assert_eq!(times(&mut watch), 0, "{what}");
        }
    }

    #[test]
    fn what_is_still_being_written_is_left_to_rest() {
        let place = Place::new();
        let mut watch = place.watch("old");
        for step in 1..10 {
            place.write("old", &"x".repeat(step * 100));
            assert_eq!(watch.look(), [], "step {step}");
        }
        assert_eq!(times(&mut watch), 1);
        // What has gone can come back, once and again.
        for _ in 0..3 {
            place.rename("old", "aside");
            assert_eq!(times(&mut watch), 1);
            place.rename("aside", "old");
            assert_eq!(times(&mut watch), 1);
        }
    }

    #[test]
    fn a_file_of_several_services_is_a_change_of_each() {
        let place = Place::new();
        let names = ["api", "web"].map(|name| Name::parse(name).expect("a name"));
        let both = names.iter().map(|name| (name.clone(), place.at("old")));
        let mut watch = Watch::over(both);
        place.write("old", "changed");
        assert_eq!(watch.look(), []);
        assert_eq!(watch.look(), names);
    }
}
