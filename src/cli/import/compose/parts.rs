//! One service of a Compose file as a service or job of a spec.

use super::{
    Compose, Role, list, reasons,
    values::{Mount, asked_path, size},
};
use crate::cli::import::{
    draft::{Table, Toml},
    node::{Entry, Node},
    variables,
};

/// The tables that a service becomes.
pub(super) struct Part {
    is_job: bool,
    pub(super) main: Table,
    env: Table,
    pub(super) allow: Table,
    limits: Table,
    readiness: Table,
    restart: Table,
    rollout: Table,
    /// Of `allow`.
    services: Vec<String>,
    outbound: Vec<String>,
    pub(super) files: Vec<Table>,
}

impl Part {
    fn new(header: String, is_job: bool) -> Self {
        let table = |name: &str| Table::new(format!("{header}.{name}"));
        Self {
            main: Table::new(header.clone()),
            env: table("env"),
            allow: table("allow"),
            limits: table("limits"),
            readiness: table("readiness"),
            restart: table("restart"),
            rollout: table("rollout"),
            is_job,
            services: Vec::new(),
            outbound: Vec::new(),
            files: Vec::new(),
        }
    }
}

impl Compose<'_> {
    pub(super) fn part(&mut self, number: usize) {
        let planned = &self.planned[number];
        let (entry, name) = (planned.entry, planned.name.clone());
        let is_job = matches!(planned.role, Role::Job);
        let is_renamed = planned.is_renamed;
        let kind = if is_job { "job" } else { "service" };
        let mut part = Part::new(format!("{kind}.{name}"), is_job);
        if is_renamed {
            let why = format!("a name here has `a-z`, `0-9` and `-`: it is `{name}`");
            let what = format!("service `{}`", entry.key);
            self.draft.note(&mut part.main, entry.line, &what, &why);
        }
        self.component(&entry.node, name.as_str(), &mut part);
        if let Some(route) = self.route(number).filter(|_| !is_job) {
            part.main.key("route", Toml::texts([route]));
        }
        for key in entry.node.entries() {
            self.key(key, &mut part);
        }
        self.calls(number, &mut part);
        list(&mut part.allow, "services", part.services);
        list(&mut part.allow, "outbound", part.outbound);
        let files = part.files;
        for table in [
            part.main,
            part.env,
            part.allow,
            part.limits,
            part.readiness,
            part.restart,
            part.rollout,
        ] {
            self.draft.add(table);
        }
        files.into_iter().for_each(|table| self.draft.add(table));
    }

    /// Where the component is to be, and what it is to be built from.
    fn component(&mut self, node: &Node, name: &str, part: &mut Part) {
        let build = node.get("build");
        let context = build.and_then(|it| it.text().or_else(|| it.text_of("context")));
        let context = context.map(|it| variables::compose(it).0);
        let context = context.filter(|it| !it.contains("://"));
        let folder = context.unwrap_or_default();
        let folder = self.source.path(folder.trim_end_matches('/'));
        let folder = if folder == "." { String::new() } else { folder };
        let (line, what) = match (build, node.get("image")) {
            (Some(build), _) => (build.line, "`build`".to_owned()),
            (None, Some(image)) => (image.line, format!("image `{}`", image.shown())),
            (None, None) => (node.line, "it has no image".to_owned()),
        };
        let why = "a container is no component: build one of the same source, and say how with `build = \
                   \"…\"` and `watch = [\"…\"]`";
        self.draft.note(&mut part.main, line, &what, why);
        let path = match &*folder {
            "" => format!("{name}.wasm"),
            folder => format!("{folder}/{name}.wasm"),
        };
        part.main.key("component", path);
    }

    fn key(&mut self, entry: &Entry, part: &mut Part) {
        let node = &entry.node;
        match &*entry.key {
            "build" | "image" | "links" | "expose" => {}
            key if key.starts_with("x-") => {}
            "ports" => self.tell_ports(node, &mut part.main),
            "environment" => self.environment(node, part),
            "env_file" => self.env_files(node, part),
            "depends_on" => self.depends_on(node, part),
            "volumes" => self.mounts(node, part),
            "secrets" => self.secrets(node, part),
            "profiles" => {
                let profiles = node.texts().map(str::to_owned);
                part.main.key("profiles", Toml::texts(profiles));
            }
            "healthcheck" => self.health(entry, part),
            "restart" => self.restart(entry, part),
            "scale" => self.replicas(entry, part),
            "deploy" => self.deploy(node, part),
            "mem_limit" => self.memory(entry, part),
            "cpus" => self.cpus(entry, part),
            "stop_grace_period" if !part.is_job => {
                part.rollout.key("drain", node.text().unwrap_or_default());
            }
            key => self.left_out(entry, &format!("`{key}`"), reasons::why(key), part),
        }
    }

    fn left_out(&mut self, entry: &Entry, what: &str, why: &str, part: &mut Part) {
        self.draft.note(&mut part.main, entry.line, what, why);
    }

    fn environment(&mut self, node: &Node, part: &mut Part) {
        let listed = node.texts().map(|text| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned()), node.line),
            None => (text.to_owned(), None, node.line),
        });
        let mapped = node.entries().iter().map(|entry| {
            let value = entry.node.text().map(str::to_owned);
            (entry.key.clone(), value, entry.line)
        });
        for (name, value, line) in listed.chain(mapped).collect::<Vec<_>>() {
            // Without a value it is the variable of the one who runs it.
            let value = value.unwrap_or_else(|| format!("${name}"));
            let (value, lost) = variables::compose(&value);
            if let Some(lost) = lost {
                let what = format!("variable `{name}`");
                self.draft.note(&mut part.env, line, &what, &lost);
            }
            part.env.key(&name, value);
        }
    }

    fn env_files(&mut self, node: &Node, part: &mut Part) {
        let mut files = Vec::new();
        for item in node.items() {
            let Some(path) = item.text().or_else(|| item.text_of("path")) else {
                continue;
            };
            let (path, _) = variables::compose(&self.source.path(path));
            if self.source.base.join(&path).is_file() || path.contains("${") {
                files.push(path);
                continue;
            }
            let what = format!("`env_file` `{path}`");
            let why =
                format!("there is no such file; once there is, write `env_file = [\"{path}\"]`");
            self.draft.note(&mut part.main, item.line, &what, &why);
        }
        list(&mut part.main, "env_file", files);
    }

    fn depends_on(&mut self, node: &Node, part: &mut Part) {
        let listed = node
            .texts()
            .map(|name| (name.to_owned(), "service_started"));
        let mapped = node.entries().iter().map(|entry| {
            let condition = entry.node.text_of("condition");
            (entry.key.clone(), condition.unwrap_or("service_started"))
        });
        let mut waits = Vec::new();
        for (on, condition) in listed.chain(mapped).collect::<Vec<_>>() {
            let Some(planned) = self.find(&on) else {
                let why = "there is no such service in the file";
                let what = format!("`depends_on` `{on}`");
                self.draft.note(&mut part.main, node.line, &what, why);
                continue;
            };
            let condition = match (planned.role, condition) {
                (Role::Job, _) => "completed",
                (Role::Service, "service_healthy") => "ready",
                (Role::Service, _) => "started",
                (Role::Container(_), _) => {
                    let what = format!("`depends_on` `{on}`");
                    let why = "a container is not waited for: a guest that cannot reach it yet tries again";
                    self.draft.note(&mut part.main, node.line, &what, why);
                    continue;
                }
            };
            waits.push((planned.name.to_string(), Toml::from(condition)));
        }
        if !waits.is_empty() {
            part.main.key("depends_on", Toml::Map(waits));
        }
    }

    /// What it calls: what it depends on, and what its variables name.
    fn calls(&mut self, number: usize, part: &mut Part) {
        let planned = &self.planned[number];
        let depends_on = planned.depends_on();
        let environment = planned.entry.node.get("environment");
        let values = environment.into_iter().flat_map(|it| {
            let mapped = it.entries().iter().filter_map(|entry| entry.node.text());
            let listed = it.texts().filter_map(|text| text.split_once('='));
            listed.map(|(_, value)| value).chain(mapped)
        });
        let values: Vec<_> = values.collect();
        for other in &self.planned {
            let key = &*other.entry.key;
            let is_named = values.iter().any(|value| names(value, key));
            if key == planned.entry.key || !(is_named || depends_on.contains(&key)) {
                continue;
            }
            match (other.role, other.address()) {
                (Role::Container(_), Some(address)) => {
                    if is_named {
                        part.env.comment(format!(
                            "a variable names `{key}`, which is at {address} outside of Compose"
                        ));
                    }
                    part.outbound.push(address);
                }
                (Role::Service, _) => {
                    if is_named {
                        part.env.comment(format!(
                            "a variable names `{key}`: a guest calls it as http://{}/, whatever port \
                             it had",
                            other.name
                        ));
                    }
                    part.services.push(other.name.to_string());
                }
                (Role::Container(_) | Role::Job, _) => {}
            }
        }
    }

    fn mounts(&mut self, node: &Node, part: &mut Part) {
        let mut targets = Vec::new();
        for item in node.items() {
            let what = format!("volume `{}`", item.shown());
            let Some(mount) = Mount::of(item) else {
                continue;
            };
            let (target, _) = variables::compose(mount.target.trim_end_matches('/'));
            let source = mount.source.as_deref().map(|it| variables::compose(it).0);
            let why = match &source {
                _ if mount.is_odd => "a guest has no file system of its own; a volume keeps files",
                _ if targets.contains(&target) => "something else is mounted there",
                None => "it has no name, so nothing could be found in it again: name it to keep it",
                Some(source) if source.ends_with(".sock") => {
                    "a guest is lent directories, never a socket"
                }
                Some(source) if source.starts_with('~') => "write the path of the directory itself",
                Some(source) if self.is_file(&mount, source) => {
                    "it is a file, and a guest is lent directories: mount the one that it is in"
                }
                Some(_) => "",
            };
            let (Some(source), "") = (source, why) else {
                self.draft.note(&mut part.allow, item.line, &what, why);
                continue;
            };
            targets.push(target.clone());
            let header = part.main.below("allow.files");
            let mut table = Table::entry(header);
            match mount.is_named() {
                true => table.key("volume", self.volume(&source).to_string()),
                false => table.key("host", self.source.path(&source)),
            }
            table.key("guest", target);
            if !mount.is_read_only {
                table.key("access", "read-write");
            }
            part.files.push(table);
        }
    }

    /// Whether a path of the host is that of a file, as far as one can tell.
    fn is_file(&self, mount: &Mount, source: &str) -> bool {
        let path = self.source.base.join(source);
        let has_extension = path.extension().is_some() && !source.ends_with('/');
        !mount.is_named() && (path.is_file() || (!path.exists() && has_extension))
    }

    fn health(&mut self, entry: &Entry, part: &mut Part) {
        let node = &entry.node;
        let test = node
            .get("test")
            .filter(|_| node.text_of("disable") != Some("true"));
        let Some(test) = test.filter(|it| it.texts().next() != Some("NONE")) else {
            return;
        };
        let Some(path) = asked_path(test).filter(|_| !part.is_job) else {
            let why = "it is asked inside the container; a probe asks a guest by HTTP, as in \
                       `readiness = { http = \"/healthz\" }`, or by an export";
            return self.left_out(entry, "`healthcheck`", why, part);
        };
        part.readiness.key("http", path);
        for (theirs, ours) in [("interval", "period"), ("timeout", "timeout")] {
            if let Some(value) = node.text_of(theirs) {
                part.readiness.key(ours, value);
            }
        }
        if let Some(retries) = node.text_of("retries").and_then(|it| it.parse().ok()) {
            part.readiness.key("failures", Toml::Number(retries));
        }
    }

    fn restart(&mut self, entry: &Entry, part: &mut Part) {
        let text = entry.node.text().unwrap_or_default();
        let (policy, times) = text.split_once(':').unwrap_or((text, ""));
        let policy = match policy {
            "always" | "unless-stopped" | "any" => "always",
            "on-failure" => "on-failure",
            _ => "never",
        };
        match (part.is_job, times.parse()) {
            (true, Ok(times)) => part.main.key("retries", Toml::Number(times)),
            (true, Err(_)) => {}
            (false, times) => {
                if policy != "always" {
                    part.restart.key("policy", policy);
                }
                if times.is_ok() {
                    let why =
                        "a pod that fails is tried again and again, with a delay that doubles";
                    let what = format!("`restart` of `{text}`");
                    self.draft.note(&mut part.restart, entry.line, &what, why);
                }
            }
        }
    }

    fn replicas(&mut self, entry: &Entry, part: &mut Part) {
        match entry.node.text().and_then(|it| it.parse().ok()) {
            Some(replicas) if !part.is_job => part.main.key("replicas", Toml::Number(replicas)),
            Some(_) | None => {
                let what = format!("`{}` of `{}`", entry.key, entry.node.shown());
                self.left_out(
                    entry,
                    &what,
                    "only a service has replicas, and a number of them",
                    part,
                );
            }
        }
    }

    fn memory(&mut self, entry: &Entry, part: &mut Part) {
        let text = entry.node.text().unwrap_or_default();
        match size(text) {
            Some(size) => part.limits.key("memory", size),
            None => {
                let what = format!("memory of `{text}`");
                self.left_out(
                    entry,
                    &what,
                    "write a size, as in `memory = \"64MiB\"`",
                    part,
                );
            }
        }
    }

    fn cpus(&mut self, entry: &Entry, part: &mut Part) {
        part.limits
            .key("cpu", entry.node.text().unwrap_or_default());
    }

    fn deploy(&mut self, node: &Node, part: &mut Part) {
        for entry in node.entries() {
            match &*entry.key {
                "replicas" => self.replicas(entry, part),
                "resources" => self.resources(&entry.node, part),
                "restart_policy" => {
                    for entry in entry.node.entries() {
                        match &*entry.key {
                            "condition" => self.restart(entry, part),
                            "delay" if !part.is_job => {
                                part.restart
                                    .key("initial", entry.node.text().unwrap_or_default());
                            }
                            key => {
                                let why = "a pod is tried again with a delay that doubles";
                                let what = format!("`restart_policy.{key}`");
                                self.left_out(entry, &what, why, part);
                            }
                        }
                    }
                }
                "update_config" if !part.is_job => self.update(&entry.node, part),
                key => {
                    let why = "it is for a swarm, and this is one node";
                    self.left_out(entry, &format!("`deploy.{key}`"), why, part);
                }
            }
        }
    }

    fn resources(&mut self, node: &Node, part: &mut Part) {
        for entry in node.entries().iter().flat_map(|it| {
            let is_limits = it.key == "limits";
            it.node.entries().iter().filter(move |_| is_limits)
        }) {
            match &*entry.key {
                "cpus" => self.cpus(entry, part),
                "memory" => self.memory(entry, part),
                key => self.left_out(entry, &format!("`limits.{key}`"), reasons::why(key), part),
            }
        }
        if let Some(entry) = node.entries().iter().find(|it| it.key == "reservations") {
            let why = "nothing is set aside for a pod: it has what it uses, up to its limits";
            self.left_out(entry, "`reservations`", why, part);
        }
    }

    fn update(&mut self, node: &Node, part: &mut Part) {
        for entry in node.entries() {
            let text = entry.node.text().unwrap_or_default();
            match (&*entry.key, text) {
                ("failure_action", "rollback" | "pause") => part.rollout.key("on_failure", text),
                ("parallelism", _) => {
                    if let Ok(pods @ 1..) = text.parse() {
                        part.rollout.key("max_surge", Toml::Number(pods));
                    }
                }
                ("order", "start-first") => {}
                ("monitor", _) => part.rollout.key("min_ready", text),
                (key, _) => {
                    let why = "a new pod is ready before an old one goes, one after the other";
                    self.left_out(entry, &format!("`update_config.{key}`"), why, part);
                }
            }
        }
    }
}

/// Whether a value names a service as the host of a URL or an address.
fn names(value: &str, service: &str) -> bool {
    let is_of_host = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
    value.match_indices(service).any(|(at, _)| {
        let (before, after) = (&value[..at], &value[at + service.len()..]);
        let begins = before.is_empty() || before.ends_with("//") || before.ends_with(['@', ',']);
        let ends = !after.starts_with(is_of_host);
        let is_address =
            after.starts_with([':', '/', ',']) || !before.is_empty() || after.is_empty();
        begins && ends && is_address
    })
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_service_is_named_as_a_host() {
        for (value, wanted) in [
            ("db", true),
            ("db:5432", true),
            ("postgres://u:p@db/app", true),
            ("http://db:80/", true),
            ("a:1,db:2", true),
            ("mydb", false),
            ("db.example.com", false),
            ("http://dbx/", false),
            ("/var/db", false),
        ] {
            assert_eq!(names(value, "db"), wanted, "{value}");
        }
    }
}
