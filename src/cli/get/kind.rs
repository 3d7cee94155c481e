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
    #[value(alias = "node")]
    Nodes,
    #[value(alias = "event")]
    Events,
}

impl Kind {
    pub(super) fn target(self, app: &AppArgument) -> String {
        match self {
            Self::Apps => "/v1/apps".to_owned(),
            Self::Nodes => "/v1/nodes".to_owned(),
            Self::Services => format!("/v1/services{}", app.query(&[])),
            Self::Pods => format!("/v1/pods{}", app.query(&[])),
            Self::Revisions => format!("/v1/revisions{}", app.query(&[])),
            Self::Jobs => format!("/v1/jobs{}", app.query(&[])),
            Self::Events => format!("/v1/events{}", app.query(&[])),
        }
    }

    /// What has a line whenever something of this kind may have changed.
    pub(super) fn changes(self, app: &AppArgument) -> String {
        match self {
            Self::Apps | Self::Services | Self::Revisions | Self::Jobs => {
                format!("/v1/watch{}", app.query(&[]))
            }
            Self::Pods | Self::Nodes | Self::Events => {
                format!("/v1/events{}", app.query(&[("follow", "true")]))
            }
        }
    }

    /// The field that a name is compared with.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Apps | Self::Services | Self::Pods | Self::Jobs | Self::Nodes => "name",
            Self::Revisions => "service",
            Self::Events => "object",
        }
    }

    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Apps => ("app", "apps"),
            Self::Services => ("service", "services"),
            Self::Pods => ("pod", "pods"),
            Self::Revisions => ("revision of service", "revisions"),
            Self::Jobs => ("job", "jobs"),
            Self::Nodes => ("node", "nodes"),
            Self::Events => ("event of", "events"),
        }
    }
}
