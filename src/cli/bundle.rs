//! A spec with everything that goes along with it to a node.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::Method;
use sampan_core::{digest::Digest, name::Name, object::App, secret::SecretValue, view};

use super::{
    Stop, build,
    output::Output,
    spec::{Read, SpecArguments},
};
use crate::{
    client::{Client, ClientError, quoted},
    file::{self, site::Site},
};

/// A spec that is good here, with the components that it names.
pub(super) struct Bundle {
    pub(super) app: App,
    pub(super) body: view::Apply,
    /// What may have to be uploaded, by its digest.
    contents: BTreeMap<String, Content>,
}

/// Something that a node may lack.
enum Content {
    Component(PathBuf),
    /// A static file, and its path in its directory.
    File(Rc<Files>, String),
    /// The manifest of static files.
    Manifest(Rc<Files>),
}

/// Static files of a service.
struct Files {
    directory: PathBuf,
    site: Site,
}

impl Content {
    /// The bytes as they are now.
    fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Component(path) => file::spec_component(path)
                .with_context(|| format!("cannot read the component `{}`", path.display())),
            Self::File(files, path) => {
                let read = files.site.bytes(path);
                read.with_context(|| cannot_serve(&files.directory))
            }
            Self::Manifest(files) => Ok(files.site.manifest.to_bytes()),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Component(path) => path.display().to_string(),
            Self::File(files, path) => files.directory.join(path).display().to_string(),
            Self::Manifest(files) => format!("the list of `{}`", files.directory.display()),
        }
    }
}

fn cannot_serve(directory: &Path) -> String {
    format!("cannot serve the files of `{}`", directory.display())
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
        let mut contents = BTreeMap::new();
        let mut digests = BTreeMap::new();
        let (sites, services): (Vec<_>, Vec<_>) =
            (read.app.services.values()).partition(|it| it.site.is_some());
        for service in sites {
            let directory = base.join(&service.component.path);
            let digest = files(directory, &mut contents).map_err(Stop::usage)?;
            digests.insert(service.name.to_string(), digest);
        }
        let services = services.into_iter().map(|it| (&it.name, &it.component));
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
            contents.insert(digest, Content::Component(path));
        }
        let body = view::Apply {
            spec: read.text,
            path: arguments.file.display().to_string(),
            base: absolute.display().to_string(),
            environment: read.environment,
            files: read.files,
            secrets: sent(read.secrets),
            profiles: arguments.profile.clone(),
            replicas: BTreeMap::new(),
            components: digests,
            cause: format!("apply of {}", arguments.file.display()),
        };
        Ok(Self {
            app: read.app,
            body,
            contents,
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

    /// Uploads what the node lacks.
    pub(super) async fn upload(&self, client: &Client, output: &Output) -> Result<(), Stop> {
        for (digest, content) in &self.contents {
            let target = format!("/v1/artifacts/{digest}");
            if client.has(&target).await? {
                continue;
            }
            let shown = content.shown();
            let bar = output.spinner(format!("uploading {shown}"));
            let uploaded = client.upload(&target, Bytes::from(content.read()?)).await;
            bar.finish_and_clear();
            uploaded.map_err(|error| changed(error, &shown))?;
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

/// Values of secrets as they are sent.
fn sent(secrets: BTreeMap<Name, SecretValue>) -> view::Secrets {
    let secrets = secrets.into_iter();
    view::Secrets(
        secrets
            .map(|(name, value)| (name.to_string(), value))
            .collect(),
    )
}

/// Notes the files of a directory for the upload, and tells the digest of their manifest.
fn files(directory: PathBuf, contents: &mut BTreeMap<String, Content>) -> anyhow::Result<String> {
    let site = Site::read(&directory).with_context(|| cannot_serve(&directory))?;
    let files = Rc::new(Files { directory, site });
    for (path, file) in &files.site.manifest.files {
        let content = Content::File(Rc::clone(&files), path.clone());
        contents.insert(file.digest.clone(), content);
    }
    let digest = Digest::of(&files.site.manifest.to_bytes()).to_hex();
    contents.insert(digest.clone(), Content::Manifest(files));
    Ok(digest)
}

/// What has another digest by now was written to while this went on.
fn changed(error: ClientError, shown: &str) -> anyhow::Error {
    match error {
        ClientError::Refused(refused) if refused.code == "WrongDigest" => {
            anyhow::anyhow!("`{shown}` changed while it was uploaded: try again")
        }
        other => other.into(),
    }
}

fn digest(path: &std::path::Path) -> std::io::Result<String> {
    Ok(Digest::of(&file::spec_component(path)?).to_hex())
}
