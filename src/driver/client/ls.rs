//! `kapo ls`: queries all Unix sockets of a folder, with one deadline, and prints what they answer.

use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{Timespec, poll};
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdout};

use super::follow::Follower;
use super::sweep::{Sweep, connect};
use super::{OutputStyle, print, say, terminal};
use crate::config::{Config, InstanceState, ListFormat, ListOptions};
use crate::driver::proc::small_file;
use crate::error::{EXIT_NO_ANSWER, EXIT_UNHEALTHY, Error, reason};
use crate::logic::client::ls::table::TableStyle;
use crate::logic::client::ls::{Instance, exit_code, export, names, sort};
use crate::sys::clock;

/// The maximum number of sockets that are listed.
const MOST: usize = 1 << 16;
/// The maximum length of /etc/passwd that is read.
const LONGEST_PASSWD: usize = 1 << 20;

/// Lists the instances of a folder. Returns 0 if all are well, 1 if one is not, 3 if there is no socket.
pub(crate) fn list(
    config: &Config,
    options: &ListOptions,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<u8, Error> {
    let path = match options.folder.as_ref().or(config.listen.run_dir.as_ref()) {
        Some(path) => path.clone(),
        None => default_folder(variable),
    };
    let cannot = |doing: &str, errno: Errno| Error::setup(doing, path.display(), reason(&errno.into()));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            say(stderr(), &format!("kapo: {}: No such file or directory", path.display()));
            return Ok(EXIT_NO_ANSWER);
        }
        folder => folder.map_err(|errno| cannot("open", errno))?,
    };
    let mut instances = sockets(&folder).map_err(|errno| cannot("read", errno))?;
    // With relative names, the path of the folder may have any length.
    rustix::process::fchdir(&folder).map_err(|errno| cannot("enter", errno))?;
    Sweep::new(options.timeout, &mut instances).run();
    if options.prune {
        prune(&folder, &mut instances);
    }
    if options.watch {
        return watch(&folder, instances, options, variable).map_err(|errno| cannot("watch", errno));
    }
    names::assign(&mut instances);
    sort(&mut instances, options.order);
    let code = exit_code(&instances);
    if code == EXIT_NO_ANSWER {
        say(stderr(), &format!("kapo: no socket in {}", path.display()));
    }
    instances.retain(|instance| options.states.contains(instance.state));
    Ok(if print(&show(&instances, options.format, variable)) { code } else { EXIT_UNHEALTHY })
}

/// Returns the first default folder that exists, or the first that is possible.
fn default_folder(variable: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let system = Path::new("/run/kapo");
    match variable("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()) {
        Some(own) if rustix::fs::stat(system).is_err() => Path::new(&own).join("kapo"),
        _ => system.to_owned(),
    }
}

/// Returns the sockets of a folder. Other files and symbolic links are left out.
fn sockets(folder: &OwnedFd) -> Result<Vec<Instance>, Errno> {
    let mut found = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 16_384];
    let mut entries = RawDir::new(folder.as_fd(), &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let kind = match entry.file_type() {
            // Some file systems do not store the type in the folder.
            FileType::Unknown => rustix::fs::statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
            kind => kind,
        };
        // A kapo whose socket has such a name does not accept connections yet.
        if kind != FileType::Socket || entry.file_name().to_bytes().starts_with(b".kapo") {
            continue;
        }
        if found.len() == MOST {
            say(stderr(), &format!("kapo: more than {MOST} sockets: the others are not listed"));
            break;
        }
        found.push(Instance::new(entry.file_name().to_bytes(), entry.ino()));
    }
    Ok(found)
}

/// Removes dead sockets whose file is still the same. kapo holds the same lock while it replaces a socket and begins
/// to listen, so that no socket is removed on which it is about to listen.
fn prune(folder: &OwnedFd, instances: &mut [Instance]) {
    let dead = |instance: &&mut Instance| instance.state == InstanceState::Dead;
    let mut dead = instances.iter_mut().filter(dead).peekable();
    if dead.peek().is_none() {
        return;
    }
    if let Err(errno) = lock(folder) {
        let why = reason(&errno.into());
        say(stderr(), &format!("kapo: no socket was removed: cannot lock the folder: {why}"));
        return;
    }
    for instance in dead {
        let file = instance.file.as_slice();
        let same = |stat: &rustix::fs::Stat| {
            stat.st_ino == instance.inode && FileType::from_raw_mode(stat.st_mode) == FileType::Socket
        };
        let stat = rustix::fs::statat(folder, file, AtFlags::SYMLINK_NOFOLLOW);
        // A file system may have given the number of the removed file to a new one.
        if !stat.as_ref().is_ok_and(same) || !matches!(connect(file), Err(Errno::CONNREFUSED)) {
            continue;
        }
        match rustix::fs::unlinkat(folder, file, AtFlags::empty()) {
            Ok(()) => instance.state = InstanceState::Removed,
            Err(errno) => {
                let (file, why) = (String::from_utf8_lossy(file), reason(&errno.into()));
                say(stderr(), &format!("kapo: cannot remove {file}: {why}"));
            }
        }
    }
}

/// Locks the folder until kapo exits. Gives up after 300 ms, because any user that may read the folder can lock it.
fn lock(folder: &OwnedFd) -> Result<(), Errno> {
    let mut tries = 30;
    loop {
        match rustix::fs::flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if tries > 0 => tries -= 1,
            result => return result,
        }
        let pause = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let _ = poll(&mut [], Some(&pause));
    }
}

/// Renders the instances.
fn show(instances: &[Instance], format: ListFormat, variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<u8> {
    // The folder is the working directory, and this is its absolute path.
    let folder = || rustix::process::getcwd(Vec::new()).map(|path| path.into_bytes()).unwrap_or_default();
    let wide = match format {
        ListFormat::Json => return export::json(instances, &folder()).into(),
        ListFormat::Prom => return export::prom(instances),
        ListFormat::FileSd => return export::file_sd(instances, &folder()).into(),
        _ if instances.is_empty() => return Vec::new(),
        ListFormat::Wide => true,
        ListFormat::Table => false,
    };
    let passwd = passwd();
    let OutputStyle { width, colour } = terminal(variable);
    let style = TableStyle { wide, width, colour, now: Some(clock::now().1), passwd: &passwd };
    style.table(instances).into()
}

/// Returns the text of /etc/passwd. Without the names, the numbers are shown.
fn passwd() -> Vec<u8> {
    let mut passwd = Vec::new();
    if let Ok(file) = small_file::open("/etc/passwd") {
        let _ = small_file::whole(file, LONGEST_PASSWD, &mut passwd);
    }
    passwd
}

/// Shows the instances and each change. Ends with an error if the folder is gone or nothing can be printed.
fn watch(
    folder: &OwnedFd,
    instances: Vec<Instance>,
    options: &ListOptions,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<u8, Errno> {
    let passwd = passwd();
    let mut follower = Follower::new(instances, options.timeout)?;
    let scan = || {
        // A folder that was removed has no name left.
        if rustix::fs::fstat(folder)?.st_nlink == 0 {
            return Err(Errno::NOENT);
        }
        rustix::fs::seek(folder, SeekFrom::Start(0))?;
        sockets(folder)
    };
    let (mut lost, mut headed) = (0, false);
    loop {
        follower.wait(&scan)?;
        let OutputStyle { width, colour } = terminal(variable);
        let height = rustix::termios::tcgetwinsize(stdout()).ok().map(|size| usize::from(size.ws_row));
        let wide = options.format == ListFormat::Wide;
        let style = TableStyle { wide, width, colour, now: None, passwd: &passwd };
        let (mut instances, changed): (Vec<Instance>, Vec<bool>) = follower.instances().into_iter().unzip();
        let mut changed = changed.iter();
        if height.is_none() {
            instances.retain(|_| changed.next() == Some(&true));
        }
        names::assign(&mut instances);
        sort(&mut instances, options.order);
        instances.retain(|instance| options.states.contains(instance.state));
        let mut text = String::new();
        match height {
            // Each line replaces the old one, so that the screen does not flicker.
            Some(height) => {
                text.push_str("\x1b[H");
                for line in style.table(&instances).lines().take(height.saturating_sub(1)) {
                    text.extend([line, "\x1b[K\n"]);
                }
                text.push_str("\x1b[J");
            }
            None => {
                let table = style.table(&instances);
                let rows = table.split_once('\n').map_or("", |(_, rows)| rows);
                text.push_str(if headed { rows } else { &table });
                headed = true;
            }
        }
        if !print(text.as_bytes()) {
            return Ok(EXIT_UNHEALTHY);
        }
        let now_lost = follower.not_followed();
        if now_lost > lost {
            say(stderr(), &format!("kapo: {now_lost} kapos cannot be followed: their states may be old"));
        }
        lost = now_lost;
    }
}
