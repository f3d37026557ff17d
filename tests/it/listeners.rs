//! Tests of several listeners of one kapo.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use tempfile::TempDir;

use crate::harness::{Kapo, kapo, run_to_the_end, unused_name};
use crate::tools::ask_livez;

fn livez(stream: Result<UnixStream, std::io::Error>) -> String {
    ask_livez(stream.unwrap())
}

#[test]
fn every_address_of_listen_answers_beside_the_port() {
    let folder = TempDir::new().unwrap();
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    let abstract_name = unused_name();
    let list = format!("[::1]:0,{}", first.display());
    let mut command =
        kapo(["-q", "-p", "0", "-i", "127.0.0.1", "--listen", &list, "--listen", "127.0.0.1:0"]);
    command.args(["--listen", &format!("{},{abstract_name}", second.display()), "run", "sleep", "60"]);
    let mut kapo = Kapo::launch(command);
    // Under --quiet only the ports that the kernel has chosen are logged.
    kapo.wait_for("three ports are logged", |kapo| kapo.addresses().len() >= 3);
    let addresses = kapo.addresses();
    for (address, begin) in addresses.iter().zip(["127.0.0.1:", "[::1]:", "127.0.0.1:"]) {
        assert!(address.starts_with(begin), "{addresses:?}");
        kapo = kapo.at(address);
        assert_eq!(kapo.get("/livez").status, 200);
    }
    for path in [&first, &second] {
        assert!(livez(UnixStream::connect(path)).starts_with("HTTP/1.1 200"));
    }
    let address = SocketAddr::from_abstract_name(&abstract_name[1..]).unwrap();
    assert!(livez(UnixStream::connect_addr(&address)).starts_with("HTTP/1.1 200"));
    kapo.signal(15);
    kapo.expect_exit(143);
    assert!(!first.exists() && !second.exists());
}

#[test]
fn an_address_that_is_listed_twice_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s");
    let path = path.to_str().unwrap();
    let mut command = kapo(["-i", path, "run", "true"]);
    command.env("KAPO_LISTEN", path);
    let (code, _, stderr) = run_to_the_end(command);
    assert_eq!((code, stderr), (Some(125), format!("kapo: cannot bind {path}: Address already in use\n")));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
