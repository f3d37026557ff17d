//! Quotes text for logfmt in a reversible way. The text is written as it is, except for these bytes:
//!
//! | byte | written as |
//! |---|---|
//! | `"` and `\` | `\"` and `\\` |
//! | newline, carriage return, tab | `\n`, `\r`, `\t` |
//! | other control characters: U+0000 to U+001F, U+007F to U+009F | `\u00NN` |
//! | a byte NN that is not valid UTF-8 | `\udcNN`, a lone surrogate as in Python's surrogateescape (PEP 383); in JSON `\uefNN` |
//!
//! Every sequence of bytes therefore has exactly one form, on one line of valid UTF-8 without control characters for
//! the terminal, and undoing the escapes gives the bytes. The escapes are those of JSON strings, which readers of
//! logfmt such as Loki understand; they would reject `\xNN`.
//!
//! Strict readers of JSON reject a lone surrogate, and jq replaces it with U+FFFD. In JSON, the private-use characters
//! U+EF80 to U+EFFF therefore represent such bytes, as in MirBSD's OPTU encoding. If the text itself contains one of
//! these characters, its three bytes are escaped as if they were not valid UTF-8, so that the form remains
//! unambiguous.
//!
//! Spans without escapes are searched and copied eight bytes at a time.

use crate::config::LogFormat;

/// Writes `text` with its escapes. The caller writes the quotes.
pub(crate) fn escape(text: &[u8], format: LogFormat, out: &mut Vec<u8>) {
    let mut rest = text;
    while !rest.is_empty() {
        let start = out.len();
        let limit = (LONGEST_ESCAPE * rest.len()).min(PIECE);
        out.resize(start + limit + SLACK, 0);
        let escaped = escape_within(rest, limit, format, out.get_mut(start..).unwrap_or_default());
        out.truncate(start + escaped.written);
        rest = rest.get(escaped.read..).unwrap_or_default();
    }
}

/// Longest escape of one byte: `\u0000`.
const LONGEST_ESCAPE: usize = 6;

/// How many bytes [`escape`] writes at once.
const PIECE: usize = 256;

/// The number of bytes behind its limit that [`escape_within`] needs, because it stores whole words.
pub(crate) const SLACK: usize = 8;

/// The result of [`escape_within`].
pub(crate) struct Escaped {
    /// How many bytes of the text were escaped.
    pub(crate) read: usize,
    /// How many bytes this takes in the output.
    pub(crate) written: usize,
}

/// Writes as much of `text` as fits into `limit` bytes with its escapes, and ends between two characters. `out` must be
/// [`SLACK`] bytes longer than that; what is behind the result may have changed.
pub(crate) fn escape_within(text: &[u8], limit: usize, format: LogFormat, out: &mut [u8]) -> Escaped {
    let mut escaped = Escaped { read: 0, written: 0 };
    while let Some(rest) = text.get(escaped.read..)
        && let Some(&first) = rest.first()
    {
        if is_clean(first) {
            let clean = copy_clean(rest, out.get_mut(escaped.written..limit).unwrap_or_default());
            if clean == 0 {
                break;
            }
            escaped.read += clean;
            escaped.written += clean;
        } else {
            let form = form(rest, first, format);
            let Some(to) = out.get_mut(escaped.written..).and_then(<[u8]>::first_chunk_mut) else { break };
            if escaped.written + form.length > limit {
                break;
            }
            *to = form.bytes;
            escaped.read += form.read;
            escaped.written += form.length;
        }
    }
    escaped
}

/// Writes a value of logfmt, without quotes if every logfmt reader accepts that, otherwise quoted. Empty text becomes
/// `""`.
pub(crate) fn value(text: &[u8], out: &mut Vec<u8>) {
    if !text.is_empty() && text.iter().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'=' | b'\\')) {
        out.extend_from_slice(text);
    } else {
        quoted(text, LogFormat::Logfmt, out);
    }
}

/// Writes `text` between quotes.
pub(crate) fn quoted(text: &[u8], format: LogFormat, out: &mut Vec<u8>) {
    out.push(b'"');
    escape(text, format, out);
    out.push(b'"');
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Copies the clean bytes at the start of `text` (printable ASCII other than quote and backslash) to the start of
/// `out`, as many as fit, and returns their number. May also change the bytes behind them in `out`.
pub(crate) fn copy_clean(text: &[u8], out: &mut [u8]) -> usize {
    let length = text.len().min(out.len());
    let (words, tail) = text.get(..length).unwrap_or_default().as_chunks::<8>();
    let (out, out_tail) = out.get_mut(..length).unwrap_or_default().as_chunks_mut::<8>();
    let mut clean = 0;
    for (word, out) in words.iter().zip(out) {
        *out = *word;
        let found = dirty(u64::from_le_bytes(*word));
        if found != 0 {
            return clean + (found.trailing_zeros() / 8) as usize;
        }
        clean += 8;
    }
    clean
        + tail
            .iter()
            .zip(out_tail)
            .take_while(|(byte, _)| is_clean(**byte))
            .map(|(byte, out)| *out = *byte)
            .count()
}

fn is_clean(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

/// Sets the high bit of each byte that is not clean. For a byte below 0x80, subtracting n sets the bit if the byte is
/// less than n, and adding 1 sets it if the byte is 0x7f. A byte of 0x80 or more already has the bit. Flipping the bit of
/// 2 first moves the quote (0x22) to 0x20, directly above the control characters, and the blank out of its place. Only
/// bytes that are not clean cause a carry or a borrow.
// Always inlined, because it is called for each word of each line and the build inlines little.
#[inline(always)]
fn dirty(word: u64) -> u64 {
    let control_or_quote = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    let delete = word.wrapping_add(ONES);
    (word | control_or_quote | backslash | delete) & HIGHS
}

/// How one character is written.
struct Form {
    /// How many bytes of the text it is.
    read: usize,
    /// What is written for it; the first `length` bytes count.
    bytes: [u8; SLACK],
    length: usize,
}

/// Returns the form of the character at the start of `text`, or of its first byte if that is not valid UTF-8.
fn form(text: &[u8], first: u8, format: LogFormat) -> Form {
    let short = |letter| Form { read: 1, bytes: [b'\\', letter, 0, 0, 0, 0, 0, 0], length: 2 };
    let digit = |n: u8| if n < 10 { b'0' + n } else { b'a' + n - 10 };
    let unicode = |read, high: [u8; 2], low: u8| Form {
        read,
        bytes: [b'\\', b'u', high[0], high[1], digit(low >> 4), digit(low & 15), 0, 0],
        length: LONGEST_ESCAPE,
    };
    let length = match first {
        b'"' | b'\\' => return short(first),
        b'\n' => return short(b'n'),
        b'\r' => return short(b'r'),
        b'\t' => return short(b't'),
        0..0x80 => return unicode(1, *b"00", first),
        // The characters U+EF80 to U+EFFF, which represent bytes.
        0xee if format == LogFormat::Json && matches!(text, [_, 0xbe | 0xbf, ..]) => 1,
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    match text.get(..length) {
        Some(&[0xc2, c1 @ 0x80..=0x9f]) => unicode(2, *b"00", c1),
        Some(character) if length > 1 && std::str::from_utf8(character).is_ok() => {
            let mut bytes = [0; SLACK];
            bytes.iter_mut().zip(character).for_each(|(to, from)| *to = *from);
            Form { read: length, bytes, length }
        }
        // Take only the first byte, because the next one may begin a character.
        _ => match format {
            LogFormat::Logfmt => unicode(1, *b"dc", first),
            LogFormat::Json => unicode(1, *b"ef", first),
        },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn escaped(text: &[u8]) -> String {
        escaped_for(LogFormat::Logfmt, text)
    }

    fn escaped_for(format: LogFormat, text: &[u8]) -> String {
        let mut out = Vec::new();
        escape(text, format, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Undoes the JSON form: parses the string strictly, then converts U+EF80 to U+EFFF back to bytes.
    pub(crate) fn unescape_json(text: &str) -> Vec<u8> {
        let text: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
        let mut out = Vec::new();
        for character in text.chars() {
            match u32::from(character) {
                byte @ 0xef80..=0xefff => out.push((byte & 0xff) as u8),
                _ => out.extend_from_slice(character.to_string().as_bytes()),
            }
        }
        out
    }

    /// Undoes [`escape`]. Panics on anything that it does not write.
    pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut bytes = text.iter().copied();
        while let Some(byte) = bytes.next() {
            assert!(byte >= 0x20 && byte != b'"' && byte != 0x7f, "{byte:#x} in {text:?}");
            if byte != b'\\' {
                out.push(byte);
                continue;
            }
            match bytes.next().unwrap() {
                b'n' => out.push(b'\n'),
                b'r' => out.push(b'\r'),
                b't' => out.push(b'\t'),
                b'u' => {
                    let digits: Vec<u8> = bytes.by_ref().take(4).collect();
                    match u32::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap() {
                        byte @ 0xdc80..=0xdcff => out.push((byte & 0xff) as u8),
                        control => out.extend(char::from_u32(control).unwrap().to_string().bytes()),
                    }
                }
                plain @ (b'"' | b'\\') => out.push(plain),
                other => panic!("\\{} in {text:?}", char::from(other)),
            }
        }
        out
    }

    #[test]
    fn each_kind_of_byte_is_written_as_the_table_says() {
        for (text, wanted) in [
            (&b"plain text, 100 %"[..], "plain text, 100 %"),
            (b"say \"hi\" to C:\\", "say \\\"hi\\\" to C:\\\\"),
            (b"a\tb\r\n", "a\\tb\\r\\n"),
            (b"\0\x1b[31m\x7f", "\\u0000\\u001b[31m\\u007f"),
            ("grüße, 世界, 🦀".as_bytes(), "grüße, 世界, 🦀"),
            (b"\xc2\x9b31m \xc2\xa0.", "\\u009b31m \u{a0}."),
            (b"\xff\xc3\xa9\xe4\xb8", "\\udcffé\\udce4\\udcb8"),
            // An overlong form, a surrogate, a value beyond U+10FFFF: none is valid UTF-8.
            (
                b"\xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80",
                "\\udcc0\\udcaf \\udced\\udca0\\udc80 \\udcf4\\udc90\\udc80\\udc80",
            ),
        ] {
            assert_eq!(escaped(text), wanted);
        }
    }

    #[test]
    fn every_byte_at_every_place_of_a_word_can_be_decoded() {
        for byte in 0..=255_u8 {
            for place in 0..20 {
                for neighbour in [b'a', b'!', 0x1f, 0x80, 0xff] {
                    let mut text = [neighbour; 20];
                    text[place] = byte;
                    assert_eq!(unescape(escaped(&text).as_bytes()), text);
                }
                let mut text = [b'~'; 20];
                text[place] = byte;
                assert_eq!(escaped(&text).len() == 20, is_clean(byte), "{byte:#x} at {place}");
                let mut copy = [0; 20];
                let clean = copy_clean(&text, &mut copy);
                assert_eq!(clean, if is_clean(byte) { 20 } else { place });
                assert_eq!(copy[..clean], text[..clean]);
            }
        }
    }

    #[test]
    fn in_json_no_text_is_mistaken_for_bytes() {
        for (text, wanted) in [
            (&b"\xff\xc3\xa9\xe4\xb8"[..], "\\uefff\u{e9}\\uefe4\\uefb8"),
            ("\u{ef7f}\u{ef80}\u{f000}".as_bytes(), "\u{ef7f}\\uefee\\uefbe\\uef80\u{f000}"),
            ("\u{efff}".as_bytes(), "\\uefee\\uefbf\\uefbf"),
            (b"\xed\xa0\x80 \x1b\"\\\n", "\\uefed\\uefa0\\uef80 \\u001b\\\"\\\\\\n"),
            (b"\xee\xbe", "\\uefee\\uefbe"),
        ] {
            let json = escaped_for(LogFormat::Json, text);
            assert_eq!(json, wanted);
            assert_eq!(unescape_json(&json), text);
        }
        for byte in 0..=255_u8 {
            for before in [&b""[..], b"\xee", b"\xee\xbe", b"\xee\xbf", b"\xc2", b"12345678"] {
                let text = [before, &[byte], b"\x80!"].concat();
                assert_eq!(unescape_json(&escaped_for(LogFormat::Json, &text)), text);
            }
        }
    }

    #[test]
    fn parts_fit_the_limit_and_can_be_joined() {
        let text = "plain \"q\" \0\u{85} é世🦀 \n".repeat(5);
        for text in [text.as_bytes(), &[0xff; 100], &[0; 100], "🦀".repeat(50).as_bytes()] {
            for format in [LogFormat::Logfmt, LogFormat::Json] {
                let whole = escaped_for(format, text);
                // Miri takes minutes for all of them.
                let step = if cfg!(miri) { 97 } else { 1 };
                for limit in (6..whole.len() + 10).step_by(step) {
                    let (mut rest, mut joined) = (text, String::new());
                    while !rest.is_empty() {
                        let mut out = vec![0; limit + SLACK];
                        let Escaped { read: part, written } = escape_within(rest, limit, format, &mut out);
                        out.truncate(written);
                        assert!(part > 0 && out.len() <= limit, "{limit}");
                        // Another escape would not have fitted.
                        assert!(part == rest.len() || out.len() + LONGEST_ESCAPE > limit, "{limit}");
                        joined.push_str(std::str::from_utf8(&out).unwrap());
                        rest = &rest[part..];
                    }
                    assert_eq!(joined, whole, "{limit}");
                }
            }
        }
    }

    #[test]
    fn a_value_is_unquoted_only_if_that_is_safe() {
        for (text, wanted) in [
            ("0.0.0.0:6666", "0.0.0.0:6666"),
            ("[::1]:80", "[::1]:80"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a=b", "\"a=b\""),
            ("a\\b", "\"a\\\\b\""),
            ("é", "\"é\""),
        ] {
            let mut out = Vec::new();
            value(text.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), wanted);
        }
    }
}
