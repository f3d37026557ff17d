//! `kapo fleet`: its paths. What passes between a client and a kapo of the folder is in `proxied`.

pub(crate) mod proxied;

use crate::logic::http::query::decoded;

/// The longest name of a file (NAME_MAX).
const LONGEST_NAME: usize = 255;

/// What a path of `kapo fleet` stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// The list of all kapos: the page, text or JSON.
    List,
    /// The page.
    Page,
    /// The stream of changed rows.
    Changes,
    /// The targets for Prometheus.
    Discovery,
    /// The probes of fleet itself.
    Probe,
    /// A path of one kapo: its name, and the path as that kapo gets it.
    Kapo(Vec<u8>, &'a str),
    /// A kapo without the final slash, which the relative addresses of its page need: the name as sent.
    Slashless(&'a str),
    /// No such path.
    Unknown,
}

impl Target<'_> {
    /// Returns the target of a path, which is printable ASCII.
    pub(crate) fn of(path: &str) -> Target<'_> {
        let Some(below) = path.strip_prefix("/i/") else {
            return match path {
                "/" => Target::List,
                "/ui" => Target::Page,
                "/events" => Target::Changes,
                "/sd" => Target::Discovery,
                "/livez" | "/readyz" => Target::Probe,
                _ => Target::Unknown,
            };
        };
        let end = below.find('/').unwrap_or(below.len());
        let (name, rest) = below.split_at(end);
        match file_name(name) {
            Some(_) if rest.is_empty() => Target::Slashless(name),
            Some(file) => Target::Kapo(file, rest),
            None => Target::Unknown,
        }
    }
}

/// Decodes a name; `None` if no kapo of the folder can have it. A name with control characters is shown escaped, so no
/// client asks for it.
fn file_name(name: &str) -> Option<Vec<u8>> {
    let name: Vec<u8> = decoded(name).collect();
    let odd = |byte: &u8| byte.is_ascii_control() || *byte == b'/';
    let refused = matches!(name.as_slice(), b"" | b"." | b"..")
        || name.starts_with(b".kapo")
        || name.len() > LONGEST_NAME
        || name.iter().any(odd);
    (!refused).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_target() {
        for (path, target) in [
            ("/", Target::List),
            ("/sd", Target::Discovery),
            ("/metrics", Target::Unknown),
            ("/i/", Target::Unknown),
            ("/i", Target::Unknown),
            ("/i/web", Target::Slashless("web")),
            ("/i/web/", Target::Kapo(b"web".to_vec(), "/")),
            ("/i/a%20b/logs/../x", Target::Kapo(b"a b".to_vec(), "/logs/../x")),
        ] {
            assert_eq!(Target::of(path), target, "{path}");
        }
    }

    #[test]
    fn a_name_cannot_leave_the_folder() {
        let long = "x".repeat(256);
        for name in
            [".", "..", "%2e%2e", "%2E.", "..%2fx", "a%2Fb", "%2f", "a%00", "a%0a", "%7f", ".kapo-1", &long]
        {
            assert_eq!(Target::of(&format!("/i/{name}/metrics")), Target::Unknown, "{name}");
        }
    }
}
