//! Parses JSON (RFC 8259) from an untrusted peer, with any members, and with a limit for the number of values.

use std::time::Duration;

/// The maximum number of values in one text. An object of the status document has 30.
const MOST: usize = 1 << 18;
/// How many arrays and objects may contain each other, because parsing them takes stack.
const DEEPEST: usize = 127;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    /// `null`, or a number that is negative or too large.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Number(u64),
    /// A number with a fraction or an exponent, to the nearest nanosecond. In the documents, all of them are seconds.
    /// Floating-point arithmetic would add 25 KiB to the program.
    Seconds(Duration),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object, with its members in the order of the text.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses a whole text; `None` if it is not valid JSON or has too many values.
    pub(crate) fn parse(text: &[u8]) -> Option<Json> {
        let mut parser = Parser { rest: text, left: MOST };
        let value = parser.value(DEEPEST)?;
        parser.peek().is_none().then_some(value)
    }

    /// Returns a member of an object; null if it does not exist.
    pub(crate) fn get(&self, name: &str) -> &Json {
        match self {
            Json::Object(members) => {
                members.iter().find(|(n, _)| n == name).map_or(&Json::Null, |(_, value)| value)
            }
            _ => &Json::Null,
        }
    }

    /// Returns the elements of an array; empty for any other value.
    pub(crate) fn list(&self) -> &[Json] {
        match self {
            Json::List(values) => values,
            _ => &[],
        }
    }

    /// Returns a string; empty for any other value.
    pub(crate) fn text(&self) -> &str {
        match self {
            Json::Text(text) => text,
            _ => "",
        }
    }

    /// Returns an integer.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Json::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns a number of seconds.
    pub(crate) fn seconds(&self) -> Option<Duration> {
        match self {
            Json::Number(number) => Some(Duration::from_secs(*number)),
            Json::Seconds(seconds) => Some(*seconds),
            _ => None,
        }
    }

    /// Whether the value is `true`.
    pub(crate) fn is_true(&self) -> bool {
        *self == Json::Bool(true)
    }
}

/// The state of parsing. All methods return `None` at an error.
struct Parser<'a> {
    /// The text that is not parsed yet.
    rest: &'a [u8],
    /// How many more values are allowed.
    left: usize,
}

impl Parser<'_> {
    /// Returns the next byte that is no white space, without consuming it.
    fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }

    /// Consumes the next byte.
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Consumes `wanted`, if it follows.
    fn skip(&mut self, wanted: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }

    /// Parses a value. `depth` is how many arrays and objects may contain each other in it.
    fn value(&mut self, depth: usize) -> Option<Json> {
        self.left = self.left.checked_sub(1)?;
        match self.peek()? {
            b'n' => self.skip(b"null").map(|()| Json::Null),
            b't' => self.skip(b"true").map(|()| Json::Bool(true)),
            b'f' => self.skip(b"false").map(|()| Json::Bool(false)),
            b'"' => self.string().map(Json::Text),
            b'[' => self.list(depth.checked_sub(1)?).map(Json::List),
            b'{' => self.object(depth.checked_sub(1)?).map(Json::Object),
            _ => self.number(),
        }
    }

    fn list(&mut self, depth: usize) -> Option<Vec<Json>> {
        let mut list = Vec::new();
        self.next();
        if self.peek()? == b']' {
            self.next();
            return Some(list);
        }
        loop {
            list.push(self.value(depth)?);
            if !self.another(b']')? {
                return Some(list);
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Vec<(String, Json)>> {
        let mut members = Vec::new();
        self.next();
        if self.peek()? == b'}' {
            self.next();
            return Some(members);
        }
        loop {
            (self.peek()? == b'"').then_some(())?;
            let name = self.string()?;
            self.peek()?;
            self.skip(b":")?;
            members.push((name, self.value(depth)?));
            if !self.another(b'}')? {
                return Some(members);
            }
        }
    }

    /// Consumes a comma or the end of an array or object. Returns whether another element follows.
    fn another(&mut self, end: u8) -> Option<bool> {
        self.peek()?;
        let byte = self.next()?;
        (byte == b',' || byte == end).then_some(byte == b',')
    }

    fn string(&mut self) -> Option<String> {
        let mut text = Vec::new();
        self.next();
        loop {
            let plain = self.rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20))?;
            let (before, rest) = self.rest.split_at_checked(plain)?;
            text.extend_from_slice(before);
            self.rest = rest;
            match self.next()? {
                b'"' => return String::from_utf8(text).ok(),
                b'\\' => text.extend_from_slice(self.escape()?.encode_utf8(&mut [0; 4]).as_bytes()),
                _ => return None,
            }
        }
    }

    /// Parses what follows a backslash.
    fn escape(&mut self) -> Option<char> {
        Some(match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex4()?;
                // A character beyond U+FFFF is written as two UTF-16 surrogates.
                if !(0xd800..0xdc00).contains(&first) {
                    return char::from_u32(first);
                }
                self.skip(b"\\u")?;
                let second = self.hex4()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + second)?
            }
            _ => return None,
        })
    }

    fn hex4(&mut self) -> Option<u32> {
        let mut number = 0;
        for _ in 0..4 {
            number = number << 4 | char::from(self.next()?).to_digit(16)?;
        }
        Some(number)
    }

    fn number(&mut self) -> Option<Json> {
        let negative = self.skip(b"-").is_some();
        let mut number = Decimal::default();
        if self.skip(b"0").is_none() {
            self.digits(&mut number)?;
        }
        let mut whole = true;
        if self.skip(b".").is_some() {
            whole = false;
            number.fraction = true;
            self.digits(&mut number)?;
        }
        if let [b'e' | b'E', rest @ ..] = self.rest {
            whole = false;
            self.rest = rest;
            let down = self.skip(b"-").is_some();
            if !down {
                self.skip(b"+");
            }
            let mut exponent = Decimal::default();
            self.digits(&mut exponent)?;
            // Too many digits are far beyond any duration.
            let digits = i32::try_from(exponent.digits).unwrap_or(i32::MAX);
            number.exponent = number.exponent.saturating_add(if down { -digits } else { digits });
        }
        Some(match number.exponent {
            _ if negative => Json::Null,
            0 if whole => Json::Number(number.digits),
            _ if whole => Json::Null,
            _ => number.duration().map_or(Json::Null, Json::Seconds),
        })
    }

    /// Parses at least one digit.
    fn digits(&mut self, number: &mut Decimal) -> Option<()> {
        let before = self.rest.len();
        while let [digit @ b'0'..=b'9', rest @ ..] = self.rest {
            number.push(*digit - b'0');
            self.rest = rest;
        }
        (self.rest.len() < before).then_some(())
    }
}

/// The decimal number `digits * 10^exponent`.
#[derive(Default)]
struct Decimal {
    digits: u64,
    exponent: i32,
    /// Whether the next digit is behind the decimal point.
    fraction: bool,
}

impl Decimal {
    /// Appends a digit. Digits that do not fit are dropped; those of a document fit.
    fn push(&mut self, digit: u8) {
        let longer = self.digits.checked_mul(10).and_then(|digits| digits.checked_add(digit.into()));
        let full = longer.is_none() || self.exponent > 0;
        if let Some(digits) = longer.filter(|_| !full) {
            self.digits = digits;
        }
        self.exponent = self.exponent.saturating_add(i32::from(full) - i32::from(self.fraction));
    }

    /// Returns that many seconds, rounded to nanoseconds; `None` if there are too many.
    fn duration(&self) -> Option<Duration> {
        let ten_to = |exponent: u32| 10_u64.checked_pow(exponent);
        let places = self.exponent.unsigned_abs();
        if self.exponent >= 0 {
            return Some(Duration::from_secs(self.digits.checked_mul(ten_to(places)?)?));
        }
        let Some(unit) = ten_to(places) else { return Some(Duration::ZERO) };
        let (seconds, part) = (self.digits / unit, self.digits % unit);
        let nanos = match ten_to(places.saturating_sub(9))? {
            1 => part * ten_to(9 - places)?,
            step => part.saturating_add(step / 2) / step,
        };
        Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_read() {
        let text = br#" {"a":[null,true,-1,2.5e3,1e300,18446744073709551615],"b":{"c":"\u00e4\n"},"a":1} "#;
        let value = Json::parse(text).unwrap();
        let seconds = Json::Seconds(Duration::from_secs(2_500));
        let list = [Json::Null, Json::Bool(true), Json::Null, seconds, Json::Null, Json::Number(u64::MAX)];
        assert_eq!(value.get("a").list(), list);
        assert_eq!(value.get("a").list()[3].seconds(), Some(Duration::from_secs(2_500)));
        assert_eq!(value.get("b").get("c").text(), "\u{e4}\n");
        assert_eq!((value.get("x"), value.get("a").get("x")), (&Json::Null, &Json::Null));
    }

    #[test]
    fn invalid_or_too_much_json_is_refused() {
        let many = format!("[{}0]", "0,".repeat(MOST));
        let deep = "[".repeat(100_000);
        for text in ["", "x", "[", "[1]x", "<html>", "\"\\ud800\"", "{\"a\":1,}", &many, &deep] {
            assert_eq!(Json::parse(text.as_bytes()), None);
        }
        assert_eq!(Json::parse(b"\"\xff\""), None);
    }

    #[test]
    fn texts_are_valid_where_serde_json_accepts_them() {
        for text in [
            " [ ] ",
            "{ }",
            "[1 , 2]",
            "[1 2]",
            "[,]",
            "[1,]",
            "{,}",
            "{1:2}",
            "{\"a\"}",
            "{\"a\" : 1 }",
            "{\"a\":}",
            "nul",
            "nullx",
            "true ",
            "False",
            "01",
            "-",
            "-0",
            "1.",
            ".5",
            "1.e1",
            "1e",
            "1e+",
            "1E+2",
            "1e-2",
            "+1",
            "0.50",
            "[0 ]",
            "\"\t\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\uD83D\\uDE00\"",
            "\"\\uD83D\\u0041\"",
            "\"\\uDE00\"",
            "\"a",
            "\"\\\"",
            "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\u{e4}\"",
            "[[[]],{}]",
            "[}",
            "{]",
            "1 1",
        ] {
            let expected = serde_json::from_str::<serde_json::Value>(text).ok();
            let value = Json::parse(text.as_bytes());
            assert_eq!(value.is_some(), expected.is_some(), "{text}");
            if let Some(string) = expected.as_ref().and_then(|value| value.as_str()) {
                assert_eq!(value.unwrap().text(), string);
            }
        }
        for (depth, valid) in [(DEEPEST, true), (DEEPEST + 1, false)] {
            let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!(Json::parse(text.as_bytes()).is_some(), valid);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), valid);
        }
    }

    #[test]
    fn fractions_are_rounded_to_nanoseconds() {
        let long = format!("1{}.5", "0".repeat(25));
        for (text, nanos) in [
            ("0.0", Some(0)),
            ("1.5", Some(1_500_000_000)),
            ("5e-6", Some(5_000)),
            ("0.123456789", Some(123_456_789)),
            ("0.1234567894999", Some(123_456_789)),
            ("0.1234567895", Some(123_456_790)),
            ("0.99999999999999999999999", Some(1_000_000_000)),
            ("3.000000000000000000000000000001", Some(3_000_000_000)),
            ("1e-30", Some(0)),
            ("1e-99999999999999999999", Some(0)),
            ("1e99999999999999999999", None),
            ("18446744073709551616", None),
            ("-1.5", None),
            (&long, None),
        ] {
            let value = Json::parse(text.as_bytes());
            assert_eq!(value.unwrap().seconds(), nanos.map(Duration::from_nanos), "{text}");
        }
    }
}
