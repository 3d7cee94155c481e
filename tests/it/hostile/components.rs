//! Components that no pod can be made of.

use std::{fmt::Write as _, fs, path::Path};

use crate::rig::Running;

/// A component, and what is said when it is refused.
pub(super) struct Bad {
    pub(super) name: &'static str,
    make: fn() -> Vec<u8>,
    said: &'static str,
}

/// All of them.
pub(super) const ALL: &[Bad] = &[
    Bad {
        name: "no component",
        make: || b"not WebAssembly".to_vec(),
        said: "WebAssembly",
    },
    Bad {
        name: "start never returns",
        make: || handler("(func $spin (loop $l (br $l))) (start $spin)"),
        said: "no instance can be made: killed for spinning",
    },
    Bad {
        name: "two gibibytes from the start",
        make: || handler("(memory 32768)"),
        said: "2048 MiB of initial memory",
    },
    Bad {
        name: "64-bit memory",
        make: || handler("(memory i64 1)"),
        said: "memory64",
    },
    Bad {
        name: "ten million table elements",
        make: || handler("(table 10000000 funcref)"),
        said: "table",
    },
    Bad {
        name: "an import that does not exist",
        make: || {
            let import = r#"(import "evil:host/escape@1.0.0" (instance
                (export "run" (func (param "command" string)))))"#;
            component(import, "")
        },
        said: "evil:host/escape",
    },
    Bad {
        name: "a compile bomb",
        make: bomb,
        said: "compiling needs more memory than `compile.memory`",
    },
];

impl Bad {
    /// Puts it where the component of a running service is, and waits until it has been refused.
    pub(super) async fn replace(&self, place: &Path, running: &mut Running) {
        fs::write(place, (self.make)()).expect("writable");
        let refusal = running.line_with("victim | change refused, the old version stays");
        // That of a pod that does not start has been said before.
        if !refusal.contains(self.said) {
            running.line_with(self.said);
        }
    }
}

/// A handler with these in its module.
fn handler(module: &str) -> Vec<u8> {
    component("", module)
}

/// A handler with these imports, and with these in its module.
fn component(imports: &str, module: &str) -> Vec<u8> {
    let text = format!(
        r#"(component {imports}
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (core module $m {module} (func (export "handle") (param i32 i32)))
            (core instance $i (instantiate $m))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $i "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    );
    wat::parse_str(text).expect("a component")
}

/// One function in which many values live for long: small to write, and much to compile.
pub(crate) fn bomb() -> Vec<u8> {
    const LOCALS: usize = 1500;
    let mut body = format!("(func (local {})", "i32 ".repeat(LOCALS));
    for block in 0..20_000 {
        let (a, b) = (block * 7 % LOCALS, block * 13 % LOCALS);
        let _ = write!(
            body,
            "(if (local.get {a}) (then (local.set {b} (i32.add (local.get {a}) (i32.const {block})))))"
        );
    }
    body.push(')');
    handler(&body)
}
