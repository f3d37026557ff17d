//! The options that report runs to other programs.

use super::{Completion, JOB, Opt, value};

pub(super) const REPORTING: &[Opt] =
    &[value(JOB, "textfile", "PATH").completes(Completion::Path).env("KAPO_TEXTFILE").says(
        "write metrics to this file for node_exporter",
        "The file is replaced at each start and end of a run. Its name must end with .prom. Each \
             metric has the label name, the value of --name.",
    )];
