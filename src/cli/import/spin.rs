//! A manifest of Spin, version 2, as a spec.

use sampan_core::{name::Name, spec};

use super::{
    draft::{Draft, Table, Toml},
    node::{Entry, Node, Value},
    source::{Source, name, top},
    variables,
};

/// A component of the manifest.
struct Component<'a> {
    entry: Entry,
    name: Name,
    triggers: Vec<(&'a str, &'a Node)>,
}

struct Spin<'a> {
    source: &'a Source,
    root: &'a Node,
    components: Vec<Component<'a>>,
    draft: Draft,
    /// Routes that a service has already.
    routes: Vec<String>,
}

pub(super) fn draft(root: &Node, source: &Source, app: &Name) -> anyhow::Result<Draft> {
    let version = root.text_of("spin_manifest_version");
    anyhow::ensure!(
        version == Some("2"),
        "it has no `spin_manifest_version = 2`: `spin doctor` makes a manifest of version 2 of an \
         older one"
    );
    let application = root.get("application");
    let named = application.and_then(|it| it.text_of("name"));
    let named = named.and_then(crate::cli::names::named);
    let mut spin = Spin {
        source,
        root,
        components: components(root),
        draft: Draft::default(),
        routes: Vec::new(),
    };
    anyhow::ensure!(!spin.components.is_empty(), "there are no components in it");
    let mut first = top(source, named.as_ref().unwrap_or(app));
    spin.top_level(&mut first);
    spin.draft.add(first);
    for number in 0..spin.components.len() {
        spin.component(number);
    }
    Ok(spin.draft)
}

/// The components, with the triggers of each. One may stand inside its trigger.
fn components(root: &Node) -> Vec<Component<'_>> {
    let declared = root.get("component").map(Node::entries).unwrap_or_default();
    let mut found: Vec<(Entry, Vec<(&str, &Node)>)> = Vec::new();
    for entry in declared {
        found.push((entry.clone(), Vec::new()));
    }
    for sort in root.get("trigger").map(Node::entries).unwrap_or_default() {
        for trigger in sort.node.items() {
            let component = trigger.get("component");
            let Some(component) = component else {
                continue;
            };
            let id = component.text().map(str::to_owned);
            let inline = || {
                trigger
                    .text_of("id")
                    .map_or_else(|| format!("{}-{}", sort.key, trigger.line), str::to_owned)
            };
            let id = id.unwrap_or_else(inline);
            let place = found.iter().position(|(entry, _)| entry.key == id);
            let place = place.unwrap_or_else(|| {
                found.push((
                    Entry {
                        key: id,
                        line: component.line,
                        node: component.clone(),
                    },
                    Vec::new(),
                ));
                found.len() - 1
            });
            found[place].1.push((&sort.key, trigger));
        }
    }
    let mut taken = Vec::new();
    let named = found.into_iter().map(|(entry, triggers)| Component {
        name: name(&entry.key, &mut taken).0,
        entry,
        triggers,
    });
    named.collect()
}

impl Spin<'_> {
    fn top_level(&mut self, table: &mut Table) {
        for entry in self.root.entries() {
            match &*entry.key {
                "spin_manifest_version" | "component" | "trigger" | "variables" => {}
                "application" => {
                    for entry in entry.node.entries() {
                        let why = match &*entry.key {
                            "name" | "trigger" => continue,
                            "version" | "description" | "authors" => {
                                table.comment(format!("{}: {}", entry.key, entry.node.shown()));
                                continue;
                            }
                            _ => "there is nothing like it here",
                        };
                        let what = format!("`application.{}`", entry.key);
                        self.draft.note(table, entry.line, &what, why);
                    }
                }
                key => {
                    let what = format!("`{key}`");
                    let why = "there is nothing like it here";
                    self.draft.note(table, entry.line, &what, why);
                }
            }
        }
    }

    /// A variable of the application: from the environment, as Spin takes it there, or its default.
    fn variable(&self, name: &str) -> String {
        let declared = self.root.get("variables").and_then(|it| it.get(name));
        let default = declared.and_then(|it| it.text_of("default"));
        let name = format!("SPIN_VARIABLE_{}", name.to_ascii_uppercase());
        match default {
            Some(default) if !default.contains('}') => {
                format!("${{{name}:-{}}}", variables::plain(default))
            }
            Some(_) | None => format!("${{{name}}}"),
        }
    }

    fn filled(&self, text: &str) -> String {
        variables::spin(text, &|name| self.variable(name))
    }

    fn component(&mut self, number: usize) {
        let Component { entry, name, .. } = &self.components[number];
        let (entry, name) = (entry.clone(), name.clone());
        let triggers = std::mem::take(&mut self.components[number].triggers);
        let schedule = triggers.iter().find(|(sort, _)| *sort == "cron");
        let schedule = schedule.and_then(|(_, trigger)| trigger.get("cron_expression"));
        let kind = if schedule.is_some() { "job" } else { "service" };
        let header = format!("{kind}.{name}");
        let mut main = Table::new(header.clone());
        if name.as_str() != entry.key {
            let what = format!("component `{}`", entry.key);
            let why = format!("a name here has `a-z`, `0-9` and `-`: it is `{name}`");
            self.draft.note(&mut main, entry.line, &what, &why);
        }
        self.file(&entry.node, &name, &mut main);
        self.build(&entry.node, &mut main);
        match schedule {
            Some(schedule) => self.schedule(schedule, &mut main),
            None => self.triggers(&triggers, &mut main),
        }
        let mut tables = Tables {
            env: Table::new(format!("{header}.env")),
            config: Table::new(format!("{header}.config")),
            allow: Table::new(format!("{header}.allow")),
            files: Vec::new(),
        };
        for key in entry.node.entries() {
            self.key(key, &mut main, &mut tables);
        }
        let own = [main, tables.env, tables.config, tables.allow];
        for table in own.into_iter().chain(tables.files) {
            self.draft.add(table);
        }
    }

    /// Where the component is.
    fn file(&mut self, node: &Node, name: &Name, main: &mut Table) {
        let source = node.get("source");
        if let Some(path) = source.and_then(Node::text) {
            main.key("component", self.source.path(path));
            return;
        }
        let file = self.source.path(&format!("{name}.wasm"));
        if let Some(source) = source {
            let (what, get) = match source.text_of("url") {
                Some(url) => (
                    format!("`source` at {url}"),
                    format!("`curl -L -o {file} {url}`"),
                ),
                None => (
                    format!("`source` of {}", source.shown()),
                    "`wkg get` of the package".to_owned(),
                ),
            };
            let why = format!("a spec names a file: {get} brings it");
            self.draft.note(main, source.line, &what, &why);
        }
        main.key("component", file);
        if let Some(digest) = source.and_then(|it| it.text_of("digest")) {
            main.key("digest", digest);
        }
    }

    fn build(&mut self, node: &Node, main: &mut Table) {
        let Some(build) = node.get("build") else {
            return;
        };
        let commands: Vec<_> = build
            .get("command")
            .map(Node::texts)
            .into_iter()
            .flatten()
            .collect();
        let folder = build.text_of("workdir").map(|it| self.source.path(it));
        let folder =
            folder.or_else(|| Some(self.source.prefix.clone()).filter(|it| !it.is_empty()));
        if commands.is_empty() {
            return;
        }
        let mut command = variables::plain(&commands.join(" && "));
        if let Some(folder) = &folder {
            command = format!("cd {folder} && {command}");
        }
        main.key("build", command);
        let mut watch: Vec<String> = Vec::new();
        for glob in build.get("watch").map(Node::texts).into_iter().flatten() {
            let path = before_pattern(glob);
            let path = match (&folder, path) {
                (Some(folder), "") => folder.clone(),
                (Some(folder), path) => format!("{folder}/{path}"),
                (None, "") => ".".to_owned(),
                (None, path) => path.to_owned(),
            };
            if !watch.contains(&path) {
                watch.push(path);
            }
        }
        if !watch.is_empty() {
            main.key("watch", Toml::texts(watch));
        }
    }

    fn schedule(&mut self, schedule: &Node, main: &mut Table) {
        let text = schedule.text().unwrap_or_default();
        let fields: Vec<_> = text.split_whitespace().collect();
        let five = match fields.as_slice() {
            ["0", five @ ..] if five.len() >= 5 => five[..5].join(" "),
            five => five.join(" "),
        };
        let what = format!("trigger `cron` of `{text}`");
        let why = "a job runs a component that exports `wasi:cli/run`, and a schedule has minutes and no \
                   seconds";
        self.draft.note(main, schedule.line, &what, why);
        main.key("schedule", five);
    }

    fn triggers(&mut self, triggers: &[(&str, &Node)], main: &mut Table) {
        let mut routes = Vec::new();
        for (sort, trigger) in triggers {
            if *sort != "http" {
                let what = format!("trigger `{sort}` of {}", trigger.shown());
                let why = "a service answers requests by HTTP: nothing else starts one";
                self.draft.note(main, trigger.line, &what, why);
                continue;
            }
            for entry in trigger.entries() {
                match &*entry.key {
                    "id" | "component" => {}
                    "route" => self.route(&entry.node, &mut routes, main),
                    key => {
                        let what = format!("`{key}` of the trigger");
                        let why = "a component exports `wasi:http/incoming-handler` or its counterpart \
                                   in WASI 0.3";
                        self.draft.note(main, entry.line, &what, why);
                    }
                }
            }
        }
        if triggers.is_empty() {
            main.comment(
                "nothing in the manifest starts it: other services may call it by its name",
            );
        }
        if !routes.is_empty() {
            main.key("route", Toml::texts(routes));
        }
    }

    fn route(&mut self, node: &Node, routes: &mut Vec<String>, main: &mut Table) {
        // `{ private = true }`: other components call it.
        let Some(text) = node.text() else {
            return;
        };
        let base = self
            .root
            .get("application")
            .and_then(|it| it.get("trigger"));
        let base = base
            .and_then(|it| it.get("http"))
            .and_then(|it| it.text_of("base"));
        let base = base.unwrap_or_default().trim_end_matches('/');
        let mut prefix = String::new();
        let mut is_exact = true;
        for segment in text.split('/').filter(|it| !it.is_empty()) {
            if segment == "..." || segment.starts_with(':') {
                let is_parameter = segment != "...";
                is_exact = false;
                if is_parameter {
                    let why =
                        "nothing in a route is a pattern: it begins with what comes before it";
                    self.draft
                        .note(main, node.line, &format!("route `{text}`"), why);
                }
                break;
            }
            prefix.push('/');
            prefix.push_str(segment);
        }
        let route = match format!("{base}{prefix}") {
            route if route.is_empty() => "/".to_owned(),
            route => route,
        };
        if is_exact {
            main.comment(format!(
                "line {}: route `{text}` was this path alone, and is now all below it too",
                node.line
            ));
        }
        if self.routes.contains(&route) {
            let why = "another service has that route already";
            self.draft
                .note(main, node.line, &format!("route `{text}`"), why);
            return;
        }
        self.routes.push(route.clone());
        routes.push(route);
    }

    fn key(&mut self, entry: &Entry, main: &mut Table, tables: &mut Tables) {
        let node = &entry.node;
        match &*entry.key {
            "source" | "build" | "description" => {}
            "environment" => {
                for entry in node.entries() {
                    let text = entry.node.text().unwrap_or_default();
                    tables.env.key(&entry.key, variables::plain(text));
                }
            }
            "variables" => {
                for entry in node.entries() {
                    let text = entry.node.text().unwrap_or_default();
                    tables.config.key(&entry.key, self.filled(text));
                }
                let why =
                    "the guest reads them by `wasi:config`, and not by an interface of Spin's";
                self.draft
                    .note(&mut tables.config, entry.line, "`variables`", why);
            }
            "allowed_outbound_hosts" => self.outbound(node, &mut tables.allow),
            "key_value_stores" => {
                let stores: Vec<_> = node
                    .texts()
                    .map(|store| (store, crate::cli::names::named(store)))
                    .collect();
                let why =
                    "the guest opens it by `wasi:keyvalue`, and not by an interface of Spin's";
                self.draft
                    .note(&mut tables.allow, entry.line, "`key_value_stores`", why);
                let stores = stores.into_iter().map(|(store, name)| {
                    name.map_or_else(|| store.to_owned(), |it| it.to_string())
                });
                tables.allow.key("keyvalue", Toml::texts(stores));
            }
            "files" => self.files(node, tables),
            key => {
                let why = match key {
                    "sqlite_databases" => {
                        "a guest that brings SQLite keeps its database on a volume: `allow.files`"
                    }
                    "ai_models" => {
                        "no model runs here: a guest calls a server of one by `allow.outbound`"
                    }
                    "dependencies" | "dependencies_inherit_configuration" => {
                        "components are joined before: `wac plug` makes one of several"
                    }
                    "exclude_files" => "a directory is lent whole",
                    "tool" => "it is for tools of Spin's",
                    _ => "there is nothing like it here",
                };
                self.draft.note(main, entry.line, &format!("`{key}`"), why);
            }
        }
    }

    fn outbound(&mut self, node: &Node, allow: &mut Table) {
        let (mut hosts, mut services) = (Vec::new(), Vec::new());
        for item in node.items() {
            let text = item.text().unwrap_or_default();
            let what = format!("outbound host `{text}`");
            let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
            let host = rest.split(['/', ':']).next().unwrap_or_default();
            if host == "self" || host.ends_with(".spin.internal") {
                let id = host.trim_end_matches(".spin.internal");
                let found = self.components.iter().find(|it| it.entry.key == id);
                match found {
                    Some(found) => services.push(found.name.to_string()),
                    None => {
                        let why = "`allow.services` names the services that it calls, each as http://NAME/";
                        self.draft.note(allow, item.line, &what, why);
                    }
                }
                continue;
            }
            let usual = match scheme {
                "http" | "https" => None,
                "postgres" | "postgresql" => Some("5432"),
                "mysql" => Some("3306"),
                "redis" | "rediss" => Some("6379"),
                "mqtt" | "mqtts" => Some("1883"),
                _ => {
                    let why =
                        "a server is named with `http://`, `https://` or `tcp://` and its port";
                    self.draft.note(allow, item.line, &what, why);
                    continue;
                }
            };
            let rest = self.filled(rest.trim_end_matches('/'));
            let host = match usual {
                None => format!("{scheme}://{rest}"),
                Some(port) if !rest.contains(':') => format!("tcp://{rest}:{port}"),
                Some(_) => format!("tcp://{rest}"),
            };
            match spec::server(&host) {
                Err(why) if !host.contains('$') => self.draft.note(allow, item.line, &what, &why),
                Ok(_) | Err(_) => {
                    if usual.is_some() {
                        let why = "the guest speaks to it by `wasi:sockets`, and not by an interface \
                                   of Spin's";
                        self.draft.note(allow, item.line, &what, why);
                    }
                    hosts.push(host);
                }
            }
        }
        for (key, texts) in [("services", services), ("outbound", hosts)] {
            if !texts.is_empty() {
                allow.key(key, Toml::texts(texts));
            }
        }
    }

    fn files(&mut self, node: &Node, tables: &mut Tables) {
        for item in node.items() {
            let what = format!("files `{}`", item.shown());
            let (source, destination) = match &item.value {
                Value::Map(_) => (item.text_of("source"), item.text_of("destination")),
                Value::Text(_) | Value::Null | Value::List(_) => (item.text(), None),
            };
            let source = source.unwrap_or_default().trim_end_matches('/');
            let folder = before_pattern(source);
            if folder.is_empty() || self.source.base.join(folder).is_file() {
                let why = "a guest is lent directories: put the files into one";
                self.draft.note(&mut tables.allow, item.line, &what, why);
                continue;
            }
            let mut table = Table::entry(tables.allow.below("files"));
            if folder != source {
                let line = item.line;
                table.comment(format!("line {line}: {what}: the directory is lent whole"));
            }
            let guest = destination.map_or_else(|| format!("/{folder}"), str::to_owned);
            table.key("host", self.source.path(folder));
            table.key("guest", guest);
            tables.files.push(table);
        }
    }
}

/// The tables below that of a component.
struct Tables {
    env: Table,
    config: Table,
    allow: Table,
    /// Of `allow.files`.
    files: Vec<Table>,
}

/// The directories of a path before the first with a pattern in it.
fn before_pattern(glob: &str) -> &str {
    match glob.find(['*', '?', '[', '{']) {
        Some(at) => glob[..at].rfind('/').map_or("", |slash| &glob[..slash]),
        None => glob,
    }
}

#[cfg(test)]
mod tests {
    use super::before_pattern;

    #[test]
    fn a_pattern_leaves_the_directories_before_it() {
        for (glob, wanted) in [
            ("src/**/*.rs", "src"),
            ("a/b/*.rs", "a/b"),
            ("**/*", ""),
            ("Cargo.toml", "Cargo.toml"),
            ("static", "static"),
        ] {
            assert_eq!(before_pattern(glob), wanted, "{glob}");
        }
    }
}
