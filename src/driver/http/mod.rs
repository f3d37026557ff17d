//! Listening sockets and HTTP connections.

pub(crate) mod connection;
pub(crate) mod inherited_sockets;
pub(crate) mod listener;
pub(crate) mod server;
pub(crate) mod socket_access;
pub(crate) mod socket_file;
