//! Chooses the address of the command's NOTIFY_SOCKET: the directories in order of preference, and the file names.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The number of names that are tried in a directory. A name is taken only if several kapo processes in different PID
/// namespaces share the directory.
const NAMES: u32 = 8;

/// Returns the directories to try, in this order: each of `$RUNTIME_DIRECTORY` (separated by colons, see
/// systemd.exec(5)), `/run`, `$XDG_RUNTIME_DIR`, `/tmp`. Relative paths are left out.
pub(crate) fn folders(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let runtime = variable("RUNTIME_DIRECTORY").unwrap_or_default();
    let user = variable("XDG_RUNTIME_DIR").unwrap_or_default();
    let runtime = runtime.as_bytes().split(|byte| *byte == b':').map(OsStr::from_bytes);
    let all = runtime.chain([OsStr::new("/run"), &user, OsStr::new("/tmp")]);
    all.map(Path::new).filter(|folder| folder.is_absolute()).map(Path::to_owned).collect()
}

/// Returns the paths to try in a directory. Each name contains the pid, so that a later kapo with the same pid
/// replaces the file of a killed one, and the number of such files is limited.
pub(crate) fn paths(folder: &Path, pid: i32) -> impl Iterator<Item = PathBuf> {
    (0..NAMES).map(move |number| match number {
        0 => folder.join(format!("kapo-notify-{pid}")),
        number => folder.join(format!("kapo-notify-{pid}-{number}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_directory_is_first_and_relative_ones_never() {
        for (runtime, user, expected) in [
            (None, None, vec!["/run", "/tmp"]),
            (
                Some("/run/a:/run/b"),
                Some("/run/user/1"),
                vec!["/run/a", "/run/b", "/run", "/run/user/1", "/tmp"],
            ),
            (Some(""), Some("relative"), vec!["/run", "/tmp"]),
        ] {
            let variable = |name: &str| match name {
                "RUNTIME_DIRECTORY" => runtime.map(OsString::from),
                "XDG_RUNTIME_DIR" => user.map(OsString::from),
                _ => None,
            };
            assert_eq!(folders(&variable), expected.iter().map(PathBuf::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn names_contain_the_pid() {
        let names: Vec<_> = paths(Path::new("/run"), 7).take(2).collect();
        assert_eq!(names, [PathBuf::from("/run/kapo-notify-7"), PathBuf::from("/run/kapo-notify-7-1")]);
    }
}
