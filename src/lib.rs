//! kapo wraps any command in a status socket.
pub mod cli;
pub mod config;
pub mod driver;
pub mod error;
pub mod logic;
pub mod signal;
pub mod sys;
