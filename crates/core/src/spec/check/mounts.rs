//! Directories that a guest sees, and secrets as files.

use std::collections::BTreeMap;

use super::{checker::Checker, secrets::Form};
use crate::{
    name::Name,
    object::{Access, Mount, MountSource, VolumeUse},
    spec::{
        problem::{Draft, Place, ProblemKind, quoted},
        raw::{self, At},
    },
};

/// Where the secrets are that have no place of their own.
const SECRETS: &str = "/run/secrets";

/// Where a guest sees a mount.
struct Placed<'s> {
    path: String,
    place: &'s Place,
}

impl Checker<'_, '_> {
    pub(super) fn files(&mut self, on: bool, mounts: &[raw::Mount]) -> Vec<Mount> {
        let mut checked = Vec::new();
        let (mut directories, mut files) = (BTreeMap::new(), BTreeMap::new());
        for mount in mounts {
            let placed = self.guest(mount);
            let source = self.mount_source(on, mount);
            let Some(placed) = placed else { continue };
            let guest = placed.path.clone();
            match mount.has("secret") {
                true => self.placed(&mut files, placed, "secret"),
                false => self.placed(&mut directories, placed, "directory"),
            }
            checked.extend(source.map(|source| Mount {
                source,
                guest,
                access: mount.access.value,
            }));
        }
        self.apart(&directories, &files);
        checked
    }

    /// Where the guest sees the mount, if that can be said.
    fn guest<'s>(&mut self, mount: &'s raw::Mount) -> Option<Placed<'s>> {
        if let Some(guest) = &mount.guest {
            let (path, place) = (guest.value.0.clone(), &guest.place);
            return Some(Placed { path, place });
        }
        // What is wrong with a value that is there has been said.
        if mount.has("guest") {
            return None;
        }
        if mount.has("secret") {
            let name = mount.secret.as_ref()?;
            let path = format!("{SECRETS}/{}", name.value);
            let place = &name.place;
            return Some(Placed { path, place });
        }
        let message = "the key `guest` is missing";
        let hint = "add `guest = \"/data\"`";
        self.decoder
            .problem(&mount.place, ProblemKind::MissingKey, message, hint);
        None
    }

    /// Notes that something is at a place, at which nothing else may be.
    fn placed<'s>(
        &mut self,
        taken: &mut BTreeMap<String, &'s Place>,
        placed: Placed<'s>,
        what: &str,
    ) {
        let Placed { path, place } = placed;
        let Some(first) = taken.get(&path) else {
            taken.insert(path, place);
            return;
        };
        let message = format!("{} has a {what} already", quoted(&path));
        let hint = format!("give each {what} a path of its own in the guest");
        let draft = Draft::new(place, ProblemKind::Conflict, message, hint);
        self.decoder
            .report
            .add(draft.also(&first.span, "first given here"));
    }

    /// Sees to it that no secret is where a directory is, or in one, or above one.
    fn apart(&mut self, directories: &BTreeMap<String, &Place>, files: &BTreeMap<String, &Place>) {
        for (path, place) in files {
            let parent = parent(path);
            let (at, other) = match (directories.get(path), directories.get(parent)) {
                (Some(other), _) => (path.as_str(), other),
                (None, Some(other)) => (parent, other),
                (None, None) => continue,
            };
            let (path, at) = (quoted(path), quoted(at));
            let message = format!("the secret at {path} is in the place of the directory {at}");
            let hint = "give it a `guest` in a directory of its own, as in \"/run/secrets/db\"";
            let draft = Draft::new(place, ProblemKind::Conflict, message, hint);
            let draft = draft.also(&other.span, "the directory");
            self.decoder.report.add(draft);
        }
        for (path, place) in directories.iter().chain(files) {
            let mut above = parent(path);
            while above != "/" {
                if let Some(file) = files.get(above) {
                    let (path, above) = (quoted(path), quoted(above));
                    let message = format!("{path} lies below {above}, which is a file");
                    let hint = "give one of the two another `guest`";
                    let draft = Draft::new(place, ProblemKind::Conflict, message, hint);
                    self.decoder.report.add(draft.also(&file.span, "the file"));
                    break;
                }
                above = parent(above);
            }
        }
    }

    /// What is mounted: a directory of the host, a volume or a secret.
    fn mount_source(&mut self, on: bool, mount: &raw::Mount) -> Option<MountSource> {
        const KEYS: [&str; 3] = ["host", "volume", "secret"];
        let given: Vec<_> = KEYS.into_iter().filter(|key| mount.has(key)).collect();
        match given[..] {
            [] => {
                let message = "a mount has none of `host`, `volume` and `secret`";
                let hint = "add `host = \"data\"` for a directory of this machine, `volume = \
                            \"data\"` for one that the node keeps for the app, or `secret = \
                            \"db\"` for a secret";
                self.decoder
                    .problem(&mount.place, ProblemKind::MissingKey, message, hint);
                None
            }
            [_] => self.only_source(on, mount),
            [first, second, ..] => {
                let places = [
                    mount.host.as_ref().map(|it| &it.place),
                    mount.volume.as_ref().map(|it| &it.place),
                    mount.secret.as_ref().map(|it| &it.place),
                ];
                let mut places = places.into_iter().flatten();
                if let (Some(one), Some(other)) = (places.next(), places.next()) {
                    let message = format!("a mount has both `{first}` and `{second}`");
                    let hint = "keep `host` for a directory of this machine, `volume` for one that \
                                the node keeps for the app, or `secret` for a secret";
                    let draft = Draft::new(other, ProblemKind::Conflict, message, hint);
                    let draft = draft.also(&one.span, "the other one");
                    self.decoder.report.add(draft);
                }
                None
            }
        }
    }

    fn only_source(&mut self, on: bool, mount: &raw::Mount) -> Option<MountSource> {
        if let Some(host) = &mount.host {
            return Some(MountSource::Host(host.value.0.clone().into()));
        }
        if let Some(volume) = &mount.volume {
            return self.volume(volume);
        }
        let secret = mount.secret.as_ref()?;
        if mount.access.value == Access::ReadWrite {
            let message = "a secret cannot be written to";
            let hint = "remove `access`: a secret is read-only";
            self.conflict(&mount.access.place, message, hint);
        }
        let (names, decoder) = (&mut self.names, &mut *self.decoder);
        let secret = self.secrets.used(secret, Form::Bytes, on, names, decoder)?;
        Some(MountSource::Secret(secret))
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
}

/// The directory that a path in a guest is in.
fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((parent, _)) if !parent.is_empty() => parent,
        _ => "/",
    }
}
