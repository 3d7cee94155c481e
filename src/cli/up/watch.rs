//! Watches the files of an app, for `up --watch`: components, the spec and its env files.
//!
//! A file is looked at through every link and folder on the way to it, as it would be loaded, many
//! times a second: what a path leads to changes in many places besides its own folder
//! ([ADR 0027](../../../docs/adr/0027-watched-files-are-looked-at.md)). How long a file has to rest
//! until it counts depends on what it is ([ADR 0045](../../../docs/adr/0045-edit-and-see.md)).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sampan_core::{name::Name, object::App};

use super::{look::Look, whole::is_whole};

/// Time between two looks.
pub(super) const PERIOD: Duration = Duration::from_millis(25);
/// How long a whole component rests until it counts. A linker may write another end over the first.
const WHOLE: Duration = Duration::from_millis(50);
/// The same of one that ends in the middle: it is being written, or never will be whole.
const PART: Duration = Duration::from_secs(1);
/// The same of a file that is gone: an editor may put another one in its place.
const GONE: Duration = Duration::from_millis(400);
/// The same of a spec or an env file, of which nothing tells whether it is whole.
const TEXT: Duration = Duration::from_millis(100);

/// Of all time, looks at one path take at most one part in so many.
const PAUSE: u32 = 20;

/// What has changed, and rests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The services and jobs whose component is another.
    pub(super) components: Vec<Name>,
    /// Whether the spec, or a file that it takes variables from, is another.
    pub(super) spec: bool,
}

struct File {
    path: PathBuf,
    /// The services and jobs whose component it is; none for a text.
    names: Vec<Name>,
    /// How it was when it was loaded, or was last said to have changed.
    told: Option<Look>,
    last: Option<Look>,
    /// Since when it has been so.
    since: Instant,
    /// A directory with much in it is looked at less often.
    pause_until: Instant,
}

impl File {
    /// One that is loaded as it is.
    fn new(path: PathBuf, names: Vec<Name>) -> Self {
        let now = Look::at(&path);
        Self {
            path,
            names,
            told: now,
            last: now,
            since: Instant::now(),
            pause_until: Instant::now(),
        }
    }

    /// Looks again. Says whether it is another than when it was told, and rests.
    fn look(&mut self, now: Instant) -> bool {
        if now < self.pause_until {
            return false;
        }
        let begun = Instant::now();
        let look = Look::at(&self.path);
        let took = begun.elapsed();
        if took * PAUSE > PERIOD {
            self.pause_until = now + took * PAUSE;
        }
        if look != self.last {
            (self.last, self.since) = (look, now);
            return false;
        }
        if look == self.told {
            return false;
        }
        let rested = now.saturating_duration_since(self.since);
        let is_due = match (look, self.names.is_empty()) {
            (None, _) => rested >= GONE,
            (Some(_), true) => rested >= TEXT,
            (Some(_), false) if self.path.is_dir() => rested >= TEXT,
            (Some(_), false) => rested >= PART || (rested >= WHOLE && is_whole(&self.path)),
        };
        if is_due {
            self.told = look;
        }
        is_due
    }
}

/// The files of an app.
#[derive(Default)]
pub(super) struct Watch {
    files: Vec<File>,
}

impl Watch {
    /// Watches the components of an app and the texts that it is made from. A file that was watched
    /// before goes on as it was, others from now on: so this is to be called before what is new is
    /// loaded.
    pub(super) fn follow(&mut self, app: &App, base: &Path, texts: Vec<PathBuf>) {
        self.over(components(app, base), texts);
    }

    fn over(&mut self, components: impl Iterator<Item = (Name, PathBuf)>, texts: Vec<PathBuf>) {
        let mut files: BTreeMap<PathBuf, Vec<Name>> = BTreeMap::new();
        for (name, path) in components {
            files.entry(path).or_default().push(name);
        }
        for path in texts {
            files.entry(path).or_default();
        }
        let mut before = std::mem::take(&mut self.files);
        let files = files.into_iter().map(|(path, names)| {
            match before.iter().position(|file| file.path == path) {
                Some(place) => File {
                    names,
                    ..before.swap_remove(place)
                },
                None => File::new(path, names),
            }
        });
        self.files = files.collect();
    }

    /// Looks again. What is `building` is not looked at: its build may write a component in several
    /// steps.
    pub(super) fn look(&mut self, now: Instant, building: &BTreeSet<Name>) -> Changes {
        let mut changes = Changes::default();
        for file in &mut self.files {
            if file.names.iter().any(|name| building.contains(name)) || !file.look(now) {
                continue;
            }
            changes.spec |= file.names.is_empty();
            changes.components.extend(file.names.iter().cloned());
        }
        changes
    }

    /// The components of these are what is loaded next, or left alone, as they are. Gives back all
    /// that have one of these components.
    pub(super) fn settle(&mut self, names: &[Name]) -> Vec<Name> {
        let mut settled = Vec::new();
        for file in &mut self.files {
            if file.names.iter().any(|name| names.contains(name)) {
                file.last = Look::at(&file.path);
                file.told = file.last;
                settled.extend(file.names.iter().cloned());
            }
        }
        settled
    }
}

/// The components of an app's services and jobs.
pub(super) fn components(app: &App, base: &Path) -> impl Iterator<Item = (Name, PathBuf)> {
    let services = app.services.values();
    let services = services.map(|it| (&it.name, &it.component));
    let jobs = app.jobs.values().map(|it| (&it.name, &it.component));
    services
        .chain(jobs)
        .map(|(name, component)| (name.clone(), base.join(&component.path)))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

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
            let mut watch = Watch::default();
            watch.over([(name, self.at(path))].into_iter(), Vec::new());
            watch
        }
    }

    /// Looks, so long after the last time that anything rests.
    fn look(watch: &mut Watch) -> Vec<Name> {
        let last = watch.files.iter().map(|file| file.since).max();
        let later = last.expect("a file") + PART;
        watch.look(later, &BTreeSet::new()).components
    }

    /// How often a change is said to have happened, in five looks.
    fn times(watch: &mut Watch) -> usize {
        (0..5).map(|_| look(watch).len()).sum()
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
            assert_eq!(look(&mut watch), [], "step {step}");
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
        let mut watch = Watch::default();
        watch.over(both, Vec::new());
        place.write("old", "changed");
        assert_eq!(look(&mut watch), []);
        assert_eq!(look(&mut watch), names);
    }

    /// After how long a change of the file counts, in steps of `PERIOD`.
    fn delay(watch: &mut Watch, change: impl FnOnce()) -> Duration {
        let begun = Instant::now();
        change();
        let mut after = Duration::ZERO;
        while watch.look(begun + after, &BTreeSet::new()) == Changes::default() {
            after += PERIOD;
        }
        after
    }

    #[test]
    fn how_long_a_file_has_to_rest_depends_on_what_it_is() {
        let place = Place::new();
        let hello = include_bytes!("../../../workloads/dist/hello.wasm");
        let mut watch = place.watch("old");
        let write = |bytes: &[u8]| fs::write(place.at("old"), bytes).expect("written");
        assert_eq!(delay(&mut watch, || write(hello)), WHOLE);
        assert_eq!(delay(&mut watch, || write(&hello[..hello.len() / 2])), PART);
        assert_eq!(delay(&mut watch, || place.remove("old")), GONE);
        watch.over([].into_iter(), vec![place.at("new")]);
        let changed = delay(&mut watch, || place.write("new", "app = 'b'"));
        assert_eq!(changed, TEXT);
    }

    #[test]
    fn what_is_built_counts_when_its_build_is_over() {
        let place = Place::new();
        let names = ["api", "web"].map(|name| Name::parse(name).expect("a name"));
        let both = names.iter().map(|name| (name.clone(), place.at("old")));
        let mut watch = Watch::default();
        watch.over(both, Vec::new());
        let building = BTreeSet::from([names[0].clone()]);
        place.write("old", "changed");
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        for second in 1..5 {
            assert_eq!(watch.look(later(second), &building), Changes::default());
        }
        assert_eq!(watch.settle(&names[..1]), names);
        assert_eq!(times(&mut watch), 0);
    }

    #[test]
    fn what_is_watched_already_is_not_forgotten() {
        let place = Place::new();
        let mut watch = place.watch("old");
        place.write("old", "changed");
        let web = Name::parse("web").expect("a name");
        let components = [(web.clone(), place.at("old")), (web, place.at("new"))];
        watch.over(components.into_iter(), Vec::new());
        assert_eq!(times(&mut watch), 1);
    }
}
