//! Quotas: how much one app may have, and all apps of a node together.
//!
//! What counts is what an app may come to, not what it has at the moment: the pods of a service are
//! those that its autoscaler may ask for, with the surge of a rollout. So whatever was accepted can
//! run, and the autoscaler and rollouts need no quota of their own. As with a ResourceQuota of
//! Kubernetes, only a change that asks for more is refused: what runs beyond a quota that was
//! lowered goes on, and can be made smaller step by step.

use std::{collections::BTreeMap, fmt};

use super::{
    apply::{Applied, Present},
    rollout::most_pods,
};
use crate::{
    name::{Name, ServiceKey},
    quantity::ByteSize,
    record::{App, Job, Revision, Service},
};

#[cfg(test)]
mod tests;

/// What there is a quota of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The number of apps.
    Apps,
    /// The number of services.
    Services,
    /// The number of jobs.
    Jobs,
    /// The most pods that services may have.
    Pods,
    /// `limits.memory` of all those pods, and of jobs, in bytes.
    Memory,
}

impl Resource {
    /// All of them, in the order in which they are looked at.
    pub const ALL: [Self; 5] = [
        Self::Apps,
        Self::Services,
        Self::Jobs,
        Self::Pods,
        Self::Memory,
    ];

    /// Its name in the configuration of a node.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Apps => "apps",
            Self::Services => "services",
            Self::Jobs => "jobs",
            Self::Pods => "pods",
            Self::Memory => "memory",
        }
    }

    /// So much of it, in words.
    fn amount(self, number: u64) -> String {
        match self {
            Self::Memory => format!("`{}` of memory", ByteSize(number)),
            Self::Apps | Self::Services | Self::Jobs | Self::Pods => {
                format!("`{number}` {}", self.key())
            }
        }
    }

    /// What makes it less.
    const fn remedy(self) -> &'static str {
        match self {
            Self::Apps => "delete an app",
            Self::Services => "leave services out",
            Self::Jobs => "leave jobs out",
            Self::Pods => "lower `replicas`, `autoscale.max` or `rollout.max_surge`",
            Self::Memory => {
                "lower `limits.memory`, `replicas`, `autoscale.max` or `rollout.max_surge`"
            }
        }
    }
}

/// How much of each [`Resource`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of apps.
    pub apps: u64,
    /// Number of services.
    pub services: u64,
    /// Number of jobs.
    pub jobs: u64,
    /// Number of pods that the services may have.
    pub pods: u64,
    /// Bytes of memory.
    pub memory: u64,
}

impl Usage {
    /// What a service may come to, whose pods may use so much memory each. One that is being
    /// deleted counts no more.
    pub fn of_service(service: &Service, memory: u64) -> Self {
        if service.spec.deleting {
            return Self::default();
        }
        let pods = u64::from(most_pods(&service.spec));
        Self {
            services: 1,
            pods,
            memory: pods.saturating_mul(memory),
            ..Self::default()
        }
    }

    /// What a job takes.
    pub fn of_job(job: &Job) -> Self {
        match job.deleting {
            true => Self::default(),
            false => Self {
                jobs: 1,
                memory: job.spec.limits.memory.0,
                ..Self::default()
            },
        }
    }

    /// So much of one of them.
    pub const fn of(&self, resource: Resource) -> u64 {
        match resource {
            Resource::Apps => self.apps,
            Resource::Services => self.services,
            Resource::Jobs => self.jobs,
            Resource::Pods => self.pods,
            Resource::Memory => self.memory,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            apps: self.apps.saturating_add(other.apps),
            services: self.services.saturating_add(other.services),
            jobs: self.jobs.saturating_add(other.jobs),
            pods: self.pods.saturating_add(other.pods),
            memory: self.memory.saturating_add(other.memory),
        }
    }
}

/// How much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Of all apps of a node together.
    pub node: Usage,
    /// Of one app.
    pub app: Usage,
}

/// An app that is to be other than it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    app: Name,
    /// What it has.
    before: Usage,
    /// What it asks for.
    after: Usage,
    /// The service that asks for most pods, and how many.
    largest: Option<(Name, u64)>,
}

/// Which quota is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    App,
    /// So much have the other apps.
    Node(u64),
}

/// Why a change asks for too much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    app: Name,
    resource: Resource,
    asked: u64,
    limit: u64,
    scope: Scope,
    largest: Option<(Name, u64)>,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { app, resource, .. } = self;
        let (asked, limit) = (resource.amount(self.asked), resource.amount(self.limit));
        match self.scope {
            Scope::App => write!(
                f,
                "the app `{app}` comes to {asked}, and an app of this node may have at most {limit}"
            )?,
            Scope::Node(others) => write!(
                f,
                "the app `{app}` comes to {asked} and the other apps to {}, and this node may have \
                 at most {limit}",
                resource.amount(others)
            )?,
        }
        match (&self.largest, resource) {
            (Some((name, pods)), Resource::Pods | Resource::Memory) => write!(
                f,
                "; the largest is `service.{name}` with `{pods}` pods, the surge of a rollout \
                 included"
            ),
            (
                Some(_) | None,
                Resource::Apps
                | Resource::Services
                | Resource::Jobs
                | Resource::Pods
                | Resource::Memory,
            ) => Ok(()),
        }
    }
}

impl std::error::Error for Exceeded {}

impl Exceeded {
    /// What to do about it.
    pub fn hint(&self) -> String {
        let key = self.resource.key();
        let remedy = self.resource.remedy();
        match self.scope {
            Scope::App => format!(
                "{remedy}, split the app, or raise `{key}` in `[quota.app]` of the node's \
                 configuration"
            ),
            Scope::Node(_) if self.resource == Resource::Apps => {
                format!("{remedy}, or raise `{key}` in `[quota]` of the node's configuration")
            }
            Scope::Node(_) => format!(
                "{remedy}, delete another app, or raise `{key}` in `[quota]` of the node's \
                 configuration"
            ),
        }
    }
}

/// What is to be written of an app.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    /// The app, if it changes.
    pub app: Option<&'a App>,
    /// Services that change.
    pub services: &'a [Service],
    /// New revisions.
    pub revisions: &'a [(ServiceKey, Revision)],
    /// Jobs that change.
    pub jobs: &'a [Job],
}

impl<'a> From<&'a Applied> for Changes<'a> {
    fn from(applied: &'a Applied) -> Self {
        Self {
            app: applied.app.as_ref(),
            services: &applied.services,
            revisions: &applied.revisions,
            jobs: &applied.jobs,
        }
    }
}

impl Ask {
    /// What an app asks for that has what is `present`, and is to be changed so.
    pub fn of(name: &Name, present: &Present, changes: Changes<'_>) -> Self {
        let new: BTreeMap<_, _> = changes
            .revisions
            .iter()
            .map(|(key, revision)| ((&key.name, revision.number), revision))
            .collect();
        let of_service = |service: &Service| {
            let (name, number) = (&service.key.name, service.spec.revision);
            let kept = || present.revisions.get(&(name.clone(), number));
            let revision = new.get(&(name, number)).copied().or_else(kept);
            let memory = revision.map_or(0, |revision| revision.template.memory());
            Usage::of_service(service, memory)
        };
        let sum =
            |app: Option<&App>, services: &BTreeMap<_, &Service>, jobs: &BTreeMap<_, &Job>| {
                let app = Usage {
                    apps: u64::from(app.is_some_and(|app| !app.deleting)),
                    ..Usage::default()
                };
                let services = services.values().map(|it| of_service(it));
                let jobs = jobs.values().map(|it| Usage::of_job(it));
                services.chain(jobs).fold(app, Usage::plus)
            };
        let app = present.app.as_ref();
        let mut services: BTreeMap<&Name, &Service> = present.services.iter().collect();
        let mut jobs: BTreeMap<&Name, &Job> = present.jobs.iter().collect();
        let before = sum(app, &services, &jobs);
        services.extend(changes.services.iter().map(|it| (&it.key.name, it)));
        jobs.extend(changes.jobs.iter().map(|it| (&it.key.name, it)));
        let after = sum(changes.app.or(app), &services, &jobs);
        let pods = services.values().map(|it| (it, of_service(it).pods));
        // Of several the first by name.
        let largest = pods.rev().max_by_key(|(_, pods)| *pods);
        Self {
            app: name.clone(),
            before,
            after,
            largest: largest.map(|(service, pods)| (service.key.name.clone(), pods)),
        }
    }

    /// Which app asks.
    pub fn app(&self) -> &Name {
        &self.app
    }

    /// Whether it asks for more of anything than there is: only then others matter.
    pub fn is_for_more(&self) -> bool {
        let more = |resource: &Resource| self.after.of(*resource) > self.before.of(*resource);
        Resource::ALL.iter().any(more)
    }
}

impl Quota {
    /// Whether an app may come to what it asks for by itself.
    ///
    /// # Errors
    ///
    /// The first resource of which it asks for more than an app may have, and than it has.
    pub fn check_app(&self, ask: &Ask) -> Result<(), Exceeded> {
        Self::check(ask, &self.app, |_| Scope::App)
    }

    /// Whether it may beside the others, which have so much.
    ///
    /// # Errors
    ///
    /// The first resource of which all apps would have more than the node may, and than they have.
    pub fn check_node(&self, ask: &Ask, others: &Usage) -> Result<(), Exceeded> {
        Self::check(ask, &self.node, |resource| Scope::Node(others.of(resource)))
    }

    fn check(ask: &Ask, most: &Usage, scope: impl Fn(Resource) -> Scope) -> Result<(), Exceeded> {
        for resource in Resource::ALL {
            let (before, asked) = (ask.before.of(resource), ask.after.of(resource));
            let (scope, limit) = (scope(resource), most.of(resource));
            let others = match scope {
                Scope::App => 0,
                Scope::Node(others) => others,
            };
            if asked > before && asked.saturating_add(others) > limit {
                return Err(Exceeded {
                    app: ask.app.clone(),
                    resource,
                    asked,
                    limit,
                    scope,
                    largest: ask.largest.clone(),
                });
            }
        }
        Ok(())
    }
}
