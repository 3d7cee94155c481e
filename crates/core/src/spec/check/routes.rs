//! Routes: no two services may claim the same requests.

use std::collections::BTreeMap;

use super::checker::Checker;
use crate::{
    object::Route,
    spec::{
        problem::{Draft, Place, ProblemKind},
        raw,
    },
};

impl Checker<'_, '_> {
    /// Reports routes that stand twice, in one service or in two that are both on.
    pub(super) fn routes(&mut self, spec: &raw::App) {
        let mut all: Vec<_> = spec
            .service
            .0
            .iter()
            .filter(|(name, _)| self.names.is_on(&name.value))
            .flat_map(|(name, service)| service.route.iter().map(move |route| (name, route)))
            .collect();
        // The later in the text is the one to complain about.
        all.sort_by_key(|(_, route)| route.place.span.start);
        let mut taken: BTreeMap<&Route, (&str, &Place)> = BTreeMap::new();
        for (name, route) in all {
            match taken.get(&route.value) {
                Some((other, first)) => {
                    let message = match *other == name.value.as_str() {
                        true => format!("the route {} is given twice", route.shown()),
                        false => format!("the route {} belongs to `{other}`", route.shown()),
                    };
                    let hint = "remove one of the two, or give them different hosts or prefixes";
                    let draft = Draft::new(&route.place, ProblemKind::Conflict, message, hint);
                    self.decoder
                        .report
                        .add(draft.also(&first.span, "first given here"));
                }
                None => {
                    taken.insert(&route.value, (name.value.as_str(), &route.place));
                }
            }
        }
    }
}
