//! Tests of the requests that `kapo fleet` passes through: to kapos, and to sockets that another user has planted.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use crate::harness::{Answer, Kapo, kapo_on_a_free_port, now, wait_for};
use crate::http::get;
use crate::ls::Fleet;
use crate::tools::descriptors;

/// Starts `kapo fleet` for the folder.
pub(crate) fn serve(fleet: &Fleet, words: &[&str]) -> Kapo {
    let mut command = kapo_on_a_free_port(["fleet"]);
    command.args(words).arg(fleet.folder.path());
    Kapo::launch(command).listening()
}

/// Reads until the text is there.
fn read_until(stream: &mut impl Read, text: &str) -> String {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        let length = stream.read(&mut part).unwrap();
        all.extend_from_slice(&part[..length]);
        let seen = String::from_utf8_lossy(&all);
        if seen.contains(text) {
            return seen.into_owned();
        }
        assert!(length > 0, "no {text} in {seen}");
    }
}

/// Binds a socket in the folder, and lets `answer` serve each connection.
fn plant(fleet: &Fleet, name: &str, answer: impl Fn(UnixStream) + Clone + Send + 'static) {
    let listener = UnixListener::bind(fleet.path(name)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut head = [0; 4096];
                let _ = stream.read(&mut head);
                answer(stream);
            });
        }
    });
}

#[test]
fn each_path_of_a_kapo_is_passed_through() {
    let mut fleet = Fleet::new();
    fleet.start("web", &["--stderr", "--tail", "1K", "run", "sh", "-c", "echo hello >&2; exec sleep 60"]);
    fleet.start("a b", &["run", "sleep", "60"]);
    let served = serve(&fleet, &[]);
    wait_for("the command runs", || served.get("/i/web/readyz").body == "ok");
    let page = served.get("/i/web/metrics?name[]=kapo_child_up");
    assert_eq!((page.status, page.body.lines().last()), (200, Some("kapo_child_up 1")), "{page:?}");
    for (name, value) in [
        ("Content-Type", "text/plain; version=0.0.4; charset=utf-8"),
        ("Connection", "close"),
        ("X-Content-Type-Options", "nosniff"),
    ] {
        assert_eq!(page.field(name), Some(value), "{page:?}");
    }
    assert!(page.field("Content-Security-Policy").unwrap().starts_with("default-src 'none'; "), "{page:?}");
    let head = served.ask("HEAD", "/i/web/metrics");
    assert_eq!((head.status, head.body.as_str()), (200, ""), "{head:?}");
    wait_for("the line is kept", || served.get("/i/web/logs").body == "hello\n");
    assert_eq!(served.get("/i/a%20b/status").status, 200);
    assert_eq!(served.get("/i/a%20b.sock/").status, 200);
    let page = served.get("/i/web");
    assert_eq!((page.status, page.field("Location")), (308, Some("./web/")));
    let page = served.ask("POST", "/i/web/");
    assert_eq!((page.status, page.field("Allow")), (405, Some("GET, HEAD, OPTIONS")), "{page:?}");
    // The answers to earlier requests on the same connection come first.
    let both = [get("/livez"), get("/i/web/livez"), get("/i/web/livez")].concat();
    let text = String::from_utf8(served.exchange(&both)).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    let page = served.exchange(
        b"GET /i/web/ui HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\
                                 Upgrade-Insecure-Requests: 1\r\n\r\n",
    );
    assert!(String::from_utf8_lossy(&page).contains("Content-Encoding: gzip"), "the page is stored");
}

#[test]
fn streams_are_passed_through_as_they_come() {
    let mut fleet = Fleet::new();
    let script = "echo one; read x < fifo; echo two; exec sleep 60";
    let fifo = fleet.path("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    let script = script.replace("fifo", fifo.to_str().unwrap());
    fleet.start("web", &["--stdout", "--tail", "1K", "run", "sh", "-c", &script]);
    let served = serve(&fleet, &[]);
    let follow = |path: &str| {
        let mut stream = served.connect();
        stream.write_all(&get(path)).unwrap();
        stream
    };
    let (mut logs, mut events) = (follow("/i/web/logs?follow=1"), follow("/i/web/events"));
    read_until(&mut logs, "\none\n");
    assert!(read_until(&mut events, "\"Status\":\"running\"").contains("Content-Type: text/event-stream"));
    File::options().write(true).open(&fifo).unwrap().write_all(b"\n").unwrap();
    read_until(&mut logs, "two\n");
    // A half-closed stream ends, as without fleet.
    events.shutdown(Shutdown::Write).unwrap();
    events.read_to_end(&mut Vec::new()).unwrap();
    let kapo = fleet.kapos[0].pid();
    let connections = || descriptors(kapo).iter().filter(|link| link.contains("socket:")).count();
    let followed = connections();
    drop(logs);
    wait_for("the kapo's connection is closed, too", || connections() < followed);
    let before = descriptors(served.pid()).len();
    let mut logs = follow("/i/web/logs?follow=1");
    read_until(&mut logs, "\none\n");
    fleet.kapos[0].signal(15);
    logs.read_to_end(&mut Vec::new()).unwrap();
    wait_for("nothing is left open", || descriptors(served.pid()).len() <= before);
}

#[test]
fn a_name_reaches_only_sockets_of_the_folder() {
    let mut fleet = Fleet::new();
    fleet.start("web", &["run", "sleep", "60"]);
    let outside = tempfile::TempDir::new().unwrap();
    let secret = UnixListener::bind(outside.path().join("secret")).unwrap();
    secret.set_nonblocking(true).unwrap();
    symlink(outside.path().join("secret"), fleet.path("link")).unwrap();
    symlink(outside.path(), fleet.path("folder")).unwrap();
    File::create(fleet.path("file")).unwrap();
    std::fs::create_dir(fleet.path("sub")).unwrap();
    UnixListener::bind(fleet.path(".kapo-1")).unwrap();
    drop(UnixListener::bind(fleet.path("dead")).unwrap());
    let served = serve(&fleet, &[]);
    let up = format!("..%2f{}%2fsecret", outside.path().file_name().unwrap().to_str().unwrap());
    for name in [
        "link",
        "folder%2fsecret",
        "folder/secret",
        "file",
        "sub",
        ".",
        "..",
        "%2e%2e",
        "%2e",
        "",
        "%00",
        "web%00",
        "web%0a",
        "%2fweb",
        ".kapo-1",
        "none",
        "%ff",
        &"x".repeat(300),
        &up,
    ] {
        let page = served.get(&format!("/i/{name}/metrics"));
        assert_eq!(page.status, 404, "{name}: {page:?}");
    }
    assert_eq!(served.get("/i/../i/web/metrics").status, 404);
    let page = served.get("/i/dead/");
    assert_eq!((page.status, page.body.as_str()), (502, "nothing listens on the socket\n"));
    assert_eq!(secret.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody has connected");
    assert_eq!(served.get("/i/web/readyz").status, 200);
}

#[test]
fn a_hostile_socket_spoils_only_its_own_answer() {
    let mut fleet = Fleet::new();
    fleet.start("web", &["run", "sleep", "60"]);
    let _never = UnixListener::bind(fleet.path("never-accepts")).unwrap();
    plant(&fleet, "never-answers", |mut stream| drop(stream.read(&mut [0])));
    plant(&fleet, "closes", drop);
    plant(&fleet, "garbage", |mut stream| drop(stream.write_all(&[0xff; 1 << 16])));
    plant(&fleet, "endless-head", |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nServer: ");
        while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
    });
    plant(&fleet, "slow-head", |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        let _ = stream.read(&mut [0]);
    });
    plant(
        &fleet,
        "interim",
        |mut stream| {
            while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {}
        },
    );
    plant(&fleet, "upgrade", |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
    });
    plant(&fleet, "cookies", |mut stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Type: text/html\r\nLocation: https://x/\r\n\
              Content-Length: 26\r\n\r\n<script>alert(1)</script>\n",
        );
    });
    plant(&fleet, "large", |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let _ = stream.write_all(&vec![b'x'; 10 << 20]);
    });
    let served = serve(&fleet, &["--timeout", "1"]);
    let begin = now();
    let slow: Vec<_> = ["never-accepts", "never-answers", "slow-head"]
        .map(|name| {
            let mut stream = served.connect();
            stream.write_all(&get(&format!("/i/{name}/"))).unwrap();
            stream
        })
        .into_iter()
        .collect();
    for name in ["closes", "garbage", "endless-head", "interim", "upgrade"] {
        let page = served.get(&format!("/i/{name}/"));
        assert_eq!(page.status, 502, "{name}: {page:?}");
    }
    let page = served.get("/i/cookies/");
    assert_eq!(
        (page.status, page.field("Set-Cookie"), page.field("Location")),
        (200, None, None),
        "{page:?}"
    );
    assert!(page.field("Content-Security-Policy").is_some() && page.body.starts_with("<script>"));
    assert_eq!(served.get("/i/large/").body.len(), 10 << 20);
    assert_eq!(served.get("/i/web/readyz").status, 200);
    for mut stream in slow {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(Answer::parse(&bytes).status, 504);
    }
    assert!(begin.elapsed().as_secs() < 8, "{:?}", begin.elapsed());
}

#[test]
fn a_client_that_does_not_read_is_given_up_after_10_s() {
    let fleet = Fleet::new();
    plant(&fleet, "endless", |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
    });
    let served = serve(&fleet, &[]);
    let before = descriptors(served.pid()).len();
    let mut stream = served.connect();
    stream.write_all(&get("/i/endless/")).unwrap();
    read_until(&mut stream, "xxxx");
    let memory = crate::tools::private_memory(served.pid());
    assert!(memory < 2_000, "{memory} KiB");
    let begin = now();
    wait_for("the client is given up", || descriptors(served.pid()).len() <= before);
    assert!(begin.elapsed().as_secs() >= 8, "{:?}", begin.elapsed());
    // It must not take what it got for the whole answer.
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn the_257th_request_at_once_is_refused() {
    let mut fleet = Fleet::new();
    fleet.start("web", &["run", "sleep", "60"]);
    plant(&fleet, "silent", |mut stream| drop(stream.read(&mut [0])));
    let served = serve(&fleet, &["--timeout", "30"]);
    let ask = || {
        let mut stream = served.connect();
        stream.write_all(&get("/i/silent/")).unwrap();
        stream
    };
    let mut waiting: Vec<_> = (0..256).map(|_| ask()).collect();
    wait_for("all places are taken", || {
        let taken = served.get("/i/web/livez").status == 503;
        // On a slow machine the backlog of the silent socket may have been full for a moment.
        waiting.extend((!taken).then(ask));
        taken
    });
    assert_eq!(served.get("/livez").status, 200);
    drop(waiting);
    wait_for("there is room again", || served.get("/i/web/livez").status == 200);
}
