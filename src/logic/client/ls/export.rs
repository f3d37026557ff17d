//! The formats of `kapo ls` for programs: JSON, metrics, and targets of Prometheus.

use std::time::{SystemTime, UNIX_EPOCH};

use super::names::{self, text};
use super::{Instance, InstanceFacts};
use crate::config::{InstanceState, LogFormat};
use crate::logic::log::timestamp;
use crate::logic::metrics::{self, Value};

/// Returns a JSON array with an object for each instance, each on its own line. `folder` is the absolute path of the
/// folder. An object has all members. Those of the document have the same meaning there.
pub(crate) fn json(instances: &[Instance], folder: &[u8]) -> String {
    let mut out = String::new();
    for instance in instances {
        let facts = &instance.facts;
        let (pid, user) = instance.listener.unzip();
        let user = user.map_or_else(null, |user| number(user.into()));
        let pid = pid.and_then(|pid| u64::try_from(pid).ok()).unwrap_or_default();
        let members = [
            ("[{\"Name\":", quoted(instance.name.as_bytes())),
            (",\"Socket\":", socket(folder, instance)),
            (",\"State\":", quoted(instance.state.name().as_bytes())),
            (",\"KapoPid\":", number(pid)),
            (",\"Uid\":", user),
            (",\"Command\":", quoted(facts.command.as_bytes())),
            (",\"Pid\":", number(facts.pid)),
            (",\"Ready\":", yes_or_no(facts.ready)),
            (",\"Flapping\":", yes_or_no(facts.flapping)),
            (",\"Restarts\":", number(facts.restarts)),
            (",\"StartTime\":", moment(facts.start)),
            (",\"NextStart\":", moment(facts.next)),
            (",\"ExpiresAt\":", moment(facts.expires)),
            (",\"EndTime\":", moment(facts.end)),
            (",\"ExitCode\":", number(facts.code)),
            (",\"Reason\":", quoted(facts.reason.as_bytes())),
            (",\"Memory\":", facts.memory.map_or_else(null, number)),
        ];
        element(&mut out, &members, "}");
    }
    end(out)
}

fn null() -> String {
    "null".to_owned()
}

fn number(number: u64) -> String {
    number.to_string()
}

fn yes_or_no(flag: bool) -> String {
    if flag { "true" } else { "false" }.to_owned()
}

/// Returns targets for file_sd_configs: every socket on which a kapo may listen.
pub(crate) fn file_sd(instances: &[Instance], folder: &[u8]) -> String {
    let mut out = String::new();
    for instance in instances {
        // JSON has no form for a path that is not UTF-8.
        if !is_target(instance) || std::str::from_utf8(&instance.file).is_err() {
            continue;
        }
        // Prometheus takes only a host as the address. Different addresses keep its connections apart.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let host = if instance.name.bytes().all(plain) { instance.name.as_str() } else { "localhost" };
        let members = [
            ("[{\"targets\":[", quoted(host.as_bytes())),
            ("],\"labels\":{\"instance\":", quoted(instance.name.as_bytes())),
            (",\"__unix_socket__\":", socket(folder, instance)),
        ];
        element(&mut out, &members, "}}");
    }
    end(out)
}

/// Whether a kapo may listen on the socket.
fn is_target(instance: &Instance) -> bool {
    ![InstanceState::Denied, InstanceState::Foreign, InstanceState::Removed].contains(&instance.state)
}

/// Returns targets for http_sd_configs or file_sd_configs: each kapo by its path at the address of a fleet.
pub(crate) fn through_fleet(instances: &[Instance], host: &str) -> String {
    let mut out = String::new();
    for instance in instances {
        // A name that is shown with escapes has no path.
        let plain = instance.file.strip_prefix(instance.name.as_bytes());
        if is_target(instance) && plain.is_some_and(|ending| matches!(ending, b"" | names::SUFFIX)) {
            let path = ["/i/", &instance.name, "/metrics"].concat();
            let members = [
                ("[{\"targets\":[", quoted(host.as_bytes())),
                ("],\"labels\":{\"__metrics_path__\":", quoted(path.as_bytes())),
                (",\"name\":", quoted(instance.name.as_bytes())),
            ];
            element(&mut out, &members, "}}");
        }
    }
    end(out)
}

/// Appends an object to the array. The first key contains the bracket that opens the array.
fn element(out: &mut String, members: &[(&str, String)], close: &str) {
    for (place, (key, value)) in members.iter().enumerate() {
        let key = match (place, key.strip_prefix('[')) {
            (0, Some(key)) if !out.is_empty() => {
                out.push_str(",\n");
                key
            }
            _ => key,
        };
        out.push_str(key);
        out.push_str(value);
    }
    out.push_str(close);
}

fn end(mut out: String) -> String {
    out.push_str(if out.is_empty() { "[]\n" } else { "]\n" });
    out
}

/// Returns a time as a JSON string.
fn moment(time: Option<SystemTime>) -> String {
    let text = time.map_or_else(|| timestamp::ZERO.to_owned(), timestamp::rfc3339);
    quoted(text.as_bytes())
}

/// Returns the path of the socket as a JSON string.
fn socket(folder: &[u8], instance: &Instance) -> String {
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    quoted(&[folder, b"/", &instance.file].concat())
}

/// Returns a text as a JSON string.
fn quoted(bytes: &[u8]) -> String {
    ["\"", &text(bytes, LogFormat::Json), "\""].concat()
}

/// The metric that every socket has.
pub(crate) const UP: (&str, &str) = ("kapo_up", "1 if a kapo answers on the socket.");

/// Returns the value of a metric; `None` if there is none yet.
type ReadValue = fn(&InstanceFacts) -> Option<Value>;

/// The metrics of the sockets on which a kapo answers. Their names and help texts are those of /metrics.
pub(crate) const METRICS: &[(&str, ReadValue)] = &[
    ("kapo_child_up", |facts| Some(Value::Number(facts.running.into()))),
    ("kapo_child_ready", |facts| Some(Value::Number(facts.ready.into()))),
    ("kapo_flapping", |facts| Some(Value::Number(facts.flapping.into()))),
    ("kapo_child_starts_total", |facts| {
        let first = facts.start.is_some() || !facts.reason.is_empty();
        // As on /metrics, a watched process has no starts.
        (!facts.watches).then_some(Value::Number(facts.restarts.saturating_add(first.into())))
    }),
    ("kapo_child_last_exit_code", |facts| (!facts.reason.is_empty()).then_some(Value::Number(facts.code))),
    ("kapo_child_start_time_seconds", |facts| seconds(facts.start)),
    ("kapo_child_last_end_time_seconds", |facts| seconds(facts.end)),
    ("kapo_child_last_success_time_seconds", |facts| {
        seconds(facts.end.filter(|_| facts.reason == "success"))
    }),
];

fn seconds(time: Option<SystemTime>) -> Option<Value> {
    time?.duration_since(UNIX_EPOCH).ok().map(Value::Seconds)
}

/// Returns the metrics of all instances, with the label `name`.
pub(crate) fn prom(instances: &[Instance]) -> Vec<u8> {
    let mut out = Vec::new();
    family(&mut out, instances, UP.0, UP.1, None);
    for (name, _, help) in metrics::described() {
        if let Some((name, read)) = METRICS.iter().find(|(known, _)| *known == name) {
            family(&mut out, instances, name, help, Some(*read));
        }
    }
    out
}

/// Appends one metric. Without `read`, its value is whether the instance answers.
fn family(out: &mut Vec<u8>, instances: &[Instance], name: &str, help: &str, read: Option<ReadValue>) {
    let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
    let mut head = ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"].concat();
    for instance in instances {
        let value = match read {
            None => Some(Value::Number(instance.answers.into())),
            Some(read) => Some(&instance.facts).filter(|_| instance.answers).and_then(read),
        };
        if let Some(value) = value {
            // A metric without samples has no metadata lines either.
            out.extend_from_slice(std::mem::take(&mut head).as_bytes());
            let label = ("name", instance.name.as_str());
            metrics::sample(out, name, "", &mut std::iter::once(label), value);
        }
    }
}
