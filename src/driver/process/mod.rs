//! The command under `run` and `supervise`: its start, its signals, its terminal, and what the kernel reports about it.

pub(crate) mod cgroup;
pub(crate) mod directory;
pub(crate) mod helper;
pub(crate) mod job;
pub(crate) mod leftover_group;
pub(crate) mod main_pid;
pub(crate) mod oom;
pub(crate) mod parent_death;
pub(crate) mod program;
pub(crate) mod signals;
pub(crate) mod terminal;
pub(crate) mod termination_log;
pub(crate) mod textfile;
