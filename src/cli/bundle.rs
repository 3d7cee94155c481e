//! A spec with everything that goes along with it to a node.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use http::Method;
use sampan_core::{digest::Digest, object::App, view};

use super::{
    Stop, build,
    output::Output,
    spec::{Read, SpecArguments},
};
use crate::{
    client::{Client, ClientError, quoted},
    file,
};

/// A spec that is good here, with the components that it names.
pub(super) struct Bundle {
    pub(super) app: App,
    pub(super) body: view::Apply,
    /// Files of components by their digests.
    components: BTreeMap<String, PathBuf>,
}

impl Bundle {
    /// Reads and checks the spec and its components.
    pub(super) fn load(arguments: &SpecArguments, output: &Output) -> Result<Self, Stop> {
        Self::of(arguments.read(output)?, arguments, false)
    }

    /// Checks the components of a spec that has been read, and built if `has_built`.
    pub(super) fn of(read: Read, arguments: &SpecArguments, has_built: bool) -> Result<Self, Stop> {
        let base = arguments.base();
        let absolute = fs::canonicalize(&base)
            .with_context(|| format!("cannot find the directory `{}`", base.display()))
            .map_err(Stop::usage)?;
        let mut components = BTreeMap::new();
        let mut digests = BTreeMap::new();
        let services = read.app.services.values();
        let services = services.map(|it| (&it.name, &it.component));
        let jobs = read.app.jobs.values().map(|it| (&it.name, &it.component));
        for (name, source) in services.chain(jobs) {
            let path = base.join(&source.path);
            let digest = digest(&path).map_err(|error| {
                let remedy = build::remedy(&read.app, name, &error, has_built);
                let remedy = remedy.map(|it| format!("; {it}")).unwrap_or_default();
                let path = path.display();
                Stop::usage(anyhow::anyhow!(
                    "cannot read the component `{path}`: {error}{remedy}"
                ))
            })?;
            if let Some(pinned) = source.digest.as_ref().filter(|it| **it != digest) {
                return Err(Stop::usage(anyhow::anyhow!(
                    "the component `{}` has the digest `sha256:{digest}`, and the spec demands \
                     `sha256:{pinned}`: build it again, or change `digest` of `{name}`",
                    path.display()
                )));
            }
            digests.insert(name.to_string(), digest.clone());
            components.insert(digest, path);
        }
        let body = view::Apply {
            spec: read.text,
            path: arguments.file.display().to_string(),
            base: absolute.display().to_string(),
            environment: read.environment,
            files: read.files,
            profiles: arguments.profile.clone(),
            replicas: BTreeMap::new(),
            components: digests,
            cause: format!("apply of {}", arguments.file.display()),
        };
        Ok(Self {
            app: read.app,
            body,
            components,
        })
    }

    /// The target of requests about its app.
    pub(super) fn target(&self, rest: &str) -> String {
        format!("/v1/apps/{}{rest}", quoted(self.app.name.as_str()))
    }

    /// Applies the spec: what the node lacks of it is uploaded first.
    pub(super) async fn apply(&self, client: &Client, output: &Output) -> Result<view::Plan, Stop> {
        let target = self.target("");
        let put = || client.change(Method::PUT, &target, Some(&self.body));
        self.upload(client, output).await?;
        let plan = match put().await {
            // What is used by nothing may have been removed in between.
            Err(ClientError::Refused(refused)) if refused.code == "MissingArtifacts" => {
                self.upload(client, output).await?;
                put().await
            }
            other => other,
        };
        Ok(plan.map_err(refused)?)
    }

    /// Uploads the components that the node lacks.
    pub(super) async fn upload(&self, client: &Client, output: &Output) -> Result<(), Stop> {
        for (digest, path) in &self.components {
            let target = format!("/v1/artifacts/{digest}");
            if client.has(&target).await? {
                continue;
            }
            let bar = output.spinner(format!("uploading {}", path.display()));
            let read = file::spec_component(path)
                .with_context(|| format!("cannot read the component `{}`", path.display()));
            let uploaded = client.upload(&target, Bytes::from(read?)).await;
            bar.finish_and_clear();
            uploaded.map_err(|error| changed(error, path))?;
        }
        Ok(())
    }
}

/// What is refused for several reasons is shown with a line for each.
fn refused(error: ClientError) -> ClientError {
    match error {
        ClientError::Refused(mut refused) if refused.code == "Refused" => {
            refused.message = refused.details.join("\n");
            refused.hint = None;
            refused.message += "\nnothing was changed; what ran before goes on";
            ClientError::Refused(refused)
        }
        other => other,
    }
}

/// A component that has another digest by now was written to while this went on.
fn changed(error: ClientError, path: &std::path::Path) -> anyhow::Error {
    match error {
        ClientError::Refused(refused) if refused.code == "WrongDigest" => anyhow::anyhow!(
            "the component `{}` changed while it was uploaded: try again",
            path.display()
        ),
        other => other.into(),
    }
}

fn digest(path: &std::path::Path) -> std::io::Result<String> {
    Ok(Digest::of(&file::spec_component(path)?).to_hex())
}
