//! The sources of a build: which files there are, and what is in them.
//!
//! They are looked at, as components are ([ADR 0027](../../../docs/adr/0027-watched-files-are-looked-at.md)).
//! A file counts by its content: one that is written again with the same bytes has not changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use ignore::{Match, gitignore::Gitignore};
use sampan_core::digest::Digest;

use super::look::Look;

/// The most files and directories of one build.
pub(super) const MAX_ENTRIES: usize = 20_000;
/// How deep directories may lie in one another.
const MAX_DEPTH: usize = 64;
/// A larger file counts by its size and times: to read it at each change would take too long.
const MAX_HASHED_BYTES: u64 = 16 << 20;

/// Directories that hold what tools keep there, and no sources.
const LEFT_OUT: [&str; 4] = [".git", "node_modules", "__pycache__", ".zig-cache"];
/// Tools put this file into directories of what can be made again (<https://bford.info/cachedir>).
const CACHE_MARK: &str = "CACHEDIR.TAG";

/// There are more files than can be looked at again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// A file as it was at the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    look: Look,
    content: String,
}

/// The sources of one build.
pub(super) struct Sources {
    base: PathBuf,
    roots: Vec<PathBuf>,
    /// What builds write: the components of the app.
    components: Vec<PathBuf>,
    ignored: Ignored,
    files: BTreeMap<PathBuf, File>,
    /// What was in each when it was last built.
    built: BTreeMap<PathBuf, String>,
}

impl Sources {
    /// Sources that have been built as they are.
    pub(super) fn new<'a>(
        base: &Path,
        watch: impl IntoIterator<Item = &'a PathBuf>,
        components: Vec<PathBuf>,
    ) -> Result<Self, TooMany> {
        let watch = watch.into_iter();
        let mut sources = Self {
            base: base.to_owned(),
            roots: watch.map(|path| base.join(path)).collect(),
            components,
            ignored: Ignored::default(),
            files: BTreeMap::new(),
            built: BTreeMap::new(),
        };
        sources.look()?;
        sources.take_for_built();
        Ok(sources)
    }

    /// Whether there is anything to watch.
    pub(super) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Looks again. Says whether all is as at the look before: then nothing is half written.
    pub(super) fn look(&mut self) -> Result<bool, TooMany> {
        let base = fs::canonicalize(&self.base).unwrap_or_else(|_| self.base.clone());
        let components = self.components.iter().filter_map(|path| {
            let folder = fs::canonicalize(path.parent()?).ok()?;
            Some(folder.join(path.file_name()?))
        });
        let mut walk = Walk {
            components: components.collect(),
            ignored: &mut self.ignored,
            before: &self.files,
            found: BTreeMap::new(),
            entries: 0,
        };
        for root in &self.roots {
            // What is not there may come.
            if let Ok(root) = fs::canonicalize(root) {
                walk.root(&root, &base)?;
            }
        }
        let found = walk.found;
        let rests = found == self.files;
        self.files = found;
        Ok(rests)
    }

    /// Which files are other than when they were last built, there or gone.
    pub(super) fn changed(&self) -> BTreeSet<PathBuf> {
        let now = self.files.iter();
        let now = now.filter(|(path, file)| self.built.get(*path) != Some(&file.content));
        let gone = self.built.keys();
        let gone = gone.filter(|path| !self.files.contains_key(*path));
        now.map(|(path, _)| path).chain(gone).cloned().collect()
    }

    /// All is being built as it is.
    pub(super) fn take_for_built(&mut self) {
        let files = self.files.iter();
        let files = files.map(|(path, file)| (path.clone(), file.content.clone()));
        self.built = files.collect();
    }

    /// The file as people know it: relative to the spec, if it is below it.
    pub(super) fn shown(&self, path: &Path) -> String {
        let base = fs::canonicalize(&self.base).unwrap_or_default();
        let path = path.strip_prefix(base).unwrap_or(path);
        path.display().to_string()
    }
}

/// One walk through the sources.
struct Walk<'a> {
    components: BTreeSet<PathBuf>,
    ignored: &'a mut Ignored,
    before: &'a BTreeMap<PathBuf, File>,
    found: BTreeMap<PathBuf, File>,
    entries: usize,
}

impl Walk<'_> {
    /// What the spec names is watched whatever `.gitignore` says of itself.
    fn root(&mut self, root: &Path, base: &Path) -> Result<(), TooMany> {
        if !root.is_dir() {
            self.file(root);
            return Ok(());
        }
        let mut above = Vec::new();
        for folder in above_of(root, base) {
            above.extend(self.ignored.by(folder));
        }
        self.folder(root, &mut above, 0)
    }

    fn folder(
        &mut self,
        folder: &Path,
        above: &mut Vec<Arc<Gitignore>>,
        depth: usize,
    ) -> Result<(), TooMany> {
        // One that is gone or closed has nothing in it.
        let Ok(entries) = fs::read_dir(folder) else {
            return Ok(());
        };
        let depth_here = above.len();
        above.extend(self.ignored.by(folder));
        for entry in entries.flatten() {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(TooMany);
            }
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_string_lossy();
            // A link to a directory is not followed: it may lead to one above.
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_ignored(above, &path, is_dir) {
                continue;
            }
            if !is_dir && !is_of_an_editor(&name) && !self.components.contains(&path) {
                self.file(&path);
            }
            let is_of_tools = || LEFT_OUT.contains(&&*name) || path.join(CACHE_MARK).is_file();
            if is_dir && depth < MAX_DEPTH && !is_of_tools() && !self.components.contains(&path) {
                self.folder(&path, above, depth + 1)?;
            }
        }
        above.truncate(depth_here);
        Ok(())
    }

    fn file(&mut self, path: &Path) {
        // It may be gone by now, or be a link to nothing.
        let Some(found) = fs::metadata(path).ok().filter(|it| it.is_file()) else {
            return;
        };
        let look = Look::of(&found);
        let before = self.before.get(path).filter(|before| before.look == look);
        let content = match before {
            Some(before) => before.content.clone(),
            None if found.len() > MAX_HASHED_BYTES => format!("{look:?}"),
            None => match fs::read(path) {
                Ok(bytes) => Digest::of(&bytes).to_hex(),
                Err(_) => format!("{look:?}"),
            },
        };
        self.found.insert(path.to_owned(), File { look, content });
    }
}

/// The directories above, from the one of the repository on, or else from that of the spec.
fn above_of<'a>(root: &'a Path, base: &Path) -> Vec<&'a Path> {
    let above: Vec<_> = root.ancestors().skip(1).collect();
    let repository = above.iter().position(|folder| folder.join(".git").exists());
    let own = above.iter().position(|folder| *folder == base);
    let count = repository.or(own).map_or(0, |place| place + 1);
    above.into_iter().take(count).rev().collect()
}

/// Whether the nearest rule that speaks of it leaves it out.
fn is_ignored(above: &[Arc<Gitignore>], path: &Path, is_dir: bool) -> bool {
    let rules = above.iter().rev().map(|it| it.matched(path, is_dir));
    let mut rules = rules.filter(|rule| !rule.is_none());
    matches!(rules.next(), Some(Match::Ignore(_)))
}

/// What editors put beside a file while it is open or saved.
fn is_of_an_editor(name: &str) -> bool {
    let ends = ["~", ".swp", ".swo", ".swx", ".tmp"];
    let is_emacs = name.starts_with(".#") || (name.starts_with('#') && name.ends_with('#'));
    // The last is how vim finds out whether it may write to a directory.
    ends.iter().any(|end| name.ends_with(end)) || is_emacs || name == "4913"
}

/// What the files `.gitignore` say, each read again when it changes.
#[derive(Default)]
struct Ignored(HashMap<PathBuf, (Look, Arc<Gitignore>)>);

impl Ignored {
    /// What the one in this directory says, if there is one.
    fn by(&mut self, folder: &Path) -> Option<Arc<Gitignore>> {
        let path = folder.join(".gitignore");
        let look = Look::at(&path)?;
        if let Some((before, rules)) = self.0.get(&path)
            && *before == look
        {
            return Some(Arc::clone(rules));
        }
        // Rules that cannot be understood are left out, as git does.
        let (rules, _) = Gitignore::new(&path);
        let rules = Arc::new(rules);
        self.0.insert(path, (look, Arc::clone(&rules)));
        Some(rules)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new(files: &[&str]) -> Self {
            let place = Self(tempfile::tempdir().expect("a directory"));
            for path in files {
                place.write(path, path);
            }
            place
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.at(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }

        fn sources(&self, watch: &[&str]) -> Sources {
            let watch: Vec<_> = watch.iter().map(PathBuf::from).collect();
            let components = vec![self.at("src/web.wasm"), self.at("none/api.wasm")];
            Sources::new(self.0.path(), &watch, components).expect("few files")
        }
    }

    fn changed(sources: &mut Sources) -> Vec<String> {
        sources.look().expect("few files");
        let changed = sources.changed();
        changed.iter().map(|path| sources.shown(path)).collect()
    }

    #[test]
    fn sources_are_what_is_neither_made_nor_left_out() {
        let place = Place::new(&[
            "src/main.rs",
            "src/deep/er/lib.rs",
            "src/target/mod.rs",
            "Cargo.toml",
            "beside.rs",
        ]);
        place.write(".gitignore", "*.log\n/src/made/\n");
        place.write("src/deep/.gitignore", "!kept.log\n");
        fs::create_dir(place.at(".git")).expect("made");
        let mut sources = place.sources(&["src", "Cargo.toml", "later"]);
        let mut seen = |write: &str| {
            place.write(write, "x");
            let seen = changed(&mut sources);
            sources.take_for_built();
            seen
        };
        for source in [
            "src/main.rs",
            "src/deep/er/lib.rs",
            "src/target/mod.rs",
            "src/new.rs",
            "Cargo.toml",
            "src/deep/kept.log",
            "later/on.rs",
        ] {
            assert_eq!(seen(source), [source], "{source}");
        }
        for other in [
            "beside.rs",
            "src/a.log",
            "src/made/x.rs",
            "src/build/CACHEDIR.TAG",
            "src/build/x.rs",
            "src/node_modules/x/index.js",
            "src/.main.rs.swp",
            "src/main.rs~",
            "src/4913",
            "src/web.wasm",
        ] {
            assert!(seen(other).is_empty(), "{other}");
        }
    }

    #[test]
    fn a_source_counts_by_its_content() {
        let place = Place::new(&["src/a", "src/b"]);
        let mut sources = place.sources(&["src"]);
        place.write("src/a", "src/a");
        assert_eq!(sources.look(), Ok(false), "it was written");
        assert_eq!(sources.look(), Ok(true));
        assert!(sources.changed().is_empty());
        fs::remove_file(place.at("src/a")).expect("removed");
        assert_eq!(changed(&mut sources), ["src/a"]);
        place.write("src/c", "src/a");
        assert_eq!(changed(&mut sources), ["src/a", "src/c"]);
        sources.take_for_built();
        assert!(changed(&mut sources).is_empty());
    }

    #[test]
    fn a_named_directory_may_be_a_link_and_may_be_ignored() {
        let place = Place::new(&["one/a", "two/a", "one/same"]);
        place.write("two/same", "one/same");
        place.write(".gitignore", "gen\n");
        symlink("one", place.at("gen")).expect("a link");
        symlink("..", place.at("one/up")).expect("a link");
        let mut sources = place.sources(&["gen"]);
        place.write("one/a", "x");
        assert_eq!(changed(&mut sources), ["one/a"]);
        fs::remove_file(place.at("gen")).expect("removed");
        symlink("two", place.at("gen")).expect("a link");
        assert_eq!(changed(&mut sources).len(), 4);
    }

    #[test]
    fn there_is_an_end_to_what_is_looked_at() {
        let place = Place::new(&["src/a"]);
        let watch = [PathBuf::from("src")];
        for number in 0..MAX_ENTRIES {
            fs::hard_link(place.at("src/a"), place.at(&format!("src/{number}"))).expect("linked");
        }
        let sources = Sources::new(place.0.path(), &watch, Vec::new());
        assert_eq!(sources.err(), Some(TooMany));
    }
}
