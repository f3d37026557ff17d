//! The working directory in which kapo was started. kapo leaves it for `/` after the first start; the command's later
//! starts enter it again.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Directory {
    /// `None`: the folder was removed, or lies outside of our root.
    path: Option<PathBuf>,
    moved: bool,
}

impl Directory {
    /// The working directory of now.
    pub(crate) fn current() -> Directory {
        Directory { path: std::env::current_dir().ok(), moved: false }
    }

    /// To be called after each start, of which the first needs no path to where it is: kapo must not keep a mount
    /// busy. What later starts have to enter; `None`: nothing new, as kapo has stayed, or was away already.
    pub(crate) fn leave(&mut self) -> Option<CString> {
        if std::mem::replace(&mut self.moved, true) {
            return None;
        }
        let path = CString::new(self.path.clone()?.into_os_string().into_vec()).ok()?;
        // Where the path is unknown (the folder was removed), or leads elsewhere or nowhere (it was renamed, or lies
        // in one that is closed to us), the next start is better off here than at the root.
        (leads_here(&path) && rustix::process::chdir("/").is_ok()).then_some(path)
    }
}

/// Whether our working directory can be entered by `path`, as far as one can say without going there.
fn leads_here(path: &CStr) -> bool {
    // The dot at the end asks for the right to enter the last folder, too.
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
    fn only_a_path_to_this_very_folder_leads_here() {
        let path = |folder: PathBuf| CString::new(folder.into_os_string().into_vec()).unwrap();
        assert!(leads_here(&path(std::env::current_dir().unwrap())));
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(!leads_here(&path(elsewhere.path().to_owned())));
        assert!(!leads_here(&path(elsewhere.path().join("nowhere"))));
    }
}
