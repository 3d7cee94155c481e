//! What all checks share.

use std::{collections::BTreeMap, rc::Rc};

use super::{names::Names, secrets::Secrets};
use crate::{
    name::Name,
    object::Volume,
    spec::{
        Input,
        problem::{Place, ProblemKind},
        raw::decode::Decoder,
    },
};

/// What checking needs beside the spec.
pub(super) struct Checker<'c, 'd> {
    pub(super) input: &'c Input<'c>,
    pub(super) decoder: &'c mut Decoder<'d>,
    pub(super) names: Names,
    pub(super) volumes: Volumes,
    pub(super) secrets: Secrets<'c>,
    /// Env files read so far; `None` for one that could not be read.
    pub(super) env_files: BTreeMap<String, Option<Rc<Variables>>>,
}

/// The volumes of the spec.
pub(super) struct Volumes {
    /// The app, if it has a good name.
    pub(super) app: Option<Name>,
    pub(super) declared: BTreeMap<Name, Volume>,
}

/// The variables of an env file.
pub(super) struct Variables {
    pub(super) list: Vec<(String, String)>,
    /// What they add to a spec that names the file.
    pub(super) bytes: usize,
}

impl Checker<'_, '_> {
    pub(super) fn conflict(
        &mut self,
        place: &Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.decoder
            .problem(place, ProblemKind::Conflict, message, hint);
    }
}
