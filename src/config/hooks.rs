//! The events of `--on`.

/// An event of `--on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookEvent {
    /// A run has started.
    Start,
    /// The command has become ready.
    Ready,
    /// A run has failed.
    Fail,
    /// Runs fail too often.
    Flapping,
    /// Runs do not fail too often any more.
    Recovered,
    /// `supervise` does not try another start.
    GiveUp,
    /// The command is stopped because its probes failed.
    Unhealthy,
    /// A signal has asked kapo to stop.
    Stop,
    /// kapo ends.
    End,
}

impl HookEvent {
    /// All events.
    pub const ALL: [HookEvent; 9] = [
        HookEvent::Start,
        HookEvent::Ready,
        HookEvent::Fail,
        HookEvent::Flapping,
        HookEvent::Recovered,
        HookEvent::GiveUp,
        HookEvent::Unhealthy,
        HookEvent::Stop,
        HookEvent::End,
    ];

    /// Returns the name of the event.
    pub fn name(self) -> &'static str {
        match self {
            HookEvent::Start => "start",
            HookEvent::Ready => "ready",
            HookEvent::Fail => "fail",
            HookEvent::Flapping => "flapping",
            HookEvent::Recovered => "recovered",
            HookEvent::GiveUp => "give-up",
            HookEvent::Unhealthy => "unhealthy",
            HookEvent::Stop => "stop",
            HookEvent::End => "end",
        }
    }

    /// Returns the variable with the command for the event.
    pub fn variable(self) -> &'static str {
        match self {
            HookEvent::Start => "KAPO_ON_START",
            HookEvent::Ready => "KAPO_ON_READY",
            HookEvent::Fail => "KAPO_ON_FAIL",
            HookEvent::Flapping => "KAPO_ON_FLAPPING",
            HookEvent::Recovered => "KAPO_ON_RECOVERED",
            HookEvent::GiveUp => "KAPO_ON_GIVE_UP",
            HookEvent::Unhealthy => "KAPO_ON_UNHEALTHY",
            HookEvent::Stop => "KAPO_ON_STOP",
            HookEvent::End => "KAPO_ON_END",
        }
    }
}
