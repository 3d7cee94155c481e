//! What guests print.

use std::sync::Arc;

use sampan_runtime::{
    Runtime,
    command::Exit,
    logs::{MAX_LINE_BYTES, MAX_RING_BYTES, Stream},
};

use super::commands::run_in;
use super::rig::{ask, config, get, in_time, lines, plan, pod_name, runtime, workload};
use super::text::printer;

#[tokio::test]
async fn a_line_knows_its_pod_its_stream_and_its_request() {
    let guest = plan(workload("env-and-files"));
    let (one, two) = (guest.clone().start().await, guest.start().await);
    for (pod, id) in [(&one, Some("r-1")), (&two, Some("r-2")), (&one, None)] {
        let request = get(&format!("/print?text=hello+{}", id.unwrap_or("nobody")));
        let response = in_time(pod.call(request, id.map(Arc::from))).await;
        assert_eq!(response.expect("an answer").status(), 204);
    }
    let seen = |pod: &sampan_runtime::pod::Pod| {
        let lines = lines(runtime(), pod.name());
        let facts = lines
            .into_iter()
            .map(|l| (l.stream, l.request.map(|r| r.to_string()), l.text));
        facts.collect::<Vec<_>>()
    };
    let line =
        |stream, id: Option<&str>, text: &str| (stream, id.map(str::to_owned), text.to_owned());
    let expected = [
        line(Stream::Stdout, Some("r-1"), "hello r-1"),
        line(Stream::Stderr, Some("r-1"), "hello r-1"),
        line(Stream::Stdout, None, "hello nobody"),
        line(Stream::Stderr, None, "hello nobody"),
    ];
    assert_eq!(seen(&one), expected);
    let expected = [
        line(Stream::Stdout, Some("r-2"), "hello r-2"),
        line(Stream::Stderr, Some("r-2"), "hello r-2"),
    ];
    assert_eq!(seen(&two), expected);
}

/// A hundred megabytes, in short lines and in one endless line, without a reader.
#[tokio::test]
async fn a_flood_neither_blocks_nor_grows_the_ring() {
    for line in ["0123456789abcde\n", "0123456789abcdef"] {
        let runtime = Runtime::new(config()).expect("a runtime");
        let name = pod_name();
        let ended = in_time(run_in(&runtime, &printer(25_600, line), name.clone(), &[])).await;
        let ended = ended.expect("a start");
        assert_eq!(ended.exit, Exit::Code(0));
        let batch = runtime.logs().read(0, usize::MAX);
        let bytes: usize = batch.lines.iter().map(|line| line.text.len()).sum();
        assert!(bytes <= MAX_RING_BYTES, "{bytes}");
        assert!(
            batch
                .lines
                .iter()
                .all(|line| line.text.len() <= MAX_LINE_BYTES)
        );
        // What is there, what has gone and what was dropped is all that was printed. It took a
        // moment, so a little more than one burst may be there.
        let printed = match line.ends_with('\n') {
            true => 25_600 * 4096 / line.len(),
            false => (25_600 * 4096_usize).div_ceil(MAX_LINE_BYTES),
        } as u64;
        let notes = batch
            .lines
            .iter()
            .filter(|line| line.stream == Stream::Host);
        let there = batch.missed + batch.lines.len() as u64 - notes.count() as u64;
        let dropped = ended.usage.log_lines_dropped;
        assert_eq!(there + dropped, printed);
        assert!(dropped > printed / 2, "{dropped} of {printed}");
    }
}

#[tokio::test]
async fn what_is_logged_has_its_level_and_context_and_counts_as_printed() {
    let pod = plan(workload("visits")).start().await;
    let levels = ["trace", "debug", "info", "warn", "error", "critical"];
    for level in levels {
        let path = format!("/log?level={level}&context=cart&text=no%0Aprice%0A");
        assert_eq!(ask(&pod, &path).await, Ok((200, "ok\n".to_owned())));
    }
    let answer = ask(&pod, "/log?text=").await;
    assert_eq!(answer, Ok((200, "ok\n".to_owned())));
    let said = lines(runtime(), pod.name());
    let said: Vec<_> = said
        .iter()
        .map(|line| match line.stream {
            Stream::Logged(level) => format!("{level} {}", line.text),
            other => panic!("{other:?} {}", line.text),
        })
        .collect();
    let mut wanted = Vec::new();
    for level in levels {
        let level = level.to_ascii_uppercase();
        wanted.extend([format!("{level} cart: no"), format!("{level} price")]);
    }
    wanted.push("INFO ".to_owned());
    assert_eq!(said, wanted);
    // A flood is cut, as one of standard output is.
    let mut flood = plan(workload("visits"));
    let mut config = config();
    config.guest.log_rate = 1 << 10;
    flood.runtime = Runtime::new(config).expect("a runtime");
    let (pod, text) = (flood.start().await, "x".repeat(7000));
    for _ in 0..30 {
        let path = format!("/log?text={text}");
        ask(&pod, &path).await.expect("an answer");
    }
    assert!(pod.usage().log_lines_dropped > 0);
}
