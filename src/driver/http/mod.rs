//! Listening sockets and HTTP connections.

pub mod connection;
pub mod inherited_sockets;
pub mod listener;
pub mod server;
pub mod socket_file;
