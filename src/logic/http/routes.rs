//! The paths that kapo knows, in one table: what a request is about, the names that metrics show, and a line on
//! each for the manual.

use super::query::decoded;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table below says what each is")]
pub enum Route {
    Document,
    Livez,
    Readyz,
    Healthz,
    Metrics,
    Vars,
    Wait,
    Logs,
    Events,
    Other,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What a request for this path is about.
    pub route: Route,
    /// The path; `other` stands for any that is not in the table. Also the label `path` of the metrics, so that a
    /// label never holds what a stranger sent.
    pub path: &'static str,
    /// One line for the manual.
    pub brief: &'static str,
}

/// All of them, in the order of [`Route`].
pub const ROUTES: [Row; 10] = [
    Row { route: Route::Document, path: "/", brief: "the status document" },
    Row { route: Route::Livez, path: "/livez", brief: "200 as long as kapo answers" },
    Row {
        route: Route::Readyz,
        path: "/readyz",
        brief: "200 while the command runs and is ready, else 503 and why",
    },
    Row {
        route: Route::Healthz,
        path: "/healthz",
        brief: "200 while the command runs without flapping or has ended with success, else 503 and why",
    },
    Row {
        route: Route::Metrics,
        path: "/metrics",
        brief: "metrics for Prometheus, as text or as OpenMetrics",
    },
    Row { route: Route::Vars, path: "/debug/vars", brief: "numbers for expvar clients" },
    Row { route: Route::Wait, path: "/wait", brief: "the status document, once the run has ended" },
    Row { route: Route::Logs, path: "/logs", brief: "the last captured output, with --tail" },
    Row {
        route: Route::Events,
        path: "/events",
        brief: "the status document now and at each change, as a stream",
    },
    Row { route: Route::Other, path: "other", brief: "any other path: the status document" },
];

impl Route {
    /// What a path asks for. Percent-encoded bytes stand for themselves: no path has a `/` that is none, so there is
    /// nothing that `%2F` could mean instead (RFC 3986, section 6.2.2.2, asks for it with letters alone). Without a
    /// tail /logs is a path like any other.
    pub fn of(path: &str, tail: bool) -> Route {
        let plain = !path.as_bytes().contains(&b'%');
        ROUTES
            .iter()
            .find(|row| if plain { row.path == path } else { decoded(path).eq(row.path.bytes()) })
            .map(|row| row.route)
            .filter(|route| tail || *route != Route::Logs)
            .unwrap_or(Route::Other)
    }

    /// The path as the table has it.
    pub fn name(self) -> &'static str {
        ROUTES.get(self as usize).map_or("other", |row| row.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_in_the_order_of_the_routes() {
        for (at, row) in ROUTES.iter().enumerate() {
            assert_eq!(row.route as usize, at);
            assert_eq!(row.route.name(), row.path);
        }
    }

    #[test]
    fn a_path_is_known_as_it_stands_or_percent_encoded_and_in_no_other_form() {
        for (path, route) in [
            ("/", Route::Document),
            ("/livez", Route::Livez),
            ("/%6civez", Route::Livez),
            ("/debug/vars", Route::Vars),
            ("/debug%2Fvars", Route::Vars),
            ("/livez/", Route::Other),
            ("/Livez", Route::Other),
            ("/live", Route::Other),
            ("/%6", Route::Other),
            ("/%zz", Route::Other),
            ("", Route::Other),
            ("*", Route::Other),
            ("other", Route::Other),
        ] {
            assert_eq!(Route::of(path, true), route, "{path}");
        }
    }

    #[test]
    fn logs_are_a_path_like_any_other_without_a_tail() {
        assert_eq!(Route::of("/logs", true), Route::Logs);
        assert_eq!(Route::of("/logs", false), Route::Other);
    }
}
