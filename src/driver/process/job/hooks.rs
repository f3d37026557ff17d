//! Runs the commands of `--on`. `logic::hooks` decides which one runs when.

use std::ffi::CString;
use std::time::Instant;

use super::Job;
use crate::config::{HookEvent, JobOptions};
use crate::driver::event_loop::LoopContext;
use crate::driver::process::helper::{HelperRequest, Helpers};
use crate::error::{EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND};
use crate::logic::hooks::{HookAction, HookFacts, HookQueue};
use crate::logic::lifecycle::Event;
use crate::logic::log::record::Record;
use crate::logic::status::{Status, reason_name, render};
use crate::logic::{Exit, Now, metrics};
use crate::signal::Signal;

/// The hooks of one job. There are none without `--on`.
pub(super) struct Hooks {
    queue: HookQueue<HookInput>,
    /// The facts whose events are in the queue.
    seen: HookFacts,
    /// How many times the command was found unhealthy.
    unhealthy: u64,
    /// kapo's exit code, once only the hooks delay the exit.
    code: u8,
}

/// What a hook gets.
#[derive(Debug)]
struct HookInput {
    /// The status document at the time of the event.
    document: Vec<u8>,
    /// The variables, as `NAME=value`.
    variables: Vec<CString>,
}

impl HookInput {
    fn new(event: HookEvent, status: &Status, code: u8) -> HookInput {
        let last = status.last_run.as_ref();
        let pid = status.pid.or(last.and_then(|run| run.pid));
        let text = |value: Option<String>| value.unwrap_or_default();
        let variables = [
            ("EVENT", event.name().to_owned()),
            ("REASON", reason_name(status.reason).to_owned()),
            ("EXIT_CODE", code.to_string()),
            ("SIGNAL", text(status.signal.map(|signal| signal.to_string()))),
            ("PID", text(pid.map(|pid| pid.to_string()))),
            ("RESTARTS", status.restarts.to_string()),
            ("LASTED", text(last.map(|run| metrics::decimal(run.lasted)))),
        ];
        let variables = variables.map(|(name, value)| CString::new(format!("KAPO_{name}={value}")));
        let document = render(std::slice::from_ref(status));
        HookInput { document, variables: variables.into_iter().flatten().collect() }
    }
}

impl Job {
    /// Returns the hooks of a job.
    pub(super) fn hooks(options: &JobOptions) -> Option<Box<Hooks>> {
        let queue = || HookQueue::new(options.hook_timeout);
        let hooks = || Hooks { queue: queue(), seen: HookFacts::default(), unhealthy: 0, code: 0 };
        (!options.hooks.is_empty()).then(|| Box::new(hooks()))
    }

    /// Counts a command that is to be stopped because its probes have failed.
    pub(super) fn note_unhealthy(&mut self, event: &Event) {
        if let (Some(hooks), Event::Unhealthy { run, .. }) = (&mut self.hooks, event)
            && *run == self.life.starts()
            && self.life.status().pid.is_some()
            && !self.life.is_stopping()
        {
            hooks.unhealthy += 1;
        }
    }

    /// Puts the events since the last call into the queue.
    pub(super) fn note_events(&mut self) {
        let Some(hooks) = &mut self.hooks else { return };
        let facts = HookFacts { unhealthy: hooks.unhealthy, ..self.life.hook_facts() };
        let before = std::mem::replace(&mut hooks.seen, facts);
        if facts == before {
            return;
        }
        self.life.set_output(self.output.capture.document());
        let status = self.life.status();
        for event in facts.since(before) {
            if self.options.hooks.iter().any(|(wanted, _)| *wanted == event) {
                hooks.queue.push(event, HookInput::new(event, status, status.exit_code));
            }
        }
    }

    /// Ends kapo as soon as no hook runs or waits.
    pub(super) fn exit(&mut self, now: Now, code: u8, context: &mut LoopContext) {
        self.note_events();
        let Some(hooks) = &mut self.hooks else {
            context.exit = Some(code);
            return;
        };
        let wanted = self.options.hooks.iter().any(|(event, _)| *event == HookEvent::End);
        let input = wanted.then(|| HookInput::new(HookEvent::End, self.life.status(), code));
        hooks.code = code;
        hooks.queue.finish(now.mono, input);
        self.run_hooks(now, context);
    }

    /// Returns when [`Job::run_hooks`] has something to do.
    pub(super) fn hooks_deadline(&self, now: Now) -> Option<Instant> {
        let hooks = self.hooks.as_ref().filter(|hooks| !hooks.queue.is_idle())?;
        hooks.queue.deadline(now.mono, !self.children.helpers.is_hook_running())
    }

    /// Handles a signal while only the hooks delay the exit: a stop signal ends the waiting.
    pub(super) fn skip_hooks(&mut self, signal: Signal) {
        if let Some(hooks) = &mut self.hooks
            && hooks.queue.is_finishing()
            && self.options.stop_on.contains(signal)
        {
            hooks.queue.skip();
        }
    }

    /// Takes note of hooks that have ended, and starts the next one.
    pub(super) fn run_hooks(&mut self, now: Now, context: &mut LoopContext) {
        let Some(hooks) = &mut self.hooks else { return };
        let helpers = &mut self.children.helpers;
        loop {
            helpers.expire(now);
            if let Some(end) = helpers.take_hook_end()
                && let Some(event) = hooks.queue.ended()
            {
                let failed = Record::warn("hook failed").with("event", event.name());
                match end.exit {
                    Some(Exit::Code(0)) => {}
                    Some(Exit::Code(code)) => context.log(now, &failed.number("code", code)),
                    Some(Exit::Signal { signal, .. }) => context.log(now, &failed.with("signal", signal)),
                    None => context.log(now, &failed.with("error", "timed out")),
                }
            }
            if hooks.queue.is_idle() {
                return;
            }
            match hooks.queue.next(now.mono, !helpers.is_hook_running()) {
                None => return,
                Some(HookAction::Finish) => {
                    context.exit = Some(hooks.code);
                    return;
                }
                Some(HookAction::Kill) => helpers.cut_short(now, Helpers::HOOK),
                Some(HookAction::Run(event, input)) => {
                    let words = self.options.hooks.iter().find(|(wanted, _)| *wanted == event);
                    let request = HelperRequest {
                        words: words.map_or(&[], |(_, words)| words),
                        set: &input.variables,
                        input: &input.document,
                        keep_output: false,
                        timeout: self.options.hook_timeout,
                    };
                    context.deep = true;
                    let surroundings = self.starter.surroundings();
                    if let Err(why) =
                        helpers.start(now, &context.epoll, surroundings, Helpers::HOOK, &request)
                    {
                        hooks.queue.ended();
                        let code = match why.ends_with("not found") {
                            true => EXIT_NOT_FOUND,
                            false => EXIT_CANNOT_EXECUTE,
                        };
                        let record = Record::warn("hook failed").with("event", event.name());
                        context.log(now, &record.number("code", code).with("error", why));
                    }
                }
            }
        }
    }
}
