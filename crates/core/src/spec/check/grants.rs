//! What a guest sees and may reach: environment, configuration, services, servers, directories.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use super::{
    checker::{Checker, Variables},
    names::Sort,
};
use crate::{
    name::Name,
    object::{
        Condition, Grants, HostPattern, INTERNAL_DOMAIN, Mount, MountSource, Outbound, Scheme,
        VolumeUse,
    },
    spec::{
        MAX_SPEC_BYTES, dotenv,
        problem::{Draft, Place, ProblemKind, quoted},
        raw::{self, At, ConfigKey, HostPath, Map, OneOrMany, Text, VariableName},
    },
};

/// What it takes to keep a variable, beside its name and value.
const VARIABLE_BYTES: usize = 16;

impl Checker<'_, '_> {
    /// Everything a workload is granted.
    pub(super) fn grants(
        &mut self,
        on: bool,
        allow: &raw::Allow,
        depends_on: &BTreeMap<Name, Condition>,
        env: BTreeMap<String, String>,
        config: &Map<ConfigKey, At<Text>>,
    ) -> Grants {
        let mut services = self.callable(on, &allow.services);
        services.extend(
            depends_on
                .keys()
                .filter(|name| self.names.is(name, Sort::Service))
                .cloned(),
        );
        services.sort();
        services.dedup();
        let mut keyvalue: Vec<_> = allow.keyvalue.iter().map(|it| it.value.clone()).collect();
        keyvalue.sort();
        keyvalue.dedup();
        let mut named = BTreeSet::new();
        for server in &allow.outbound {
            self.server(server);
        }
        let servers = allow.outbound.iter().map(|server| &server.value);
        let outbound = servers.filter(|server| named.insert(*server));
        let outbound = outbound.cloned().collect();
        let config = config
            .0
            .iter()
            .map(|(key, value)| (&key.value.0, &value.value.0));
        Grants {
            env,
            config: config
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            services,
            outbound,
            files: self.files(&allow.files),
            keyvalue,
        }
    }

    /// A rule of `allow.outbound` whose host is one of a service would allow nothing: such hosts lead
    /// to services, which are reached otherwise.
    fn server(&mut self, server: &At<Outbound>) {
        let (HostPattern::Exact(host), Scheme::Http | Scheme::Https) =
            (&server.value.host, server.value.scheme)
        else {
            return;
        };
        let below = host.strip_suffix(INTERNAL_DOMAIN);
        let Ok(name) = Name::parse(below.unwrap_or(host)) else {
            return;
        };
        let is_service = self.names.is(&name, Sort::Service);
        if below.is_none() && !is_service {
            return;
        }
        let message = format!("{} is no server outside of the app", server.shown());
        let hint = match is_service {
            true => format!(
                "write `allow.services = [\"{name}\"]`: the service is called at \
                 `http://{name}{INTERNAL_DOMAIN}/`"
            ),
            false => format!(
                "hosts below `{INTERNAL_DOMAIN}` are services of the app, and none has this name: \
                 name the server by its address or by another name"
            ),
        };
        self.decoder
            .problem(&server.place, ProblemKind::Conflict, message, hint);
    }

    fn files(&mut self, mounts: &[raw::Mount]) -> Vec<Mount> {
        let mut taken: BTreeMap<&str, &Place> = BTreeMap::new();
        let mut checked = Vec::new();
        for mount in mounts {
            if let Some(guest) = &mount.guest {
                match taken.get(guest.value.0.as_str()) {
                    Some(first) => {
                        let message = format!("{} has a directory already", guest.shown());
                        let hint = "give each directory a path of its own in the guest";
                        let draft = Draft::new(&guest.place, ProblemKind::Conflict, message, hint);
                        self.decoder
                            .report
                            .add(draft.also(&first.span, "first given here"));
                    }
                    None => {
                        taken.insert(&guest.value.0, &guest.place);
                    }
                }
            }
            let source = self.mount_source(mount);
            checked.extend(
                source
                    .zip(mount.guest.as_ref())
                    .map(|(source, guest)| Mount {
                        source,
                        guest: guest.value.0.clone(),
                        access: mount.access.value,
                    }),
            );
        }
        checked
    }

    /// The directory of a mount: one of the host, or a volume.
    fn mount_source(&mut self, mount: &raw::Mount) -> Option<MountSource> {
        match (&mount.host, &mount.volume) {
            (Some(host), Some(volume)) => {
                let message = "a mount has both `host` and `volume`";
                let hint = "keep `host` for a directory of this machine, or `volume` for one that \
                            the node keeps for the app";
                let draft = Draft::new(&volume.place, ProblemKind::Conflict, message, hint);
                let draft = draft.also(&host.place.span, "the directory of the host");
                self.decoder.report.add(draft);
                None
            }
            (Some(host), None) => Some(MountSource::Host(host.value.0.clone().into())),
            (None, Some(volume)) => self.volume(volume),
            // What is wrong with a value that is there has been said.
            (None, None) if mount.has("host") || mount.has("volume") => None,
            (None, None) => {
                let message = "a mount has neither `host` nor `volume`";
                let hint = "add `host = \"data\"` for a directory of this machine, or \
                            `volume = \"data\"` for one that the node keeps for the app";
                self.decoder
                    .problem(&mount.place, ProblemKind::MissingKey, message, hint);
                None
            }
        }
    }

    fn volume(&mut self, name: &At<Name>) -> Option<MountSource> {
        let Some(volume) = self.volumes.declared.get(&name.value) else {
            let known: Vec<_> = self.volumes.declared.keys().map(Name::as_str).collect();
            let near = self.names.near(name.value.as_str(), &known);
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            let hint = hint
                .unwrap_or_else(|| format!("declare it with a table `[volume.{}]`", name.value));
            let message = format!("there is no volume {}", quoted(name.value.as_str()));
            self.decoder
                .problem(&name.place, ProblemKind::UnknownName, message, hint);
            return None;
        };
        Some(MountSource::Volume(VolumeUse {
            app: self.volumes.app.clone()?,
            name: name.value.clone(),
            quota: volume.quota,
        }))
    }

    /// The environment of a guest: its env files in their order, then `env`.
    pub(super) fn environment(
        &mut self,
        files: &OneOrMany<HostPathAt>,
        env: &Map<VariableName, At<Text>>,
        on: bool,
    ) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        for path in files.0.iter().filter(|_| on) {
            let Some(file) = self.env_file(path) else {
                continue;
            };
            if self.decoder.expand(&path.place, file.bytes) {
                variables.extend(file.list.iter().cloned());
            }
        }
        let given = env
            .0
            .iter()
            .map(|(name, value)| (&name.value.0, &value.value.0));
        variables.extend(given.map(|(name, value)| (name.clone(), value.clone())));
        variables
    }

    /// The variables of an env file, which is read once however many name it.
    fn env_file(&mut self, path: &HostPathAt) -> Option<Rc<Variables>> {
        if let Some(known) = self.env_files.get(&path.value.0) {
            return known.clone();
        }
        let variables = self.read_env_file(path).map(Rc::new);
        self.env_files
            .insert(path.value.0.clone(), variables.clone());
        variables
    }

    fn read_env_file(&mut self, path: &HostPathAt) -> Option<Variables> {
        let text = match (self.input.read_file)(&path.value.0) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot read the env file {}: {error}", path.shown());
                let hint = "paths are relative to this file; create it, or remove it here";
                self.decoder
                    .problem(&path.place, ProblemKind::EnvFile, message, hint);
                return None;
            }
        };
        if text.len() > MAX_SPEC_BYTES {
            let message = format!("the env file {} has {} bytes", path.shown(), text.len());
            let hint = format!("an env file may have {MAX_SPEC_BYTES}");
            self.decoder
                .problem(&path.place, ProblemKind::Bound, message, hint);
            return None;
        }
        let file = dotenv::parse(&text);
        if !file.faults.is_empty() {
            let source = self.decoder.report.add_secret_source(&path.value.0, &text);
            for fault in &file.faults {
                let span = fault.span.clone();
                let place = Place {
                    source,
                    span,
                    key: path.place.key.clone(),
                };
                let message = format!("{} in an env file", fault.message);
                self.decoder
                    .problem(&place, ProblemKind::EnvFile, message, fault.hint);
            }
            return None;
        }
        let lengths = file.variables.iter();
        let lengths = lengths.map(|(name, value)| name.len() + value.len() + VARIABLE_BYTES);
        Some(Variables {
            bytes: lengths.sum(),
            list: file.variables,
        })
    }
}

/// The path of an env file.
type HostPathAt = At<HostPath>;
