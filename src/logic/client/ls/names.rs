//! The names that `kapo ls` shows: of the sockets and of the users that own them.

use super::{Instance, sort};
use crate::config::{ListOrder, LogFormat};
use crate::logic::log::escape::escape;

/// The ending of the socket files of `--run-dir`.
pub(super) const SUFFIX: &[u8] = b".sock";

/// Sorts the instances by file, and gives each its [`name`].
pub(crate) fn assign(instances: &mut [Instance]) {
    sort(instances, ListOrder::Name);
    for place in 0..instances.len() {
        let Some(file) = instances.get(place).map(|instance| instance.file.as_slice()) else { return };
        let taken = |bare: &[u8]| instances.binary_search_by(|other| other.file.as_slice().cmp(bare)).is_ok();
        let name = name(file, &taken);
        if let Some(instance) = instances.get_mut(place) {
            instance.name = name;
        }
    }
}

/// Returns the name of a file, without control characters and without `.sock`. Names are unique: if there are both `a`
/// and `a.sock`, the latter keeps its ending. `taken`: whether there is a socket with this name.
pub(crate) fn name(file: &[u8], taken: &dyn Fn(&[u8]) -> bool) -> String {
    let bare = file.strip_suffix(SUFFIX).filter(|bare| !bare.is_empty() && !taken(bare));
    text(bare.unwrap_or(file), LogFormat::Logfmt)
}

/// Returns the text with its escapes.
pub(crate) fn text(bytes: &[u8], format: LogFormat) -> String {
    let mut out = Vec::new();
    escape(bytes, format, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Returns the name of a user in the text of /etc/passwd, or the number if there is none.
pub(crate) fn user(passwd: &[u8], user: u32) -> String {
    let number = user.to_string();
    let mut lines = passwd.split(|byte| *byte == b'\n');
    let name = lines.find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next()?;
        (fields.nth(1) == Some(number.as_bytes())).then_some(name)
    });
    name.map_or(number, |name| text(name, LogFormat::Logfmt))
}
