//! Chooses the format of /metrics from the request.

/// The formats of /metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Returns the format that an Accept field asks for (RFC 9110, 12.5.1). OpenMetrics is chosen only if the field
    /// names it in a supported version and its quality is not lower than that of text.
    pub fn accepted(accept: &str) -> Format {
        let mut open = 0;
        // How specific the range for text/plain is, and its quality. The most specific range counts.
        let mut text = (0, 0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (1_000, None);
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                let (key, value) = (key.trim(), value.trim().trim_matches('"'));
                if key.eq_ignore_ascii_case("q") {
                    quality = thousandths(value);
                } else if key.eq_ignore_ascii_case("version") {
                    version = Some(value);
                }
            }
            let exact = if name.eq_ignore_ascii_case("text/plain") && version.is_none_or(|v| v == "0.0.4") {
                3 + u8::from(version.is_some())
            } else if name.eq_ignore_ascii_case("text/*") {
                2
            } else {
                u8::from(name == "*/*")
            };
            if name.eq_ignore_ascii_case("application/openmetrics-text")
                && version.is_none_or(|v| v == "1.0.0")
            {
                open = open.max(quality);
            } else if exact > text.0 {
                text = (exact, quality);
            }
        }
        if open > 0 && open >= text.1 { Format::OpenMetrics } else { Format::Text }
    }

    /// Returns the value of the header field Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Parses a quality value (`1`, `0.5`, at most three decimals). Anything else counts as 0.
fn thousandths(value: &str) -> u32 {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 3 || !digits(whole) || !digits(fraction) {
        return 0;
    }
    format!("{whole}{fraction:0<3}").parse().unwrap_or(0).min(1_000)
}
