//! The table of `kapo ls`.

use std::time::{Duration, SystemTime};

use super::{Instance, names};
use crate::error::one_line;
use crate::logic::client::format::{bytes, cut, moment, span};

/// The number of columns of the wide table.
const COLUMNS: usize = 11;
/// The number of columns of the narrow table.
const NARROW: usize = 8;

const HEAD: [&str; COLUMNS] =
    ["NAME", "STATE", "SINCE", "RESTARTS", "LAST", "NEXT", "PID", "OWNER", "KAPO", "MEMORY", "COMMAND"];

/// How to print the table.
pub(crate) struct TableStyle<'a> {
    /// Whether there are all columns.
    pub wide: bool,
    /// The maximum width of a line.
    pub width: Option<usize>,
    /// Whether those in trouble are red.
    pub colour: bool,
    /// The current time of the client. Without it, times are shown as such, because the table stays for long.
    pub now: Option<SystemTime>,
    /// The text of /etc/passwd.
    pub passwd: &'a [u8],
}

impl TableStyle<'_> {
    /// Returns the table.
    pub(crate) fn table(&self, instances: &[Instance]) -> String {
        let mut widths = [0; COLUMNS];
        let mut out = String::new();
        // The cells are formatted twice, because those of 10,000 rows would need several MiB.
        for print in [false, true] {
            for instance in std::iter::once(None).chain(instances.iter().map(Some)) {
                let cells = self.cells(instance);
                if print {
                    let red = self.colour && instance.is_some_and(|instance| !instance.state.is_well());
                    self.line(&cells, &widths, red, &mut out);
                } else {
                    for (width, cell) in widths.iter_mut().zip(&cells) {
                        *width = (*width).max(cell.chars().count());
                    }
                }
            }
        }
        out
    }

    fn line(&self, cells: &[String], widths: &[usize], red: bool, out: &mut String) {
        let mut line = String::new();
        let mut end = 0;
        for (cell, width) in cells.iter().zip(widths).take(if self.wide { COLUMNS } else { NARROW }) {
            for _ in line.chars().count()..end {
                line.push(' ');
            }
            line.push_str(cell);
            end += width + 2;
        }
        let line = self.width.map(|width| cut(&line, width)).unwrap_or(line);
        let (before, behind) = if red { ("\x1b[31m", "\x1b[0m\n") } else { ("", "\n") };
        out.extend([before, &line, behind]);
    }

    /// Returns the cells of a row; `None` means the head.
    fn cells(&self, instance: Option<&Instance>) -> [String; COLUMNS] {
        let mut cells = HEAD.map(|title| if instance.is_some() { "-" } else { title }.to_owned());
        let Some(instance) = instance else { return cells };
        let [name, state, since, restarts, last, next, pid, owner, kapo, memory, command] = &mut cells;
        instance.name.clone_into(name);
        instance.state.name().clone_into(state);
        if let Some((id, user)) = instance.listener {
            *owner = names::user(self.passwd, user);
            // The pid is 0 if the process is in another PID namespace.
            if id > 0 {
                *kapo = id.to_string();
            }
        }
        if !instance.answers {
            return cells;
        }
        let facts = &instance.facts;
        if let Some(when) = if facts.running { facts.start } else { facts.end } {
            // The clock may have been changed.
            let ago = |now: SystemTime| span(now.duration_since(when).unwrap_or_default());
            *since = self.now.map_or_else(|| moment(when), ago);
        }
        *restarts = facts.restarts.to_string();
        if !facts.last.is_empty() {
            *last = one_line(&facts.last);
        }
        match (facts.next, facts.expires) {
            (Some(start), _) => *next = self.until("start", start),
            (None, Some(end)) => *next = self.until("ttl", end),
            (None, None) => {}
        }
        if facts.pid > 0 {
            *pid = facts.pid.to_string();
        }
        if let Some(resident) = facts.memory {
            *memory = bytes(resident);
        }
        *command = one_line(&facts.command);
        cells
    }

    /// Formats when something will happen. The time until then is rounded up.
    fn until(&self, what: &str, when: SystemTime) -> String {
        let Some(now) = self.now else { return [what, " at ", &moment(when)].concat() };
        let left = when.duration_since(now).unwrap_or_default();
        [what, " in ", &span(Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0)))]
            .concat()
    }
}
