//! Source lines of a guest's stack, from the debug information that its component carries.
//!
//! Nothing of this happens when an instance ends: a guest that traps at every request must not make
//! the host read megabytes. It happens when a report is read, from the file on disk, and may
//! block for a while.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, Read as _},
    ops::Range,
    sync::Arc,
};

use addr2line::{
    Context,
    gimli::{self, Dwarf, EndianSlice, LittleEndian},
};
use parking_lot::Mutex;
use sampan_core::{digest::Digest, escape};
use wasmparser::{Parser, Payload};

use crate::{
    admission::{adapt, inspect::MAX_COMPONENT_BYTES},
    report::{ComponentFile, Frame, Termination},
};

/// Debug information of a module that is looked at. Strangers write components, and a byte of
/// this becomes up to a hundred in memory.
const MAX_DEBUG_BYTES: usize = 16 << 20;
/// Places whose lines are remembered. When there are more, all are forgotten.
const MAX_PLACES: usize = 10_000;
/// Lines of functions that the compiler has put into one another, the innermost first.
const MAX_INLINED: usize = 3;
/// Bytes of a line's text.
const MAX_TEXT_BYTES: usize = 200;

/// A place in a component: bytes from its start.
type Place = (Digest, usize);

/// Finds the source lines of places in components, and remembers them.
#[derive(Debug, Default)]
pub struct Symbols(Mutex<HashMap<Place, Option<Arc<str>>>>);

impl Symbols {
    /// [`Termination::explain`], with source lines where the component carries them and is still
    /// the one that ran. Reads its file, so it may block.
    pub fn explain(&self, termination: &Termination) -> String {
        let evidence = termination.evidence.as_ref();
        let component = evidence.and_then(|it| it.component.as_deref());
        let (Some(evidence), Some(component)) = (evidence, component) else {
            return termination.explain();
        };
        termination.explain_with(&self.lines(component, &evidence.backtrace))
    }

    /// The source line of each frame.
    fn lines(&self, component: &ComponentFile, frames: &[Frame]) -> Vec<Option<Arc<str>>> {
        let digest = component.digest;
        // Held all the time: only one component is read at once.
        let mut known = self.0.lock();
        let new: BTreeSet<_> = frames
            .iter()
            .filter_map(|frame| frame.component_offset)
            .filter(|&offset| !known.contains_key(&(digest, offset)))
            .collect();
        if !new.is_empty() {
            if known.len() + new.len() > MAX_PLACES {
                known.clear();
            }
            let found = read(component).map(|bytes| resolve(&bytes, &new));
            let found = found.unwrap_or_else(|error| {
                tracing::debug!(path = %component.path.display(), %error, "no source lines");
                HashMap::new()
            });
            // What cannot be found now is not looked for again.
            let line = |offset| ((digest, offset), found.get(&offset).cloned());
            known.extend(new.into_iter().map(line));
        }
        let line = |frame: &Frame| known.get(&(digest, frame.component_offset?))?.clone();
        frames.iter().map(line).collect()
    }
}

/// Reads the file, if it is still what it was.
fn read(component: &ComponentFile) -> io::Result<Vec<u8>> {
    // Opening anything but a plain file may take for ever.
    if !std::fs::metadata(&component.path)?.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(&component.path)?;
    file.take(MAX_COMPONENT_BYTES as u64)
        .read_to_end(&mut bytes)?;
    let bytes = adapt::component(&bytes).map_err(io::Error::other)?;
    match Digest::of(&bytes) == component.digest {
        true => Ok(bytes.into_owned()),
        false => Err(io::Error::other("it is another component now")),
    }
}

/// A core module in a component.
#[derive(Default)]
struct Module<'a> {
    /// Where its functions are; what debug information says counts from there.
    code: Range<usize>,
    /// Its sections with debug information.
    sections: HashMap<&'a str, &'a [u8]>,
}

fn resolve(bytes: &[u8], offsets: &BTreeSet<usize>) -> HashMap<usize, Arc<str>> {
    let mut lines = HashMap::new();
    // It has been compiled, so it is well formed.
    for module in modules(bytes).unwrap_or_default() {
        let within: Vec<_> = offsets.range(module.code.clone()).copied().collect();
        let debug_bytes: usize = module.sections.values().map(|it| it.len()).sum();
        if within.is_empty() || debug_bytes == 0 || debug_bytes > MAX_DEBUG_BYTES {
            continue;
        }
        let section = |id: gimli::SectionId| {
            let data = module.sections.get(id.name()).copied().unwrap_or_default();
            Ok::<_, gimli::Error>(EndianSlice::new(data, LittleEndian))
        };
        let Ok(context) = Dwarf::load(section).and_then(Context::from_dwarf) else {
            continue;
        };
        for offset in within {
            let address = (offset - module.code.start) as u64;
            lines.extend(line(&context, address).map(|line| (offset, line.into())));
        }
    }
    lines
}

fn modules(bytes: &[u8]) -> wasmparser::Result<Vec<Module<'_>>> {
    let mut modules = Vec::new();
    // Those that are not at their end, components among them, which have no code.
    let mut open = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { .. } => open.push(Module::default()),
            Payload::End(_) => modules.extend(open.pop()),
            Payload::CodeSectionStart { range, .. } => {
                if let Some(module) = open.last_mut() {
                    module.code = range;
                }
            }
            Payload::CustomSection(section) if section.name().starts_with(".debug_") => {
                if let Some(module) = open.last_mut() {
                    module.sections.insert(section.name(), section.data());
                }
            }
            _ => {}
        }
    }
    Ok(modules)
}

/// `src/lib.rs:12`, and behind it the lines into which the compiler has put that one.
fn line(context: &Context<EndianSlice<'_, LittleEndian>>, address: u64) -> Option<String> {
    let mut frames = context.find_frames(address).skip_all_loads().ok()?;
    let mut lines = Vec::new();
    while let Ok(Some(frame)) = frames.next()
        && lines.len() < MAX_INLINED
    {
        if let Some(location) = frame.location
            && let (Some(file), Some(line)) = (location.file, location.line)
        {
            lines.push(format!("{}:{line}", shown(file)));
        }
    }
    (!lines.is_empty()).then(|| lines.join(" < "))
}

/// A path as it is shown. Its end says more than its beginning, and in the standard library's the
/// compiler's commit says nothing.
fn shown(file: &str) -> String {
    let library = file.strip_prefix("/rustc/");
    let library = library.and_then(|it| it.split_once('/'));
    let file = library.map_or(file, |(_, file)| file);
    let from = file.ceil_char_boundary(file.len().saturating_sub(MAX_TEXT_BYTES));
    escape::word(&file[from..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crash_loop() -> Vec<u8> {
        let dist = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workloads/dist");
        std::fs::read(dist.join("crash-loop.wasm")).expect("a built workload")
    }

    #[test]
    fn damaged_debug_information_costs_only_the_lines() {
        let bytes = crash_loop();
        let found = modules(&bytes).expect("well formed");
        let module = found.iter().find(|it| !it.sections.is_empty());
        let module = module.expect("one with debug information");
        let offsets: BTreeSet<_> = module.code.clone().step_by(97).collect();
        assert!(resolve(&bytes, &offsets).len() > offsets.len() / 2);
        let places: Vec<Range<usize>> = module
            .sections
            .values()
            .map(|section| {
                let start = section.as_ptr() as usize - bytes.as_ptr() as usize;
                start..start + section.len()
            })
            .collect();
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..50 {
            let mut damaged = bytes.clone();
            for _ in 0..random.usize(1..200) {
                let place = random.choice(&places).expect("there are some");
                damaged[random.usize(place.clone())] = random.u8(..);
            }
            resolve(&damaged, &offsets);
        }
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("component.wasm");
        std::fs::write(&path, crash_loop()).expect("written");
        let digest = Digest::of(&crash_loop());
        let component = ComponentFile { path, digest };
        let symbols = Symbols::default();
        let frame = |offset| Frame {
            function: "f".to_owned(),
            module: None,
            component_offset: Some(offset),
        };
        let known = || symbols.0.lock().len();
        let frames: Vec<_> = (0..MAX_PLACES).map(frame).collect();
        assert_eq!(symbols.lines(&component, &frames).len(), MAX_PLACES);
        assert_eq!(known(), MAX_PLACES);
        symbols.lines(&component, &[frame(MAX_PLACES)]);
        assert_eq!(known(), 1);
    }

    #[test]
    fn paths_are_shown_by_their_end() {
        assert_eq!(shown("/rustc/0123/library/core/x.rs"), "library/core/x.rs");
        assert_eq!(shown("a\x1b[2J.rs"), "a\\u{1b}[2J.rs");
        assert_eq!(shown(&format!("{}ü.rs", "é".repeat(500))).len(), 199);
    }
}
