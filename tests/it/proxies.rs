//! Tests of `kapo wait` through proxies that cut long requests, and before a kapo listens.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{Kapo, kapo, now, run_to_the_end, wait_for};
use crate::tools::Gate;

/// Starts a job that exits with this code when the gate opens, and whose status is then shown for long.
fn job(gate: &Gate, code: i32) -> Kapo {
    let script = format!("echo last words; read x < \"$0\"; exit {code}");
    Kapo::start(["--stdout", "--tail", "4K", "run", "--wait", "1h", "sh", "-c", &script, gate.path()])
}

/// An HTTP proxy that waits this long for an answer and then sends `instead`; if that is empty, it closes.
struct Proxy {
    address: SocketAddr,
    /// The address of kapo; `None` if there is none.
    kapo: Arc<Mutex<Option<SocketAddr>>>,
    /// The number of requests that were cut.
    cut: Arc<AtomicUsize>,
}

impl Proxy {
    fn new(kapo: Option<SocketAddr>, limit: Duration, instead: &'static str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (kapo, cut) = (Arc::new(Mutex::new(kapo)), Arc::new(AtomicUsize::new(0)));
        let (upstream, counter) = (kapo.clone(), cut.clone());
        std::thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                let mut request = [0; 2_048];
                let length = client.read(&mut request).unwrap();
                let answer = upstream.lock().unwrap().and_then(|kapo| {
                    let mut server = TcpStream::connect(kapo).ok()?;
                    server.set_read_timeout(Some(limit)).unwrap();
                    server.write_all(&request[..length]).unwrap();
                    let mut answer = Vec::new();
                    server.read_to_end(&mut answer).is_ok().then_some(answer)
                });
                counter.fetch_add(usize::from(answer.is_none()), Ordering::Relaxed);
                // Ignore an error: the client may be gone.
                let _ = client.write_all(answer.as_deref().unwrap_or(instead.as_bytes()));
            }
        });
        Proxy { address, kapo, cut }
    }

    fn cuts(&self) -> usize {
        self.cut.load(Ordering::Relaxed)
    }

    fn wait(&self, options: &[&str]) -> Kapo {
        Kapo::launch(kapo([&["wait"], options, &[&format!("http://{}", self.address)]].concat()))
    }
}

const GATEWAY_TIMEOUT: &str =
    "HTTP/1.1 504 Gateway Time-out\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const UNAVAILABLE: &str =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[test]
fn wait_outlives_the_time_outs_of_a_proxy() {
    for instead in [GATEWAY_TIMEOUT, ""] {
        let mut gate = Gate::new();
        let server = job(&gate, 42);
        let proxy = Proxy::new(Some(server.address()), Duration::from_millis(1_500), instead);
        let mut waiting = proxy.wait(&[]);
        waiting.wait_for("it is cut", |_| proxy.cuts() == 1);
        // From now on each request asks for less than the proxy allows.
        let requests = || {
            let metrics = server.get("/metrics").body;
            let asked = |line: &&str| line.starts_with("kapo_http_requests_total") && line.contains("wait");
            metrics.lines().find(asked).map(|line| line.rsplit(' ').next().unwrap().to_owned())
        };
        let before = requests();
        waiting.wait_for("it asks again", |_| requests() != before);
        gate.open();
        waiting.expect_exit(42);
        assert_eq!((proxy.cuts(), waiting.stderr()), (1, String::new()));
    }
}

#[test]
fn wait_gives_up_when_the_proxy_has_no_kapo() {
    let mut gate = Gate::new();
    let server = job(&gate, 7);
    let proxy = Proxy::new(None, Duration::from_secs(60), UNAVAILABLE);
    let mut waiting = proxy.wait(&["--timeout", "30"]);
    waiting.wait_for("it was refused", |_| proxy.cuts() > 0);
    *proxy.kapo.lock().unwrap() = Some(server.address());
    gate.open();
    waiting.expect_exit(7);
    // The patience runs out, which is not a failure of the job.
    *proxy.kapo.lock().unwrap() = None;
    let mut waiting = proxy.wait(&["--timeout", "1.5"]);
    waiting.expect_exit(124);
    assert_eq!(waiting.stderr(), "kapo: no kapo answers: HTTP 503\n");
    let start = now();
    let mut once = proxy.wait(&["--timeout", "0"]);
    once.expect_exit(125);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn wait_retries_until_a_kapo_listens() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("socket").to_str().unwrap().to_owned();
    let url = format!("unix:{path}");
    let refused = run_to_the_end(kapo(["wait", &url]));
    let says = format!("kapo: cannot connect to {path}: No such file or directory\n");
    assert_eq!(refused, (Some(125), String::new(), says.clone()));
    let start = now();
    assert_eq!(run_to_the_end(kapo(["wait", "--retry", "1.5", &url])), (Some(125), String::new(), says));
    assert!(start.elapsed() >= Duration::from_millis(1_500), "{:?}", start.elapsed());
    let mut waiting = Kapo::launch(kapo(["wait", "--retry", "30", &url]));
    // The client is blocked in poll(2) between two attempts.
    wait_for("it has tried", || crate::tools::sleeps(waiting.pid()) > 0);
    let mut server = Kapo::launch(kapo(["-i", &path, "run", "--wait", "1h", "sh", "-c", "exit 9"]));
    waiting.expect_exit(9);
    server.signal(15);
    server.expect_exit(9);
}

#[test]
fn wait_prints_how_the_job_ended() {
    let mut gate = Gate::new();
    let server = job(&gate, 3);
    let url = format!("http://{}", server.address());
    assert_eq!(
        run_to_the_end(kapo(["wait", "-v", "--timeout", "0", &url])),
        (Some(124), String::new(), String::new())
    );
    gate.open();
    let status = server.wait_for_status("its end", |status| status["Status"] == "stopped");
    let says =
        format!("reason=exit-code code=3 start={}\nlast words\n", status["StartTime"].as_str().unwrap());
    for option in ["-v", "--verbose"] {
        assert_eq!(run_to_the_end(kapo(["wait", option, &url])), (Some(3), says.clone(), String::new()));
    }
    assert_eq!(run_to_the_end(kapo(["wait", &url])), (Some(3), String::new(), String::new()));
}
