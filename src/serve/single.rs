//! One component without a spec, as `sampan run` has it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use sampan_core::{
    name::{Name, PodName, ServiceKey},
    object::{App, Grants, Limits, Service},
    quantity::ByteSize,
    secret::SecretValues,
    spec::{self, SpecText},
};
use sampan_runtime::{
    Loaded, StartError, Stdio,
    command::{self, CommandSpec},
};
use sampan_store::KeyValues;

use super::{
    AppSource, Node,
    keyvalue::{self, OfApp},
};

pub(crate) use sampan_runtime::command::Exit;

/// Memory of a command: as much as there can be, since it has the machine to itself.
const COMMAND_MEMORY: ByteSize = ByteSize(4 << 30);

/// The spec of `sampan run`: all the defaults, and a route for every request.
const SPEC: &str = r#"
app = "run"
[service.component]
component = "component.wasm"
route = ["/"]
[job.command]
component = "component.wasm"
"#;

fn defaults() -> App {
    load(SPEC).expect("the text is a constant that a test loads")
}

fn load(text: &str) -> Result<App, spec::Problems> {
    spec::load(&spec::Input {
        path: "sampan run",
        text,
        environment: &|_| None,
        read_file: &|_| Err("there are no files".to_owned()),
        profiles: &[],
    })
}

/// An app of one service that answers every request, with the defaults of a spec.
pub(crate) fn service(
    name: Name,
    component: &Path,
    grants: Grants,
    adjust: &dyn Fn(&mut Service),
) -> AppSource {
    let mut services = defaults().services.into_values();
    let mut service = services.next().expect("the spec has a service");
    service.name = name.clone();
    service.component.path = component.to_owned();
    service.grants = grants;
    adjust(&mut service);
    let services = BTreeMap::from([(name.clone(), service)]);
    AppSource {
        app: App {
            name,
            services,
            jobs: BTreeMap::new(),
            volumes: BTreeMap::new(),
            builds: BTreeMap::new(),
            secrets: BTreeMap::new(),
        },
        secrets: BTreeMap::new(),
        base: PathBuf::from("."),
        spec: SpecText::default(),
    }
}

/// Runs a command to its end with this process's standard streams.
pub(crate) async fn command(
    node: &Node,
    loaded: &Loaded,
    name: Name,
    args: &[String],
    grants: &Grants,
) -> Result<Exit, StartError> {
    let job = defaults()
        .jobs
        .into_values()
        .next()
        .expect("the spec has a job");
    let limits = Limits {
        memory: COMMAND_MEMORY,
        ..job.limits
    };
    let databases = KeyValues::new(keyvalue::kept(), node.keyvalue.clone());
    let keyvalue = Arc::new(OfApp {
        databases: Arc::new(databases),
        app: name.clone(),
    });
    let spec = CommandSpec {
        name: PodName::new(&ServiceKey::new(&name, &name), 1, 0),
        args,
        grants,
        limits: &limits,
        base: Path::new("."),
        stdio: Stdio::Inherit,
        neighbours: None,
        keyvalue: Some(keyvalue),
        secrets: &SecretValues::new(),
    };
    Ok(command::run(&node.runtime, loaded, spec).await?.exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_load() {
        let app = defaults();
        assert_eq!((app.services.len(), app.jobs.len()), (1, 1));
    }

    #[test]
    fn a_rule_is_read_like_in_a_spec() {
        let rule = spec::server("https://api.example.com").expect("a good rule");
        assert_eq!(rule.port, 443);
        for bad in [
            "api.example.com",
            "ftp://a",
            "https://a/path",
            "",
            "\"",
            "${X}",
        ] {
            assert!(!spec::server(bad).expect_err(bad).is_empty());
        }
    }
}
