//! The table of routes: path, name in the metrics, and a line for the manual.

use super::query::decoded;

/// The resource that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table below describes each variant")]
pub enum Route {
    Document,
    Runs,
    Livez,
    Readyz,
    Healthz,
    Startupz,
    Metrics,
    Vars,
    Wait,
    Logs,
    Events,
    Ui,
    Other,
}

/// A row of the table of routes.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The route of this path.
    pub route: Route,
    /// The path; `other` stands for every path that is not in the table. This is also the label `path` of the metrics,
    /// so that a label never contains text that a client has sent.
    pub path: &'static str,
    /// One line for the manual.
    pub brief: &'static str,
}

/// Every route, in the order of [`Route`].
pub const ROUTES: [Row; 13] = [
    Row { route: Route::Document, path: "/", brief: "the status document" },
    Row { route: Route::Runs, path: "/runs", brief: "the last runs that ended; 404 with --history 0" },
    Row { route: Route::Livez, path: "/livez", brief: "200 as long as kapo answers" },
    Row {
        route: Route::Readyz,
        path: "/readyz",
        brief: "200 while the command runs and is ready, otherwise 503 with the reason",
    },
    Row {
        route: Route::Healthz,
        path: "/healthz",
        brief: "200 while the command runs or after it has ended with success, unless it is flapping; \
                otherwise 503 with the reason",
    },
    Row {
        route: Route::Startupz,
        path: "/startupz",
        brief: "200 once the command has been ready in this run, otherwise 503",
    },
    Row {
        route: Route::Metrics,
        path: "/metrics",
        brief: "metrics for Prometheus, as text or as OpenMetrics",
    },
    Row { route: Route::Vars, path: "/debug/vars", brief: "numbers as JSON, in the expvar format of Go" },
    Row { route: Route::Wait, path: "/wait", brief: "the status document, sent when the run has ended" },
    Row { route: Route::Logs, path: "/logs", brief: "the last captured output; 404 without --tail" },
    Row {
        route: Route::Events,
        path: "/events",
        brief: "a stream of the status document: now, and after each change",
    },
    Row { route: Route::Ui, path: "/ui", brief: "a page for browsers; also at `/` for a browser" },
    Row { route: Route::Other, path: "other", brief: "any other path: the status document" },
];

/// The health probes and an alias of each.
const PROBES: [(Route, &str); 4] = [
    (Route::Livez, "/live"),
    (Route::Readyz, "/ready"),
    (Route::Healthz, "/health"),
    (Route::Startupz, "/startup"),
];

impl Route {
    /// Returns the route of a path. Percent-encoded bytes are decoded first. This includes `%2F`, because no known path
    /// contains a `/` that is not a separator. RFC 3986, section 6.2.2.2, requires it only for unreserved characters.
    pub fn of(path: &str) -> Route {
        let plain = !path.as_bytes().contains(&b'%');
        let exact = ROUTES
            .iter()
            .find(|row| if plain { row.path == path } else { decoded(path).eq(row.path.bytes()) })
            .map(|row| row.route);
        exact.unwrap_or_else(|| Route::of_mistyped_probe(path).unwrap_or(Route::Other))
    }

    /// Returns the probe for an alias or a trailing slash. Otherwise the status document would answer 200, and a probe
    /// with a mistyped path would never fail.
    fn of_mistyped_probe(path: &str) -> Option<Route> {
        let with_slash = |name: &str| decoded(path).eq(name.bytes().chain([b'/']));
        PROBES
            .iter()
            .find(|(probe, alias)| {
                decoded(path).eq(alias.bytes()) || with_slash(alias) || with_slash(probe.name())
            })
            .map(|(probe, _)| *probe)
    }

    /// Returns the path from the table.
    pub fn name(self) -> &'static str {
        ROUTES.get(self as usize).map_or("other", |row| row.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_order_of_the_routes() {
        for (at, row) in ROUTES.iter().enumerate() {
            assert_eq!(row.route as usize, at);
            assert_eq!(row.route.name(), row.path);
        }
    }

    #[test]
    fn a_path_matches_plain_or_percent_encoded() {
        for (path, route) in [
            ("/", Route::Document),
            ("/livez", Route::Livez),
            ("/%6civez", Route::Livez),
            ("/debug/vars", Route::Vars),
            ("/debug%2Fvars", Route::Vars),
            ("/logs", Route::Logs),
            ("/Livez", Route::Other),
            ("/metrics/", Route::Other),
            ("/%6", Route::Other),
            ("/%zz", Route::Other),
            ("", Route::Other),
            ("*", Route::Other),
            ("other", Route::Other),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn a_mistyped_path_of_a_probe_is_the_probe() {
        for (names, route) in [
            (["/live", "/live/", "/livez/", "/%6cive", "/livez%2F"], Route::Livez),
            (["/ready", "/ready/", "/readyz/", "/re%61dy/", "/ready%2f"], Route::Readyz),
            (["/health", "/health/", "/healthz/", "/healt%68", "/healthz%2f"], Route::Healthz),
            (["/healthy", "/health//", "//health", "/livez/x", "/HEALTH"], Route::Other),
        ] {
            for name in names {
                assert_eq!(Route::of(name), route, "{name}");
            }
        }
    }
}
