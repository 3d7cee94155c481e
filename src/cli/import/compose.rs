//! A Compose file as a spec.

mod parts;
mod reasons;
mod secrets;
mod values;

use std::collections::BTreeSet;

use sampan_core::name::Name;

use super::{
    draft::{Draft, Table, Toml},
    node::{Entry, Node},
    servers::Server,
    source::{Source, name, top},
};
use values::{port_of, published};

/// What a service of the file becomes.
#[derive(Clone, Copy)]
enum Role {
    Service,
    Job,
    /// It stays a container.
    Container(&'static Server),
}

/// A service of the file.
struct Planned<'a> {
    entry: &'a Entry,
    name: Name,
    is_renamed: bool,
    role: Role,
}

impl Planned<'_> {
    fn is_published(&self) -> bool {
        self.entry
            .node
            .get("ports")
            .is_some_and(|it| !it.items().is_empty())
    }

    /// What others wait for and call.
    fn depends_on(&self) -> Vec<&str> {
        let waits = self.entry.node.get("depends_on");
        let waits = waits.into_iter().flat_map(|it| it.texts().chain(keys(it)));
        let links = self.entry.node.get("links");
        let links = links.into_iter().flat_map(Node::texts);
        let links = links.map(|link| link.split(':').next().unwrap_or_default());
        waits.chain(links).collect()
    }

    /// Where a guest finds a container from outside its network.
    fn address(&self) -> Option<String> {
        let Role::Container(server) = self.role else {
            return None;
        };
        let (port, scheme) = server.port?;
        let ports = self.entry.node.get("ports");
        let mut ports = ports.into_iter().flat_map(Node::items).filter_map(port_of);
        let outside = ports
            .find(|(_, inside)| *inside == port)
            .map_or(port, |it| it.0);
        Some(format!("{scheme}://localhost:{outside}"))
    }
}

fn keys(node: &Node) -> impl Iterator<Item = &str> {
    node.entries().iter().map(|entry| entry.key.as_str())
}

/// A file on its way to a spec.
struct Compose<'a> {
    source: &'a Source,
    root: &'a Node,
    planned: Vec<Planned<'a>>,
    draft: Draft,
    /// Named volumes that something uses, with their names in the spec.
    volumes: Vec<(String, Name)>,
    /// The same of secrets.
    secrets: Vec<(String, Name)>,
}

pub(super) fn draft(root: &Node, source: &Source, app: &Name) -> anyhow::Result<Draft> {
    let services = root.get("services").map(Node::entries).unwrap_or_default();
    anyhow::ensure!(!services.is_empty(), "there are no `services` in it");
    let mut compose = Compose {
        source,
        root,
        planned: planned(services),
        draft: Draft::default(),
        volumes: Vec::new(),
        secrets: Vec::new(),
    };
    let named = root.text_of("name").and_then(crate::cli::names::named);
    let mut first = top(source, named.as_ref().unwrap_or(app));
    compose.top_level(&mut first);
    compose.draft.add(first);
    for number in 0..compose.planned.len() {
        match compose.planned[number].role {
            Role::Container(server) => compose.container(number, server),
            Role::Service | Role::Job => compose.part(number),
        }
    }
    compose.volume_tables();
    compose.secret_tables();
    Ok(compose.draft)
}

fn planned(services: &[Entry]) -> Vec<Planned<'_>> {
    let awaited = services.iter().flat_map(|entry| {
        let waits = entry.node.get("depends_on").map(Node::entries);
        let waits = waits.unwrap_or_default().iter();
        waits.filter(|it| it.node.text_of("condition") == Some("service_completed_successfully"))
    });
    let jobs: BTreeSet<_> = awaited.map(|it| it.key.as_str()).collect();
    let mut taken = Vec::new();
    let planned = services.iter().map(|entry| {
        let (name, is_renamed) = name(&entry.key, &mut taken);
        let is_built = entry.node.get("build").is_some();
        let server = entry.node.text_of("image").and_then(Server::of);
        let role = match server {
            _ if jobs.contains(&*entry.key) => Role::Job,
            Some(server) if !is_built => Role::Container(server),
            Some(_) | None => Role::Service,
        };
        Planned {
            entry,
            name,
            is_renamed,
            role,
        }
    });
    planned.collect()
}

impl Compose<'_> {
    fn find(&self, name: &str) -> Option<&Planned<'_>> {
        self.planned
            .iter()
            .find(|planned| planned.entry.key == name)
    }

    /// What stands beside the services.
    fn top_level(&mut self, table: &mut Table) {
        for entry in self.root.entries() {
            let why = match &*entry.key {
                "services" | "name" | "version" | "volumes" | "secrets" => continue,
                key if key.starts_with("x-") => continue,
                "networks" => {
                    "an app has one network of its own, on which a service may call what it depends \
                     on and what `allow.services` names"
                }
                "configs" => "a file is lent by `allow.files`, with its directory",
                "include" => "only this file was read: convert the others by themselves",
                _ => "there is nothing like it here",
            };
            let what = format!("`{}`", entry.key);
            self.draft.note(table, entry.line, &what, why);
        }
    }

    /// A service that stays a container.
    fn container(&mut self, number: usize, server: &Server) {
        let planned = &self.planned[number];
        let (line, key) = (planned.entry.line, planned.entry.key.clone());
        let image = planned
            .entry
            .node
            .text_of("image")
            .unwrap_or_default()
            .to_owned();
        let why = if server.is_proxy() {
            "the gateway does what a proxy in front is for: `route` says which requests reach which \
             service"
                .to_owned()
        } else if let Some(address) = planned.address() {
            let publish = match planned.is_published() {
                true => "",
                false => ", once `ports` publishes it",
            };
            format!(
                "it stays a container: `docker compose up -d {key}` runs it, and services reach it at \
                 {address}{publish}"
            )
        } else {
            format!("it stays a container: `docker compose up -d {key}` runs it beside the app")
        };
        let mut table = Table::new("");
        let what = format!("service `{key}` of the image `{image}`");
        self.draft.note(&mut table, line, &what, &why);
        self.draft.add(table);
    }

    /// Where requests from outside reach a service, if they do.
    fn route(&self, number: usize) -> Option<String> {
        let is_kept = |it: &&Planned<'_>| !matches!(it.role, Role::Container(_));
        let kept = || self.planned.iter().filter(is_kept);
        let published: Vec<_> = match kept().any(Planned::is_published) {
            true => kept().filter(|it| it.is_published()).collect(),
            // They are published by a proxy that hands requests on.
            false => {
                let is_proxy = |it: &&Planned<'_>| matches!(it.role, Role::Container(server) if server.is_proxy());
                let behind = self.planned.iter().filter(is_proxy);
                let behind: Vec<_> = behind.flat_map(Planned::depends_on).collect();
                kept()
                    .filter(|it| behind.contains(&&*it.entry.key))
                    .collect()
            }
        };
        let name = &self.planned[number].name;
        match published.as_slice() {
            [only] if only.name == *name => Some("/".to_owned()),
            several if several.iter().any(|it| it.name == *name) => {
                Some(format!("{name}.localhost/"))
            }
            _ => None,
        }
    }

    /// The name of a volume of the spec.
    fn volume(&mut self, volume: &str) -> Name {
        if let Some((_, name)) = self.volumes.iter().find(|(known, _)| known == volume) {
            return name.clone();
        }
        let mut taken = self.volumes.iter().map(|(_, name)| name.clone()).collect();
        let (name, _) = name(volume, &mut taken);
        self.volumes.push((volume.to_owned(), name.clone()));
        name
    }

    fn volume_tables(&mut self) {
        for (volume, name) in std::mem::take(&mut self.volumes) {
            let mut table = Table::new(format!("volume.{name}"));
            let declared = self.root.get("volumes").and_then(|it| it.get(&volume));
            for entry in declared.map(Node::entries).unwrap_or_default() {
                let what = format!("`{}` of volume `{volume}`", entry.key);
                let why = "the node keeps the volume itself, below its data directory";
                self.draft.note(&mut table, entry.line, &what, why);
            }
            table.key("quota", "1GiB");
            self.draft.add(table);
        }
    }

    /// Which of the ports that were published requests come to now.
    fn tell_ports(&mut self, node: &Node, table: &mut Table) {
        for port in node.items() {
            let shown = port.shown();
            let Some((outside, _)) = published(port) else {
                let why = "it is no port of TCP, on which the gateway listens for HTTP";
                self.draft
                    .note(table, port.line, &format!("port `{shown}`"), why);
                continue;
            };
            table.comment(format!(
                "line {}: port {outside} was this service's own; `--http {outside}` has the gateway \
                 listen there",
                port.line
            ));
        }
    }
}

/// A list of texts, if there are any.
fn list(table: &mut Table, key: &str, texts: Vec<String>) {
    if !texts.is_empty() {
        table.key(key, Toml::texts(texts));
    }
}
