//! The options of `fleet`.

use super::{FLEET, Opt, value};

pub(super) const FLEET_OPTIONS: &[Opt] = &[
    value(FLEET, "timeout", "SECONDS")
        .otherwise("5")
        .says("time limit for an answer of the kapos", "A socket that has not answered by then is stuck."),
    value(FLEET, "idle-exit", "SECONDS").env("KAPO_IDLE_EXIT").says(
        "exit if no connection is open for this long",
        "The exit code is 0. With --socket-activation, the service manager starts fleet again for \
             the next client.",
    ),
];
