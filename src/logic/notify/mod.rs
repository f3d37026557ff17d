//! sd_notify(3): the messages, both ways.

pub mod address;
pub mod message;
pub mod outbox;
