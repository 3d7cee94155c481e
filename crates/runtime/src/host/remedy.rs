//! What would allow a guest what it was denied, in the words of a spec.

use sampan_core::{object::Outbound, spec};

/// What is said of a server that no rule of `allow.outbound` covers: the rule that would, if one
/// can. `PORT` in its text stands for a port that is not known.
pub(super) fn rule(text: &str, covers: impl Fn(&Outbound) -> bool) -> String {
    let whole = match text.strip_suffix(":PORT") {
        Some(server) => format!("{server}:1"),
        None => text.to_owned(),
    };
    match spec::server(&whole) {
        Ok(rule) if covers(&rule) => format!("`allow.outbound = [\"{text}\"]` would allow it"),
        Ok(_) | Err(_) => {
            "nothing allows it so: `allow.outbound` has names, as in `example.com`, and addresses, \
             as in `192.0.2.1` and `[2001:db8::1]`"
                .to_owned()
        }
    }
}
