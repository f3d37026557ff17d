//! `kapo ls`: queries all Unix sockets of a folder, with one deadline, and prints what they answer.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::stdio::{stderr, stdout};

use super::folder::{self, MOST};
use super::instances::Instances;
use super::{OutputStyle, print, say, terminal};
use crate::config::{Config, ListFormat, ListOptions};
use crate::driver::proc::small_file;
use crate::error::{EXIT_NO_ANSWER, EXIT_UNHEALTHY, Error, reason};
use crate::logic::client::ls::table::TableStyle;
use crate::logic::client::ls::{Instance, exit_code, export, names, sort};
use crate::sys::clock;

/// How many sockets are queried at once.
const AT_ONCE: usize = 64;
/// The least time between two outputs.
const LEAST: Duration = Duration::from_millis(100);
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
    let folder = match folder::open(&path) {
        Err(Errno::NOENT) => {
            say(stderr(), &format!("kapo: {}: No such file or directory", path.display()));
            return Ok(EXIT_NO_ANSWER);
        }
        folder => folder.map_err(|errno| cannot("open", errno))?,
    };
    let instances = Instances::new(folder, AT_ONCE, options.timeout);
    let mut instances = instances.map_err(|errno| cannot("watch", errno))?;
    if options.prune || !options.watch {
        instances.query(clock::monotonic()).map_err(|errno| cannot("read", errno))?;
        while !instances.is_complete() {
            instances.wait(None).map_err(|errno| cannot("read", errno))?;
        }
    }
    if options.prune {
        instances.prune();
    }
    if options.watch {
        return watch(instances, options, variable).map_err(|errno| cannot("watch", errno));
    }
    let mut instances = instances.into_all();
    if instances.len() == MOST {
        say(stderr(), &format!("kapo: only the first {MOST} sockets are listed"));
    }
    names::assign(&mut instances);
    sort(&mut instances, options.order);
    let code = exit_code(&instances);
    if code == EXIT_NO_ANSWER {
        say(stderr(), &format!("kapo: no socket in {}", path.display()));
    }
    instances.retain(|instance| options.states.contains(instance.state));
    Ok(if print(&show(&mut instances, options, variable)) { code } else { EXIT_UNHEALTHY })
}

/// Returns the first default folder that exists, or the first that is possible.
pub(crate) fn default_folder(variable: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let system = Path::new("/run/kapo");
    match variable("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()) {
        Some(own) if rustix::fs::stat(system).is_err() => Path::new(&own).join("kapo"),
        _ => system.to_owned(),
    }
}

/// Renders the instances.
fn show(
    instances: &mut [Instance],
    options: &ListOptions,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Vec<u8> {
    // The folder is the working directory, and this is its absolute path.
    let folder = || rustix::process::getcwd(Vec::new()).map(|path| path.into_bytes()).unwrap_or_default();
    let format = options.format;
    if matches!(format, ListFormat::Json | ListFormat::Wide) {
        read_memory(instances);
    }
    let wide = match format {
        ListFormat::Json => return export::json(instances, &folder()).into(),
        ListFormat::Prom => return export::prom(instances),
        ListFormat::FileSd => {
            return match &options.fleet {
                Some(address) => export::through_fleet(instances, address),
                None => export::file_sd(instances, &folder()),
            }
            .into();
        }
        _ if instances.is_empty() => return Vec::new(),
        ListFormat::Wide => true,
        ListFormat::Table => false,
    };
    let passwd = passwd();
    let OutputStyle { width, colour } = terminal(variable);
    let style = TableStyle { wide, width, colour, now: Some(clock::now().1), passwd: &passwd };
    style.table(instances).into()
}

/// Reads the resident memory of each command from /proc/PID/statm (proc_pid_statm(5)), unless its kapo is in another PID
/// namespace.
pub(crate) fn read_memory(instances: &mut [Instance]) {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or_default();
    let mut buffer = [0; 64];
    for Instance { listener, facts, .. } in instances {
        if facts.pid > 0 && listener.is_some_and(|(kapo, _)| kapo > 0) {
            let path = ["/proc/", &facts.pid.to_string(), "/statm"].concat();
            let text = small_file::beginning(path, &mut buffer).unwrap_or_default();
            let pages =
                text.split(|byte| *byte == b' ').nth(1).and_then(|word| std::str::from_utf8(word).ok());
            let pages: Option<u64> = pages.and_then(|word| word.parse().ok());
            facts.memory = pages.map(|pages| pages.saturating_mul(page));
        }
    }
}

/// Returns the text of /etc/passwd. Without the names, the numbers are shown.
pub(crate) fn passwd() -> Vec<u8> {
    let mut passwd = Vec::new();
    if let Ok(file) = small_file::open("/etc/passwd") {
        let _ = small_file::whole(file, LONGEST_PASSWD, &mut passwd);
    }
    passwd
}

/// Shows the instances and each change. Ends with an error if the folder is gone or nothing can be printed.
fn watch(
    mut all: Instances,
    options: &ListOptions,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<u8, Errno> {
    let passwd = passwd();
    all.follow(clock::monotonic(), 0)?;
    while !all.is_complete() {
        all.wait(None)?;
    }
    let (mut lost, mut headed) = (0, false);
    loop {
        while !all.has_changed() {
            all.wait(None)?;
        }
        let OutputStyle { width, colour } = terminal(variable);
        let height = rustix::termios::tcgetwinsize(stdout()).ok().map(|size| usize::from(size.ws_row));
        let wide = options.format == ListFormat::Wide;
        let style = TableStyle { wide, width, colour, now: None, passwd: &passwd };
        let changed = all.changed();
        drop(all.removed());
        let mut instances: Vec<Instance> = match height {
            Some(_) => all.copy(),
            None => changed.iter().filter_map(|place| all.at(*place).cloned()).collect(),
        };
        names::assign(&mut instances);
        sort(&mut instances, options.order);
        instances.retain(|instance| options.states.contains(instance.state));
        if wide {
            read_memory(&mut instances);
        }
        let table = style.table(&instances);
        let text = match height {
            // Each line replaces the old one, so that the screen does not flicker.
            Some(height) => {
                let mut text = "\x1b[H".to_owned();
                for line in table.lines().take(height.saturating_sub(1)) {
                    text.extend([line, "\x1b[K\n"]);
                }
                text.push_str("\x1b[J");
                text
            }
            None if headed => table.split_once('\n').map_or("", |(_, rows)| rows).to_owned(),
            None => table,
        };
        headed = true;
        if !print(text.as_bytes()) {
            return Ok(EXIT_UNHEALTHY);
        }
        let now_lost = all.not_followed();
        if now_lost > lost {
            say(stderr(), &format!("kapo: {now_lost} kapos cannot be followed: their states may be old"));
        }
        lost = now_lost;
        // What changes soon after that is shown at once.
        let next = clock::monotonic() + LEAST;
        while clock::monotonic() < next {
            all.wait(Some(next))?;
        }
    }
}
