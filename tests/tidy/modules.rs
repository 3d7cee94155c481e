//! The files of a crate and what each names of the others: the graph behind the layers.
//!
//! Read are the files that `mod` declarations reach from the crate's root, without what is under a
//! `#[cfg(test)]`. A path leads to the file that *defines* the name: through `use` and `pub use`,
//! so that a name which `lib.rs` re-exports counts for its own file. `mod a;` alone is no import,
//! and neither is a `pub use` of a name that its file does not use itself: it only shows the way.

use std::collections::{BTreeMap, BTreeSet};

use crate::lexer::{self, Kind, Token};
use crate::tree::Tree;

/// How many `use` declarations a name may lead through.
const MAX_HOPS: usize = 16;

/// The files of a crate and who names whom.
pub(crate) struct Graph {
    /// The folder of its sources: `src`, `crates/core/src`.
    pub(crate) folder: String,
    /// The files, relative to `folder`, in order.
    pub(crate) files: Vec<String>,
    /// From the file that names to the file that is named: the names.
    pub(crate) edges: BTreeMap<(usize, usize), BTreeSet<String>>,
}

/// A path that a module names.
struct Path<'a> {
    segments: Vec<&'a str>,
    /// What a `use` calls it here; `None` for a path in code.
    alias: Option<&'a str>,
    /// It is only named to be found here by others.
    is_shown: bool,
}

impl<'a> Path<'a> {
    fn new(segments: Vec<&'a str>, alias: Option<&'a str>) -> Self {
        Self {
            segments,
            alias,
            is_shown: false,
        }
    }
}

/// A module: a file, or one written inside a file.
struct Module<'a> {
    file: usize,
    paths: Vec<Path<'a>>,
}

/// The modules by their own path, without `crate`; the root's is empty.
type Modules<'a> = BTreeMap<Vec<&'a str>, Module<'a>>;

/// The graphs of `src/` and of every crate under `crates/`, in order.
pub(crate) fn graphs(tree: &Tree) -> Vec<Graph> {
    let mut roots: Vec<_> = tree
        .rust()
        .filter_map(|file| {
            let folder = file.path.strip_suffix("/main.rs");
            let folder = folder.or_else(|| file.path.strip_suffix("/lib.rs"))?;
            let of_crate = folder
                .strip_prefix("crates/")
                .and_then(|inside| inside.strip_suffix("/src"))
                .is_some_and(|name| !name.contains('/'));
            (folder == "src" || of_crate).then_some((folder, file.path.as_str()))
        })
        .collect();
    roots.sort_unstable();
    roots
        .into_iter()
        .map(|(folder, root)| graph(tree, folder, root))
        .collect()
}

fn graph(tree: &Tree, folder: &str, root: &str) -> Graph {
    let mut files = Vec::new();
    let mut modules = Modules::new();
    let mut ahead = vec![(Vec::new(), root.to_owned())];
    while let Some((module, path)) = ahead.pop() {
        let Some(file) = tree.file(&path) else {
            continue;
        };
        let mut reader = Reader {
            tokens: lexer::production(&file.tokens()),
            file: files.len(),
            module,
            modules: &mut modules,
            declared: Vec::new(),
        };
        reader.read();
        let below = reader.declared.into_iter().map(|module| {
            let path = format!("{folder}/{}.rs", module.join("/"));
            (module, path)
        });
        ahead.extend(below);
        files.push(path[folder.len() + 1..].to_owned());
    }
    let mut edges = BTreeMap::<_, BTreeSet<_>>::new();
    for (own, module) in &modules {
        for path in module.paths.iter().filter(|path| !path.is_shown) {
            if let Some((to, name)) = definition(&modules, own, &path.segments, MAX_HOPS)
                && to != module.file
            {
                let names = edges.entry((module.file, to)).or_default();
                names.insert(name.to_owned());
            }
        }
    }
    sorted(folder, &files, edges)
}

/// The graph with its files in the order of their names.
fn sorted(
    folder: &str,
    files: &[String],
    edges: BTreeMap<(usize, usize), BTreeSet<String>>,
) -> Graph {
    let mut order = files.to_vec();
    order.sort_unstable();
    let place = |file: usize| {
        order
            .binary_search(&files[file])
            .expect("a file of `files`")
    };
    let edges = edges
        .into_iter()
        .map(|((from, to), names)| ((place(from), place(to)), names))
        .collect();
    Graph {
        folder: folder.to_owned(),
        files: order.clone(),
        edges,
    }
}

/// The file that defines what `segments` says in the module `own`, and its name there.
fn definition<'a>(
    modules: &Modules<'a>,
    own: &[&'a str],
    segments: &[&'a str],
    hops: usize,
) -> Option<(usize, &'a str)> {
    let mut at = own.to_vec();
    let mut rest = segments;
    let mut inside = false;
    while let Some((&first, after)) = rest.split_first() {
        match first {
            "crate" => at.clear(),
            "super" => {
                at.pop()?;
            }
            "self" => {}
            _ => break,
        }
        inside = true;
        rest = after;
    }
    let mut name = *at.last().unwrap_or(&"crate");
    while let Some((&first, after)) = rest.split_first() {
        name = first;
        at.push(first);
        if modules.contains_key(&at) {
            inside = true;
            rest = after;
            continue;
        }
        at.pop();
        let module = modules.get(&at)?;
        let mut used = module.paths.iter().filter(|path| path.alias == Some(first));
        if let Some(path) = used.next() {
            let whole = [&path.segments, after].concat();
            return definition(modules, &at, &whole, hops.checked_sub(1)?);
        }
        // What is neither a module nor imported is defined here, or is the name of another crate.
        break;
    }
    let module = modules.get(&at)?;
    inside.then_some((module.file, name))
}

/// Reads one file: the modules in it, with the paths that they name.
struct Reader<'a, 'm> {
    tokens: Vec<Token<'a>>,
    file: usize,
    /// The module that the reader is in.
    module: Vec<&'a str>,
    modules: &'m mut Modules<'a>,
    /// Modules that have a file of their own.
    declared: Vec<Vec<&'a str>>,
}

impl<'a> Reader<'a, '_> {
    fn read(&mut self) {
        self.modules.insert(
            self.module.clone(),
            Module {
                file: self.file,
                paths: Vec::new(),
            },
        );
        self.read_items(0, self.tokens.len());
    }

    /// Reads the tokens from `at` to `end`, which are of the module that the reader is in.
    fn read_items(&mut self, mut at: usize, end: usize) {
        while at < end {
            at = self.read_one(at);
        }
    }

    /// Reads what begins at `at`, and returns the index after it.
    fn read_one(&mut self, at: usize) -> usize {
        let token = self.tokens[at];
        let next = self.tokens.get(at + 1).copied();
        let after_next = self.tokens.get(at + 2).copied();
        let is = |token: Option<Token<'_>>, text| token.is_some_and(|token| token.is(text));
        if token.kind != Kind::Word {
            // `::name` is a crate of others.
            at + if token.is("::") { 2 } else { 1 }
        } else if token.is("pub") && is(next, "(") {
            lexer::after_group(&self.tokens, at + 1)
        } else if token.is("mod") && is(after_next, ";") {
            self.declared.push(self.below(next));
            at + 3
        } else if token.is("mod") && is(after_next, "{") {
            self.read_inline(at + 2)
        } else if token.is("use") && !is(next, "<") {
            let mut paths = Vec::new();
            let end = use_tree(&self.tokens, at + 1, &[], &mut paths);
            if at > 0 && (self.tokens[at - 1].is("pub") || self.tokens[at - 1].is(")")) {
                for path in &mut paths {
                    path.is_shown = path.alias.is_some_and(|alias| !self.uses(alias, at..end));
                }
            }
            self.keep(paths);
            end
        } else if is(next, "::") {
            self.read_path(at)
        } else {
            at + 1
        }
    }

    /// Whether the file has this name outside of its declaration.
    fn uses(&self, name: &str, declaration: std::ops::Range<usize>) -> bool {
        let is_own = |at: usize| {
            let before = at.checked_sub(1).map(|at| self.tokens[at]);
            !before.is_some_and(|token| token.is(".") || token.is("mod"))
        };
        let mut places = (0..self.tokens.len()).filter(|at| self.tokens[*at].is(name));
        places.any(|at| !declaration.contains(&at) && is_own(at))
    }

    fn below(&self, name: Option<Token<'a>>) -> Vec<&'a str> {
        let name = name.map(|token| token.text);
        self.module.iter().copied().chain(name).collect()
    }

    /// A module whose braces open at `open`.
    fn read_inline(&mut self, open: usize) -> usize {
        let end = lexer::after_group(&self.tokens, open);
        let inner = self.below(self.tokens.get(open - 1).copied());
        let outer = std::mem::replace(&mut self.module, inner);
        let file = self.file;
        let paths = Vec::new();
        self.modules
            .insert(self.module.clone(), Module { file, paths });
        self.read_items(open + 1, end - 1);
        self.module = outer;
        end
    }

    /// A path in code: `a::b::c`. A method (`.collect::<A>()`) is none.
    fn read_path(&mut self, at: usize) -> usize {
        let mut segments = vec![self.tokens[at].text];
        let mut end = at + 1;
        while let [separator, name, ..] = self.tokens[end..]
            && separator.is("::")
            && name.kind == Kind::Word
        {
            segments.push(name.text);
            end += 2;
        }
        if at == 0 || !self.tokens[at - 1].is(".") {
            self.keep(vec![Path::new(segments, None)]);
        }
        end
    }

    fn keep(&mut self, paths: Vec<Path<'a>>) {
        let module = self.modules.get_mut(&self.module);
        module.expect("the module is read").paths.extend(paths);
    }
}

/// The leaves of the use tree at `at`, below `prefix`; returns the index after the tree.
fn use_tree<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &[&'a str],
    found: &mut Vec<Path<'a>>,
) -> usize {
    let mut segments = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        at += 1;
        if token.is("{") {
            let end = lexer::after_group(tokens, at - 1);
            while at + 1 < end {
                at = use_tree(tokens, at, &segments, found);
                at += usize::from(tokens.get(at).is_some_and(|token| token.is(",")));
            }
            return end;
        } else if token.is("::") {
            if segments.is_empty() {
                segments.push("::");
            }
        } else if token.is("*") {
            found.push(Path::new(segments, Some("*")));
            return at;
        } else if token.is("self") && !segments.is_empty() {
            // `a::{self}` is `a`.
        } else {
            segments.push(token.text);
        }
        let [next, name, ..] = tokens[at.min(tokens.len())..] else {
            break;
        };
        if next.is("as") {
            found.push(Path::new(segments, Some(name.text)));
            return at + 2;
        }
        if !next.is("::") && !token.is("::") {
            break;
        }
    }
    let alias = segments.last().copied();
    found.push(Path::new(segments, alias));
    at
}
