//! Tests of --ready-line: the command is ready when a line of its captured output contains a text.

use std::fs::File;
use std::io::Read;

use tempfile::TempDir;

use crate::harness::{Kapo, kapo_on_a_free_port, wait_for};
use crate::tools::Gate;

fn expect_unready(kapo: &Kapo) {
    let answer = kapo.get("/readyz");
    assert_eq!((answer.status, answer.body.as_str()), (503, "waiting for the ready line\n"));
    assert_eq!((kapo.get("/healthz").status, kapo.get("/livez").status), (200, 200));
}

#[test]
fn a_line_in_pieces_makes_the_command_ready() {
    let script = "exec 3< \"$0\"; read -r x <&3; printf 'not yet\\nserver i' >&$1
read -r x <&3; printf 's up, port 80\\n' >&$1; read -r x <&3; exit 3";
    for (options, stream) in [
        (&["-S"][..], "1"),
        (&["-E"], "2"),
        (&["-SE"], "1"),
        (&["-SE"], "2"),
        (&["-SEL"], "1"),
        (&["-SEL"], "2"),
    ] {
        let mut gate = Gate::new();
        let line = ["run", "--wait", "1m", "--ready-line", "server is up", "sh", "-c", script, gate.path()];
        let kapo = Kapo::start([options, &line, &[stream]].concat());
        let wrote = |text| wait_for(text, || [kapo.stdout(), kapo.stderr()].concat().contains(text));
        expect_unready(&kapo);
        gate.open();
        wrote("not yet");
        expect_unready(&kapo);
        gate.open();
        kapo.wait_for_status("it is ready", |status| status["Ready"] == true);
        assert_eq!(kapo.get("/readyz").status, 200);
        wrote("server is up, port 80");
        gate.open();
        let status = kapo.wait_for_status("its end", |status| status["Status"] == "stopped");
        assert_eq!(status["Ready"], false);
        assert_eq!(kapo.get("/readyz").body, "exited with code 3\n");
        if options.len() == 1 {
            assert_eq!(kapo.stderr().matches(" level=info msg=\"ready\" pid=").count(), 1);
        }
    }
}

#[test]
fn output_of_an_earlier_run_is_not_the_ready_line() {
    let (mut gate, mut later) = (Gate::new(), Gate::new());
    let folder = TempDir::new().unwrap();
    // The first run leaves a process behind that holds the first pipe open.
    let script = "if [ -e \"$2\" ]; then exec 3< \"$0\"; read -r x <&3; echo up; read -r x <&3; exit 1; fi
setsid sh -c 'touch \"$1\"; read -r x < \"$0\"; echo up' \"$1\" \"$2\" & echo up
until [ -e \"$2\" ]; do sleep 0.01; done; exit 1";
    let mark = folder.path().join("mark");
    let options = ["-S", "supervise", "--wait", "1ms", "--ready-line", "up", "sh", "-c", script];
    let kapo = Kapo::start([&options[..], &[gate.path(), later.path(), mark.to_str().unwrap()]].concat());
    let runs = |kapo: &Kapo, restarts| {
        kapo.wait_for_status("a run", |s| s["Restarts"] == restarts && s["Status"] == "running");
        expect_unready(kapo);
    };
    runs(&kapo, 1);
    later.open();
    wait_for("output of the first run", || kapo.stdout() == "up\nup\n");
    expect_unready(&kapo);
    gate.open();
    kapo.wait_for_status("it is ready", |status| status["Ready"] == true);
    gate.open();
    runs(&kapo, 2);
}

#[test]
fn the_ready_line_may_follow_much_output_and_precede_more() {
    let mut gate = Gate::new();
    let script = "much() { head -c 20000000 /dev/zero | tr '\\0' \"$1\"; }
exec 3< \"$0\"; much x; read -r x <&3; echo up; read -r x <&3; much y";
    let folder = TempDir::new().unwrap();
    let (mut output, theirs) = std::io::pipe().unwrap();
    let mut command =
        kapo_on_a_free_port(["-S", "run", "--ready-line", "xup", "sh", "-c", script, gate.path()]);
    command.stdout(theirs).stderr(File::create(folder.path().join("stderr")).unwrap());
    let mut kapo = Kapo::launch_with_its_outputs(command, folder).listening();
    let mut read = vec![0; 20_000_000];
    output.read_exact(&mut read).unwrap();
    assert!(read.iter().all(|byte| *byte == b'x'));
    expect_unready(&kapo);
    gate.open();
    kapo.wait_for_status("it is ready", |status| status["Ready"] == true);
    gate.open();
    read.resize(20_000_003, 0);
    output.read_exact(&mut read).unwrap();
    assert!(read.starts_with(b"up\ny") && read.iter().skip(4).all(|byte| *byte == b'y'));
    kapo.expect_exit(0);
}
