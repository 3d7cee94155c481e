//! Keys of the spec whose feature is not there yet.
//!
//! They are part of the format and are checked like all others, but a spec that uses one is
//! refused: to take a limit and do nothing about it would be worse.

use toml::de::{DeTable, DeValue};

use super::problem::{Draft, Place, ProblemKind, Report};

/// Paths of keys, `*` for any name, and what they would do.
const UNSUPPORTED: [(&str, &str); 1] = [("service.*.autoscale", "an autoscaler")];

/// Reports every use of a key whose feature is not there yet.
pub(crate) fn report(root: &DeTable<'_>, report: &mut Report) {
    for (path, feature) in UNSUPPORTED {
        visit(root, &Place::root(), path, feature, report);
    }
}

/// Whether the feature of this key is not there yet; `*` stands for any name.
pub(crate) fn is_listed(path: &str) -> bool {
    UNSUPPORTED.iter().any(|(listed, _)| *listed == path)
}

fn visit(table: &DeTable<'_>, place: &Place, path: &str, feature: &str, report: &mut Report) {
    let (step, rest) = match path.split_once('.') {
        Some((step, rest)) => (step, Some(rest)),
        None => (path, None),
    };
    let matching = table
        .iter()
        .filter(|(key, _)| step == "*" || key.get_ref() == step);
    for (key, value) in matching {
        let place = place.child(key.get_ref(), key.span());
        match (rest, value.get_ref()) {
            (Some(rest), DeValue::Table(table)) => visit(table, &place, rest, feature, report),
            (Some(_), _) => {}
            (None, _) => {
                let message = format!("{feature} is not supported yet");
                let hint = format!("remove `{}` for now", place.key);
                report.add(Draft::new(&place, ProblemKind::NotSupported, message, hint));
            }
        }
    }
}
