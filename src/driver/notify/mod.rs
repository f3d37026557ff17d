//! sd_notify(3), both ways: to the service manager, and from the command.

pub mod notify_socket;
pub mod service_manager;
