//! What is different between two services or jobs, in words.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::{
    name::ServiceKey,
    object::{Access, Grants, Strategy},
    plan::rollout,
    quantity::format_duration,
    record::{Component, Job, JobSpec, Service, ServiceSpec, Template},
    view::{Change, Field, Verb},
};

/// Digits of a digest that people tell components apart by.
const DIGEST_DIGITS: usize = 12;

/// Characters of a variable that are shown. The rest is left out.
const VALUE_CHARACTERS: usize = 200;

/// The values of fields by their names.
type Fields = BTreeMap<String, String>;

/// What becomes of a service.
pub(super) fn service(old: Option<(&Service, &Template)>, new: (&Service, &Template)) -> Change {
    let (service, template) = new;
    let before = old.map(|(service, template)| service_fields(&service.spec, template));
    let fields = compare(
        &before.unwrap_or_default(),
        &service_fields(&service.spec, template),
    );
    let old = old.map(|(service, _)| service);
    let verb = match old {
        None => Verb::Added,
        Some(old) if old.spec.deleting => Verb::Added,
        Some(old) if old.spec == service.spec => Verb::Unchanged,
        Some(_) => Verb::Changed,
    };
    let pods = pods(old.filter(|old| !old.spec.deleting), service);
    Change {
        revision: Some(service.spec.revision),
        fields: match verb {
            Verb::Changed => fields,
            Verb::Added | Verb::Deleted | Verb::Unchanged => Vec::new(),
        },
        ..change("service", &service.key, verb, service.generation, pods)
    }
}

/// That a service goes.
pub(super) fn deleted_service(old: &Service, gone: &Service) -> Change {
    let pods = match (old.spec.deleting, old.status.counts.alive) {
        (true, _) => "it is being deleted already".to_owned(),
        (false, 0) => "it has no pods".to_owned(),
        (false, alive) => format!("{} drained and stopped", are(alive)),
    };
    change("service", &gone.key, Verb::Deleted, gone.generation, pods)
}

/// What becomes of a job.
pub(super) fn job(old: Option<&Job>, new: &Job) -> Change {
    let verb = match old {
        None => Verb::Added,
        Some(old) if old.deleting => Verb::Added,
        Some(old) if old.spec == new.spec => Verb::Unchanged,
        Some(_) => Verb::Changed,
    };
    let (fields, pods) = match (verb, old) {
        (Verb::Changed, Some(old)) => {
            let fields = compare(&job_fields(&old.spec), &job_fields(&new.spec));
            let pods = match new.spec.schedule {
                Some(_) => "it runs by its schedule",
                None => "it runs again",
            };
            (fields, pods)
        }
        (Verb::Unchanged, _) => (Vec::new(), "nothing"),
        (Verb::Added | Verb::Changed | Verb::Deleted, _) if new.spec.schedule.is_some() => {
            (Vec::new(), "it runs by its schedule")
        }
        (Verb::Added | Verb::Changed | Verb::Deleted, _) => (Vec::new(), "it runs once"),
    };
    Change {
        fields,
        ..change("job", &new.key, verb, new.generation, pods)
    }
}

/// That a job goes.
pub(super) fn deleted_job(old: &Job, gone: &Job) -> Change {
    let pods = match old.deleting {
        true => "it is being deleted already",
        false => "it is stopped if it runs",
    };
    change("job", &gone.key, Verb::Deleted, gone.generation, pods)
}

/// A change of which no field is told.
fn change(
    kind: &str,
    key: &ServiceKey,
    verb: Verb,
    generation: u64,
    pods: impl Into<String>,
) -> Change {
    Change {
        kind: kind.to_owned(),
        name: key.name.to_string(),
        verb,
        generation,
        revision: None,
        fields: Vec::new(),
        pods: pods.into(),
        awaited: verb != Verb::Deleted,
    }
}

/// `1 pod is`, `2 pods are`.
fn are(number: u32) -> String {
    match number {
        1 => "1 pod is".to_owned(),
        number => format!("{number} pods are"),
    }
}

fn count(number: u32) -> String {
    match number {
        1 => "1 pod".to_owned(),
        number => format!("{number} pods"),
    }
}

/// What happens to pods.
fn pods(old: Option<&Service>, new: &Service) -> String {
    let replicas = new.spec.replicas;
    let Some(old) = old else {
        return format!("{} made", are(replicas));
    };
    let before = old.spec.replicas;
    if old.spec.revision == new.spec.revision {
        return match replicas.cmp(&before) {
            std::cmp::Ordering::Less => format!("{} stopped", are(before - replicas)),
            std::cmp::Ordering::Equal => "nothing".to_owned(),
            std::cmp::Ordering::Greater => format!("{} added", are(replicas - before)),
        };
    }
    let (from, to) = (old.spec.revision, new.spec.revision);
    if new.spec.paused {
        return format!("nothing until it is resumed, then revision {to} takes over");
    }
    match new.spec.rollout.strategy {
        Strategy::Recreate => {
            let verb = if replicas == 1 { "is" } else { "are" };
            format!(
                "all pods of revision {from} are stopped, then {} of revision {to} {verb} made",
                count(replicas)
            )
        }
        Strategy::Rolling => {
            let (more, fewer) = rollout::margins(&new.spec);
            let more = if more == 0 && fewer == 0 { 1 } else { more };
            let mut bounds = Vec::new();
            if more > 0 {
                bounds.push(format!("{more} more"));
            }
            if fewer > 0 {
                bounds.push(format!("{fewer} fewer"));
            }
            let verb = if replicas == 1 { "takes" } else { "take" };
            format!(
                "{} of revision {to} {verb} the place of {before} of revision {from}, at most {} \
                 at a time",
                count(replicas),
                bounds.join(" or ")
            )
        }
    }
}

fn compare(old: &Fields, new: &Fields) -> Vec<Field> {
    let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let differ = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name));
    differ
        .map(|name| Field {
            name: name.clone(),
            old: old.get(name).map(|value| shown(name, value)),
            new: new.get(name).map(|value| shown(name, value)),
        })
        .collect()
}

/// A value, and of a long variable what it begins with.
fn shown(name: &str, value: &str) -> String {
    let is_variable = name.starts_with("env.") || name.starts_with("config.");
    match value.char_indices().nth(VALUE_CHARACTERS) {
        Some((end, _)) if is_variable => {
            format!("{}… ({} bytes)", &value[..end], value.len())
        }
        Some(_) | None => value.to_owned(),
    }
}

fn service_fields(spec: &ServiceSpec, template: &Template) -> Fields {
    let mut fields = Fields::new();
    component(&template.component, &mut fields);
    put(&mut fields, "static", &template.site);
    list(&mut fields, "args", template.args.iter().cloned());
    grants(&template.grants, &mut fields);
    put(&mut fields, "limits", &template.limits);
    put(&mut fields, "isolation", &template.isolation);
    put(&mut fields, "concurrency", &template.concurrency);
    let renewal = &template.renewal;
    put(&mut fields, "max_requests", &renewal.max_requests);
    put(
        &mut fields,
        "max_age",
        &renewal.max_age.map(format_duration),
    );
    put(&mut fields, "coredump", &template.coredump);
    put(&mut fields, "startup", &template.startup);
    put(&mut fields, "readiness", &template.readiness);
    put(&mut fields, "liveness", &template.liveness);
    put(&mut fields, "restart", &template.restart);
    put(&mut fields, "restarted", &template.restarted);
    put(&mut fields, "replicas", &spec.replicas);
    put(&mut fields, "rollout", &spec.rollout);
    put(&mut fields, "depends_on", &spec.depends_on);
    put(&mut fields, "debug_headers", &spec.debug_headers);
    put(&mut fields, "autoscale", &spec.autoscale);
    if !spec.placement.is_anywhere() {
        put(&mut fields, "placement", &spec.placement);
    }
    put(&mut fields, "paused", &spec.paused);
    list(
        &mut fields,
        "route",
        spec.routes.iter().map(ToString::to_string),
    );
    fields
}

fn job_fields(spec: &JobSpec) -> Fields {
    let mut fields = Fields::new();
    component(&spec.component, &mut fields);
    grants(&spec.grants, &mut fields);
    put(&mut fields, "limits", &spec.limits);
    list(&mut fields, "args", spec.args.iter().cloned());
    put(&mut fields, "retries", &spec.retries);
    if let Some(schedule) = &spec.schedule {
        put(&mut fields, "schedule", &schedule.expression);
        put(&mut fields, "timezone", &schedule.timezone);
        put(&mut fields, "overlap", &schedule.overlap);
    }
    put(&mut fields, "timeout", &spec.timeout.map(format_duration));
    put(&mut fields, "history", &spec.history);
    put(&mut fields, "depends_on", &spec.depends_on);
    fields
}

fn component(component: &Component, fields: &mut Fields) {
    let digest: String = component.digest.chars().take(DIGEST_DIGITS).collect();
    let text = format!("sha256:{digest}…");
    fields.insert("component".to_owned(), text);
}

fn grants(grants: &Grants, fields: &mut Fields) {
    let Grants {
        env,
        secret_env,
        config,
        services,
        outbound: servers,
        files,
        keyvalue,
    } = grants;
    for (table, values) in [("env", env), ("config", config)] {
        for (name, value) in values {
            fields.insert(format!("{table}.{name}"), value.clone());
        }
    }
    for (name, secret) in secret_env {
        fields.insert(format!("env.{name}"), secret.to_string());
    }
    let services = services.iter().map(ToString::to_string);
    list(fields, "allow.services", services);
    list(
        fields,
        "allow.outbound",
        servers.iter().map(ToString::to_string),
    );
    let files = files.iter().map(|mount| {
        let access = match mount.access {
            Access::ReadOnly => "read-only",
            Access::ReadWrite => "read-write",
        };
        format!("{} at {}, {access}", mount.source, mount.guest)
    });
    list(fields, "allow.files", files);
    let stores = keyvalue.iter().map(ToString::to_string);
    list(fields, "allow.keyvalue", stores);
}

fn list(fields: &mut Fields, name: &str, values: impl Iterator<Item = String>) {
    let values: Vec<_> = values.collect();
    if !values.is_empty() {
        fields.insert(name.to_owned(), values.join(", "));
    }
}

/// A value as it is written, each part of a table below the table's name.
fn put(fields: &mut Fields, name: &str, value: &impl Serialize) {
    let value = serde_json::to_value(value).expect("an object is plain data");
    flatten(fields, name, &value);
}

fn flatten(fields: &mut Fields, name: &str, value: &Value) {
    let text = match value {
        Value::Null => return,
        Value::Object(parts) => {
            for (part, value) in parts {
                flatten(fields, &format!("{name}.{part}"), value);
            }
            return;
        }
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
    };
    fields.insert(name.to_owned(), text);
}
