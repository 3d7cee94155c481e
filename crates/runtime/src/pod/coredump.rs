//! Core dumps: what an instance held in its memories when it ended, in a file.
//!
//! A dump is made of the store itself, so the store goes with it to a thread that may block. No
//! answer waits for that. Whatever goes wrong is said in the report, and leaves no
//! file behind.

use std::{
    cell::Cell,
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use sampan_core::{fault::Fault, name::PodName, provoke, quantity::ByteSize, time::Utc};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::{Module, Store, ValType, WasmCoreDump};

use super::inner::PodInner;
use crate::{host::state::State, private, report::Coredump, runtime::MAX_DUMPS_AT_ONCE};

/// Dumps that are kept of a pod. The oldest make room for the newest.
const MAX_KEPT_OF_POD: usize = 3;
/// Dumps that are kept in a directory, of pods that are no more too.
const MAX_KEPT: usize = 30;
/// How the names of dumps end.
const SUFFIX: &str = ".coredump";
/// How the names of files begin that are being written.
const UNFINISHED: &str = ".new-";
/// Age from which a file counts as left behind by a writer that is gone.
const UNFINISHED_AGE: Duration = Duration::from_secs(3600);

thread_local! {
    /// Whether this thread is in the library that may panic.
    static IN_LIBRARY: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is one that is caught, and said in the report: the one exception
/// from that a panic ends the process.
pub fn expects_panic() -> bool {
    // A thread that is ending makes no core dump.
    IN_LIBRARY.try_with(Cell::get).unwrap_or(false)
}

/// A dump that is still to be made.
pub(super) struct Pending {
    outcome: Coredump,
    directory: PathBuf,
    pod: PodName,
    at: SystemTime,
    limit_bytes: u64,
    permit: OwnedSemaphorePermit,
}

/// Why there is no dump.
#[derive(Debug, thiserror::Error)]
enum Undumped {
    #[error("the instance was stopped while it waited, and of such a one there is none")]
    Waited,
    #[error("{held} of memory are more than the node's `coredump` limit of {limit}")]
    TooLarge { held: ByteSize, limit: ByteSize },
    #[error("{MAX_DUMPS_AT_ONCE} others were being written")]
    Busy,
    #[error("too many of the pod's instances end so")]
    TooMany,
    #[error("a component composed of several cannot be dumped")]
    Composed,
    #[error("a global of the type `{0}` cannot be dumped")]
    Global(String),
    #[error("dumping failed: {0}")]
    Panicked(String),
    #[error("`{0}` belongs to another user")]
    Foreign(PathBuf),
    #[error("cannot write to `{directory}`: {source}")]
    Io {
        directory: PathBuf,
        source: io::Error,
    },
}

/// Looks whether a dump of this instance is wanted, and possible so far. Without a second value
/// there is nothing left to do.
pub(super) fn consider(
    pod: &PodInner,
    store: Option<&Store<State>>,
    error: Option<&wasmtime::Error>,
    verdict: Fault,
) -> Option<(Coredump, Option<Pending>)> {
    let directory = pod.template.coredumps.as_deref()?;
    // Of an instance that could not be made there is nothing to dump, and one that did not do what
    // probes asked for is not stopped inside the guest.
    let stopped = [
        Fault::Trapped,
        Fault::OutOfMemory,
        Fault::Spinning,
        Fault::OutOfFuel,
        Fault::Deadlocked,
    ];
    let store = store.filter(|_| stopped.contains(&verdict))?;
    let outcome = Coredump::default();
    let pending = permit(pod, error, store).map(|permit| Pending {
        outcome: outcome.clone(),
        directory: directory.to_owned(),
        pod: pod.context.log.pod().clone(),
        at: SystemTime::now(),
        limit_bytes: pod.runtime.node.limits.coredump_bytes,
        permit,
    });
    let pending = pending.map_err(|reason| outcome.set(Err(reason.to_string())));
    Some((outcome, pending.ok()))
}

fn permit(
    pod: &PodInner,
    error: Option<&wasmtime::Error>,
    store: &Store<State>,
) -> Result<OwnedSemaphorePermit, Undumped> {
    let dump = error.and_then(|error| error.downcast_ref());
    let _: &WasmCoreDump = dump.ok_or(Undumped::Waited)?;
    let (held, _) = store.data().limiter.held();
    fits(held, pod.runtime.node.limits.coredump_bytes)?;
    let permit = Arc::clone(&pod.runtime.dumps).try_acquire_owned();
    let permit = permit.map_err(|_| Undumped::Busy)?;
    match pod.context.may_dump() {
        true => Ok(permit),
        false => Err(Undumped::TooMany),
    }
}

fn fits(held: u64, limit: u64) -> Result<(), Undumped> {
    let (held, limit) = (ByteSize(held), ByteSize(limit));
    (held <= limit)
        .then_some(())
        .ok_or(Undumped::TooLarge { held, limit })
}

impl Pending {
    /// Makes the dump on a thread of its own. The instance is over when its memories have been
    /// copied; `held` is what it holds until then.
    pub(super) fn make<H: Send + 'static>(
        self,
        store: Store<State>,
        error: Option<wasmtime::Error>,
        held: H,
    ) {
        tokio::task::spawn_blocking(move || {
            provoke::panic_in(provoke::Task::Coredump);
            let bytes = self.serialize(store, error.as_ref());
            drop(held);
            let name = file_name(&self.pod, self.at);
            let written = bytes.and_then(|bytes| {
                let io = |source| Undumped::Io {
                    directory: self.directory.clone(),
                    source,
                };
                open(&self.directory)?;
                let path = write(&self.directory, &name, &bytes).map_err(io)?;
                prune(&self.directory, &self.pod).map_err(io)?;
                Ok(path)
            });
            let (pod, path) = (&self.pod, self.directory.join(name));
            match &written {
                Ok(_) => tracing::warn!(%pod, path = %path.display(), "core dumped"),
                Err(error) => tracing::warn!(%pod, %error, "no core dump"),
            }
            self.outcome.set(written.map_err(|error| error.to_string()));
            drop(self.permit);
        });
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "wasmtime panics at what it does not expect of a component, and strangers write those"
    )]
    fn serialize(
        &self,
        mut store: Store<State>,
        error: Option<&wasmtime::Error>,
    ) -> Result<Vec<u8>, Undumped> {
        let dump = error.and_then(|error| error.downcast_ref::<WasmCoreDump>());
        let dump = dump.ok_or(Undumped::Waited)?;
        check(dump, &store)?;
        // The store is only read, and dropped right after.
        IN_LIBRARY.set(true);
        let serialized = catch_unwind(AssertUnwindSafe(|| {
            provoke::panic_in(provoke::Task::DumpWriter);
            dump.serialize(&mut store, self.pod.as_str())
        }));
        IN_LIBRARY.set(false);
        let bytes = serialized.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Undumped::Panicked(text.unwrap_or_else(|| "a panic".to_owned()))
        })?;
        fits(bytes.len() as u64, self.limit_bytes)?;
        Ok(bytes)
    }
}

/// Finds what wasmtime 48 is known to panic at: the flags that adapters between components share,
/// which are globals of no instance, and globals of types that it does not write.
fn check(dump: &WasmCoreDump, store: &Store<State>) -> Result<(), Undumped> {
    let is_adapter = |module: &Module| module.imports().any(|it| it.module() == "flags");
    let modules: Vec<_> = dump.instances().iter().map(|it| it.module(store)).collect();
    let stands_alone = |module: &Module| !modules.iter().any(|it| Module::same(it, module));
    if modules.iter().any(|&it| is_adapter(it))
        || dump.frames().iter().any(|it| stands_alone(it.module()))
    {
        return Err(Undumped::Composed);
    }
    let unknown = dump.globals().iter().find_map(|global| {
        let ty = global.ty(store);
        let ValType::Ref(ty) = ty.content() else {
            return None;
        };
        let top = ty.heap_type().top();
        let known = top.is_extern() || top.is_func() || top.is_any();
        (!known).then(|| ty.to_string())
    });
    unknown.map_or(Ok(()), |ty| Err(Undumped::Global(ty)))
}

/// `web-1-0.2026-02-28T23-59-59.250Z.coredump`: by their names, dumps of a pod are in the order of
/// time, and the name of a pod has no dot.
fn file_name(pod: &PodName, at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let time = Utc(since.unwrap_or_default()).to_string();
    format!("{pod}.{}{SUFFIX}", time.replace(':', "-"))
}

/// Makes the directory, readable by its owner alone: a dump holds what its guest was told.
fn open(directory: &Path) -> Result<(), Undumped> {
    let directory = directory.to_owned();
    match private::open(&directory) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Undumped::Foreign(directory)),
        Err(source) => Err(Undumped::Io { directory, source }),
    }
}

/// Writes a file: whole, or not at all.
fn write(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    builder.permissions(fs::Permissions::from_mode(0o600));
    let mut file = builder.tempfile_in(directory)?;
    file.write_all(bytes)?;
    let path = directory.join(name);
    file.persist_noclobber(&path)?;
    Ok(path)
}

/// Removes the oldest dumps of a pod, and of all pods together, and what processes left unfinished
/// that were ended while they wrote.
fn prune(directory: &Path, pod: &PodName) -> io::Result<()> {
    let mut dumps = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // A name that is no text is none of ours.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let is_dump = name.ends_with(SUFFIX);
        if !is_dump && !name.starts_with(UNFINISHED) {
            continue;
        }
        // Another process may remove it meanwhile.
        let Ok(modified) = entry.metadata().and_then(|it| it.modified()) else {
            continue;
        };
        if is_dump {
            dumps.push((modified, name));
        } else if modified.elapsed().is_ok_and(|age| age > UNFINISHED_AGE) {
            remove(&entry.path())?;
        }
    }
    // Of one moment, the name says which is newer.
    dumps.sort_unstable();
    let mut of_pod = 0;
    for (place, (_, name)) in dumps.iter().rev().enumerate() {
        let is_of_pod = name.split_once('.').is_some_and(|it| it.0 == pod.as_str());
        of_pod += usize::from(is_of_pod);
        if place >= MAX_KEPT || is_of_pod && of_pod > MAX_KEPT_OF_POD {
            remove(&directory.join(name))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use sampan_core::name::ServiceKey;

    use super::*;

    fn pod(slot: u32) -> PodName {
        PodName::new(&ServiceKey::parse("shop/web").expect("a key"), 1, slot)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("readable");
        let name = |it: io::Result<fs::DirEntry>| it.expect("readable").file_name().into_string();
        let mut names: Vec<_> = entries.map(|it| name(it).expect("text")).collect();
        names.sort();
        names
    }

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    /// A dump as if it had been written at its time.
    fn dump(directory: &Path, pod: &PodName, second: u64) {
        let path = write(directory, &file_name(pod, at(second)), b"dump").expect("written");
        let file = fs::File::options().write(true).open(path).expect("there");
        file.set_modified(at(second)).expect("a time");
    }

    #[test]
    fn the_last_few_of_a_pod_are_kept_and_others_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        dump(directory, &pod(10), 1);
        for second in 1..6 {
            dump(directory, &pod(1), second);
            prune(directory, &pod(1)).expect("pruned");
        }
        fs::write(directory.join("notes.txt"), "mine").expect("written");
        fs::write(directory.join(".new-live"), "half").expect("written");
        fs::write(directory.join(".new-dead"), "half").expect("written");
        let left = fs::File::options()
            .write(true)
            .open(directory.join(".new-dead"));
        left.expect("there").set_modified(at(0)).expect("a time");
        prune(directory, &pod(1)).expect("pruned");
        assert_eq!(
            names(directory),
            [
                ".new-live",
                "notes.txt",
                "web-1-1.1970-01-01T00-00-03.000Z.coredump",
                "web-1-1.1970-01-01T00-00-04.000Z.coredump",
                "web-1-1.1970-01-01T00-00-05.000Z.coredump",
                "web-1-10.1970-01-01T00-00-01.000Z.coredump",
            ]
        );
    }

    #[test]
    fn a_directory_holds_so_many_and_no_more() {
        let directory = tempfile::tempdir().expect("a directory");
        for slot in 0..40 {
            dump(directory.path(), &pod(slot), slot.into());
        }
        prune(directory.path(), &pod(39)).expect("pruned");
        let names = names(directory.path());
        assert_eq!(names.len(), MAX_KEPT);
        assert!(!names.iter().any(|it| it.starts_with("web-1-9.")));
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        let name = file_name(&pod(0), at(0));
        let path = write(directory, &name, b"first").expect("written");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        write(directory, &name, b"second").expect_err("it is there");
        assert_eq!(fs::read(&path).expect("there"), b"first");
        assert_eq!(names(directory), [name]);
        // A directory below a file cannot be made.
        let error = open(&path.join("below")).expect_err("no directory");
        assert!(error.to_string().contains("cannot write to `"), "{error}");
    }

    #[test]
    fn the_directory_is_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/coredumps");
        open(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("opened up");
        open(&path).expect("there");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o700);
    }
}
