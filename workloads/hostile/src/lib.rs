//! Does what a host must not allow: what limits, isolation and the watchdog are tried on (WASI 0.2).
//!
//! What ends well says in its answer how far it came.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /burn?ms=20` | computes for about that many milliseconds, then answers |
//! | `GET /work?turns=1000000` | computes that much, however long it takes, then answers |
//! | `GET /spin` | computes for ever |
//! | `GET /poll` | asks for the time for ever |
//! | `GET /trap` | dies at once |
//! | `GET /recurse` | calls itself until there is no stack left |
//! | `GET /mute` | returns without a response |
//! | `GET /hang` | waits for ever before its head |
//! | `GET /hang-after-head` | waits for ever after its head |
//! | `GET /die-after-head` | traps after its head and one line |
//! | `GET /flood` | writes a body that does not end |
//! | `GET /memory` | takes memory, and writes to it, until there is no more |
//! | `GET /resources` | makes handles of the host's and keeps them |
//! | `GET /fields` | makes a header that grows |
//! | `GET /random` | asks for a gibibyte of random bytes |
//! | `GET /huge` | hands the host a string of all its memory |
//! | `GET /log?lines=1000` | prints that many long lines with control characters in them |
//! | `GET /call?n=1000&url=http://hello/` | starts that many requests at once, then awaits them |
//! | `GET /files` | opens a file again and again and keeps it open |

use request_target::Target;
use wasip2::cli::stdout::get_stdout;
use wasip2::clocks::monotonic_clock::{now, subscribe_duration};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};
use wasip2::random::random::get_random_bytes;

/// How long `/burn` computes if the query does not say, in milliseconds.
const DEFAULT_BURN_MS: u64 = 20;
/// How much `/work` computes if the query does not say.
const DEFAULT_TURNS: u64 = 1_000_000;
/// How many lines `/log` prints, and how many requests `/call` starts, if the query does not say.
const DEFAULT_COUNT: u64 = 1000;
/// A page of WebAssembly memory, in bytes.
const PAGE: usize = 64 << 10;

struct Hostile;

wasip2::http::proxy::export!(Hostile);

impl Guest for Hostile {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let Some(target) = Target::parse(&request.path_with_query().unwrap_or_default()) else {
            return answer(response_out, 400, "bad request target\n");
        };
        let told = match target.path.as_str() {
            "/burn" => burn(target.number("ms", DEFAULT_BURN_MS).unwrap_or_default()),
            "/work" => work(target.number("turns", DEFAULT_TURNS).unwrap_or_default()),
            "/spin" => spin(),
            "/poll" => poll(),
            "/trap" => trap(),
            "/recurse" => format!("{} bytes deep\n", recurse(0)),
            "/mute" => return,
            "/hang" => hang(),
            "/hang-after-head" => {
                let _body = begin(response_out, 200);
                hang()
            }
            "/die-after-head" => die_after_head(response_out),
            "/flood" => return flood(response_out),
            "/memory" => memory(),
            "/resources" => resources(),
            "/fields" => fields(),
            "/random" => format!("{} random bytes\n", get_random_bytes(1 << 30).len()),
            "/huge" => huge(),
            "/log" => log(target.number("lines", DEFAULT_COUNT).unwrap_or_default()),
            "/call" => call(&target),
            "/files" => files(),
            _ => return answer(response_out, 404, "not found\n"),
        };
        answer(response_out, 200, &told);
    }
}

fn burn(ms: u64) -> String {
    let end = now().saturating_add(ms.saturating_mul(1_000_000));
    let mut turns = 0_u64;
    while now() < end {
        for _ in 0..10_000 {
            turns = std::hint::black_box(turns.wrapping_add(1));
        }
    }
    format!("burnt {ms} ms in {turns} turns\n")
}

/// The same work whatever the time: a host that gives it less of a processor has its answer later.
fn work(turns: u64) -> String {
    let mut done = 0_u64;
    while done < turns {
        done = std::hint::black_box(done.wrapping_add(1));
    }
    format!("{done} turns\n")
}

/// Never returns and never calls the host, so only the host's own clock can end it.
#[inline(never)]
fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        // Keeps the compiler from seeing that nothing comes of it.
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

/// Never returns, but calls the host all the time.
fn poll() -> ! {
    loop {
        std::hint::black_box(now());
    }
}

#[inline(never)]
fn trap() -> ! {
    std::process::abort()
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    if depth == std::hint::black_box(u64::MAX) {
        return depth;
    }
    let frame = std::hint::black_box([depth; 16]);
    recurse(depth + size_of_val(&frame) as u64).wrapping_add(frame[7] & 1)
}

fn hang() -> ! {
    loop {
        subscribe_duration(u64::MAX).block();
    }
}

fn die_after_head(response_out: ResponseOutparam) -> ! {
    let body = begin(response_out, 200);
    if let Ok(stream) = body.write() {
        let _ = stream.blocking_write_and_flush(b"these are the last words\n");
    }
    trap()
}

fn flood(response_out: ResponseOutparam) {
    let body = begin(response_out, 200);
    let Ok(stream) = body.write() else { return };
    while stream.blocking_write_and_flush(&[b'x'; 4096]).is_ok() {}
}

/// Touches every page, because memory that is only reserved costs the host nothing.
fn memory() -> String {
    let mut pages = 0_u64;
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut block = Vec::new();
        if block.try_reserve_exact(16 * PAGE).is_err() || blocks.try_reserve(1).is_err() {
            return format!("{} KiB\n", pages * 64);
        }
        block.resize(16 * PAGE, 1);
        pages += 16;
        blocks.push(block);
    }
}

fn resources() -> String {
    let mut kept = Vec::new();
    loop {
        kept.push(Fields::new());
        std::hint::black_box(&kept);
    }
}

fn fields() -> String {
    let fields = Fields::new();
    let value = vec![b'x'; 1024];
    let mut kib = 0_u64;
    while fields.append("x-grows", &value).is_ok() {
        kib += 1;
    }
    format!("{kib} KiB of fields\n")
}

fn huge() -> String {
    // Longer than the host copies, and within the memory of the guest.
    let text = "x".repeat(32 << 20);
    let fields = Fields::new();
    format!("{:?}\n", fields.set(&text, &[]).is_ok())
}

fn log(lines: u64) -> String {
    let mut line = b"\x1b[2J\x1b]0;owned\x07 ".to_vec();
    line.resize(1023, b'x');
    line.push(b'\n');
    let stdout = get_stdout();
    let mut printed = 0;
    while printed < lines && stdout.blocking_write_and_flush(&line).is_ok() {
        printed += 1;
    }
    format!("{printed} lines\n")
}

fn call(target: &Target) -> String {
    let (Some(count), Some(url)) = (target.number("n", DEFAULT_COUNT), target.value("url")) else {
        return "`n` or `url` is missing\n".to_owned();
    };
    let Some((host, path)) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
    else {
        return "`url` is not like `http://host/path`\n".to_owned();
    };
    let mut refused = 0_u64;
    let mut under_way = Vec::new();
    for _ in 0..count {
        let request = OutgoingRequest::new(Fields::new());
        let _ = request.set_scheme(Some(&Scheme::Http));
        let _ = request.set_authority(Some(host));
        let _ = request.set_path_with_query(Some(&format!("/{path}")));
        match outgoing_handler::handle(request, None) {
            Ok(response) => under_way.push(response),
            Err(_) => refused += 1,
        }
    }
    let (mut answered, mut failed) = (0_u64, 0_u64);
    for response in under_way {
        response.subscribe().block();
        match response.get() {
            Some(Ok(Ok(_))) => answered += 1,
            _ => failed += 1,
        }
    }
    format!("{answered} answered, {failed} failed, {refused} refused\n")
}

fn files() -> String {
    let directories = get_directories();
    let Some((directory, _)) = directories.first() else {
        return "no directory\n".to_owned();
    };
    let mut open = Vec::new();
    loop {
        match directory.open_at(
            PathFlags::empty(),
            ".",
            OpenFlags::DIRECTORY,
            DescriptorFlags::READ,
        ) {
            Ok(file) => open.push(file),
            Err(code) => return format!("{} open, then {code:?}\n", open.len()),
        }
    }
}

/// Hands the head to the host and returns the body, still to be written.
fn begin(response_out: ResponseOutparam, status: u16) -> OutgoingBody {
    let response = OutgoingResponse::new(Fields::new());
    let _ = response.set_status_code(status);
    let body = response
        .body()
        .expect("the body is taken for the first time");
    ResponseOutparam::set(response_out, Ok(response));
    body
}

fn answer(response_out: ResponseOutparam, status: u16, text: &str) {
    let body = begin(response_out, status);
    if let Ok(stream) = body.write() {
        // A failed write means that the client has gone, and then nobody is left to tell.
        let _ = stream.blocking_write_and_flush(text.as_bytes());
    }
    let _ = OutgoingBody::finish(body, None);
}
