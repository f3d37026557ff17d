//! Where room is short: the files and the memory of the system, places for connections, memory for output, the time of
//! a turn.

use std::io::Write;
use std::net::TcpStream;

use crate::activation::{connection, handed, listener};
use crate::harness::{Kapo, before_exec};
use crate::http::{get, one_answer};

/// Makes accept4(2) fail with `errno` in the program that this process becomes.
#[expect(unsafe_code, reason = "a seccomp filter is given to the kernel by address")]
fn refuse_to_accept(errno: i32) -> std::io::Result<()> {
    let instruction = |code: u32, yes: u8, no: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: yes,
        jf: no,
        k,
    };
    let number = u32::try_from(libc::SYS_accept4).unwrap_or(0);
    let errno = u32::try_from(errno).unwrap_or(0);
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: plain integers.
    let mut failed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0;
    // SAFETY: the program and its filter live across the call, which copies them.
    failed |=
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } != 0;
    if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn a_system_without_room_closes_no_connection() {
    for errno in [libc::ENFILE, libc::ENOMEM, libc::ENOBUFS] {
        let (listener, address) = listener();
        let (mut client, given) = connection();
        let mut command =
            handed([&listener as _, &given as _], &["--socket-activation", "run", "sleep", "60"]);
        before_exec(&mut command, move || refuse_to_accept(errno));
        let mut kapo = Kapo::launch(command);
        client.write_all(&get("/livez")).unwrap();
        assert_eq!(one_answer(&mut client).body, "ok");
        let _waiting = TcpStream::connect(&address).unwrap();
        let warning = "level=warn msg=\"the system has no room for a connection\"";
        kapo.wait_for("it says so", |kapo| kapo.stderr().contains(warning));
        client.write_all(&get("/livez")).unwrap();
        assert_eq!(one_answer(&mut client).body, "ok", "the open connection makes no room");
    }
}
