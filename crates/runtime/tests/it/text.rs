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
            (core module $m
                (import "" "set" (func $set (result i32)))
                (memory (export "memory") 1)
                (func (export "handle") (param i32) (result i32) {body})
                (func (export "callback") (param i32 i32 i32) (result i32) unreachable))
            (core func $set (canon waitable-set.new))
            (core instance $i (instantiate $m
                (with "" (instance (export "set" (func $set))))))
            (func $handle async (param "request" (own $request))
                (result (result (own $response) (error $error)))
                (canon lift (core func $i "handle") async
                    (callback (core func $i "callback")) (memory (core memory $i "memory"))))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/handler@0.3.0" (instance $handler)))"#
    ))
}

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
    (export "error-code" (type (eq $code)))"#;

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
