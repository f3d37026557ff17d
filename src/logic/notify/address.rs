//! Where the command's NOTIFY_SOCKET can be: the folders in their order, and the names in a folder.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many names are tried in a folder. They are taken only if kapos of several PID namespaces share the folder.
const NAMES: u32 = 8;

/// The folders to try, in this order: each of `$RUNTIME_DIRECTORY` (systemd.exec(5) separates them by colons), `/run`,
/// `$XDG_RUNTIME_DIR`, `/tmp`. Relative ones are left out.
pub(crate) fn folders(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let runtime = variable("RUNTIME_DIRECTORY").unwrap_or_default();
    let user = variable("XDG_RUNTIME_DIR").unwrap_or_default();
    let runtime = runtime.as_bytes().split(|byte| *byte == b':').map(OsStr::from_bytes);
    let all = runtime.chain([OsStr::new("/run"), &user, OsStr::new("/tmp")]);
    all.map(Path::new).filter(|folder| folder.is_absolute()).map(Path::to_owned).collect()
}

/// The paths to try in a folder. The name holds the pid, so that the file of a kapo that was killed is replaced when its
/// pid is used again, and such files are no more than there are pids.
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
    fn the_runtime_directory_comes_first_and_relative_folders_never() {
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
    fn names_hold_the_pid() {
        let names: Vec<_> = paths(Path::new("/run"), 7).take(2).collect();
        assert_eq!(names, [PathBuf::from("/run/kapo-notify-7"), PathBuf::from("/run/kapo-notify-7-1")]);
    }
}
