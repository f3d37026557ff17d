//! Tests of how `kapo check` finds its peer: broken name servers, names with several addresses, `::` without IPv6.
//! Each test has its own network namespace and /etc/resolv.conf.

use std::collections::VecDeque;
use std::fs::File;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::harness::{binary, clean, now, run_to_the_end};
use crate::tools::{OtherProcess, can_unshare, is_root};

/// A network and mount namespace, which ends with the test.
struct Network(OtherProcess);

impl Network {
    /// Creates the namespace and runs `preparation` inside. `None` if this machine does not permit it.
    fn new(preparation: &str) -> Option<Network> {
        if !is_root() || !can_unshare(&["--net", "--mount"]) {
            eprintln!("skipped: it takes root and namespaces");
            return None;
        }
        let script = format!(
            "ip link set lo up && f=$(mktemp) && echo nameserver 127.0.0.1 > $f &&
            mount --bind $f /etc/resolv.conf && rm $f && {{ {preparation}; }} && echo ready && read x"
        );
        let mut command = clean("unshare");
        command.args(["--net", "--mount", "sh", "-c", &script]);
        let mut holder = OtherProcess::start(command);
        assert_eq!(holder.read_line(), "ready");
        Some(Network(holder))
    }

    /// Runs `open` in a thread that has entered the network. Sockets that it opens stay there.
    fn within<T: Send + 'static>(&self, open: impl FnOnce() -> T + Send + 'static) -> T {
        let network = File::open(format!("/proc/{}/ns/net", self.0.pid())).unwrap();
        let enter = move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            open()
        };
        std::thread::spawn(enter).join().unwrap()
    }

    /// Returns `kapo WORDS` inside the namespace.
    fn kapo(&self, words: &[&str]) -> std::process::Command {
        let mut command = clean("nsenter");
        command.args(["-t", &self.0.pid().to_string(), "-n", "-m"]).arg(binary()).args(words);
        command
    }

    /// Starts a kapo inside the namespace.
    fn serve(&self, words: &[&str]) -> OtherProcess {
        let mut command = self.kapo(words);
        command.args(["run", "sh", "-c", "echo; read x"]);
        let mut kapo = OtherProcess::start(command);
        kapo.read_line();
        kapo
    }
}

const A: u16 = 1;
const AAAA: u16 = 28;

/// Returns the answer of a name server. The name `A.AAAA.test` defines the answer to both kinds of query, each of
/// which is `ok`, `two`, `fail` (SERVFAIL), `nx` (NXDOMAIN), `none` (no record) or `silent`.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut labels = VecDeque::new();
    let mut at = 12;
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push_back(String::from_utf8(query[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let what = &labels[usize::from(kind == AAAA)];
    let addresses: &[&[u8]] = match (kind, what.as_str()) {
        (A, "ok") => &[&[127, 0, 0, 3]],
        (A, "two") => &[&[127, 0, 0, 2], &[127, 0, 0, 3]],
        (AAAA, "ok") => &[&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]],
        _ => &[],
    };
    let code = match what.as_str() {
        "silent" => return None,
        "fail" => 2,
        "nx" => 3,
        _ => 0,
    };
    let count = u8::try_from(addresses.len()).unwrap();
    let mut reply =
        [&query[..2], &[0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0], &query[12..at + 5]].concat();
    for address in addresses {
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 1, 0, u8::try_from(address.len()).unwrap()]);
        reply.extend(*address);
    }
    Some(reply)
}

/// Runs a name server on port 53 of the network until the test ends.
fn name_server(network: &Network) {
    let socket = network.within(|| UdpSocket::bind("127.0.0.1:53").unwrap());
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            if let Some(reply) = answer(&query[..length]) {
                socket.send_to(&reply, from).unwrap();
            }
        }
    });
}

#[test]
fn a_resolver_may_fail_for_one_family() {
    let Some(network) = Network::new(":") else { return };
    name_server(&network);
    let _kapo = network.serve(&["-q", "-i", "::", "-p", "6666"]);
    for name in
        ["ok.fail", "ok.nx", "ok.none", "ok.silent", "fail.ok", "nx.ok", "none.ok", "silent.ok", "ok.ok"]
    {
        let start = now();
        let url = format!("http://{name}.test:6666");
        let (code, stdout, stderr) = run_to_the_end(network.kapo(&["check", "--timeout", "8", &url]));
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "ready: ok\n", ""), "{name}");
        assert!(start.elapsed() < Duration::from_secs(4), "{name}: {:?}", start.elapsed());
    }
    for name in ["nx.nx", "none.none", "nx.none"] {
        let url = format!("http://{name}.test:6666");
        let (code, stdout, _) = run_to_the_end(network.kapo(&["check", &url]));
        let says = format!("cannot resolve {name}.test: ");
        assert!(code == Some(1) && stdout.starts_with(&says), "{name}: {stdout}");
    }
}

#[test]
fn a_silent_address_leaves_time_for_the_next() {
    let Some(network) = Network::new(":") else { return };
    name_server(&network);
    let _kapo = network.serve(&["-q", "-i", "127.0.0.3", "-p", "6666"]);
    // A listener with a full backlog drops new connections.
    let (_listener, _queued) = network.within(|| {
        let listener = TcpListener::bind("127.0.0.2:6666").unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let queued = TcpStream::connect("127.0.0.2:6666").unwrap();
        (listener, queued)
    });
    let url = "http://two.none.test:6666";
    let (code, stdout, _) = run_to_the_end(network.kapo(&["check", "--timeout", "3", url]));
    assert_eq!((code, stdout.as_str()), (Some(0), "ready: ok\n"));
    // If no address accepts the connection, the deadline passes.
    let (code, stdout, _) =
        run_to_the_end(network.kapo(&["check", "--timeout", "1", "http://127.0.0.2:6666"]));
    assert_eq!((code, stdout.as_str()), (Some(1), "no answer in time\n"));
}

#[test]
fn the_wildcard_address_works_without_ipv6() {
    let Some(network) = Network::new("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6") else { return };
    let kapo = network.serve(&["-q", "-i", "::", "-p", "6666"]);
    let check = || run_to_the_end(network.kapo(&["-i", "::", "-p", "6666", "check"]));
    assert_eq!(check(), (Some(0), "ready: ok\n".to_owned(), String::new()));
    drop(kapo);
    // Both addresses were tried: the reason for ::1 would differ.
    assert_eq!(check().1, "cannot connect to [::1]:6666: Connection refused\n");
}
