//! The sockets that a service manager passes in the variables LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES; see
//! sd_listen_fds(3). `driver/http/inherited_sockets.rs` checks the descriptors themselves.

/// The number of the first inherited descriptor (SD_LISTEN_FDS_START).
pub const FIRST: i32 = 3;

/// The default of fs.nr_open, the limit for descriptors of one process. It keeps the descriptor numbers within i32.
const MOST: i32 = 1 << 20;

/// The values of the three variables.
#[derive(Clone, Copy, Debug, Default)]
pub struct ActivationVariables<'a> {
    /// The value of LISTEN_PID.
    pub pid: Option<&'a str>,
    /// The value of LISTEN_FDS.
    pub fds: Option<&'a str>,
    /// The value of LISTEN_FDNAMES.
    pub names: Option<&'a str>,
}

/// An inherited descriptor and the name from its socket unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// The number of the descriptor.
    pub fd: i32,
    /// The value of FileDescriptorName=, or `unknown`, which systemd uses as well.
    pub name: String,
}

/// Returns the descriptors that are meant for the process `own`; `None` if LISTEN_FDS is not set. The error is one line
/// with the variable, its value and what was expected.
pub fn inherited(variables: ActivationVariables<'_>, own: i32) -> Result<Option<Vec<Inherited>>, String> {
    let (Some(fds), pid) = (variables.fds, variables.pid) else { return Ok(None) };
    let pid = pid
        .ok_or_else(|| format!("LISTEN_FDS={fds} without LISTEN_PID: the sockets are not meant for kapo"))?;
    match pid.parse::<i32>() {
        Ok(pid) if pid == own => {}
        Ok(_) => {
            return Err(format!("LISTEN_PID={pid}: the sockets are meant for that process, kapo is {own}"));
        }
        Err(_) => return Err(format!("LISTEN_PID={pid} is not a process id")),
    }
    let count = match fds.parse::<i32>() {
        Ok(0) => return Err("LISTEN_FDS=0: no socket was handed over".to_owned()),
        Ok(count) if (1..=MOST - FIRST).contains(&count) => count,
        _ => return Err(format!("LISTEN_FDS={fds} is not a number of sockets (1 to {})", MOST - FIRST)),
    };
    let mut names = variables.names.unwrap_or_default().split(':');
    let name = |name: Option<&str>| name.filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned();
    Ok(Some((FIRST..FIRST + count).map(|fd| Inherited { fd, name: name(names.next()) }).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pid: Option<&str>, fds: Option<&str>, names: Option<&str>) -> Result<Vec<(i32, String)>, String> {
        let found = inherited(ActivationVariables { pid, fds, names }, 42)?;
        Ok(found.unwrap_or_default().into_iter().map(|one| (one.fd, one.name)).collect())
    }

    #[test]
    fn descriptors_count_from_three_and_have_names() {
        let found = read(Some("42"), Some("3"), Some("web:admin"));
        let expected = [(3, "web".to_owned()), (4, "admin".to_owned()), (5, "unknown".to_owned())];
        assert_eq!(found, Ok(expected.to_vec()));
        assert_eq!(read(Some("42"), Some("1"), None), Ok(vec![(3, "unknown".to_owned())]));
        assert_eq!(read(None, None, None), Ok(Vec::new()));
    }

    #[test]
    fn sockets_of_another_process_and_bad_numbers_are_errors() {
        for (pid, fds, part) in [
            (Some("43"), Some("1"), "LISTEN_PID=43"),
            (Some("x"), Some("1"), "LISTEN_PID=x"),
            (None, Some("1"), "without LISTEN_PID"),
            (Some("42"), Some("0"), "LISTEN_FDS=0"),
            (Some("42"), Some("abc"), "LISTEN_FDS=abc"),
            (Some("42"), Some("-1"), "LISTEN_FDS=-1"),
            (Some("42"), Some("1000000000"), "LISTEN_FDS=1000000000"),
            (Some("42"), Some("99999999999999999999"), "LISTEN_FDS=99999999999999999999"),
        ] {
            let error = read(pid, fds, None).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
        }
    }
}
