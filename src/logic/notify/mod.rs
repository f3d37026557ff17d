//! sd_notify(3) messages in both directions.

pub(crate) mod address;
pub(crate) mod message;
pub(crate) mod outbox;
