//! Reads the commands of `--on` and of the variables KAPO_ON_START to KAPO_ON_END.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::settings::Settings;
use super::values::{self, Wrong, shown};
use crate::config::HookEvent;
use crate::error::Error;

/// The words of the command for an event.
type Hook = (HookEvent, Vec<OsString>);

/// Returns the command for each event. One on the command line overrides the variable of its event.
pub(super) fn commands(settings: &mut Settings<'_>) -> Result<Vec<Hook>, Error> {
    let mut hooks: Vec<Hook> = Vec::new();
    for hook in settings.all("on", |text| Ok(vec![hook(text)?]))? {
        if hooks.iter().any(|(event, _)| *event == hook.0) {
            return Err(Error::Usage(format!("--on: {} has two commands", hook.0.name())));
        }
        hooks.push(hook);
    }
    for event in HookEvent::ALL {
        let variable = event.variable();
        let text = settings.variables().iter().find(|(name, _)| name == variable).map(|(_, text)| text);
        // An empty variable counts as not set, as for all options.
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        if hooks.iter().all(|(given, _)| *given != event) {
            let words =
                words(text).ok_or_else(|| Error::Usage(format!("{variable}: there is no command")))?;
            hooks.push((event, words));
        }
    }
    Ok(hooks)
}

/// Returns `--on-timeout`.
pub(super) fn timeout(settings: &mut Settings<'_>) -> Result<Duration, Error> {
    let timeout = settings.value("on-timeout", values::seconds)?;
    if timeout.is_zero() {
        let label = settings.label("on-timeout");
        return Err(Error::Usage(format!("{label}: the time must be longer than 0")));
    }
    Ok(timeout)
}

/// Parses `EVENT=COMMAND`.
fn hook(text: &OsStr) -> Result<Hook, Wrong> {
    let bytes = text.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
    let (name, command) = bytes.split_at(at);
    let event = HookEvent::ALL.into_iter().find(|event| event.name().as_bytes() == name);
    let event = event.ok_or_else(|| {
        let names = HookEvent::ALL.map(HookEvent::name).join(", ");
        format!("{} is not an event ({names})", shown(OsStr::from_bytes(name)))
    })?;
    let words = words(OsStr::from_bytes(command.get(1..).unwrap_or_default()));
    Ok((event, words.ok_or_else(|| format!("{} has no command ({0}=COMMAND)", event.name()))?))
}

/// Splits a command at blanks. Returns `None` if there are no words.
fn words(text: &OsStr) -> Option<Vec<OsString>> {
    let words = text.as_bytes().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let words: Vec<OsString> = words.map(|word| OsStr::from_bytes(word).to_owned()).collect();
    Some(words).filter(|words| !words.is_empty())
}
