//! The sockets that a service manager hands over, as sd_listen_fds(3) tells them: LISTEN_PID, LISTEN_FDS and
//! LISTEN_FDNAMES. What the descriptors really are is looked at in `driver/http/inherited_sockets.rs`.

/// Descriptors are handed over from this number on.
pub const FIRST: i32 = 3;

/// A kernel allows no process more than this (fs.nr_open can be raised, but nobody hands over a million sockets).
const MOST: i32 = 1 << 20;

/// The three variables, as they are set.
#[derive(Clone, Copy, Debug, Default)]
pub struct Variables<'a> {
    /// LISTEN_PID
    pub pid: Option<&'a str>,
    /// LISTEN_FDS
    pub fds: Option<&'a str>,
    /// LISTEN_FDNAMES
    pub names: Option<&'a str>,
}

/// A descriptor and the name that its socket unit gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// Its number.
    pub fd: i32,
    /// FileDescriptorName=, or `unknown`, as systemd says.
    pub name: String,
}

/// The descriptors that are meant for the process `own`; `None` where the variables say nothing of any; an error
/// is one line that names the variable, its value and what was expected.
pub fn inherited(variables: Variables<'_>, own: i32) -> Result<Option<Vec<Inherited>>, String> {
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
        let found = inherited(Variables { pid, fds, names }, 42)?;
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
    fn what_is_not_meant_for_us_or_no_number_is_named() {
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
