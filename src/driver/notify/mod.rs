//! sd_notify(3) in both directions: to the service manager, and from the command.

pub(crate) mod notify_socket;
pub(crate) mod service_manager;
