//! Reads out of the status document how a run ended, for `kapo wait -v`: reason, code, start and last lines.

/// A kapo shows no more lines of output than this.
const LINES: usize = 10;

/// A longer text is cut after this many characters. A kapo's own lines are shorter.
const LONGEST: usize = 1024;

/// A line of `name=value` and, below it, the last lines of the run's output; `None` if the document is none of a kapo.
pub(crate) fn summary(document: &[u8]) -> Option<Vec<String>> {
    let text = |name| member(document, name).and_then(string).map(|(text, _)| cut(text));
    let code = member(document, "ExitCode")?;
    let digits = code.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let code = String::from_utf8_lossy(code.get(..digits)?);
    let (reason, start) = (text("Reason")?, text("StartTime")?);
    let mut lines = vec![format!("reason={reason} code={code} start={start}")];
    let mut rest = member(document, "LastOutput").and_then(|list| list.strip_prefix(b"["));
    while lines.len() <= LINES
        && let Some((line, behind)) = rest.and_then(string)
    {
        lines.push(cut(line));
        rest = behind.strip_prefix(b",");
    }
    Some(lines)
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
    }
    text
}

/// What follows `"NAME":`, which cannot stand in a string of the document: quotes are escaped there.
fn member<'a>(document: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let key = format!("\"{name}\":");
    let at = document.windows(key.len()).position(|window| window == key.as_bytes())?;
    document.get(at + key.len()..)
}

/// The string at the beginning of a JSON text, and what follows it. (RFC 8259, 7)
fn string(text: &[u8]) -> Option<(String, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut units: Vec<u8> = Vec::new();
    loop {
        let at = memchr::memchr2(b'"', b'\\', rest)?;
        units.extend_from_slice(rest.get(..at)?);
        let (mark, behind) = rest.get(at..)?.split_first()?;
        if *mark == b'"' {
            return Some((String::from_utf8_lossy(&units).into_owned(), behind));
        }
        let (letter, behind) = behind.split_first()?;
        rest = behind;
        let c = match letter {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => escaped(&mut rest)?,
            other => char::from(*other),
        };
        units.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// The character of the digits behind `\u`, which may be followed by a second half.
fn escaped(rest: &mut &[u8]) -> Option<char> {
    let mut unit = || {
        let (digits, behind) = rest.split_at_checked(4)?;
        *rest = behind;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let first = unit()?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some(char::from_u32(first.into()).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    let Some(behind) = rest.strip_prefix(b"\\u") else { return Some(char::REPLACEMENT_CHARACTER) };
    *rest = behind;
    let (digits, behind) = rest.split_at_checked(4)?;
    *rest = behind;
    let second = u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    char::decode_utf16([first, second]).next()?.ok().or(Some(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_run_is_read_out_of_its_document() {
        let document = br#"[{"Arguments":["\"Reason\":\"fake\"","\\"],"Command":"sh","ExitCode":3,"StartTime":"2026-11-23T02:30:32Z","Reason":"exit-code","Signal":"","StopSignalFrom":{"Signal":"SIGTERM"},"LastOutput":["cannot \"open\"","\u00e4\ud83d\ude00\n\ud800x"],"Output":null}]"#;
        let expected = [
            "reason=exit-code code=3 start=2026-11-23T02:30:32Z",
            "cannot \"open\"",
            "\u{e4}\u{1f600}\n\u{fffd}x",
        ];
        assert_eq!(summary(document).unwrap(), expected);
        let none = br#"[{"ExitCode":0,"StartTime":"x","Reason":"success","LastOutput":[]}]"#;
        assert_eq!(summary(none).unwrap(), ["reason=success code=0 start=x"]);
    }

    #[test]
    fn every_cut_of_a_document_is_read_without_harm() {
        let document = br#"[{"ExitCode":3,"StartTime":"x","Reason":"r","LastOutput":["a\u00e4","\ud83d\ude00"],"Output":null}]"#;
        for end in 0..document.len() {
            let lines = summary(&document[..end]).unwrap_or_default();
            assert!(lines.len() <= 3, "{lines:?}");
        }
        assert_eq!(summary(b"<html>"), None);
    }

    #[test]
    fn long_lines_and_many_of_them_are_cut() {
        let (long, many) = ("\u{e4}".repeat(1 << 20), r#","""#.repeat(1 << 20));
        let head = r#"[{"ExitCode":3,"StartTime":"x","Reason":"r","LastOutput":["#;
        let document = format!("{head}\"{long}\"{many}]}}]");
        let lines = summary(document.as_bytes()).unwrap();
        assert_eq!(lines.len(), 1 + LINES);
        assert_eq!(lines[1], "\u{e4}".repeat(LONGEST));
    }
}
