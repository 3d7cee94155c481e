//! What a guest sees and may reach: environment, configuration, services, servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use super::{
    checker::{Checker, Variables},
    names::Sort,
    secrets::Form,
};
use crate::{
    name::Name,
    object::{Condition, Grants, HostPattern, INTERNAL_DOMAIN, Outbound, Scheme, SecretUse},
    spec::{
        MAX_SPEC_BYTES, dotenv,
        problem::{Place, ProblemKind},
        raw::{self, At, ConfigKey, HostPath, Map, OneOrMany, Text, Variable, VariableName},
    },
};

/// What it takes to keep a variable, beside its name and value.
const VARIABLE_BYTES: usize = 16;

/// The environment of a guest.
#[derive(Default)]
pub(super) struct Environment {
    texts: BTreeMap<String, String>,
    secrets: BTreeMap<String, SecretUse>,
}

impl Checker<'_, '_> {
    /// Everything a workload is granted.
    pub(super) fn grants(
        &mut self,
        on: bool,
        allow: &raw::Allow,
        depends_on: &BTreeMap<Name, Condition>,
        env: Environment,
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
            env: env.texts,
            secret_env: env.secrets,
            config: config
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            services,
            outbound,
            files: self.files(on, &allow.files),
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

    /// The environment of a guest: its env files in their order, then `env`.
    pub(super) fn environment(
        &mut self,
        files: &OneOrMany<HostPathAt>,
        env: &Map<VariableName, Variable>,
        on: bool,
    ) -> Environment {
        let mut environment = Environment::default();
        for path in files.0.iter().filter(|_| on) {
            let Some(file) = self.env_file(path) else {
                continue;
            };
            if self.decoder.expand(&path.place, file.bytes) {
                environment.texts.extend(file.list.iter().cloned());
            }
        }
        for (name, value) in &env.0 {
            let name = name.value.0.clone();
            match value {
                Variable::Text(text) => {
                    environment.texts.insert(name, text.value.0.clone());
                }
                Variable::Secret(variable) => {
                    environment.texts.remove(&name);
                    let secret = variable.secret.as_ref();
                    let (names, decoder) = (&mut self.names, &mut *self.decoder);
                    let secrets = &mut self.secrets;
                    let secret =
                        secret.and_then(|it| secrets.used(it, Form::Text, on, names, decoder));
                    environment.secrets.extend(secret.map(|it| (name, it)));
                }
            }
        }
        environment
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
