//! Files that take for ever, and what is no file: no thread of the host is kept by them.

use std::{fs, os::unix::net::UnixListener, path::Path};

use bytes::Bytes;
use http_body_util::Full;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use sampan_core::object::{Access, Grants, Mount, MountSource};
use sampan_runtime::{command::Exit, pod::Pod};

use super::commands::run_with;
use super::rig::{ask, in_time, limits, lines, load, plan, pod_name, runtime, text_of, workload};
use super::text::component;

fn lend(host: &Path) -> Grants {
    Grants {
        files: vec![Mount {
            source: MountSource::Host(host.to_owned()),
            guest: "/data".to_owned(),
            access: Access::ReadWrite,
        }],
        ..Grants::default()
    }
}

fn fifo(path: &Path) {
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, path, FileType::Fifo, mode, 0).expect("a FIFO");
}

async fn with_files(host: &Path) -> Pod {
    let mut plan = plan(workload("env-and-files"));
    plan.grants = lend(host);
    plan.start().await
}

async fn put(pod: &Pod, path: &str) -> u16 {
    let request = http::Request::put(format!("http://test{path}"));
    let request = request.body(Full::new(Bytes::from_static(b"text")));
    let response = in_time(pod.call(request.expect("a request"), None)).await;
    let response = response.expect("an answer");
    let status = response.status().as_u16();
    text_of(response.into_body()).await.expect("a whole body");
    status
}

/// Threads of this process with this name.
fn threads(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("threads");
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|it| it.trim() == name).count()
}

/// To open it would wait for the other end; so would each request.
#[tokio::test]
async fn what_is_no_file_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fifo(&path("pipe"));
    std::os::unix::fs::symlink("pipe", path("link")).expect("made");
    let _socket = UnixListener::bind(path("socket")).expect("bound");
    fs::write(path("file"), "content").expect("written");
    let pod = with_files(folder.path()).await;
    for _ in 0..20 {
        for name in ["pipe", "link", "socket"] {
            let path = format!("/file/{name}");
            let (status, text) = in_time(ask(&pod, &path)).await.expect(name);
            assert!(status >= 400, "{name}: {status} {text}");
            let status = put(&pod, &path).await;
            assert!(status >= 400, "{name}: {status}");
        }
    }
    let said = lines(runtime(), pod.name());
    for name in ["pipe", "link", "socket"] {
        let told = format!("denied: opening `{name}`, which is a FIFO or a socket");
        let is_told = said.iter().any(|line| line.text.starts_with(&told));
        assert!(is_told, "{told} is not in {said:?}");
    }
    let answer = in_time(ask(&pod, "/file/file")).await;
    assert_eq!(answer, Ok((200, "content".to_owned())));
    // What a guest does with files is done there, and nowhere else.
    let used = threads("sampan-files");
    assert!((1..=8).contains(&used), "{used} threads");
}

#[tokio::test]
async fn a_device_is_refused_at_once() {
    let pod = with_files(Path::new("/dev")).await;
    for name in ["zero", "null", "tty"] {
        let (status, text) = in_time(ask(&pod, &format!("/file/{name}")))
            .await
            .expect(name);
        assert!(status >= 400, "{name}: {status} {text}");
    }
    let said = lines(runtime(), pod.name());
    let told = "denied: opening `zero`, which is a device";
    assert!(said.iter().any(|it| it.text.starts_with(told)), "{said:?}");
}

/// The streams of WASI 0.3 are Sampan's own.
#[tokio::test]
async fn a_guest_of_wasi_0_3_reads_writes_and_lists() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    // More than is read at once, and no whole number of that.
    let text: String = (0..60_000).map(|n| format!("{n} ")).collect();
    fs::write(path("in"), &text).expect("written");
    fs::write(path("out"), "so far: ").expect("written");
    fifo(&path("pipe"));
    // More than are read at once, too.
    for n in 0..597 {
        fs::write(path(&format!("file {n}")), "").expect("written");
    }
    let loaded = load(&component(&FILES.replace("ENTRIES", "600"))).await;
    let name = pod_name();
    let (grants, limits) = (lend(folder.path()), limits());
    let ended = run_with(runtime(), &loaded, name.clone(), &[], &grants, &limits).await;
    let ended = ended.expect("a start");
    assert_eq!(ended.exit, Exit::Code(0), "{:?}", lines(runtime(), &name));
    let written = fs::read_to_string(path("out")).expect("there");
    assert!(
        written == format!("so far: {text}"),
        "{} bytes",
        written.len()
    );
}

/// A command that appends the file `in` to the file `out`, is refused the FIFO `pipe` as
/// `unsupported`, which is 26, and counts the entries of the directory.
pub(crate) const FILES: &str = r#"(component
    (import "wasi:filesystem/types@0.3.0" (instance $types
        (export "descriptor" (type $d (sub resource)))
        (type $e (variant (case "access") (case "already") (case "bad-descriptor") (case "busy")
            (case "deadlock") (case "quota") (case "exist") (case "file-too-large")
            (case "illegal-byte-sequence") (case "in-progress") (case "interrupted")
            (case "invalid") (case "io") (case "is-directory") (case "loop")
            (case "too-many-links") (case "message-size") (case "name-too-long")
            (case "no-device") (case "no-entry") (case "no-lock") (case "insufficient-memory")
            (case "insufficient-space") (case "not-directory") (case "not-empty")
            (case "not-recoverable") (case "unsupported") (case "no-tty")
            (case "no-such-device") (case "overflow") (case "not-permitted") (case "pipe")
            (case "read-only") (case "invalid-seek") (case "text-file-busy")
            (case "cross-device") (case "other" (option string))))
        (export "error-code" (type $error (eq $e)))
        (type $pf (flags "symlink-follow"))
        (export "path-flags" (type $path-flags (eq $pf)))
        (type $of (flags "create" "directory" "exclusive" "truncate"))
        (export "open-flags" (type $open-flags (eq $of)))
        (type $df (flags "read" "write" "file-integrity-sync" "data-integrity-sync"
            "requested-write-sync" "mutate-directory"))
        (export "descriptor-flags" (type $flags (eq $df)))
        (type $dt (variant (case "block-device") (case "character-device") (case "directory")
            (case "fifo") (case "symbolic-link") (case "regular-file") (case "socket")
            (case "other" (option string))))
        (export "descriptor-type" (type $kind (eq $dt)))
        (type $de (record (field "type" $kind) (field "name" string)))
        (export "directory-entry" (type $entry (eq $de)))
        (export "[method]descriptor.open-at" (func async (param "self" (borrow $d))
            (param "path-flags" $path-flags) (param "path" string)
            (param "open-flags" $open-flags) (param "flags" $flags)
            (result (result (own $d) (error $error)))))
        (export "[method]descriptor.read-via-stream" (func (param "self" (borrow $d))
            (param "offset" u64)
            (result (tuple (stream u8) (future (result (error $error)))))))
        (export "[method]descriptor.append-via-stream" (func (param "self" (borrow $d))
            (param "data" (stream u8)) (result (future (result (error $error))))))
        (export "[method]descriptor.read-directory" (func (param "self" (borrow $d))
            (result (tuple (stream $entry) (future (result (error $error)))))))))
    (alias export $types "descriptor" (type $d))
    (alias export $types "error-code" (type $error))
    (alias export $types "directory-entry" (type $entry))
    (import "wasi:filesystem/preopens@0.3.0" (instance $preopens
        (alias outer 1 $d (type $o))
        (export "descriptor" (type $p (eq $o)))
        (export "get-directories" (func (result (list (tuple (own $p) string)))))))
    (type $bytes (stream u8))
    (type $entries (stream $entry))
    (type $ended (future (result (error $error))))
    (core module $memory
        (memory (export "memory") 16)
        (global $next (mut i32) (i32.const 262144))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local i32)
            (local.set 4 (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
            (global.set $next (i32.add (local.get 4) (local.get 3)))
            (local.get 4)))
    (core instance $memory (instantiate $memory))
    (alias core export $memory "memory" (core memory $m))
    (alias core export $memory "realloc" (core func $realloc))
    (core func $directories (canon lower (func $preopens "get-directories")
        (memory $m) (realloc $realloc)))
    (core func $open (canon lower (func $types "[method]descriptor.open-at")
        (memory $m) (realloc $realloc)))
    (core func $read-via (canon lower (func $types "[method]descriptor.read-via-stream")
        (memory $m)))
    (core func $append-via (canon lower (func $types "[method]descriptor.append-via-stream")))
    (core func $list-via (canon lower (func $types "[method]descriptor.read-directory")
        (memory $m)))
    (core func $new (canon stream.new $bytes))
    (core func $read (canon stream.read $bytes async (memory $m)))
    (core func $write (canon stream.write $bytes async (memory $m)))
    (core func $drop-write (canon stream.drop-writable $bytes))
    (core func $list (canon stream.read $entries async
        (memory $m) (realloc $realloc)))
    (core func $end (canon future.read $ended async (memory $m) (realloc $realloc)))
    (core func $set (canon waitable-set.new))
    (core func $join (canon waitable.join))
    (core func $await (canon waitable-set.wait (memory $m)))
    (core module $main
        (import "" "memory" (memory 16))
        (import "" "directories" (func $directories (param i32)))
        (import "" "open" (func $open (param i32 i32 i32 i32 i32 i32 i32)))
        (import "" "read-via" (func $read-via (param i32 i64 i32)))
        (import "" "append-via" (func $append-via (param i32 i32) (result i32)))
        (import "" "list-via" (func $list-via (param i32 i32)))
        (import "" "new" (func $new (result i64)))
        (import "" "read" (func $read (param i32 i32 i32) (result i32)))
        (import "" "write" (func $write (param i32 i32 i32) (result i32)))
        (import "" "drop-write" (func $drop-write (param i32)))
        (import "" "list" (func $list (param i32 i32 i32) (result i32)))
        (import "" "end" (func $end (param i32 i32) (result i32)))
        (import "" "set" (func $set (result i32)))
        (import "" "join" (func $join (param i32 i32)))
        (import "" "await" (func $await (param i32 i32) (result i32)))
        (data (i32.const 1024) "inoutpipe")
        ;; What has come of an operation on a handle, at the latest when that is known.
        (func $done (param $handle i32) (param $code i32) (result i32) (local $set i32)
            (if (i32.ne (local.get $code) (i32.const -1)) (then (return (local.get $code))))
            (local.set $set (call $set))
            (call $join (local.get $handle) (local.get $set))
            (drop (call $await (local.get $set) (i32.const 128)))
            (call $join (local.get $handle) (i32.const 0))
            (i32.load (i32.const 132)))
        (func $check (param i32) (if (i32.eqz (local.get 0)) (then unreachable)))
        ;; A future that ends well.
        (func $ends (param i32)
            (call $check (i32.eqz (call $done (local.get 0)
                (call $end (local.get 0) (i32.const 64)))))
            (call $check (i32.eqz (i32.load8_u (i32.const 64)))))
        (func (export "run") (result i32)
            (local $dir i32) (local $from i32) (local $from-end i32) (local $to i32)
            (local $to-end i32) (local $pair i64) (local $n i32) (local $done i32)
            (local $status i32)
            (call $directories (i32.const 0))
            (local.set $dir (i32.load (i32.load (i32.const 0))))
            (call $open (local.get $dir) (i32.const 0) (i32.const 1024) (i32.const 2)
                (i32.const 0) (i32.const 1) (i32.const 8))
            (call $check (i32.eqz (i32.load8_u (i32.const 8))))
            (call $read-via (i32.load (i32.const 12)) (i64.const 0) (i32.const 0))
            (local.set $from (i32.load (i32.const 0)))
            (local.set $from-end (i32.load (i32.const 4)))
            (call $open (local.get $dir) (i32.const 0) (i32.const 1026) (i32.const 3)
                (i32.const 0) (i32.const 2) (i32.const 8))
            (call $check (i32.eqz (i32.load8_u (i32.const 8))))
            (local.set $pair (call $new))
            (local.set $to (i32.wrap_i64 (i64.shr_u (local.get $pair) (i64.const 32))))
            (local.set $to-end (call $append-via (i32.load (i32.const 12))
                (i32.wrap_i64 (local.get $pair))))
            (loop $piece
                (local.set $status (call $done (local.get $from)
                    (call $read (local.get $from) (i32.const 4096) (i32.const 100000))))
                (local.set $n (i32.shr_u (local.get $status) (i32.const 4)))
                (local.set $done (i32.const 0))
                (loop $part
                    (if (i32.lt_u (local.get $done) (local.get $n)) (then
                        (local.set $done (i32.add (local.get $done) (i32.shr_u
                            (call $done (local.get $to) (call $write (local.get $to)
                                (i32.add (i32.const 4096) (local.get $done))
                                (i32.sub (local.get $n) (local.get $done))))
                            (i32.const 4))))
                        (br $part))))
                (br_if $piece (i32.eqz (i32.and (local.get $status) (i32.const 15)))))
            (call $drop-write (local.get $to))
            (call $ends (local.get $to-end))
            (call $ends (local.get $from-end))
            (call $open (local.get $dir) (i32.const 0) (i32.const 1029) (i32.const 4)
                (i32.const 0) (i32.const 1) (i32.const 8))
            (call $check (i32.eq (i32.load8_u (i32.const 8)) (i32.const 1)))
            (call $check (i32.eq (i32.load8_u (i32.const 12)) (i32.const 26)))
            (call $list-via (local.get $dir) (i32.const 0))
            (local.set $from (i32.load (i32.const 0)))
            (local.set $from-end (i32.load (i32.const 4)))
            (local.set $done (i32.const 0))
            (loop $batch
                (local.set $status (call $done (local.get $from)
                    (call $list (local.get $from) (i32.const 4096) (i32.const 100))))
                (local.set $done (i32.add (local.get $done)
                    (i32.shr_u (local.get $status) (i32.const 4))))
                (br_if $batch (i32.eqz (i32.and (local.get $status) (i32.const 15)))))
            (call $check (i32.eq (local.get $done) (i32.const ENTRIES)))
            (call $ends (local.get $from-end))
            (i32.const 0)))
    (core instance $main (instantiate $main (with "" (instance
        (export "memory" (memory $m))
        (export "directories" (func $directories)) (export "open" (func $open))
        (export "read-via" (func $read-via)) (export "append-via" (func $append-via))
        (export "list-via" (func $list-via)) (export "new" (func $new))
        (export "read" (func $read)) (export "write" (func $write))
        (export "drop-write" (func $drop-write)) (export "list" (func $list))
        (export "end" (func $end)) (export "set" (func $set))
        (export "join" (func $join)) (export "await" (func $await))))))
    (func $run async (result (result)) (canon lift (core func $main "run")))
    (instance $run-instance (export "run" (func $run)))
    (export "wasi:cli/run@0.3.0" (instance $run-instance)))"#;
