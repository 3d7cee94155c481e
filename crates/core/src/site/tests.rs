//! Which file a request means, and what of it is sent.

use std::ops::Range;

use super::{
    conditional::{Conditions, IfRange, Send, Version, send},
    *,
};

fn file(name: &str) -> SiteFile {
    let digest = crate::digest::Digest::of(name.as_bytes()).to_hex();
    SiteFile {
        digest,
        bytes: 10,
        content_type: format!("type/{}", name.replace(|c: char| !c.is_ascii(), "")),
    }
}

fn manifest(paths: &[&str]) -> Manifest {
    let files = paths.iter().map(|path| ((*path).to_owned(), file(path)));
    let manifest = Manifest {
        files: files.collect(),
    };
    assert_eq!(manifest.check(), Ok(()));
    manifest
}

fn site() -> Manifest {
    manifest(&[
        "index.html",
        "app.js",
        "app.js.br",
        "app.js.gz",
        "only.css",
        "only.css.gz",
        "docs/index.html",
        "docs/ä b.txt",
        ".well-known/security.txt",
        "404.html",
    ])
}

/// The content that a path leads to, or what else comes of it.
fn found(manifest: &Manifest, pages: &Pages, path: &str, accepts: &str) -> String {
    let shown = |choice: Choice<'_>| {
        let encoding = choice.encoding.map_or("", Encoding::name);
        let mut files = manifest.files.iter();
        let path = files
            .find(|(_, it)| *it == choice.file)
            .expect("one of them")
            .0;
        format!("{path} {encoding}").trim().to_owned()
    };
    match manifest.find(pages, path, accepts) {
        Found::File(choice) => shown(choice),
        Found::Directory => "directory".to_owned(),
        Found::Missing(None) => "missing".to_owned(),
        Found::Missing(Some(choice)) => format!("missing: {}", shown(choice)),
    }
}

#[test]
fn a_path_means_a_file_or_the_index_of_a_directory() {
    for (path, wanted) in [
        ("/", "index.html"),
        ("/index.html", "index.html"),
        ("/app.js", "app.js"),
        ("/docs", "directory"),
        ("/docs/", "docs/index.html"),
        ("/docs/%C3%A4%20b.txt", "docs/ä b.txt"),
        ("/%61pp.js", "app.js"),
        ("/.well-known/security.txt", ".well-known/security.txt"),
        ("/app.js/", "missing"),
        ("/nothing", "missing"),
        ("/App.js", "missing"),
        ("*", "missing"),
        ("", "missing"),
    ] {
        assert_eq!(
            found(&site(), &Pages::default(), path, ""),
            wanted,
            "{path}"
        );
    }
}

/// None of these is a way to a file, be it there or not.
#[test]
fn no_path_leads_elsewhere() {
    for path in [
        "/../etc/passwd",
        "/docs/../app.js",
        "/docs/..",
        "/./app.js",
        "/%2e%2e/etc/passwd",
        "/%2E%2E%2Fetc%2Fpasswd",
        "/docs%2Findex.html",
        "/docs/%2e%2e/app.js",
        "//app.js",
        "//etc/passwd",
        "/docs//index.html",
        "/app.js%00",
        "/app.js%00.html",
        "/..\\app.js",
        "/docs%5cindex.html",
        "/.git/config",
        "/.env",
        "/docs/.hidden",
        "/.well-known/../app.js",
        "/%ff",
        "/%c0%ae%c0%ae/app.js",
        "/app.js%0d%0ax:y",
        "/....//app.js",
        "/.",
        "/..",
        "/...",
    ] {
        assert_eq!(
            found(&site(), &Pages::default(), path, ""),
            "missing",
            "{path}"
        );
    }
}

#[test]
fn pages_stand_in_for_what_is_missing() {
    let pages = |fallback: Option<&str>, not_found: Option<&str>| Pages {
        fallback: fallback.map(str::to_owned),
        not_found: not_found.map(str::to_owned),
    };
    let all = pages(Some("index.html"), Some("404.html"));
    for (path, wanted) in [
        ("/cart/42", "index.html"),
        ("/cart/", "index.html"),
        // A file that is missing is no page: its reader would take the page for it.
        ("/app.1234.js", "missing: 404.html"),
        ("/../cart", "missing: 404.html"),
        ("/docs", "directory"),
    ] {
        assert_eq!(found(&site(), &all, path, ""), wanted, "{path}");
    }
    let only = pages(None, Some("404.html"));
    assert_eq!(found(&site(), &only, "/cart", ""), "missing: 404.html");
    // Admission sees to it that they are there.
    let gone = pages(Some("gone.html"), Some("gone.html"));
    assert_eq!(found(&site(), &gone, "/cart", ""), "missing");
}

#[test]
fn a_client_gets_what_it_takes() {
    for (path, accepts, wanted) in [
        ("/app.js", "gzip, deflate, br", "app.js.br br"),
        ("/app.js", "gzip", "app.js.gz gzip"),
        ("/app.js", "br;q=0.5, gzip;q=0.9", "app.js.gz gzip"),
        ("/app.js", "br;q=0, gzip;q=0", "app.js"),
        ("/app.js", "BR", "app.js.br br"),
        ("/app.js", "*", "app.js.br br"),
        ("/app.js", "*;q=0", "app.js"),
        ("/app.js", "identity, br;q=0.5", "app.js"),
        ("/app.js", "br;q=x", "app.js"),
        ("/app.js", "deflate", "app.js"),
        ("/app.js", "", "app.js"),
        ("/only.css", "br, gzip;q=0.1", "only.css.gz gzip"),
        ("/index.html", "br", "index.html"),
        ("/app.js.br", "", "app.js.br"),
    ] {
        let found = found(&site(), &Pages::default(), path, accepts);
        assert_eq!(found, wanted, "{path} {accepts}");
    }
    let site = site();
    let choice = |path| match site.find(&Pages::default(), path, "br") {
        Found::File(choice) => choice,
        other => panic!("{other:?}"),
    };
    assert!(choice("/app.js").varies && !choice("/index.html").varies);
    assert_eq!(choice("/app.js").content_type, "type/app.js");
}

#[test]
fn a_manifest_that_is_none_is_refused() {
    let one = |path: &str, change: &dyn Fn(&mut SiteFile)| {
        let mut file = file(path);
        change(&mut file);
        Manifest {
            files: [(path.to_owned(), file)].into(),
        }
        .check()
    };
    let as_is = |path: &str| one(path, &|_| {});
    assert_eq!(as_is("a/b.html"), Ok(()));
    for path in [
        "", "/a", "a/", "a//b", "../a", "a/../b", "./a", ".env", "a/.git/b", "a\\b", "a\0b", "a\nb",
    ] {
        assert_eq!(
            as_is(path),
            Err(ManifestError::Path(path.to_owned())),
            "{path:?}"
        );
    }
    let long = "x".repeat(MAX_PATH_BYTES + 1);
    assert_eq!(as_is(&long), Err(ManifestError::Path(long.clone())));
    let bad = Err(ManifestError::File("a".to_owned()));
    assert_eq!(one("a", &|it| it.digest.push('0')), bad);
    assert_eq!(
        one("a", &|it| it.content_type = "a\r\nb: c".to_owned()),
        bad
    );
    assert_eq!(one("a", &|it| it.content_type.clear()), bad);
    let large = one("a", &|it| it.bytes = MAX_FILE_BYTES + 1);
    assert_eq!(
        large,
        Err(ManifestError::FileTooLarge {
            path: "a".to_owned()
        })
    );
    let many = |count: usize, bytes| {
        let files = (0..count).map(|n| (format!("f{n}"), SiteFile { bytes, ..file("f") }));
        Manifest {
            files: files.collect(),
        }
        .check()
    };
    assert_eq!(many(MAX_FILES, 1), Ok(()));
    assert_eq!(many(MAX_FILES + 1, 1), Err(ManifestError::TooMany));
    assert_eq!(many(17, MAX_FILE_BYTES), Err(ManifestError::TooLarge));
    let site = site();
    assert_eq!(Manifest::parse(&site.to_bytes()), Ok(site));
    assert!(Manifest::parse(b"{}").is_err());
    assert!(Manifest::parse(b"\0asm").is_err());
}

const VERSION: Version<'static> = Version {
    tag: "\"v1\"",
    modified: 1000,
    bytes: 100,
};

#[test]
fn what_a_client_has_is_not_sent_again() {
    let none = Conditions::default();
    let tag = |if_none_match| Conditions {
        if_none_match: Some(if_none_match),
        ..none
    };
    let since = |if_modified_since| Conditions {
        if_modified_since: Some(if_modified_since),
        ..none
    };
    for (conditions, wanted) in [
        (none, Send::Whole),
        (tag("\"v1\""), Send::NotModified),
        (tag("W/\"v1\""), Send::NotModified),
        (tag("\"v0\", \"v1\""), Send::NotModified),
        (tag("*"), Send::NotModified),
        (tag("\"v2\""), Send::Whole),
        (tag("v1"), Send::Whole),
        (since(1000), Send::NotModified),
        (since(2000), Send::NotModified),
        (since(999), Send::Whole),
        // A tag says more than a date.
        (
            Conditions {
                if_modified_since: Some(2000),
                ..tag("\"v2\"")
            },
            Send::Whole,
        ),
        (
            Conditions {
                if_match: Some("\"v1\""),
                ..none
            },
            Send::Whole,
        ),
        (
            Conditions {
                if_match: Some("W/\"v1\""),
                ..none
            },
            Send::PreconditionFailed,
        ),
        (
            Conditions {
                if_unmodified_since: Some(999),
                ..none
            },
            Send::PreconditionFailed,
        ),
        (
            Conditions {
                if_match: Some("\"v1\""),
                if_unmodified_since: Some(1),
                ..none
            },
            Send::Whole,
        ),
    ] {
        assert_eq!(send(&conditions, VERSION, 5000), wanted, "{conditions:?}");
    }
}

#[test]
fn ranges_are_what_they_say() {
    let parts = |ranges: &[Range<u64>]| Send::Parts(ranges.to_vec());
    for (range, wanted) in [
        ("bytes=0-9", Send::Part(0..10)),
        ("bytes=90-", Send::Part(90..100)),
        ("bytes=-5", Send::Part(95..100)),
        ("bytes=-500", Send::Part(0..100)),
        ("bytes=50-5000", Send::Part(50..100)),
        ("Bytes = 0-0", Send::Part(0..1)),
        ("bytes=99999999999999999999999-", Send::Unsatisfiable),
        ("bytes=100-", Send::Unsatisfiable),
        ("bytes=-0", Send::Unsatisfiable),
        ("bytes=0-1,100-", Send::Part(0..2)),
        ("bytes=0-1, 10-19, -1", parts(&[0..2, 10..20, 99..100])),
        ("bytes=10-19,0-1", parts(&[10..20, 0..2])),
        ("bytes=0-50,50-99", Send::Whole),
        ("bytes=9-0", Send::Whole),
        ("bytes=", Send::Whole),
        ("bytes=a-b", Send::Whole),
        ("bytes=+1-2", Send::Whole),
        ("bytes=1", Send::Whole),
        ("lines=0-9", Send::Whole),
        ("0-9", Send::Whole),
    ] {
        let conditions = Conditions {
            range: Some(range),
            ..Conditions::default()
        };
        assert_eq!(send(&conditions, VERSION, 5000), wanted, "{range}");
    }
    let many: Vec<_> = (0..17).map(|n| format!("{0}-{0}", n * 2)).collect();
    let many = format!("bytes={}", many.join(","));
    let conditions = Conditions {
        range: Some(&many),
        ..Conditions::default()
    };
    assert_eq!(send(&conditions, VERSION, 5000), Send::Whole);
    let empty = Version {
        bytes: 0,
        ..VERSION
    };
    let first = Conditions {
        range: Some("bytes=0-"),
        ..Conditions::default()
    };
    assert_eq!(send(&first, empty, 5000), Send::Unsatisfiable);
}

#[test]
fn a_range_is_of_the_version_that_the_client_has() {
    let part = Send::Part(0..10);
    for (if_range, now, wanted) in [
        (IfRange::Tag("\"v1\""), 5000, &part),
        (IfRange::Tag("W/\"v1\""), 5000, &Send::Whole),
        (IfRange::Tag("\"v0\""), 5000, &Send::Whole),
        (IfRange::Date(1000), 5000, &part),
        // Within the same minute there may have been two.
        (IfRange::Date(1000), 1059, &Send::Whole),
        (IfRange::Date(1001), 5000, &Send::Whole),
        (IfRange::Unreadable, 5000, &Send::Whole),
    ] {
        let conditions = Conditions {
            range: Some("bytes=0-9"),
            if_range: Some(if_range),
            ..Conditions::default()
        };
        assert_eq!(send(&conditions, VERSION, now), *wanted, "{if_range:?}");
    }
}
