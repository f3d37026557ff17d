//! sd_notify(3): the messages, both ways.

pub(crate) mod address;
pub(crate) mod message;
pub(crate) mod outbox;
