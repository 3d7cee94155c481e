//! What a user edits while an app runs, for `up --watch`: sources, components and the spec.
//!
//! A changed source runs its build, one build at a time. While a build runs, the components that it
//! makes are left alone; when it has ended well they count at once, and when it has ended badly what
//! ran before goes on.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sampan_core::{name::Name, object::App};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
    time::{self, Interval, MissedTickBehavior, interval, sleep_until},
};

use super::{
    again::{Again, Verdict},
    printer::Printer,
    sources::{MAX_ENTRIES, Sources, TooMany},
    watch::{PERIOD, Watch, components},
};
use crate::cli::{
    build::{Build, Failure},
    interrupts::Interrupts,
    output::one_line,
};

/// The shortest time between two looks at sources.
const SOURCES_PERIOD: Duration = Duration::from_millis(100);
/// Of all time, looks at sources take at most one part in so many.
const SOURCES_SHARE: u32 = 50;

/// What is to be done about an edit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// Load the components of these again.
    Components(Vec<Name>),
    /// Read the spec again.
    Spec,
}

/// A build whose sources are watched.
struct Watched {
    build: Build,
    sources: Arc<Mutex<Sources>>,
    again: Again,
    /// Whether it was told that there are too many sources.
    is_given_up: bool,
}

/// A build that runs.
struct Current {
    command: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<(Build, Result<(), Failure>)>,
}

/// What a user may edit.
pub(super) struct Edits {
    base: PathBuf,
    printer: Printer,
    watch: Arc<Mutex<Watch>>,
    builds: Vec<Watched>,
    current: Option<Current>,
    looks: Interval,
    /// When sources are looked at again.
    sources_at: time::Instant,
}

impl Edits {
    /// Begins to watch the sources of an app. To be made before they are built, so that no change
    /// falls between.
    pub(super) fn new(app: &App, base: &Path, printer: &Printer) -> Self {
        let mut looks = interval(PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut edits = Self {
            base: base.to_owned(),
            printer: printer.clone(),
            watch: Arc::default(),
            builds: Vec::new(),
            current: None,
            looks,
            sources_at: time::Instant::now() + SOURCES_PERIOD,
        };
        edits.follow_sources(app);
        edits
    }

    /// Watches the components of an app and the texts that it is made from. To be called before
    /// they are loaded, so that no change falls between.
    pub(super) fn follow(&mut self, app: &App, texts: Vec<PathBuf>) {
        self.watch.lock().follow(app, &self.base, texts);
    }

    /// Watches the sources of an app as its spec is now. A build that is as it was goes on as it was.
    pub(super) fn follow_sources(&mut self, app: &App) {
        let paths: Vec<_> = components(app, &self.base).map(|(_, path)| path).collect();
        let mut before = std::mem::take(&mut self.builds);
        for build in Build::of(app) {
            if let Some(place) = before.iter().position(|it| it.build == build) {
                self.builds.push(before.swap_remove(place));
                continue;
            }
            match Sources::new(&self.base, &build.watch, paths.clone()) {
                Ok(sources) => self.builds.push(Watched {
                    build,
                    sources: Arc::new(Mutex::new(sources)),
                    again: Again::default(),
                    is_given_up: false,
                }),
                Err(TooMany) => too_many(&self.printer, &build),
            }
        }
    }

    /// Runs the builds of an app, or those of them whose components are not there. What changes in
    /// their sources meanwhile is seen afterwards.
    pub(super) async fn build(
        &mut self,
        app: &App,
        only_missing: bool,
        interrupts: &mut Interrupts,
    ) -> anyhow::Result<()> {
        let is_missing = |build: &Build| {
            let mut all = components(app, &self.base);
            all.any(|(name, path)| build.names.contains(&name) && !path.exists())
        };
        let builds = Build::of(app);
        let wanted = builds.iter().filter(|it| !only_missing || is_missing(it));
        for build in wanted.collect::<Vec<_>>() {
            if let Some(watched) = self.builds.iter_mut().find(|it| it.build == *build) {
                watched.again.begin(BTreeSet::new());
            }
            Build::all([build], &self.base, &self.printer, interrupts).await?;
            self.judge(build).await;
        }
        Ok(())
    }

    /// Waits for the next edit that something is to be done about.
    pub(super) async fn next(&mut self) -> Edit {
        loop {
            tokio::select! {
                ended = ended(&mut self.current) => {
                    if let Some(edit) = self.built(ended).await {
                        return edit;
                    }
                }
                _ = self.looks.tick() => {
                    if let Some(edit) = self.look().await {
                        return edit;
                    }
                }
                () = sleep_until(self.sources_at), if self.watches_sources() => {
                    self.look_at_sources().await;
                }
            }
        }
    }

    /// Ends the build that runs, if one does.
    pub(super) async fn stop(&mut self) {
        if let Some(current) = self.current.take() {
            // A build that has ended already needs no word.
            let _ = current.stop.send(());
            let _ = current.task.await;
        }
    }

    fn watches_sources(&self) -> bool {
        self.current.is_none() && !self.builds.is_empty()
    }

    /// A file may be on a disk or server that takes its time, so each look has a thread of its own.
    async fn look(&self) -> Option<Edit> {
        let building = self.current.as_ref().and_then(|current| {
            let mut builds = self.builds.iter();
            builds.find(|it| it.build.command == current.command)
        });
        let building = building.map(|it| it.build.names.iter().cloned().collect());
        let building: BTreeSet<Name> = building.unwrap_or_default();
        let watch = Arc::clone(&self.watch);
        let look = move || watch.lock().look(Instant::now(), &building);
        // It ends early only with the program.
        let changes = spawn_blocking(look).await.ok()?;
        match (changes.spec, changes.components) {
            (true, _) => Some(Edit::Spec),
            (false, names) if !names.is_empty() => Some(Edit::Components(names)),
            (false, _) => None,
        }
    }

    /// Begins the first build whose sources have changed and rest.
    async fn look_at_sources(&mut self) {
        let begun = Instant::now();
        for number in 0..self.builds.len() {
            let watched = &mut self.builds[number];
            let Some(rests) = looked(watched, &self.printer).await else {
                continue;
            };
            let changed = match rests {
                true => watched.sources.lock().changed(),
                false => continue,
            };
            if !changed.is_empty() {
                watched.sources.lock().take_for_built();
                watched.again.begin(changed);
                self.begin(number);
                break;
            }
        }
        let pause = SOURCES_PERIOD.max(begun.elapsed() * SOURCES_SHARE);
        self.sources_at = time::Instant::now() + pause;
    }

    fn begin(&mut self, number: usize) {
        let build = self.builds[number].build.clone();
        let (base, printer) = (self.base.clone(), self.printer.clone());
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // A sender that is gone means the same as a word from it.
            let _ = stopped.await;
        };
        self.current = Some(Current {
            command: build.command.clone(),
            stop,
            task: tokio::spawn(async move {
                let end = build.run(&base, &printer, stopped).await;
                (build, end)
            }),
        });
    }

    /// A build has ended. What it made is to be loaded, if it ended well.
    async fn built(&mut self, (build, end): (Build, Result<(), Failure>)) -> Option<Edit> {
        self.judge(&build).await;
        let names = self.watch.lock().settle(&build.names);
        match end {
            Ok(()) => Some(Edit::Components(names)),
            Err(failure) => {
                let told = format!("{}; what runs goes on", build.told(&failure));
                self.printer.own(build.name(), "BuildFailed", &told);
                None
            }
        }
    }

    /// Finds out whether what changed during a build asks for another one.
    async fn judge(&mut self, build: &Build) {
        let found = self.builds.iter_mut().find(|it| it.build == *build);
        let Some(watched) = found else {
            return;
        };
        looked(watched, &self.printer).await;
        let mut sources = watched.sources.lock();
        match watched.again.ended(sources.changed()) {
            Verdict::Build => {}
            Verdict::Rest => sources.take_for_built(),
            Verdict::Own(files) => {
                sources.take_for_built();
                let shown = files.iter().take(3).map(|path| sources.shown(path));
                let told = format!(
                    "the build writes what it watches ({}): that does not run it again from now on; \
                     `.gitignore` or a narrower `watch` can leave it out",
                    shown.collect::<Vec<_>>().join(", ")
                );
                self.printer
                    .own(build.name(), "BuildWatchesItself", &one_line(&told));
            }
        }
    }
}

/// Looks at the sources of a build. Says whether they rest; nothing where there are too many.
async fn looked(watched: &mut Watched, printer: &Printer) -> Option<bool> {
    let sources = Arc::clone(&watched.sources);
    let look = move || {
        let mut sources = sources.lock();
        match sources.is_empty() {
            true => Ok(true),
            false => sources.look(),
        }
    };
    match spawn_blocking(look).await.ok()? {
        Ok(rests) => {
            watched.is_given_up = false;
            Some(rests)
        }
        Err(TooMany) => {
            if !std::mem::replace(&mut watched.is_given_up, true) {
                too_many(printer, &watched.build);
            }
            None
        }
    }
}

fn too_many(printer: &Printer, build: &Build) {
    let told = format!(
        "`watch` leads to more than {MAX_ENTRIES} files, which are not watched: name the directories \
         of sources, or leave others out by `.gitignore`"
    );
    printer.own(build.name(), "TooManySources", &told);
}

/// The end of the build that runs, if one does.
async fn ended(current: &mut Option<Current>) -> (Build, Result<(), Failure>) {
    let Some(running) = current else {
        return std::future::pending().await;
    };
    let end = (&mut running.task).await;
    *current = None;
    match end {
        Ok(end) => end,
        // It ends early only with the program.
        Err(_) => std::future::pending().await,
    }
}
