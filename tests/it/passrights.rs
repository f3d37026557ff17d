//! Tests of messages with descriptors whose close blocks: kapo refuses them, or closes them without lingering.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::harness::{Kapo, LIMIT, kapo, kapo_on_a_free_port, process_state, wait_for};
use crate::tools::is_root;

/// Sends a TCP socket that has unsent data and an SO_LINGER of an hour, and closes its own copy. Then it waits,
/// because the end of the receiving side would end the lingering. Prints `sent` or the name of the error.
const ATTACK: &str = "
import array, errno, os, socket, struct, sys
address, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
address = '\\0' + address[1:] if address[0] == '@' else address
if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
server.bind(('127.0.0.1', 0)); server.listen(512)
evil = []
for _ in range(count):
    one = socket.socket(); one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096); one.connect(server.getsockname())
    one.setblocking(False)
    try:
        while True: one.send(b'x' * 65536)
    except BlockingIOError: pass
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 3600))
    evil.append(one)
out = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if kind == 'stream' else socket.SOCK_DGRAM)
out.connect(address)
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [one.fileno() for one in evil]))]
try:
    out.sendmsg([b'GET /livez HTTP/1.0\\r\\n\\r\\n' if kind == 'stream' else b'BARRIER=1'], rights)
    said = 'sent'
except OSError as e:
    said = errno.errorcode[e.errno]
    for one in evil: one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 0, 0))
for one in evil: os.close(one.detach())
print(said, flush=True)
sys.stdin.read()
";

struct Attacker(Child);

impl Attacker {
    /// Runs the attack, as user nobody if the test is root. Returns when the message was sent, with the output. kapo
    /// is stopped meanwhile, so that the attacker closes its copy first.
    fn attacks(kapo: &Kapo, address: &str, kind: &str, count: usize) -> (Attacker, String) {
        kapo.signal(19);
        wait_for("kapo is stopped", || process_state(kapo.pid()) == Some('T'));
        let mut python = Command::new("python3");
        python.args(["-c", ATTACK, address, kind, &count.to_string()]);
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        kapo.signal(18);
        (Attacker(child), said.trim().to_owned())
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether this kernel supports SO_PASSRIGHTS.
fn kernel_knows_passrights() -> bool {
    let script = "import socket; socket.socket(socket.AF_UNIX).setsockopt(socket.SOL_SOCKET, 83, 0)";
    let known =
        Command::new("python3").args(["-c", script]).stderr(Stdio::null()).status().unwrap().success();
    if !known {
        eprintln!("skipped: this kernel has no SO_PASSRIGHTS");
    }
    known
}

fn livez_by(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Returns a directory that every user may enter.
fn open_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn a_lingering_socket_in_a_notification_does_not_block() {
    // 253 descriptors are more than kapo keeps free for its own use.
    for count in [1, if is_root() { 253 } else { 100 }] {
        let script = "echo $NOTIFY_SOCKET; exec sleep 60";
        let mut kapo = Kapo::launch(kapo_on_a_free_port(["run", "--notify", "sh", "-c", script])).listening();
        kapo.wait_for_stdout("\n");
        let address = kapo.stdout().trim().to_owned();
        // After the exec of the command, kapo opens the last of its own files, and then it sleeps.
        kapo.wait_for("it sleeps", |kapo| crate::harness::process_state(kapo.pid()) == Some('S'));
        let descriptors = crate::tools::descriptors(kapo.pid()).len();
        let (_attacker, said) = Attacker::attacks(&kapo, &address, "datagram", count);
        assert_eq!(said, "sent");
        assert_eq!(kapo.get("/livez").status, 200);
        kapo.wait_for("they are closed", |kapo| crate::tools::descriptors(kapo.pid()).len() <= descriptors);
    }
}

#[test]
fn a_unix_listener_refuses_descriptors() {
    if !kernel_knows_passrights() {
        return;
    }
    let folder = open_folder();
    let path = folder.path().join("s");
    let mut command = kapo(["--interface", path.to_str().unwrap(), "run", "sleep", "60"]);
    command.env("KAPO_PORT", "0");
    let mut kapo = Kapo::launch(command);
    kapo.wait_for("it listens", |_| UnixStream::connect(&path).is_ok());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let (_attacker, said) = Attacker::attacks(&kapo, path.to_str().unwrap(), "stream", 1);
    assert_eq!(said, "EPERM");
    let answer = livez_by(&path);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
