//! Guests written as text, each for one trait that compilers do not produce.

/// A WASI 0.2 HTTP handler. `module` exports `handle`, which takes a request and an outparam.
pub(crate) fn handler(module: &str) -> Vec<u8> {
    component(&format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (core module $m {module})
            (core instance $i (instantiate $m))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $i "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    ))
}

/// A handler that does only this.
pub(crate) fn handler_that(body: &str) -> Vec<u8> {
    handler(&format!(
        r#"(func (export "handle") (param i32 i32) {body})"#
    ))
}

/// A handler that answers with an empty body and then does this.
pub(crate) fn handler_that_answers_and(body: &str) -> Vec<u8> {
    answering("", body)
}

/// A handler that answers its first request with an empty body, and all others not at all.
pub(crate) fn handler_that_answers_once() -> Vec<u8> {
    let once = "(if (global.get $done) (then (return))) (global.set $done (i32.const 1))";
    answering(once, "")
}

fn answering(before: &str, body: &str) -> Vec<u8> {
    component(&format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "fields" (type $fields (sub resource)))
                (export "outgoing-response" (type $response (sub resource)))
                (export "response-outparam" (type $out (sub resource)))
                {ERROR_CODE}
                (export "[constructor]fields" (func (result (own $fields))))
                (export "[constructor]outgoing-response" (func
                    (param "headers" (own $fields)) (result (own $response))))
                (export "[static]response-outparam.set" (func (param "param" (own $out))
                    (param "response" (result (own $response) (error $error-code)))))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (core module $memory (memory (export "memory") 1))
            (core instance $memory (instantiate $memory))
            (core func $fields (canon lower (func $types "[constructor]fields")))
            (core func $response (canon lower (func $types "[constructor]outgoing-response")))
            (core func $set (canon lower (func $types "[static]response-outparam.set")
                (memory (core memory $memory "memory"))))
            (core module $m
                (import "" "fields" (func $fields (result i32)))
                (import "" "response" (func $response (param i32) (result i32)))
                (import "" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
                (global $done (mut i32) (i32.const 0))
                (func (export "handle") (param $request i32) (param $out i32)
                    {before}
                    (call $set (local.get $out) (i32.const 0)
                        (call $response (call $fields))
                        (i32.const 0) (i64.const 0)
                        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
                    {body}))
            (core instance $i (instantiate $m (with "" (instance
                (export "fields" (func $fields))
                (export "response" (func $response))
                (export "set" (func $set))))))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $i "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    ))
}

/// A handler that answers with this status and an empty body.
pub(crate) fn handler_with_status(status: u16) -> Vec<u8> {
    component(&format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "fields" (type $fields (sub resource)))
                (export "outgoing-response" (type $response (sub resource)))
                (export "response-outparam" (type $out (sub resource)))
                {ERROR_CODE}
                (export "[constructor]fields" (func (result (own $fields))))
                (export "[constructor]outgoing-response" (func
                    (param "headers" (own $fields)) (result (own $response))))
                (export "[method]outgoing-response.set-status-code" (func
                    (param "self" (borrow $response)) (param "status-code" u16)
                    (result (result))))
                (export "[static]response-outparam.set" (func (param "param" (own $out))
                    (param "response" (result (own $response) (error $error-code)))))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (core module $memory (memory (export "memory") 1))
            (core instance $memory (instantiate $memory))
            (core func $fields (canon lower (func $types "[constructor]fields")))
            (core func $response (canon lower (func $types "[constructor]outgoing-response")))
            (core func $status (canon lower
                (func $types "[method]outgoing-response.set-status-code")))
            (core func $set (canon lower (func $types "[static]response-outparam.set")
                (memory (core memory $memory "memory"))))
            (core module $m
                (import "" "fields" (func $fields (result i32)))
                (import "" "response" (func $response (param i32) (result i32)))
                (import "" "status" (func $status (param i32 i32) (result i32)))
                (import "" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
                (func (export "handle") (param $request i32) (param $out i32) (local $made i32)
                    (local.set $made (call $response (call $fields)))
                    (drop (call $status (local.get $made) (i32.const {status})))
                    (call $set (local.get $out) (i32.const 0) (local.get $made)
                        (i32.const 0) (i64.const 0)
                        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))
            (core instance $i (instantiate $m (with "" (instance
                (export "fields" (func $fields))
                (export "response" (func $response))
                (export "status" (func $status))
                (export "set" (func $set))))))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $i "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    ))
}

/// A handler whose start function waits for ever.
pub(crate) fn sleepy_handler() -> Vec<u8> {
    component(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (import "wasi:io/poll@0.2.0" (instance $poll
                (export "pollable" (type $pollable (sub resource)))
                (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
            (alias export $poll "pollable" (type $pollable))
            (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
                (alias outer 1 $pollable (type $p))
                (export "pollable" (type $pollable (eq $p)))
                (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
            (core func $block (canon lower (func $poll "[method]pollable.block")))
            (core func $timer (canon lower (func $clock "subscribe-duration")))
            (core module $m
                (import "" "block" (func $block (param i32)))
                (import "" "timer" (func $timer (param i64) (result i32)))
                (func $start (call $block (call $timer (i64.const 0x7fffffffffffffff))))
                (start $start)
                (func (export "handle") (param i32 i32)))
            (core instance $i (instantiate $m (with "" (instance
                (export "block" (func $block)) (export "timer" (func $timer))))))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $i "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#,
    )
}

/// A WASI 0.2 handler that does only this. `$wait` waits for so many nanoseconds, `$burn` takes a
/// few milliseconds for each million turns.
pub(crate) fn timed_handler(body: &str) -> Vec<u8> {
    component(&format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (import "wasi:io/poll@0.2.0" (instance $poll
                (export "pollable" (type $pollable (sub resource)))
                (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
            (alias export $poll "pollable" (type $pollable))
            (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
                (alias outer 1 $pollable (type $p))
                (export "pollable" (type $pollable (eq $p)))
                (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
            (core func $block (canon lower (func $poll "[method]pollable.block")))
            (core func $timer (canon lower (func $clock "subscribe-duration")))
            (core func $drop (canon resource.drop $pollable))
            (core module $m
                (import "" "block" (func $block (param i32)))
                (import "" "timer" (func $timer (param i64) (result i32)))
                (import "" "drop" (func $drop (param i32)))
                (func $wait (param i64) (local i32)
                    (local.set 1 (call $timer (local.get 0)))
                    (call $block (local.get 1))
                    (call $drop (local.get 1)))
                {BURN}
                (func (export "handle") (param i32 i32) {body}))
            (core instance $i (instantiate $m (with "" (instance
                (export "block" (func $block)) (export "timer" (func $timer))
                (export "drop" (func $drop))))))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $i "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    ))
}

/// The same with WASI 0.3.
pub(crate) fn timed_handler_p3(body: &str) -> Vec<u8> {
    component(&format!(
        r#"(component
            (import "wasi:http/types@0.3.0" (instance $types
                (export "request" (type (sub resource)))
                (export "response" (type (sub resource)))
                {ERROR_CODE}))
            (alias export $types "request" (type $request))
            (alias export $types "response" (type $response))
            (alias export $types "error-code" (type $error))
            (import "wasi:clocks/monotonic-clock@0.3.0" (instance $clock
                (export "wait-for" (func async (param "how-long" u64)))))
            (core module $m
                (import "" "wait" (func $wait (param i64)))
                {BURN}
                (memory (export "memory") 1)
                (func (export "handle") (param i32) (result i32) {body} (i32.const 0))
                (func (export "callback") (param i32 i32 i32) (result i32) unreachable))
            (core func $wait (canon lower (func $clock "wait-for")))
            (core instance $i (instantiate $m (with "" (instance (export "wait" (func $wait))))))
            (func $handle async (param "request" (own $request))
                (result (result (own $response) (error $error)))
                (canon lift (core func $i "handle") async
                    (callback (core func $i "callback")) (memory (core memory $i "memory"))))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/handler@0.3.0" (instance $handler)))"#
    ))
}

/// Counts down from so many million.
const BURN: &str = "(func $burn (param i64)
    (local.set 0 (i64.mul (local.get 0) (i64.const 1000000)))
    (loop $again
        (local.set 0 (i64.sub (local.get 0) (i64.const 1)))
        (br_if $again (i64.ne (local.get 0) (i64.const 0)))))";

/// A WASI 0.3 HTTP handler. The result of `body` is what an async handler returns to its host; the
/// import `set` makes a set of things to wait for.
pub(crate) fn handler_p3_that(body: &str) -> Vec<u8> {
    component(&format!(
        r#"(component
            (import "wasi:http/types@0.3.0" (instance $types
                (export "request" (type (sub resource)))
                (export "response" (type (sub resource)))
                {ERROR_CODE}))
            (alias export $types "request" (type $request))
            (alias export $types "response" (type $response))
            (alias export $types "error-code" (type $error))
            (import "wasi:clocks/monotonic-clock@0.3.0" (instance $clock
                (export "wait-for" (func async (param "how-long" u64)))))
            (core module $m
                (import "" "set" (func $set (result i32)))
                (import "" "join" (func $join (param i32 i32)))
                (import "" "wait-for" (func $wait-for (param i64) (result i32)))
                (func $wait-an-hour (result i32) (local $all i32)
                    (local.set $all (call $set))
                    (call $join
                        (i32.shr_u (call $wait-for (i64.const 3600000000000)) (i32.const 4))
                        (local.get $all))
                    (i32.or (i32.const 2) (i32.shl (local.get $all) (i32.const 4))))
                (memory (export "memory") 1)
                (func (export "handle") (param i32) (result i32) {body})
                (func (export "callback") (param i32 i32 i32) (result i32) unreachable))
            (core func $set (canon waitable-set.new))
            (core func $join (canon waitable.join))
            (core func $wait-for (canon lower (func $clock "wait-for") async))
            (core instance $i (instantiate $m
                (with "" (instance
                    (export "set" (func $set))
                    (export "join" (func $join))
                    (export "wait-for" (func $wait-for))))))
            (func $handle async (param "request" (own $request))
                (result (result (own $response) (error $error)))
                (canon lift (core func $i "handle") async
                    (callback (core func $i "callback")) (memory (core memory $i "memory"))))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/handler@0.3.0" (instance $handler)))"#
    ))
}

/// Waits for a timer: what others do does not matter.
pub(crate) const WAIT_AN_HOUR: &str = "(call $wait-an-hour)";

/// Waits for ever: the code that means "wait", with a set that nothing is ever in.
pub(crate) const WAIT_FOR_EVER: &str = "(i32.or (i32.const 2) (i32.shl (call $set) (i32.const 4)))";

const ERROR_CODE: &str = r#"
    (type $dns (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns-error (eq $dns)))
    (type $tls (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $tls-alert (eq $tls)))
    (type $size (record (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $field-size (eq $size)))
    (type $code (variant
        (case "DNS-timeout")
        (case "DNS-error" $dns-error)
        (case "destination-not-found")
        (case "destination-unavailable")
        (case "destination-IP-prohibited")
        (case "destination-IP-unroutable")
        (case "connection-refused")
        (case "connection-terminated")
        (case "connection-timeout")
        (case "connection-read-timeout")
        (case "connection-write-timeout")
        (case "connection-limit-reached")
        (case "TLS-protocol-error")
        (case "TLS-certificate-error")
        (case "TLS-alert-received" $tls-alert)
        (case "HTTP-request-denied")
        (case "HTTP-request-length-required")
        (case "HTTP-request-body-size" (option u64))
        (case "HTTP-request-method-invalid")
        (case "HTTP-request-URI-invalid")
        (case "HTTP-request-URI-too-long")
        (case "HTTP-request-header-section-size" (option u32))
        (case "HTTP-request-header-size" (option $field-size))
        (case "HTTP-request-trailer-section-size" (option u32))
        (case "HTTP-request-trailer-size" $field-size)
        (case "HTTP-response-incomplete")
        (case "HTTP-response-header-section-size" (option u32))
        (case "HTTP-response-header-size" $field-size)
        (case "HTTP-response-body-size" (option u64))
        (case "HTTP-response-trailer-section-size" (option u32))
        (case "HTTP-response-trailer-size" $field-size)
        (case "HTTP-response-transfer-coding" (option string))
        (case "HTTP-response-content-coding" (option string))
        (case "HTTP-response-timeout")
        (case "HTTP-upgrade-failed")
        (case "HTTP-protocol-error")
        (case "loop-detected")
        (case "configuration-error")
        (case "internal-error" (option string))))
    (export "error-code" (type $error-code (eq $code)))"#;

/// A WASI 0.2 command whose `run` has this body; 0 is success.
pub(crate) fn command_that(body: &str) -> Vec<u8> {
    component(&format!(
        r#"(component
            (core module $m (func (export "run") (result i32) {body}))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $run-instance (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $run-instance)))"#
    ))
}

/// A WASI 0.3 command whose `run` has this body; 0 is success.
pub(crate) fn command_p3_that(body: &str) -> Vec<u8> {
    component(&format!(
        r#"(component
            (core module $m (func (export "run") (result i32) {body}))
            (core instance $i (instantiate $m))
            (func $run async (result (result)) (canon lift (core func $i "run")))
            (instance $run-instance (export "run" (func $run)))
            (export "wasi:cli/run@0.3.0" (instance $run-instance)))"#
    ))
}

/// A WASI 0.3 command that waits for the events of a set in which nothing is.
pub(crate) fn waiter() -> Vec<u8> {
    component(
        r#"(component
            (core module $memory (memory (export "memory") 1))
            (core instance $memory (instantiate $memory))
            (canon waitable-set.new (core func $new))
            (canon waitable-set.wait (memory (core memory $memory "memory"))
                (core func $wait))
            (core module $m
                (import "" "new" (func $new (result i32)))
                (import "" "wait" (func $wait (param i32 i32) (result i32)))
                (func (export "run") (result i32) (call $wait (call $new) (i32.const 0))))
            (core instance $i (instantiate $m (with "" (instance
                (export "new" (func $new)) (export "wait" (func $wait))))))
            (func $run async (result (result)) (canon lift (core func $i "run")))
            (instance $run-instance (export "run" (func $run)))
            (export "wasi:cli/run@0.3.0" (instance $run-instance)))"#,
    )
}

/// A WASI 0.2 command that exports a `pre-stop`, which nothing can call while it runs.
pub(crate) fn deaf_command() -> Vec<u8> {
    component(
        r#"(component
            (core module $m
                (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
                (func (export "run") (result i32) (i32.const 0))
                (func (export "pre-stop") (result i32) (i32.const 0)))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (func $pre-stop (result (result (error string)))
                (canon lift (core func $i "pre-stop") (memory (core memory $i "memory"))
                    (realloc (core func $i "realloc"))))
            (instance $run-instance (export "run" (func $run)))
            (instance $lifecycle (export "pre-stop" (func $pre-stop)))
            (export "wasi:cli/run@0.2.0" (instance $run-instance))
            (export "sampan:pod/lifecycle@0.1.0" (instance $lifecycle)))"#,
    )
}

/// A command that tries to make a socket and to look a name up. It fails unless each is refused,
/// the sockets with `access-denied`, which is 1.
pub(crate) fn networker() -> Vec<u8> {
    component(NETWORKER)
}

const NETWORKER: &str = r#"(component
            (import "wasi:sockets/network@0.2.0" (instance $network
                (export "network" (type (sub resource)))
                (type $e (enum "unknown" "access-denied" "not-supported" "invalid-argument"
                    "out-of-memory" "timeout" "concurrency-conflict" "not-in-progress"
                    "would-block" "invalid-state" "new-socket-limit" "address-not-bindable"
                    "address-in-use" "remote-unreachable" "connection-refused"
                    "connection-reset" "connection-aborted" "datagram-too-large"
                    "name-unresolvable" "temporary-resolver-failure"
                    "permanent-resolver-failure"))
                (export "error-code" (type (eq $e)))
                (type $f (enum "ipv4" "ipv6"))
                (export "ip-address-family" (type (eq $f)))))
            (alias export $network "network" (type $network))
            (alias export $network "error-code" (type $error))
            (alias export $network "ip-address-family" (type $family))
            (import "wasi:sockets/instance-network@0.2.0" (instance $instance-network
                (alias outer 1 $network (type $n))
                (export "network" (type $network (eq $n)))
                (export "instance-network" (func (result (own $network))))))
            (import "wasi:sockets/tcp@0.2.0" (instance $tcp
                (export "tcp-socket" (type (sub resource)))))
            (alias export $tcp "tcp-socket" (type $tcp-socket))
            (import "wasi:sockets/udp@0.2.0" (instance $udp
                (export "udp-socket" (type (sub resource)))))
            (alias export $udp "udp-socket" (type $udp-socket))
            (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $tcp-create
                (alias outer 1 $error (type $e)) (export "error-code" (type $error (eq $e)))
                (alias outer 1 $family (type $f)) (export "ip-address-family" (type $family (eq $f)))
                (alias outer 1 $tcp-socket (type $s)) (export "tcp-socket" (type $socket (eq $s)))
                (export "create-tcp-socket" (func (param "address-family" $family)
                    (result (result (own $socket) (error $error)))))))
            (import "wasi:sockets/udp-create-socket@0.2.0" (instance $udp-create
                (alias outer 1 $error (type $e)) (export "error-code" (type $error (eq $e)))
                (alias outer 1 $family (type $f)) (export "ip-address-family" (type $family (eq $f)))
                (alias outer 1 $udp-socket (type $s)) (export "udp-socket" (type $socket (eq $s)))
                (export "create-udp-socket" (func (param "address-family" $family)
                    (result (result (own $socket) (error $error)))))))
            (import "wasi:sockets/ip-name-lookup@0.2.0" (instance $lookup
                (alias outer 1 $network (type $n)) (export "network" (type $network (eq $n)))
                (alias outer 1 $error (type $e)) (export "error-code" (type $error (eq $e)))
                (export "resolve-address-stream" (type $stream (sub resource)))
                (export "resolve-addresses" (func
                    (param "network" (borrow $network)) (param "name" string)
                    (result (result (own $stream) (error $error)))))))
            (core module $memory (memory (export "memory") 1) (data (i32.const 64) "localhost"))
            (core instance $memory (instantiate $memory))
            (alias core export $memory "memory" (core memory $bytes))
            (core func $network (canon lower (func $instance-network "instance-network")))
            (core func $tcp (canon lower
                (func $tcp-create "create-tcp-socket") (memory (core memory $bytes))))
            (core func $udp (canon lower
                (func $udp-create "create-udp-socket") (memory (core memory $bytes))))
            (core func $resolve (canon lower
                (func $lookup "resolve-addresses") (memory (core memory $bytes))))
            (core module $m
                (import "" "network" (func $network (result i32)))
                (import "" "tcp" (func $tcp (param i32 i32)))
                (import "" "udp" (func $udp (param i32 i32)))
                (import "" "resolve" (func $resolve (param i32 i32 i32 i32)))
                (import "" "memory" (memory 1))
                (func $denied (result i32)
                    (i32.and
                        (i32.eq (i32.load8_u (i32.const 0)) (i32.const 1))
                        (i32.eq (i32.load8_u (i32.const 4)) (i32.const 1))))
                (func (export "run") (result i32)
                    (call $tcp (i32.const 0) (i32.const 0))
                    (if (i32.eqz (call $denied)) (then (return (i32.const 1))))
                    (i64.store (i32.const 0) (i64.const 0))
                    (call $udp (i32.const 1) (i32.const 0))
                    (if (i32.eqz (call $denied)) (then (return (i32.const 1))))
                    (i64.store (i32.const 0) (i64.const 0))
                    (call $resolve (call $network) (i32.const 64) (i32.const 9) (i32.const 0))
                    (if (i32.eqz (i32.load8_u (i32.const 0))) (then (return (i32.const 1))))
                    (i32.const 0)))
            (core instance $i (instantiate $m (with "" (instance
                (export "network" (func $network))
                (export "tcp" (func $tcp))
                (export "udp" (func $udp))
                (export "resolve" (func $resolve))
                (export "memory" (memory $bytes))))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $run-instance (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $run-instance)))"#;

/// A command that prints `count` blocks of 4096 bytes, each of them `line` over and over.
pub(crate) fn printer(count: u32, line: &str) -> Vec<u8> {
    assert_eq!(4096 % line.len(), 0);
    let block = line.repeat(4096 / line.len()).replace('\n', "\\n");
    component(&format!(
        r#"(component
            (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
            (alias export $errors "error" (type $error))
            (import "wasi:io/streams@0.2.0" (instance $streams
                (export "output-stream" (type $stream (sub resource)))
                (alias outer 1 $error (type $outer-error))
                (export "error" (type $error (eq $outer-error)))
                (type $e (variant (case "last-operation-failed" (own $error)) (case "closed")))
                (export "stream-error" (type $stream-error (eq $e)))
                (export "[method]output-stream.blocking-write-and-flush"
                    (func (param "self" (borrow $stream)) (param "contents" (list u8))
                        (result (result (error $stream-error)))))))
            (alias export $streams "output-stream" (type $stream))
            (import "wasi:cli/stdout@0.2.0" (instance $stdout
                (alias outer 1 $stream (type $outer-stream))
                (export "output-stream" (type $stream (eq $outer-stream)))
                (export "get-stdout" (func (result (own $stream))))))
            (core module $memory (memory (export "memory") 1) (data (i32.const 1024) "{block}"))
            (core instance $memory (instantiate $memory))
            (core func $get (canon lower (func $stdout "get-stdout")))
            (core func $write (canon lower
                (func $streams "[method]output-stream.blocking-write-and-flush")
                (memory (core memory $memory "memory"))))
            (core module $m
                (import "" "get" (func $get (result i32)))
                (import "" "write" (func $write (param i32 i32 i32 i32)))
                (import "" "memory" (memory 1))
                (func (export "run") (result i32) (local $stream i32) (local $left i32)
                    (local.set $stream (call $get))
                    (local.set $left (i32.const {count}))
                    (loop $again
                        (call $write (local.get $stream) (i32.const 1024) (i32.const 4096) (i32.const 0))
                        (if (i32.load8_u (i32.const 0)) (then unreachable))
                        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                        (br_if $again (local.get $left)))
                    (i32.const 0)))
            (core instance $i (instantiate $m (with "" (instance
                (export "get" (func $get))
                (export "write" (func $write))
                (export "memory" (memory $memory "memory"))))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $run-instance (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $run-instance)))"#
    ))
}

pub(crate) fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}
