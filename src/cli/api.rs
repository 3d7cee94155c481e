//! What the verbs have in common that ask something that runs.

use std::path::PathBuf;

use clap::Args;

use super::{EXIT_FAILED, EXIT_UNREACHABLE, Stop};
use crate::{
    client::{Client, ClientError},
    config,
};

/// Whom to ask.
#[derive(Args)]
pub(super) struct ApiArguments {
    /// The control socket of what runs; also `SAMPAN_API`. By default the only one of this user
    #[arg(long, value_name = "SOCKET")]
    api: Option<PathBuf>,
}

impl ApiArguments {
    pub(super) fn client(&self) -> Result<Client, Stop> {
        Client::find(self.api.as_deref(), &config::socket_directory()).map_err(stop)
    }
}

/// What an error of the client comes to.
pub(super) fn stop(error: ClientError) -> Stop {
    let code = match &error {
        ClientError::Refused(_) => EXIT_FAILED,
        ClientError::Nobody(_)
        | ClientError::Unsafe(_)
        | ClientError::Several(_)
        | ClientError::Unreachable { .. }
        | ClientError::Broken { .. } => EXIT_UNREACHABLE,
    };
    Stop::Because(code, error.into())
}

/// `KIND/NAME` or `KIND NAME` of the only kind that there is so far.
pub(super) fn pod_name(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some(("pod" | "pods", name)) if !name.is_empty() => Ok(name.to_owned()),
        Some((kind, _)) => Err(format!("there is no kind `{kind}`: write it as `pod/NAME`")),
        None => Err("write it as `pod/NAME`".to_owned()),
    }
}
