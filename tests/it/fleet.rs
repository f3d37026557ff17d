//! Tests of `kapo fleet`: the list of a folder, its changes, and the life of the server.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::activation::{handed, listener};
use crate::fleet_proxy::serve;
use crate::harness::{Answer, Kapo, kapo, kapo_after, now, run_to_the_end, wait_for};
use crate::http::get;
use crate::idle::{naps, stays};
use crate::ls::Fleet;
use crate::tools::{descriptors, private_memory};

/// Requests a path with further fields.
fn ask(served: &Kapo, path: &str, fields: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: host1:6670\r\nConnection: close\r\n{fields}\r\n");
    Answer::parse(&served.exchange(request.as_bytes()))
}

/// Returns the rows of an answer: `NAME STATE` of each.
fn states(rows: &Value) -> Vec<String> {
    let word = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(|row| word(row, "Name") + " " + &word(row, "State")).collect()
}

fn list(served: &Kapo) -> Vec<String> {
    let answer = served.get("/");
    assert_eq!(answer.status, 200, "{answer:?}");
    states(&serde_json::from_str(&answer.body).unwrap())
}

/// The stream of changes.
struct Changes(BufReader<TcpStream>);

impl Changes {
    fn of(served: &Kapo) -> Changes {
        let mut stream = served.connect();
        stream.write_all(b"GET /events HTTP/1.0\r\n\r\n").unwrap();
        let mut changes = Changes(BufReader::new(stream));
        assert_eq!(changes.until(|line| line.starts_with("retry: ")), "retry: 1000");
        changes
    }

    /// Returns the first line that is wanted.
    fn until(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
            if wanted(line.trim_end()) {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Waits for a row.
    fn wait_for(&mut self, row: &str) {
        loop {
            assert_eq!(self.until(|line| line.starts_with("event: ")), "event: change");
            let data = self.until(|_| true);
            let rows: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            if states(&rows).iter().any(|found| found == row) {
                return;
            }
        }
    }
}

#[test]
fn the_list_is_that_of_ls_in_each_format() {
    let mut fleet = Fleet::new();
    fleet.start("well", &["run", "sleep", "60"]);
    fleet.start("failing", &["supervise", "--wait", "60", "false"]);
    drop(UnixListener::bind(fleet.path("dead")).unwrap());
    let served = serve(&fleet, &[]);
    wait_for("the states are as expected", || {
        list(&served) == ["failing failing", "dead dead", "well running"]
    });
    let same = |path: &str, fields: &str, words: &[&str]| {
        let answer = ask(&served, path, fields);
        assert_eq!((answer.status, answer.body.as_str()), (200, fleet.list(words).1.as_str()), "{fields}");
        assert_eq!(answer.field("Vary"), Some("*"));
        answer.field("Content-Type").unwrap().to_owned()
    };
    assert_eq!(same("/", "", &["-o", "json"]), "application/json");
    assert_eq!(same("/", "Accept: application/json, text/plain\r\n", &["-o", "json"]), "application/json");
    let table = ask(&served, "/", "Accept: text/plain\r\n");
    assert!(table.body.starts_with("NAME ") && table.body.contains("\ndead     dead "), "{table:?}");
    assert_eq!(table.field("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(table.field("Vary"), Some("*"));
    let head = served.ask("HEAD", "/");
    assert_eq!((head.status, head.body.as_str()), (200, ""), "{head:?}");
    for path in ["/livez", "/readyz"] {
        assert_eq!(served.get(path).body, "ok");
    }
    for path in ["/metrics", "/logs", "/healthz", "/i", "/i/", "//"] {
        assert_eq!(served.get(path).status, 404, "{path}");
    }
    assert_eq!(served.ask("OPTIONS", "/").field("Allow"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(served.ask("POST", "/").status, 405);
}

#[test]
fn a_browser_gets_the_page_and_others_do_not() {
    let fleet = Fleet::new();
    let browser =
        "Accept: text/html,*/*;q=0.8\r\nAccept-Encoding: gzip, br\r\nUpgrade-Insecure-Requests: 1\r\n";
    let kind = |served: &Kapo, path: &str, fields: &str| {
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
        let answer = Answer::parse(&served.exchange(request.as_bytes()));
        assert_eq!(answer.field("Vary"), Some("*"), "{answer:?}");
        answer.field("Content-Type").unwrap().split(';').next().unwrap().to_owned()
    };
    let served = serve(&fleet, &[]);
    for (path, fields, expected) in [
        ("/", browser, "text/html"),
        ("/ui", browser, "text/html"),
        ("/?static", browser, "application/json"),
        ("/", "Accept: text/html\r\n", "application/json"),
        ("/ui", "Accept: text/plain\r\n", "text/plain"),
        ("/", "", "application/json"),
    ] {
        assert_eq!(kind(&served, path, fields), expected, "{path} {fields}");
    }
    assert_eq!(list(&served), [""; 0]);
    let served = serve(&fleet, &["--no-ui"]);
    assert_eq!(kind(&served, "/", browser), "application/json");
}

#[test]
fn prometheus_finds_each_kapo_at_the_same_address() {
    let mut fleet = Fleet::new();
    fleet.start("a b", &["run", "sleep", "60"]);
    fleet.start("web", &["run", "sleep", "60"]);
    UnixListener::bind(fleet.path("odd\n")).unwrap();
    let served = serve(&fleet, &[]);
    let answer = ask(&served, "/sd", "");
    assert_eq!(answer.field("Content-Type"), Some("application/json"));
    let group = |name: &str| {
        let path = format!("/i/{name}/metrics");
        json!({"targets": ["host1:6670"], "labels": {"__metrics_path__": path, "name": name}})
    };
    assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap(), json!([group("a b"), group("web")]));
    assert_eq!(served.get("/i/web/metrics").status, 200);
    assert!(
        String::from_utf8_lossy(&served.exchange(b"GET /sd HTTP/1.0\r\n\r\n")).contains("[\"localhost\"]")
    );
}

#[test]
fn a_socket_that_hangs_delays_the_list_until_the_timeout() {
    let mut fleet = Fleet::new();
    fleet.start("well", &["run", "sleep", "60"]);
    let _hangs = UnixListener::bind(fleet.path("hangs")).unwrap();
    let served = serve(&fleet, &["--timeout", "1"]);
    let begin = now();
    let mut early = served.connect();
    early.write_all(&get("/")).unwrap();
    assert_eq!(served.get("/i/well/livez").body, "ok");
    assert!(begin.elapsed().as_millis() < 900, "other requests do not wait");
    assert_eq!(list(&served), ["hangs stuck", "well running"]);
    assert!((900..4_000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    assert_eq!(crate::http::one_answer(&mut early).status, 200);
}

#[test]
fn changes_arrive_within_a_second() {
    let mut fleet = Fleet::new();
    fleet.start("a", &["run", "sleep", "60"]);
    let served = serve(&fleet, &[]);
    let mut changes = Changes::of(&served);
    wait_for("the list is there", || list(&served) == ["a running"]);
    fleet.start("b", &["supervise", "--wait", "60", "sleep", "60"]);
    changes.wait_for("b running");
    let within_a_second = |what: &str, row: &str, changes: &mut Changes| {
        let begin = now();
        changes.wait_for(row);
        assert!(begin.elapsed().as_millis() < 1_000, "{what}: {:?}", begin.elapsed());
    };
    fleet.kapos[0].signal(9);
    within_a_second("a killed kapo", "a dead", &mut changes);
    let killed = rustix::process::Pid::from_raw(fleet.kapos[1].pid()).unwrap();
    let command = fleet.kapos[1].pid();
    let children = std::fs::read_to_string(format!("/proc/{command}/task/{command}/children")).unwrap();
    let child = rustix::process::Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    within_a_second("a killed command", "b failing", &mut changes);
    std::fs::remove_file(fleet.path("a.sock")).unwrap();
    within_a_second("a removed socket", "a removed", &mut changes);
    assert_eq!(list(&served), ["b failing"]);
    rustix::process::kill_process(killed, rustix::process::Signal::TERM).unwrap();
    within_a_second("a kapo that ends removes its socket", "b removed", &mut changes);
}

/// Waits until two readings a moment apart are equal.
fn rests(pid: i32) {
    let mut last = u64::MAX;
    wait_for("it has come to rest", || {
        let naps = naps(pid);
        std::mem::replace(&mut last, naps) == naps
    });
}

#[test]
fn an_idle_fleet_is_not_woken_and_keeps_nothing() {
    let mut fleet = Fleet::new();
    fleet.start("web", &["supervise", "--wait", "0.1", "sh", "-c", "exec sleep 0.1"]);
    let served = serve(&fleet, &[]);
    assert_eq!(served.get("/livez").status, 200);
    rests(served.pid());
    stays("it sleeps at first", 500, || naps(served.pid()));
    let (open, memory) = (descriptors(served.pid()).len(), private_memory(served.pid()));
    let changes = Changes::of(&served);
    assert_eq!(list(&served).len(), 1);
    assert!(descriptors(served.pid()).len() > open + 1, "it follows");
    drop(changes);
    wait_for("nothing is followed any more", || descriptors(served.pid()).len() == open);
    rests(served.pid());
    stays("it sleeps on", 1_000, || naps(served.pid()));
    let after = private_memory(served.pid());
    assert!(after <= memory + 64, "{memory} KiB before, {after} KiB after");
}

#[test]
fn a_stop_signal_ends_streams_and_answers() {
    let mut fleet = Fleet::new();
    fleet.start("web", &["run", "sleep", "60"]);
    let mut served = serve(&fleet, &[]);
    let mut changes = Changes::of(&served);
    let mut logs = served.connect();
    logs.write_all(&get("/i/web/events")).unwrap();
    logs.read_exact(&mut [0; 64]).unwrap();
    served.signal(15);
    served.expect_exit(0);
    changes.0.read_to_end(&mut Vec::new()).unwrap();
    assert!(served.stderr().contains("signal received\" signal=SIGTERM"), "{}", served.stderr());
    assert_eq!(TcpStream::connect(served.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_missing_folder_is_one_line_and_125() {
    let (code, _, said) = run_to_the_end(kapo(["-p", "0", "fleet", "/nonexistent"]));
    assert_eq!(
        (code, said.as_str()),
        (Some(125), "kapo: cannot open /nonexistent: No such file or directory\n")
    );
}

#[test]
fn few_descriptors_are_enough_for_the_server() {
    let mut fleet = Fleet::new();
    fleet.start("web", &["run", "sleep", "60"]);
    let served = {
        let mut command = kapo_after("ulimit -n 40", ["-i", "127.0.0.1", "-p", "0", "fleet"]);
        command.arg(fleet.folder.path());
        Kapo::launch(command).listening()
    };
    let before = descriptors(served.pid()).len();
    let held: Vec<_> = (0..64)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(served.address()).ok()?;
            stream.write_all(&get("/i/web/events")).ok()?;
            Some(stream)
        })
        .collect();
    wait_for("no descriptor is left", || descriptors(served.pid()).len() >= 38);
    drop(held);
    wait_for("it recovers", || descriptors(served.pid()).len() <= before + 1);
    // A request that was queued meanwhile may still hold the last descriptor.
    wait_for("requests are passed through", || served.get("/i/web/readyz").body == "ok");
    assert_eq!(list(&served), ["web running"]);
}

/// The streams of the kapos took all descriptors, so the viewer was evicted to make room for the next client.
#[test]
fn a_viewer_of_more_kapos_than_descriptors_stays_connected() {
    let mut fleet = Fleet::new();
    fleet.start("k0", &["run", "sleep", "60"]);
    for more in 1..80 {
        std::fs::hard_link(fleet.path("k0.sock"), fleet.path(&format!("k{more}.sock"))).unwrap();
    }
    let mut command = kapo_after("ulimit -n 64", ["-i", "127.0.0.1", "-p", "0", "fleet"]);
    command.arg(fleet.folder.path());
    let served = Kapo::launch(command).listening();
    let mut changes = Changes::of(&served);
    let rows = list(&served);
    assert!(rows.len() == 80 && rows.iter().all(|row| row.ends_with(" running")), "{rows:?}");
    let others: Vec<_> = (0..8).map(|_| served.connect()).collect();
    assert_eq!(served.get("/i/k79/livez").body, "ok");
    drop(others);
    std::fs::remove_file(fleet.path("k79.sock")).unwrap();
    changes.wait_for("k79 removed");
    assert!(!served.stderr().contains("evicted"), "{}", served.stderr());
}

#[test]
fn idle_exit_counts_from_the_last_connection() {
    let mut fleet = Fleet::new();
    fleet.start("web", &["run", "sleep", "60"]);
    let folder = fleet.folder.path().to_str().unwrap();
    let words = ["--socket-activation", "fleet", "--idle-exit", "0.5", folder];
    let (socket, address) = listener();
    let start = |socket: &TcpListener| Kapo::launch(handed([socket as _], &words));
    let mut first = TcpStream::connect(&address).unwrap();
    first.write_all(&get("/i/web/events")).unwrap();
    let mut served = start(&socket);
    first.read_exact(&mut [0; 64]).unwrap();
    // A request that is passed through is a connection, too.
    stays("it runs on", 1_000, || u64::from(served.try_wait().is_some()));
    let begin = now();
    first.shutdown(Shutdown::Both).unwrap();
    served.expect_exit(0);
    assert!(begin.elapsed().as_millis() >= 450, "{:?}", begin.elapsed());
    // The next client starts the next instance.
    let mut second = TcpStream::connect(&address).unwrap();
    second.write_all(&get("/livez")).unwrap();
    let mut served = start(&socket);
    assert_eq!(crate::http::one_answer(&mut second).body, "ok");
    drop(second);
    served.expect_exit(0);
}
