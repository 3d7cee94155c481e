//! Files on disk and in memory, as a client gets them.

use sampan_core::digest::Digest;

use super::*;

/// More than is read whole, and no two pieces of it are the same.
fn large() -> Vec<u8> {
    let numbers = 0..(WHOLE_BYTES as u32 / 2);
    numbers.flat_map(u32::to_le_bytes).collect()
}

fn put(artifacts: &Artifacts, bytes: &[u8]) -> String {
    let digest = Digest::of(bytes).to_hex();
    let mut writer = artifacts.writer(&digest).expect("a digest");
    writer.write(bytes).expect("room");
    artifacts.finish(writer).expect("its digest");
    digest
}

/// A site of these files, which are kept on disk and in memory.
fn sites(files: &[(&str, &[u8])], pages: &Pages) -> (tempfile::TempDir, [Site; 2]) {
    let directory = tempfile::tempdir().expect("a directory");
    let on_disk = Artifacts::open(directory.path()).expect("writable");
    let sites = [on_disk, Artifacts::memory()].map(|artifacts| {
        let mut manifest = Manifest::default();
        for (path, bytes) in files {
            let file = SiteFile {
                digest: put(&artifacts, bytes),
                bytes: bytes.len() as u64,
                content_type: format!("type/{path}"),
            };
            manifest.files.insert((*path).to_owned(), file);
        }
        let digest = put(&artifacts, &manifest.to_bytes());
        let open = Arc::new(Semaphore::new(1));
        Site::load(&digest, pages, &Arc::new(artifacts), &open).expect("a site")
    });
    (directory, sites)
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |it| it.to_str().expect("text"))
    }
}

async fn ask(site: &Site, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = site.answer(request.body(empty()).expect("a request")).await;
    let (head, body) = answer.expect("an answer").into_parts();
    let body = body.collect().await.expect("whole").to_bytes();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    }
}

#[tokio::test]
async fn a_file_comes_with_all_that_is_known_of_it() {
    let (_directory, sites) = sites(&[("index.html", b"<p>")], &Pages::default());
    for site in sites {
        let whole = ask(&site, "GET", "/", &[]).await;
        assert_eq!((whole.status, &whole.body[..]), (200, &b"<p>"[..]));
        let tag = whole.header("etag").to_owned();
        assert_eq!(tag, format!("\"{}\"", &Digest::of(b"<p>").to_hex()[..32]));
        for (name, value) in [
            ("content-type", "type/index.html"),
            ("content-length", "3"),
            ("accept-ranges", "bytes"),
            ("cache-control", "no-cache"),
            ("x-content-type-options", "nosniff"),
            ("vary", ""),
        ] {
            assert_eq!(whole.header(name), value, "{name}");
        }
        let head = ask(&site, "HEAD", "/", &[]).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.headers, whole.headers);
        let known = [("if-none-match", tag.as_str())];
        let not_modified = ask(&site, "GET", "/", &known).await;
        assert_eq!((not_modified.status, not_modified.body.len()), (304, 0));
        assert_eq!(not_modified.header("etag"), tag);
        assert_eq!(not_modified.header("content-type"), "");
        let since = [("if-modified-since", whole.header("last-modified"))];
        assert_eq!(ask(&site, "GET", "/", &since).await.status, 304);
        let since = [("if-modified-since", "Tue, 14 Nov 2023 22:13:20 GMT")];
        assert_eq!(ask(&site, "GET", "/", &since).await.status, 200);
        // What is no date says nothing.
        let since = [("if-modified-since", "yesterday")];
        assert_eq!(ask(&site, "GET", "/", &since).await.status, 200);
        let other = [("if-match", "\"other\"")];
        assert_eq!(ask(&site, "GET", "/", &other).await.status, 412);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let refused = ask(&site, method, "/", &[]).await;
            assert_eq!(
                (refused.status, refused.header("allow")),
                (405, "GET, HEAD")
            );
        }
    }
}

#[tokio::test]
async fn parts_of_a_file_are_what_was_asked_for() {
    let bytes = large();
    let (_directory, sites) = sites(
        &[("l.bin", &bytes), ("s.txt", b"0123456789")],
        &Pages::default(),
    );
    for site in sites {
        let whole = ask(&site, "GET", "/l.bin", &[]).await;
        assert!(whole.body[..] == bytes[..], "{} bytes", whole.body.len());
        let range = [("range", "bytes=100000-299999")];
        let part = ask(&site, "GET", "/l.bin", &range).await;
        assert_eq!(part.status, 206);
        assert!(part.body[..] == bytes[100_000..300_000]);
        let shown = format!("bytes 100000-299999/{}", bytes.len());
        assert_eq!(part.header("content-range"), shown);
        assert_eq!(part.header("content-length"), "200000");
        let part = ask(&site, "GET", "/s.txt", &[("range", "bytes=-3")]).await;
        assert_eq!(&part.body[..], b"789");
        let none = ask(&site, "GET", "/s.txt", &[("range", "bytes=10-")]).await;
        assert_eq!(
            (none.status, none.header("content-range")),
            (416, "bytes */10")
        );
        let head = ask(&site, "HEAD", "/s.txt", &[("range", "bytes=0-3")]).await;
        assert_eq!((head.status, head.header("content-length")), (206, "4"));
        let stale = [("range", "bytes=0-3"), ("if-range", "\"other\"")];
        assert_eq!(ask(&site, "GET", "/s.txt", &stale).await.status, 200);

        let several = [("range", "bytes=0-1,4-5,-1")];
        let parts = ask(&site, "GET", "/s.txt", &several).await;
        assert_eq!(parts.status, 206);
        let kind = parts.header("content-type");
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=");
        let boundary = boundary.expect("several parts");
        let part = |range, text| {
            format!(
                "\r\n--{boundary}\r\nContent-Type: type/s.txt\r\nContent-Range: bytes {range}/10\
                 \r\n\r\n{text}"
            )
        };
        let wanted = [
            part("0-1", "01"),
            part("4-5", "45"),
            part("9-9", "9"),
            format!("\r\n--{boundary}--\r\n"),
        ];
        let body = String::from_utf8(parts.body.to_vec()).expect("text");
        assert_eq!(body, wanted.concat());
        assert_eq!(parts.header("content-length"), body.len().to_string());
        let large = [("range", "bytes=0-99999,200000-299999")];
        let parts = ask(&site, "GET", "/l.bin", &large).await;
        assert_eq!(parts.header("content-length"), parts.body.len().to_string());
        assert!(
            parts
                .body
                .windows(8)
                .any(|it| *it == bytes[299_992..300_000])
        );
    }
}

#[tokio::test]
async fn pages_encodings_and_directories_are_answered() {
    let files: &[(&str, &[u8])] = &[
        ("index.html", b"app"),
        ("404.html", b"gone"),
        ("app.js", b"plain"),
        ("app.js.gz", b"small"),
        ("docs/index.html", b"docs"),
    ];
    let pages = Pages {
        fallback: Some("index.html".to_owned()),
        not_found: Some("404.html".to_owned()),
    };
    let (_directory, sites) = sites(files, &pages);
    for site in sites {
        let small = ask(&site, "GET", "/app.js", &[("accept-encoding", "gzip")]).await;
        assert_eq!(&small.body[..], b"small");
        assert_eq!(small.header("content-encoding"), "gzip");
        assert_eq!(small.header("content-type"), "type/app.js");
        assert_eq!(small.header("vary"), "accept-encoding");
        let plain = ask(&site, "GET", "/app.js", &[]).await;
        assert_eq!(
            (&plain.body[..], plain.header("vary")),
            (&b"plain"[..], "accept-encoding")
        );
        assert_ne!(plain.header("etag"), small.header("etag"));
        let to = ask(&site, "GET", "/docs?q=1", &[]).await;
        assert_eq!((to.status, to.header("location")), (308, "/docs/?q=1"));
        let page = ask(&site, "GET", "/cart/4", &[]).await;
        assert_eq!((page.status, &page.body[..]), (200, &b"app"[..]));
        let gone = ask(&site, "GET", "/gone.js", &[("range", "bytes=0-1")]).await;
        assert_eq!((gone.status, &gone.body[..]), (404, &b"gone"[..]));
        let gone = ask(&site, "HEAD", "/../etc/passwd", &[]).await;
        assert_eq!((gone.status, gone.body.len()), (404, 0));
    }
}

#[tokio::test]
async fn what_is_not_there_or_damaged_is_no_site() {
    let directory = tempfile::tempdir().expect("a directory");
    let artifacts = Arc::new(Artifacts::open(directory.path()).expect("writable"));
    let open = Arc::new(Semaphore::new(1));
    let load = |digest: &str, pages: &Pages| {
        let loaded = Site::load(digest, pages, &artifacts, &open);
        loaded.err().expect("no site").to_string()
    };
    let none = Pages::default();
    let absent = Digest::of(b"absent").to_hex();
    assert!(load(&absent, &none).contains("apply the spec again"));
    let component = put(&artifacts, b"\0asm");
    assert!(load(&component, &none).contains("cannot be understood"));
    let file = |digest| SiteFile {
        digest,
        bytes: 4,
        content_type: "text/html".to_owned(),
    };
    let of = |file| {
        let manifest = Manifest {
            files: [("index.html".to_owned(), file)].into(),
        };
        put(&artifacts, &manifest.to_bytes())
    };
    assert!(load(&of(file(absent)), &none).contains("apply the spec again"));
    let good = of(file(component.clone()));
    let pages = Pages {
        fallback: Some("app.html".to_owned()),
        not_found: None,
    };
    let wanted = "there is no file `app.html` in `static`, which `fallback` names";
    assert_eq!(load(&good, &pages), wanted);
    std::fs::write(directory.path().join("sha256").join(&component), b"longer").expect("written");
    assert!(load(&good, &none).contains("`index.html` is damaged"));
}
