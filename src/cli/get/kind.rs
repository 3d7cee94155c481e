//! What `sampan get` can list.

use clap::ValueEnum;

use crate::cli::api::AppArgument;

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Kind {
    #[value(alias = "app")]
    Apps,
    #[value(aliases = ["service", "svc"])]
    Services,
    #[value(aliases = ["pod", "po"])]
    Pods,
    #[value(aliases = ["revision", "rev"])]
    Revisions,
    #[value(alias = "job")]
    Jobs,
    #[value(aliases = ["volume", "vol"])]
    Volumes,
    #[value(alias = "secret")]
    Secrets,
    #[value(alias = "node")]
    Nodes,
    #[value(alias = "event")]
    Events,
}

impl Kind {
    pub(super) fn target(self, app: &AppArgument) -> String {
        let query = match self {
            Self::Apps | Self::Nodes => String::new(),
            Self::Services
            | Self::Pods
            | Self::Revisions
            | Self::Jobs
            | Self::Volumes
            | Self::Secrets
            | Self::Events => app.query(&[]),
        };
        format!("/v1/{}{query}", self.words().1)
    }

    /// What has a line whenever something of this kind may have changed.
    pub(super) fn changes(self, app: &AppArgument) -> String {
        match self {
            Self::Apps | Self::Services | Self::Revisions | Self::Jobs | Self::Secrets => {
                format!("/v1/watch{}", app.query(&[]))
            }
            Self::Pods | Self::Volumes | Self::Nodes | Self::Events => {
                format!("/v1/events{}", app.query(&[("follow", "true")]))
            }
        }
    }

    /// The field that a name is compared with.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Apps
            | Self::Services
            | Self::Pods
            | Self::Jobs
            | Self::Volumes
            | Self::Secrets
            | Self::Nodes => "name",
            Self::Revisions => "service",
            Self::Events => "object",
        }
    }

    /// One and all of them; the second is also the path of the list.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Apps => ("app", "apps"),
            Self::Services => ("service", "services"),
            Self::Pods => ("pod", "pods"),
            Self::Revisions => ("revision of service", "revisions"),
            Self::Jobs => ("job", "jobs"),
            Self::Volumes => ("volume", "volumes"),
            Self::Secrets => ("secret", "secrets"),
            Self::Nodes => ("node", "nodes"),
            Self::Events => ("event of", "events"),
        }
    }
}
