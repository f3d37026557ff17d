//! Reads the options of the modes that work on a folder of sockets: `ls` and `fleet`.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::settings::{Settings, ValueSource};
use super::{only, time_for_an_answer, values};
use crate::config::{FleetOptions, Interface, ListFormat, ListOptions, ListOrder, Listen, StateSet};
use crate::error::Error;

/// Returns the folder of sockets, if one is given.
fn folder(settings: &Settings<'_>, operands: Vec<OsString>) -> Result<Option<PathBuf>, Error> {
    let folder = only(operands, settings.verb().row().name, "DIR")?;
    if folder.as_ref().is_some_and(|folder| folder.is_empty()) {
        return Err(Error::Usage("DIR: '' is not a path".to_owned()));
    }
    Ok(folder.map(Into::into))
}

/// The port of `fleet` without `--port`. Browsers refuse to connect to 6666, and to all ports up to 6669.
const FLEET_PORT: u16 = 6670;

pub(super) fn fleet(
    settings: &mut Settings<'_>,
    listen: &mut Listen,
    operands: Vec<OsString>,
) -> Result<FleetOptions, Error> {
    let folder = folder(settings, operands)?;
    if settings.source("port") == ValueSource::Default {
        listen.port = FLEET_PORT;
    }
    // A page of all commands of a host is not public unless the user wants that.
    if settings.source("interface") == ValueSource::Default {
        listen.interface = Interface::Ip(Ipv4Addr::LOCALHOST.into());
    }
    Ok(FleetOptions {
        // fleet reads this folder. A socket of its own there would be listed as well.
        folder: folder.or(listen.run_dir.take()),
        timeout: time_for_an_answer(settings)?,
        idle_exit: settings.optional("idle-exit", values::seconds)?,
    })
}

pub(super) fn list(settings: &mut Settings<'_>, operands: Vec<OsString>) -> Result<ListOptions, Error> {
    let folder = folder(settings, operands)?;
    let format = settings.value("output", |text| values::word(text, ListFormat::WORDS))?;
    let order = settings.value("sort", |text| values::word(text, ListOrder::WORDS))?;
    let watch = settings.flag("watch")?;
    if watch && format >= 2 {
        return Err(Error::Usage("--watch needs the output format table or wide".to_owned()));
    }
    let fleet = settings.optional("fleet", values::host_and_port)?;
    if fleet.is_some() && format != 4 {
        return Err(Error::Usage("--fleet needs the output format file-sd".to_owned()));
    }
    Ok(ListOptions {
        folder,
        format: ListFormat::ALL.get(format).copied().unwrap_or(ListFormat::Table),
        order: ListOrder::ALL.get(order).copied().unwrap_or(ListOrder::State),
        states: StateSet(settings.optional("state", values::states)?.unwrap_or(usize::MAX)),
        watch,
        prune: settings.flag("prune")?,
        fleet,
        timeout: time_for_an_answer(settings)?,
    })
}
