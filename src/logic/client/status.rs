//! Composes the page of `kapo status`: the verdict, resource usage, the last runs and the last output lines.

use std::time::{Duration, SystemTime};

use super::format::{self, bytes, bytes_of, end, moment, ordinal, sender, span, time};
use super::json::Json;
use crate::duration;
use crate::error::one_line;
use crate::logic::log::timestamp;

/// The maximum number of lines, so that the page fits on a terminal of the usual height.
const LINES: usize = 24;
/// The maximum number of ended runs that are listed, besides the first failure.
const ENDS: usize = 5;
/// The maximum number of output lines of the first failure.
const FIRST_OUTPUT: usize = 3;
/// The maximum number of output lines of the last run.
const OUTPUT: usize = 10;

/// The maximum number of failing probes that are listed, besides the first.
const PROBES: usize = 5;

/// The path that requests only the metrics that the page shows. An older kapo ignores the query and returns all
/// metrics.
pub(crate) const METRICS: &str = "/metrics?name[]=kapo_child_resident_memory_bytes&name[]=kapo_child_cpu_seconds_total\
    &name[]=kapo_child_processes&name[]=kapo_cgroup_memory_bytes&name[]=kapo_cgroup_memory_limit_bytes";

/// The answers of the kapo.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    /// The result of [`document`].
    pub document: &'a Json,
    /// The result of [`history`].
    pub runs: Option<&'a Json>,
    /// The answer to `/metrics`; may be empty.
    pub metrics: &'a [u8],
    /// The answer to `/logs`; `None` if that kapo keeps no output.
    pub output: Option<&'a [u8]>,
    /// The reason why `/healthz` is not 200.
    pub unhealthy: Option<&'a str>,
    /// The reason why `/readyz` is not 200.
    pub unready: Option<&'a str>,
    /// The current time of the client.
    pub now: SystemTime,
}

/// Parses the status document; `None` if the text is not that of a kapo.
pub(crate) fn document(text: &[u8]) -> Option<Json> {
    let document = Json::parse(text)?;
    let kapo = |object: &Json| {
        [object.get("Command"), object.get("Status")].iter().all(|m| matches!(m, Json::Text(_)))
    };
    (!document.list().is_empty() && document.list().iter().all(kapo)).then_some(document)
}

/// Parses the answer to `/runs`; `None` for any other text, because a kapo without that path returns the status
/// document.
pub(crate) fn history(text: &[u8]) -> Option<Json> {
    let runs = Json::parse(text)?;
    let run = |run: &Json| matches!(run, Json::Object(_)) && *run.get("Command") == Json::Null;
    (matches!(runs, Json::List(_)) && runs.list().iter().all(run)).then_some(runs)
}

/// Combines two JSON texts into one: `{"Status":[...],"Runs":[...]}`.
pub(crate) fn json(document: &[u8], runs: Option<&[u8]>) -> Vec<u8> {
    let runs = runs.unwrap_or(b"null");
    [b"{\"Status\":", document.trim_ascii(), b",\"Runs\":", runs.trim_ascii(), b"}\n"].concat()
}

/// Formats the lines for output: without control characters and cut at `width`. The first line is coloured if `colour`
/// is given, which says whether the command is healthy.
pub(crate) fn page(lines: &[String], width: usize, colour: Option<bool>) -> String {
    let mut page = String::new();
    for (number, line) in lines.iter().take(LINES).enumerate() {
        let line = format::cut(&one_line(line), width);
        let (before, behind) = match colour {
            Some(true) if number == 0 => ("\x1b[32m", "\x1b[0m"),
            Some(false) if number == 0 => ("\x1b[31m", "\x1b[0m"),
            _ => ("", ""),
        };
        page.push_str(&format!("{before}{line}{behind}\n"));
    }
    page
}

/// Returns the lines of the page.
pub(crate) fn report(findings: &Findings<'_>) -> Vec<String> {
    let objects = findings.document.list();
    let Some(object) = objects.first() else { return Vec::new() };
    let watch = object.get("Mode").text() == "watch";
    let several = objects.iter().any(|other| other.get("Command").text() != object.get("Command").text());
    let facts = CommandFacts { findings, object, last: last_run(findings, object) };
    let mut lines = Vec::new();
    if watch {
        facts.processes(objects, several, &mut lines);
    } else {
        facts.command(&mut lines);
    }
    // With several names, the metrics have a sample for each of them.
    if !several {
        facts.usage(&mut lines);
    }
    facts.ends(&mut lines);
    if !watch {
        facts.output(&mut lines);
    }
    lines
}

/// Returns the newest ended run or, for a kapo without `/runs`, the last run in the document.
fn last_run<'a>(findings: &Findings<'a>, object: &'a Json) -> Option<&'a Json> {
    let newest = findings.runs.and_then(|runs| runs.list().first());
    let last = Some(object.get("LastRun")).filter(|run| **run != Json::Null);
    let own = Some(object).filter(|object| !object.get("Reason").text().is_empty());
    newest.or(last).or(own)
}

struct CommandFacts<'a> {
    findings: &'a Findings<'a>,
    /// The object of the command, or of the first watched process.
    object: &'a Json,
    last: Option<&'a Json>,
}

impl CommandFacts<'_> {
    /// Formats how long ago `when` was; 0 if it is in the future for the client.
    fn ago(&self, when: SystemTime) -> String {
        span(self.findings.now.duration_since(when).unwrap_or_default())
    }

    /// Formats the time until `when`; 0 if it has passed.
    fn until(&self, when: SystemTime) -> String {
        // Round up, because "in 0 s" would be wrong for something that has not happened yet.
        let left = when.duration_since(self.findings.now).unwrap_or_default();
        let whole = Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0));
        span(whole)
    }

    /// Returns the name of the instance, or the file name of the command. It is cut, so that the verdict fits beside
    /// it.
    fn name(&self) -> String {
        const LONGEST: usize = 40;
        let name = match self.object.get("Name").text() {
            "" => {
                let command = self.object.get("Command").text();
                command.rsplit('/').find(|part| !part.is_empty()).unwrap_or(command)
            }
            name => name,
        };
        format::cut(name, LONGEST)
    }

    /// `last exit 3`.
    fn last_end(&self) -> Option<String> {
        let end = end(self.last?);
        Some(if end.starts_with("exit") { format!("last {end}") } else { format!("last end: {end}") })
    }

    fn command(&self, lines: &mut Vec<String>) {
        let object = self.object;
        lines.push(format!("{}: {}", self.name(), self.verdict()));
        let mut row = |label: &str, text: String| lines.push(format!("  {label:<9} {text}"));
        row("state", self.state());
        let ready = object.get("Ready").is_true();
        match self.findings.unready {
            _ if ready => row("ready", "yes".to_owned()),
            Some(why) => row("ready", format!("no: {why}")),
            None => row("ready", "no".to_owned()),
        }
        if let Some(why) = self.findings.unhealthy.filter(|why| Some(*why) != self.findings.unready) {
            row("healthy", format!("no: {why}"));
        }
        // The row `ready` has the first of them.
        let failing = object.get("Probes").list().iter().filter(|probe| !probe.get("Up").is_true());
        for probe in failing.skip(1).take(PROBES) {
            row("probe", format!("{}: {}", probe.get("Name").text(), probe.get("Reason").text()));
        }
        if let Some(restarts) = object.get("Restarts").number()
            && (restarts > 0 || object.get("Mode").text() == "supervise")
        {
            let flapping = if object.get("Flapping").is_true() { ", flapping" } else { "" };
            row("restarts", format!("{restarts}{flapping}"));
        }
        if let Some(expires) = time(object, "ExpiresAt") {
            row("ttl", format!("ends the run in {}, at {}", self.until(expires), moment(expires)));
        }
        if let Some(from) = sender(object.get("StopSignalFrom")) {
            row("stop", format!("asked for by {from}"));
        }
        let said = object.get("StatusText").text();
        if !said.is_empty() {
            row("status", said.to_owned());
        }
    }

    /// Returns the current state in one sentence.
    fn verdict(&self) -> String {
        let object = self.object;
        let restarts = object.get("Restarts").number().unwrap_or_default();
        let last = self.last_end().map_or_else(String::new, |end| format!(", {end}"));
        if object.get("Status").text() == "running" {
            let lasted = time(object, "StartTime").map_or_else(|| "?".to_owned(), |start| self.ago(start));
            if let Some(stop) = time(object, "StopsAt") {
                return format!("draining, stop signal in {}", self.until(stop));
            }
            if let (false, Some(from)) = (object.get("Ready").is_true(), sender(object.get("StopSignalFrom")))
            {
                return format!("being stopped by {from}");
            }
            let state = match (object.get("Ready").is_true(), object.get("Flapping").is_true()) {
                (false, _) => format!("not ready, running for {lasted}"),
                (true, true) => format!("flapping, running for {lasted}"),
                (true, false) => format!("running for {lasted}"),
            };
            return match restarts {
                0 => state,
                1 => format!("{state}, restarted once{last}"),
                restarts => format!("{state}, restarted {restarts} times{last}"),
            };
        }
        if time(object, "NextStart").is_some() {
            return format!("restarting for the {} time{last}", ordinal(restarts.saturating_add(1)));
        }
        match self.last {
            None => "not started yet".to_owned(),
            Some(run) => format!("ended: {}", end(run)),
        }
    }

    fn state(&self) -> String {
        let object = self.object;
        let since =
            |name| time(object, name).map(|when| format!("since {} ({})", moment(when), self.ago(when)));
        if object.get("Status").text() == "running" {
            let pid = object.get("Pid").number().unwrap_or_default();
            return format!("running {}, pid {pid}", since("StartTime").unwrap_or_default());
        }
        let ended = since("EndTime");
        match (time(object, "NextStart"), ended) {
            (Some(next), Some(ended)) => format!("in the pause {ended}; next start in {}", self.until(next)),
            (Some(next), None) => format!("in the pause; next start in {}", self.until(next)),
            (None, Some(ended)) => format!("ended {ended}"),
            (None, None) => "not started yet".to_owned(),
        }
    }

    /// Adds a line for each process in watch mode.
    fn processes(&self, objects: &[Json], several: bool, lines: &mut Vec<String>) {
        const MOST: usize = 12;
        let running = || objects.iter().filter(|object| object.get("Status").text() == "running");
        lines.push(match running().count() {
            0 => {
                let last = self.last_end().map_or_else(String::new, |end| format!(", {end}"));
                format!("{}: no process{last}", self.name())
            }
            1 => format!("{}: 1 process", self.name()),
            n => format!("{}: {n} processes", self.name()),
        });
        if running().next().is_some() {
            lines.push(format!("  {:<9} running since", "pid"));
        }
        for process in running().take(MOST) {
            let pid = process.get("Pid").number().unwrap_or_default();
            let start = time(process, "StartTime");
            let start = start
                .map_or_else(|| "?".to_owned(), |start| format!("{} ({})", moment(start), self.ago(start)));
            let name = if several { process.get("Command").text() } else { "" };
            lines.push(format!("  {pid:<9} {start}  {name}").trim_end().to_owned());
        }
        let others = running().count().saturating_sub(MOST);
        if others > 0 {
            lines.push(format!("  and {others} more"));
        }
        let missing = objects.iter().filter(|object| object.get("Status").text() != "running");
        let missing: Vec<&str> = missing.map(|object| object.get("Command").text()).collect();
        if several && !missing.is_empty() {
            lines.push(format!("  no process: {}", missing.join(", ")));
        }
    }

    /// Adds current memory, CPU time and number of processes.
    fn usage(&self, lines: &mut Vec<String>) {
        let whole = |name: &str| metric(self.findings.metrics, name)?.parse::<u64>().ok();
        let mut parts = Vec::new();
        if self.object.get("Status").text() == "running" {
            parts.extend(
                whole("kapo_child_resident_memory_bytes").map(|memory| format!("memory {}", bytes(memory))),
            );
            let cpu = metric(self.findings.metrics, "kapo_child_cpu_seconds_total").and_then(duration::parse);
            parts.extend(cpu.map(|cpu| format!("CPU {}", span(cpu))));
            let processes = whole("kapo_child_processes");
            parts.extend(processes.map(|n| format!("{n} process{}", if n == 1 { "" } else { "es" })));
        }
        match (whole("kapo_cgroup_memory_bytes"), whole("kapo_cgroup_memory_limit_bytes")) {
            (Some(used), Some(limit)) => parts.push(format!("cgroup {}", bytes_of(used, limit))),
            (Some(used), None) => parts.push(format!("cgroup {}, no limit", bytes(used))),
            (None, _) => {}
        }
        if !parts.is_empty() {
            lines.push(format!("  {:<9} {}", "now", parts.join(", ")));
        }
    }

    /// Adds the last ended runs and the first failure of the episode.
    fn ends(&self, lines: &mut Vec<String>) {
        let runs = self.findings.runs.map(Json::list).unwrap_or_default();
        let runs: Vec<&Json> =
            if runs.is_empty() { self.last.into_iter().collect() } else { runs.iter().collect() };
        // The first failure is not listed separately if it is also the newest run.
        let first = runs.iter().skip(1).find(|run| run.get("First").is_true());
        let mut listed = 0;
        for (place, run) in runs.iter().enumerate() {
            if listed < ENDS && (place == 0 || !run.get("First").is_true()) {
                if listed == 0 {
                    lines.push("last ends:".to_owned());
                }
                listed += 1;
                lines.push(ended(run));
            }
        }
        let Some(first) = first else { return };
        lines.push("first failure of the episode:".to_owned());
        lines.push(ended(first));
        quote(first.get("LastOutput").list(), FIRST_OUTPUT, lines);
    }

    /// Adds the last output lines, as many as there is room for.
    fn output(&self, lines: &mut Vec<String>) {
        let room = LINES.saturating_sub(lines.len() + 1).min(OUTPUT);
        let kept = self.findings.output.map(|output| last_lines(output, room));
        let said = kept.as_deref().or(self.last.map(|run| run.get("LastOutput").list())).unwrap_or_default();
        if !said.is_empty() {
            lines.push("last output:".to_owned());
            quote(said, room, lines);
        }
    }
}

/// Adds the last lines of `said`, marked as output.
fn quote(said: &[Json], most: usize, lines: &mut Vec<String>) {
    for line in said.iter().skip(said.len().saturating_sub(most)) {
        lines.push(format!("    | {}", line.text()));
    }
}

/// Formats an ended run: `2026-11-22 06:45:30Z  after 1.2 s       exit 3`.
fn ended(run: &Json) -> String {
    let (start, end_time) = (time(run, "StartTime"), time(run, "EndTime"));
    let measured = run.get("LastedSeconds").seconds();
    let lasted = measured.or_else(|| end_time?.duration_since(start?).ok());
    let when = end_time.map_or_else(|| timestamp::ZERO.replace('T', " "), moment);
    let lasted = lasted.map_or_else(String::new, |lasted| format!("after {}", span(lasted)));
    let from = sender(run.get("StopSignalFrom"))
        .map_or_else(String::new, |from| format!("; stop asked for by {from}"));
    format!("  {when}  {lasted:<16}  {}{from}", end(run))
}

/// Returns the last non-empty lines of a text.
fn last_lines(text: &[u8], most: usize) -> Vec<Json> {
    let mut lines = Vec::new();
    for line in text.rsplit(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() && lines.len() < most {
            // A longer line is cut at the width of the terminal anyway.
            let line = String::from_utf8_lossy(line.get(..4096).unwrap_or(line));
            lines.push(Json::Text(line.into_owned()));
        }
    }
    lines.reverse();
    lines
}

/// Returns the value of a metric without labels, or that of its first line.
fn metric<'a>(text: &'a [u8], name: &str) -> Option<&'a str> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| {
        let rest = line.strip_prefix(name.as_bytes())?;
        match rest.first()? {
            b' ' => Some(rest),
            b'{' => rest.get(rest.iter().rposition(|byte| *byte == b'}')? + 1..),
            _ => None,
        }
    })?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()
}

#[cfg(test)]
mod tests;
