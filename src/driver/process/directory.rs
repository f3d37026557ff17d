//! The working directory in which kapo was started. kapo changes to `/` after the first start, and the command's later
//! starts change back to it.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The working directory of the command.
#[derive(Debug)]
pub(crate) struct Directory {
    /// `None`: the folder was removed, or is outside kapo's root directory.
    path: Option<PathBuf>,
    moved: bool,
}

impl Directory {
    /// Returns the present working directory.
    pub(crate) fn current() -> Directory {
        Directory { path: std::env::current_dir().ok(), moved: false }
    }

    /// Changes to `/`, so that kapo does not keep a mount busy. Must be called after each start. Returns the directory
    /// that later starts must enter, or `None` if kapo stayed where it is or has left already.
    pub(crate) fn leave(&mut self) -> Option<CString> {
        if std::mem::replace(&mut self.moved, true) {
            return None;
        }
        let path = CString::new(self.path.clone()?.into_os_string().into_vec()).ok()?;
        // Stay here if the path cannot be used by the next start: it is unknown (the folder was removed), names another
        // folder or none (the folder was renamed), or cannot be searched by kapo.
        (leads_here(&path) && rustix::process::chdir("/").is_ok()).then_some(path)
    }
}

/// Whether `path` leads to the present working directory, as far as can be checked without entering it.
fn leads_here(path: &CStr) -> bool {
    // The dot at the end checks the permission to enter the last folder, too.
    let entered =
        CString::new([path.to_bytes(), b"/."].concat()).map(|path| rustix::fs::stat(path.as_c_str()));
    match (entered, rustix::fs::stat(c".")) {
        (Ok(Ok(there)), Ok(here)) => (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_to_the_same_folder_leads_here() {
        let path = |folder: PathBuf| CString::new(folder.into_os_string().into_vec()).unwrap();
        assert!(leads_here(&path(std::env::current_dir().unwrap())));
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(!leads_here(&path(elsewhere.path().to_owned())));
        assert!(!leads_here(&path(elsewhere.path().join("nowhere"))));
    }
}
