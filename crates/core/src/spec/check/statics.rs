//! Static files in place of a component: which keys then mean something.

use super::checker::Checker;
use crate::{
    name::Name,
    site::{MAX_PATH_BYTES, Pages, is_served},
    spec::{
        kinds,
        problem::{ProblemKind, quoted},
        raw::{self, At, Text},
    },
};

/// What only a component can be asked for, and whether it is given.
macro_rules! given {
    ($raw:ident: $($key:ident),+) => {
        [$((stringify!($key), $raw.has(stringify!($key)))),+]
    };
}

impl Checker<'_, '_> {
    /// The pages of a service of static files, if it is one.
    pub(super) fn statics(&mut self, name: &Name, raw: &raw::Service) -> Option<Pages> {
        let has_component = raw.has("component");
        if !raw.has("static") {
            for (key, page) in [("fallback", &raw.fallback), ("not_found", &raw.not_found)] {
                if let Some(page) = page {
                    let hint = "remove it, or name the directory with `static = \"public\"`";
                    self.conflict(&page.place, format!("`{key}` needs `static`"), hint);
                }
            }
            return None;
        }
        let place = raw.r#static.as_ref().map_or(&raw.place, |it| &it.place);
        if has_component {
            let hint = "keep `component` for a guest, or `static` for files: a service of each can \
                        share a host by their routes";
            self.conflict(place, "a service has both `component` and `static`", hint);
        }
        let of_guests = given!(raw:
            digest, args, isolation, concurrency, max_requests, max_age, env, env_file, config,
            coredump, allow, limits, startup, readiness, liveness, restart, autoscale);
        for (key, _) in of_guests.iter().filter(|(_, is_given)| *is_given) {
            let message =
                format!("`{key}` is about a component, and the service has `static` files");
            let place = kinds::place(self.input.text, name, key);
            let hint = "remove it, or serve the files with a component of your own";
            self.conflict(&place, message, hint);
        }
        Some(Pages {
            fallback: self.page(raw.fallback.as_ref()),
            not_found: self.page(raw.not_found.as_ref()),
        })
    }

    fn page(&mut self, page: Option<&At<Text>>) -> Option<String> {
        let page = page?;
        let path = &page.value.0;
        if path.len() > MAX_PATH_BYTES || !path.split('/').all(is_served) {
            let message = format!("{} is no path of a file in `static`", quoted(path));
            let hint = "write it as in `index.html` or `errors/404.html`";
            self.decoder
                .problem(&page.place, ProblemKind::Value, message, hint);
            return None;
        }
        Some(path.clone())
    }
}
