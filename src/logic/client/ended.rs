//! Summarizes how a run ended for `kapo wait -v`, from the status document: reason, code, start and last lines.

use super::format::cut;
use super::json::Json;

/// The maximum number of output lines, which is also the maximum in a status document.
const LINES: usize = 10;

/// The maximum length of a text, in characters. Longer texts are cut. The lines of a kapo are shorter.
const LONGEST: usize = 1024;

/// Returns a line of `name=value` pairs and the last output lines of the run; `None` if the document is not that of a
/// kapo.
pub(crate) fn summary(document: &[u8]) -> Option<Vec<String>> {
    let document = Json::parse(document)?;
    let object = document.list().first()?;
    let code = object.get("ExitCode").number()?;
    let text = |name| cut(object.get(name).text(), LONGEST);
    let (Json::Text(_), Json::Text(_)) = (object.get("Reason"), object.get("StartTime")) else { return None };
    let mut lines = vec![format!("reason={} code={code} start={}", text("Reason"), text("StartTime"))];
    lines.extend(object.get("LastOutput").list().iter().take(LINES).map(|line| cut(line.text(), LONGEST)));
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_run_is_read_from_its_document() {
        let document = br#"[{"Arguments":["\"Reason\":\"fake\"","\\"],"Command":"sh","ExitCode":3,"StartTime":"2026-11-23T02:30:32Z","Reason":"exit-code","Signal":"","StopSignalFrom":{"Signal":"SIGTERM"},"LastOutput":["cannot \"open\"","\u00e4\ud83d\ude00\n"],"Output":null,"LastRun":{"Reason":"signal","ExitCode":4}}]"#;
        let expected =
            ["reason=exit-code code=3 start=2026-11-23T02:30:32Z", "cannot \"open\"", "\u{e4}\u{1f600}\n"];
        assert_eq!(summary(document).unwrap(), expected);
        let none = br#"[{"ExitCode":0,"StartTime":"x","Reason":"success"}]"#;
        assert_eq!(summary(none).unwrap(), ["reason=success code=0 start=x"]);
    }

    #[test]
    fn an_invalid_document_has_no_summary() {
        let document = br#"[{"ExitCode":3,"StartTime":"x","Reason":"r","LastOutput":["a\u00e4","\ud83d\ude00"],"Output":null}]"#;
        for end in 0..document.len() {
            assert_eq!(summary(&document[..end]), None);
        }
        for text in ["<html>", "[]", "{}", "[1]", r#"[{"ExitCode":3,"StartTime":"x"}]"#] {
            assert_eq!(summary(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn long_and_numerous_lines_are_cut() {
        let (long, many) = ("\u{e4}".repeat(1 << 20), r#","""#.repeat(1 << 10));
        let head = r#"[{"ExitCode":3,"StartTime":"x","Reason":"r","LastOutput":["#;
        let document = format!("{head}\"{long}\"{many}]}}]");
        let lines = summary(document.as_bytes()).unwrap();
        assert_eq!(lines.len(), 1 + LINES);
        assert_eq!(lines[1], "\u{e4}".repeat(LONGEST - 1) + "\u{2026}");
    }
}
